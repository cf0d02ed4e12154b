"""Sends 500 photographs at once to exercise 09's application and to exercise 10's service.

`make loadtest EX=09` shows how fast they are under a steady load.
"""

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from rich.console import Console

from course import ROOT
from course.base import manifest, reports
from course.harness.load import CAT
from course.harness.submission import Submission

CROWD = 500


async def crowd(url: str) -> list[tuple[int, float]]:
    """CROWD image files sent at once: the status and the seconds of each answer."""
    begin = time.perf_counter()
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=CROWD)) as client:

        async def one() -> tuple[int, float]:
            answer = await client.post(f"{url}/classify", content=CAT)
            return answer.status_code, time.perf_counter() - begin

        return await asyncio.gather(*(one() for _ in range(CROWD)))


def print_crowd() -> None:
    """Ask both, one after the other, and print what came back and how it was measured."""
    console = Console()
    table = reports.table(f"{CROWD} images at once", "exercise", "answers", "the last 200 after")
    with tempfile.TemporaryDirectory() as scratch:
        submission = Submission(ROOT / "solutions", Path(scratch))
        for exercise in map(manifest.find_service, ("09", "10")):
            serve = submission.serve_app if exercise.app else submission.serve
            with console.status(f"Asking exercise {exercise.number} ..."), serve(exercise.service) as server:
                httpx.post(f"{server.url}/classify", content=CAT, timeout=60).raise_for_status()  # warm
                answers = asyncio.run(crowd(server.url))
            counts = sorted(Counter(status for status, _ in answers).items())
            shown = ", ".join(f"{number} x {status}" for status, number in counts)
            last = max((seconds for status, seconds in answers if status == 200), default=0)
            table.add_row(f"{exercise.number} {exercise.name}", shown, f"{last:.0f} s")
    console.print(table)
    console.print(f"data/cat.png; the clients share the cores. {reports.here()}. Next: make loadtest EX=09")
