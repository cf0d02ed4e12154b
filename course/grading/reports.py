"""The reports: a folder for each submission, a page and a table for the class."""

import csv
import io
import os
import re
from pathlib import Path
from xml.etree import ElementTree

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from course import ROOT
from course.base.files import write_whole
from course.grading import github
from course.grading.gradescope import as_gradescope
from course.grading.results import ExerciseResult, SubmissionResult, TestResult, points

# The parts of a message that expect() of course/harness/verdicts.py writes, each at the beginning of a line.
PARTS = re.compile(r"^(called|got|expected|try) {2,}", re.MULTILINE)


def write_submission(result: SubmissionResult, output: Path) -> None:
    """All reports of one submission. Only result.json, for_teacher.html and gradescope.json tell of private tests."""
    folder = output / result.slug
    write_whole(folder / "result.json", result.model_dump_json(indent=2))
    write_whole(folder / "gradescope.json", as_gradescope(result))
    write_whole(folder / "junit.xml", as_junit(result))
    write_whole(folder / "summary.md", github.as_summary(result))
    write_whole(folder / "classroom.json", github.as_classroom(result))
    write_whole(folder / "report.html", as_page(result, private=False))
    if any(test.private for exercise in result.exercises for test in exercise.tests):
        write_whole(folder / "for_teacher.html", as_page(result, private=True))
    else:
        (folder / "for_teacher.html").unlink(missing_ok=True)


def write_class(results: list[SubmissionResult], output: Path) -> None:
    """The page and the table of all, and what GitHub's runner shows."""
    write_whole(output / "index.html", as_class_page(results))
    write_whole(output / "class.csv", as_csv(results))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.writelines(github.as_summary(result) for result in results)
    if (answer := os.environ.get("GITHUB_OUTPUT")) and len(results) == 1:
        with Path(answer).open("a", encoding="utf-8") as file:
            file.write(f"result={github.encoded(github.as_classroom(results[0]))}\n")


def as_junit(result: SubmissionResult) -> str:
    """JUnit XML, a suite for each exercise. It says only which private tests did not pass, not why."""
    root = ElementTree.Element("testsuites", name=result.name, isolation=result.isolation)
    for exercise in result.exercises:
        tests = exercise.tests or [_stand_in(exercise)]
        counts = {
            "tests": str(len(tests)),
            "failures": str(0 if exercise.problem else sum(test.outcome == "failed" for test in tests)),
            "errors": str(len(tests) if exercise.problem else 0),
            "skipped": str(0 if exercise.problem else sum(test.open for test in tests)),
            "time": f"{exercise.seconds:.3f}",
        }
        suite = ElementTree.SubElement(root, "testsuite", name=f"{exercise.number} {exercise.title}", **counts)
        hidden = 0
        for test in tests:
            hidden += test.private
            name, message = (f"private test {hidden}", "") if test.private else (test.name, test.message)
            case = {"classname": f"exercise.{exercise.number}", "name": name, "time": f"{test.seconds:.3f}"}
            element = ElementTree.SubElement(suite, "testcase", **case)
            if exercise.problem:
                ElementTree.SubElement(element, "error", message=_line(message)).text = message
            elif test.outcome == "failed":
                ElementTree.SubElement(element, "failure", message=_line(message)).text = message
            elif test.open:
                ElementTree.SubElement(element, "skipped", message=_line(message))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def _stand_in(exercise: ExerciseResult) -> TestResult:
    """What stands for the tests of an exercise that could not be run."""
    outcome = "skipped" if exercise.problem else "failed"
    return TestResult(id=f"{exercise.number}::graded", points=exercise.worth, outcome=outcome, message=exercise.told)


def _line(text: str) -> str:
    return " ".join(text.split())[:200]


def as_csv(results: list[SubmissionResult]) -> str:
    """A line for each submission, a column for each exercise; a spreadsheet takes no cell for a formula."""
    numbers = sorted({exercise.number for result in results for exercise in result.exercises})
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(
        ["submission", "points", "of", "open", "state", "isolation", *(f"exercise {number}" for number in numbers)]
    )
    for result in results:
        reached = {
            exercise.number: "" if exercise.problem else f"{exercise.reached:g}" for exercise in result.exercises
        }
        suspicious = any(exercise.suspicious for exercise in result.exercises)
        state = "final" if result.final else "suspicious" if suspicious else "run again"
        row = [_cell(result.name), f"{result.reached:g}", f"{result.worth:g}", f"{result.open:g}", state]
        table.writerow([*row, result.isolation, *(reached[number] for number in numbers)])
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet computes: they look past spaces, and at more than the equals sign."""
    text = " ".join(text.split())
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "|", "%")) else text


def as_page(result: SubmissionResult, *, private: bool) -> str:
    """The page of one submission; private: for the teacher's eyes, with the private tests."""
    return _templates().get_template("grade_report.html").render(result=result, private=private)


def as_class_page(results: list[SubmissionResult]) -> str:
    """The page of the class, for the teacher."""
    numbers = {exercise.number: exercise for result in results for exercise in result.exercises}
    columns = [numbers[number] for number in sorted(numbers)]
    return (
        _templates().get_template("grade_class.html").render(results=results, columns=columns, hardest=hardest(results))
    )


def hardest(results: list[SubmissionResult], most: int = 8) -> list[tuple[str, TestResult, int, int]]:
    """The tests that cost the class most points: exercise, test, how many failed, of how many."""
    found: dict[str, list[tuple[str, TestResult]]] = {}
    for result in results:
        for exercise in result.exercises:
            for test in exercise.tests:
                found.setdefault(test.id, []).append((exercise.number, test))
    counted = []
    for cases in found.values():
        number, test = cases[0]
        failed = sum(one.outcome == "failed" for _, one in cases)
        counted.append((number, test, failed, len(cases)))
    counted = [row for row in counted if row[2]]
    return sorted(counted, key=lambda row: (-row[2] * row[1].points, row[0], row[1].id))[:most]


def parts(message: str) -> list[tuple[str, str]]:
    """A message as (label, text): `called`, `got`, `expected`, `try`; without labels, it is one text."""
    pieces = PARTS.split(message.strip())
    found = list(zip(pieces[1::2], (text.rstrip() for text in pieces[2::2]), strict=True))
    return [("", pieces[0].strip()), *found] if pieces[0].strip() else found


def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "course" / "grading" / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["points"] = points
    environment.filters["parts"] = parts
    return environment
