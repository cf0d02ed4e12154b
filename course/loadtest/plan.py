"""What a load test measures, and what it found."""

import re
from pathlib import Path
from typing import NamedTuple

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.loadtest.ceiling import Work
from serving import Problem
from serving.model import MODEL_PATH, MODELS_DIR


class Variant(NamedTuple):
    """An exercise's service, with the environment variables that it is started with."""

    exercise: Exercise
    env: dict[str, str]

    @property
    def name(self) -> str:
        """As it is shown: `13 WORKERS=4`."""
        return " ".join([self.exercise.number, *(f"{key}={value}" for key, value in self.env.items())])


class Plan(NamedTuple):
    """What is measured, and how long."""

    variants: list[Variant]
    payload: str
    users: int
    duration: float
    rounds: int
    session_alone: bool
    folder: Path

    @classmethod
    def make(
        cls,
        exercise: Exercise,
        *,
        services: str = "",
        payload: str | None = None,
        users: int | None = None,
        duration: int = 10,
        rounds: int = 2,
        folder: Path = ROOT / "solutions",
    ) -> "Plan":
        """The comparison of an exercise, with these values in place of its own; raises Problem if there is none."""
        load = exercise.load
        if load is None:
            known = ", ".join(one.number for one in manifest.exercises() if one.load)
            raise Problem(
                f"EX={exercise.number}: there are comparisons for {known}. Any other: SERVICES='10 13:WORKERS=2'."
            )
        if services and not services.split():
            raise Problem(f"SERVICES={services}: name at least one, such as SERVICES='10 13:WORKERS=4,THREADS=0'.")
        variants = [variant(word, folder) for word in (services or load.services).split()]
        return cls(variants, payload or load.payload, users or load.users, duration, rounds, load.session_alone, folder)

    def work(self, variant: Variant) -> Work:
        """What a service computes for one request."""
        models = variant.exercise.models
        if models == ["resnet18"]:
            models = [variant.env.get("MODEL", MODEL_PATH.stem)]
        return Work(self.payload, tuple(str(MODELS_DIR / f"{model}.onnx") for model in models))

    @property
    def works(self) -> list[Work]:
        """Each once."""
        return list(dict.fromkeys(map(self.work, self.variants)))


def variant(word: str, folder: Path) -> Variant:
    """`13:WORKERS=4,THREADS=0` as a Variant; raises Problem for another form, or if there is no such service."""
    number, _, settings = word.partition(":")
    pairs = [pair.partition("=") for pair in settings.split(",")] if settings else []
    if bad := [pair for pair in pairs if not re.fullmatch("[A-Z][A-Z0-9_]*", pair[0]) or not pair[1]]:
        raise Problem(f"SERVICES={word}: {''.join(bad[0])!r} is not of the form 13:WORKERS=4,THREADS=0.")
    try:
        exercise = manifest.find_service(number)
    except Problem as problem:
        raise Problem(f"SERVICES={word}: {str(problem).partition(': ')[2]}") from problem
    if not exercise.classifies:
        raise Problem(f"SERVICES={word}: the load test sends photographs, and exercise {number} classifies none.")
    if not (folder / exercise.service).is_file():
        raise Problem(f"There is no {folder / exercise.service}.")
    return Variant(exercise, {key: value for key, _, value in pairs})


class Turn(NamedTuple):
    """What one service did in one round."""

    service: str
    round: int
    seconds: float  # of the window in which all this was counted
    rate: float  # successful requests a second
    successes: int
    failures: dict[str, int]  # by reason
    milliseconds: list[float]  # of the successful requests, in the order in which they ended
    batches: dict[str, float]  # mean requests a batch, by API
    server_cores: float
    client_cores: float
    other_cores: float  # of everything else on this machine
    megabytes: float
    shares: list[float]  # of the work that each worker of the service did, the least first


class Measured(NamedTuple):
    """All rounds."""

    turns: list[Turn]
    ceilings: dict[Work, list[float]]  # images/s without a server, by round
    alone: list[dict[int, float]]  # images/s of the session alone, by round and size of batch
