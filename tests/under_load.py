"""What every service must stand while it is busy: a killed worker, SIGTERM, too many callers, a new model file.

Each of these first asks once whether the service classifies at all: the load would wait long for one that does not.
"""

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bad_input import LARGE
from image_service import assert_still_serves

from course.base.processes import left_behind, wait
from course.harness import http
from course.harness.load import CLIENTS, Answer, Crowd, ask, load, tally, workers
from course.harness.server import Server
from course.harness.verdicts import expect, fail

BACK_AGAIN, ENDED = 10, 20  # seconds until a killed worker is replaced, until a service has stopped


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true in time."""
    give_up = time.monotonic() + seconds
    while not (now := holds()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return now


def wait_for(answered: list[Answer], more: int, server: Server) -> None:
    """Until so many more requests were answered with 200."""

    def successes() -> int:
        return Counter(answer.status for answer in list(answered))[200]

    wanted = successes() + more
    if not wait_until(lambda: successes() >= wanted, seconds=60):
        fail(f"The service no longer answers under load: {tally(answered)}.{server.last_words()}")


@contextmanager
def stopped(server: Server, service: str = "ImageClassifierService") -> Iterator[None]:
    """The workers of one of the services stand still during the block: they listen, and answer nothing."""
    processes = workers(server, service)
    if not processes:
        fail(f"There is no service called {service}: no process with --service-name {service}.{server.last_words()}")
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def crowd_at_once(server: Server, requests: int, image: bytes) -> Crowd:
    """A crowd whose requests all come at once: the entry's workers stand still until they are sent."""
    with stopped(server):
        crowd = Crowd(server, requests, image)
        crowd.wait_until_sent()
    return crowd


def assert_survives_a_killed_worker(
    server: Server, service: str = "ImageClassifierService", may_lose: int = CLIENTS
) -> None:
    """SIGKILL for one worker under load costs at most what it held; another takes its place within BACK_AGAIN s."""
    assert_still_serves(server, "before the load")
    before = workers(server, service)
    called = f"kill -KILL (a worker of {service}) while {CLIENTS} clients classify"
    hint = "finish(ImageClassifierService), from serving.service; nothing that the next worker needs may be lost"
    if not before:
        fail(f"{called}: there is no process with --service-name {service}.{server.last_words()}")
    with load(server) as answered:
        wait_for(answered, 5, server)
        before[0].kill()
        replaced = wait_until(lambda: any(one not in before for one in workers(server, service)), BACK_AGAIN)
        expect(
            replaced,
            called=called,
            got=f"after {BACK_AGAIN} s no new process",
            expected=f"{len(before)} workers again within {BACK_AGAIN} s",
            hint=hint,
        )
        wait_for(answered, 2 * CLIENTS, server)
    lost = [answer for answer in answered if answer.status != 200]
    expect(
        len(lost) <= may_lose,
        called=called,
        got=tally(answered),
        expected=f"200 for all but the {may_lose} requests that it may have held" if may_lose else "200 for all",
        hint=hint,
    )


def assert_finishes_on_sigterm(server: Server, requests: int = 80) -> None:
    """SIGTERM under load: every request that the service has accepted is answered, it ends, nothing is left.

    The server's own count says how many it has accepted; what comes later finds nobody who accepts it. The server is
    gone afterwards: a module's last test.
    """
    assert_still_serves(server, "before the load")
    idle = requests_in_work(server)  # those that a worker held when it was killed are counted for ever
    crowd = crowd_at_once(server, requests, LARGE)
    accepted = 0  # at least: what is answered between the two counts is in neither

    def many_in_work() -> bool:
        nonlocal accepted, crowd
        if len(crowd.answered) == requests:  # before there was time to count
            crowd = crowd_at_once(server, requests, LARGE)
        before, in_work = len(crowd.answered), requests_in_work(server) - idle
        accepted = before + in_work
        return in_work >= requests // 4

    in_time = wait_until(many_in_work, seconds=30)
    server.process.send_signal(signal.SIGTERM)
    code = wait(server.process, ENDED)
    left = left_behind(server.process)
    answered = crowd.wait()
    called = f"{requests} POST /classify at once, and kill -TERM (bentoml serve) while many are accepted"
    statuses = Counter(one.status for one in answered)
    expect(
        in_time and statuses[200] >= accepted and set(statuses) <= {200, 0},
        called=called,
        got=f"{tally(answered)}{server.last_words()}",
        expected=f"200 for the {accepted} that the service had accepted; no answer, not a broken one, for those after",
        hint="finish(ImageClassifierService), from serving.service, stops the services that it asks last",
    )
    expect(
        code is not None and not left,
        called=called,
        got=f"exit code {code}, processes left: {left}",
        expected=f"ended within {ENDED} s, with all its workers",
        hint="do not catch SIGTERM; end what you start in @bentoml.on_shutdown",
    )


