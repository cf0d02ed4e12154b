"""make grade: the results are right, whatever a submission or the grader's machine does."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import psutil
import pytest
from pydantic import BaseModel, ConfigDict, Field

from course import ROOT
from course.base import manifest
from course.base.processes import GraderFailure
from course.grading import handed_in
from course.grading.kept import key_of
from course.grading.results import one_line
from course.grading.run import Options, verdict
from course.harness.recorder import read_results
from course.isolation import sandbox
from course.isolation.bubblewrap import Folders
from course.isolation.limits import MB

GRADE = [sys.executable, "-m", "course", "grade"]
SOLUTION = (ROOT / "solutions" / "ex07_providers.py").read_text()
BROKEN = "def providers(:\n"  # the cheapest answer: its own tests fail in a second each
# A wrong answer whose text would run in a page, a terminal or a spreadsheet, and end an XML file.
EVIL = "\x1b[31m<script>alert(1)</script>]]>\x00\x1b]0;title\x07\u202e=1+1\ufffe"
NAME = '=1+1 <b>bob\n& "co" \x1b[31m'
PRIVATE = '''
import pytest
from course.harness.verdicts import expect, inconclusive

COUNT = {count!r}

@pytest.mark.points(2)
def test_secret_name_of_a_private_test(submission):
    got = submission.call("ex07_providers.py", "providers")
    expect("all" in got and len(got["all"]) > 1, called="secret call", got=got, expected="secret", hint="secret")

@pytest.mark.points(1)
def test_noisy_once(submission):
    """Too noisy at its first run with each submission, quiet at the second."""
    with open(COUNT, "a+") as file:
        file.seek(0)
        before = file.read().count(submission.folder.as_posix() + "\\n")
        file.write(submission.folder.as_posix() + "\\n")
    if not before:
        inconclusive("student 1.1 times as fast, give or take 2")
'''


def grade(*arguments: object, code: int | None = 0, wrapped: Iterable[str] = (), **env: str) -> str:
    """Run the command, perhaps inside another one; what it printed."""
    command = [*wrapped, *GRADE, *map(str, arguments)]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert code is None or run.returncode == code, run.stdout[-3000:]
    return run.stdout


def hand_in(folder: Path, text: str = BROKEN, file: str = "ex07_providers.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    return folder


def result(output: Path, slug: str, number: str = "07") -> dict:
    return json.loads((output / slug / "exercises" / f"{number}.json").read_text())


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Path:
    folder, count = tmp_path_factory.mktemp("private"), tmp_path_factory.mktemp("count") / "count"
    (folder / "test_ex07_private.py").write_text(PRIVATE.format(count=str(count)))
    return folder


@pytest.fixture(scope="module")
def graded(tmp_path_factory, private) -> tuple[Path, str, Path]:
    """A small class, graded once: the output folder, what was printed, GitHub's two files in a folder."""
    folder, output = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("grades")
    hand_in(folder / "good", SOLUTION)
    hand_in(folder / NAME, f"def providers():\n    raise ValueError({EVIL!r})\n")
    hand_in(folder / "nothing", "", "notes.txt")
    hand_in(folder / "index.html")
    with zipfile.ZipFile(folder / "slip.zip", "w") as archive:
        archive.writestr("ex07_providers.py", SOLUTION)
        archive.writestr("../../outside.py", "harm")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 nothing that could be unpacked")
    with tarfile.open(folder / "nested.tar.gz", "w:gz") as archive:
        archive.add(hand_in(tmp_path_factory.mktemp("nested")), "someone-course-main/exercises")
    github = tmp_path_factory.mktemp("github")
    printed = grade(
        "--submissions", folder, "--ex", "07", "--jobs", 2, "--private", private, "--output", output,
        GITHUB_STEP_SUMMARY=str(github / "summary"), GITHUB_OUTPUT=str(github / "output"),
    )  # fmt: skip
    return output, printed, github


def slugs(output: Path) -> dict[str, str]:
    """By the beginning of their names."""
    return {path.name.split("-")[0].split(".")[0]: path.name for path in output.iterdir() if path.is_dir()}


