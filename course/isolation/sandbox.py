"""Where student code runs: what of this machine it can see, and how much of it it may use.

`none` starts a command as it is. `process` gives it limits and, on Linux with bubblewrap, a sandbox in which the
tests, the solutions, other submissions and results do not exist. docs/instructors.md says what each protects against.
"""

import errno
import json
import os
import pwd
import secrets
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import psutil

from course import ROOT
from course.base import processes
from serving import Problem

MODES = ("none", "process")
KB, MB, GB = 2**10, 2**20, 2**30

# What `--isolation` says, for every submission of this run of pytest.
mode = "none"


class Limits(NamedTuple):
    """What one program and all that it starts may use."""

    memory: int = 4 * GB
    processes: int = 200
    output: int = 10 * MB  # what it prints
    disk: int = 2 * GB
    cpu: int = 600  # seconds, of one process; of all of them the time limit is the limit
    files: int = 4096  # open at a time, in one process


LIMITS = Limits()


class Folders(NamedTuple):
    """What a program may read and write, beside what every program needs."""

    read: set[Path]
    write: set[Path]


# ------------------------------------------------------------------------------ what can be had here


class Means(NamedTuple):
    """How `process` isolates on this machine."""

    kind: str  # "bwrap", "user" or "limits"
    sentence: str


@cache
def means() -> Means:
    """The strongest isolation that works here, found by trying it."""
    limits = "limits alone: student code can read every file that you can, tests and solutions among them"
    if sys.platform != "linux":
        return Means("limits", f"{limits}. There is no bubblewrap for this system.")
    if not shutil.which("bwrap"):
        why = "bubblewrap is missing (Debian, Ubuntu: apt-get install bubblewrap)"
    else:
        with tempfile.TemporaryDirectory() as folder:
            own = _own_folders(Path(folder))
            command = _in_bubblewrap(
                [sys.executable, "-I", "-c", "import json"], Path(folder), own, Folders(set(), set())
            )
            tried = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if tried.returncode == 0:
            return Means("bwrap", "bubblewrap: tests, solutions and other submissions do not exist for student code.")
        why = f"bubblewrap does not work here ({tried.stderr.strip()[-200:]})"
    if os.geteuid() == 0:
        return Means("user", f"{why}, so student code runs as another user: it can read what every user can.")
    return Means("limits", f"{why}, so there are {limits}.")


def without_network(command: list[str]) -> list[str]:
    """The same command where there is no network but loopback, all that it starts included.

    For pytest itself, as the tests talk to students' servers over loopback. Unchanged where that cannot be had.
    """
    if means().kind != "bwrap":
        return command
    keep = ["--cap-add", "ALL"] if os.geteuid() == 0 else []
    return [_bwrap(), "--die-with-parent", "--dev-bind", "/", "/", "--unshare-net", *keep, "--", *command]


# ------------------------------------------------------------------------------ running


@contextmanager
def running(
    command: list[str], *, cwd: Path, env: dict[str, str], log: Path, folders: Folders, limits: Limits = LIMITS
) -> Iterator[subprocess.Popen]:
    """As processes.running(), isolated as `mode` says; process.exceeded says which limit was exceeded, if any."""
    if mode == "none":
        with processes.running(command, cwd=cwd, env=env, log=log) as process:
            yield process
        return
    with _removed(Path(tempfile.mkdtemp(prefix="sandbox-"))) as folder:
        own = _own_folders(folder)
        env = {**env, "HOME": str(own.home), "USER": "student", "LOGNAME": "student"}
        if means().kind != "bwrap":
            env["TMPDIR"] = str(own.tmp)
        everything = [own.home, own.tmp, own.project, *folders.write]
        _hand_over(everything, folders.read)

        def launch(command: list[str], **options: Any) -> "Confined":
            return Confined(command, own, folders, limits, **options)

        with processes.running(command, cwd=cwd, env=env, log=log, launch=launch) as process:
            watch = threading.Thread(target=process.watch, args=(log, everything, limits), daemon=True)
            watch.start()
            try:
                yield process
            finally:
                process.over.set()
                watch.join()
        defuse(folders.write)


