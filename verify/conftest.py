"""Counts, for the end of the run, the answers that got the points they should, and the attacks that failed."""

from collections import Counter

import pytest
from answer_files import Answer

KINDS = {
    "test_starters.py": "untouched starters that earn nothing",
    "test_hostile.py": "hostile answers that harm nobody else",
}
COUNTS: dict[str, Counter] = {}
FIGURES: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note which count each test belongs to; with pytest-xdist, the reports carry the note to where they are summed."""
    for item in items:
        answer = getattr(item, "callspec", None) and item.callspec.params.get("answer")
        if isinstance(answer, Answer):
            item.user_properties.append(("kind", "right answers accepted" if answer.right else "wrong answers caught"))
        elif kind := KINDS.get(item.path.name):
            item.user_properties.append(("kind", kind))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    properties = dict(report.user_properties)
    kind = properties.get("kind")
    if kind and (report.when == "call" or not report.passed):
        COUNTS.setdefault(kind, Counter())[report.outcome] += 1
    if report.when == "call" and "figure" in properties:
        FIGURES.append(properties["figure"])


def pytest_terminal_summary(terminalreporter) -> None:
    if COUNTS or FIGURES:
        terminalreporter.section("the course")
    for kind, outcomes in sorted(COUNTS.items()):
        skipped = f", {outcomes['skipped']} more skipped" if outcomes["skipped"] else ""
        graded = outcomes.total() - outcomes["skipped"]
        terminalreporter.write_line(f"{kind:40} {outcomes['passed']} of {graded}{skipped}")
    for figure in FIGURES:
        terminalreporter.write_line(figure)