def test_each_submission_gets_its_own_points_and_none_harms_another(graded):
    output, _, _ = graded
    with (output / "class.csv").open(newline="") as file:
        rows = {row["submission"]: row for row in csv.DictReader(file)}
    assert {name: (row["points"], row["of"], row["state"]) for name, row in rows.items()} == {
        "good": ("11", "11", "final"),
        "nested.tar.gz": ("1", "11", "final"),
        "nothing": ("0", "8", "final"),
        "slip.zip": ("0", "8", "final"),
        "broken.zip": ("0", "8", "final"),
        "'" + one_line(NAME): ("1", "11", "final"),
        "index.html": ("1", "11", "final"),
    }
    assert "points outside" in result(output, "slip.zip")["failure"]
    assert "cannot be unpacked" in result(output, "broken.zip")["failure"]
    assert not list(output.rglob("outside.py"))
    assert not list(output.parent.glob("outside.py"))


def test_what_was_too_noisy_is_asked_once_more(graded):
    """The private test was inconclusive at first; nobody lost its point."""
    noisy = [test for test in result(graded[0], "good")["tests"] if "noisy" in test["id"]]
    assert [(test["outcome"], test["points"]) for test in noisy] == [("passed", 1.0)]


def test_the_time_of_the_student_is_told_from_that_of_the_grader(graded):
    good = result(graded[0], "good")
    assert 0 < good["own_seconds"] < good["seconds"]


class GradescopeTest(BaseModel):
    """An entry of `tests`, as https://gradescope-autograders.readthedocs.io/en/latest/specs/ has it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    score: float | None = None
    max_score: float | None = None
    status: Literal["passed", "failed"] | None = None
    name: str | None = None
    name_format: Literal["text", "html", "simple_format", "md", "ansi"] = "text"
    number: str | None = None
    output: str | None = None
    output_format: Literal["text", "html", "simple_format", "md", "ansi"] = "text"
    tags: list[str] = []
    visibility: Literal["hidden", "after_due_date", "after_published", "visible"] = "visible"
    extra_data: dict[str, Any] = {}


class Gradescope(BaseModel):
    """results.json, as the same page has it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    score: float | None = None
    execution_time: int | None = None
    output: str | None = None
    output_format: Literal["text", "html", "simple_format", "md", "ansi"] = "simple_format"
    test_output_format: Literal["text", "html", "simple_format", "md", "ansi"] = "text"
    test_name_format: Literal["text", "html", "simple_format", "md", "ansi"] = "text"
    visibility: Literal["hidden", "after_due_date", "after_published", "visible"] = "visible"
    stdout_visibility: Literal["hidden", "after_due_date", "after_published", "visible"] = "hidden"
    extra_data: dict[str, Any] = {}
    tests: list[GradescopeTest] = Field(min_length=1)
    leaderboard: list[dict] = []


def test_gradescope_gets_its_own_fields_partial_scores_and_hidden_tests(graded):
    output, _, _ = graded
    for slug, score, most in (("good", 11, 11), (slugs(output)["1"], 1, 11), ("broken.zip", 0, 8)):
        content = Gradescope.model_validate_json((output / slug / "gradescope.json").read_text())
        assert content.score == score
        assert sum(test.score for test in content.tests) == score
        assert sum(test.max_score for test in content.tests) == most
        private = [test for test in content.tests if "private" in test.tags]
        assert all(test.visibility == "hidden" for test in private)
        assert len(private) == (0 if slug == "broken.zip" else 2)
        assert {test.visibility for test in content.tests if test not in private} == {"visible"}
        assert content.stdout_visibility == "hidden"
        shown = content.output + "".join(f"{test.name}{test.output}" for test in content.tests if test not in private)
        assert "secret" not in shown


