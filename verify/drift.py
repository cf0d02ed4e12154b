"""Compares a starter with its solution: outside its TODOs, it is the same text."""

import re

FOLDERS = ("bentofiles", "dockerfiles", "locustfiles")


def drift(starter: str, solution: str) -> str:
    """Where a starter differs from its solution outside its TODOs, or "". A TODO stands for any lines, or none.

    A TODO is its comment and the lines below it that the solution does not have, up to a blank line;
    after code on the same line, it is this line alone. The folder's name may differ: exercises/ is solutions/.
    """
    for folder in FOLDERS:
        starter = starter.replace(f"exercises/{folder}", folder)
    starter = re.sub(r"\bexercises(?=[/.])|(?<==)exercises", "solutions", starter)
    solved, at = solution.splitlines(), 0
    parts = given_parts(starter, solved)
    for i, (first, lines) in enumerate(parts):
        end = len(solved) - len(lines)
        places = [0] if i == 0 else [max(end, at)] if i == len(parts) - 1 else range(at, end + 1)
        place = next((place for place in places if solved[place : place + len(lines)] == lines), None)
        if place is None:
            same = min(max(common(lines, solved[place:]) for place in range(at, len(solved) + 1)), len(lines) - 1)
            return f"line {first + same} is not in the solution at this place:\n{lines[same]}"
        at = place + len(lines)
    return "" if at == len(solved) else f"the solution goes on with:\n{solved[at]}"


def given_parts(starter: str, solved: list[str]) -> list[tuple[int, list[str]]]:
    """The lines before, between and after a starter's TODOs; each part with the number of its first line."""
    parts, in_todo = [(1, [])], False
    for number, line in enumerate(starter.splitlines(), 1):
        comment = line.lstrip().startswith("#")
        if "# TODO" in line:
            parts.append((number + 1, []))
            in_todo = comment
        elif in_todo and (comment or (line and line not in solved)):
            parts[-1] = (number + 1, [])
        else:
            in_todo = False
            parts[-1][1].append(line)
    return parts


def common(one: list[str], other: list[str]) -> int:
    """How many lines two texts begin with that are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
