"""What every test can ask for, and the points that the tests are worth."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from course import ROOT
from course.submission import Submission

POINTS = pytest.StashKey[dict]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--submission", default=str(ROOT / "solutions"), help="the folder to test (default: solutions)")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failed one")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[POINTS] = {}
    folder = Path(config.getoption("--submission"))
    if not folder.is_dir():
        raise pytest.UsageError(f"--submission {folder}: there is no such folder.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Somebody else's folder is held against the exercises' tests; those of the course itself are for solutions/."""
    if Path(config.getoption("--submission")).resolve() != ROOT / "solutions":
        of_course = [item for item in items if not item.path.name.startswith("test_ex")]
        config.hook.pytest_deselected(items=of_course)
        items[:] = [item for item in items if item not in of_course]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome, report.longrepr = "failed", f"skipped, but --no-skips was given: {report.longrepr[2]}"
    marker = item.get_closest_marker("points")
    if marker and (report.when == "call" or not report.passed):
        item.config.stash[POINTS][item.nodeid] = (item.path.stem, marker.args[0], report.passed)
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    results = config.stash[POINTS].values()
    if results:
        terminalreporter.section("points")
    for stem in sorted({stem for stem, _, _ in results}):
        worth = [(points, passed) for of, points, passed in results if of == stem]
        reached, possible = sum(points for points, passed in worth if passed), sum(points for points, _ in worth)
        terminalreporter.write_line(f"{stem.removeprefix('test_'):24} {reached:g} of {possible:g}")


@pytest.fixture(scope="session")
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """The folder under test."""
    return Submission(Path(request.config.getoption("--submission")), tmp_path_factory.mktemp("submission"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """tests/reference.py: what PyTorch and torchvision answer. In a process of its own, for torch takes seconds."""
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="session")
def models_dir(pytestconfig: pytest.Config) -> Path:
    """A folder with a real resnet18.onnx, its weights random with a seed that nobody else uses. Kept for the next run."""
    makers = ("requirements.txt", "solutions/ex01_export.py", "course/weights.py")
    made_from = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in makers)).hexdigest()[:12]
    folder = pytestconfig.cache.mkdir(f"models-{made_from}")
    if not (folder / "resnet18.onnx").exists():
        command = [sys.executable, "solutions/ex01_export.py", "--weights", "random", "--seed", "7"]
        subprocess.run([*command, "--output", folder / "resnet18.onnx"], cwd=ROOT, check=True, timeout=200)
    return folder
