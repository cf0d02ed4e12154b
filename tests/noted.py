"""What the processes of a service do with ONNX Runtime: order and counts without a stopwatch."""

import time
from pathlib import Path

from under_load import Alone

from course import ROOT
from course.harness.server import Server
from course.harness.verdicts import expect, fail

# Python imports a module of this name at its start.
SITECUSTOMIZE = """
import os, sys, time
from pathlib import Path

import onnxruntime

NOTES = Path(os.environ["NOTES"])

def noted(what, original):
    def method(session, *arguments, **options):
        if what == "load" or (NOTES / "note-runs").exists():
            threads = session.get_session_options().intra_op_num_threads if what == "run" else 0
            service = sys.argv[sys.argv.index("--service-name") + 1] if "--service-name" in sys.argv else "app"
            (NOTES / f"{what}.{service}.{threads}.{time.monotonic_ns()}").touch()
            while (NOTES / f"hold-{what}").exists():
                time.sleep(0.02)
        return original(session, *arguments, **options)
    return method

onnxruntime.InferenceSession.__init__ = noted("load", onnxruntime.InferenceSession.__init__)
onnxruntime.InferenceSession.run = noted("run", onnxruntime.InferenceSession.run)
"""


class Notes:
    """Where they note each session that they load, and each run of one between note_runs() and the end."""

    def __init__(self, folder: Path, models_dir: Path) -> None:
        self.folder = folder
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        self.env = {"MODELS_DIR": str(models_dir), "PYTHONPATH": f"{folder}:{ROOT}", "NOTES": str(folder)}

    def threads(self, what: str, service: str = "app") -> list[int]:
        """For each time that a service did that, `load` or `run`: the session's number of threads (run alone)."""
        return [int(note.name.split(".")[2]) for note in self.folder.glob(f"{what}.{service}.*")]

    def note_runs(self) -> None:
        """From now on: before that, sessions are tried."""
        (self.folder / "note-runs").touch()

    def hold(self, what: str) -> None:
        """Hold back each worker that begins to do that, until go_on()."""
        (self.folder / f"hold-{what}").touch()

    def go_on(self, what: str) -> None:
        (self.folder / f"hold-{what}").unlink()

    def wait_until_held(self, server: Server, what: str, times: int = 1) -> None:
        give_up = time.monotonic() + 60
        while len(self.threads(what)) < times:
            if server.process.poll() is not None:
                fail(f"The service ended (exit code {server.process.returncode}).{server.last_words()}")
            if time.monotonic() > give_up:
                fail(f"After 60 s there was no {what} of the model: is it with ONNX Runtime?{server.last_words()}")
            time.sleep(0.05)


def assert_opens_its_model_once(server: Server, notes: Notes, service: str, threads: int | None = None) -> None:
    """Requests run the session that the service opened when it started; threads: with so many threads."""
    before = len(notes.threads("load", service))
    notes.note_runs()
    Alone(server)
    opened, ran = len(notes.threads("load", service)) - before, notes.threads("run", service)
    expect(
        opened == 0 and ran and (threads is None or set(ran) == {threads}),
        called=f"POST /classify with cat.png and coffee.png, answered by {service}",
        got=f"it opened its model {opened} more times, and ran it {len(ran)} times with {set(ran)} threads (0: all cores)",
        expected=f"none opened, two runs{f' with {threads} thread each' if threads else ''}",
        hint=f"open_model({f'threads={threads}' if threads else ''}) in __init__: once for each worker, not for each request",
    )
