"""Compares a starter with its solution: outside its TODOs, it is the same text."""

FOLDERS = ("bentofiles", "dockerfiles", "locustfiles")


def drift(starter: str, solution: str) -> str:
    """Where a starter differs from its solution outside its TODOs, or "". A TODO stands for any lines, or none.

    A TODO is its comment and the lines below it that the solution does not have, up to a blank line;
    after code on the same line, it is this line alone. The folder's name may differ: exercises/ is solutions/.
    """
    for folder in FOLDERS:
        starter = starter.replace(f"exercises/{folder}", folder)
    starter = starter.replace("exercises/", "solutions/").replace("exercises.", "solutions.")
    solved, at = solution.splitlines(), 0
    parts = given_parts(starter, solved)
    for i, (first, lines) in enumerate(parts):
        fixed = 0 if i == 0 else len(solved) if i == len(parts) - 1 else None
        place = place_of(lines, solved, at, fixed)
        if place is None and lines[:1] == parts[i - 1][1][-1:] == [""]:
            # A TODO that stands alone has a blank line before and after it, of which the solution has one.
            place = place_of(lines[1:], solved, at, fixed)
            lines = lines if place is None else lines[1:]
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


def place_of(lines: list[str], solved: list[str], at: int, fixed: int | None) -> int | None:
    """The first place from `at` on where these lines stand in the solution; only its begin, 0, or its end, if fixed."""
    end = len(solved) - len(lines)
    places = range(at, end + 1) if fixed is None else [0] if fixed == 0 else [max(end, at)]
    return next((place for place in places if solved[place : place + len(lines)] == lines), None)


def common(one: list[str], other: list[str]) -> int:
    """How many lines two texts begin with that are equal."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
