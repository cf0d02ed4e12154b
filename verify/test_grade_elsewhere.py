"""Grading on Gradescope's machines and on GitHub's, and the pages in a real browser."""

import json
import stat
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from bad_input import CAT
from commands import COURSE, run
from course_copy import Copy
from grader import BROKEN, FILE, SOLUTION, Gradescope, grade, hand_in
from test_main_job import serving
from test_pages import browser, needs_browser  # noqa: F401  (a fixture)

from course import ROOT
from course.base import manifest
from course.grading.gradescope import choose, write_archive
from course.grading.reports import write_class, write_submission
from course.grading.results import ExerciseResult, SubmissionResult, TestResult
from course.harness import http, models_for_tests
from serving import Problem

# ------------------------------------------------------------------------------ Gradescope


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gradescope") / "autograder.zip"
    made = run(*COURSE, "gradescope", "--ex", "07", "--output", path)
    assert made.returncode == 0, made.stderr
    assert "Points of the assignment: 8" in made.stdout
    return path


def test_the_archive_has_what_grading_needs_and_no_more(archive):
    """No solution but the one that makes the models, no tests of other exercises, nothing that was made here."""
    with zipfile.ZipFile(archive) as content:
        modes = {info.filename: stat.filemode(info.external_attr >> 16) for info in content.infolist()}
    assert modes["setup.sh"] == modes["run_autograder"] == "-rwxr-xr-x"
    assert [name for name in modes if name.startswith(("solutions", "exercises"))] == ["solutions/ex01_export.py"]
    assert [name for name in modes if name.startswith("tests/test_")] == ["tests/test_ex07_providers.py"]
    made_here = [name for name in modes if name.startswith(("reports", ".")) or name.endswith((".onnx", ".pyc"))]
    assert not made_here
    assert archive.stat().st_size < 5_000_000


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (["--isolation", "docker"], "--isolation: expected one of process, limits, none."),
        (["--private", "typo"], "PRIVATE=typo: there is no file test_exNN_name.py in this folder."),
    ],
)
def test_an_archive_that_could_not_grade_is_not_built(tmp_path, typed, sentence):
    refused = run(*COURSE, "gradescope", *typed, "--output", tmp_path / "zip")
    assert refused.returncode in (1, 2)
    assert sentence in refused.stdout + refused.stderr
    assert not (tmp_path / "zip").exists()


def test_private_tests_take_their_data_along(tmp_path):
    private, wanted = tmp_path / "private", ["data/more.json", "expected.npy", "test_ex07_private.py"]
    for name in (*wanted, "__pycache__/test_ex07_private.pyc"):
        hand_in(private, "", name)
    exercises = [manifest.find("07")]
    names = write_archive(tmp_path / "zip", exercises, private=private, isolation="process", jobs=1, limit=600)
    assert [name for name in names if name.startswith("private/")] == [f"private/{name}" for name in wanted]


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
        assert run("bash", "-n", source / script).returncode == 0
    (source / ".venv").symlink_to(Path(sys.prefix))  # what setup.sh installs
    (tmp_path / "results").mkdir()
    hand_in(tmp_path / "submission", SOLUTION)
    script = tmp_path / "run_autograder"
    script.write_bytes((source / "run_autograder").read_bytes())
    script.chmod(0o755)

    graded = run(script, cwd=tmp_path, timeout=200, AUTOGRADER=str(tmp_path), PYTHONPATH=str(source))
    assert graded.returncode == 0, graded.stdout + graded.stderr
    results = Gradescope.model_validate_json((tmp_path / "results" / "results.json").read_text())
    assert results.score == 8, results.tests[0].output
    assert len(results.tests) == 8


# ------------------------------------------------------------------------------ behind a proxy

# As in many universities: the variables name a proxy, and leave out nothing. Nothing listens there.
BEHIND_A_PROXY = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")} | {"no_proxy": ""}
BEHIND_A_PROXY |= {name.upper(): value for name, value in BEHIND_A_PROXY.items()}


