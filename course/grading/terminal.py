"""What `make grade` prints when it has ended."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from course.grading.results import SubmissionResult, points


def mark(result: SubmissionResult) -> str:
    """One character for a submission."""
    if not result.final:
        return "[yellow]?[/]"
    return "[green]✓[/]" if result.reached >= result.worth else "[red]✗[/]" if not result.reached else "[yellow]·[/]"


def print_results(results: list[SubmissionResult], output: Path, console: Console) -> None:
    """Print the points, where the reports are, and what to do about exercises without a verdict."""
    if len(results) == 1:
        console.print(_table(results[0]))
    console.print(f"Reports: {escape(str(output))}/index.html, class.csv, and a folder for each submission.")
    if warning := results[0].warning:
        console.print(f"[bold yellow]{warning}[/]")
    no_verdict = [(result, exercise) for result in results for exercise in result.exercises if not exercise.final]
    for result, exercise in no_verdict[:10]:
        where = f"{escape(result.name)}, exercise {exercise.number}"
        console.print(f"[yellow]{where}: {exercise.state}.[/] {escape(exercise.why_open)}")
    if no_verdict:
        console.print(
            f"[bold yellow]{len(no_verdict)} of {sum(len(result.exercises) for result in results)} exercises have no"
            " final verdict. They cost no points. Run the same command again to grade only these.[/]"
        )
    if suspicious := [f"{escape(one.name)}, exercise {it.number}" for one, it in no_verdict if it.suspicious]:
        console.print(
            f"[bold red]Suspicious: {'; '.join(suspicious[:10])}. These were not graded twice for the same reason, which"
            " the submission may have caused. Look at it. They are not graded again, unless you add --fresh.[/]"
        )


def _table(result: SubmissionResult) -> Table:
    table = Table(title=escape(result.name), title_justify="left")
    for column in ("no.", "exercise", "points", "the first thing that failed"):
        table.add_column(column, overflow="fold")
    for exercise in result.exercises:
        failed = next((test for test in exercise.tests if test.outcome == "failed" and not test.private), None)
        why = exercise.problem or exercise.failure or (f"{failed.name}\n{failed.message}" if failed else "")
        extra = " extra" if exercise.optional else ""
        table.add_row(exercise.number, escape(exercise.title), points(exercise) + extra, escape(why[:600]))
    table.add_section()
    table.add_row("", "all", points(result), "")
    return table
