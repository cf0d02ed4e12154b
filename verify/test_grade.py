"""make grade: the results are right, whatever a submission or the grader's machine does."""

import csv
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from html import unescape
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from commands import COURSE, processes_with, run
from filelock import FileLock
from grader import BROKEN, SOLUTION, Gradescope, grade, hand_in, path_with, result

from course import ROOT
from course.base.manifest import find
from course.base.processes import GraderFailure
from course.grading import handed_in
from course.grading.kept import key_of
from course.grading.reports import write_class, write_submission
from course.grading.results import WEAK, ExerciseResult, SubmissionResult, TestResult, one_line
from course.grading.run import Options, verdict
from course.harness.recorder import read_results
from course.isolation import sandbox
from course.isolation.bubblewrap import Folders

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

# ------------------------------------------------------------------------------ a class, graded once

BOB = "1-1"  # how the folder begins that the name above becomes
CLASS = {  # what its folder begins with: points, of how many
    "good": (11, 11),
    BOB: (1, 11),
    "index.html": (1, 11),
    "nested.tar.gz": (1, 11),
    "nothing": (0, 8),
    "slip.zip": (0, 8),
    "broken.zip": (0, 8),
}


class Reports(NamedTuple):
    """What was written, and printed."""

    output: Path
    printed: str
    github: Path  # the folder of GitHub's summary

    def of(self, name: str) -> Path:
        """The folder of one submission."""
        [folder] = self.output.glob(f"{name}*/")
        return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> Reports:
    folder, output, private, github = map(tmp_path_factory.mktemp, ("class", "grades", "private", "github"))
    hand_in(private, PRIVATE.format(count=str(github / "count")), "test_ex07_private.py")
    hand_in(folder / "good", SOLUTION)
    hand_in(folder / NAME, f"def providers():\n    raise ValueError({EVIL!r})\n")
    (hand_in(folder / "nothing", "", "ex01_export.py") / f"{NAME}ex07_providers.py").symlink_to("ex01_export.py")
    hand_in(folder / "index.html")
    with zipfile.ZipFile(folder / "slip.zip", "w") as archive:
        archive.writestr("ex07_providers.py", SOLUTION)
        archive.writestr("../../outside.py", "harm")
    (folder / "broken.zip").write_bytes(b"PK\x03\x04 nothing that could be unpacked")
    with tarfile.open(folder / "nested.tar.gz", "w:gz") as archive:
        archive.add(hand_in(tmp_path_factory.mktemp("nested")), "someone-course-main/exercises")
    printed = grade(
        "--submissions", folder, "--jobs", 2, "--private", private, "--output", output,
        GITHUB_STEP_SUMMARY=str(github / "summary"),
    )  # fmt: skip
    return Reports(output, printed, github)


def test_each_submission_gets_its_own_points_and_none_harms_another(reports):
    with (reports.output / "class.csv").open(newline="") as file:
        rows = {row["submission"]: f"{row['points']} of {row['of']}, {row['state']}" for row in csv.DictReader(file)}
    names = {name: "'" + one_line(NAME) if name == BOB else name for name in CLASS}
    assert rows == {names[name]: f"{reached} of {most}, final" for name, (reached, most) in CLASS.items()}
    assert "ex07_providers.py is a link" in result(reports.output, "nothing")["failure"]
    assert "points outside" in result(reports.output, "slip.zip")["failure"]
    assert "cannot be unpacked" in result(reports.output, "broken.zip")["failure"]
    assert not list(reports.output.parent.rglob("outside.py"))


def test_what_was_too_noisy_is_asked_once_more(reports):
    """The private test was inconclusive at first; nobody lost its point."""
    noisy = [test for test in result(reports.output, "good")["tests"] if "noisy" in test["id"]]
    assert [(test["outcome"], test["points"]) for test in noisy] == [("passed", 1.0)]


def test_the_time_of_the_student_is_told_from_that_of_the_grader(reports):
    good = result(reports.output, "good")
    assert 0 < good["own_seconds"] < good["seconds"]


