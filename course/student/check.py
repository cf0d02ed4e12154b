"""Runs the tests of an exercise on exercises/ and reports the result in words, up to the first failure."""

import os
import re
import signal
import sys
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from course import ROOT
from course.base.manifest import Exercise, untouched
from course.student import progress, steps
from course.student.progress import Checked

# The tests need only our plugin and the time limit. To look for others and to import them takes half a second.
PLUGINS = ["-p", "no:terminal", "-p", "no:faulthandler", "-p", "pytest_timeout"]


class Stopped(Exception):
    """The student pressed Ctrl-C."""


def check_exercise(exercise: Exercise, console: Console) -> bool:
    """Print how far an exercise is, and record it; True if it is done.

    Raises:
        Stopped: the check was stopped; nothing is recorded.
    """
    console.print(f"\n[bold]{exercise.number}  {escape(exercise.title)}[/]")
    found = Checked(fingerprint=progress.fingerprint(exercise))  # now: what is saved during the check is not checked
    last = progress.load()[exercise.number].last
    if obstacle := _obstacle(exercise):
        found.failed = last.failed if last else ""
        _show_failure(console, [("", obstacle)])
    else:
        _run_tests(exercise, found, last, console)
    with progress.changing() as entries:
        entry = entries[exercise.number]
        entry.last = found
        entry.solved = entry.solved or found.done
        entry.best = max(entry.best, found.points)
    if found.points < entry.best:
        console.print(f"Your best so far: {entry.best:g} of {exercise.points} points.")
    return found.done


def _obstacle(exercise: Exercise) -> str | None:
    """Why no test needs to run: a missing file, a file that Python cannot read, an untouched starter."""
    for file in exercise.files:
        path = ROOT / "exercises" / file
        if not path.is_file():
            return f"exercises/{file} does not exist. To put the starter back: make reset EX={exercise.number}"
        if path.suffix == ".py" and (error := _syntax_error(path)):
            return f"exercises/{file} has a syntax error{error}"
    if untouched(exercise):
        todos = [f"exercises/{step.file}:{step.line}  {step.words}" for step in steps.left(exercise)]
        return "\n".join(["Not begun: this is still the starter. Fill in each TODO:", *todos])
    return None


def _syntax_error(path: Path) -> str | None:
    """Where and what, with the line itself. The file is read, not run."""
    # Nested too deeply for the compiler: the tests report what happens.
    with warnings.catch_warnings(action="ignore"), suppress(RecursionError, MemoryError):
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            where = f" on line {error.lineno}" if error.lineno else ""
            return f"{where}: {error.msg}." + (f"\n\n    {error.text.strip()}" if error.text else "")
        except ValueError as error:  # bytes that are not text
            return f": {error}."
    return None


def _run_tests(exercise: Exercise, found: Checked, last: Checked | None, console: Console) -> None:
    """Run the tests up to the first failure, and note the results in `found`."""
    import pytest  # here: it takes a moment, and an obstacle does not need it

    report = Report(exercise, found, last.failed if last else "", console)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for stop in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: what the tests started is ended
        signal.signal(stop, signal.default_int_handler)
    options = ["--rootdir", str(ROOT), "--submission", str(ROOT / "exercises"), "-x", *PLUGINS]
    if sys.platform == "linux":  # elsewhere it is not safe to fork a process that has imported much
        options.append("--warm")
    code = pytest.main([str(ROOT / exercise.test), *options], plugins=[report])
    if code == pytest.ExitCode.INTERRUPTED:
        raise Stopped
    found.done = code == pytest.ExitCode.OK and found.passed > 0
    if last and found.passed == 0 and found.failed == last.failed and found.tests == last.tests:
        # It failed again. The tests that passed before it last time did not run now.
        found.passed, found.points = last.passed, last.points
    console.print()
    points = f"{found.points:g} of {exercise.points} points"
    if found.done:
        left_out = f" {report.skipped} of {found.tests} tests could not run here." if report.skipped else ""
        console.print(f"[bold green]Done: {points}.[/]{left_out}")
    elif code == pytest.ExitCode.OK:
        console.print("[yellow]None of the tests could run here.[/]")
    else:
        console.print(f"{found.passed} of {found.tests} tests pass, {points}; {found.tests - found.passed} to go.")


