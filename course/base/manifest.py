"""course.toml, the one list of exercises."""

import hashlib
import json
import re
import tomllib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from course import ROOT
from serving import Problem

# Digests of the starters, so that a student's work is told from them even after it was committed.
STARTERS = ROOT / "course" / "starters.json"


class Exercise(BaseModel):
    """One entry of course.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: str  # two digits
    name: str
    title: str
    part: str
    points: int
    optional: bool = False
    files: list[str]  # the same names in exercises/ and, solved, where solution() says
    goal: str  # one sentence
    run: str  # the command to try it with
    hints: list[str]

    @property
    def stem(self) -> str:
        """What its test and its page are called after: ex04_inference."""
        return f"ex{self.number}_{self.name}"

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
    """The exercise of that number; `4` is `04`.

    Raises:
        Problem: there is none.
    """
    for exercise in exercises():
        if exercise.number == number.zfill(2):
            return exercise
    known = ", ".join(exercise.number for exercise in exercises())
    raise Problem(f"EX={number}: no exercise has that number. There are {known}.")


def solution(file: str) -> Path:
    """The solution of an exercise's file: in solutions/, or, of what is no Python module, in a folder of its own.

    exercises/locustfiles/ex11_locustfile.py is solved in locustfiles/ex11_locustfile.py.
    """
    return ROOT / file if "/" in file else ROOT / "solutions" / file


def is_service(path: Path) -> bool:
    """Whether a solution's file holds a BentoML service or an ASGI application."""
    return path.suffix == ".py" and bool(
        re.search("^(class ImageClassifierService|app = FastAPI)", path.read_text(), re.M)
    )


def digest(exercise: Exercise) -> str:
    """A digest of the files in exercises/ as they are now."""
    files = [ROOT / "exercises" / file for file in exercise.files]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def untouched(exercise: Exercise) -> bool:
    """Whether nobody has begun to work on an exercise: its files are the starters still."""
    return json.loads(STARTERS.read_text()).get(exercise.number) == digest(exercise)


def record_starters() -> None:
    """Take what is in exercises/ for the starters from now on."""
    STARTERS.write_text(json.dumps({one.number: digest(one) for one in exercises()}, indent=2) + "\n")
