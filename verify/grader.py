"""make grade as an instructor types it: what is handed in, the command, and what it writes."""

import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from commands import COURSE, run
from pydantic import BaseModel, ConfigDict, Field

from course import ROOT

FILE = "ex07_providers.py"
SOLUTION = (ROOT / "solutions" / FILE).read_text()
HOSTILE = ROOT / "verify" / "hostile"
BROKEN = "def providers(:\n"  # the cheapest answer: its own tests fail in a second each


def hand_in(folder: Path, text: str = BROKEN, file: str = FILE, **modules: str) -> Path:
    """Write a submission of one file, and of more modules."""
    for name, content in {file: text, **{f"{name}.py": content for name, content in modules.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def grade(*arguments: object, ex: str = "07", code: int = 0, wrapped: Iterable[str] = (), **env: str) -> str:
    """Run the command, perhaps inside another one; what it printed."""
    done = run(*wrapped, *COURSE, "grade", "--ex", ex, *arguments, timeout=280, **env)
    assert done.returncode == code, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def path_with(folder: Path, *programs: str) -> str:
    """A PATH on which nothing else is."""
    folder.mkdir()
    for name in ("rm", "chmod", *programs):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def result(output: Path, slug: str, number: str = "07") -> dict:
    """The result of one exercise, as the next run reads it."""
    return json.loads((output / slug / "exercises" / f"{number}.json").read_text())


# What reach() of hostile/functions.py finds in bubblewrap: nothing that is not its own.
REACH = {name: [] for name in ("seen", "missing", "writable", "written", "others")}
REACH |= {"powers": "", "mounts": False, "root": False, "may gain powers": False}


def paths_json(folder: Path, hidden: list[Path], shown: list[Path]) -> None:
    """Say in a hostile submission where reach() looks: in a file, since a path among arguments would be shown to it."""
    names = [
        "tests",
        "solutions",
        "locustfiles",
        "exercises",
        "reports",
        "docs",
        "verify",
        ".git",
        "README.md",
        "Makefile",
    ]
    hidden = [
        *hidden,
        *(ROOT / name for name in names),
        *map(Path, ("/var", "/run", "/srv", "/etc/shadow", "/etc/ssh")),
    ]
    shown = [*shown, ROOT / "course", *map(Path, (sys.prefix, "/", "/usr/bin", "/etc", "/dev"))]
    (folder / "paths.json").write_text(json.dumps([list(map(str, hidden)), list(map(str, shown))]))


Format = Literal["text", "html", "simple_format", "md", "ansi"]
Visibility = Literal["hidden", "after_due_date", "after_published", "visible"]


class GradescopeTest(BaseModel):
    """An entry of `tests`, as https://gradescope-autograders.readthedocs.io/en/latest/specs/ has it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    score: float | None = None
    max_score: float | None = None
    status: Literal["passed", "failed"] | None = None
    name: str | None = None
    name_format: Format = "text"
    number: str | None = None
    output: str | None = None
    output_format: Format = "text"
    tags: list[str] = []
    visibility: Visibility = "visible"
    extra_data: dict[str, Any] = {}


class Gradescope(BaseModel):
    """results.json, as the same page has it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    score: float | None = None
    execution_time: int | None = None
    output: str | None = None
    output_format: Format = "simple_format"
    test_output_format: Format = "text"
    test_name_format: Format = "text"
    visibility: Visibility = "visible"
    stdout_visibility: Visibility = "hidden"
    extra_data: dict[str, Any] = {}
    tests: list[GradescopeTest] = Field(min_length=1)
    leaderboard: list[dict] = []