class Report:
    """A pytest plugin that prints a line for each test that passed, and why the first one failed."""

    def __init__(self, exercise: Exercise, found: Checked, first: str, console: Console) -> None:
        """first: the test to run first."""
        self.exercise, self.found, self.first, self.console = exercise, found, first, console
        self.skipped = 0

    def pytest_collection_finish(self, session) -> None:
        """Count the tests, and move the one that failed last time to the front."""
        self.found.tests = len(session.items)
        session.items.sort(key=lambda item: item.nodeid != self.first)

    def pytest_collectreport(self, report) -> None:
        """A test file that cannot be read is a mistake of the course, not of the student."""
        if report.failed:
            self.console.print("The tests of this exercise cannot be read: a mistake of the course, not yours.")
            self.console.print(report.longreprtext, markup=False)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show which test runs; the result replaces it."""
        if self.console.is_terminal:
            self._line("[dim]…[/]", nodeid, end="\r")

    def pytest_runtest_logreport(self, report) -> None:
        """Print the result of one test."""
        if report.failed:
            self.found.failed = report.nodeid
            self._line("[red]✗[/]", report.nodeid)
            _show_failure(self.console, self._rows(report))
        elif report.skipped:
            self.skipped += 1
            self._line("[yellow]-[/]", report.nodeid)
            self.console.print(f"    {report.longrepr[2].removeprefix('Skipped: ')}", style="dim", markup=False)
        elif report.when == "call":
            self.found.passed += 1
            self.found.points += sum(points for name, (_, points) in report.user_properties if name == "points")
            self._line("[green]✓[/]", report.nodeid)

    def _line(self, mark: str, nodeid: str, end: str = "\n") -> None:
        name = re.sub(r"\[(.*)\]$", r": \1", nodeid.partition("::test_")[2].replace("_", " "))
        # One line each, also in a narrow terminal: the next one is written over it.
        self.console.print(f"  {mark} {escape(name)}", end=end, overflow="ellipsis", no_wrap=True, soft_wrap=False)

    def _rows(self, report) -> list[tuple[str, str]]:
        """Why a test failed: a word and its text each. The step and the test come last."""
        why = _why(report)
        found = re.match(r"called +(.*)\ngot +(.*)\nexpected +(.*)\ntry +(.*)$", why, re.DOTALL)
        rows = list(zip(("called", "got", "expected", "try"), found.groups(), strict=True)) if found else [("", why)]
        if found and found[2] == "None" and (function := re.match(r"(\w+)\(", found[1])):
            rows[3] = ("try", f"{function[1]}() returned None: is there a return? {found[4]}")
        if step := steps.step_of(self.exercise, found[1] if found else why):
            rows.append(("step", f"exercises/{step.file}, {step.words}"))
        missing = re.search(r"No module named '(\w+)", why)
        if missing and not find_spec(missing[1]):
            what = f"{missing[1]} is not in the course's environment (requirements.txt)"
            rows.append(("note", f"{what}, and the grader does not have it either. Do without it."))
        file, line, _ = report.location
        return [*rows, ("test", f"{file}:{line + 1}")]


def _why(report) -> str:
    """The sentence of a failed test; of a failure that the test did not expect, what was raised and where."""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is None or crash.message.startswith("Failed: "):  # by pytest.fail
        return report.longreprtext.strip()
    return f"{crash.message}\n\n({crash.path.removeprefix(f'{ROOT}/')}, line {crash.lineno})"


def _show_failure(console: Console, rows: list[tuple[str, str]]) -> None:
    """Print rows of a word and its text, in a panel on a terminal."""
    console.print()
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for word, text in rows:
            table.add_row(f"[bold]{word}[/]", escape(text))
        console.print(Panel(table, border_style="red"), soft_wrap=False)
    else:
        for word, text in rows:
            lines = f"{word:10}{text}" if word else f"{text}\n" if len(rows) > 1 else text
            console.print("\n".join(f"    {line}".rstrip() for line in lines.splitlines()), markup=False)
