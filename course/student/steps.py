"""The steps of an exercise: the TODOs in its files, and the one that a failed test is about."""

import ast
import re
from typing import NamedTuple

from course import ROOT
from course.base.manifest import Exercise
from course.student.starters import starter_files
from serving import Problem

# A TODO and the comment lines that continue it.
TODO = re.compile(r"(?<=# )TODO.*(?:\n[ \t]*#(?! TODO).*)*")


class Step(NamedTuple):
    """One TODO."""

    file: str
    line: int
    words: str  # "TODO 2: ask the session for its names."
    function: str  # the function around it; empty outside of functions


def steps(file: str, text: str) -> list[Step]:
    """The TODOs of a file, from top to bottom."""
    found = []
    for match in TODO.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        words = re.sub(r"\s*\n\s*#\s*", " ", match[0])
        found.append(Step(file, line, words, _function_around(line, text) if file.endswith(".py") else ""))
    return found


def left(exercise: Exercise) -> list[Step]:
    """The TODOs that are still in the student's files."""
    folder = ROOT / "exercises"
    return [step for file in exercise.files for step in steps(file, (folder / file).read_text(errors="replace"))]


def step_of(exercise: Exercise, failure: str) -> Step | None:
    """The step that a failure is about: that of the first function it names, or else the first that is left."""
    todo = left(exercise)
    try:  # what the student has removed is in the starter
        starter = [step for file, text in starter_files(exercise).items() for step in steps(file, text.decode())]
    except Problem:
        starter = todo
    by_function = {step.function: step for step in reversed(starter)}
    named = re.findall(r"(?<=/)\w+|\w+(?=\()", failure.partition("\n")[0])
    return next((by_function[name] for name in named if name in by_function), todo[0] if todo else None)


def _function_around(line: int, text: str) -> str:
    """The name of the innermost function around a line, its decorators included."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return ""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    starts = {min([node.lineno, *(one.lineno for one in node.decorator_list)]): node for node in functions}
    around = [start for start, node in starts.items() if start <= line <= node.end_lineno]
    return starts[max(around)].name if around else ""