class Page(HTMLParser):
    """What a browser would load or run, and what it would show."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [(tag, value) for name, value in attrs if name in ("src", "href", "action", "srcset")]

    def handle_data(self, data):
        self.text += data


def test_pages_need_nothing_from_elsewhere_and_run_nothing_of_a_student(graded):
    output, _, _ = graded
    pages = [*output.glob("*.html"), *output.glob("*/*.html")]
    assert len(pages) == 12  # the class, seven submissions, and with private tests four of them
    for path in pages:
        page = Page(path)
        assert not {"script", "img", "link", "iframe", "object", "base", "b"} & set(page.tags) - ({"b"} if path.name == "index.html" else set())  # fmt: skip
        for tag, link in page.links:
            assert tag == "a"
            assert (output / link).is_file(), link
    assert "<script>alert(1)</script>" in Page(output / slugs(output)["1"] / "report.html").text
    assert one_line(NAME) in Page(output / "index.html").text


def test_no_report_that_a_student_may_have_tells_of_private_tests(graded):
    output, printed, _ = graded
    for slug in ("good", slugs(output)["1"]):
        for name in ("report.html", "junit.xml", "summary.md", "classroom.json"):
            assert "secret" not in (output / slug / name).read_text(), f"{slug}/{name}"
    assert "secret name of a private test" in (output / slugs(output)["1"] / "for_teacher.html").read_text()
    assert "secret" not in printed


def test_text_of_students_is_harmless_everywhere(graded):
    """Escape codes, control characters, marks that turn the direction of writing: in no file, and not printed."""
    output, printed, github = graded
    files = [path for path in [*output.rglob("*"), *github.iterdir()] if path.is_file()]
    assert len(files) > 40
    for text in [printed, *(path.read_text() for path in files)]:
        assert not set(text) & {"\x1b", "\x00", "\x07", "\u202e", "\ufffe"}
        assert "\\u001b" not in text
    assert one_line(NAME) in printed, "a line break in a name is not printed"
    summary = (github / "summary").read_text()
    assert "<script>" not in summary
    assert "&lt;script&gt;" in summary
    assert "<b>bob" not in summary


def test_junit_has_each_exercise_as_a_suite(graded):
    output, _, _ = graded
    suites = {slug: ElementTree.parse(output / slug / "junit.xml").find("testsuite") for slug in slugs(output).values()}
    counts = {slug.split("-")[0]: (suite.get("tests"), suite.get("failures")) for slug, suite in suites.items()}
    assert counts == {
        "good": ("9", "0"),
        "nested.tar.gz": ("9", "8"),
        "nothing": ("1", "1"),
        "slip.zip": ("1", "1"),
        "broken.zip": ("1", "1"),
        "index.html": ("9", "8"),
        "1": ("9", "8"),
    }
    failure = suites[slugs(output)["1"]].find("testcase/failure")
    assert "<script>alert(1)</script>]]>" in failure.text


def test_github_classroom_gets_partial_points(graded):
    """Its reporter adds up tests[].score, against max_score; status is one of three words."""
    content = json.loads((graded[0] / "good" / "classroom.json").read_text())
    assert (content["max_score"], [test["score"] for test in content["tests"]], content["status"]) == (11, [11], "pass")
    content = json.loads((graded[0] / slugs(graded[0])["1"] / "classroom.json").read_text())
    assert (content["max_score"], [test["score"] for test in content["tests"]], content["status"]) == (11, [1], "fail")


def test_a_forged_results_file_is_not_believed(tmp_path):
    """Without a sandbox it can be written, and the grader's run be killed; that is no pass, and not the last word."""
    planted = tmp_path / "planted"
    hand_in(
        tmp_path / "forger",
        "import json, os, pathlib, signal, sys\n"
        "forged = {'exit': 0, 'problems': [], 'seconds': 1, 'own_seconds': 1, 'collected': {'t::test_x': 8},\n"
        "          'tests': {'t::test_x': {'outcome': 'passed', 'message': '', 'details': '', 'seconds': 1}}}\n"
        "for folder in pathlib.Path(sys.argv[1]).parents:\n"
        "    if folder.name == '07' and (folder / 'log').exists():\n"
        "        signed = {'signature': '0' * 64, 'results': json.dumps(forged)}\n"
        "        (folder / 'results' / 'results.json').write_text(json.dumps(signed))\n"
        f"        pathlib.Path({str(planted)!r}).touch()\n"
        "        os.kill(os.getppid(), signal.SIGKILL)\n",
    )
    output = tmp_path / "grades"
    printed = grade("--submission", tmp_path / "forger", "--ex", "7", "--isolation", "none", "--output", output, code=1)
    assert planted.exists()
    assert "The grader's run was ended by SIGKILL" in printed
    found = result(output, "forger")
    assert (found["tests"], bool(found["problem"])) == ([], True)
    assert "0 of 8" in printed
    assert "Graded with ISOLATION=none" in printed
    says_so = ["index.html", *(f"forger/{file}" for file in ("report.html", "summary.md", "gradescope.json", "classroom.json"))]  # fmt: skip
    for file in says_so:
        assert "Graded with ISOLATION=none" in (output / file).read_text(), file
    for file in ("class.csv", "forger/junit.xml", "forger/result.json"):
        assert re.search(r"\bnone\b", (output / file).read_text()), file
    # Run again, it is not graded for the same reason: no mere accident.
    printed = grade("--submission", tmp_path / "forger", "--ex", "7", "--isolation", "none", "--output", output, code=1)
    assert "Suspicious: forger, exercise 07." in printed
    assert result(output, "forger")["suspicious"]
    assert "forger,0,8,8,suspicious,none," in (output / "class.csv").read_text()
    planted.unlink()
    printed = grade("--submission", tmp_path / "forger", "--ex", "7", "--isolation", "none", "--output", output, code=1)
    assert "Suspicious: forger, exercise 07." in printed
    assert not planted.exists(), "it was graded a third time"


