"""The figures that pages quote: docs/figures.toml, read for the pages and written by `make figures`."""

import json
import tomllib
from datetime import datetime
from functools import cache

from pydantic import BaseModel, ConfigDict

from course import ROOT
from course.base import reports
from serving import Problem

FILE = ROOT / "docs" / "figures.toml"


class Run(BaseModel):
    """One measurement, as docs/figures.toml keeps it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: str  # the command, and how many times
    machine: str
    versions: str
    date: str  # YYYY-MM-DD
    figures: dict[str, str]  # name: the text on the page, with its unit

    def conditions(self) -> str:
        """How, where, with what and when it was measured."""
        return "; ".join(filter(None, (self.how, self.machine, self.versions, self.date)))


def runs() -> dict[str, Run]:
    """All measurements by name, in the order of the file."""
    return {name: Run(**run) for name, run in tomllib.loads(FILE.read_text()).items()}


@cache
def _found() -> dict[str, tuple[str, Run]]:
    return {name: (text, run) for run in runs().values() for name, text in run.figures.items()}


def figure(name: str) -> str:
    """The figure's text; a pointer that rests on it shows how it was measured."""
    if name not in _found():
        raise Problem(f"There is no figure {name} in docs/figures.toml.")
    text, run = _found()[name]
    return f'<span title="{run.conditions()}">{text}</span>'


def measured(name: str) -> str:
    """How a run was measured, to stand beside its figures."""
    if name not in runs():
        raise Problem(f"There is no run {name} in docs/figures.toml.")
    return runs()[name].conditions()


def record(name: str, how: str, versions: str, figures: dict[str, str]) -> None:
    """Write one run into the file, in the place of an earlier one of that name; the other runs stay as they are."""
    today = datetime.now().date().isoformat()
    written = runs() | {name: Run(how=how, machine=reports.here(), versions=versions, date=today, figures=figures)}
    comment = FILE.read_text().partition("[")[0]
    FILE.write_text(comment + "\n".join(_section(name, run) for name, run in written.items()))


def _section(name: str, run: Run) -> str:
    facts = run.model_dump(exclude={"figures"})
    lines = [f"{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in facts.items()]
    lines += [f"figures.{key} = {json.dumps(text, ensure_ascii=False)}" for key, text in run.figures.items()]
    return "\n".join([f"[{name}]", *lines, ""])
