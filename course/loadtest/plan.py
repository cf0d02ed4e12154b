"""What a load test measures: services, payload, users, how long."""

import re
from pathlib import Path
from typing import NamedTuple

from course.base import manifest
from course.base.manifest import is_service
from course.loadtest.ceiling import Work
from serving import Problem
from serving.model import MODEL_A_PATH, MODEL_B_PATH, MODEL_PATH, MODELS_DIR

PAYLOADS = {"image": "/classify", "json": "/predict", "npy": "/predict_npy"}
TWO_MODELS = ("15", "16")  # these run models A and B on each image


class Comparison(NamedTuple):
    """What EX= measures. Ratios are taken to the first service."""

    services: str
    payload: str = "image"
    users: int = 32
    bare: bool = False  # what batching gains the session alone


COMPARISONS = {
    "": Comparison("09 10"),
    "09": Comparison("09 10", users=8),
    # While 32 run as a batch, 32 gather for the next.
    "11": Comparison("11:BATCHING=0 11", payload="npy", users=64, bare=True),
    "13": Comparison(
        "13:WORKERS=4,THREADS=0 13:WORKERS=4 13:WORKERS=2,THREADS=0 13:WORKERS=2 13:WORKERS=1,THREADS=0 13:WORKERS=1 "
        "13:WORKERS=cpu_count,THREADS=0 13:WORKERS=cpu_count"
    ),
    "15": Comparison("13:MODEL=model_a 13:MODEL=model_b 15", users=1),
    "16": Comparison("16"),
}


class Variant(NamedTuple):
    """An exercise's service, with the environment variables that it is started with."""

    number: str
    file: str
    env: dict[str, str]

    @property
    def name(self) -> str:
        """As it is shown: `13 WORKERS=4`."""
        return " ".join([self.number, *(f"{key}={value}" for key, value in self.env.items())])


class Plan(NamedTuple):
    """What is measured, and how long."""

    variants: list[Variant]
    payload: str
    users: int
    duration: float
    rounds: int
    bare: bool
    folder: Path

    @classmethod
    def make(cls, *, ex: str, services: str, payload: str, users: str, duration: str, rounds: str, folder: Path):
        """Fill in what was not said, from the comparison of an exercise or the quick default.

        Raises:
            Problem: something that cannot be measured.
        """
        if ex and ex.zfill(2) not in COMPARISONS:
            known = ", ".join(sorted(filter(None, COMPARISONS)))
            raise Problem(f"EX={ex}: there are comparisons for {known}. Any other: SERVICES='10 13:WORKERS=2'.")
        prepared = COMPARISONS[ex.zfill(2) if ex else ""]
        payload = payload or prepared.payload
        if payload not in PAYLOADS:
            raise Problem(f"PAYLOAD={payload}: a payload is one of {', '.join(PAYLOADS)}.")
        if services and not services.split():
            raise Problem(f"SERVICES={services}: name at least one, such as SERVICES='10 13:WORKERS=4,THREADS=0'.")
        return cls(
            variants=[variant(word, folder) for word in (services or prepared.services).split()],
            payload=payload,
            users=number("USERS", users, 1, 1000) if users else prepared.users,
            duration=number("DURATION", duration or "10", 1, 600),
            rounds=number("ROUNDS", rounds or "2", 1, 100),
            bare=prepared.bare,
            folder=folder,
        )

    def work(self, variant: Variant) -> Work:
        """What a service computes for one request."""
        if variant.number in TWO_MODELS:
            return Work(self.payload, (str(MODEL_A_PATH), str(MODEL_B_PATH)))
        path = MODELS_DIR / f"{variant.env['MODEL']}.onnx" if "MODEL" in variant.env else MODEL_PATH
        return Work(self.payload, (str(path),))

    @property
    def works(self) -> list[Work]:
        """Each once."""
        return list(dict.fromkeys(map(self.work, self.variants)))


def variant(word: str, folder: Path) -> Variant:
    """`13:WORKERS=4,THREADS=0` as a Variant.

    Raises:
        Problem: no such exercise, no service in it, or not of this form.
    """
    number, _, settings = word.partition(":")
    pairs = [pair.partition("=") for pair in settings.split(",")] if settings else []
    if bad := [pair for pair in pairs if not re.fullmatch("[A-Z][A-Z0-9_]*", pair[0]) or not pair[1]]:
        raise Problem(f"SERVICES={word}: {''.join(bad[0])!r} is not of the form 13:WORKERS=4,THREADS=0.")
    try:
        exercise = manifest.find(number)
    except Problem as problem:
        raise Problem(f"SERVICES={word}: {str(problem).partition(': ')[2]}") from problem
    file = next((file for file in exercise.files if is_service(manifest.solution(file))), None)
    if file is None:
        raise Problem(f"SERVICES={word}: exercise {exercise.number} has no service.")
    if not (folder / file).is_file():
        raise Problem(f"There is no {folder / file}.")
    return Variant(exercise.number, file, {key: value for key, _, value in pairs})


def number(name: str, text: str, least: int, most: int) -> int:
    """A whole number, or a Problem that names it."""
    if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise Problem(f"{name}={text}: expected a whole number from {least} to {most}.")
    return int(text)


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
