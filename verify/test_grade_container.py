"""make grade ISOLATION=docker: right answers get their points in a container, and hostile ones find nothing there."""

import os
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from commands import COURSE, processes_with
from grader import HOSTILE, REACH, SOLUTION, hand_in, path_with, paths_json, result
from grader import grade as run_grade

from course import ROOT
from course.base import docker, manifest
from course.base.processes import MARK
from course.grading import container as grade_container
from course.grading.run import Options, Stopped, grade_exercise
from course.isolation.limits import GB
from serving import Problem

pytestmark = pytest.mark.docker

REACH_THERE = REACH | {"environment": ["COURSE_RUN"], "networks": ["lo"], "loopback": True}
PRIVATE = f"""
import psutil
import pytest

FILE = "functions.py"

def sandboxes():
    return [one for one in psutil.process_iter() if one.name() == "bwrap"]

@pytest.mark.points(1)
def test_spying_finds_nothing(submission):
    assert submission.call(FILE, "daemon", note="DAEMON") == 1
    assert not sandboxes(), "its daemon goes on"
    assert submission.call(FILE, "reach") == {REACH_THERE!r}

@pytest.mark.points(1)
def test_what_is_given_to_read_stays_as_it_is(submission, tmp_path):
    (model := tmp_path / "model.onnx").write_text("a model")
    output = tmp_path / "output.onnx"
    assert submission.call(FILE, "change", model=model, output=output) == [False] * 4
    assert (model.read_text(), output.read_text()) == ("a model", "its own")

@pytest.mark.points(1)
def test_a_fork_bomb_is_put_out(submission):
    sentence = "was ended: it started more than 200 processes"
    with submission.start("endless.py"), pytest.raises(pytest.fail.Exception, match=sentence):
        submission.call(FILE, "fork_bomb")
    assert not sandboxes()
"""
ENDLESS = "import time\ntime.sleep(600)\n"
# Fills the container's memory with files that belong to no process, and are in no folder.
MEMORY = """
import os
import sys

def providers(answer=providers):
    if sys._getframe(1).f_code.co_filename == __file__:
        return answer()  # to the other functions
    kept = []
    while True:
        kept.append(os.memfd_create("kept"))
        for _ in range(8):
            os.write(kept[-1], bytes(2**24))
"""


def grade(*arguments: object, isolation: str = "docker", **options) -> str:
    """As the grader's, in containers, with a variable that nobody in there should see."""
    return run_grade("--isolation", isolation, *arguments, SECRET="of the grader", **options)


def containers(mark: str) -> list[str]:
    return docker.docker("ps", "--all", "--quiet", "--filter", f"label={mark}").split()


@pytest.fixture
def mark() -> Iterator[str]:
    """What all containers of a test carry; none of them outlives it."""
    mark = f"test-{uuid.uuid4().hex}"
    yield mark
    grade_container.remove_marked(mark)


def test_a_right_answer_gets_its_points_and_spying_finds_nothing(tmp_path, mark):
    """No tests, no solutions, no results, no other submission, no network, no powers; and nothing is left."""
    daemon, output, temporary = f"daemon-{uuid.uuid4().hex}", tmp_path / "grades", tmp_path / "temporary"
    private = hand_in(tmp_path / "private", PRIVATE.replace("DAEMON", daemon), "test_ex07_spy.py")
    hand_in(tmp_path / "class" / "another", "", "notes.py")
    spy = hand_in(tmp_path / "class" / "spy", SOLUTION, endless=ENDLESS)
    shutil.copy(HOSTILE / "functions.py", spy)
    paths_json(spy, hidden=[private, spy], shown=[])
    temporary.mkdir()
    options = ["--submissions", tmp_path / "class", "--private", private, "--jobs", 2, "--output", output]
    grade(*options, **{MARK: mark, "TMPDIR": str(temporary)})
    outcomes = [(test["id"], test["outcome"], test["details"]) for test in result(output, "spy")["tests"]]
    assert [outcome for _, outcome, _ in outcomes] == ["passed"] * len(outcomes), outcomes
    assert len(outcomes) == 11
    assert not containers(mark)
    assert not processes_with(daemon)
    assert not list(temporary.iterdir())


