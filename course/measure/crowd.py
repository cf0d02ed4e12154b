"""Sends 500 photographs at once to exercise 09's application and to exercise 10's service.

How fast they are under a steady load says `make loadtest EX=09`.
"""

import asyncio
import os
import platform
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from course import ROOT
from course.harness.submission import Submission

CROWD = 500
CAT = (ROOT / "data" / "cat.png").read_bytes()


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


def print_crowd() -> None:
    """Ask both, one after the other, and print what came back with how it was taken."""
    console = Console()
    table = Table("", f"{CROWD} images at once", "the last 200 after")
    with tempfile.TemporaryDirectory() as scratch:
        submission = Submission(ROOT / "solutions", Path(scratch))
        services = {
            "09 FastAPI": (submission.serve_app, "ex09_fastapi.py"),
            "10 BentoML": (submission.serve, "ex10_service.py"),
        }
        for name, (serve, file) in services.items():
            with console.status(f"Asking {name} ..."), serve(file) as server:
                httpx.post(f"{server.url}/classify", content=CAT, timeout=60).raise_for_status()  # warm
                answers, seconds = asyncio.run(crowd(server.url))
            shown = ", ".join(f"{number} x {status}" for status, number in sorted(answers.items()))
            table.add_row(name, shown, f"{seconds:.0f} s")
    console.print(table)
    console.print(
        f"data/cat.png; the clients share the {os.cpu_count()} cores. {platform.machine()}, "
        f"Python {platform.python_version()}. Next: make loadtest EX=09"
    )
