"""What a student types: check, hint, progress, watch, solution, reset."""

import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import psutil
import pytest
from course_copy import Copy
from filelock import FileLock

from course import ROOT
from course.base.manifest import exercises, find, untouched
from course.base.processes import marked, running, wait
from course.student.steps import left, step_of, steps

FILE = "ex04_inference.py"
HINTS = find("04").hints


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    if not all(untouched(exercise) for exercise in exercises()):
        pytest.skip("exercises/ has been worked on")
    return Copy(tmp_path)


def write_wrong_names(copy: Copy) -> None:
    """Write the first function, and write it wrong."""
    starter = copy.file(FILE).read_text()
    todo = 'raise NotImplementedError("Ask the session for the names of its input and output.")'
    assert todo in starter
    copy.file(FILE).write_text(starter.replace(todo, 'return "input", "output"'))


def said(done: subprocess.CompletedProcess) -> str:
    """What a command printed: no stack trace, and no colours in a pipe."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert "\x1b" not in text
    return text


def test_a_check_that_fails_says_why_and_what_next(copy):
    write_wrong_names(copy)
    done = copy.make("check", "EX=4")
    text = said(done)
    assert done.returncode != 0
    assert "✗ finds the names of input and output" in text
    for words in ("called    input_and_output(", "got       ['input', 'output']", "expected  ['pixels', 'scores']"):
        assert words in text
    starter = steps(FILE, (ROOT / "exercises" / FILE).read_text())
    step = next(one for one in starter if one.function == "input_and_output")
    assert f"step      exercises/{FILE}, {step.words}\n" in text
    lines = (ROOT / "tests" / "test_ex04_inference.py").read_text().splitlines()
    decorator = lines.index("def test_finds_the_names_of_input_and_output(submission, renamed):")
    assert f"test      tests/test_ex04_inference.py:{decorator}\n" in text
    assert "preprocesses" not in text, "it ends with the first failure"
    assert re.search(r"^0 of (\d+) tests pass, 0 of 10 points; \1 to go\.$", text, re.MULTILINE)
    assert "make hint EX=04 (hint 1 of 4), or read docs/ex04_inference.md" in text
    assert f"0 of {len(exercises())} exercises done, 0 of" in text
    assert re.search(r"^\d+\.\d s$", text, re.MULTILINE), "the seconds that it took"
    page = (ROOT / "docs" / "students.md").read_text().partition("$ make check EX=04\n")[2].partition("```")[0]
    assert re.sub(r"\d+", "N", page) == re.sub(r"\d+", "N", done.stdout), "docs/students.md shows another output"


def test_solved_seen_changed_and_begun_again(copy):
    """The life of one exercise, with one check of all its tests."""
    assert copy.make("solution", "EX=04").returncode != 0
    copy.solve(FILE)
    done = copy.make("check", "EX=04")
    text = said(done)
    assert done.returncode == 0
    assert text.count("✓") > 10
    assert "Done: 10 of 10 points." in text
    assert "Next: make help EX=05" in text
    assert f"1 of {len(exercises())} exercises done, 10 of" in text
    assert "✓ 04  inference          10 of 10 points\n" in said(copy.make("progress"))

    shown = said(copy.make("solution", "EX=04"))
    assert (ROOT / "solutions" / FILE).read_text() in shown
    assert "No difference." in said(copy.make("solution", "EX=04", "DIFF=1"))

    with copy.file(FILE).open("a") as file:
        file.write("# one more thought\n")
    assert "… 04  inference          10 of 10 points; changed since: make check EX=04" in said(copy.make("progress"))
    assert "-# one more thought" in said(copy.make("solution", "EX=04", "DIFF=1"))
    copy.make("reset", "EX=04")
    text = said(copy.make("progress"))
    assert "· 04  inference          not begun" in text
    assert f"0 of {len(exercises())} exercises done, 0 of" in text


def test_what_failed_last_runs_first_and_keeps_what_passed_before(copy):
    solved = (ROOT / "solutions" / FILE).read_text()
    axis = "keepdims=True"
    assert axis in solved
    copy.file(FILE).write_text(solved.replace(axis, "keepdims=False"))
    text = said(copy.make("check", "EX=04"))
    passed = text.count("✓")
    assert passed > 2
    assert "✗ softmax survives large logits" in text

    copy.file(FILE).write_text(solved.replace(axis, "keepdims = False"))
    again = said(copy.make("check", "EX=04"))
    assert "✓" not in again
    assert "✗ softmax survives large logits" in again
    counts = re.search(rf"^{passed} of \d+ tests pass.*$", text, re.MULTILINE)[0]
    assert counts in again

    copy.solve(FILE)
    text = said(copy.make("check", "EX=04"))
    assert text.index("✓ softmax") < text.index("✓ finds the names")
    assert "Done: 10 of 10 points." in text


def test_a_forgotten_return_is_named(copy):
    starter = copy.file(FILE).read_text()
    todo = 'raise NotImplementedError("Ask the session for the names of its input and output.")'
    copy.file(FILE).write_text(starter.replace(todo, '"input", "output"'))
    assert "input_and_output() returned None: is there a return?" in said(copy.make("check", "EX=04"))


def test_a_failure_names_the_step_of_the_function_that_was_called():
    text = (
        "class Service:\n    # TODO 1: none of a function's\n\n"
        "    @decorated  # TODO 2: the decorator\n    async def classify(self):\n        return\n\n"
        "    def predict(self):\n        # TODO 3: run the session,\n        # and return its output.\n        return\n"
    )
    found = steps("service.py", text)
    assert [(one.function, one.words) for one in found] == [
        ("", "TODO 1: none of a function's"),
        ("classify", "TODO 2: the decorator"),
        ("predict", "TODO 3: run the session, and return its output."),
    ]
    assert [one.line for one in found] == [2, 4, 9]
    assert step_of(find("10"), "POST /predict with an empty body").function == "predict"
    for exercise in exercises():
        todo = left(exercise)
        for step in (one for one in todo if one.function):
            first = next(one for one in todo if one.function == step.function)
            assert step_of(exercise, f"{step.function}(1) in {step.file}") == first
    assert step_of(find("04"), "softmax([[1000, 999, 0], [-5, 0, 5]])").function == "softmax"
    assert step_of(find("04"), "python ex04_inference.py cat.png") == left(find("04"))[0], "it names no function"
    assert step_of(find("17"), "docker build").file.startswith("bentofiles/")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "exercises/ex04_inference.py does not exist. To put the starter back: make reset EX=04"),
        (b"x = 1\ndef f(:\n", "exercises/ex04_inference.py has a syntax error on line 2: invalid syntax."),
        (b"\xff\xfe", "exercises/ex04_inference.py has a syntax error"),
        (b"return 1\n", "exercises/ex04_inference.py has a syntax error on line 1: 'return' outside function."),
    ],
    ids=["deleted", "syntax", "no_text", "return"],
)
def test_what_cannot_be_run_is_said_before_any_test(copy, content, sentence):
    copy.file(FILE).unlink()
    if content is not None:
        copy.file(FILE).write_bytes(content)
    done = copy.make("check", "EX=04")
    assert done.returncode != 0
    assert sentence in said(done)
    assert "finds the names" not in done.stdout, "a test was started"


def test_nothing_begun_is_said_with_the_lines_to_fill_in(copy):
    done = copy.make("check")
    assert done.returncode != 0
    assert f"Not begun: {', '.join(one.number for one in exercises())}" in said(done)
    done = copy.make("check", "EX=04")
    lines = copy.file(FILE).read_text().splitlines()
    for place in (f"exercises/{FILE}:{i}" for i, line in enumerate(lines, 1) if "TODO" in line):
        assert place in said(done)


def test_hints_open_one_at_a_time(copy):
    for opened in range(1, len(HINTS) + 1):
        text = said(copy.make("hint", "EX=04"))
        assert f"Hint {opened} of {len(HINTS)}" in text
        for i, hint in enumerate(HINTS, 1):
            assert (hint in text) == (i <= opened)
        left = f"{len(HINTS) - opened} left" if opened < len(HINTS) else "Read docs/ex04_inference.md"
        assert left in text
    text = said(copy.make("hint", "EX=04"))
    assert "No hints left" in text
    assert HINTS[0] in text
    assert f"{len(HINTS)} hints" in said(copy.make("progress"))


def test_without_a_number_it_is_the_exercise_one_is_at(copy):
    copy.make("check", "EX=04")
    assert HINTS[0] in said(copy.make("hint"))


def test_force_shows_the_solution_anyway(copy):
    done = copy.make("solution", "EX=04")
    assert done.returncode != 0
    assert "def softmax" not in said(done)
    assert "make solution EX=04 FORCE=1" in done.stderr
    assert "4 of 4 hints are left" in done.stderr
    assert "def softmax" in said(copy.make("solution", "EX=04", "FORCE=1"))


def test_reset_twice_loses_nothing(copy):
    """What was written between the two is kept, too."""
    starter = copy.file(FILE).read_bytes()
    own = [b"my first try\n", b"my second try\n"]
    for content in own:
        copy.make("list")
        copy.file(FILE).write_bytes(content)
        text = said(copy.make("reset", "EX=04"))
        assert copy.file(FILE).read_bytes() == starter
        back = re.search(r"^cp (\S+) (\S+)$", text, re.MULTILINE)
        assert (copy.folder / back[1]).read_bytes() == content
        assert back[2] == f"exercises/{FILE}"
    assert "Nothing to do" in said(copy.make("reset", "EX=04"))
    kept = {path.read_bytes() for path in (copy.folder / ".course" / "kept").iterdir()}
    assert kept == set(own)
    copy.file(FILE).unlink()
    copy.make("reset", "EX=04")
    assert copy.file(FILE).read_bytes() == starter


def git(copy: Copy, *words: str) -> None:
    who = ["-c", "user.name=Student", "-c", "user.email=student@example.org"]
    subprocess.run(["git", *who, *words], cwd=copy.folder, check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("with_git", [True, False])
def test_a_starter_that_was_never_kept_comes_from_git(copy, with_git):
    """The student edited and committed before they ran any command."""
    starter = copy.file(FILE).read_bytes()
    if with_git:
        git(copy, "init", "--quiet")
        git(copy, "add", "exercises")
        git(copy, "commit", "--quiet", "--message", "starters")
    copy.file(FILE).write_bytes(b"mine\n")
    if with_git:
        git(copy, "commit", "--quiet", "--all", "--message", "mine")
    done = copy.make("reset", "EX=04")
    if with_git:
        assert copy.file(FILE).read_bytes() == starter
    else:
        assert copy.file(FILE).read_bytes() == b"mine\n"
        assert "The starter of exercise 04 cannot be found" in said(done)


@pytest.mark.parametrize(
    "broken", [b"{", b'{"04": {"hints": "many"}}', b"\xff", b""], ids=["half", "kind", "bytes", "empty"]
)
def test_progress_that_cannot_be_read_is_set_aside(copy, broken):
    file = copy.folder / ".course" / "progress.json"
    file.parent.mkdir()
    file.write_bytes(broken)
    assert "not begun" in said(copy.make("progress"))
    text = said(copy.make("hint", "EX=04"))
    assert HINTS[0] in text
    aside = re.search(r"It is now (\S+);", text)[1]
    assert (copy.folder / aside).read_bytes() == broken
    assert json.loads(file.read_text())["04"]["hints"] == 1


def test_what_two_terminals_remember_is_kept_from_both(copy, tmp_path):
    """One waits while the other reads and writes."""
    file = copy.folder / ".course" / "progress.json"
    file.parent.mkdir()
    command = [sys.executable, "-m", "course", "hint", "04"]
    with FileLock(file.parent / "lock"):
        other = subprocess.Popen(command, cwd=copy.folder, env=copy.env, stdout=subprocess.DEVNULL)
        assert wait(other, 3) is None, "it did not wait"
        file.write_text('{"04": {"hints": 2}}')
    assert other.wait(60) == 0
    assert json.loads(file.read_text())["04"]["hints"] == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["hint", "EX=77"], "EX=77: no exercise has that number. There are 01"),
        (["solution", "EX=x"], "EX=x: no exercise has that number."),
        (["reset", "EX=8x"], "EX=8x: no exercise has that number."),
        (["reset"], "Which exercise? make reset EX=04"),
        (["hint", "EX=04 07"], "EX=04 07: no exercise has that number."),
        (["check", "4"], "Did you mean: make check EX=04"),
        (["hint", "12"], "Did you mean: make hint EX=12"),
    ],
    ids=" ".join,
)
def test_a_wrong_number_is_one_line(copy, words, sentence):
    done = copy.make(*words)
    assert done.returncode != 0
    assert sentence in said(done)


def test_on_a_narrow_terminal_nothing_is_wider(copy):
    """In a pseudo-terminal: a bar, colours, one line for each test."""
    write_wrong_names(copy)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(copy.folder)
        ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 38, 0, 0))
        os.execvpe("make", ["make", "check", "EX=04"], copy.env | {"TERM": "xterm-256color", "NO_COLOR": ""})
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.waitpid(pid, 0)
    text = shown.decode()
    assert "\x1b[31m✗" in text
    assert "━" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for whole in plain.splitlines() for line in whole.split("\r")]
    assert max(len(line) for line in lines if not line.startswith("make: ")) <= 38
    assert "  ✗ finds the names of input and outp…" in lines
    assert re.search(r"│ expected  \['pixels', 'scores'\] +│", plain)


def wait_for(condition, process: subprocess.Popen, log: Path, deadline: float = 60) -> None:
    give_up = time.monotonic() + deadline
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up, log.read_text()
        time.sleep(0.1)


def serving(process: subprocess.Popen) -> bool:
    """Whether it has started a server."""
    return any("uvicorn" in " ".join(_command(one)) for one in marked(process.mark))


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_stopping_a_check_leaves_no_process(copy, models_dir, tmp_path, stop):
    """Ctrl-C reaches the whole foreground group, but not what the tests started: that has its own sessions."""
    copy.solve("ex09_fastapi.py")
    log = tmp_path / "log"
    with running(["make", "check", "EX=09"], cwd=copy.folder, env=copy.env, log=log) as process:
        wait_for(lambda: serving(process), process, log)
        os.killpg(process.pid, stop)
        assert wait(process, 30) is not None
        assert not marked(process.mark)
    assert "Stopped." in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not (copy.folder / ".course" / "progress.json").exists(), "a check that was stopped found nothing"


def test_watch_checks_what_is_saved_until_ctrl_c(copy, models_dir, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-m", "course", "watch"]
    with running(command, cwd=copy.folder, env=copy.env, log=log) as process:
        wait_for(lambda: "Watching" in log.read_text(), process, log)
        time.sleep(0.5)  # it looks from now on
        # As many editors save: beside, then renamed. The backup that they leave is nobody's exercise.
        beside = copy.file(f".{FILE}.swp")
        beside.write_text("def half(:\n")
        shutil.copy(copy.file(FILE), copy.file(f"{FILE}~"))
        beside.rename(copy.file(FILE))
        wait_for(lambda: "has a syntax error on line 1" in log.read_text(), process, log)

        # Not a save.
        copy.file(FILE).chmod(0o600)

        # Two saves, the second during the first one's check: the first is given up with its server.
        copy.solve("ex09_fastapi.py")
        wait_for(lambda: serving(process), process, log)
        copy.file("ex09_fastapi.py").write_text("def second(:\n")
        wait_for(lambda: "ex09_fastapi.py has a syntax error" in log.read_text(), process, log)
        assert not serving(process)
        assert log.read_text().count("Stopped. Nothing was left running") == 1

        copy.solve("ex09_fastapi.py")
        wait_for(lambda: serving(process), process, log)
        os.killpg(process.pid, signal.SIGINT)
        assert wait(process, 30) == 0
        assert not marked(process.mark)
    text = log.read_text()
    assert "Traceback" not in text
    assert text.count("has a syntax error") == 2, "each save is checked once"
