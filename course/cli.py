"""The commands of `python -m course`, which the Makefile calls."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from course import ROOT
from course.base import manifest
from course.base.processes import is_free
from serving import Problem

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help="The course.")
console = Console(highlight=False, soft_wrap=True)


@app.command("list")
def list_exercises() -> None:
    """All exercises."""
    table = Table()
    for column in ("no.", "exercise", "points", "what to fill in"):
        table.add_column(column)
    part = ""
    for exercise in manifest.exercises():
        if exercise.part != part:
            part = exercise.part
            table.add_section()
            table.add_row("", f"[bold]{escape(part)}[/]")
        files = "\n".join(f"exercises/{file}" for file in exercise.files)
        table.add_row(
            exercise.number, exercise.title, f"{exercise.points}{' extra' if exercise.optional else ''}", files
        )
    console.print(table)
    console.print("Next: make help EX=01 says what an exercise asks for, make check EX=01 whether you are there.")


@app.command()
def show(number: str) -> None:
    """What an exercise asks for."""
    exercise = manifest.find(number)
    console.print(
        f"[bold]{exercise.number}  {escape(exercise.title)}[/]  ({exercise.points} points)\n\n{exercise.goal}\n"
    )
    for file in exercise.files:
        console.print(f"Fill in   exercises/{file}")
    console.print(f"Try it    {exercise.run}")
    console.print(f"Check it  make check EX={exercise.number}")
    console.print(f"Read on   {exercise.page}, or `make docs`: what, why, and {len(exercise.hints)} hints")
    console.print(f"Solution  {', '.join(str(manifest.solution(file).relative_to(ROOT)) for file in exercise.files)}")


Number = Annotated[str, Argument(help="The exercise; without, the one that you are at.")]


@app.callback()
def before_any_command() -> None:
    """The course."""
    from course.student.starters import keep_starters

    keep_starters()


@app.command()
def check(number: Annotated[str, Argument(help="The exercise; all without.")] = "") -> None:
    """Hold exercises/ against the tests, up to the first failure of each exercise."""
    from course.student import guide
    from course.student.check import Stopped

    try:
        if not guide.check(number, guide.terminal()):
            raise typer.Exit(1)
    except (Stopped, KeyboardInterrupt):
        console.print("\nStopped. Nothing was left running; what was not finished is not remembered.")
        raise typer.Exit(130) from None


@app.command()
def hint(number: Number = "") -> None:
    """The next hint of an exercise."""
    from course.student import guide

    guide.hint(number, guide.terminal())


@app.command()
def progress() -> None:
    """How far along you are, from what the last checks found."""
    from course.student import guide

    guide.show_progress(guide.terminal())


@app.command()
def watch() -> None:
    """Check the exercise whose file was saved, until Ctrl-C."""
    from course.student.watch import watch_exercises

    watch_exercises(console)


@app.command()
def solution(
    number: Number = "",
    force: Annotated[bool, Option(help="Also before the tests pass.")] = False,
    diff: Annotated[bool, Option(help="What differs from your own.")] = False,
) -> None:
    """The solution of an exercise whose tests pass."""
    from course.student import guide

    guide.show_solution(number, force, diff, guide.terminal())


@app.command()
def reset(number: Annotated[str, Argument(help="The exercise.")] = "") -> None:
    """Put an exercise's starter back; the student's own files are kept."""
    from course.student import guide

    guide.reset(number, guide.terminal())


@app.command()
def serve(
    ex: Annotated[str, Option(help="The exercise whose service to run.")] = "10",
    port: Annotated[int, Option(help="Where it listens.")] = 3000,
    folder: Annotated[Path, Option(help="Where its file is.")] = ROOT / "solutions",
) -> None:
    """Become the server of an exercise: `bentoml serve` for a service, its own script for an application."""
    exercise = manifest.find_service(ex)
    file = exercise.service
    if not (folder / file).is_file():
        raise Problem(f"There is no {folder / file}.")
    if not is_free(port):
        raise Problem(f"Port {port} is taken, or not allowed. Stop what listens there, or: make serve PORT={port + 1}")
    if exercise.app:
        console.print(f"[bold]python {folder / file} --port {port}[/]")
        console.print(f"Swagger: http://localhost:{port}   Stop: Ctrl-C   In a second terminal:")
        console.print(f"curl --data-binary @data/cat.png http://localhost:{port}/classify")
        os.execv(sys.executable, [sys.executable, str(folder / file), "--port", str(port)])
    service = f"{Path(file).stem}:ImageClassifierService"
    # Ctrl-C gives requests in flight 10 s to end.
    options = ["--port", str(port), "--working-dir", str(folder.resolve()), "--timeout-graceful-shutdown", "10"]
    command = [sys.executable, "-m", "bentoml", "serve", service, *options]
    console.print(f"[bold]bentoml serve {service} {' '.join(options)}[/]")
    console.print(f"Swagger: http://localhost:{port}   In a second terminal: make client   Stop: Ctrl-C")
    os.execve(sys.executable, command, os.environ | {"BENTOML_DO_NOT_TRACK": "True"})


@app.command()
def bento(
    ex: Annotated[str, Option(help="The exercise whose service to pack.")] = "10",
    folder: Annotated[Path, Option(help="Where its bentofile is.")] = ROOT / "solutions",
) -> None:
    """Pack the service of an exercise with `bentoml build`."""
    from course.images import containers

    containers.bento(ex, folder)


@app.command()
def containerize(
    ex: Annotated[str, Option(help="The exercise whose service to put into an image.")] = "10",
    by: Annotated[str, Option(help="bento, with `bentoml containerize`, or hand, with a Dockerfile.")] = "bento",
    folder: Annotated[Path, Option(help="Where that Dockerfile is.")] = ROOT / "solutions",
) -> None:
    """Make an image of the service of an exercise."""
    from course.images import containers

    containers.containerize(ex, by, folder)


@app.command()
def run_container(
    ex: Annotated[str, Option(help="The exercise whose image to run.")] = "10",
    by: Annotated[str, Option(help="Who made the image: bento or hand.")] = "bento",
    port: Annotated[int, Option(help="Where it can be reached.")] = 3000,
) -> None:
    """Become `docker run` for the image of an exercise."""
    from course.images import containers

    containers.run_container(ex, by, port)


@app.command()
def docs() -> None:
    """Show the course page on the first free port from 8000 on."""
    port = next(port for port in range(8000, 8100) if is_free(port))
    console.print(f"[bold]http://localhost:{port}[/]   Stop: Ctrl-C")
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "mkdocs", "serve", "--quiet", "--dev-addr", f"localhost:{port}"])


@app.command()
def figures() -> None:
    """Measure agreement, start-up and memory."""
    from course.measure.figures import print_figures

    print_figures()


@app.command()
def loadtest(
    ex: Annotated[str, Option(help="An exercise, whose prepared comparison is taken (10).")] = "",
    services: Annotated[str, Option(help="Exercises with variables for them: '10 13:WORKERS=4,THREADS=0'.")] = "",
    payload: Annotated[str, Option(help="What each request holds: image, json or npy.")] = "",
    users: Annotated[str, Option(help="How many ask at a time (32).")] = "",
    duration: Annotated[str, Option(help="Seconds that count, for each service and round (10).")] = "",
    rounds: Annotated[str, Option(help="How often each service has its turn (2).")] = "",
    folder: Annotated[Path, Option(help="Where the services are.")] = ROOT / "solutions",
    output: Annotated[Path | None, Option(help="Where the report goes; otherwise into reports/loadtest/.")] = None,
) -> None:
    """Put services under the same load in turn, beside what the cores do without a server."""
    from course.loadtest.plan import Plan
    from course.loadtest.run import loadtest, report_folder

    plan = Plan.make(
        ex=ex, services=services, payload=payload, users=users, duration=duration, rounds=rounds, folder=folder
    )
    loadtest(plan, output or report_folder(ex))


@app.command()
def crowd() -> None:
    """Send 500 photographs at once to exercise 09's application and to exercise 10's service."""
    from course.measure.crowd import print_crowd

    print_crowd()


@app.command()
def images(
    words: Annotated[str, Option("--images", help="Only those whose tags hold one of these words.")] = "",
    folder: Annotated[Path, Option(help="Where the Dockerfiles are.")] = ROOT / "dockerfiles",
) -> None:
    """Build the images of exercise 08."""
    from course.images.build import build_all, chosen, inference

    build_all(chosen(inference(folder), words), console)


@app.command("compare-images")
def compare_images(
    words: Annotated[str, Option("--images", help="Only those whose tags hold one of these words.")] = "",
    rounds: Annotated[int, Option(min=1, help="How often each is started.")] = 5,
    fresh: Annotated[bool, Option(help="Build them without cache, and measure that.")] = True,
    output: Annotated[Path, Option(help="Where the report goes.")] = ROOT / "reports" / "images",
) -> None:
    """Measure the images: build, size by layer, start-up, first prediction."""
    from course.images.build import COMPARED, chosen
    from course.images.compare import compare

    compare(chosen(COMPARED, words), output, rounds, fresh, console)


@app.command()
def grade(
    submission: Annotated[str, Option(help="One submission: a folder of the shape of exercises/, or an archive.")] = "",
    submissions: Annotated[str, Option(help="A folder of submissions.")] = "",
    ex: Annotated[str, Option(help="Exercises: '04 07'; all without.")] = "",
    jobs: Annotated[str, Option(help="How many exercises at a time (1).")] = "",
    isolation: Annotated[str, Option(help="process, docker or none.")] = "",
    private: Annotated[str, Option(help="A folder of extra tests that students do not have: test_exNN_name.py.")] = "",
    limit: Annotated[str, Option(help="Seconds for the tests of one exercise (600).")] = "",
    output: Annotated[str, Option(help="Where the reports go (reports/grades).")] = "",
    fresh: Annotated[bool, Option(help="Take no result of an earlier run.")] = False,
) -> None:
    """Grade one submission or a class; started again, it goes on with what has no final result."""
    from course.grading.grade import Plan, print_results
    from course.grading.grade import grade as grade_all

    plan = Plan.make(
        submission=submission,
        submissions=submissions,
        ex=ex,
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
        console.print("[bold]Stopped. What was graded is kept: the same command goes on from here.[/]")
        raise typer.Exit(130) from None
    except OSError as error:  # a full disk, above all
        raise Problem(f"{error}. What was graded is kept: mend that, and the same command goes on.") from error
    print_results(results, plan, console)
    if not all(result.final for result in results):
        raise typer.Exit(1)


@app.command()
def gradescope(
    ex: Annotated[str, Option(help="Exercises: '04 07'; without, all that need no Docker.")] = "",
    private: Annotated[str, Option(help="A folder of extra tests that students do not have.")] = "",
    isolation: Annotated[str, Option(help="process or none.")] = "",
    jobs: Annotated[str, Option(help="How many exercises at a time (2).")] = "",
    limit: Annotated[str, Option(help="Seconds for the tests of one exercise (600).")] = "",
    output: Annotated[Path, Option(help="Where the archive goes.")] = ROOT
    / "reports"
    / "gradescope"
    / "autograder.zip",
) -> None:
    """Build the archive that Gradescope's machines grade with."""
    from course.grading.grade import whole_number
    from course.grading.gradescope import choose, write_archive
    from course.grading.handed_in import private_folder
    from course.isolation.sandbox import MODES

    if isolation and isolation not in MODES:
        raise Problem(
            f"ISOLATION={isolation}: on Gradescope's machines, which have no Docker engine, there are {', '.join(MODES)}."
        )
    chosen = choose(ex)
    names = write_archive(
        output,
        chosen,
        private=private_folder(private),
        isolation=isolation or "process",
        jobs=whole_number("JOBS", jobs, 2, 64),
        limit=whole_number("TIME", limit, 600, 86_400),
    )
    console.print(f"[bold]{output}[/]  {output.stat().st_size / 1e6:.1f} MB, {len(names)} files")
    console.print("Upload it as the assignment's autograder, and choose an image of Ubuntu 22.04 or newer.")
    console.print(f"Points of the assignment: {sum(one.points for one in chosen if not one.optional)}")


@app.command("grade-benchmark")
def grade_benchmark(
    ex: Annotated[str, Option(help="Exercises: '04 07'; all without.")] = "",
    size: Annotated[int, Option(help="How many submissions the class has.")] = 30,
    hostile: Annotated[int, Option(help="How many of them are hostile.")] = 5,
    jobs: Annotated[int, Option(help="How many exercises at a time.")] = 2,
    isolation: Annotated[str, Option(help="process, docker or none.")] = "process",
    limit: Annotated[int, Option(help="Seconds for the tests of one exercise.")] = 600,
) -> None:
    """Measure what grading costs, and kill the grader half-way."""
    from course.measure.grading import run

    if not run(ex, size, hostile, jobs, isolation, limit):
        raise typer.Exit(1)


@app.command("manifest")
def write_manifest() -> None:
    """Write what is made from course.toml and exercises/: README's table, the digests of the starters."""
    from course.pages.readme import with_table

    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
    manifest.record_starters()