@pytest.mark.parametrize("name", CLASS)
def test_gradescope_gets_its_own_fields_partial_scores_and_hidden_tests(reports, name):
    score, most = CLASS[name]
    content = Gradescope.model_validate_json((reports.of(name) / "gradescope.json").read_text())
    assert content.score == score
    assert sum(test.score for test in content.tests) == score
    assert sum(test.max_score for test in content.tests) == most
    private = [test for test in content.tests if "private" in test.tags]
    assert all(test.visibility == "hidden" for test in private)
    assert len(private) == (0 if most == 8 else 2)
    assert {test.visibility for test in content.tests if test not in private} == {"visible"}
    assert content.stdout_visibility == "hidden"
    shown = content.output + "".join(f"{test.name}{test.output}" for test in content.tests if test not in private)
    assert "secret" not in shown


@pytest.mark.parametrize("name", CLASS)
def test_junit_has_each_exercise_as_a_suite(reports, name):
    suite = ElementTree.parse(reports.of(name) / "junit.xml").find("testsuite")
    outcomes = [test["outcome"] for test in result(reports.output, reports.of(name).name)["tests"]] or ["failed"]
    assert (int(suite.get("tests")), int(suite.get("failures"))) == (len(outcomes), outcomes.count("failed"))
    assert name != BOB or "<script>alert(1)</script>]]>" in suite.find("testcase/failure").text


def test_pages_need_nothing_from_elsewhere_and_run_nothing_of_a_student(reports):
    pages = [*reports.output.glob("*.html"), *reports.output.glob("*/*.html")]
    assert len(pages) == 12  # the class, seven submissions, and with private tests four of them
    for path in pages:
        text = path.read_text()
        bold = set() if path.name == "index.html" else {"b"}
        assert not set(re.findall(r"<(\w+)", text)) & {"script", "img", "link", "iframe", "object", "base", *bold}
        for tag, link in re.findall(r'<(\w+)[^>]*\s(?:src|href|action|srcset)\s*=\s*"?([^" >]*)', text):
            assert tag == "a"
            assert (reports.output / link).is_file(), link
    assert "<script>alert(1)</script>" in unescape((reports.of(BOB) / "report.html").read_text())
    assert one_line(NAME) in unescape((reports.output / "index.html").read_text())


def test_no_report_that_a_student_may_have_tells_of_private_tests(reports):
    for folder in (reports.of("good"), reports.of(BOB)):
        for name in ("report.html", "junit.xml", "summary.md"):
            assert "secret" not in (folder / name).read_text(), folder / name
    assert "secret name of a private test" in (reports.of(BOB) / "for_teacher.html").read_text()
    assert "secret" not in reports.printed


def test_text_of_students_is_harmless_everywhere(reports):
    """Escape codes, control characters, marks that turn the direction of writing: in no file, and not printed."""
    files = [path for top in (reports.output, reports.github) for path in top.rglob("*") if path.is_file()]
    assert len(files) > 40
    for text in [reports.printed, *(path.read_text() for path in files)]:
        assert not set(text) & {"\x1b", "\x00", "\x07", "\u202e", "\ufffe"}
        assert "\\u001b" not in text
    assert one_line(NAME) in reports.printed, "a line break in a name is not printed"
    summary = (reports.github / "summary").read_text()
    assert "<script>" not in summary
    assert "&lt;script&gt;" in summary
    assert "<b>bob" not in summary


# ------------------------------------------------------------------------------ isolation


def test_a_forged_results_file_is_not_believed(tmp_path):
    """Without a sandbox it can be written, and the grader's run be killed; that is no pass, and not the last word."""
    planted, output = tmp_path / "planted", tmp_path / "grades"
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
    command = ("--submission", tmp_path / "forger", "--isolation", "none", "--output", output)
    printed = grade(*command, code=1)
    assert planted.exists()
    assert "The grader's run was ended by SIGKILL" in printed
    found = result(output, "forger")
    assert (found["tests"], bool(found["problem"])) == ([], True)
    assert "0 of 8" in printed
    assert WEAK["none"] in " ".join(printed.split())
    # Run again, it is not graded for the same reason: no mere accident.
    assert "Suspicious: forger, exercise 07." in grade(*command, code=1)
    assert result(output, "forger")["suspicious"]
    assert "forger,0,8,8,suspicious,none," in (output / "class.csv").read_text()
    planted.unlink()
    assert "Suspicious: forger, exercise 07." in grade(*command, code=1)
    assert not planted.exists(), "it was graded a third time"


