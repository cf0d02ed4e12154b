"""What a student types: check, hint, progress, watch, solution, reset."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest
from commands import COURSE, run, wait_for, words_of
from course_copy import Copy
from filelock import FileLock

from course import ROOT
from course.base.manifest import exercises, find, untouched
from course.base.processes import comes_true, end, free_port, marked, running, start, wait
from course.student.steps import left, step_of, steps

FILE = "ex04_inference.py"
SOLVED = (ROOT / "solutions" / FILE).read_text()
HINTS = find("04").hints
TODO = 'raise NotImplementedError("Ask the session for the names of its input and output.")'


class Student(Copy):
    """A copy of the course, and what make prints there."""

    def types(self, line: str, *, fails: bool = False) -> str:
        """What `make ...` prints: no stack trace, and no colours in a pipe."""
        done = self.make(*shlex.split(line))
        text = done.stdout + done.stderr
        assert bool(done.returncode) == fails, text
        assert "Traceback" not in text
        assert "\x1b" not in text
        return text

    def write(self, old: str, new: str, text: str | None = None) -> None:
        """Write the exercise's file with a change: of the starter, if it is no other text."""
        text = self.file(FILE).read_text() if text is None else text
        assert old in text
        self.file(FILE).write_text(text.replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Student:
    if not all(untouched(exercise) for exercise in exercises()):
        pytest.skip("exercises/ has been worked on")
    return Student(tmp_path)


# ------------------------------------------------------------------------------ check


def test_a_check_that_fails_says_why_and_what_next(copy):
    copy.write(TODO, 'return "input", "output"')
    text = copy.types("check EX=4", fails=True)
    starter = steps(FILE, (ROOT / "exercises" / FILE).read_text())
    step = next(one for one in starter if one.function == "input_and_output")
    lines = (ROOT / "tests" / "test_ex04_inference.py").read_text().splitlines()
    decorator = lines.index("def test_finds_the_names_of_input_and_output(submission, renamed):")
    for words in (
        "✗ finds the names of input and output",
        "called    input_and_output(",
        "got       ['input', 'output']",
        "expected  ['pixels', 'scores']",
        f"step      exercises/{FILE}, {step.words}\n",
        f"test      tests/test_ex04_inference.py:{decorator}\n",
        "make hint EX=04 (hint 1 of 4), or read docs/ex04_inference.md",
        f"0 of {len(exercises())} exercises done, 0 of",
    ):
        assert words in text
    assert "preprocesses" not in text, "it ends with the first failure"
    assert re.search(r"^0 of (\d+) tests pass, 0 of 10 points; \1 to go\.$", text, re.MULTILINE)
    assert re.search(r"^\d+\.\d s$", text, re.MULTILINE), "the seconds that it took"
    page = (ROOT / "docs" / "students.md").read_text().partition("$ make check EX=04\n")[2].partition("```")[0]
    printed = text.partition("make: ***")[0]
    assert re.sub(r"\d+", "N", page) == re.sub(r"\d+", "N", printed), "docs/students.md shows another output"


def test_solved_seen_changed_and_begun_again(copy):
    """The life of one exercise, with one check of all its tests."""
    copy.types("solution EX=04", fails=True)
    copy.solve(FILE)
    text = copy.types("check EX=04")
    assert text.count("✓") > 10
    assert "Done: 10 of 10 points." in text
    assert "Next: make help EX=05" in text
    assert f"1 of {len(exercises())} exercises done, 10 of" in text
    assert "✓ 04  inference          10 of 10 points\n" in copy.types("progress")

    assert SOLVED in copy.types("solution EX=04")
    assert "No difference." in copy.types("solution EX=04 DIFF=1")

    copy.file(FILE).write_text(f"{SOLVED}# one more thought\n")
    assert "… 04  inference          10 of 10 points; changed since: make check EX=04" in copy.types("progress")
    assert "-# one more thought" in copy.types("solution EX=04 DIFF=1")
    copy.types("reset EX=04")
    text = copy.types("progress")
    assert "· 04  inference          not begun" in text
    assert f"0 of {len(exercises())} exercises done, 0 of" in text


def test_what_failed_last_runs_first_and_keeps_what_passed_before(copy):
    copy.write("keepdims=True", "keepdims=False", SOLVED)
    text = copy.types("check EX=04", fails=True)
    passed = text.count("✓")
    assert passed > 2
    assert "✗ softmax survives large logits" in text

    copy.write("keepdims=True", "keepdims = False", SOLVED)
    again = copy.types("check EX=04", fails=True)
    assert "✓" not in again
    assert "✗ softmax survives large logits" in again
    assert re.search(rf"^{passed} of \d+ tests pass.*$", text, re.MULTILINE)[0] in again

    copy.solve(FILE)
    text = copy.types("check EX=04")
    assert text.index("✓ softmax") < text.index("✓ finds the names")
    assert "Done: 10 of 10 points." in text


def test_the_best_score_and_what_failed_last_outlive_a_syntax_error(copy):
    copy.solve(FILE)
    assert "best" not in copy.types("check EX=04")
    copy.write("keepdims=True", "keepdims=False", SOLVED)
    assert "Your best so far: 10 of 10 points." in copy.types("check EX=04", fails=True)
    copy.file(FILE).write_text("def half(:\n")
    assert "Your best so far: 10 of 10 points." in copy.types("check EX=04", fails=True)
    assert "0 of 10 points (best: 10)" in copy.types("progress")
    copy.write("keepdims=True", "keepdims=False", SOLVED)
    text = copy.types("check EX=04", fails=True)
    assert "✓" not in text
    assert "✗ softmax survives large logits" in text


def test_a_forgotten_return_is_named(copy):
    copy.write(TODO, '"input", "output"')
    assert "input_and_output() returned None: is there a return?" in copy.types("check EX=04", fails=True)


def test_a_failure_in_a_driver_of_the_tests_is_about_the_students_function(tmp_path):
    text = (ROOT / "solutions" / "ex05_benchmark.py").read_text()
    assert "wrapper(*arguments: Any, **options: Any)" in text
    (tmp_path / "ex05_benchmark.py").write_text(
        text.replace("wrapper(*arguments: Any, **options: Any)", "wrapper(one)")
    )
    words = ["tests/test_ex05_benchmark.py", "-k", "timed_returns", "--submission", tmp_path]
    said = run(sys.executable, "-m", "pytest", *words).stdout
    assert "ex05_benchmark.py: timed() raised TypeError" in said
    assert "unexpected keyword argument 'tare'" in said
    assert not re.search("driver|try_timed", said)


def test_a_failure_names_the_step_of_the_function_that_was_called():
    text = (
        "class Service:\n    # TODO 1: none of a function's\n\n"
        "    @decorated  # TODO 2: the decorator\n    async def classify(self):\n        return\n\n"
        "    def predict(self):\n        # TODO 3: run the session,\n        # and return its output.\n        return\n"
    )
    assert [(one.function, one.words, one.line) for one in steps("service.py", text)] == [
        ("", "TODO 1: none of a function's", 2),
        ("classify", "TODO 2: the decorator", 4),
        ("predict", "TODO 3: run the session, and return its output.", 9),
    ]
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
    text = copy.types("check EX=04", fails=True)
    assert sentence in text
    assert "finds the names" not in text, "a test was started"


def test_nothing_begun_is_said_with_the_lines_to_fill_in(copy):
    assert f"Not begun: {', '.join(one.number for one in exercises())}" in copy.types("check", fails=True)
    text = copy.types("check EX=04", fails=True)
    lines = copy.file(FILE).read_text().splitlines()
    for place in (f"exercises/{FILE}:{i}" for i, line in enumerate(lines, 1) if "TODO" in line):
        assert place in text


def test_a_check_that_nobody_reads_ends_quietly(copy):
    copy.solve(FILE)
    for command in ("check EX=04", "list"):
        done = run("sh", "-c", f"make {command} | head -n 1", cwd=copy.folder, **copy.env)
        assert [line for line in done.stderr.splitlines() if not line.startswith("make: ***")] in ([], [""])
    assert not (copy.folder / ".course" / "progress.json").exists(), "the check was not finished"


def test_make_works_inside_exercises(copy):
    done = run("make", "hint", "EX=04", cwd=copy.folder / "exercises", **copy.env)
    assert HINTS[0] in done.stdout
    assert "Entering directory" not in done.stdout
    for words, sentence in ((["check", "4"], "Did you mean: make check EX=04"), ([], "make serve")):
        done = run("make", *words, cwd=copy.folder / "exercises", **copy.env)
        assert sentence in done.stdout + done.stderr


def test_a_package_that_the_course_does_not_have_is_named(copy):
    copy.write("import numpy as np\n", "import numpy as np\nimport polars\n", SOLVED)
    text = copy.types("check EX=04", fails=True)
    assert "note      polars is not in the course's environment (requirements.txt), and the grader does not" in text


# ------------------------------------------------------------------------------ one's own files


@pytest.mark.parametrize(
    ("line", "file", "words"),
    [
        ("try EX=04", FILE, ["data/cat.png"]),
        ("client MINE=1 PORT=3817", "ex10_client.py", ["data/cat.png", "data/coffee.png", "--url", "http://localhost:3817"]),
        ("benchmark MINE=1 QUICK=1", "ex05_benchmark.py", ["--quick"]),
        ("optimize MINE=1 QUICK=1", "ex06_optimize.py", ["--quick"]),
        ("netron MINE=1 BROWSER=0", "ex03_visualize.py", ["models/mine.onnx", "--no-browser"]),
        ("serve MINE=1 EX=09 PORT=3817", "ex09_fastapi.py", ["--port", "3817"]),
    ],
)  # fmt: skip
def test_ones_own_file_runs_by_the_commands_of_the_course(copy, line, file, words):
    for model in ("resnet18", "mine"):
        (copy.folder / "models" / f"{model}.onnx").touch()
    copy.file(file).write_text("import sys; print('mine', sys.argv[1:])")
    assert f"mine {words}\n" in copy.types(line)


def test_a_command_that_tries_ones_own_service_is_one_of_make(copy, tmp_path):
    """Exercise 10's runs a second make, which gets the port, and names the client with it."""
    port, log = free_port(), tmp_path / "log"
    (copy.folder / "models" / "resnet18.onnx").touch()
    with running(["make", "try", "EX=10", f"PORT={port}"], cwd=copy.folder, env=copy.env, log=log) as process:
        wait_for(lambda: "In a second terminal" in log.read_text(), process, log)
    text = log.read_text()
    assert text.startswith("make serve EX=10 MINE=1\n")
    assert f"In a second terminal: make client PORT={port} MINE=1\n" in text
    assert "Entering directory" not in text


def test_a_file_of_ones_own_that_is_missing_is_named(copy):
    (copy.folder / "models" / "resnet18.onnx").touch()
    copy.file("ex10_service.py").unlink()
    assert "There is no exercises/ex10_service.py" in copy.types("loadtest SERVICES=10 MINE=1", fails=True)


# ------------------------------------------------------------------------------ hint, solution, reset


def test_hints_open_one_at_a_time(copy):
    for opened in range(1, len(HINTS) + 1):
        text = copy.types("hint EX=04")
        assert f"Hint {opened} of {len(HINTS)}" in text
        assert [hint in text for hint in HINTS] == [i < opened for i in range(len(HINTS))]
        left = f"{len(HINTS) - opened} left" if opened < len(HINTS) else "Read docs/ex04_inference.md"
        assert left in text
    text = copy.types("hint EX=04")
    assert "No hints left" in text
    assert HINTS[0] in text
    assert f"{len(HINTS)} hints" in copy.types("progress")


def test_without_a_number_it_is_the_exercise_one_is_at(copy):
    copy.types("check EX=04", fails=True)
    assert HINTS[0] in copy.types("hint")


def test_force_shows_the_solution_anyway(copy):
    text = copy.types("solution EX=04", fails=True)
    assert "def softmax" not in text
    assert "make solution EX=04 FORCE=1" in text
    assert "4 of 4 hints are left" in text
    assert "def softmax" in copy.types("solution EX=04 FORCE=1")


def test_reset_twice_loses_nothing(copy):
    """What was written between the two is kept, too."""
    starter, own = copy.file(FILE).read_bytes(), [b"my first try\n", b"my second try\n"]
    for content in own:
        copy.types("list")
        copy.file(FILE).write_bytes(content)
        text = copy.types("reset EX=04")
        assert copy.file(FILE).read_bytes() == starter
        back = re.search(r"^cp (\S+) (\S+)$", text, re.MULTILINE)
        assert (copy.folder / back[1]).read_bytes() == content
        assert back[2] == f"exercises/{FILE}"
    assert "Nothing to do" in copy.types("reset EX=04")
    assert {path.read_bytes() for path in (copy.folder / ".course" / "kept").iterdir()} == set(own)
    copy.file(FILE).unlink()
    copy.types("reset EX=04")
    assert copy.file(FILE).read_bytes() == starter


@pytest.mark.parametrize("with_git", [True, False])
def test_a_starter_that_was_never_kept_comes_from_git(copy, with_git):
    """The student edited and committed before they ran any command."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=Student", "-c", "user.email=student@example.org"]
        assert not with_git or run("git", *who, *words, cwd=copy.folder).returncode == 0

    starter = copy.file(FILE).read_bytes()
    git("init", "--quiet")
    git("add", "exercises")
    git("commit", "--quiet", "--message", "starters")
    copy.file(FILE).write_bytes(b"mine\n")
    git("commit", "--quiet", "--all", "--message", "mine")
    text = copy.types("reset EX=04", fails=not with_git)
    assert copy.file(FILE).read_bytes() == (starter if with_git else b"mine\n")
    assert ("The starter of exercise 04 cannot be found" in text) != with_git


# ------------------------------------------------------------------------------ progress


@pytest.mark.parametrize(
    "broken", [b"{", b'{"04": {"hints": "many"}}', b"\xff", b""], ids=["half", "kind", "bytes", "empty"]
)
def test_progress_that_cannot_be_read_is_set_aside(copy, broken):
    file = copy.folder / ".course" / "progress.json"
    file.parent.mkdir()
    file.write_bytes(broken)
    assert "not begun" in copy.types("progress")
    text = copy.types("hint EX=04")
    assert HINTS[0] in text
    aside = re.search(r"It is now (\S+);", text)[1]
    assert (copy.folder / aside).read_bytes() == broken
    assert json.loads(file.read_text())["04"]["hints"] == 1


def test_what_two_terminals_remember_is_kept_from_both(copy):
    """One waits while the other reads and writes."""
    file = copy.folder / ".course" / "progress.json"
    file.parent.mkdir()
    with FileLock(file.parent / "lock"):
        command = [*COURSE, "hint", "04"]
        other = subprocess.Popen(command, cwd=copy.folder, env=copy.env, stdout=subprocess.DEVNULL)
        assert wait(other, 3) is None, "it did not wait"
        file.write_text('{"04": {"hints": 2}}')
    assert other.wait(60) == 0
    assert json.loads(file.read_text())["04"]["hints"] == 3


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("hint EX=77", "EX=77: no exercise has that number. There are 01"),
        ("solution EX=x", "EX=x: no exercise has that number."),
        ("reset EX=8x", "EX=8x: no exercise has that number."),
        ("reset", "Which exercise? make reset EX=04"),
        ("hint 'EX=04 07'", "EX=04 07: one exercise at a time here, such as EX=04."),
        ("check 4", "Did you mean: make check EX=04"),
        ("hint 12", "Did you mean: make hint EX=12"),
    ],
)
def test_a_wrong_number_is_one_line(copy, line, sentence):
    assert sentence in copy.types(line, fails=True)


# ------------------------------------------------------------------------------ terminals, Ctrl-C, watch


def test_on_a_narrow_terminal_nothing_is_wider(copy):
    """In a pseudo-terminal: a bar, colours, one line for each test."""
    copy.write(TODO, 'return "input", "output"')
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
    assert os.waitpid(pid, 0)[1] != 0
    text = shown.decode()
    assert "make: ***" not in text
    assert "\x1b[31m✗" in text
    assert "━" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line for whole in plain.splitlines() for line in whole.split("\r")]
    assert max(len(line) for line in lines if not line.startswith("make: ")) <= 38
    assert "  ✗ finds the names of input and outp…" in lines
    assert re.search(r"│ expected  \['pixels', 'scores'\] +│", plain)


def serving(process: subprocess.Popen) -> bool:
    """Whether it has started a server."""
    return any("uvicorn" in words_of(one) for one in marked(process.mark))


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
    with running([*COURSE, "watch"], cwd=copy.folder, env=copy.env, log=log) as process:
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


@pytest.mark.parametrize("stop", ["q", signal.SIGTERM], ids=["q", "sigterm"])
def test_watch_takes_keys_in_a_terminal_and_leaves_it_as_it_was(copy, tmp_path, stop):
    mine, other = pty.openpty()
    opened, shown = tmp_path / "opened", []
    (tmp_path / "browser").write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    (tmp_path / "browser").chmod(0o755)
    shutil.copytree(ROOT / "docs", copy.folder / "docs")
    shutil.copy(ROOT / "mkdocs.yml", copy.folder)
    env = copy.env | {"TERM": "xterm", "BROWSER": f"{tmp_path}/browser"}

    def press(key: str, answer: str) -> None:
        """Press a key, and wait for what it shows."""
        os.write(mine, key.encode())
        begun = time.monotonic()
        while answer not in "".join(shown):
            assert time.monotonic() - begun < 30, "".join(shown)
            if select.select([mine], [], [], 1)[0]:
                shown.append(os.read(mine, 65536).decode(errors="ignore"))

    before = termios.tcgetattr(other)
    process = start([*COURSE, "watch"], cwd=copy.folder, env=env, stdin=other, stdout=other, stderr=other)
    try:
        press("", "Keys: h next hint, l list, n next exercise, o open the page, q quit")
        press("x", "")  # no key of ours
        press("h", "Hint 1 of")
        press("h", "Hint 2 of")
        press("l", "In bold: the core path.")
        press("n", "make check EX=02")
        press("n", "make check EX=03")
        assert termios.tcgetattr(other) != before
        if stop == "q":
            press("o", "/ex03_visualize/")
            assert comes_true(opened.exists, 60)
            assert re.fullmatch(r"http://localhost:80\d\d/ex03_visualize/\n", opened.read_text())
            press("q", "Stopped.")
        else:
            process.send_signal(stop)
        assert wait(process, 30) == 0
        assert termios.tcgetattr(other) == before
        assert not marked(process.mark)
    finally:
        end(process)
        os.close(mine)
        os.close(other)
