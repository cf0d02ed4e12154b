"""How tests meet submissions: whatever student code does, its own test fails with one sentence, and nothing is left."""

import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import run

from course import ROOT
from course.base.processes import marked
from course.harness.submission import Submission
from course.harness.verdicts import said

Failed = pytest.fail.Exception


@pytest.fixture
def write(tmp_path: Path):
    """A submission whose ex99.py is the given text."""

    def submission(text: str, file: str = "ex99.py") -> Submission:
        folder = tmp_path / "submission"
        folder.mkdir(exist_ok=True)
        (folder / file).write_text(text)
        return Submission(folder, tmp_path / "scratch")

    return submission


def test_arguments_and_results_pass_as_files(write, tmp_path):
    code = "def mirror(**everything):\n    return {**everything, 'doubled': everything['array'] * 2}\n"
    values = {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "path": tmp_path / "a file",
        "number": 1.5,
        "nothing": None,
        "nested": [1, ["two", {"three": np.ones(3)}]],
    }
    got = write(code).call("ex99.py", "mirror", **values)
    assert np.array_equal(got.pop("doubled"), values["array"] * 2)
    assert got.pop("array").dtype == np.float32
    nested = got.pop("nested")
    assert np.array_equal(nested[1][1].pop("three"), np.ones(3))
    assert nested == [1, ["two", {}]]
    assert got == {"path": tmp_path / "a file", "number": 1.5, "nothing": None}


ENDED = "ended the program (exit code 0) instead of returning"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def f(): raise NotImplementedError('Do it.')", "ex99.py: f() is not written yet on line 1. Do it."),
        ("def f(:\n", "ex99.py has a syntax error on line 1: invalid syntax."),
        ("def f():\nreturn 1", "ex99.py has a syntax error on line 2: expected an indented block"),
        ("def g(): return 1", "ex99.py has no function f()."),
        ("def f():\n    return {}['x']", "ex99.py: f() raised KeyError on line 2: 'x'"),
        ("import nowhere\ndef f(): return 1", "f() raised ModuleNotFoundError on line 1: No module named 'nowhere'"),
        ("import sys\ndef f(): sys.exit(0)", ENDED),
        ("import os\ndef f(): os._exit(0)", ENDED),
        ("import sys\nsys.exit(0)", ENDED),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "ex99.py: f() crashed the interpreter (SIGSEGV)."),
        ("import os\ndef f(): os.abort()", "ex99.py: f() crashed the interpreter (SIGABRT)."),
        ("def f():\n    while True: pass", "ex99.py: f() had not ended after 3 s. Is there an endless loop?"),
        ("def f(): return object()", "returned a object; expected arrays, numbers, text, paths"),
        ("import numpy\ndef f(): return numpy.array([print])", "raised ValueError: Object arrays cannot be saved"),
        ("def f(): return f()", "raised RecursionError on line 1"),
    ],
)
def test_what_goes_wrong_is_one_sentence(write, code, sentence):
    with pytest.raises(Failed) as failure:
        write(code).call("ex99.py", "f", timeout=3)
    assert sentence in str(failure.value)
    assert "Traceback" not in str(failure.value).splitlines()[0]
    assert failure.value.pytrace is False


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        ("ex99.py", r"ex98\.py is missing in [^.]*\.$"),
        ("EX98.py", r"ex98\.py is missing in .*\. EX98\.py has another name: upper and lower case differ"),
    ],
)
def test_a_missing_file_is_one_sentence(write, there, sentence):
    with pytest.raises(Failed, match=sentence):
        write("", there).call("ex98.py", "f")


def test_a_result_that_the_worker_did_not_write_is_refused(write):
    """A pickle in the place of the array would run its author's code in the grader."""
    forger = (
        "import os, pathlib, pickle, sys\n"
        "def f():\n"
        "    folder = pathlib.Path(sys.argv[1])\n"
        "    (folder / 'x.npy').write_bytes(pickle.dumps([1]))\n"
        "    (folder / 'result.json').write_text('{\"array\": \"x.npy\"}')\n"
        "    os._exit(0)\n"
    )
    with pytest.raises(Failed, match="its result cannot be read"):
        write(forger).call("ex99.py", "f")


@pytest.mark.parametrize("library", ["numpy", "onnxruntime"])
def test_a_file_beside_the_exercise_does_not_stand_for_a_library(write, library):
    submission = write("raise SystemExit('the wrong one')", f"{library}.py")
    write(f"import {library}\ndef f(): return {library}.__version__\n")
    assert submission.call("ex99.py", "f")[0].isdigit()


