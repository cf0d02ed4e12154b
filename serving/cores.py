"""How many CPU cores there are to share out."""

import os

from bentoml._internal.resource import CpuResource


def cores() -> int:
    """The cores that this process may keep busy: at least one, no part of a core counted.

    A machine's number of cores is not it: a process may be confined to some of them (taskset, cpuset), a container
    to so much of their time (docker run --cpus). BentoML's own `workers="cpu_count"` knows the second, not the first.
    """
    confined = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(confined, int(CpuResource.from_system())))