NO_BWRAP = "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit {code}\n"
NO_PYTHON = (
    "#!/bin/sh\nwhile [ $1 != -- ]; do shift; done; shift\nexec env -i PATH= $1 -c 'import sys; sys.exit(127)'\n"
)


@pytest.mark.parametrize(
    ("bwrap", "sentence"),
    [
        (None, "ISOLATION=process needs bubblewrap. Install it with: sudo apt-get install bubblewrap"),
        (NO_BWRAP.format(code=1), "ISOLATION=process does not work here."),
        (NO_BWRAP.format(code=127), "bwrap: No permissions to create new namespace"),
        (NO_PYTHON, "does"),
    ],
    ids=["missing", "forbidden", "127", "the program does not run"],
)
def test_without_a_sandbox_that_works_nothing_is_graded(tmp_path, bwrap, sentence):
    """A right answer, and a machine on which it cannot be tried: one sentence, and no points of anybody."""
    path = path_with(tmp_path / "bin", "sh", "env")
    if bwrap:
        (tmp_path / "bin" / "bwrap").write_text(bwrap)
        (tmp_path / "bin" / "bwrap").chmod(0o755)
    command = ("--submission", hand_in(tmp_path / "anna", SOLUTION), "--output", tmp_path / "grades")
    printed = grade(*command, code=1, PATH=path)
    assert sentence in printed
    assert "If you trust the code, type ISOLATION=limits." in printed
    assert "Traceback" not in printed
    assert not list((tmp_path / "grades").glob("*/*"))
    if not bwrap:
        printed = " ".join(grade(*command, "--isolation", "limits", PATH=path).split())
        assert "8 of 8" in printed
        assert WEAK["limits"] in printed


@pytest.mark.parametrize("isolation", WEAK)
def test_weak_isolation_is_named_in_every_report(tmp_path, monkeypatch, isolation):
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "github.md"))
    test = TestResult(id="t::test_a", points=1, outcome="failed", private=True)
    exercise = ExerciseResult.of(find("07"), tests=[test])
    graded = SubmissionResult(name="anna", slug="anna", exercises=[exercise], isolation=isolation)
    write_submission(graded, tmp_path)
    write_class([graded], tmp_path)
    files = {path.name: path.read_text() for path in tmp_path.rglob("*.*")}
    assert len(files) == 9
    for name, text in files.items():
        assert re.search(rf"\b{isolation}\b", text), name
        assert name in ("class.csv", "junit.xml", "result.json") or WEAK[isolation] in text, name


def test_a_program_that_the_sandbox_does_not_start_is_not_one_of_the_student(tmp_path):
    """As where the disk is full: exit code 127, which a student's program could have as well."""
    for how in ("limits", "process"):
        started = sandbox.running(
            ["/nowhere"], cwd=ROOT, env={}, log=tmp_path / "log", folders=Folders(set(), set()), how=how
        )
        with pytest.raises(GraderFailure, match="/nowhere cannot be started"), started:
            pass


# ------------------------------------------------------------------------------ what is a verdict, and what is not

EXTRA = (
    "import pytest\nfrom course.harness.verdicts import inconclusive\n@pytest.mark.points(2)\ndef test_extra():\n    "
)
NO_ENGINE = "import os\n    if 'ENGINE' not in os.environ: pytest.skip('there is no engine')\n"


def test_a_mistake_of_the_grader_is_not_one_of_the_student_and_is_run_again(tmp_path):
    """A private test that cannot be read: not graded. Once it is fixed, the same command grades it."""
    private, output = tmp_path / "private", tmp_path / "grades"
    hand_in(tmp_path / "anna")
    command = ("--submission", tmp_path / "anna", "--private", private, "--isolation", "none")
    command += ("--output", output)

    hand_in(private, "import nowhere_to_be_found\n", "test_ex07_extra.py")
    printed = grade(*command, code=1)
    assert "not graded" in printed
    assert "No module named 'nowhere_to_be_found'" in " ".join(printed.split())
    for file in ("report.html", "junit.xml", "summary.md", "gradescope.json"):
        assert not re.search("nowhere_to_be_found|test_ex07_extra", (output / "anna" / file).read_text()), file
    content = Gradescope.model_validate_json((output / "anna" / "gradescope.json").read_text())
    assert content.tests[0].max_score is None
    assert "the grader failed, not your work" in content.tests[0].output
    assert '<error message="' in (output / "anna" / "junit.xml").read_text()

    hand_in(private, f"{EXTRA}inconclusive('by 3%, give or take 9%')\n", "test_ex07_extra.py")
    assert "inconclusive" in grade(*command, code=1)
    tests = json.loads((output / "anna" / "result.json").read_text())["exercises"][0]["tests"]
    assert [(test["outcome"], test["points"]) for test in tests if test["private"]] == [("inconclusive", 2.0)]
    assert "0 of 10, 2 open" in (output / "anna" / "for_teacher.html").read_text()

    hand_in(private, f"{EXTRA}{NO_ENGINE}", "test_ex07_extra.py")
    assert "open. there is no engine" in grade(*command, code=1)
    grade(*command, ENGINE="has been started")
    assert "2 of 10" in (output / "anna" / "for_teacher.html").read_text()


