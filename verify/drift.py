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
    lines = re.sub(r"\bexercises(?=[/.])|(?<==)exercises", "solutions", starter).splitlines()
    patterns = given(lines, solution.splitlines())
    if re.fullmatch("".join(patterns), solution):
        return ""
    same = next((i for i in range(len(lines)) if not re.match("".join(patterns[: i + 1]), solution)), len(lines))
    if same == len(lines):
        return f"the solution goes on after line {same} of the starter."
    return f"line {same + 1} is not in the solution at this place:\n{lines[same]}"


def given(lines: list[str], solved: list[str]) -> list[str]:
    """For each line of a starter, the regular expression of what stands in the solution instead of it."""
    patterns, in_todo = [], False
    for line in lines:
        comment = line.lstrip().startswith("#")
        todo = "# TODO" in line
        in_todo = comment if todo else in_todo and bool(comment or (line and line not in solved))
        patterns.append("(?:.*\n)*?" if todo else "" if in_todo else re.escape(f"{line}\n"))
    return patterns
