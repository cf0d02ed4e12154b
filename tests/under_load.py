"""What every service must stand while it is busy: a killed worker, SIGTERM, too many callers, a new model file.

Callers send different images, and each has to get the answer that its own image gets while nobody else asks.
"""

import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from bad_input import LARGE
from image_service import assert_ok, predictions, same

from course.base.processes import left_behind, wait
from course.harness.load import CLIENTS, PHOTOGRAPHS, Answer, Crowd, at_once, load, tally, workers
from course.harness.server import Server
from course.harness.verdicts import expect, fail, inconclusive
from serving.images import open_image, preprocess

BACK_AGAIN, ENDED = 10, 45  # seconds until a killed worker is replaced, until a service has stopped
SPEED = 20  # photographs a second: a tenth of what one core of a laptop prepares


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


def assert_all_served(server: Server, answered: list[Answer], called: str, hint: str) -> None:
    """200 for every one. The service's own 504, after 30 s, may be the machine's fault: how fast is it now?"""
    if any(one.status == 504 for one in answered) and (speed := photographs_a_second()) < SPEED:
        inconclusive(f"this machine decodes {speed:.0f} photographs a second; the test needs {SPEED}")
    served = all(one.status == 200 for one in answered)
    hint = f"{hint}.{server.last_words()}"
    expect(served, called=called, got=tally(answered), expected="200 for every one", hint=hint)


def photographs_a_second() -> float:
    """How many one process decodes and prepares, measured for half a second."""
    done, begun = 0, time.monotonic()
    while (took := time.monotonic() - begun) < 0.5:
        preprocess(open_image(PHOTOGRAPHS[0]))
        done += 1
    return done / took


# ------------------------------------------------------------------------------ each caller's own answer


OWN = "keep what belongs to one request in local variables: `self` and globals are shared by all that run at a time"


class Alone:
    """What images are answered while nobody else asks. Fails the test where the service does not classify them."""

    def __init__(self, server: Server, images: Sequence[bytes] = PHOTOGRAPHS) -> None:
        self.server, self.expected = server, {}
        for image in images:
            response = server.request("POST", "/classify", content=image)
            assert_ok(server, response, "POST /classify, before the load", "open_image, preprocess, session.run, top5.")
            self.expected[image] = predictions(response.text)

    def assert_same(self, answered: list[Answer], called: str, hint: str = OWN) -> None:
        """Every answer of 200 is that of its own image."""
        given = [one for one in answered if one.status == 200]
        wrong = [one for one in given if not same(predictions(one.text), self.expected[one.sent])]
        expect(
            not wrong,
            called=f"{called}; the callers send {len(self.expected)} different images",
            got=f"{len(wrong)} of {len(given)} answers are not what their image gets alone: {[one.text for one in wrong[:1]]}",
            expected="for each caller the answer to their own image",
            hint=hint,
        )


