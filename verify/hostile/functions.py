"""Functions that look around, and do what no answer should. test_hostile.py and test_grade_container.py call them.

None deletes or changes what is not its own: where the sandbox fails, the test says so, and nobody is harmed.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil


def possible(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return False
    return True


def fork_bomb():
    while True:
        if not possible(os.fork):
            time.sleep(0.1)


def shared_memory():
    """How much fits into /dev/shm, up to 1 GB."""
    written = 0
    with suppress(OSError):
        for number in range(64):
            Path(f"/dev/shm/{number}").write_bytes(bytes(2**24))
            written += 2**24
    return written


def kills_all():
    """Its parent, the first process, and every process that it can see."""
    for pid in (os.getppid(), 1, -1):
        possible(os.kill, pid, signal.SIGKILL)
    time.sleep(0.5)
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def daemon(note):
    """Twice forked, in a session of its own, without our environment, deaf to everything."""
    code = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)"
    subprocess.Popen([sys.executable, "-I", "-c", code, note], start_new_session=True, env={})
    return 1


def mount():
    if ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None):
        raise OSError


def reach():
    """What it can see, change and do; paths.json says where it looks."""
    hidden, shown = json.loads((Path(__file__).parent / "paths.json").read_text())
    hidden += [str(Path.home().parents[1] / name) for name in ("results", "log")]  # of this run
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "seen": [path for path in hidden if os.path.exists(path)],
        "missing": [path for path in shown if not os.path.exists(path)],
        "writable": [path for path in shown if os.access(path, os.W_OK) or not os.statvfs(path).f_flag & os.ST_RDONLY],
        "written": [path for path in shown if os.path.isdir(path) and possible(Path(path, "results.json").touch)],
        "others": [one.pid for one in psutil.process_iter() if "--results" in one.cmdline()],
        "mounts": possible(mount),
        "root": os.geteuid() == 0 or possible(os.setuid, 0),
        "powers": "".join(status[name].strip(" \t0") for name in ("CapPrm", "CapEff", "CapBnd")),
        "may gain powers": status["NoNewPrivs"].strip() != "1",
        "environment": sorted(name for name in os.environ if name.startswith(("DOCKER", "COURSE_", "SECRET"))),
        "networks": sorted(psutil.net_if_addrs()),
        "loopback": possible(socket.create_server, ("127.0.0.1", 0)),
    }


def change(model, output):
    """Which changes of a file that it may only read succeed; it may write the other."""
    output.write_text("its own")
    changes = [
        lambda: model.write_text("x"),
        model.unlink,
        lambda: os.replace(output, model),
        lambda: model.chmod(0o666),
    ]
    return [possible(attempt) for attempt in changes]


def notes():
    """What an earlier submission has left where anybody can write, and something for the next one."""
    places = [Path(name, "note") for name in ("/tmp", "/dev/shm", Path.home(), Path.cwd(), "/var/tmp")]
    found = [str(place) for place in places if place.exists()]
    return found, sum(possible(place.touch) for place in places)