def test_a_proxy_costs_no_points(tmp_path):
    exercises = [manifest.find(number) for number in ("09", "10")]
    for file in (file for exercise in exercises for file in exercise.files):
        hand_in(tmp_path / "anna", manifest.solution(file).read_text(), file)
    output, worth = tmp_path / "grades", sum(exercise.points for exercise in exercises)
    printed = grade("--submission", tmp_path / "anna", "--output", output, ex="09 10", **BEHIND_A_PROXY)
    assert f"{worth:g} of {worth:g}" in printed, printed


def test_a_proxy_does_not_keep_students_from_checking(tmp_path):
    copy = Copy(tmp_path, **BEHIND_A_PROXY)
    for file in manifest.find("10").files:
        copy.solve(file)
    done = copy.make("check", "EX=10")
    assert "Done: 20 of 20 points." in done.stdout, done.stdout + done.stderr


def test_a_proxy_does_not_keep_the_client_from_the_service():
    """What answers is no service, and says so; through the proxy, nothing would answer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        asked = run(sys.executable, "solutions/ex10_client.py", "data/cat.png", "--url", url, **BEHIND_A_PROXY)
        server.shutdown()
    assert "is not this service" in asked.stderr


def test_a_proxy_does_not_keep_services_from_each_other(tmp_path):
    env = BEHIND_A_PROXY | {"MODELS_DIR": str(models_for_tests.ready())}
    with serving(tmp_path, "make", "serve", "EX=14", "PORT={port}", **env) as (port, _):
        answer = http.post(f"http://127.0.0.1:{port}/classify", content=CAT.read_bytes())
        assert answer.status_code == 200, answer.text


def test_a_proxy_does_not_keep_the_load_test_from_the_services(tmp_path):
    """Neither locust, nor what looks at the answers, nor what reads how large the batches were."""
    options = ["--services", "11", "--payload", "npy", "--users", "4", "--duration", "1", "--rounds", "1", "--output"]
    done = run(*COURSE, "loadtest", *options, tmp_path, MODELS_DIR=str(models_for_tests.ready()), **BEHIND_A_PROXY)
    assert done.returncode == 0, done.stdout + done.stderr
    [turn] = json.loads((tmp_path / "measurements.json").read_text())["turns"]
    assert turn["batches"]


# ------------------------------------------------------------------------------ GitHub


TEMPLATES = ROOT / "course" / "grading" / "templates"
# GitHub's own actions are named by version, all others would have to be by hash.
ZIZMOR = "rules: {unpinned-uses: {config: {policies: {actions/*: ref-pin}}}}"


def test_the_workflow_for_students_runs_our_commands_and_keeps_our_reports(tmp_path):
    """Each make command is one of the Makefile's, each report is written, and the points are those of class.csv."""
    steps = yaml.safe_load((TEMPLATES / "grade.yml").read_text())["jobs"]["grade"]["steps"]
    commands = [line.split() for step in steps for line in step.get("run", "").splitlines()]
    targets = {command[1] for command in commands if command[0] == "make"}
    assert targets == {"setup", "grade"}
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)

    tests = [TestResult(id="t::test_a", points=6.5, outcome="passed")]
    exercises = [ExerciseResult.of(manifest.find("07"), tests=tests)]
    results = [SubmissionResult(name="submission", slug="submission", exercises=exercises)]
    write_submission(results[0], tmp_path / "reports" / "grades")
    write_class(results, tmp_path / "reports" / "grades")
    [kept] = [step["with"]["path"].split() for step in steps if "upload" in step.get("uses", "")]
    assert all((tmp_path / name).is_file() for name in kept)
    [show] = [step["run"] for step in steps if step.get("name") == "Points"]
    assert run("bash", "-c", show, cwd=tmp_path).stdout == "::notice title=Points::6.5 of 8, 0 open\n"