class Confined:
    """A program in its sandbox, or under its limits; to be used as a Popen is."""

    _running: ClassVar[set["Confined"]] = set()  # those without a sandbox

    def __init__(self, command: list[str], own: "Own", folders: Folders, limits: Limits, **options: Any) -> None:
        """Start it; options are Popen's."""
        self.args = command
        self.returncode: int | None = None
        self.exceeded = ""
        self.over = threading.Event()
        self._said = b""
        kind = means().kind
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_CPU": limits.cpu,
            # One file alone never fills the disk: which of the two limits is named does not depend on who is faster.
            "RLIMIT_FSIZE": limits.disk - limits.disk // 16,
            "RLIMIT_NOFILE": limits.files,
        }
        if not list(Path("/dev").glob("nvidia*")):  # CUDA maps far more than it uses
            # Of one process at once; the watch, which adds up all of them, may be a moment late.
            rlimits["RLIMIT_DATA"] = limits.memory + 64 * MB * (os.cpu_count() or 1)
        if kind == "user" or (kind == "bwrap" and _counts_by_namespace()):
            rlimits["RLIMIT_NPROC"] = limits.processes + 100 * (os.cpu_count() or 1)  # threads count, too
        self._status = status = None
        if kind == "bwrap":
            ours, status = os.pipe()
            self._status = open(ours, "rb", buffering=0)  # noqa: SIM115, close() closes it
        spec = {"rlimits": rlimits, "user": student() if kind != "limits" else None, "status": status}
        # The sandbox's own processes are not among those that the program has left.
        spec["mark"], outer = options["env"][processes.MARK], os.environ.get(processes.MARK, "")
        options["env"] = {**options["env"], processes.MARK: outer}
        command = [
            sys.executable,
            "-I",
            "-S",
            str(ROOT / "course" / "isolation" / "confine.py"),
            json.dumps(spec),
            *command,
        ]
        if kind != "bwrap":
            self._popen = subprocess.Popen(command, **options)
            self.pid = self._popen.pid
            self._running.add(self)
            return
        command = _in_bubblewrap(command, options["cwd"], own, folders)
        self._popen = subprocess.Popen(command, pass_fds=[status], **options)
        os.close(status)
        try:
            while b"started" not in self._said:
                if not self._listen(60):  # a tenth of a second, but on a machine that does much else
                    raise TimeoutError
            self._first = psutil.Process(self._popen.pid).children()[0]
            self.pid = min(self._first.children(), key=psutil.Process.create_time, default=self._first).pid
        except (TimeoutError, IndexError, psutil.Error) as error:  # the first process stays until we end it
            self._popen.kill()
            self._popen.wait()
            self._status.close()
            raise processes.GraderFailure(
                f"bubblewrap did not start the sandbox; see its log. The command: {command}"
            ) from error

    def _listen(self, timeout: float) -> bool:
        """Take in what confine.py has to say; False where nothing more will come, or nothing came."""
        if not select.select([self._status], [], [], timeout)[0]:
            return False
        heard = self._status.read(1000)
        self._said += heard
        return bool(heard)

    def poll(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As Popen's."""
        if self._status is None:
            self.returncode = self._popen.wait(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if b"ended" in self._said and self._said.endswith(b"\n"):
                self.returncode = int(self._said.split()[-1])
            elif not self._listen(60 if deadline is None else max(0, deadline - time.monotonic())):
                if self._popen.poll() is not None:
                    self.returncode = -signal.SIGKILL  # the sandbox as a whole was ended
                elif deadline is not None and time.monotonic() >= deadline:
                    raise subprocess.TimeoutExpired(self.args, timeout)
                else:
                    time.sleep(0.02)  # its end of the pipe is closed, and it is about to end
        return self.returncode

    def send_signal(self, number: int) -> None:
        """To the program itself."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def tear_down(self) -> None:
        """End the sandbox: with its first process, the kernel ends all others."""
        if self._status is not None:
            with suppress(psutil.NoSuchProcess):
                self._first.kill()
            self._popen.wait()
            return
        for process in [*self._tree(), self._popen]:
            with suppress(psutil.Error, ProcessLookupError):
                process.kill()
        _end_all_of_student()

    def close(self) -> None:
        """End the sandbox, and forget it. Without one, nothing of the student's may be left after his last program."""
        if self._status is None:
            self._running.discard(self)
            if not self._running:
                _end_all_of_student()
        elif not self._status.closed:
            self.tear_down()
            self.wait()
            self._status.close()

    def _tree(self) -> list[psutil.Process]:
        """It, and what it started."""
        with suppress(psutil.Error):
            top = self._first if self._status is not None else psutil.Process(self.pid)
            below = top.children(recursive=True)
            return below if self._status is not None else [top, *below]
        return []

    def watch(self, log: Path, folders: list[Path], limits: Limits) -> None:
        """End it as soon as it exceeds a limit; a last look tells what it did in the moment before it ended."""
        for turn in count():
            over = self.over.wait(0.2)
            excess = _excess(self._tree(), log, folders if over or turn % 5 == 0 else [], limits)
            if excess:
                self.exceeded = excess
                self.tear_down()
                if log.stat().st_size > limits.output:
                    os.truncate(log, limits.output)
                if "disk" in excess:
                    for folder in folders:
                        _empty(folder)
            if excess or over:
                return


def _excess(tree: list[psutil.Process], log: Path, folders: list[Path], limits: Limits) -> str:
    """Which limit a program exceeds, as the end of a sentence."""
    if log.stat().st_size > limits.output:
        return f"it printed more than {limits.output // MB} MB"
    if len(tree) > limits.processes:
        return f"it started more than {limits.processes} processes"
    if sum(_memory(process, "rss") for process in tree) > limits.memory and (
        sum(_memory(process, "pss") for process in tree) > limits.memory
    ):
        return f"it used more than {limits.memory / GB:g} GB of memory"
    if sum(_size(folder, limits.disk) for folder in folders) > limits.disk:
        return f"it wrote more than {limits.disk / GB:g} GB to the disk"
    return ""


def _memory(process: psutil.Process, kind: str) -> int:
    """Rss counts what processes share for each of them; pss, which takes longer to find out, once.

    Pss is Linux's, and of a process that forbids it nobody but root is told: then it is rss.
    """
    with suppress(psutil.Error, AttributeError):
        return process.memory_info().rss if kind == "rss" else process.memory_full_info().pss
    return 0 if kind == "rss" else _memory(process, "rss")


def _size(folder: Path, enough: int) -> int:
    """The bytes that a folder takes on the disk. It stops counting at enough of them.

    20,000 files are too many, and so is what cannot be counted: folders closed to us, or hundreds in each other.
    """
    total = files = 0
    try:
        for place, _, names in os.walk(folder, onerror=_raise_if_closed):
            for name in names:
                try:
                    total += os.lstat(os.path.join(place, name)).st_blocks * 512
                except OSError as error:
                    _raise_if_closed(error)
            files += len(names) + 1
            if files > 20_000 or total > enough:
                return max(total, enough + 1)
    except (OSError, RecursionError):
        return enough + 1
    return total


def _raise_if_closed(error: OSError) -> None:
    """Or too deep; most often something has just been removed."""
    if isinstance(error, PermissionError) or error.errno == errno.ENAMETOOLONG:
        raise error


def _empty(folder: Path) -> None:
    _open(folder)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            remove(entry)
        else:
            entry.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, if it is there; no links are followed.

    Student code may have closed folders in there (under bubblewrap what it writes belongs to the grader's own user),
    and it may have put more of them into each other than Python can follow.
    """
    _open(folder)
    subprocess.run(["rm", "-rf", "--", str(folder)], capture_output=True, check=False)


def _open(folder: Path) -> None:
    """Let its owner into a folder and all that is in it."""
    subprocess.run(["chmod", "-R", "u+rwX", "--", str(folder)], capture_output=True, check=False)


@contextmanager
def _removed(folder: Path) -> Iterator[Path]:
    """A folder that is removed at the end."""
    try:
        yield folder
    finally:
        remove(folder)


# ------------------------------------------------------------------------------ the sandbox


class Own(NamedTuple):
    """The folders of one program alone."""

    home: Path
    tmp: Path
    project: Path  # stands for the project's root, which it may thus write to, and which vanishes with it


def _own_folders(folder: Path) -> Own:
    folder.chmod(0o755)
    own = Own(folder / "home", folder / "tmp", folder / "project")
    for one in own:
        one.mkdir()
    return own


def _bwrap() -> str:
    """Where it is: the program's own PATH, which Popen would look in, may be another."""
    return shutil.which("bwrap") or "bwrap"


@cache
def student() -> int | None:
    """The user that student code runs as where we are root: nobody in particular, and nobody else's.

    By chance, not by our process's number, which in each container is the same: the kernel counts a user's processes
    in all containers together.
    """
    if os.geteuid() != 0:
        return None
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    # The odd number behind it is for _end_all_of_student().
    return secrets.choice([number for number in range(40_000, 60_000, 2) if not {number, number + 1} & taken])


def _end_all_of_student() -> None:
    """Where he is another user: end all that he runs at once, for one by one they may multiply faster.

    Who ends them takes on the student as effective user, which gives rights over his processes, and as real user one
    whom nobody else is, over whom the student has none.
    """
    if student() is not None and means().kind == "user":
        code = "import os, signal, sys; os.setresuid(*map(int, sys.argv[1:])); os.kill(-1, signal.SIGKILL)"
        command = [sys.executable, "-I", "-S", "-c", code, str(student() + 1), str(student()), "0"]
        subprocess.run(command, capture_output=True, check=False, timeout=60)


def _counts_by_namespace() -> bool:
    """Whether RLIMIT_NPROC counts the sandbox's processes alone: Linux from 5.14 on, or a user of its own."""
    version = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    return os.geteuid() == 0 or version >= (5, 14)


def _hand_over(write: Iterable[Path], read: Iterable[Path]) -> None:
    """Let the student write and read folders, where we are root and he is another user."""
    user = student()
    if user is None or means().kind == "limits":
        return
    for path in write:
        for one in _all_of(path):
            os.chown(one, user, user, follow_symlinks=False)
    for path in read:
        if path.is_relative_to(tempfile.gettempdir()):  # pytest's temporary folders are for their owner alone
            for one in _all_of(path):
                if not one.is_symlink():
                    mode = one.stat().st_mode
                    one.chmod(mode | (0o055 if mode & 0o100 else 0o044))  # 0o100: a program, or a folder
            if path.is_file() and not path.is_symlink() and path.stat().st_uid == user:
                # It stays as it is, though he may write to its folder: in there, files are their owners' alone.
                os.chown(path, 0, 0)
                os.chown(path.parent, 0, user)
                path.parent.chmod(0o1775)
    if means().kind == "user":  # he has to pass through the folders above, which the sandbox makes anew
        for above in {parent for path in [*write, *read] for parent in path.parents}:
            if above.is_relative_to(tempfile.gettempdir()) and above != Path(tempfile.gettempdir()):
                above.chmod(above.stat().st_mode | 0o011)


def _all_of(path: Path) -> Iterator[Path]:
    yield path
    for place, below, names in os.walk(path):
        yield from (Path(place, name) for name in [*below, *names])


def _in_bubblewrap(command: list[str], cwd: Path, own: Own, folders: Folders) -> list[str]:
    """The command in a file system of its own, in which nothing is that it does not need."""
    bwrap = [_bwrap(), "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--as-pid-1"]
    if os.geteuid() == 0:
        for capability in ("CAP_SETUID", "CAP_SETGID"):  # for confine.py, which gives them up with them
            bwrap += ["--cap-add", capability]
    for folder in TOPS:
        if folder.is_symlink():
            bwrap += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.exists():
            bwrap += ["--ro-bind", str(folder), str(folder)]
    bwrap += ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--size", str(256 * MB), "--tmpfs", "/dev/shm"]
    for device in Path("/dev").glob("nvidia*"):
        bwrap += ["--dev-bind-try", str(device), str(device)]

    binds = {Path("/tmp"): ("--bind", own.tmp), own.home: ("--bind", own.home), ROOT: ("--bind", own.project)}
    for path in {*(path for path in (*SYSTEM, *lent()) if path.exists()), *folders.read}:
        binds[path] = ("--ro-bind", path)
    for path in folders.write:
        binds[path] = ("--bind", path)
    for path, (how, source) in sorted(binds.items(), key=lambda bind: len(bind[0].parts)):
        if path.is_relative_to("/usr"):
            continue
        for parent in reversed(path.parents[:-1]):
            bwrap += ["--perms", "0755", "--dir", str(parent)]  # bubblewrap's own would be for their owner alone
        bwrap += [how, str(source), str(path)]
    return [*bwrap, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(cwd), "--", *command]


TOPS = [Path("/usr"), Path("/bin"), Path("/sbin"), Path("/lib"), Path("/lib64")]
# What programs look for: names, fonts, certificates, and how many cores there are. Nothing that is a secret.
SYSTEM = [
    *(
        Path("/etc") / name
        for name in ["alternatives", "fonts", "group", "hosts", "host.conf", "ld.so.cache", "localtime"]
    ),
    *(Path("/etc") / name for name in ["mime.types", "nsswitch.conf", "passwd", "protocols", "services", "ssl"]),
    Path("/sys/devices/system"),
    Path("/sys/fs/cgroup"),
]


def lent() -> set[Path]:
    """What of the project student code may see, and the Python that it runs on; /usr has its own way in."""
    ours = {ROOT / name for name in ("serving", "course", "data", "models", "course.toml")}
    python = {Path(sys.base_prefix), Path(sys.prefix), Path(sys.prefix).resolve()}
    return {path for path in ours | python if not path.is_relative_to("/usr")}


# ------------------------------------------------------------------------------ files of students


def defuse(folders: Iterable[Path]) -> None:
    """Remove from folders what must not be opened: links that lead out of them, pipes, sockets, devices.

    A link to the solutions would let the grader read for the student what he cannot; a pipe would stop it for ever.
    """
    for folder in folders:
        inside = folder.resolve()
        _open(folder)  # one closed to us would hide them, and could still lead to them
        for place, below, names in os.walk(folder):
            for name in [*below, *names]:
                path = Path(place, name)
                if path.is_symlink():
                    harmless = path.resolve().is_relative_to(inside)
                else:
                    harmless = stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR)
                if not harmless:
                    path.unlink()


def copy_submission(folder: Path, into: Path, most: int = 50 * MB, files: int = 2000) -> list[str]:
    """Copy a submission's files to a new folder, and say in sentences what was left out.

    Links are not followed: nothing comes from outside of the folder. Hidden files, environments and caches are no
    part of an answer.

    Raises:
        Problem: there is no such folder, or there is too much in it.
    """
    if not folder.is_dir():
        raise Problem(f"There is no folder {folder}.")
    left_out, size, count = [], 0, 0
    into.mkdir(parents=True)
    into.chmod(0o755)
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not (name.startswith(".") or name in NO_ANSWER))
        target = into / Path(place).relative_to(folder)
        for name in list(below):
            if Path(place, name).is_symlink():
                below.remove(name)
                left_out.append(f"{Path(place, name).relative_to(folder)} is a link, and was left out.")
            else:
                (target / name).mkdir(mode=0o755)
        for name in sorted(names):
            path = Path(place, name)
            if name.startswith("."):
                continue
            kind = stat.S_IFMT(path.lstat().st_mode)
            if kind != stat.S_IFREG:
                what = "a link" if kind == stat.S_IFLNK else "no regular file"
                left_out.append(f"{path.relative_to(folder)} is {what}, and was left out.")
                continue
            size, count = size + path.stat().st_size, count + 1
            if size > most or count > files:
                raise Problem(
                    f"{folder} holds more than {most // MB} MB or {files} files; submissions are source files."
                )
            shutil.copyfile(path, target / name, follow_symlinks=False)
            (target / name).chmod(0o644)
    return left_out


NO_ANSWER = {"__pycache__", "__MACOSX", "node_modules", "venv", "site", "reports"}
