"""Functions that do what no answer should. verify/test_hostile.py calls each in the sandbox.

None deletes or changes what is not its own: where the sandbox fails, the test says so, and nobody is harmed.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def endless_loop():
    while True:
        pass


def endless_in_c():
    """In C, where Python's own signal handlers never get their turn, and deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    re.match("(a+)+$", "a" * 50 + "b")


def exits():
    sys.exit(0)


def exits_at_once():
    os._exit(0)


def kills_all():
    """Its parent, the first process, and every process that it can see."""
    for pid in (os.getppid(), 1, -1):
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    time.sleep(0.5)
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def fork_bomb():
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.1)


def many_processes():
    for _ in range(60):
        if not os.fork():
            time.sleep(600)
    time.sleep(600)


def daemon(note):
    """Twice forked, in a session of its own, without our environment, deaf to everything."""
    code = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)"
    subprocess.Popen([sys.executable, "-I", "-c", code, note], start_new_session=True, env={})
    return 1


def all_memory():
    return len(bytearray(2**31))


def memory_of_many():
    for _ in range(6):
        if not os.fork():
            kept = np.ones(15 * 2**20)  # 120 MB
            time.sleep(600)
            return len(kept)
    time.sleep(600)
    return None


def shared_memory():
    """How much fits into /dev/shm, up to 1 GB."""
    written = 0
    try:
        for number in range(64):
            with open(f"/dev/shm/{number}", "wb") as file:
                file.write(bytes(2**24))
            written += 2**24
    except OSError:
        pass
    return written


def prints():
    while True:
        os.write(1, b"x" * 2**20)
        time.sleep(0.02)


def prints_and_returns():
    os.write(1, b"x" * 2**21)
    return 1


def prints_nothing_of_a_terabyte():
    os.ftruncate(1, 2**40)
    return 1


def large_file():
    with open("large", "wb") as file:
        while True:
            file.write(bytes(2**24))


def large_files(folder):
    for number in range(1000):
        (folder / f"{number}").write_bytes(bytes(2**24))
        time.sleep(0.005)
    return 1


def many_files(folder):
    for number in range(10**6):
        (folder / f"{number}").touch()
    return 1


def deep_folders(folder):
    """More of them in each other than Python can follow, or the kernel takes in one path."""
    os.chdir(folder)
    for _ in range(2100):
        os.mkdir("x")
        os.chdir("x")
    return 1


def reach():
    """Which paths it can see, and which it could change."""
    places = json.loads((Path(__file__).parent / "paths.json").read_text())
    return {
        "seen": [path for path in places if os.path.exists(path)],
        "changeable": [path for path in places if os.access(path, os.W_OK)],
        "root": os.geteuid() == 0,
    }


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/it-ran",)


def pickle_bomb():
    return Bomb()


def pickle_bomb_in_an_array():
    return np.array([Bomb()], dtype=object)


def _answer(**files):
    folder = Path(sys.argv[1])
    for name, data in files.items():
        (folder / name.replace("_", ".")).write_bytes(data)
    os._exit(0)


def forged_depth():
    _answer(result_json=b'{"list": [' * 100_000)


def forged_shape():
    """A header that promises 8 TB, without any data."""
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    _answer(result_npy=b"\x93NUMPY\x01\x00\x76\x00" + head, result_json=b'{"array": "result.npy"}')


def forged_size():
    with open(Path(sys.argv[1]) / "result.json", "wb") as file:
        file.truncate(100 * 2**20)
    os._exit(0)


def forged_many():
    """One array of 40 MB, and of no bytes on the disk, a hundred times."""
    np.lib.format.open_memmap(Path(sys.argv[1]) / "result.npy", mode="w+", dtype=np.uint8, shape=(40 * 2**20,))
    _answer(result_json=json.dumps({"list": [{"array": "result.npy"}] * 100}).encode())


def forged_lists():
    """Of which each takes 3 bytes here, and 64 where they are read."""
    _answer(result_json=b'{"value": [' + b"[]," * 3 * 2**20 + b"[]]}")


def forged_nothing():
    """A million texts without a character: no bytes, and 4 MB when copied."""
    head = b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000,), }".ljust(117) + b"\n"
    _answer(result_npy=b"\x93NUMPY\x01\x00\x76\x00" + head, result_json=b'{"array": "result.npy"}')


def forged_error():
    _answer(error_json=b'{"kind": 1}')


def forged_link(secret):
    """What the grader may read, the student would like to answer."""
    os.symlink(secret, Path(sys.argv[1]) / "result.npy")
    _answer(result_json=b'{"array": "result.npy"}')


def forged_pipe():
    os.mkfifo(Path(sys.argv[1]) / "result.json")
    os._exit(0)


def crashes():
    ctypes.string_at(0)
