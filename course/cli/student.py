"""What a student types: exercises and their checks, services, images, load tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape
from typer import Option

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise, Payload
from course.base.processes import need_free
from course.cli import models
from course.student import guide, progress, watch
from serving import Problem

app = typer.Typer()
console = guide.console
SOLUTIONS = ROOT / "solutions"
OWN = ROOT / "exercises"
REPORT = ROOT / "reports" / "images"
# Asks a service that classifies no images, exercise 22's.
SUMMARIZE = """curl http://localhost:{port}/summarize --data '{{"texts": ["Breaking news: ..."]}}'"""

Number = Annotated[
    Exercise | None, Option("--ex", parser=manifest.find, envvar="EX", metavar="NUMBER", help="An exercise.")
]
Port = Annotated[int, Option(min=1, max=65535, envvar="PORT", help="The port of the service.")]
Folder = Annotated[
    Path, Option(exists=True, file_okay=False, envvar="SUBMISSION", help="Instead of solutions/.", show_default=False)
]
By = Annotated[Literal["bento", "hand"], Option(envvar="BY", help="BentoML, or the Dockerfile written by hand.")]
Words = Annotated[str, Option("--images", envvar="IMAGES", help="Only images whose tags contain one of these words.")]
Rounds = Annotated[int, Option(min=1, max=100, envvar="ROUNDS", help="How often each one has its turn.")]

app.command("list")(guide.list_exercises)
app.command()(guide.show)
app.command()(guide.check)
app.command()(guide.hint)
app.command("progress")(guide.show_progress)
app.command("watch")(watch.watch_exercises)
app.command()(guide.solution)
app.command()(guide.reset)


@app.command("try")
def try_own(exercise: Number = None) -> None:
    """Run your own files as the page of their exercise says."""
    command = (exercise or progress.current()).run
    console.print(f"[bold]{escape(command)}[/]")
    for name in ("MAKEFLAGS", "MAKELEVEL"):  # a make that it runs is not a part of this one
        os.environ.pop(name, None)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(ROOT)
    os.execv("/bin/sh", ["sh", "-c", command])


@app.command()
def docs() -> None:
    """Show the course page on the first free port from 8000 on."""
    address, words = guide.page_server()
    console.print(f"[bold]http://{address}[/]   Stop: Ctrl-C")
    os.chdir(ROOT)
    become(*words)


@app.command()
def export(
    model: Annotated[str, Option(envvar="MODEL", help="One classifier; without it, all you need.")] = "",
) -> None:
    """Export the models that the services need, or one other model."""
    for name in [model] if model else ["resnet18", *models.ARCHITECTURES]:
        models.export(name)


@app.command()
def netron(
    exercise: Number = "03",
    browser: Annotated[bool, Option(envvar="BROWSER", help="Open a browser.")] = True,
    folder: Folder = SOLUTIONS,
) -> None:
    """Show the graph of the exported model; with exercise 06, the optimised graph beside it."""
    exported = ["models/resnet18.onnx"]
    graphs = {"03": exported, "06": [*exported, "models/resnet18.optimized.onnx"]}
    if is_own(folder) and (ROOT / "models" / "mine.onnx").is_file():  # as `make try EX=01` calls it
        graphs["03"] = ["models/mine.onnx"]
    if exercise.number not in graphs:
        raise Problem(f"EX={exercise.number}: expected 03, the exported graph, or 06, the optimised graph beside it.")
    models.need(["resnet18"])
    become(str(folder / "ex03_visualize.py"), *graphs[exercise.number], *([] if browser else ["--no-browser"]))


@app.command()
def serve(exercise: Number = "10", port: Port = 3000, folder: Folder = SOLUTIONS) -> None:
    """Serve the model with the service of an exercise."""
    service = manifest.find_service(exercise.number).service
    if not (folder / service).is_file():
        raise Problem(f"There is no {folder / service}.")
    need_free(port, "make serve")
    models.need_to_serve(exercise.models)
    if exercise.app:
        words = [str(folder / service), "--port", str(port)]
        shown, client = ["python", *words], f"curl --data-binary @data/cat.png http://localhost:{port}/classify"
    else:
        # Ctrl-C gives running requests 10 s to finish.
        words = ["-m", "bentoml", "serve", f"{exercise.module}:{exercise.service_class}", "--port", str(port)]
        words += ["--working-dir", str(folder.resolve()), "--timeout-graceful-shutdown", "10"]
        shown, client = words[1:], "make client"
        client += f" PORT={port}" if port != 3000 else ""
        client += " MINE=1" if is_own(folder) else ""
        os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    console.print(f"[bold]{' '.join(shown)}[/]")
    if not exercise.classifies:
        client = SUMMARIZE.format(port=port)
    demo = f"Drop a photograph: http://localhost:{port}/demo   " if exercise.classifies else ""
    console.print(f"{demo}All APIs: http://localhost:{port}   Stop: Ctrl-C")
    console.print(f"In a second terminal: {client}")
    serve_until_stopped(words)