TESTS = {node: {"outcome": "passed", "message": "", "details": "", "seconds": 1.0} for node in ("t::a", "t::b")}
COMPLETE = {"exit": 1, "problems": [], "collected": {"t::a": 5, "t::b": 3}, "own_seconds": 1.0, "tests": TESTS}
HALF = {"tests": {"t::a": TESTS["t::a"]}}


@pytest.mark.parametrize(
    ("code", "changed", "sentence"),
    [
        (1, {}, ""),
        (None, {}, "had not ended in time"),
        (-9, {}, "was ended by SIGKILL"),
        (137, {}, "was ended by SIGKILL"),
        (0, {}, "exit code is 0"),
        (1, None, "left no results of its own"),
        (1, HALF, "incomplete: 1 of 2"),
        (1, {"tests": {}, "collected": {}}, "incomplete: 0 of 0"),
        (1, HALF | {"collected": {"t::a": 5}}, "worth 5 points"),
        (3, {"exit": 3}, "exit code is 3"),
        (1, {"problems": ["pytest failed: KeyError"]}, "pytest failed: KeyError"),
    ],
)
def test_only_a_complete_run_is_a_verdict(code, changed, sentence):
    run = verdict(code, None if changed is None else COMPLETE | changed, 8, "last words")
    assert sentence in run.problem
    assert bool(run.problem) == bool(sentence)
    assert len(run.tests) == (0 if sentence else 2)


OUTCOMES = {  # a test, its outcome and what is told of it
    "test_passes(submission): pass": ("passed", ""),
    "test_fails(): fail('a sentence')": ("failed", "a sentence"),
    "test_raises(): {}['x']": ("failed", "KeyError: 'x'"),
    "test_tidies_up_badly(leaves_something): pass": ("failed", "was not ended"),
    "test_skips(): pytest.skip('no Docker here')": ("skipped", "no Docker here"),
    "test_is_noisy(): inconclusive('by 3%')": ("inconclusive", "inconclusive, run again: by 3%"),
    "test_has_no_disk_left(): raise OSError(errno.ENOSPC, 'no space')": ("failed", "OSError: [Errno 28] no space"),
    "test_reads_too_much(): bytearray(2**40)": ("failed", "MemoryError"),
}
FIXTURE = """
import errno
import pytest
from course.harness.verdicts import fail, inconclusive

@pytest.fixture
def leaves_something():
    yield
    fail("was not ended")

def test_is_worth_nothing(): pass
"""


def record(folder: Path, key: str) -> subprocess.CompletedProcess:
    tests = "".join(f"@pytest.mark.points(1)\ndef {test}\n" for test in OUTCOMES)
    hand_in(folder, FIXTURE + tests, "test_ex07_outcomes.py")
    command = [sys.executable, "-m", "pytest", "test_ex07_outcomes.py", "--rootdir", folder, "-s", "--private-tests"]
    command += ["-c", ROOT / "pyproject.toml", "--results", folder / "results.json", "-o", f"cache_dir={folder}"]
    return run(*command, cwd=folder, input=key, PYTHONPATH=str(ROOT))


