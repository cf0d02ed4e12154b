"""Runs an exercise's tests on somebody's folder and tells the result in words, up to the first failure."""

from pathlib import Path

import pytest
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from course import ROOT
from course.manifest import Exercise


class Report:
    """A pytest plugin that prints a line for each test that passed, and why the first one failed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.failed = False
        self.collected = self.passed = 0

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note how many tests there are."""
        self.collected = len(session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A test file that cannot be read is a mistake of the course, not of the student."""
        if report.failed:
            self.failed = True
            self.console.print(escape(report.longreprtext))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the result of one test."""
        name = report.nodeid.partition("::test_")[2].replace("_", " ")
        if report.failed:
            self.failed = True
            self.console.print(f"  [red]✗[/] {escape(name)}\n")
            self.console.print(Panel(escape(report.longreprtext.strip()), border_style="red"), soft_wrap=False)
        elif report.skipped:
            self.console.print(f"  [yellow]-[/] {escape(name)}: {escape(report.longrepr[2].removeprefix('Skipped: '))}")
        elif report.when == "call":
            self.passed += report.passed
            self.console.print(f"  [green]✓[/] {escape(name)}")


def check_exercise(exercise: Exercise, folder: Path, console: Console) -> bool:
    """Print how far a folder's solution of an exercise is; True where every test passed."""
    console.print(f"\n[bold]{exercise.number}  {escape(exercise.title)}[/]")
    report = Report(console)
    pytest.main(
        [
            str(ROOT / exercise.test),
            "--rootdir",
            str(ROOT),
            "--submission",
            str(folder),
            "-x",
            "-p",
            "no:terminal",
            "-p",
            "no:faulthandler",
        ],
        plugins=[report],
    )
    if not report.failed and report.passed:
        console.print(f"\n[bold green]Done: {exercise.points} of {exercise.points} points.[/] Next: make list")
        return True
    left = report.collected - report.passed
    page = f"{exercise.page} has {len(exercise.hints)} hints (make docs)"
    console.print(
        f"\n{report.passed} of {report.collected} tests pass, {left} to go. {page}; then again: make check EX={exercise.number}"
    )
    return False
