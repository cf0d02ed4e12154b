"""The locust file of exercise 11: on a real service, with the web page, in several processes, and as a starter."""

import os
import re
import sys
import time

import httpx
import locust_runs
import pytest
from locust_runs import FILE, run_locust, stand_in

from course import ROOT
from course.base.manifest import solution
from course.base.processes import free_port, running, wait
from course.harness import http
from course.harness.submission import Submission


def test_drives_a_real_service(submission, models_dir):
    with submission.serve("ex10_service.py", env={"MODELS_DIR": str(models_dir)}) as server:
        run = run_locust(submission, server.url, "--payload", "image", users=4, seconds=3)
    assert run.code == 0, run.log
    assert len(run.samples["ends"]) > 4
    assert not run.samples["failures"]
    assert "predictions" in run.samples["answer"]


def test_works_in_several_processes(submission, tmp_path):
    port = free_port()
    with stand_in() as server:
        command = [sys.executable, "-m", "locust", "-f", str(solution(FILE)), "--headless", "--host", f"{server.url}/"]
        command += ["--processes", "2", "--master-bind-port", str(port), "--master-port", str(port)]
        command += ["--users", "4", "--spawn-rate", "4", "--run-time", "2s", "--payload", "npy"]
        with running(command, cwd=ROOT, env=os.environ, log=tmp_path / "log") as process:
            assert wait(process, 60) == 0, (tmp_path / "log").read_text()
    assert "2 workers" in (tmp_path / "log").read_text() or "index 1" in (tmp_path / "log").read_text()
    assert {one.path for one in server.received} == {"/predict_npy"}


def test_the_web_page_offers_the_payloads(tmp_path):
    port = free_port()
    with stand_in() as server:
        command = [sys.executable, "-m", "locust", "-f", str(solution(FILE)), "--host", server.url]
        command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with running(command, cwd=ROOT, env=os.environ, log=tmp_path / "log") as process:
            give_up = time.monotonic() + 30
            while True:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < give_up, (tmp_path / "log").read_text()
                try:
                    page = http.get(url).text
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            assert re.search(r'"payload".*"image".*"json".*"npy"', page)
            form = {"user_count": 2, "spawn_rate": 2, "host": server.url, "payload": "json"}
            assert http.post(f"{url}/swarm", data=form).json()["success"]
            while not server.received:
                assert time.monotonic() < give_up, (tmp_path / "log").read_text()
                time.sleep(0.1)
    assert {one.path for one in server.received} == {"/predict"}


@pytest.mark.parametrize("test", [name for name in dir(locust_runs) if name.startswith("test_")])
def test_the_starter_says_what_is_left_to_do(test, tmp_path):
    with pytest.raises(pytest.fail.Exception, match="NotImplementedError: Return the path, the headers and the body"):
        getattr(locust_runs, test)(Submission(ROOT / "exercises", tmp_path))