BROKEN_BWRAP = "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit {code}\n"


@pytest.mark.parametrize(
    ("bwrap", "sentence"),
    [
        (None, "ISOLATION=process needs bubblewrap. Install it with: sudo apt-get install bubblewrap"),
        (BROKEN_BWRAP.format(code=1), "ISOLATION=process does not work here."),
        (BROKEN_BWRAP.format(code=127), "bwrap: No permissions to create new namespace"),
        (
            "#!/bin/sh\nwhile [ $1 != -- ]; do shift; done; shift\nexec env -i PATH= $1 -c 'import sys; sys.exit(127)'\n",
            "does",
        ),
    ],
    ids=["missing", "forbidden", "127", "the program does not run"],
)
def test_without_a_sandbox_that_works_nothing_is_graded(tmp_path, bwrap, sentence):
    """A right answer, and a machine on which it cannot be tried: one sentence, and no points of anybody."""
    hand_in(tmp_path / "anna", SOLUTION)
    (tmp_path / "bin").mkdir()
    for name in ("rm", "chmod", "sh", "env"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    if bwrap:
        (tmp_path / "bin" / "bwrap").write_text(bwrap)
        (tmp_path / "bin" / "bwrap").chmod(0o755)
    command = ("--submission", tmp_path / "anna", "--ex", "07", "--output", tmp_path / "grades")
    printed = grade(*command, code=1, PATH=str(tmp_path / "bin"))
    assert sentence in printed
    assert "If you trust the code, type ISOLATION=limits." in printed
    assert "Traceback" not in printed
    assert not list((tmp_path / "grades").glob("*/*"))
    if not bwrap:
        printed = grade(*command, "--isolation", "limits", PATH=str(tmp_path / "bin"))
        assert "8 of 8" in printed
        assert "Graded with ISOLATION=limits" in printed


def test_a_program_that_the_sandbox_does_not_start_is_not_one_of_the_student(tmp_path):
    """As where the disk is full: exit code 127, which a student's program could have as well."""
    for how in ("limits", "process"):
        started = sandbox.running(
            ["/nowhere"], cwd=ROOT, env={}, log=tmp_path / "log", folders=Folders(set(), set()), how=how
        )
        with pytest.raises(GraderFailure, match="/nowhere cannot be started"), started:
            pass


def test_a_mistake_of_the_grader_is_not_one_of_the_student_and_is_run_again(tmp_path):
    """A private test that cannot be read: not graded. Once it is fixed, the same command grades it."""
    private, output = tmp_path / "private", tmp_path / "grades"
    hand_in(tmp_path / "anna")
    hand_in(private, "import nowhere_to_be_found\n", "test_ex07_extra.py")
    command = ("--submission", tmp_path / "anna", "--ex", "07", "--private", private, "--isolation", "none")
    command += ("--output", output)
    printed = grade(*command, code=1)
    assert "not graded" in printed
    assert "No module named 'nowhere_to_be_found'" in " ".join(printed.split())
    for file in ("report.html", "junit.xml", "summary.md", "classroom.json", "gradescope.json"):
        assert not re.search("nowhere_to_be_found|test_ex07_extra", (output / "anna" / file).read_text()), file
    content = Gradescope.model_validate_json((output / "anna" / "gradescope.json").read_text())
    assert content.tests[0].max_score is None
    assert "the grader failed, not your work" in content.tests[0].output
    assert '<error message="' in (output / "anna" / "junit.xml").read_text()

    text = (
        "import pytest\nfrom course.harness.verdicts import inconclusive\n@pytest.mark.points(2)\ndef test_extra():\n"
    )
    hand_in(private, f"{text}    inconclusive('by 3%, give or take 9%')\n", "test_ex07_extra.py")
    assert "inconclusive" in grade(*command, code=1)
    content = json.loads((output / "anna" / "result.json").read_text())["exercises"][0]
    assert [(test["outcome"], test["points"]) for test in content["tests"] if test["private"]] == [
        ("inconclusive", 2.0)
    ]
    assert "0 of 10, 2 open" in (output / "anna" / "for_teacher.html").read_text()

    skips = "    import os\n    if 'ENGINE' not in os.environ: pytest.skip('there is no engine')\n"
    hand_in(private, f"{text}{skips}", "test_ex07_extra.py")
    assert "open. there is no engine" in grade(*command, code=1)
    grade(*command, ENGINE="has been started")
    assert "2 of 10" in (output / "anna" / "for_teacher.html").read_text()


COMPLETE = {"exit": 1, "problems": [], "collected": {"t::a": 5, "t::b": 3}, "own_seconds": 1.0}
TESTS = {node: {"outcome": "passed", "message": "", "details": "", "seconds": 1.0} for node in COMPLETE["collected"]}


@pytest.mark.parametrize(
    ("code", "recorded", "sentence"),
    [
        (1, COMPLETE | {"tests": TESTS}, ""),
        (None, COMPLETE | {"tests": TESTS}, "had not ended in time"),
        (-9, COMPLETE | {"tests": TESTS}, "was ended by SIGKILL"),
        (137, COMPLETE | {"tests": TESTS}, "was ended by SIGKILL"),
        (0, COMPLETE | {"tests": TESTS}, "exit code is 0"),
        (1, None, "left no results of its own"),
        (1, COMPLETE | {"tests": {"t::a": TESTS["t::a"]}}, "incomplete: 1 of 2"),
        (1, COMPLETE | {"tests": {}, "collected": {}}, "incomplete: 0 of 0"),
        (1, COMPLETE | {"tests": {"t::a": TESTS["t::a"]}, "collected": {"t::a": 5}}, "worth 5 points"),
        (3, COMPLETE | {"tests": TESTS, "exit": 3}, "exit code is 3"),
        (1, COMPLETE | {"tests": TESTS, "problems": ["pytest failed: KeyError"]}, "pytest failed: KeyError"),
    ],
)
def test_only_a_complete_run_is_a_verdict(code, recorded, sentence):
    run = verdict(code, recorded, 8, "last words")
    assert sentence in run.problem
    assert bool(run.problem) == bool(sentence)
    assert len(run.tests) == (0 if sentence else 2)


def descendants_of(work: Path) -> list[psutil.Process]:
    """Processes that a grader with this temporary folder has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(work) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_started_again_it_goes_on_where_it_was(tmp_path, how):
    begun = tmp_path / "begun"
    hand_in(tmp_path / "class" / "a")
    hand_in(  # at its first time, it never ends
        tmp_path / "class" / "b",
        "import pathlib, time\n"
        f"begun = pathlib.Path({str(begun)!r})\n"
        "if not begun.exists():\n"
        "    begun.touch()\n"
        "    time.sleep(600)\n",
    )
    output = tmp_path / "grades"
    options = ["--ex", "07", "--isolation", "none", "--output", output]
    command = [*GRADE, "--submissions", tmp_path / "class", *options]
    grader = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    give_up = time.monotonic() + 120
    while not begun.exists():
        assert grader.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    first = sorted(output.glob("*/exercises/07.json"))
    work = Path((output / ".work").read_text())
    assert descendants_of(work)
    grader.send_signal(how)
    printed, _ = grader.communicate(timeout=60)
    written = {path: path.stat().st_mtime_ns for path in first}
    assert len(written) == 1
    assert grader.returncode == (-9 if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert "Stopped. All results so far are kept." in printed
        assert "Traceback" not in printed
        assert not descendants_of(work)
        assert sorted(output.glob("*/exercises/07.json")) == first, "went on after Ctrl-C"
        return

    grade(*command[4:])
    assert len(list(output.glob("*/exercises/07.json"))) == 2
    assert {path: path.stat().st_mtime_ns for path in written} == written, "graded again"
    assert not descendants_of(work)
    assert not work.exists()

    # Nothing has changed: nothing is run. A changed file: its exercise is, and no other.
    now = {path: path.stat().st_mtime_ns for path in output.glob("*/exercises/07.json")}
    hand_in(tmp_path / "class" / "b", BROKEN + "# changed\n")
    grade(*command[4:])
    changed = {path.parent.parent.name for path, at in now.items() if path.stat().st_mtime_ns != at}
    assert changed == {"b"}


def test_two_graders_do_not_write_into_one_folder(tmp_path):
    from filelock import FileLock

    hand_in(tmp_path / "a")
    (tmp_path / "grades").mkdir()
    with FileLock(tmp_path / "grades" / ".lock"):
        printed = grade("--submission", tmp_path / "a", "--ex", "07", "--output", tmp_path / "grades", code=1)
    assert printed.strip().endswith("Wait for it, or name another OUTPUT=.")
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "Name one submission, make grade SUBMISSION=folder, or a folder of them"),
        ("--submission nowhere", "SUBMISSION=nowhere: there is no such folder or archive"),
        ("--submissions data", "SUBMISSIONS=data: there is neither a folder nor an archive"),
        (
            "--submissions solutions",
            "SUBMISSIONS=solutions: this is one submission, not a folder of them: make grade SUBMISSION=solutions",
        ),
        ("--submission solutions --private docs", "PRIVATE=docs: there is no file test_exNN_name.py"),
    ],
)
def test_what_cannot_be_graded_is_one_sentence(typed, sentence):
    assert grade(*typed.split(), code=1).startswith(sentence)


def taken_over(path: Path, into: Path) -> handed_in.HandedIn:
    found = handed_in.one(path)
    found.take_over(into)
    return found


def member(kind: bytes, size: int, content: bytes = b"", name: str = "ex07_providers.py") -> bytes:
    """A member of a tar archive that says of its size what it likes."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content + bytes(-len(content) % 512)


def big(kind: bytes, size: int = 60, **said: str) -> bytes:
    return member(kind, size * MB, bytes(size * MB), **said)


SHORT, LONG = (b"%d a=".ljust(size - 4, b"a") % size + b"\n" for size in (16_000, 32_000))  # records of pax
SPARSE = b"28 GNU.sparse.size=90000000\n26 GNU.sparse.numblocks=1\n22 GNU.sparse.map=0,0\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda: big(tarfile.REGTYPE), "holds more than 50 MB"),
        (lambda: big(tarfile.REGTYPE, 90), "cannot be unpacked: [Errno 27] File too large"),
        (lambda: big(tarfile.REGTYPE, 90, name="node_modules/skipped"), "It holds no file of any exercise"),
        (lambda: member(tarfile.DIRTYPE, -(10**12)) + big(tarfile.REGTYPE), "holds more than 50 MB"),
        (lambda: member(tarfile.XHDTYPE, -(10**12)), "cannot be unpacked: "),
        (lambda: big(tarfile.XHDTYPE, 500), "cannot be unpacked: it takes too much memory."),
        (lambda: big(tarfile.GNUTYPE_LONGNAME, 500), "cannot be unpacked: it takes too much memory."),
        (lambda: member(tarfile.XHDTYPE, len(LONG), LONG), "it is broken"),
        (lambda: 100 * member(tarfile.XGLTYPE, len(SHORT), SHORT), "it is broken"),
        (lambda: member(tarfile.XHDTYPE, len(SPARSE), SPARSE) + member(tarfile.REGTYPE, 0), "File too large"),
        (lambda: member(tarfile.REGTYPE, 0, name="a/" * 40 + "b"), "It holds no file of any exercise"),
    ],
)
def test_no_archive_fills_the_disk_or_the_memory(tmp_path, content, sentence):
    path = tmp_path / "anna.tar.gz"
    path.write_bytes(gzip.compress(content(), 1))
    tracemalloc.start()
    refused = taken_over(path, tmp_path / "in").refused
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sentence in refused
    assert "Traceback" not in refused
    assert peak < 10 * MB
    assert sum(file.stat().st_size for file in (tmp_path / "in").rglob("*") if file.is_file()) < 51 * MB