def metric(server: Server, name: str, service: str, where: Callable[[str], bool]) -> int:
    """The sum of one of the server's counts, over the lines of one of its services that fulfil a condition."""
    lines = server.request("GET", "/metrics").text.splitlines()
    own = [line for line in lines if line.startswith(f"{name}{{") and f'runner_name="{service}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in own if where(line))


def requests_in_work(server: Server, service: str = "ImageClassifierService") -> int:
    """How many POST /classify a service has accepted and not yet answered."""
    return metric(server, "bentoml_service_request_in_progress", service, lambda line: 'endpoint="/classify"' in line)


def assert_answers_overload(server: Server, requests: int = 400) -> None:
    """More requests at once than the service takes: the surplus gets 429 or 503 at once, the others 200.

    Its workers stand still until all are sent, and each image takes long to prepare: requests pile up however fast the
    model and the machine are.
    """
    assert_still_serves(server, "before the load")
    answered = crowd_at_once(server, requests, LARGE).wait()
    called = f"{requests} POST /classify at once"
    refused = [one for one in answered if one.status in (429, 503)]
    served = [one for one in answered if one.status == 200]
    late = [one for one in answered if one.status == 504]  # a busy machine: the service's own limit of 30 s
    expect(
        len(refused) + len(served) + len(late) == requests
        and bool(refused)
        and bool(served)
        and all(one.text for one in refused),
        called=called,
        got=tally(answered),
        expected="some 200, and 429 or 503 with a body that says so for those over the bound; 504 after 30 s",
        hint=f'traffic={{"max_concurrency": 256}} in @bentoml.service.{server.last_words()}',
    )
    expect(
        answered.index(refused[0]) < answered.index(served[-1]),
        called=called,
        got="the refusals came after all answers",
        expected="refused at once, not after waiting in the queue",
        hint='traffic={"max_concurrency": 256} in @bentoml.service',
    )


def assert_unharmed_by_a_new_model(server: Server, folder: Path, name: str = "resnet18.onnx") -> None:
    """Another file takes the model's place under load: every answer stays 200, and what it was.

    folder: the MODELS_DIR of this server alone; it must hold model_b.onnx.
    """
    assert_still_serves(server, "before the load")
    with http.Client(timeout=60) as client:
        before = ask(client, server)
    with load(server) as answered:
        wait_for(answered, 5, server)
        shutil.copy(folder / "model_b.onnx", folder / "new")
        os.replace(folder / "new", folder / name)
        wait_for(answered, 2 * CLIENTS, server)
    different = [one for one in answered if one.status != 200 or labels_in(one) != labels_in(before)]
    expect(
        not different,
        called=f"another model takes the place of {name} while {CLIENTS} clients classify",
        got=tally(different),
        expected=f"200 with the same labels as before: {before.text[:200]}",
        hint="load the model once, in __init__; the next start takes the new file",
    )


def labels_in(answer: Answer) -> object:
    """The predictions of one answer; the whole answer where it has none."""
    try:
        return json.loads(answer.text)["predictions"]
    except (ValueError, LookupError, TypeError):
        return answer.text


def own_copy(models_dir: Path, folder: Path) -> Path:
    """Links to all models in a folder of one's own: replacing one there leaves models_dir as it is."""
    for model in models_dir.glob("*.onnx"):
        os.link(model, folder / model.name)
    return folder
