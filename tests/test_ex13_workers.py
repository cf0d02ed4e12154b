"""Exercise 13: the right number of workers, each with its share of the cores, and none that needs the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import image_service
import pytest
import under_load
from bad_input import CAT, COFFEE
from image_api import test_predict_answers_the_models_logits  # noqa: F401
from noted import Notes, assert_opens_its_model_once

from course.harness.load import workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect
from serving.cores import cores

SERVICE, NAME = "ex13_workers.py", "ImageClassifierService"


@pytest.fixture(scope="module")
def server(submission: Submission, notes: Notes):
    """Three workers, each with its share of the cores."""
    with submission.serve(SERVICE, env=notes.env | {"WORKERS": "3"}) as running:
        yield running


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


def assert_worker_processes(server: Server, number: int, called: str, hint: str) -> None:
    got = len(workers(server))
    expect(got == number, called=called, got=f"{got} worker processes", expected=f"{number}", hint=hint)


# ------------------------------------------------------------------------------ how many


@pytest.mark.points(0.5)
@pytest.mark.parametrize(("wanted", "right"), [("cpu_count", 6), ("3", 3)])
def test_how_many_workers(submission, wanted, right):
    got = submission.call(SERVICE, "how_many_workers", wanted=wanted, available=6)
    called, hint = f"how_many_workers({wanted!r}, available=6)", "cpu_count: one worker for each core"
    expect(got == right, called=called, got=got, expected=f"{right}", hint=hint)


@pytest.mark.points(0.5)
@pytest.mark.parametrize(
    ("wanted", "available", "workers", "right"),
    [("share", 8, 3, 2), ("share", 2, 4, 1), ("0", 8, 2, 0), ("5", 8, 2, 5)],
    ids=["share", "more_workers_than_cores", "onnxruntimes_default", "number"],
)
def test_how_many_threads(submission, wanted, available, workers, right):
    got = submission.call(SERVICE, "how_many_threads", wanted=wanted, available=available, workers=workers)
    called = f"how_many_threads({wanted!r}, available={available}, workers={workers})"
    hint = "all workers' threads together are at most as many as there are cores, but each has one"
    expect(got == right, called=called, got=got, expected=f"{right}", hint=hint)


@pytest.mark.points(1)
def test_starts_as_many_workers_as_wanted(working):
    assert_worker_processes(working, 3, f"WORKERS=3 bentoml serve ex13_workers:{NAME}", "@bentoml.service(workers=...)")


@pytest.mark.points(1)
def test_a_worker_has_its_share_of_threads(working, notes):
    assert_opens_its_model_once(working, notes, NAME, threads=max(1, cores() // 3))


@pytest.fixture(scope="module")
def alone(submission, small_models_dir, tmp_path_factory):
    """Without WORKERS, with 9 threads a worker, where one core may be used: the server, its notes, how many cores."""
    notes = Notes(tmp_path_factory.mktemp("notes"), small_models_dir)
    with confined_to_one_core() as available, submission.serve(SERVICE, env=notes.env | {"THREADS": "9"}) as server:
        yield server, notes, available


@pytest.mark.points(1)
def test_a_worker_has_as_many_threads_as_wanted(working, alone):
    assert_opens_its_model_once(*alone[:2], NAME, threads=9)


@pytest.mark.points(1)
def test_starts_one_worker_for_each_core_that_it_may_use(working, alone):
    """However many the machine has: here one, where processes can be confined to cores."""
    server, _, available = alone
    called = f"bentoml serve ..., without WORKERS, where {available} cores may be used"
    hint = "cores() from serving.cores; BentoML's own cpu_count counts the machine's"
    assert_worker_processes(server, available, called, hint)


@pytest.mark.points(1)
def test_says_which_setting_is_wrong(submission, working, small_models_dir):
    for name, value in [("WORKERS", "two"), ("WORKERS", "0"), ("THREADS", "-1"), ("THREADS", "1.5")]:
        env = {"MODELS_DIR": str(small_models_dir), name: value}
        image_service.assert_does_not_start(submission, SERVICE, env, f"{name}={value}")


# ------------------------------------------------------------------------------ what they answer


@pytest.mark.points(2)
def test_every_worker_answers_while_the_others_hang(working, model):
    """All but one are stopped in turn. A hung worker costs what it has accepted; new connections go to the others."""
    for awake in (own := workers(working)):
        with under_load.standing_still([one for one in own if one != awake]):
            for image in (CAT, COFFEE):
                image_service.assert_classifies(working, model, image)


@pytest.mark.points(1)
def test_survives_a_killed_worker(server):
    under_load.assert_survives_a_killed_worker(server)
