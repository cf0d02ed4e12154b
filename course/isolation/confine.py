"""Becomes a student's program, under limits: python -I -S course/isolation/confine.py SPEC COMMAND...

SPEC is JSON: {"rlimits": {name: n}, "status": file descriptor, "stay": bool, "mark": what course/base/processes.py
finds the program, and all that it starts, by}. The descriptor closes when the program has started, or gets a line
`failed REASON`. With "stay", this is the first process of a sandbox: it starts the program, writes `started` and later
`ended CODE`, and stays until it is killed, so that whatever the program left behind can still be seen.

It uses nothing but the standard library, and no site-packages: it starts in 15 ms, with no line of a student's.
"""

import json
import os
import resource
import signal
import sys
from contextlib import suppress


def main(spec: dict, command: list[str]) -> None:
    """Do what the module's docstring says."""
    os.set_inheritable(spec["status"], False)
    if not spec["stay"]:
        become(spec, command, spec["status"])
    begun, begins = os.pipe()
    program = os.fork()
    if not program:
        os.setsid()  # signals for its group do not reach this process
        become(spec, command, begins)
    os.close(begins)
    os.write(spec["status"], os.read(begun, 1000) or b"started\n")
    while True:
        with suppress(ChildProcessError):
            pid, status = os.wait()  # every process whose parent has died is a child of this one
            if pid == program:
                os.write(spec["status"], f"ended {os.waitstatus_to_exitcode(status)}\n".encode())
            continue
        while True:  # nothing is left
            signal.pause()


def become(spec: dict, command: list[str], status: int) -> None:
    """Set the limits for this process and turn it into the command."""
    # If the machine runs out of memory anyway, the kernel ends these processes first, not the grader's.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    for name, most in spec["rlimits"].items():
        kind = getattr(resource, name, None)
        if kind is None:  # macOS lacks some
            continue
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(ValueError, OSError):  # macOS again
            resource.setrlimit(kind, (most, most))
    try:
        os.execvpe(command[0], command, os.environ | {"COURSE_RUN": spec["mark"]})
    except OSError as error:
        os.write(status, f"failed {command[0]} cannot be started: {error}\n".encode())
        os._exit(127)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
