"""The table of exercises, in Markdown, as README.md and the course page show it."""

import re

from course.base import manifest

BEGIN, END = "<!-- exercises: made by `make manifest` from course.toml -->", "<!-- /exercises -->"


def table(link: str) -> str:
    """All exercises as a Markdown table; link: what comes before the name of an exercise's page, such as "docs/"."""
    lines = ["| no. | exercise | what you do | points |", "| --- | --- | --- | --- |"]
    for one in manifest.exercises():
        points = f"{one.points} extra" if one.optional else one.points
        lines.append(f"| {one.number} | [{one.title}]({link}{one.stem}.md) | {one.goal} | {points} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    """The text with a new table between its two marks."""
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table('docs/')}\n{END}", text, flags=re.DOTALL)
