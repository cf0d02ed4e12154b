"""A copy of the course in which a student may do anything, and the commands typed there."""

import shutil
import subprocess
from pathlib import Path

from commands import ENVIRONMENT, make

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

    def __init__(self, folder: Path, **env: str) -> None:
        """env: variables that its commands get as well."""
        self.folder = folder
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy2(ROOT / name, folder / name)  # with its time: make must not think of a new setup
        (folder / ".venv").symlink_to(ROOT / ".venv")
        (folder / ".pytest_cache").symlink_to(ROOT / ".pytest_cache")
        (folder / "models").mkdir()
        self.env = ENVIRONMENT | {"PYTHONPATH": str(folder)} | env

    def make(self, *words: str) -> subprocess.CompletedProcess:
        """`make ...`, its output in a pipe."""
        return make(*words, cwd=self.folder, **self.env)

    def file(self, name: str) -> Path:
        """One of the files that a student fills in."""
        return self.folder / "exercises" / name

    def solve(self, name: str) -> None:
        """Write the solution as a student's file."""
        shutil.copy(self.folder / "solutions" / name, self.file(name))
