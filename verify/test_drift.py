"""A starter is its solution without the parts to write, which are numbered. If it fails: change both files alike."""

import re

import pytest
from drift import drift

from course import ROOT
from course.base.manifest import Exercise, exercises, solution

FILES = [pytest.param(file, id=file) for exercise in exercises() for file in exercise.files]


@pytest.mark.parametrize("file", FILES)
def test_a_starter_equals_its_solution_outside_the_todos(file: str):
    found = drift((ROOT / "exercises" / file).read_text(), solution(file).read_text())
    assert not found, f"exercises/{file}: {found}"


@pytest.mark.parametrize("exercise", [pytest.param(one, id=one.stem) for one in exercises()])
def test_todos_are_numbered_in_order(exercise: Exercise):
    """Over all files of an exercise. Hints that name a step come in the same order."""
    text = "".join((ROOT / "exercises" / file).read_text() for file in exercise.files)
    lines = [line.strip() for line in text.splitlines() if "TODO" in line]
    for number, line in enumerate(lines, 1):
        assert f"# TODO {number}: " in line, f"expected `# TODO {number}: ...`, got `{line}`"
    named = [int(number) for hint in exercise.hints for number in re.findall(r"TODO (\d+)", hint)]
    assert named == sorted(named)
    assert max(named, default=0) <= len(lines)


# ------------------------------------------------------------------------------ drift() itself

SOLVED = '''import os

LIMIT = 3


def first(a: int) -> int:
    """Add one."""
    if a:
        return a + 1

    return 1


def second() -> None:
    """Run."""
    print(first(LIMIT))
'''
STARTER = '''import os

# TODO 1: the limit.
LIMIT = 0


def first(a: int) -> int:
    """Add one."""
    # TODO 2: add one,
    # and think of 0.
    raise NotImplementedError


def second() -> None:
    """Run."""
    print(first(LIMIT))
'''


def test_a_todo_stands_for_any_lines():
    assert drift(SOLVED, SOLVED) == ""
    assert drift(STARTER, SOLVED) == ""
    assert drift(STARTER.replace("print(first(LIMIT))", "print(0)  # TODO 3: what first() gives."), SOLVED) == ""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("import os", "import sys", 1),
        ("import os\n\n", "import os\nimport sys\n\n", 2),
        ("a: int", "b: int", 7),
        ("Add one.", "Add two.", 8),
        ("print(first(LIMIT))", "print(LIMIT)", 16),
        ("    print", "    raise NotImplementedError\n    print", 16),
        ('    """Run."""\n', "", 15),
    ],
)
def test_another_line_outside_the_todos_is_drift(old, new, line):
    assert f"line {line} " in drift(STARTER.replace(old, new), SOLVED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import os", "import os\nimport sys"),
        ("    print", "    os.sync()\n    print"),
        ("T))\n", "T))\n    os.sync()\n"),
    ],
)
def test_a_line_that_only_the_solution_has_is_drift(old, new):
    assert drift(STARTER, SOLVED.replace(old, new))
