"""Grading on Gradescope's machines and on GitHub's, and the pages in a real browser."""

import json
import os
import stat
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from course_copy import Copy
from test_grade import SOLUTION, Gradescope, grade, hand_in
from test_pages import browser, needs_browser  # noqa: F401  (a fixture)

from course import ROOT
from course.base import manifest
from course.grading.gradescope import choose, write_archive
from course.grading.reports import write_class, write_submission
from course.grading.results import ExerciseResult, SubmissionResult, TestResult
from serving import Problem


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gradescope") / "autograder.zip"
    command = [sys.executable, "-m", "course", "gradescope", "--ex", "07", "--output", path]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "Points of the assignment: 8" in run.stdout
    return path


def test_the_archive_has_what_grading_needs_and_no_more(archive):
    """No solution but the one that makes the models, no tests of other exercises, nothing that was made here."""
    with zipfile.ZipFile(archive) as content:
        names = content.namelist()
        modes = {info.filename: stat.filemode(info.external_attr >> 16) for info in content.infolist()}
    assert {name: modes[name] for name in ("setup.sh", "run_autograder")} == {
        "setup.sh": "-rwxr-xr-x",
        "run_autograder": "-rwxr-xr-x",
    }
    assert [name for name in names if name.startswith(("solutions", "exercises"))] == ["solutions/ex01_export.py"]
    assert [name for name in names if name.startswith("tests/test_")] == ["tests/test_ex07_providers.py"]
    assert not [
        name for name in names if name.startswith(("reports", ".")) or name.endswith(".onnx") or "__pycache__" in name
    ]
    assert archive.stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--isolation", "docker"], "--isolation: expected one of process, limits, none."),
        (["--private", "typo"], "PRIVATE=typo: there is no file test_exNN_name.py in this folder."),
    ],
)
def test_an_archive_that_could_not_grade_is_not_built(tmp_path, typed, sentence):
    command = [sys.executable, "-m", "course", "gradescope", *typed, "--output", tmp_path / "zip"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode in (1, 2)
    assert sentence in run.stdout + run.stderr
    assert not (tmp_path / "zip").exists()


def test_private_tests_take_their_data_along(tmp_path):
    for name in ("test_ex07_private.py", "expected.npy", "data/more.json"):
        hand_in((tmp_path / "private" / name).parent, "", Path(name).name)
    hand_in(tmp_path / "private" / "__pycache__", "", "test_ex07_private.pyc")
    names = write_archive(
        tmp_path / "zip", [manifest.find("07")], private=tmp_path / "private", isolation="process", jobs=1, limit=600
    )
    assert [name for name in names if name.startswith("private/")] == [
        "private/data/more.json",
        "private/expected.npy",
        "private/test_ex07_private.py",
    ]


def test_what_needs_containers_is_not_for_gradescope():
    assert {one.number for one in choose(None)}.isdisjoint({"08", "17", "18"})
    with pytest.raises(Problem, match=r"The tests of 08 and 17 start containers.*EX=\"08 17\""):
        choose([manifest.find(number) for number in ("04", "08", "17")])


def test_the_archive_grades_where_it_is_unpacked(archive, tmp_path):
    """As on Gradescope: unpacked into source/, the submission beside it, run_autograder copied one folder up."""
    source = tmp_path / "source"
    with zipfile.ZipFile(archive) as content:
        content.extractall(source)
    for script in ("setup.sh", "run_autograder"):
        assert subprocess.run(["bash", "-n", source / script], timeout=10).returncode == 0
    (source / ".venv").symlink_to(Path(sys.prefix))  # what setup.sh installs
    (tmp_path / "results").mkdir()
    hand_in(tmp_path / "submission", SOLUTION)
    script = tmp_path / "run_autograder"
    script.write_bytes((source / "run_autograder").read_bytes())
    script.chmod(0o755)

    env = os.environ | {"AUTOGRADER": str(tmp_path), "PYTHONPATH": str(source)}
    run = subprocess.run([script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    results = Gradescope.model_validate_json((tmp_path / "results" / "results.json").read_text())
    assert results.score == 8, results.tests[0].output
    assert len(results.tests) == 7


BEHIND_A_PROXY = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https", "all")} | {"no_proxy": ""}


def test_a_proxy_costs_no_points(tmp_path):
    """As in many universities: the variables name a proxy, and leave out nothing. Nothing listens there."""
    for number in ("09", "10"):
        for file in manifest.find(number).files:
            hand_in(tmp_path / "anna", manifest.solution(file).read_text(), file)
    output = tmp_path / "grades"
    printed = grade("--submission", tmp_path / "anna", "--ex", "09 10", "--output", output, **BEHIND_A_PROXY)
    worth = sum(manifest.find(number).points for number in ("09", "10"))
    assert f"{worth:g} of {worth:g}" in printed, printed


def test_a_proxy_does_not_keep_students_from_checking(tmp_path):
    copy = Copy(tmp_path)
    copy.env |= BEHIND_A_PROXY
    for file in manifest.find("10").files:
        copy.solve(file)
    done = copy.make("check", "EX=10")
    assert "Done: 20 of 20 points." in done.stdout, done.stdout + done.stderr


def test_a_proxy_does_not_keep_the_client_from_the_service():
    """What answers is no service, and says so; through the proxy, nothing would answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        command = [sys.executable, "solutions/ex10_client.py", "data/cat.png", "--url", url]
        env = os.environ | BEHIND_A_PROXY
        run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert "is not this service" in run.stderr


def test_the_workflow_for_students_is_whole():
    """Each command that it runs is one of the Makefile's; the reporter is told which result to read."""
    text = (ROOT / "course" / "grading" / "templates" / "classroom.yml").read_text()
    workflow = yaml.safe_load(text)
    steps = workflow["jobs"]["grade"]["steps"]
    commands = [word for step in steps for word in step.get("run", "").splitlines() if word.startswith("make ")]
    targets = {command.split()[1] for command in commands}
    assert targets == {"setup", "grade"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)
    reporter = next(step for step in steps if "reporter" in step.get("uses", ""))
    grading = next(step for step in steps if "make grade" in step.get("run", ""))
    name = reporter["with"]["runners"]
    assert reporter["env"] == {f"{name.upper()}_RESULTS": "${{ steps." + grading["id"] + ".outputs.result }}"}


def test_a_name_is_neither_markup_nor_a_command_on_github(tmp_path):
    """A summary is Markdown; the reporter prints messages into a log, in which a line may be a command."""
    name, failure = "[x](http://e.x) @bob **b** <i>", "ex07 is a link\n::stop-commands::x"
    exercise = ExerciseResult.of(manifest.find("07"), failure=failure)
    write_submission(SubmissionResult(name=name, slug="s", exercises=[exercise], isolation="limits"), tmp_path)
    first, second, *_ = (tmp_path / "s" / "summary.md").read_text().splitlines()
    assert (first, second) == ("<h2><code>[x](http://e.x) @bob **b** &lt;i&gt;</code>: 0 of 8 points</h2>", "")
    [test] = json.loads((tmp_path / "s" / "classroom.json").read_text())["tests"]
    assert "\n" not in test["message"]
    assert "Graded with ISOLATION=limits" in test["message"]


MESSAGE = (
    "called    top5([1, 2])\ngot       "
    + "a very long word" * 40
    + "\nexpected  five labels\ntry       read the docstring"
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A class of eight with every state, twenty columns wide."""
    output = tmp_path_factory.mktemp("pages")
    states = [
        {"tests": [TestResult(id="t::test_a_b", points=10, outcome="passed")]},
        {"tests": [TestResult(id="t::test_long[case]", points=10, outcome="failed", message=MESSAGE)]},
        {"tests": [TestResult(id="t::test_fast", points=10, outcome="inconclusive", message="by 3%, give or take 9%")]},
        {"problem": "The grader's run was ended by SIGKILL."},
        {"failure": "Nothing was handed in: there is no ex04_inference.py."},
    ]
    results = []
    for student in range(8):
        exercises = [
            ExerciseResult(
                number=f"{number:02}",
                title=f"Exercise {number}",
                optional=number == 20,
                worth=10,
                **states[(student + number) % 5],
            )
            for number in range(1, 21)
        ]
        name = f"student {student} <img src=x onerror=alert(1)>"
        results.append(SubmissionResult(name=name, slug=f"student-{student}", exercises=exercises))
        write_submission(results[-1], output)
    write_class(results, output)
    return output


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("page", ["index.html", "student-1/report.html"])
def test_pages_fit_a_phone_and_a_screen_and_load_nothing(pages, browser, page, width):  # noqa: F811
    tab = browser.new_page(viewport={"width": width, "height": 800})
    asked, said = [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("dialog", lambda dialog: said.append(dialog.message))
    tab.goto((pages / page).as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert asked == [(pages / page).as_uri()]
    assert not said
    assert tab.locator("img, script").count() == 0
    assert tab.get_by_text("student 1 <img src=x onerror=alert(1)>").first.is_visible()
    if page != "index.html":
        assert tab.locator("dt").all_inner_texts()[:4] == ["called", "got", "expected", "try"]
        assert tab.locator("dd").nth(2).inner_text() == "five labels"
    tab.close()
