"""A copy of the course in which a student may do anything, and the commands typed there."""

import os
import shutil
import subprocess
from pathlib import Path

from course import ROOT

COPIED = ("course", "serving", "exercises", "solutions", "tests", "data", "locustfiles", "dockerfiles", "bentofiles")
FILES = (
    "Makefile",
    "course.toml",
    "pyproject.toml",
    "requirements.txt",
    "requirements-serving.txt",
    "requirements.lock",
)


class Copy:
    """The course in a folder of its own, with the same environment; the models that tests need are shared."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy2(ROOT / name, folder / name)  # with its time: make must not think of a new setup
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / ".pytest_cache").symlink_to(ROOT / ".pytest_cache")
        (folder / "models").mkdir()
        # What a student types is no part of the make and the pytest that run these tests.
        gone = ("COLUMNS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTEST_ADDOPTS", "PYTHON")
        self.env = {name: value for name, value in os.environ.items() if name not in gone}
        self.env["PYTHONPATH"] = str(folder)

    def make(self, *words: str) -> subprocess.CompletedProcess:
        """`make ...`, its output in a pipe."""
        command = ["make", *words]
        return subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120)

    def file(self, name: str) -> Path:
        """One of the files that a student fills in."""
        return self.folder / "exercises" / name

    def solve(self, name: str) -> None:
        """Write the solution as a student's file."""
        shutil.copy(self.folder / "solutions" / name, self.file(name))
