"""course.toml, the one list of exercises."""

import hashlib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from course import ROOT
from serving import Problem

# Digests of the starters: they tell a student's work from a starter even after it was committed.
STARTERS = ROOT / "course" / "starters.json"

Payload = Literal["image", "json", "npy"]


class Load(BaseModel):
    """What `make loadtest EX=` compares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    services: str  # exercises with their variables: "10 13:WORKERS=4"; ratios are to the first
    payload: Payload = "image"
    users: int = 32  # how many ask at a time
    session_alone: bool = False  # also measure what batching gains a session without a server


PARTS = {  # by the number of their first exercise
    "01": "I. A model as a file",
    "09": "II. A model as a service",
    "17": "III. Containers and the cloud",
    "19": "IV. Going further",
}


class Exercise(BaseModel):
    """One entry of course.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: str  # two digits
    name: str
    title: str
    points: int
    optional: bool = False  # its points come on top
    minutes: int  # about how long it takes
    level: Literal["easy", "medium", "hard"]
    core: bool = False  # on the shortest way through the course
    needs: list[str] = []  # the exercises that it leans on
    files: list[str]  # the same names in exercises/ and, solved, where solution() says
    goal: str  # one sentence
    run: str  # the command that tries the student's own files
    service: str = ""  # the one of its files that holds a service
    service_class: str = "ImageClassifierService"  # what that file calls its service
    app: bool = False  # an ASGI application, which the file serves when it is run; any other service is BentoML's
    models: list[str] = []  # what the service needs: NAME is models/NAME.onnx
    no_image: str = ""  # why the service is not put into an image
    not_by_hand: str = ""  # why only BentoML makes an image of it
    load: Load | None = None
    hints: list[str]

    @property
    def run_solution(self) -> str:
        """The same command for the solution."""
        return self.run.replace("exercises", "solutions").replace(" MINE=1", "").replace("mine.onnx", "solution.onnx")

    @property
    def part(self) -> str:
        """The part of the course that it is in."""
        return next(title for first, title in reversed(PARTS.items()) if self.number >= first)

    @property
    def stem(self) -> str:
        """What its test and its page are called after: ex04_inference."""
        return f"ex{self.number}_{self.name}"

    @property
    def module(self) -> str:
        """Its service's file, without .py."""
        return Path(self.service).stem

    @property
    def classifies(self) -> bool:
        """Whether it has a service that answers POST /classify."""
        return bool(self.service) and self.service_class == "ImageClassifierService"

    @property
    def bentofile(self) -> str:
        """How BentoML packs its service, relative to the project or to a submission."""
        return f"bentofiles/{self.stem}.yaml"

    def image(self, by: str) -> str:
        """The tag of its service's image: by `bento` or by `hand`."""
        return f"{self.stem}:{by}"

    @property
    def test(self) -> str:
        """Its tests, relative to the project."""
        return f"tests/test_{self.stem}.py"

    @property
    def needs_docker(self) -> bool:
        """Whether some of its tests build images and start containers."""
        return "pytest.mark.docker" in (ROOT / self.test).read_text()

    @property
    def page(self) -> str:
        """Its section on the course page, relative to the project."""
        return f"docs/{self.stem}.md"


@cache
def exercises() -> list[Exercise]:
    """All exercises in the order of their numbers."""
    entries = tomllib.loads((ROOT / "course.toml").read_text())["exercise"]
    return sorted((Exercise(**entry) for entry in entries), key=lambda exercise: exercise.number)


def find(number: str) -> Exercise:
    """The exercise of that number, `4` as well as `04`; raises Problem where there is none."""
    known = {exercise.number: exercise for exercise in exercises()}
    if len(number.split()) > 1:
        raise Problem(f"EX={number}: one exercise at a time here, such as EX={number.split()[0].zfill(2)}.")
    if number.zfill(2) not in known:
        raise Problem(f"EX={number}: no exercise has that number. There are {', '.join(known)}.")
    return known[number.zfill(2)]


def find_several(numbers: str) -> list[Exercise]:
    """The exercises with these numbers, such as `04 07`; raises Problem as find() does."""
    return [find(number) for number in dict.fromkeys(numbers.replace(",", " ").split())]


def find_service(number: str) -> Exercise:
    """The exercise of that number; raises Problem where there is none, or it has no service."""
    exercise = find(number)
    if not exercise.service:
        raise Problem(f"EX={number}: exercise {exercise.number} has no service.")
    return exercise


def solution(file: str) -> Path:
    """The solution of an exercise's file: a module in solutions/, any other in a folder of its own, as locustfiles/."""
    return ROOT / file if "/" in file else ROOT / "solutions" / file


def digest(exercise: Exercise) -> str:
    """A digest of the files in exercises/ as they are now."""
    files = [ROOT / "exercises" / file for file in exercise.files]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def untouched(exercise: Exercise) -> bool:
    """Whether the files of an exercise are still the starters."""
    return json.loads(STARTERS.read_text()).get(exercise.number) == digest(exercise)


def record_starters() -> None:
    """Record the files in exercises/ as the starters."""
    STARTERS.write_text(json.dumps({one.number: digest(one) for one in exercises()}, indent=2) + "\n")
