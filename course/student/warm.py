"""Calls of a student's functions that pay for the imports once: `make check`, on the student's own machine.

python -m course.student.warm SOLUTION imports what the solution imports, then forks for each call: the child is as
fresh as a new interpreter, but has NumPy or PyTorch already. It looks only at the solution, so nothing that a student
wrote ever runs in the process that forks. Grading starts a new interpreter for each call instead.
"""

import ast
import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import sys
import uuid
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from course import ROOT
from course.base import manifest
from course.base.processes import MARK, end, end_marked, start
from course.harness import worker
from course.harness.submission import Finished, Submission
from course.harness.verdicts import fail

# What a process can import and then fork. Not ONNX Runtime: its import starts a thread, which a child does not have
# but would wait for at its end.
FORKABLE = {"lightning", "matplotlib", "numpy", "onnx", "PIL", "rich", "sklearn", "skl2onnx", "torch"}
FORKABLE |= {"torchvision", "typer"}


class WarmSubmission(Submission):
    """A submission whose functions are called in children of a process that has the imports, one a file."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._warm: dict[str, Popen] = {}

    def close(self) -> None:
        """End the processes that fork, and what they started."""
        for process in self._warm.values():
            end(process, patience=1)

    def _finish(self, command: list[str], env: dict[str, str], timeout: float, name: str, *others: Any) -> Finished:
        """As a submission does; a call of a function goes to a child of the file's warm process, if it has one."""
        if command[1:3] == ["-m", "course.harness.worker"]:
            folder = Path(command[3])
            file = json.loads((folder / "call.json").read_text())["file"]
            with contextlib.suppress(OSError, ValueError):  # it ended, or never began
                return self._fork(self._process(file), folder, timeout, name)
        return super()._finish(command, env, timeout, name, *others)

    def _process(self, file: str) -> Popen:
        if file not in self._warm:
            solved = manifest.solution(str(Path(file).relative_to(self.folder)))
            command = [sys.executable, "-m", "course.student.warm", str(solved)]
            pipes = {"stdin": PIPE, "stdout": PIPE, "stderr": DEVNULL, "bufsize": 0}
            self._warm[file] = start(command, cwd=ROOT, env=self.environment(None), **pipes)
        return self._warm[file]

    def _fork(self, process: Popen, folder: Path, timeout: float, name: str) -> Finished:
        log, mark = self.new_folder("run") / "log", uuid.uuid4().hex
        process.stdin.write(json.dumps({"folder": str(folder), "log": str(log), "mark": mark}).encode() + b"\n")
        child = int(process.stdout.readline())
        try:
            if not select.select([process.stdout], [], [], timeout)[0]:
                _kill(child, mark)
                process.stdout.readline()
                fail(f"{name} had not ended after {timeout:.0f} s. Is there an endless loop?")
            return Finished(int(process.stdout.readline()), log.read_text(errors="replace"))
        finally:
            _kill(child, mark)


def _kill(child: int, mark: str) -> None:
    """Kill a call's process group, and whatever it started that left the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    end_marked(mark)


def import_what_is_imported(file: Path) -> None:
    """Import the modules that a file imports at its top, if they can be forked."""
    for node in ast.parse(file.read_bytes()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in [node.module or ""] if isinstance(node, ast.ImportFrom) else names:
            if name.partition(".")[0] in FORKABLE:
                with contextlib.suppress(Exception):  # the student's own import will say so
                    importlib.import_module(name)
    if "onnxruntime" in sys.modules:
        sys.exit("onnxruntime was imported by another library")  # then every call has an interpreter of its own


def main(solution: Path) -> None:
    """Fork for each line of standard input; print the child's number, and how it ended."""
    end_with_parent()
    import_what_is_imported(solution)
    while line := sys.stdin.buffer.readline():
        call = json.loads(line)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            become_worker(call)
            worker.main(Path(call["folder"]))
            sys.stdout.flush()
            os._exit(0)  # the result is written; to take apart all that was imported takes longer than most calls
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def end_with_parent() -> None:
    """Have the kernel end this process with its parent: a `make check` that was killed leaves no endless loop."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG, see prctl(2)
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def become_worker(call: dict) -> None:
    """Make a forked child what `python -m course.harness.worker FOLDER` would be."""
    end_with_parent()
    os.setsid()
    log = os.open(call["log"], os.O_WRONLY | os.O_CREAT)
    for number, source in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(source, number)
    os.environ[MARK] += f" {call['mark']}"
    sys.argv = ["course.harness.worker", call["folder"]]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
