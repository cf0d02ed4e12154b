"""ISOLATION=docker: pytest and the student's programs, for one exercise, in a container of its own.

The container's image is empty: this machine's Python, its packages and its libraries are lent to it, read-only. So
nothing is downloaded, it starts within a second, and the tests run with the very packages that `make grade` has. It
also has the submission, the tests and a folder for the results. In there student code runs in bubblewrap, as it does
without a container: the tests do not exist for it. docs/instructors.md says what the container adds.
"""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from course import ROOT
from course.base import docker
from course.base.files import tail
from course.base.processes import MARK
from course.harness import models_for_tests
from course.isolation.bubblewrap import SYSTEM, TOPS, lent
from course.isolation.limits import GB, LIMITS, MB
from course.isolation.sandbox import need_bubblewrap
from serving import Problem

# bubblewrap makes namespaces and maps users; pytest writes into folders of the grader's user. Student code has none.
CAPABILITIES = ("SYS_ADMIN", "SETFCAP", "DAC_OVERRIDE")
# Docker's own list of system calls forbids bubblewrap to change the root folder; this one forbids what else Docker's
# does. And a /proc with closed parts could not be mounted again in a sandbox.
SECURITY = ("no-new-privileges", "apparmor=unconfined", "systempaths=unconfined")
SYSTEM_CALLS = ROOT / "course" / "grading" / "seccomp.json"
MEMORY = LIMITS.memory + LIMITS.disk + 2 * GB  # the student's programs; files, which are in memory; pytest
ROOM = LIMITS.disk + GB  # for files
THREADS = LIMITS.processes + 300 + 200 * (os.cpu_count() or 1)  # student code is limited in there, to fewer
EMPTY = "course/nothing:empty"
# The first process of a container has to reap those whose parents have died; a shell that waits does.
FIRST = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
INSTEAD = "Grade with ISOLATION=process, or on a Linux machine that has an engine of its own."


def need(work: Path) -> None:
    """Make what containers need, and try one, with a folder that does not exist yet; raises Problem where it fails."""
    docker.need_engine()
    if sys.platform != "linux":
        raise Problem(f"ISOLATION=docker lends this machine's Python to Linux containers: only Linux can. {INSTEAD}")
    need_bubblewrap()
    (work / "results").mkdir(parents=True, mode=0o700)
    came = work / "results" / "came"
    program = "import sys; from course.isolation.sandbox import need; open(sys.argv[1], 'w').close(); need('process')"
    name, command = contained([sys.executable, "-c", program, str(came)], work=work)
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        said = "" if tried.returncode == 0 and came.exists() else f"{tail(tried.stderr, 3)} ({tried.returncode})"
    except subprocess.TimeoutExpired:
        said = "it had not ended after 120 s"
    finally:
        remove(name)
    if said:
        raise Problem(
            "ISOLATION=docker does not work here: it lends this machine's Python to containers, so that the engine must"
            f" run on this very Linux, not in Docker Desktop or elsewhere. {INSTEAD} A container that was tried: {said}"
        )
    models_for_tests.ready()


def contained(
    command: list[str], *, work: Path, cwd: Path = ROOT, read: Iterable[Path] = (), models: Path | None = None
) -> tuple[str, list[str]]:
    """The name of a container, and the command that runs a command in it.

    Every path is the same in there. The marks that our processes carry are the container's labels.

    work: in there a temporary folder, gone with the container; but work/results is the real one.
    read: what else can be seen in there. models: for COURSE_TEST_MODELS.
    """
    name = f"course-grade-{uuid.uuid4().hex[:12]}"
    run = ["docker", "run", "--rm", "--interactive", "--pull", "never", "--log-driver", "none", "--name", name]
    run += [f"--label={mark}" for mark in os.environ.get(MARK, "").split()]
    run += ["--network", "none", "--read-only", "--cap-drop", "ALL"]
    run += [f"--cap-add={capability}" for capability in CAPABILITIES]
    run += [f"--security-opt={option}" for option in (*SECURITY, f"seccomp={SYSTEM_CALLS}")]
    run += ["--memory", str(MEMORY), "--memory-swap", str(MEMORY), "--pids-limit", str(THREADS), "--ulimit", "core=0"]
    run += ["--tmpfs", f"/tmp:size={256 * MB},mode=1777"]
    run += ["--tmpfs", f"{work}:exec,size={ROOM},mode=0711", *_mount(work / "results", work / "results", writable=True)]
    for path in {*lent(), ROOT / "pyproject.toml", *SYSTEM, *TOPS, *read, *([models] if models else [])}:
        # Docker has its own /etc/hosts and /sys. Where /bin is a link to /usr/bin, it becomes a folder.
        if path.exists() and path != Path("/etc/hosts") and not path.is_relative_to("/sys"):
            run += _mount(path.resolve() if path in TOPS else path, path)
    variables = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
    variables |= {"HOME": str(work), "TMPDIR": str(work), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # as outside
    if models:
        variables["COURSE_TEST_MODELS"] = str(models)
    run += [f"--env={variable}={value}" for variable, value in variables.items()]
    return name, [*run, "--workdir", str(cwd), _image(), *FIRST, *command]


def _mount(source: Path, target: Path, *, writable: bool = False) -> list[str]:
    """Options that show a file or folder of the machine in a container."""
    words = ["type=bind", f"src={source}", f"dst={target}", *([] if writable else ["readonly"])]
    return ["--mount", ",".join('"' + word.replace('"', '""') + '"' for word in words)]  # read as a line of CSV


def _image() -> str:
    """The name of the empty image, made where it is missing."""
    if not docker.exists(EMPTY):
        made = subprocess.run(["docker", "import", "-", EMPTY], input=bytes(1024), capture_output=True, timeout=60)
        if made.returncode:
            raise Problem(f"`docker import` failed: {made.stderr.decode(errors='replace').strip()}")
    return EMPTY


def remove(*names: str) -> None:
    """End and remove containers, those that are gone already among them."""
    subprocess.run(["docker", "rm", "--force", "--volumes", *names], capture_output=True, timeout=60)


def remove_marked(mark: str) -> None:
    """End and remove what a grader that was killed has left in the engine, if there is one."""
    with suppress(Problem, subprocess.TimeoutExpired):
        if names := docker.docker("ps", "--all", "--quiet", "--filter", f"label={mark}").split():
            remove(*names)
