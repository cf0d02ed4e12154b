"""How much of the machine a student's program may use: limits that the kernel keeps, and others that are watched."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

MB, GB = 2**20, 2**30
GONE = (FileNotFoundError, NotADirectoryError)  # what has just been removed or replaced


class Limits(NamedTuple):
    """What one program and all that it starts may use."""

    memory: int = 4 * GB
    processes: int = 200
    output: int = 10 * MB  # what it prints
    disk: int = 2 * GB
    cpu: int = 600  # seconds, for each process; the time limit of the call holds for all of them
    files: int = 4096  # open at a time, in one process


LIMITS = Limits()


def of_kernel(limits: Limits, *, alone: bool) -> dict[str, int]:
    """The limits that the kernel keeps, by their names in the module `resource`.

    alone: whether the program has a user namespace of its own, so that no other processes of its user count.
    """
    found = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": limits.cpu,
        # One file alone never fills the disk, so that the failure names the same limit every time.
        "RLIMIT_FSIZE": limits.disk - limits.disk // 16,
        "RLIMIT_NOFILE": limits.files,
    }
    if not list(Path("/dev").glob("nvidia*")):  # CUDA maps far more than it uses
        # For one process. excess(), which adds up all of them, may come a moment late.
        found["RLIMIT_DATA"] = limits.memory + 64 * MB * (os.cpu_count() or 1)
    linux = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    if alone and linux >= (5, 14):  # before, the kernel counted all processes of the user
        found["RLIMIT_NPROC"] = limits.processes + 100 * (os.cpu_count() or 1)  # threads count, too
    return found


def excess(tree: list[psutil.Process], log: Path, folders: list[Path], limits: Limits) -> str:
    """Which limit a program exceeds, as the end of a sentence; nothing where it exceeds none."""
    if log.stat().st_size > limits.output:
        return f"it printed more than {limits.output // MB} MB"
    if len(tree) > limits.processes:
        return f"it started more than {limits.processes} processes"
    if all(sum(memory(process, kind) for process in tree) > limits.memory for kind in ("rss", "pss")):
        return f"it used more than {limits.memory / GB:g} GB of memory"
    if sum(size(folder, limits.disk) for folder in folders) > limits.disk:
        return f"it wrote more than {limits.disk / GB:g} GB to the disk"
    return ""


def memory(process: psutil.Process, kind: str) -> int:
    """Bytes. rss counts shared memory for each process; pss, which takes longer to find out, counts it once.

    Linux alone knows pss, and tells only root about a process that forbids it: then this is rss.
    """
    with suppress(psutil.Error, AttributeError):
        return process.memory_info().rss if kind == "rss" else process.memory_full_info().pss
    return 0 if kind == "rss" else memory(process, "rss")


def size(folder: Path, enough: int) -> int:
    """The bytes that a folder takes on the disk, counted no further than a little over `enough`.

    More than 20,000 files are too many, and so is what cannot be counted: closed folders, or hundreds of them nested.
    """
    total = files = 0
    try:
        for place, _, names in os.walk(folder, onerror=_raise_unless_gone):
            for name in names:
                with suppress(*GONE):
                    total += os.lstat(os.path.join(place, name)).st_blocks * 512
            files += len(names) + 1
            if files > 20_000 or total > enough:
                return max(total, enough + 1)
    except (OSError, RecursionError):
        return enough + 1
    return total


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, GONE):
        raise error
