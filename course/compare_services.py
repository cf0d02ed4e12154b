"""Measures exercise 09's application against exercise 10's service: requests/s, and what a crowd is answered."""

import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from course import ROOT
from course.submission import Submission

CLIENTS, SECONDS, ROUNDS, CROWD = 8, 5, 5, 500
CAT = (ROOT / "data" / "cat.png").read_bytes()


async def rate(url: str, seconds: float = SECONDS) -> float:
    """Image files classified in a second, with CLIENTS that each send the next when one was answered."""
    async with httpx.AsyncClient(timeout=60) as client:

        async def one_client(end: float) -> int:
            done = 0
            while time.perf_counter() < end:
                (await client.post(f"{url}/classify", content=CAT)).raise_for_status()
                done += 1
            return done

        begin = time.perf_counter()
        done = await asyncio.gather(*(one_client(begin + seconds) for _ in range(CLIENTS)))
        return sum(done) / (time.perf_counter() - begin)


async def crowd(url: str) -> tuple[Counter, float]:
    """CROWD image files sent at once: how often each status was answered, and after how many seconds the last 200."""
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=CROWD)) as client:
        begin, last = time.perf_counter(), 0.0

        async def one() -> int:
            nonlocal last
            status = (await client.post(f"{url}/classify", content=CAT)).status_code
            last = time.perf_counter() - begin if status == 200 else last
            return status

        return Counter(await asyncio.gather(*(one() for _ in range(CROWD)))), last


def print_comparison() -> None:
    """Measure both in turn, several rounds, and print the figures with how they were taken."""
    console = Console()
    rates: dict[str, list[float]] = {"09 FastAPI": [], "10 BentoML": []}
    crowds: dict[str, tuple[Counter, float]] = {}
    for _ in track(range(ROUNDS), "Serving with each in turn ...", console=console, transient=True):
        with tempfile.TemporaryDirectory() as scratch:
            submission = Submission(ROOT / "solutions", Path(scratch))
            serve = {"09 FastAPI": submission.serve_app, "10 BentoML": submission.serve}
            for name, file in zip(serve, ("ex09_fastapi.py", "ex10_service.py"), strict=True):
                with serve[name](file) as server:
                    asyncio.run(rate(server.url, seconds=1))  # warm-up
                    rates[name].append(asyncio.run(rate(server.url)))
                    if name not in crowds:
                        crowds[name] = asyncio.run(crowd(server.url))
    table = Table("", f"images/s, {CLIENTS} clients", f"{CROWD} images at once", "the last 200 after")
    for name, measured in rates.items():
        answers = ", ".join(f"{number} x {status}" for status, number in sorted(crowds[name][0].items()))
        spread = f"{statistics.median(measured):.0f} ({min(measured):.0f} to {max(measured):.0f})"
        table.add_row(name, spread, answers, f"{crowds[name][1]:.0f} s")
    console.print(table)
    console.print(
        f"data/cat.png; median (least to most) of {ROUNDS} rounds of {SECONDS} s in turn, each with a server of its own;"
        f" the clients share its {os.cpu_count()} cores. {platform.machine()}, Python {platform.python_version()}."
    )
