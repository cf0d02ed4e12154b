"""Calls that share their imports are to a student what calls in new interpreters are."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from course import ROOT
from course.base.processes import running
from course.student.warm import WarmSubmission

Failed = pytest.fail.Exception
FILE = "ex04_inference.py"  # a name that has a solution, whose imports are taken


@pytest.fixture
def write(tmp_path: Path):
    """A submission whose exercise 04 is the given text."""
    with closing(WarmSubmission(tmp_path, tmp_path / "scratch")) as submission:

        def written(text: str, file: str = FILE) -> WarmSubmission:
            (tmp_path / file).write_text(text)
            return submission

        yield written


def test_calls_share_imports_and_nothing_else(write):
    code = (
        "import os, sys\n"
        "there = 'numpy' in sys.modules, 'rich.table' in sys.modules, 'onnxruntime' in sys.modules\n"
        "count = 0\n"
        "def f(x):\n"
        "    global count\n"
        "    count += 1\n"
        "    sys.modules['numpy'].sum = None\n"
        "    os.environ['MINE'] = os.environ.get('MINE', '') + 'x'\n"
        "    return [count, os.environ['MINE'], os.getppid(), os.getcwd(), list(there)]\n"
        "def g():\n"
        "    import numpy\n"
        "    return numpy.sum([1, 2])\n"
    )
    submission = write(code)
    first, second = submission.call(FILE, "f", x=1), submission.call(FILE, "f", x=1)
    assert first == second
    assert first[:2] == [1, "x"]
    assert first[4] == [True, True, False]
    assert submission.call(FILE, "g") == 3
    write(code.replace("count = 0", "count = 10"))
    assert submission.call(FILE, "f", x=1)[0] == 11, "a file that was saved meanwhile is read again"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def f(): raise NotImplementedError('Do it.')", "f() is not written yet on line 1. Do it."),
        ("import sys\ndef f(): sys.exit(3)", "ended the program (exit code 3) instead of returning"),
        ("import os\ndef f(): os._exit(0)", "ended the program (exit code 0) instead of returning"),
        ("import ctypes\ndef f(): ctypes.string_at(0)", "f() crashed the interpreter (SIGSEGV)."),
        ("def f():\n    while True: pass", "f() had not ended after 2 s. Is there an endless loop?"),
    ],
    ids=["raises", "exit", "os_exit", "crash", "loop"],
)
def test_what_goes_wrong_is_one_sentence_and_the_next_call_works(write, code, sentence):
    submission = write(f"{code}\ndef g(): return 1\n")
    with pytest.raises(Failed) as failure:
        submission.call(FILE, "f", timeout=2)
    assert sentence in str(failure.value)
    assert submission.call(FILE, "g") == 1


def test_what_a_call_left_is_ended_with_it(write, tmp_path):
    code = (
        "import subprocess, sys\n"
        "def f(note):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "    note.write_text(str(child.pid))\n"
    )
    write(code).call(FILE, "f", note=tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_without_the_process_that_forks_calls_have_interpreters_of_their_own(write):
    submission = write("import os\ndef f(): return os.getppid()\n")
    psutil.Process(submission.call(FILE, "f")).kill()
    assert submission.call(FILE, "f") == os.getpid()


def test_a_file_without_a_solution_has_interpreters_of_its_own(write):
    assert write("def f(): return 5", "ex99.py").call("ex99.py", "f") == 5


def test_a_check_that_is_killed_leaves_no_endless_loop(tmp_path):
    (tmp_path / FILE).write_text(
        "import os\nfrom pathlib import Path\n"
        "def f(note):\n    Path(note).write_text(str(os.getpid()))\n    while True: pass\n"
    )
    check = (
        "import sys\nfrom pathlib import Path\nfrom course.student.warm import WarmSubmission\n"
        "folder = Path(sys.argv[1])\n"
        f"WarmSubmission(folder, folder / 'scratch').call({FILE!r}, 'f', note=folder / 'note')\n"
    )
    with running(
        [sys.executable, "-c", check, tmp_path], cwd=ROOT, env=dict(os.environ), log=tmp_path / "log"
    ) as process:
        assert comes_true(lambda: (tmp_path / "note").is_file() and (tmp_path / "note").read_text()), "it never began"
        process.kill()
        process.wait()
        pid = int((tmp_path / "note").read_text())
        assert comes_true(lambda: not psutil.pid_exists(pid)), f"process {pid} goes on without anybody who waits for it"


def comes_true(holds: Callable[[], bool], patience: float = 20) -> bool:
    """Whether something holds before long."""
    give_up = time.monotonic() + patience
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.05)
    return holds()
