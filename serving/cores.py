"""How many CPU cores there are to share out."""

import os

from bentoml._internal.resource import CpuResource


def cores() -> int:
    """The cores that this process may keep busy: at least one, no part of a core counted.

    Fewer than the machine has, where the process is confined to some (taskset, cpuset) or a container to part of
    their time (docker run --cpus). BentoML's own `workers="cpu_count"` knows the second, not the first.
    """
    confined = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(confined, int(CpuResource.from_system())))