def test_a_zip_of_a_million_entries_costs_its_own_memory(tmp_path):
    """All of them are the same entry, named a million times in the directory at the archive's end."""
    with zipfile.ZipFile(path := tmp_path / "anna.zip", "w") as archive:
        archive.writestr("ex07_providers.py", "")
    content = path.read_bytes()
    begin, end, number = content.index(b"PK\1\2"), content.index(b"PK\5\6"), 10**6
    names = content[begin:end] * number
    there = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, number, number, len(names), begin)
    there += struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(names), 1)
    there += struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, len(names), 2**32 - 1, 0)
    path.write_bytes(content[:begin] + names + there)
    refused = taken_over(path, tmp_path / "in").refused
    assert re.fullmatch(r"anna.zip cannot be unpacked: it (takes too much|used more than 0.25 GB of) memory\.", refused)


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["GNU", "pax"])
@pytest.mark.parametrize(("name", "mode"), [("a.tar", ""), ("a.tgz", "gz"), ("a.tar.bz2", "bz2"), ("a.TAR.XZ", "xz")])
def test_every_kind_of_tar_is_taken(tmp_path, kind, name, mode):
    with tarfile.open(tmp_path / name, f"w:{mode}", format=kind) as archive:
        archive.add(hand_in(tmp_path / "course"), "é" * 120)  # too long for the header alone
    found = taken_over(tmp_path / name, tmp_path / "in")
    assert (found.refused, list(found.digests)) == ("", ["ex07_providers.py"])


