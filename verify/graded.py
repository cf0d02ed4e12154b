"""Grades one exercise of one folder as anybody would, with pytest in a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from course import ROOT
from course.manifest import Exercise


@dataclass(frozen=True)
class Graded:
    """What came of it."""

    failed: dict[str, str]  # by test: the message
    passed: set[str]
    skipped: set[str]
    output: str


def grade(exercise: Exercise, folder: Path, scratch: Path, *, only: list[str] = (), timeout: float = 200) -> Graded:
    """Hold a folder against the tests of one exercise, or against some of them."""
    report = scratch / "report.xml"
    tests = [f"{exercise.test}::{test}" for test in only] or [exercise.test]
    command = [sys.executable, "-m", "pytest", "--submission", folder, *tests, f"--junit-xml={report}", "-q"]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if not report.is_file():
        raise RuntimeError(f"pytest wrote no report: {run.stdout[-2000:]}{run.stderr[-2000:]}")
    failed, passed, skipped = {}, set(), set()
    for test in ElementTree.parse(report).iter("testcase"):
        wrong = [one.text or "" for one in test if one.tag in ("failure", "error")]
        if wrong:
            failed[test.get("name")] = wrong[0]
        elif any(one.tag == "skipped" for one in test):
            skipped.add(test.get("name"))
        else:
            passed.add(test.get("name"))
    return Graded(failed, passed, skipped, run.stdout)
