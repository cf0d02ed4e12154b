"""Options that several commands share, each with the variable of make that sets it. An empty variable sets nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from serving import Problem

SOLUTIONS = ROOT / "solutions"


def several(numbers: str) -> list[Exercise]:
    """The exercises with these numbers, such as `04 07`. Raises Problem if there is no such exercise."""
    return [manifest.find(number) for number in dict.fromkeys(numbers.replace(",", " ").split())]


def images(files: str) -> list[Path]:
    """Image files, separated by spaces. Raises Problem if one does not exist."""
    paths = [Path(file) for file in files.split()]
    if missing := [path for path in paths if not path.is_file()]:
        raise Problem(f"IMAGE={files}: there is no file {missing[0]}.")
    return paths


Number = Annotated[
    Exercise | None, Argument(parser=manifest.find, envvar="EX", help="Its number; without it, the one you work on.")
]
Numbers = Annotated[
    Sequence[Exercise] | None,
    Argument(parser=several, envvar="EX", help="Exercises, such as '04 07'; without them, all that you began."),
]
One = Annotated[Exercise | None, Option("--ex", parser=manifest.find, envvar="EX", help="The number of an exercise.")]
Several = Annotated[
    Sequence[Exercise] | None, Option("--ex", parser=several, envvar="EX", help="Exercises, such as '04 07'.")
]
Images = Annotated[Sequence[Path], Option("--image", parser=images, envvar="IMAGE", help="Image files.")]
Port = Annotated[int, Option(min=1, max=65535, envvar="PORT", help="The port of the service.")]
Folder = Annotated[Path, Option(exists=True, file_okay=False, envvar="SUBMISSION", help="The folder with the answers.")]
By = Annotated[
    Literal["bento", "hand"], Option(envvar="BY", help="`bentoml containerize`, or the Dockerfile written by hand.")
]
Words = Annotated[str, Option("--images", envvar="IMAGES", help="Only images whose tags contain one of these words.")]
Rounds = Annotated[int, Option(min=1, max=100, envvar="ROUNDS", help="How often each one has its turn.")]

Isolation = Annotated[
    Literal["process", "docker", "limits", "none"], Option(envvar="ISOLATION", help="What submitted code runs in.")
]
Jobs = Annotated[int, Option(min=1, max=64, envvar="JOBS", help="How many exercises to grade at the same time.")]
Limit = Annotated[int, Option(min=1, max=86_400, envvar="TIME", help="Seconds for the tests of one exercise.")]
Private = Annotated[
    Path | None, Option(envvar="PRIVATE", help="A folder of tests that students do not have: test_exNN_name.py.")
]