def test_no_message_tells_where_the_grader_works(tmp_path):
    """An archive in which a file is also a folder. One with the same file twice is taken: the second counts."""
    for second in ("ex07_providers.py/file", "ex07_providers.py"):
        with tarfile.open(tmp_path / "anna.tar", "w") as archive:
            for name in ("ex07_providers.py", second):
                archive.addfile(tarfile.TarInfo(name))
        refused = taken_over(tmp_path / "anna.tar", tmp_path / "in").refused
        assert bool(refused) == second.endswith("/file")
        assert not refused or re.fullmatch(r"anna\.tar cannot be unpacked: \[.*'ex07_providers\.py.*", refused)
        assert str(tmp_path) not in refused


def test_a_class_as_platforms_hand_it_out(tmp_path):
    """Each student has a row: with points, or with a sentence that says what cannot be taken."""
    folder = tmp_path / "class"
    hand_in(folder / "mac" / "hw1")
    hand_in(folder / "mac" / "__MACOSX" / "hw1", file="._ex07_providers.py")
    (folder / "moodle_1_file_").mkdir()
    (folder / "moodle_1_file_" / ".DS_Store").touch()
    with zipfile.ZipFile(folder / "moodle_1_file_" / "hw1.zip", "w") as archive:
        archive.writestr("hw1/ex07_providers.py", BROKEN)
    (folder / "linked").symlink_to(folder / "mac")
    for name in ("anna.7z", "bob.rar", "carl.py", "README", "grades.csv", "notes.txt", "index.html", ".hidden"):
        (folder / name).write_bytes(b"7z")
    found = handed_in.several(folder)
    for number, submission in enumerate(found):
        submission.take_over(tmp_path / str(number))
    assert {one.name: one.refused.partition(" (")[0] or list(one.digests) for one in found} == {
        "anna.7z": "anna.7z is neither a folder nor an archive of a known kind. Hand in a folder or an archive",
        "bob.rar": "bob.rar is neither a folder nor an archive of a known kind. Hand in a folder or an archive",
        "carl.py": "carl.py is neither a folder nor an archive of a known kind. Hand in a folder or an archive",
        "linked": "linked is a link, and links are not followed. Hand in a folder or an archive",
        "mac": ["ex07_providers.py"],
        "moodle_1_file_": ["ex07_providers.py"],
    }


