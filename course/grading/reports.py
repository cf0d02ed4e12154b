"""The reports: a folder for each submission, a page and a table for the class."""

import csv
import io
import os
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from course import ROOT
from course.base.files import write_whole
from course.grading.gradescope import as_gradescope
from course.grading.results import SubmissionResult, TestResult, one_line, points

# The parts of a message that expect() of course/harness/verdicts.py writes, each at the beginning of a line.
PARTS = re.compile(r"^(called|got|expected|try) {2,}", re.MULTILINE)


def write_submission(result: SubmissionResult, output: Path) -> None:
    """All reports of one submission. Only result.json, for_teacher.html and gradescope.json tell of private tests."""
    folder = output / result.slug
    write_whole(folder / "result.json", result.model_dump_json(indent=2))
    write_whole(folder / "gradescope.json", as_gradescope(result))
    write_whole(folder / "junit.xml", _page("junit.xml", result=result))
    write_whole(folder / "summary.md", _page("summary.md", result=result))
    write_whole(folder / "report.html", _page("grade_report.html", result=result, private=False))
    if any(test.private for exercise in result.exercises for test in exercise.tests):
        write_whole(folder / "for_teacher.html", _page("grade_report.html", result=result, private=True))
    else:
        (folder / "for_teacher.html").unlink(missing_ok=True)


def write_class(results: list[SubmissionResult], output: Path) -> None:
    """The page and the table of all, for the teacher, and what GitHub's runner shows."""
    page = _page("grade_class.html", results=results, columns=results[0].exercises, hardest=hardest(results))
    write_whole(output / "index.html", page)
    write_whole(output / "class.csv", as_csv(results))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.writelines(_page("summary.md", result=result) for result in results)


def as_csv(results: list[SubmissionResult]) -> str:
    """A line for each submission, a column for each exercise; a spreadsheet takes no cell for a formula."""
    text = io.StringIO()
    table = csv.writer(text)
    numbers = [f"exercise {exercise.number}" for exercise in results[0].exercises]
    table.writerow(["submission", "points", "of", "open", "state", "isolation", *numbers])
    for result in results:
        suspicious = any(exercise.suspicious for exercise in result.exercises)
        state = "final" if result.final else "suspicious" if suspicious else "run again"
        row = [_cell(result.name), f"{result.reached:g}", f"{result.worth:g}", f"{result.open:g}", state]
        reached = ["" if exercise.problem else f"{exercise.reached:g}" for exercise in result.exercises]
        table.writerow([*row, result.isolation, *reached])
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet computes: they look past spaces, and at more than the equals sign."""
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "|", "%")) else text


def hardest(results: list[SubmissionResult], most: int = 8) -> list[tuple[str, TestResult, int, int]]:
    """The tests that cost the class most points: exercise, test, how many failed, of how many."""
    found = [(exercise.number, test) for result in results for exercise in result.exercises for test in exercise.tests]
    rows = []
    for _, cases in groupby(sorted(found, key=lambda case: case[1].id), key=lambda case: case[1].id):
        outcomes = list(cases)
        failed = sum(test.outcome == "failed" for _, test in outcomes)
        rows += [(*outcomes[0], failed, len(outcomes))] if failed else []
    return sorted(rows, key=lambda row: (-row[2] * row[1].points, row[0], row[1].id))[:most]


def parts(message: str) -> list[tuple[str, str]]:
    """A message as (label, text): `called`, `got`, `expected`, `try`; without labels, it is one text."""
    pieces = PARTS.split(message.strip())
    found = list(zip(pieces[1::2], (text.rstrip() for text in pieces[2::2]), strict=True))
    return [("", pieces[0].strip()), *found] if pieces[0].strip() else found


def _page(template: str, **values: Any) -> str:
    """A page, or another text with angle brackets; nothing in the values is markup in there."""
    environment = Environment(
        loader=FileSystemLoader(ROOT / "course" / "grading" / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["points"] = points
    environment.filters |= {"parts": parts, "line": lambda text: one_line(text)[:200]}
    return environment.get_template(template).render(**values)