def serve_until_stopped(words: list[str]) -> NoReturn:
    """Run a server, and say at once that a signal arrived: running requests have 10 s to finish."""
    server = subprocess.Popen([sys.executable, *words])

    def stop(number: int, _: object) -> None:
        console.print("\nStopping, up to 10 s")
        if number != signal.SIGINT:  # Ctrl-C reaches the server, too
            server.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    sys.exit(server.wait())


def is_own(folder: Path) -> bool:
    """Whether the student's own files are meant, MINE=1, and not the solutions."""
    return folder.resolve() == OWN


def images_in(text: str) -> list[Path]:
    """Image files, separated by spaces. Raises Problem if one does not exist."""
    paths = [Path(file) for file in text.split()]
    if missing := next((path for path in paths if not path.is_file()), None):
        raise Problem(f"IMAGE={text}: there is no file {missing}.")
    return paths


@app.command()
def client(
    images: Annotated[
        Sequence[Path], Option("--image", parser=images_in, envvar="IMAGE", metavar="FILES", help="Image files.")
    ] = "data/cat.png data/coffee.png",
    port: Port = 3000,
    folder: Folder = SOLUTIONS,
) -> None:
    """Classify image files with the running service."""
    become(str(folder / "ex10_client.py"), *map(str, images), "--url", f"http://localhost:{port}")


def become(*words: str) -> NoReturn:
    """Run Python with these words in the place of this process."""
    os.execv(sys.executable, [sys.executable, *words])


@app.command()
def loadtest(
    exercise: Number = None,
    services: Annotated[str, Option(envvar="SERVICES", help="What to compare: '10 13:WORKERS=4,THREADS=0'.")] = "",
    payload: Annotated[Payload | None, Option(envvar="PAYLOAD", help="What each request contains.")] = None,
    users: Annotated[int | None, Option(min=1, max=1000, envvar="USERS", help="Requests at the same time.")] = None,
    duration: Annotated[int, Option(min=1, max=600, envvar="DURATION", help="Seconds for each turn.")] = 10,
    rounds: Rounds = 2,
    folder: Folder = SOLUTIONS,
    output: Annotated[Path | None, Option(help="Where the report goes.", show_default="reports/loadtest/")] = None,
) -> None:
    """Compare services under the same load, and with the cores alone, without a server."""
    from course.loadtest.plan import Plan
    from course.loadtest.run import loadtest, report_folder

    plan = Plan.make(
        exercise or manifest.find("10"),
        services=services,
        payload=payload,
        users=users,
        duration=duration,
        rounds=rounds,
        folder=folder,
    )
    models.need(Path(path).stem for work in plan.works for path in work.models)
    loadtest(plan, output or report_folder(exercise.number if exercise else ""))


@app.command()
def bento(exercise: Number = "10", folder: Folder = SOLUTIONS) -> None:
    """Pack the service of an exercise with its model: `bentoml build`."""
    from course.images import containers

    service = containers.find(exercise.number)
    models.need(service.models)
    containers.bento(service, folder)


@app.command()
def containerize(exercise: Number = "10", by: By = "bento", folder: Folder = SOLUTIONS) -> None:
    """Build an image of the service of an exercise."""
    from course.images import containers

    service = containers.find(exercise.number, by)
    if by == "hand":
        models.need(service.models)
    containers.containerize(service, by, folder)


@app.command()
def run_container(exercise: Number = "10", by: By = "bento", port: Port = 3000) -> None:
    """Run the image of the service of an exercise: `docker run`."""
    from course.images import containers

    containers.run_container(containers.find(exercise.number, by), by, port)


@app.command()
def images(words: Words = "", folder: Folder = ROOT) -> None:
    """Build the images of exercise 08."""
    from course.images.build import build_all, chosen, inference

    build_all(chosen(inference(folder / "dockerfiles"), words), console)


@app.command()
def compare_images(
    words: Words = "",
    rounds: Rounds = 5,
    fresh: Annotated[bool, Option(envvar="FRESH", help="Build them without cache, and measure that.")] = True,
    output: Annotated[Path, Option(help="Where the report goes.", show_default="reports/images")] = REPORT,
) -> None:
    """Compare images: build time, size of each layer, start-up, first prediction."""
    from course.images.build import COMPARED, chosen
    from course.images.compare import compare

    compare(chosen(COMPARED, words), output, rounds, fresh, console)
