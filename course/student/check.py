"""Runs an exercise's tests on exercises/ and tells the result in words, up to the first failure."""

import os
import re
import signal
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from course import ROOT
from course.base.manifest import Exercise, untouched
from course.student import progress

# The tests need no plugin but ours and the time limit; to look for others and import them takes half a second.
PLUGINS = ["-p", "no:terminal", "-p", "no:faulthandler", "-p", "pytest_timeout"]


class Verdict(NamedTuple):
    """What a check found."""

    passed: int = 0
    tests: int = 0
    points: float = 0  # of the tests that passed
    done: bool = False


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


def check_exercise(exercise: Exercise, console: Console) -> Verdict:
    """Print how far an exercise is, and remember it.

    Raises:
        Stopped: the check was stopped; nothing is remembered.
    """
    console.print(f"\n[bold]{exercise.number}  {escape(exercise.title)}[/]")
    seen = progress.fingerprint(exercise)  # before: a file that is saved during the check was not checked
    obstacle = _obstacle(exercise)
    if obstacle:
        _show_failure(console, obstacle)
        verdict = Verdict()
    else:
        verdict = _run_tests(exercise, console)
    with progress.changing() as entries:
        entry = entries[exercise.number]
        entry.last = progress.Checked(**verdict._asdict(), fingerprint=seen)
        entry.solved = entry.solved or verdict.done
    return verdict


def todos(exercise: Exercise) -> list[str]:
    """Where an exercise's files still say TODO: file:line."""
    return [
        f"exercises/{file}:{number}"
        for file in exercise.files
        for number, line in enumerate((ROOT / "exercises" / file).read_text().splitlines(), 1)
        if "TODO" in line
    ]


def _obstacle(exercise: Exercise) -> str | None:
    """What makes it useless to start any test: files that are gone or that Python cannot read, or nothing begun."""
    for file in exercise.files:
        path, shown = ROOT / "exercises" / file, f"exercises/{file}"
        if not path.is_file():
            return f"{shown} is not there. The starter comes back with: make reset EX={exercise.number}"
        if path.suffix == ".py" and (error := _syntax_error(path)):
            return f"{shown} has a syntax error{error}"
    if untouched(exercise):
        return "Not begun: the starter is as it was. Fill in what says TODO:\n" + "\n".join(todos(exercise))
    return None


def _syntax_error(path: Path) -> str | None:
    """Where and what, with the line itself. The file is read, not run."""
    try:
        with warnings.catch_warnings(action="ignore"):
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: bytes that are no text
        line, text = getattr(error, "lineno", None), getattr(error, "text", None)
        where = f" on line {line}" if line else ""
        return f"{where}: {getattr(error, 'msg', error)}." + (f"\n\n    {text.strip()}" if text else "")
    except (RecursionError, MemoryError):
        pass  # nested too deep for the compiler: the tests will say what comes of it
    return None


def _run_tests(exercise: Exercise, console: Console) -> Verdict:
    import pytest  # takes a moment, and an obstacle needs none of it

    report = Report(console)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for stop in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what the tests started is ended
        signal.signal(stop, signal.default_int_handler)
    options = ["--rootdir", str(ROOT), "--submission", str(ROOT / "exercises"), "-x", *PLUGINS]
    if sys.platform == "linux":  # elsewhere a process that has imported much cannot be trusted to fork
        options.append("--warm")
    code = pytest.main([str(ROOT / exercise.test), *options], plugins=[report])
    if code == pytest.ExitCode.INTERRUPTED:
        raise Stopped
    done = code == pytest.ExitCode.OK and report.passed > 0
    verdict = Verdict(report.passed, report.tests, report.points, done)
    console.print()
    if done:
        left_out = f" {report.skipped} of {report.tests} tests could not run here." if report.skipped else ""
        console.print(f"[bold green]Done: {report.points:g} of {exercise.points} points.[/]{left_out}")
    elif code == pytest.ExitCode.OK:
        console.print("[yellow]None of the tests could run here.[/]")
    else:
        left = report.tests - report.passed
        console.print(
            f"{report.passed} of {report.tests} tests pass, {report.points:g} of {exercise.points} points; {left} to go."
        )
    return verdict


class Report:
    """A pytest plugin that prints a line for each test that passed, and why the first one failed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.tests = self.passed = self.skipped = 0
        self.points = 0.0

    def pytest_collection_finish(self, session) -> None:
        """Note how many tests there are."""
        self.tests = len(session.items)

    def pytest_collectreport(self, report) -> None:
        """A test file that cannot be read is a mistake of the course, not of the student."""
        if report.failed:
            self.console.print("The tests of this exercise cannot be read: a mistake of the course, not yours.")
            self.console.print(report.longreprtext, markup=False)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Say what runs; the result takes its place."""
        if self.console.is_terminal:
            self._line("[dim]…[/]", nodeid, end="\r")

    def pytest_runtest_logreport(self, report) -> None:
        """Print the result of one test."""
        if report.failed:
            self._line("[red]✗[/]", report.nodeid)
            _show_failure(self.console, _in_words(report))
        elif report.skipped:
            self.skipped += 1
            self._line("[yellow]-[/]", report.nodeid)
            self.console.print(f"    {report.longrepr[2].removeprefix('Skipped: ')}", style="dim", markup=False)
        elif report.when == "call":
            self.passed += 1
            self.points += sum(points for name, (_, points) in report.user_properties if name == "points")
            self._line("[green]✓[/]", report.nodeid)

    def _line(self, mark: str, nodeid: str, end: str = "\n") -> None:
        name = nodeid.partition("::test_")[2].replace("_", " ")
        name = re.sub(r"\[(.*)\]$", r": \1", name)
        # One line each, however narrow the terminal: the next one is written over it.
        self.console.print(f"  {mark} {escape(name)}", end=end, overflow="ellipsis", no_wrap=True, soft_wrap=False)


def _in_words(report) -> str:
    """Why a test failed: its sentence; of a failure that the test did not foresee, what was raised, and where."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None or crash.message.startswith("Failed: "):  # by pytest.fail
        return report.longreprtext.strip()
    where = Path(crash.path)
    where = where.relative_to(ROOT) if where.is_relative_to(ROOT) else where
    return f"{crash.message}\n\n({where}, line {crash.lineno})"


def _show_failure(console: Console, text: str) -> None:
    console.print()
    if console.is_terminal:
        console.print(Panel(_in_columns(text), border_style="red"), soft_wrap=False)
    else:
        console.print("\n".join(f"    {line}".rstrip() for line in text.splitlines()), markup=False)


def _in_columns(text: str) -> Table | Text:
    """What expect() says, with its four words in a column of their own; anything else as it is."""
    found = re.match(r"called +(.*)\ngot +(.*)\nexpected +(.*)\ntry +(.*)$", text, re.DOTALL)
    if not found:
        return Text(text)
    table = Table.grid(padding=(0, 2))
    for word, said in zip(("called", "got", "expected", "try"), found.groups(), strict=True):
        table.add_row(Text(word, style="bold"), Text(said))
    return table
