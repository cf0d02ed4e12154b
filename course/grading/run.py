"""Grades one exercise of one submission: pytest in a process of its own, and what may be believed of its results.

The grader's process never imports a test, nor anything of a submission.
"""

import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from course import ROOT
from course.base.files import tail
from course.base.manifest import Exercise
from course.base.processes import running, signal_name, wait
from course.grading import container as grade_container
from course.grading.results import WEAK, ExerciseResult, Isolation, TestResult
from course.harness import models_for_tests
from course.harness.recorder import read_results
from course.harness.server import Log
from course.isolation import sandbox
from course.isolation.bubblewrap import without_network
from course.isolation.folders import remove
from serving import Problem

# How long a test that has begun, and tidying up after it, may go on after the limit. pytest-timeout ends it before.
GRACE = 400


class Stopped(Exception):
    """The grader was asked to stop."""


@dataclass(frozen=True)
class Options:
    """How to grade."""

    isolation: Isolation = "process"
    limit: float = 600  # seconds for the tests of one exercise; a test that has begun is still ended
    private: Path | None = None  # a folder of tests that only instructors have


@dataclass(frozen=True)
class Run:
    """What one run of pytest came to: tests, or else why there is no verdict."""

    tests: list[TestResult]
    problem: str = ""
    seconds: float = 0.0
    own_seconds: float = 0.0


def grade_exercise(
    exercise: Exercise, folder: Path, work: Path, options: Options, stop: threading.Event
) -> ExerciseResult:
    """Hold a submission against the tests of an exercise; what was too noisy to tell is asked once more.

    Args:
        exercise: which.
        folder: the submission, of the shape of exercises/.
        work: a folder for what the run leaves; it is removed.
        options: how to grade.
        stop: set from elsewhere to end the run; it then raises Stopped.
    """
    runs = [run_twice([exercise.test], exercise.points, folder, work, options, stop)]
    if private := private_tests(exercise, options):
        runs.append(run_twice(private, None, folder, work, options, stop))
    tests = [test for run in runs for test in run.tests]
    return ExerciseResult.of(
        exercise,
        worth=exercise.points + sum(test.points for test in tests if test.private),
        tests=tests,
        problem=" ".join(run.problem for run in runs if run.problem),
        seconds=sum(run.seconds for run in runs),
        own_seconds=sum(run.own_seconds for run in runs),
    )


def need_isolation(exercises: list[Exercise], options: Options, work: Path) -> None:
    """Try the isolation with a program as the tests start them, before anything is graded.

    work: a folder that does not exist yet. Raises Problem where it does not work, with the command that allows it.
    """
    if options.isolation != "docker":
        sandbox.need(options.isolation)
        return
    grade_container.need(work)
    if outside := [exercise.number for exercise in exercises if exercise.needs_docker]:
        try:
            sandbox.need("process")
        except Problem as problem:
            around = f"Exercises {', '.join(outside)} start containers, so none is around them."
            raise Problem(f"{around} {problem}") from None


def private_tests(exercise: Exercise, options: Options) -> list[str]:
    """The names of the private test files of an exercise: test_ex04*.py."""
    found = options.private.glob(f"test_ex{exercise.number}*.py") if options.private else []
    return sorted(path.name for path in found)


def run_twice(
    tests: list[str], worth: float | None, folder: Path, work: Path, options: Options, stop: threading.Event
) -> Run:
    """As run_tests(), and once more the tests that were inconclusive."""
    first = run_tests(tests, worth, folder, work, options, stop)
    again = [test.id for test in first.tests if test.outcome == "inconclusive"]
    if not again:
        return first
    second = run_tests(again, None, folder, work, options, stop)
    tests = {test.id: test for test in [*first.tests, *second.tests]}
    seconds, own_seconds = first.seconds + second.seconds, first.own_seconds + second.own_seconds
    return Run(list(tests.values()), first.problem, seconds, own_seconds)