def test_data_beside_private_tests_is_part_of_what_a_result_depends_on(tmp_path):
    private = hand_in(tmp_path / "private", "", "test_ex07_private.py")
    submission, exercise = taken_over(hand_in(tmp_path / "anna"), tmp_path / "in"), manifest.find("07")
    keys = []
    for name in ("test_ex07_private.py", "expected.npy", "expected.npy", "data/more.json", "__pycache__/test.pyc"):
        hand_in((private / name).parent, f"{len(keys)}", Path(name).name)
        keys.append(key_of(submission, exercise, Options(private=private)))
    assert len(set(keys[:4])) == 4
    assert keys[4] == keys[3]


OUTCOMES = """
import errno
import pytest
from course.harness.verdicts import fail, inconclusive

@pytest.fixture
def leaves_something():
    yield
    fail("was not ended")

@pytest.mark.points(1)
def test_passes(submission): pass

@pytest.mark.points(1)
def test_fails(): fail("a sentence")

@pytest.mark.points(1)
def test_raises(): {}["x"]

@pytest.mark.points(1)
def test_tidies_up_badly(leaves_something): pass

@pytest.mark.points(1)
def test_skips(): pytest.skip("no Docker here")

@pytest.mark.points(1)
def test_is_noisy(): inconclusive("by 3%")

def test_is_worth_nothing(): pass

@pytest.mark.points(1)
def test_has_no_disk_left(): raise OSError(errno.ENOSPC, "No space left on device")

@pytest.mark.points(1)
def test_reads_too_much(): bytearray(2**40)
"""


