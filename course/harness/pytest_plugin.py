"""pytest's options for submissions, and the points that tests are worth.

A plugin named in pyproject.toml, not a conftest.py: pytest reads its options before it looks for
conftest files. It would otherwise take the folder after --submission for tests, and run its conftest.py.
"""

import importlib
import resource
import signal
import sys
import threading
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from course import ROOT
from course.base.docker import need_engine
from course.base.environment import never_proxy_this_machine
from course.base.processes import is_ours
from course.harness.recorder import Recorder
from course.harness.verdicts import Inconclusive
from course.isolation import sandbox
from course.isolation.limits import LIMITS, MB, of_kernel
from serving import Problem

# By test: the file, the points that it is worth, whether it passed.
RESULTS: dict[str, tuple[str, float, bool]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--submission", default=str(ROOT / "solutions"), help="the folder to test (default: solutions)")
    parser.addoption("--warm", action="store_true", help="calls of functions share their imports; not for grading")
    isolation = "none: as for your own code (default); limits: on memory, disk and time; process: limits and a sandbox"
    parser.addoption("--isolation", choices=sandbox.MODES, default="none", help=isolation)
    no_skips = "a skipped test is a failed one, unless it needs a GPU or is inconclusive"
    parser.addoption("--no-skips", action="store_true", help=no_skips)
    parser.addoption("--results", type=Path, help="for the grader: write the result of each test there, signed")
    parser.addoption("--limit", type=float, default=600, help="with --results: start no test after so many seconds")
    parser.addoption("--private-tests", action="store_true", help="give tests in another folder the fixtures of tests/")


def pytest_configure(config: pytest.Config) -> None:
    RESULTS.clear()
    never_proxy_this_machine()
    sandbox.mode = config.getoption("--isolation")
    if sandbox.mode == "process":
        try:
            sandbox.need_bubblewrap()
        except Problem as problem:
            raise pytest.UsageError(str(problem)) from None
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs deaf to Ctrl-C; what the tests start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(config.getoption("--submission"))
    if not folder.is_dir():
        raise pytest.UsageError(f"--submission {folder}: there is no such folder.")
    if file := config.getoption("--results"):
        limit_memory()
        config.pluginmanager.register(Recorder(file, config.getoption("--limit")))
    if config.getoption("--private-tests"):
        sys.path.insert(0, str(ROOT / "tests"))
        config.pluginmanager.register(importlib.import_module("conftest"), "what tests/ offers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Somebody else's folder is held against the exercises' tests; those of the course itself are for solutions/."""
    if Path(config.getoption("--submission")).resolve() != ROOT / "solutions":
        of_course = [item for item in items if not item.path.name.startswith("test_ex")]
        config.hook.pytest_deselected(items=of_course)
        items[:] = [item for item in items if item not in of_course]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker") and (reason := no_engine()):
        pytest.skip(reason)


def limit_memory() -> None:
    """Bound the memory of pytest itself, however large a submission's answers are; its children have other limits.

    The stack of a thread counts as a whole, and tests of load start hundreds of threads: 2 MB for each are enough.
    """
    threading.stack_size(2 * MB)
    most, (_, hard) = of_kernel(LIMITS, alone=False).get("RLIMIT_DATA"), resource.getrlimit(resource.RLIMIT_DATA)
    if most and sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@cache
def no_engine() -> str | None:
    """Why no images can be built here; None where they can."""
    try:
        need_engine()
    except Problem as problem:
        return str(problem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, Inconclusive):
        report.user_properties.append(("inconclusive", str(call.excinfo.value)))
    if call.excinfo and is_ours(call.excinfo.value):
        report.user_properties.append(("grader failed", f"{item.name}: {call.excinfo.value}"))
    allowed = item.get_closest_marker("gpu") or "inconclusive" in dict(report.user_properties)
    if report.skipped and item.config.getoption("--no-skips") and not allowed:
        report.outcome, report.longrepr = "failed", f"skipped, but --no-skips was given: {report.longrepr[2]}"
    if marker := item.get_closest_marker("points"):
        report.user_properties.append(("points", (item.path.stem, marker.args[0])))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Also called, with pytest-xdist, by the process that hands out the tests: the reports come to it."""
    points = dict(report.user_properties).get("points")
    if points and (report.when == "call" or not report.passed):
        RESULTS[report.nodeid] = (*points, report.passed)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    if sandbox.mode != "none":
        terminalreporter.section("isolation")
        terminalreporter.write_line(sandbox.MEANS[sandbox.mode])
    if RESULTS:
        terminalreporter.section("points")
    reached, possible = Counter(), Counter()
    for stem, points, passed in RESULTS.values():
        reached[stem] += points * passed
        possible[stem] += points
    for stem in sorted(possible):
        terminalreporter.write_line(f"{stem.removeprefix('test_'):24} {reached[stem]:g} of {possible[stem]:g}")
