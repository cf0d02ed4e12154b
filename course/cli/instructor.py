"""What an instructor types: grade."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Option

from course import ROOT
from course.base import options
from course.student.guide import console
from serving import Problem

app = typer.Typer()
REPORTS = ROOT / "reports"


@app.command()
def grade(
    submission: Annotated[
        Path | None, Option(envvar="SUBMISSION", help="One submission: a folder like exercises/, or an archive.")
    ] = None,
    submissions: Annotated[Path | None, Option(envvar="SUBMISSIONS", help="A folder of submissions.")] = None,
    exercises: options.Several = None,
    jobs: options.Jobs = 1,
    isolation: options.Isolation = "process",
    private: options.Private = None,
    limit: options.Limit = 600,
    output: Annotated[Path, Option(envvar="OUTPUT", help="Where the reports go.")] = REPORTS / "grades",
    fresh: Annotated[bool, Option("--fresh", help="Ignore the results of earlier runs.")] = False,
) -> None:
    """Grade one submission or a class. Run it again, and it continues where it stopped."""
    from course.grading.grade import grade as grade_all
    from course.grading.plan import Plan
    from course.grading.terminal import print_results

    plan = Plan.make(
        submission=submission,
        submissions=submissions,
        exercises=exercises,
        jobs=jobs,
        isolation=isolation,
        private=private,
        limit=limit,
        output=output,
        fresh=fresh,
    )
    try:
        results = grade_all(plan, console)
    except KeyboardInterrupt:
        console.print("[bold]Stopped. All results so far are kept. Run the same command to continue.[/]")
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk, above all
        raise Problem(f"{error}. All results so far are kept. Fix this, then run the same command.") from error
    print_results(results, plan, console)
    if not all(result.final for result in results):
        raise typer.Exit(1)


@app.command()
def gradescope(
    exercises: options.Several = None,
    private: options.Private = None,
    isolation: Annotated[
        Literal["process", "limits", "none"],
        Option(envvar="ISOLATION", help="What submitted code runs in; there is no Docker."),
    ] = "process",
    jobs: options.Jobs = 2,
    limit: options.Limit = 600,
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
    exercises: options.Several = None,
    size: Annotated[int, Option(min=0, max=1000, envvar="SIZE", help="How many submissions the class has.")] = 30,
    hostile: Annotated[int, Option(min=0, max=1000, envvar="HOSTILE", help="How many of them are hostile.")] = 5,
    jobs: options.Jobs = 2,
    isolation: options.Isolation = "process",
    limit: options.Limit = 600,
) -> None:
    """Measure what grading a class costs, and kill the grader halfway."""
    from course.base import manifest
    from course.measure.grading import benchmark

    if not benchmark(exercises or manifest.exercises(), size, hostile, jobs, isolation, limit, console):
        raise typer.Exit(1)