def test_the_linter_of_workflows_finds_nothing(tmp_path):
    """On a repository as a student has it."""
    (tmp_path / "zizmor.yml").write_text(ZIZMOR)
    workflow = hand_in(tmp_path, (TEMPLATES / "grade.yml").read_text(), ".github/workflows/grade.yml")
    zizmor = Path(sys.executable).parent / "zizmor"
    found = run(zizmor, "--offline", "--config", "zizmor.yml", workflow / ".github/workflows/grade.yml", cwd=tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("text", "score"), [(SOLUTION, 800), (BROKEN, 0)], ids=["right", "broken"])
def test_classroom_50_gets_the_points(tmp_path, text, score):
    """As its runner runs an autograder.py: in the student's checkout. Its collector wants whole numbers."""
    script, checkout = tmp_path / "autograder.py", tmp_path / "checkout"
    source = (TEMPLATES / "classroom50.py").read_text().replace("https://github.com/OWNER/COURSE", str(ROOT))
    script.write_text(source.replace('"04 07"', '"07"'))
    hand_in(checkout, text, f"exercises/{FILE}")
    commit = "git init -q && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m a"
    assert run("sh", "-c", commit, cwd=checkout, GIT_COMMITTER_DATE="2026-09-01T12:00:00+0200").returncode == 0
    names = ("CLASSROOM", "ASSIGNMENT", "COMMIT_URL", "RELEASE_URL", "REVIEW_URL", "SUBMISSION_TAG")
    env = {name: name.lower() for name in names}
    done = run(sys.executable, script, cwd=checkout, timeout=200, RUNNER_TEMP=str(tmp_path), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((checkout / "result.json").read_text())
    name = f"07 {manifest.find('07').title}"
    test = {"test-name": name, "passed": score == 800, "score": score, "max-score": 800}
    assert result == {
        "schema": "classroom50/result/v1", "classroom": "classroom", "assignment": "assignment",
        "submission": "submission_tag", "commit": "commit_url", "release": "release_url", "review": "review_url",
        "datetime": "2026-09-01T10:00:00Z", "score": score, "max-score": 800, "tests": [test],
    }  # fmt: skip
    assert f"{score / 100:g} of 8 points" in (checkout / "release-body.md").read_text()
    assert (checkout / "report.html").is_file()


def test_a_name_is_no_markup_on_github(tmp_path):
    """A summary is Markdown."""
    name, failure = "[x](http://e.x) @bob **b** <i>", "ex07 is a link\n::stop-commands::x"
    exercise = ExerciseResult.of(manifest.find("07"), failure=failure)
    write_submission(SubmissionResult(name=name, slug="s", exercises=[exercise], isolation="limits"), tmp_path)
    first, second, *_ = (tmp_path / "s" / "summary.md").read_text().splitlines()
    assert (first, second) == ("<h2><code>[x](http://e.x) @bob **b** &lt;i&gt;</code>: 0 of 8 points</h2>", "")


# ------------------------------------------------------------------------------ the pages in a browser

MESSAGE = (
    f"called    top5([1, 2])\ngot       {'a very long word' * 40}\nexpected  five labels\ntry       read the docstring"
)
STATES = [
    {"tests": [TestResult(id="t::test_a_b", points=10, outcome="passed")]},
    {"tests": [TestResult(id="t::test_long[case]", points=10, outcome="failed", message=MESSAGE)]},
    {"tests": [TestResult(id="t::test_fast", points=10, outcome="inconclusive", message="by 3%, give or take 9%")]},
    {"problem": "The grader's run was ended by SIGKILL."},
    {"failure": "Nothing was handed in: there is no ex04_inference.py."},
]


def exercise(number: int, student: int) -> ExerciseResult:
    facts = {"number": f"{number:02}", "title": f"Exercise {number}", "optional": number == 20, "worth": 10}
    return ExerciseResult(**facts, **STATES[(student + number) % 5])


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """A class of eight with every state, twenty columns wide."""
    output = tmp_path_factory.mktemp("pages")
    results = [
        SubmissionResult(
            name=f"student {student} <img src=x onerror=alert(1)>",
            slug=f"student-{student}",
            exercises=[exercise(number, student) for number in range(1, 21)],
        )
        for student in range(8)
    ]
    for result in results:
        write_submission(result, output)
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
