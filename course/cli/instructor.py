"""What an instructor types: grade."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.grading.results import Isolation
from course.student.guide import console
from serving import Problem

app = typer.Typer()
REPORTS = ROOT / "reports"

NUMBERS = "Such as '04 07'. Without any: all."
Numbers = Annotated[
    Sequence[Exercise] | None,
    Option("--ex", parser=manifest.find_several, envvar="EX", metavar="NUMBERS", help=NUMBERS),
]
RunIn = Annotated[Isolation, Option("--isolation", envvar="ISOLATION", help="What submitted code runs in.")]
Jobs = Annotated[int, Option(min=1, max=64, envvar="JOBS", help="How many exercises to grade at the same time.")]
Limit = Annotated[int, Option(min=1, max=86_400, envvar="TIME", help="Seconds for the tests of one exercise.")]
Private = Annotated[Path | None, Option(envvar="PRIVATE", help="A folder of extra tests: test_exNN_name.py.")]


SUBMISSION = Option(envvar="SUBMISSION", help="One submission: a folder like exercises/, or an archive.")
OUTPUT = Option(envvar="OUTPUT", help="Where the reports go.", show_default="reports/grades")


@app.command()
def grade(
    submission: Annotated[Path | None, SUBMISSION] = None,
    submissions: Annotated[Path | None, Option(envvar="SUBMISSIONS", help="A folder of submissions.")] = None,
    exercises: Numbers = None,
    jobs: Jobs = 1,
    isolation: RunIn = "process",
    private: Private = None,
    limit: Limit = 600,
    output: Annotated[Path, OUTPUT] = REPORTS / "grades",
    fresh: Annotated[bool, Option("--fresh", help="Ignore the results of earlier runs.")] = False,
) -> None:
    """Grade one submission or a class. Run it again, and it continues where it stopped."""
    from course.grading import grade as grading
    from course.grading import handed_in
    from course.grading.run import Options
    from course.grading.terminal import print_results

    chosen = handed_in.chosen(submission, submissions)
    options = Options(isolation, limit, handed_in.private_folder(private))
    plan = grading.Plan(chosen, list(exercises or manifest.exercises()), options, jobs, output.resolve(), fresh)
    try:
        results = grading.grade(plan, console)
    except KeyboardInterrupt:
        console.print("[bold]Stopped. All results so far are kept. Run the same command to continue.[/]")
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk, above all
        raise Problem(f"{error}. All results so far are kept. Fix this, then run the same command.") from error
    print_results(results, plan.output, console)
    if not all(result.final for result in results):
        raise typer.Exit(1)


WITHOUT_DOCKER = Option(envvar="ISOLATION", help="What submitted code runs in; there is no Docker.")


@app.command()
def gradescope(
    exercises: Numbers = None,
    private: Private = None,
    isolation: Annotated[Literal["process", "limits", "none"], WITHOUT_DOCKER] = "process",
    jobs: Jobs = 2,
    limit: Limit = 600,
    output: Annotated[Path, Option(help="Where the archive goes.")] = REPORTS / "gradescope" / "autograder.zip",
) -> None:
    """Build the archive that Gradescope grades with."""
    from course.grading.gradescope import choose, write_archive
    from course.grading.handed_in import private_folder

    chosen = choose(exercises)
    names = write_archive(output, chosen, private=private_folder(private), isolation=isolation, jobs=jobs, limit=limit)
    console.print(f"[bold]{output}[/]  {output.stat().st_size / 1e6:.1f} MB, {len(names)} files")
    console.print("Upload it as the autograder of the assignment, with an image of Ubuntu 22.04 or newer.")
    console.print(f"Points of the assignment: {sum(one.points for one in chosen if not one.optional)}")


@app.command()
def grade_benchmark(
    exercises: Numbers = None,
    size: Annotated[int, Option(min=0, max=1000, envvar="SIZE", help="How many submissions the class has.")] = 30,
    hostile: Annotated[int, Option(min=0, max=1000, envvar="HOSTILE", help="How many of them are hostile.")] = 5,
    jobs: Jobs = 2,
    isolation: RunIn = "process",
    limit: Limit = 600,
) -> None:
    """Measure what grading a class costs, and kill the grader halfway."""
    from course.measure.grading import benchmark

    if not benchmark(exercises or manifest.exercises(), size, hostile, jobs, isolation, limit, console):
        raise typer.Exit(1)