def assert_answers_each_their_own(server: Server, images: Sequence[bytes], requests: int, users: int) -> None:
    """So many requests, so many at once: none fails, and each gets the answer to its own image."""
    alone, bodies = Alone(server, images), [*images] * (requests // len(images))
    answered = at_once(server, "/classify", bodies, users)
    called = f"{len(bodies)} POST /classify, {users} at a time"
    assert_all_served(
        server, answered, called, "finish(), from serving.service, keeps connections between services open"
    )
    alone.assert_same(answered, called)


# ------------------------------------------------------------------------------ trouble


@contextmanager
def standing_still(processes: list[psutil.Process]) -> Iterator[None]:
    """Workers that listen, and answer nothing during the block."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@contextmanager
def stopped(server: Server, service: str = "ImageClassifierService") -> Iterator[None]:
    """All workers of one of the services stand still."""
    processes = workers(server, service)
    if not processes:
        fail(f"There is no service called {service}: no process with --service-name {service}.{server.last_words()}")
    with standing_still(processes):
        yield


def crowd_at_once(server: Server, requests: int, images: Sequence[bytes] = LARGE) -> Crowd:
    """A crowd whose requests all come at once: the entry's workers stand still until they are sent."""
    with stopped(server):
        crowd = Crowd(server, requests, images)
        crowd.wait_until_sent()
    return crowd


def assert_survives_a_killed_worker(
    server: Server, service: str = "ImageClassifierService", may_lose: int = CLIENTS
) -> None:
    """SIGKILL for one worker under load costs at most what it held; another takes its place within BACK_AGAIN s."""
    alone, before = Alone(server), workers(server, service)
    called = f"kill -KILL (a worker of {service}) while {CLIENTS} clients classify"
    hint = "finish(ImageClassifierService), from serving.service; nothing that the next worker needs may be lost"
    if not before:
        fail(f"{called}: there is no process with --service-name {service}.{server.last_words()}")
    with load(server) as answered:
        wait_for(answered, 5, server)
        before[0].kill()
        replaced = wait_until(lambda: any(one not in before for one in workers(server, service)), BACK_AGAIN)
        wanted = f"{len(before)} workers again within {BACK_AGAIN} s"
        expect(replaced, called=called, got="no new process", expected=wanted, hint=hint)
        wait_for(answered, 2 * CLIENTS, server)
    kept = sum(answer.status != 200 for answer in answered) <= may_lose
    wanted = f"200 for all but the {may_lose} requests that it may have held" if may_lose else "200 for all"
    expect(kept, called=called, got=tally(answered), expected=wanted, hint=hint)
    alone.assert_same(answered, called)


def assert_finishes_on_sigterm(server: Server, requests: int = 80) -> None:
    """SIGTERM under load: every request that the service has accepted is answered, it ends, nothing is left.

    The server's own count says how many it has accepted; what comes later finds nobody who accepts it. The server is
    gone afterwards: a module's last test.
    """
    alone = Alone(server, LARGE)
    idle = requests_in_work(server)  # those that a worker held when it was killed are counted for ever
    crowd = crowd_at_once(server, requests)
    accepted = 0  # at least: what is answered between the two counts is in neither

    def many_in_work() -> bool:
        nonlocal accepted, crowd
        if len(crowd.answered) == requests:  # before there was time to count
            crowd = crowd_at_once(server, requests)
        before, in_work = len(crowd.answered), requests_in_work(server) - idle
        accepted = before + in_work
        return in_work >= requests // 4

    in_time = wait_until(many_in_work, seconds=30)
    last_words = server.last_words()
    server.process.send_signal(signal.SIGTERM)
    code = wait(server.process, ENDED)
    left = left_behind(server.process)
    answered = crowd.wait()
    called = f"{requests} POST /classify at once, and kill -TERM (bentoml serve) while many are accepted"
    statuses = Counter(one.status for one in answered)
    expect(
        in_time and statuses[200] >= accepted and set(statuses) <= {200, 0},
        called=called,
        got=f"{tally(answered)}{last_words}",
        expected=f"200 for the {accepted} that the service had accepted; no answer, not a broken one, for those after",
        hint="finish(ImageClassifierService), from serving.service, stops the services that it asks last",
    )
    got, wanted = f"exit code {code}, processes left: {left}", f"ended within {ENDED} s, with all its workers"
    hint = "do not catch SIGTERM; end what you start in @bentoml.on_shutdown"
    expect(code is not None and not left, called=called, got=got, expected=wanted, hint=hint)
    alone.assert_same(answered, called)


def metric(server: Server, name: str, service: str, where: Callable[[str], bool]) -> int:
    """The sum of one of the server's counts, over the lines of one of its services that fulfil a condition."""
    lines = server.request("GET", "/metrics").text.splitlines()
    own = [line for line in lines if line.startswith(f"{name}{{") and f'runner_name="{service}"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in own if where(line))


def requests_in_work(server: Server, service: str = "ImageClassifierService") -> int:
    """How many POST /classify a service has accepted and not yet answered."""
    return metric(server, "bentoml_service_request_in_progress", service, lambda line: 'endpoint="/classify"' in line)


def assert_answers_overload(server: Server, images: Sequence[bytes] = LARGE, requests: int = 400) -> None:
    """More requests at once than the service takes: the surplus gets 429 or 503 at once, the others 200.

    Its workers stand still until all are sent, and each image takes long to prepare: requests pile up however fast the
    model and the machine are. A service that works on one image at a time needs no LARGE ones.
    """
    alone = Alone(server, images)
    answered = crowd_at_once(server, requests, images).wait()
    called, hint = f"{requests} POST /classify at once", 'traffic={"max_concurrency": 256} in @bentoml.service'
    refused = [one for one in answered if one.status in (429, 503)]
    served = [one for one in answered if one.status == 200]
    late = [one for one in answered if one.status == 504]  # a busy machine: the service's own limit of 30 s
    right = (
        len(refused) + len(served) + len(late) == requests and refused and served and all(one.text for one in refused)
    )
    wanted = "some 200, and 429 or 503 with a body that says so for those over the bound; 504 after 30 s"
    expect(right, called=called, got=tally(answered), expected=wanted, hint=f"{hint}.{server.last_words()}")
    early = answered.index(refused[0]) < answered.index(served[-1])
    wanted = "refused at once, not after waiting in the queue"
    expect(early, called=called, got="the refusals came after all answers", expected=wanted, hint=hint)
    alone.assert_same(answered, called)


def assert_unharmed_by_a_new_model(server: Server, folder: Path, name: str = "resnet18.onnx") -> None:
    """Another file takes the model's place under load, for a while: every answer stays 200, and what it was.

    folder: the MODELS_DIR of this server alone; it must hold model_b.onnx.
    """
    alone, (model, new, old) = Alone(server), (folder / one for one in (name, "new", "old"))
    with load(server) as answered:
        wait_for(answered, 5, server)
        shutil.copy(folder / "model_b.onnx", new)
        os.link(model, old)
        os.replace(new, model)
        try:
            wait_for(answered, 2 * CLIENTS, server)
        finally:
            os.replace(old, model)
    called = f"another model takes the place of {name} while {CLIENTS} clients classify"
    hint = "load the model once, in __init__; the next start takes the new file"
    bad = [one for one in answered if one.status != 200]
    expect(not bad, called=called, got=tally(answered), expected="200 for all", hint=hint)
    alone.assert_same(answered, called, hint)


UNFINISHED = b"POST /classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nbegun"


class Unfinished:
    """A request whose body never ends, sent while other tests run: to end one takes a service 30 s."""

    @classmethod
    @contextmanager
    def during(cls, server: Server) -> Iterator[None]:
        """Such a request during the block: server.unfinished."""
        server.unfinished = cls(server)
        try:
            yield
        finally:
            server.unfinished.close()

    def __init__(self, server: Server) -> None:
        self.connection = socket.create_connection(("127.0.0.1", httpx.URL(server.url).port), timeout=45)
        self.connection.sendall(UNFINISHED)
        self.pool = ThreadPoolExecutor(1)
        self.answer = self.pool.submit(self.connection.recv, 1000)

    def close(self) -> None:
        """The client gives up."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.pool.shutdown()
        self.connection.close()

    def assert_ended(self) -> None:
        """The service gave up first, after 30 s."""
        error = self.answer.exception()
        got = f"within 45 s: {error!r}" if error else self.answer.result().decode(errors="replace")
        called, hint = "POST /classify with a body that never ends", 'traffic={"timeout": 30} in @bentoml.service'
        expect(" 504 " in got, called=called, got=got, expected="504 after 30 s", hint=hint)


def own_copy(models_dir: Path, folder: Path) -> Path:
    """Links to all models in a folder of one's own: replacing one there leaves models_dir as it is."""
    for model in models_dir.glob("*.onnx"):
        os.link(model, folder / model.name)
    return folder