def record(folder: Path, key: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "test_ex07_outcomes.py", "--rootdir", folder, "-s", "--private-tests"]
    command += ["-c", ROOT / "pyproject.toml", "--results", folder / "results.json", "-o", f"cache_dir={folder}"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, env=env, input=key, capture_output=True, text=True, timeout=60)


def test_what_came_of_each_test_is_recorded_and_signed(tmp_path):
    key = "k" * 32
    hand_in(tmp_path, OUTCOMES, "test_ex07_outcomes.py")
    record(tmp_path, key)
    file = tmp_path / "results.json"
    recorded = read_results(file, key.encode())
    told = {node.split("::test_")[1]: (test["outcome"], test["message"]) for node, test in recorded["tests"].items()}
    assert told == {
        "passes": ("passed", ""),
        "fails": ("failed", "a sentence"),
        "raises": ("failed", "KeyError: 'x'"),
        "tidies_up_badly": ("failed", "was not ended"),
        "skips": ("skipped", "no Docker here"),
        "is_noisy": ("inconclusive", "inconclusive, run again: by 3%"),
        "has_no_disk_left": ("failed", "OSError: [Errno 28] No space left on device"),
        "reads_too_much": ("failed", "MemoryError"),
    }
    assert sum(recorded["collected"].values()) == 8
    # A full disk is not a failure of the student: there is no verdict. Nor is the memory that pytest may have.
    assert recorded["problems"] == [
        "test_has_no_disk_left: [Errno 28] No space left on device",
        "test_reads_too_much: ",
    ]

    assert read_results(file, b"another key, just as long as that") is None
    file.write_text(file.read_text().replace("failed", "passed"))
    assert read_results(file, key.encode()) is None


def test_results_are_not_written_without_a_key(tmp_path):
    hand_in(tmp_path, OUTCOMES, "test_ex07_outcomes.py")
    assert "--results needs a key" in record(tmp_path, "").stderr
    assert not (tmp_path / "results.json").exists()


def test_a_link_and_a_name_in_capitals_are_named_where_a_file_is_missing(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "ex01_export.py").write_text("")
    (folder / "EX07_providers.py").write_text(SOLUTION)
    (folder / "ex04_inference.py").symlink_to(ROOT / "solutions" / "ex04_inference.py")
    handed = handed_in.one(folder)
    handed.take_over(tmp_path / "work")
    nothing = "Nothing was handed in: there is no "
    link = "ex04_inference.py. ex04_inference.py is a link, and was left out."
    assert handed.lacks(["ex04_inference.py"]) == nothing + link
    case = "ex07_providers.py. EX07_providers.py has another name: upper and lower case differ."
    assert handed.lacks(["ex07_providers.py"]) == nothing + case
    assert handed.lacks(["ex02_check.py"]) == f"{nothing}ex02_check.py."
