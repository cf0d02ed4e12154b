"""How many CPU cores there are to share out, and settings that say how."""

import os
import re

from bentoml._internal.resource import CpuResource
from bentoml.exceptions import BentoMLException

MOST = 256  # workers, or threads of one: more is a slip of the finger


def cores() -> int:
    """The cores that this process may keep busy: at least one, no part of a core counted.

    Fewer than the machine has, where the process is confined to some (taskset, cpuset) or a container to part of
    their time (docker run --cpus). BentoML's own `workers="cpu_count"` knows the second, not the first.
    """
    confined = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(confined, int(CpuResource.from_system())))


def read_number(name: str, wanted: str, least: int, otherwise: str) -> int:
    """A setting that is a number from `least` to MOST; a BentoMLException for anything else ends `bentoml serve`.

    otherwise: what else the setting may be, for the message.
    """
    if not re.fullmatch("[0-9]{1,3}", wanted) or not least <= int(wanted) <= MOST:
        raise BentoMLException(f"{name}={wanted}: expected a number from {least} to {MOST}, or {otherwise}.")
    return int(wanted)
