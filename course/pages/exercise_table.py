"""The table of exercises, in Markdown, as README.md and the course page show it."""

import re
from itertools import groupby

from course.base import manifest

BEGIN, END = "<!-- exercises: made by `make manifest` from course.toml -->", "<!-- /exercises -->"


def table(link: str) -> str:
    """All exercises in Markdown, a table for each part, the core path in bold; link: what comes before a page's name."""
    lines = []
    for part, found in groupby(manifest.exercises(), lambda one: one.part):
        lines += ["", f"**{part}**", ""] if lines else [f"**{part}**", ""]
        lines += ["| no. | exercise | what you do | after | time | level | points |", "| --- " * 7 + "|"]
        for one in found:
            title = f"[{one.title}]({link}{one.stem}.md)"
            points = f"{one.points} extra" if one.optional else one.points
            cells = (
                f"**{title}**" if one.core else title,
                one.goal,
                ", ".join(one.needs),
                f"{one.minutes} min",
                one.level,
            )
            lines.append(f"| {one.number} | {' | '.join(cells)} | {points} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The text with a new table between its two marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table('docs/')}\n{END}", text, flags=re.DOTALL)
