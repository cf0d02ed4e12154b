"""What the solutions of exercises 09 and 10 answer to unusual clients, which no submission has to."""

import codecs
import contextlib
import gzip
import http.client
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest
from bad_input import METADATA

from course import ROOT
from course.base.processes import free_port, running
from course.harness import http as bounded
from course.harness.load import CAT, workers
from course.harness.server import Server
from course.harness.submission import Submission

SERVICE = "ex10_service.py"


@pytest.fixture(scope="module")
def application(submission, small_models_dir):
    with submission.serve_app("ex09_fastapi.py", env={"MODELS_DIR": str(small_models_dir)}) as running:
        yield running


@pytest.fixture(scope="module", params=["application", "server"])
def each(request):
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


def test_a_caller_who_reads_only_after_sending_sees_why_they_were_refused(each):
    """A body that is too large is not answered with a broken pipe while it is still being sent."""
    connection = http.client.HTTPConnection(each.url.removeprefix("http://"), timeout=60)
    connection.request("POST", "/classify", body=bytes(100 * 2**20))
    response = connection.getresponse()
    assert response.status == 413
    assert b"expected a body of at most 10,485,760 bytes" in response.read()


def test_an_empty_body_is_called_empty(each):
    assert "empty" in each.request("POST", "/classify", content=b"").json()["error"]


# What Java's HTTP client sends with its first request, and so everything that is built on it.
H2C = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAoAAAAAIAAAAA"}


def test_an_offer_of_http_2_is_passed_over(each):
    """RFC 9110, section 7.8: a server may ignore Upgrade, and then answers as if it were not there."""
    asked = [each.request("POST", "/classify", content=CAT, headers=headers) for headers in (H2C, {})]
    assert [response.status_code for response in asked] == [200, 200], asked[0].text
    assert asked[0].json()["predictions"] == asked[1].json()["predictions"]


@pytest.mark.parametrize("kind", METADATA)
def test_damage_in_metadata_is_no_damage_of_the_image(each, kind):
    response = each.request("POST", "/classify", content=METADATA[kind]()[0])
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("name", ["content-type", "user-agent", "x-name"])
def test_a_refusal_arrives_whole_whatever_the_headers_hold(each, name):
    """Bytes outside ASCII are allowed in a header's value: RFC 9110, section 5.5."""
    for path in ("/classify", "/predict"):
        response = each.request("POST", path, content=b"neither", headers={name.encode(): b"caf\xe9 \xff"})
        assert response.status_code in (400, 415, 422), response.text
        assert "error" in response.text or "detail" in response.text, f"{name}: {response.content!r}"
    assert "Traceback" not in each.log.read_text(errors="replace")


def test_a_compressed_body_is_refused_by_its_name(each):
    for path, body in (("/classify", CAT), ("/predict", b'{"image": []}')):
        response = each.request("POST", path, content=gzip.compress(body), headers={"content-encoding": "gzip"})
        assert response.status_code == 415
        assert "expected a body without Content-Encoding, got 'gzip'" in response.json()["error"]


def test_json_may_begin_with_a_byte_order_mark(each):
    """Windows' editors and PowerShell write one."""
    image = json.dumps({"image": np.zeros((1, 3, 224, 224)).tolist()}).encode()
    kind = {"content-type": "application/json"}
    response = each.request("POST", "/predict", content=codecs.BOM_UTF8 + image, headers=kind)
    assert response.status_code == 200, response.text[:300]


def test_a_long_temporary_folder_does_not_keep_a_composed_service_from_starting(submission, small_models_dir, tmp_path):
    """macOS has long ones, and so have clusters; services talk to each other over sockets in there."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    env = {"MODELS_DIR": str(small_models_dir), "TMPDIR": str(long)}
    with submission.serve("ex14_sequential.py", env=env) as running:
        assert running.request("POST", "/classify", content=CAT).status_code == 200


@pytest.fixture(scope="module")
def two_workers(small_models_dir, tmp_path_factory):
    """Exercise 13 on every address of the machine."""
    folder, port = tmp_path_factory.mktemp("two"), free_port()
    command = [sys.executable, "-m", "bentoml", "serve", "ex13_workers:ImageClassifierService", "--host", "::"]
    command += ["--port", str(port), "--working-dir", str(ROOT / "solutions")]
    env = os.environ | {"MODELS_DIR": str(small_models_dir), "BENTOML_HOME": str(folder / "home"), "WORKERS": "2"}
    with running(command, cwd=folder, env=env, log=folder / "log") as process:
        server = Server(f"http://[::1]:{port}", process, folder / "log")
        server.wait_until_ready("bentoml serve --host ::", 60)
        yield server


def test_on_every_address_a_service_answers_on_ipv6_and_ipv4(two_workers):
    """What the page of exercise 10 says: `bentoml serve --host ::` listens on both."""
    for url in (two_workers.url, two_workers.url.replace("[::1]", "127.0.0.1")):
        assert bounded.post(f"{url}/classify", content=CAT).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="counts the connections of other processes")
def test_workers_share_the_connections_of_clients_that_come_at_once(two_workers):
    """Of 32 the smaller part is 14 on average; without spread_connections() it is 7, and often none."""
    both, address, smaller = workers(two_workers), ("127.0.0.1", int(two_workers.url.rpartition(":")[2])), []
    for _ in range(10):
        with contextlib.ExitStack() as clients:
            for _ in range(32):
                clients.enter_context(socket.create_connection(address))
            held = poll(lambda: [connections(one, address[1]) for one in both], lambda counts: sum(counts) == 32)
            smaller.append(min(held))
    assert sum(smaller) >= 100, smaller


def connections(worker: psutil.Process, port: int) -> int:
    return sum(one.status == "ESTABLISHED" and one.laddr.port == port for one in worker.net_connections("tcp"))


def poll(look: Callable[[], list[int]], enough: Callable[[list[int]], bool], patience: float = 20) -> list[int]:
    give_up = time.monotonic() + patience
    while not enough(seen := look()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return seen


def test_a_page_on_another_origin_may_be_allowed(small_models_dir, tmp_path):
    """The setting that the page of exercise 10 shows."""
    shown = (ROOT / "docs" / "ex10_service.md").read_text()
    (setting,) = re.findall(r"^(@bentoml\.service\(.*?^\))$", shown, re.M | re.S)
    text = (ROOT / "solutions" / "ex10_service.py").read_text()
    changed = re.sub(r"^@bentoml\.service\(.*$", lambda _: setting, text, flags=re.M)
    assert changed != text
    (tmp_path / "ex10_service.py").write_text(changed)
    page = {"origin": "https://shop.example"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    submission, env = Submission(tmp_path, tmp_path / "scratch"), {"MODELS_DIR": str(small_models_dir)}
    with submission.serve(SERVICE, env=env) as running:
        before = running.request("OPTIONS", "/classify", headers=page | asks)
        allowed = running.request("POST", "/classify", content=CAT, headers=page)
        other = running.request("POST", "/classify", content=CAT, headers={"origin": "https://other.example"})
    assert before.status_code == allowed.status_code == other.status_code == 200
    assert "access-control-allow-origin" not in other.headers
    for response in (before, allowed):
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