def run_tests(
    tests: list[str], worth: float | None, folder: Path, work: Path, options: Options, stop: threading.Event
) -> Run:
    """Run pytest on files or single tests of one exercise, once; the other arguments are those of grade_exercise().

    tests: such as `tests/test_ex04_inference.py`, or with `::test_name` behind it.
    worth: what they must sum up to, where that is known.
    """
    remove(work)
    work.mkdir(parents=True)
    results, log, key = work / "results" / "results.json", work / "log", secrets.token_hex(32).encode()
    results.parent.mkdir(mode=0o700)
    begun = time.monotonic()
    source, sink = os.pipe()
    os.write(sink, key)  # 64 bytes: fit into any pipe
    os.close(sink)
    place = ROOT if tests[0].startswith("tests/") else options.private  # what the names of tests are relative to
    try:
        container, command = _isolated(tests, place, folder, work, options)
        with running(command, cwd=place, env=_environment(work), log=log, stdin=source) as process:
            try:
                code = _wait(process, options.limit + GRACE, stop)
            finally:
                if container:
                    grade_container.remove(container)
        recorded = read_results(results, key)
        run = verdict(code, recorded, worth, tail(Log(log).read_text()))
    finally:
        os.close(source)
        remove(work)
    found = []
    for test in run.tests:  # students know their files, not where these and those of the tests lay here
        said = {"message": test.message, "details": test.details}
        for here in (folder, work / "pytest", ROOT):
            said = {field: text.replace(f"{here}/", "").replace(str(here), ".") for field, text in said.items()}
        found.append(test.model_copy(update=said | {"private": place != ROOT}))
    return Run(found, run.problem, time.monotonic() - begun, (recorded or {}).get("own_seconds", 0.0))


def verdict(code: int | None, recorded: dict | None, worth: float | None, said: str) -> Run:
    """What a run came to. Only a run that ended as pytest ends, with results of all its tests, is one.

    code: the exit code; None where it was ended after its time.
    recorded: what its plugin wrote and signed, if it did. said: the end of its output.
    """
    if code is None:
        return Run([], "The grader's run had not ended in time and was stopped.")
    if code < 0 or code > 128:  # bubblewrap hands a signal on as 128 and more, as shells do
        return Run([], f"The grader's run was ended by {signal_name(-code if code < 0 else code - 128)}.")
    if recorded is None:
        return Run([], f"The grader's run left no results of its own (exit code {code}). It says: {said}")
    if recorded["problems"] or recorded["exit"] not in (0, 1) or recorded["exit"] != code:
        reasons = " ".join(recorded["problems"]) or f"pytest's exit code is {code}. It says: {said}"
        return Run([], f"The grader failed: {reasons}")
    collected, tests = recorded["collected"], recorded["tests"]
    if not collected or set(collected) != set(tests):
        return Run([], f"The grader's results are incomplete: {len(tests)} of {len(collected)} tests.")
    if worth is not None and abs(sum(collected.values()) - worth) > 1e-6:
        return Run([], f"The tests are worth {sum(collected.values()):g} points, course.toml says {worth:g}.")
    return Run([TestResult(id=node, points=collected[node], **tests[node]) for node in collected])


def _isolated(tests: list[str], place: Path, folder: Path, work: Path, options: Options) -> tuple[str, list[str]]:
    """The command that runs pytest, in what the run as a whole is isolated by; and the container's name, if there is one."""
    command = [sys.executable, "-m", "pytest", *tests, "--rootdir", str(place)]
    command += ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "--submission", str(folder)]
    command += ["--results", str(work / "results" / "results.json"), "--limit", str(options.limit)]
    # -s leaves standard input alone, on which the key comes.
    command += ["-q", "-s", "--no-header", "-p", "pytest_timeout", "--basetemp", str(work / "pytest")]
    command += [] if place == ROOT else ["--private-tests"]
    # In a container, too: the sandbox keeps student code from the tests and results.
    command += ["--isolation", "process" if options.isolation == "docker" else options.isolation]
    # The tests talk to students' services over loopback, and have no other network. But containers listen on the
    # loopback of the machine: tests that start some need the machine's network, and its engine, which must not be in
    # reach of a container.
    files = {place / test.partition("::")[0] for test in tests}
    if options.isolation in WEAK or any("pytest.mark.docker" in file.read_text() for file in files):
        return "", command
    if options.isolation == "process":
        return "", without_network(command)
    read = [folder, ROOT / "tests", *([options.private] if options.private else [])]
    models = models_for_tests.ready()
    return grade_container.contained(command, work=work, cwd=place, read=read, models=models)


def _environment(work: Path) -> dict[str, str]:
    """Ours, without what would change how pytest runs, and with a temporary folder that goes with the run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GITHUB_", "COV_"))}
    own = {"TMPDIR": str(work), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    # Of the plugins that happen to be installed only what is asked for: locust's alone takes a third of a second.
    return kept | own | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _wait(process: subprocess.Popen, timeout: float, stop: threading.Event) -> int | None:
    give_up = time.monotonic() + timeout
    while (code := wait(process, 0.2)) is None:
        if stop.is_set():
            raise Stopped
        if time.monotonic() > give_up:
            return None
    return code