def test_what_came_of_each_test_is_recorded_and_signed(tmp_path):
    key = "k" * 32
    record(tmp_path, key)
    file = tmp_path / "results.json"
    recorded = read_results(file, key.encode())
    told = {node.partition("::")[2]: (test["outcome"], test["message"]) for node, test in recorded["tests"].items()}
    assert told == {test.partition("(")[0]: outcome for test, outcome in OUTCOMES.items()}
    assert sum(recorded["collected"].values()) == 8
    # A full disk is not a failure of the student: there is no verdict. Nor is the memory that pytest may have.
    assert recorded["problems"] == ["test_has_no_disk_left: [Errno 28] no space", "test_reads_too_much: "]
    assert read_results(file, b"another key, just as long as that") is None
    file.write_text(file.read_text().replace("failed", "passed"))
    assert read_results(file, key.encode()) is None


def test_results_are_not_written_without_a_key(tmp_path):
    assert "--results needs a key" in record(tmp_path, "").stderr
    assert not (tmp_path / "results.json").exists()


# ------------------------------------------------------------------------------ started again

SLEEPER = """
import pathlib, time
begun = pathlib.Path({begun!r})
if not begun.exists():
    begun.touch()
    time.sleep(600)
"""


def times(output: Path) -> dict[str, int]:
    """When each result was written, by submission."""
    return {path.parents[1].name: path.stat().st_mtime_ns for path in output.glob("*/exercises/07.json")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_started_again_it_goes_on_where_it_was(tmp_path, how):
    begun, output = tmp_path / "begun", tmp_path / "grades"
    hand_in(tmp_path / "class" / "a")
    hand_in(tmp_path / "class" / "b", SLEEPER.format(begun=str(begun)))  # at its first time, it never ends
    command = ["--submissions", tmp_path / "class", "--isolation", "none", "--output", output]
    grader = subprocess.Popen(
        [*COURSE, "grade", "--ex", "07", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    give_up = time.monotonic() + 120
    while not begun.exists():
        assert grader.poll() is None
        assert time.monotonic() < give_up
        time.sleep(0.02)
    first, work = times(output), Path((output / ".work").read_text())
    assert list(first) == ["a"]
    assert processes_with(str(work))
    grader.send_signal(how)
    printed, _ = grader.communicate(timeout=60)
    assert grader.returncode == (-9 if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert "Stopped. All results so far are kept." in printed
        assert "Traceback" not in printed
        assert not processes_with(str(work))
        assert times(output) == first, "went on after Ctrl-C"
        return

    grade(*command)
    second = times(output)
    assert second == first | {"b": second["b"]}, "graded again"
    assert not processes_with(str(work))
    assert not work.exists()

    # Nothing has changed: nothing is run. A changed file: its exercise is, and no other.
    hand_in(tmp_path / "class" / "b", BROKEN + "# changed\n")
    grade(*command)
    assert {name for name, at in times(output).items() if at != second[name]} == {"b"}


def test_data_beside_private_tests_is_part_of_what_a_result_depends_on(tmp_path):
    private = hand_in(tmp_path / "private", "", "test_ex07_private.py")
    submission, exercise = handed_in.one(hand_in(tmp_path / "anna")), find("07")
    keys = []
    for name in ("test_ex07_private.py", "expected.npy", "expected.npy", "data/more.json", "__pycache__/test.pyc"):
        hand_in(private, f"{len(keys)}", name)
        keys.append(key_of(submission, exercise, Options(private=private)))
    assert len(set(keys[:4])) == 4
    assert keys[4] == keys[3]


def test_two_graders_do_not_write_into_one_folder(tmp_path):
    output = tmp_path / "grades"
    output.mkdir()
    with FileLock(output / ".lock"):
        printed = grade("--submission", hand_in(tmp_path / "a"), "--output", output, code=1)
    assert printed.strip().endswith("Wait for it, or name another OUTPUT=.")
    assert len(printed.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("", "Name one submission, make grade SUBMISSION=folder, or a folder of them"),
        ("--submission nowhere", "SUBMISSION=nowhere: there is no such folder or archive"),
        ("--submissions data", "SUBMISSIONS=data: there is neither a folder nor an archive"),
        ("--submissions solutions", "SUBMISSIONS=solutions: this is one submission, not a folder of them: make grade "),
        ("--submission solutions --private docs", "PRIVATE=docs: there is no file test_exNN_name.py"),
    ],
)
def test_what_cannot_be_graded_is_one_sentence(typed, sentence):
    assert grade(*typed.split(), code=1).startswith(sentence)
