"""Commands in bubblewrap: a file system, processes and users of their own, in which nothing else of the machine is."""

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from course import ROOT
from course.isolation.limits import MB

TOPS = [Path("/usr"), Path("/bin"), Path("/sbin"), Path("/lib"), Path("/lib64")]
# What programs look for: names, fonts, certificates, and how many cores there are. Nothing secret.
ETC = "alternatives fonts group hosts host.conf ld.so.cache localtime mime.types nsswitch.conf passwd protocols"
SYSTEM = [Path("/etc", name) for name in f"{ETC} services ssl".split()]
SYSTEM += [Path("/sys/devices/system"), Path("/sys/fs/cgroup")]


class Folders(NamedTuple):
    """What a program may read and write, beside what every program needs."""

    read: set[Path]
    write: set[Path]


class Own(NamedTuple):
    """Folders that one program has for itself."""

    home: Path
    tmp: Path
    project: Path  # stands for the project's root: the program may write there, and it vanishes with the program

    @classmethod
    def make(cls, folder: Path) -> "Own":
        """Make them in an empty folder."""
        for name in cls._fields:
            (folder / name).mkdir()
        return cls(*(folder / name for name in cls._fields))


def bwrap() -> str:
    """Where bubblewrap is: the program may have another PATH."""
    return shutil.which("bwrap") or "bwrap"


def lent() -> set[Path]:
    """What student code may see of the project, and the Python that it runs on. All have /usr, which is not listed."""
    ours = {ROOT / name for name in ("serving", "course", "data", "models", "course.toml")}
    python = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    python |= {path.resolve() for path in python}
    return {path for path in ours | python if not path.is_relative_to("/usr")}


def isolated(command: list[str], cwd: Path, own: Own, folders: Folders) -> list[str]:
    """The command that runs a command in a sandbox.

    In there it is an ordinary user without rights, even if the grader is root. Its files belong to the grader's user.
    """
    words = [bwrap(), "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
    words += ["--unshare-user", "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL"]
    for folder in TOPS:  # where /bin is a link to /usr/bin, it becomes a folder
        words += ["--ro-bind-try", str(folder.resolve()), str(folder)]
    words += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(256 * MB), "--tmpfs", "/dev/shm"]
    for device in Path("/dev").glob("nvidia*"):
        words += ["--dev-bind-try", str(device), str(device)]

    binds = {Path("/tmp"): ("--bind", own.tmp), own.home: ("--bind", own.home), ROOT: ("--bind", own.project)}
    for path in {*(path for path in (*SYSTEM, *lent()) if path.exists()), *folders.read}:
        binds[path] = ("--ro-bind", path)
    for path in folders.write:
        binds[path] = ("--bind", path)
    for path, (how, source) in sorted(binds.items(), key=lambda bind: len(bind[0].parts)):
        if path.is_relative_to("/usr"):
            continue
        for parent in reversed(path.parents[:-1]):
            words += ["--perms", "0755", "--dir", str(parent)]  # bubblewrap's own would be for their owner alone
        words += [how, str(source), str(path)]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(cwd), "--", *command]


def without_network(command: list[str]) -> list[str]:
    """The command that runs a command, and all that it starts, without any network but loopback.

    It is for pytest itself: the tests talk to students' servers over loopback.
    """
    keep = ["--cap-add", "ALL"] if os.geteuid() == 0 else []
    return [bwrap(), "--die-with-parent", "--dev-bind", "/", "/", "--unshare-net", *keep, "--", *command]
