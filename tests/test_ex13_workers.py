"""Exercise 13: the right number of workers, each with its share of the cores, and none that needs the others."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import image_service
import pytest
import under_load
from bad_input import CAT, COFFEE
from PIL import Image

from course.harness.load import workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect
from serving.cores import cores

SERVICE = "ex13_workers.py"


def os_threads(server: Server) -> set[int]:
    """How many threads its workers have, once that does not change any more."""
    give_up = time.monotonic() + 20
    before = None
    while (now := {one.num_threads() for one in workers(server)}) != before and time.monotonic() < give_up:
        before = now
        time.sleep(0.5)
    return now


@pytest.fixture(scope="module")
def server(submission: Submission, small_models_dir: Path):
    """Three workers, each with its share of the cores."""
    env = {"MODELS_DIR": str(small_models_dir), "WORKERS": "3"}
    with submission.serve(SERVICE, env=env) as running:
        running.os_threads = os_threads(running)  # before the first request, which may start another
        yield running


@pytest.fixture
def working(server: Server) -> Server:
    """The server, once it classifies at all: what comes next would wait long for one that does not."""
    image_service.assert_still_serves(server, "before the load")
    return server


@contextmanager
def confined_to_one_core() -> Iterator[int]:
    """What is started in the block may use one core, where the system can do that, else all: so many."""
    if not hasattr(os, "sched_setaffinity"):
        yield cores()
        return
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield 1
    finally:
        os.sched_setaffinity(0, all_of_them)


# ------------------------------------------------------------------------------ how many


@pytest.mark.points(0.5)
@pytest.mark.parametrize(("wanted", "right"), [("cpu_count", 6), ("3", 3)])
def test_how_many_workers(submission, wanted, right):
    got = submission.call(SERVICE, "how_many_workers", wanted=wanted, available=6)
    expect(
        got == right,
        called=f"how_many_workers({wanted!r}, available=6)",
        got=got,
        expected=f"{right}",
        hint="cpu_count: one worker for each core",
    )


@pytest.mark.points(0.5)
@pytest.mark.parametrize(
    ("wanted", "available", "workers", "right"),
    [("share", 8, 3, 2), ("share", 2, 4, 1), ("0", 8, 2, 0), ("5", 8, 2, 5)],
    ids=["share", "more_workers_than_cores", "onnxruntimes_default", "number"],
)
def test_how_many_threads(submission, wanted, available, workers, right):
    got = submission.call(SERVICE, "how_many_threads", wanted=wanted, available=available, workers=workers)
    expect(
        got == right,
        called=f"how_many_threads({wanted!r}, available={available}, workers={workers})",
        got=got,
        expected=f"{right}",
        hint="all workers' threads together are at most as many as there are cores, but each has one",
    )


@pytest.mark.points(1)
def test_starts_as_many_workers_as_wanted(working):
    got = len(workers(working))
    expect(
        got == 3,
        called="WORKERS=3 bentoml serve ex13_workers:ImageClassifierService",
        got=f"{got} worker processes",
        expected="3",
        hint="@bentoml.service(workers=...)",
    )


@pytest.mark.points(1)
def test_a_worker_has_its_share_of_threads_or_as_many_as_wanted(submission, working, small_models_dir):
    """ONNX Runtime's threads are threads of the process: nine are eight more than one."""
    env = {"MODELS_DIR": str(small_models_dir), "WORKERS": "1", "THREADS": "9"}
    with submission.serve(SERVICE, env=env) as server:
        got, processes = os_threads(server), len(workers(server))
    share = max(1, cores() // 3)
    expect(
        processes == 1 and len(got) == 1 and got == {number + 9 - share for number in working.os_threads},
        called="WORKERS=1 THREADS=9 bentoml serve ..., and before it WORKERS=3 bentoml serve ...",
        got=f"{processes} worker with {got} threads, and before it three with {working.os_threads}",
        expected=f"one, with {9 - share} more than each of the three: nine of ONNX Runtime's instead of {share}",
        hint="open_model(threads=...) in __init__; THREADS is `share` unless the environment says otherwise",
    )


@pytest.mark.points(1)
def test_starts_one_worker_for_each_core_that_it_may_use(submission, working, small_models_dir):
    """However many the machine has: here one, where processes can be confined to cores."""
    environment = {"MODELS_DIR": str(small_models_dir)}
    with confined_to_one_core() as available, submission.serve(SERVICE, env=environment) as server:
        got = len(workers(server))
    expect(
        got == available,
        called=f"bentoml serve ..., without WORKERS, where {available} cores may be used",
        got=f"{got} worker processes",
        expected=f"{available}",
        hint="cores() from serving.cores; BentoML's own cpu_count counts the machine's",
    )


@pytest.mark.points(1)
def test_says_which_setting_is_wrong(submission, working, small_models_dir):
    wrong = [("WORKERS", "two"), ("WORKERS", "0"), ("THREADS", "-1"), ("THREADS", "1.5")]
    for name, value in wrong:
        with submission.starting(SERVICE, env={"MODELS_DIR": str(small_models_dir), name: value}) as server:
            code = server.exit_code()
            log = server.log.read_text(errors="replace")
        expect(
            code not in (None, 0) and f"{name}={value}" in log and "Traceback" not in log and len(log) < 500,
            called=f"{name}={value} bentoml serve ...",
            got=f"exit code {code}: {log[-500:]}",
            expected=f"a non-zero exit code within 30 s, and one sentence that begins with {name}={value}",
            hint="read_number() raises BentoMLException with such a sentence",
        )


# ------------------------------------------------------------------------------ what they answer


@pytest.mark.points(1)
def test_every_worker_answers_while_the_others_hang(working, small_session):
    """All but one are stopped in turn. A hung worker costs what it has accepted; new connections go to the others."""
    images = {
        image: image_service.best_five(small_session, Image.open(image).convert("RGB")) for image in (CAT, COFFEE)
    }
    own = workers(working)
    for awake in own:
        stopped = [one for one in own if one != awake]
        try:
            for one in stopped:
                one.send_signal(signal.SIGSTOP)
            for image, expected in images.items():
                called = f"POST /classify with {image.name}, while all workers but one are stopped"
                image_service.assert_classified(working, image.read_bytes(), called, expected)
        finally:
            for one in stopped:
                one.send_signal(signal.SIGCONT)


@pytest.mark.points(1)
def test_predict_answers_the_models_logits(server, small_session):
    images = image_service.tensor(CAT, COFFEE)
    image_service.assert_predicts(
        server, small_session, images, "POST /predict with two preprocessed photographs as JSON"
    )


@pytest.mark.points(0.5)
def test_predict_refuses_bad_tensors(server):
    image_service.assert_refuses_bad_tensors(server)


@pytest.mark.points(0.5)
def test_classify_refuses_what_is_no_image(server):
    image_service.assert_refuses_bad_images(server)


# ------------------------------------------------------------------------------ trouble


@pytest.mark.points(0.5)
def test_survives_a_killed_worker(server):
    under_load.assert_survives_a_killed_worker(server)


@pytest.mark.points(0.5)
def test_refuses_more_than_it_holds(server):
    under_load.assert_answers_overload(server)


@pytest.mark.points(0.5)
def test_is_unharmed_by_a_new_model(server, small_models_dir):
    """After all that ask what the first model answers: a worker that starts later serves the new one."""
    under_load.assert_unharmed_by_a_new_model(server, small_models_dir)


@pytest.mark.points(0.5)
def test_finishes_what_it_accepted_when_it_is_stopped(server):
    under_load.assert_finishes_on_sigterm(server)