def test_memory_of_no_process_is_ended_and_costs_its_own_points(tmp_path, monkeypatch):
    """The kernel ends the student's program, and not the tests: all others are passed."""
    monkeypatch.setattr(grade_container, "MEMORY", GB)
    folder = hand_in(tmp_path / "in", SOLUTION + MEMORY)
    result = grade_exercise(manifest.find("07"), folder, tmp_path / "work", Options("docker"), threading.Event())
    assert not result.problem
    [lost] = [test for test in result.tests if test.outcome != "passed"]
    assert "(SIGKILL)" in lost.message
    assert lost.id.endswith("test_lists_the_providers")


def container_with_tests(mark: str, timeout: float = 120) -> str:
    """The container in which the tests run, once it is there."""
    give_up = time.monotonic() + timeout
    while time.monotonic() < give_up:
        for name in containers(mark):
            with suppress(Problem):  # the one that is only tried is gone soon
                told = docker.docker("inspect", "--format", "{{.State.Running}} {{.Args}}", name)
                if told.startswith("true") and "pytest" in told:
                    return name
        time.sleep(0.1)
    raise AssertionError("there was no container")


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_that_is_ended_is_no_verdict(tmp_path, mark, monkeypatch, how):
    """The container is killed, as by the kernel; or the grader is told to stop, as by Ctrl-C."""
    stop = threading.Event()
    monkeypatch.setenv(MARK, mark)
    folder = hand_in(tmp_path / "in", ENDLESS)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(grade_exercise, manifest.find("07"), folder, tmp_path / "work", Options("docker"), stop)
        name = container_with_tests(mark)
        if how == "killed":
            docker.docker("kill", name)
            result = run.result()
            assert "The grader's run was ended by SIGKILL" in result.problem
            assert not result.tests
        else:
            stop.set()
            with pytest.raises(Stopped):
                run.result()
    assert not containers(mark)


def test_a_grader_that_is_killed_leaves_nothing_to_the_next(tmp_path, mark):
    """kill -9: the container goes on; the next run into the same folder removes it, whatever its isolation."""
    output = tmp_path / "grades"
    folder = hand_in(tmp_path / "in", ENDLESS)
    command = [*COURSE, "grade", "--ex", "07", "--isolation", "docker", "--submission", folder, "--output", output]
    env = os.environ | {MARK: mark}
    grader = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    name = container_with_tests(mark)
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    assert containers(mark) == [name]
    nothing = hand_in(tmp_path / "nothing", "", "notes.py")
    grade("--submission", nothing, "--output", output, isolation="none")
    assert not containers(mark)


@pytest.mark.parametrize(
    ("wrapped", "env", "sentence"),
    [
        ([], {"DOCKER_HOST": "unix:///nowhere"}, "The Docker engine does not answer. Start Docker Desktop, or"),
        ([], {"PATH": "{path}"}, "There is no `docker` command. Install Docker"),
        (
            ["bwrap", "--dev-bind", "/", "/", "--tmpfs", "{tmp}", "--setenv", "TMPDIR", "{tmp}"],
            {},
            "the engine must run on this very Linux, not in Docker Desktop or elsewhere. Grade with ISOLATION=process",
        ),
    ],
    ids=["no engine", "no command", "an engine that does not see our files"],
)
def test_where_there_can_be_no_containers_nothing_is_graded(tmp_path, wrapped, env, sentence):
    if wrapped and not shutil.which("bwrap"):
        pytest.skip("bubblewrap, which hides our files from the engine here, is missing")
    (tmp_path / "own").mkdir()
    folder, output = hand_in(tmp_path / "in", SOLUTION), tmp_path / "grades"
    wrapped = [word.format(tmp=tmp_path / "own") for word in wrapped]
    env = {name: value.format(path=path_with(tmp_path / "bin")) for name, value in env.items()}
    printed = grade("--submission", folder, "--output", output, wrapped=wrapped, code=1, **env)
    assert sentence in " ".join(printed.split())
    assert "Traceback" not in printed
    assert not list(output.glob("*/exercises/*.json"))