def test_nothing_that_was_started_is_left(write, tmp_path):
    """A child in a session of its own, deaf to SIGTERM, is ended all the same."""
    code = (
        "import signal, subprocess, sys\n"
        "def f(note):\n"
        "    deaf = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
        "    child = subprocess.Popen([sys.executable, '-c', deaf], start_new_session=True)\n"
        "    note.write_text(str(child.pid))\n"
        "    return 1\n"
    )
    write(code).call("ex99.py", "f", note=tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


SERVICE = """
import bentoml

@bentoml.service
class ImageClassifierService:
    def __init__(self):
        {init}

    @bentoml.api
    def answer(self, number: int) -> int:
        {body}
"""


def serve(submission: Submission, **options):
    with submission.serve("ex99.py", **options) as server:
        return server.request("POST", "/answer", json={"number": 1}), server.last_words(), server.process.mark


def test_a_service_is_started_and_ended(write):
    response, _, mark = serve(write(SERVICE.format(init="pass", body="return number + 1")))
    assert response.json() == 2
    assert not marked(mark)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import os; os._exit(3)", r"`bentoml serve ex99:ImageClassifierService` ended \(exit code 3\)"),
        ("raise ValueError('no luck')", "ended .* says: ValueError: no luck"),
        ("", "ended .* Failed to load bento or import service"),
        (SERVICE.format(init="raise KeyError('weights')", body="pass"), "fails to start, again and again.* KeyError"),
        (SERVICE.format(init="import time; time.sleep(60)", body="pass"), "was not ready after 5 s"),
    ],
    ids=["exit", "raises", "nothing", "restart_loop", "never_ready"],
)
def test_a_service_that_does_not_start_is_one_sentence(write, code, sentence):
    deadline = 5 if "sleep" in code else 60
    with pytest.raises(Failed, match=f"(?s){sentence}"):
        serve(write(code), deadline=deadline)


def test_a_service_that_fails_tells_why(write):
    _, words, _ = serve(write(SERVICE.format(init="pass", body="return {}['lost']")))
    assert words == " The service's log says: KeyError: 'lost'"


def test_last_words_are_those_of_the_last_request(write):
    code = SERVICE.format(init="print('w' * 300)", body="print('x' * 300); return number")
    with write(code).serve("ex99.py") as server:
        for number in (1, 2):
            server.request("POST", "/answer", json={"number": number})
            lines = server.last_words().splitlines()
            assert "www" not in server.last_words()
            assert sum("xxx" in line for line in lines) == 1
            assert max(map(len, lines)) <= 124


def test_what_a_program_said_begins_with_the_exception(tmp_path):
    """Then the student's own frame; those of libraries are left out. Without a stack trace, whole lines of the end."""
    file = tmp_path / "ex99.py"
    file.write_text("import json\ndef read(text):\n    return json.loads(text)\nprint('x' * 900)\nread('nothing')\n")
    expected = "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0) | ex99.py, line 3, in read: "
    assert said(run(sys.executable, file).stderr) == f"{expected}return json.loads(text)"
    box = f"{'x' * 900}\n╭─── Traceback (most recent call last) ──╮\n│ {file}:3 in read  │\n╰──╯\nValueError: no\n"
    assert said(box) == "ValueError: no | ex99.py, line 3, in read"
    assert said("first\n" * 99 + "last", most=20) == "... first\nfirst\nlast"
    assert said("short\n") == "short"


def test_one_broken_exercise_stops_nothing_else(tmp_path):
    """A whole run of pytest on a submission in which all goes wrong but exercise 04."""
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "ex01_export.py").write_text("def export_dynamo(:\n")
    (folder / "ex04_inference.py").write_text((ROOT / "solutions/ex04_inference.py").read_text())
    (folder / "ex10_service.py").write_text("import os\nos._exit(0)\n")
    (folder / "conftest.py").write_text("raise SystemExit('a conftest of a student')\n")
    tests = [*sorted(ROOT.glob("tests/test_ex0[124]*.py")), "tests/test_ex10_service.py", "-k", "not test_client"]
    done = run(sys.executable, "-m", "pytest", "--submission", folder, "-q", *tests, timeout=200)
    assert done.returncode == 1, done.stdout[-2000:]
    lines = [line.split() for line in done.stdout.splitlines()]
    points = {words[0]: words[1] for words in lines if len(words) == 4 and words[2] == "of"}
    assert points == dict.fromkeys(("ex01_export", "ex02_check", "ex10_service"), "0") | {"ex04_inference": "10"}
    assert "SyntaxError" in done.stdout
    assert "ex02_check.py is missing in" in done.stdout
    assert "`bentoml serve ex10_service:ImageClassifierService` ended (exit code 0)" in done.stdout


def test_a_folder_that_is_not_there_is_one_line():
    done = run(sys.executable, "-m", "pytest", "--submission", "nowhere")
    assert done.returncode != 0
    assert "--submission nowhere: there is no such folder" in done.stderr
    assert "Traceback" not in done.stderr
