"""MkDocs hook: fills what the pages take from course.toml and from the code itself.

<!-- exercises -->              the table of exercises
<!-- frameworks -->             the table of serving frameworks, with their stars on GitHub
<!-- card 04 -->                what to fill in, how to try and to check it
<!-- hints 04 -->               the hints, each closed until it is opened
<!-- code FILE NAME ... -->     functions, classes or constants of a Python file
<!-- code FILE -->              another file, whole
<!-- code FILE NAME | text -->   of a solution: folded, with a sentence on what to compare
<!-- figure NAME -->            a figure of docs/figures.toml
<!-- diagram NAME -->           docs/images/NAME.svg, in the page's own colours
<!-- measured RUN -->           how, where and when the figures of that run were measured
"""

import ast
import os
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from course import ROOT
from course.base import manifest
from course.pages import exercise_table, figures, frameworks
from serving import Problem

LANGUAGES = {".dockerfile": "dockerfile", ".yaml": "yaml"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
DIFFER = "Where do the two differ, and why?"
MARK = r"( *)<!-- (exercises|frameworks|card|hints|code|figure|measured|diagram)\b *(.*?) *-->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the marks of a page; an unknown name in a mark fails the build."""
    try:
        return _filled(markdown)
    except (Problem, OSError, KeyError) as error:
        raise PluginError(f"{page.file.src_path}: {error}") from error


def _filled(text: str) -> str:
    # What fills an indented mark is indented as well: it stands in a folded part.
    return re.sub(MARK, lambda mark: textwrap.indent(_fill(*mark.groups()[1:]), mark[1]), text)


def _fill(kind: str, words: str) -> str:
    match kind:
        case "exercises":
            return exercise_table.table("")
        case "frameworks":
            return frameworks.table(os.environ.get("GITHUB_API_URL", frameworks.API))
        case "card":
            return _card(manifest.find(words))
        case "figure":
            return figures.figure(words)
        case "diagram":
            drawn = _filled((ROOT / "docs" / "images" / f"{words}.svg").read_text())
            return f"<figure>\n{re.sub('</?span.*?>', '', drawn)}</figure>"
        case "measured":
            return figures.measured(words)
        case "hints":
            hints = enumerate(manifest.find(words).hints, 1)
            return "\n".join(f'??? tip "Hint {number}"\n    {text}\n' for number, text in hints)
    return _code(*words.partition(" | ")[::2])


def _code(words: str, compare: str) -> str:
    """Code of the project; that of a solution is folded under a sentence on what to compare."""
    file, *names = words.split()
    text = (ROOT / file).read_text()
    language, shown = ("python", _source(text, names)) if names else (LANGUAGES[Path(file).suffix], text.rstrip())
    block = f'```{language} title="{file}"\n{shown}\n```'
    if ROOT / file not in _solutions():
        return block
    title = f"The solution: {', '.join(names) or file}"
    return f'??? example "{title}"\n' + textwrap.indent(f"Write yours first. {compare or DIFFER}\n\n{block}\n", "    ")


@cache
def _solutions() -> set[Path]:
    return {manifest.solution(file) for exercise in manifest.exercises() for file in exercise.files}


def _card(exercise: manifest.Exercise) -> str:
    files = ", ".join(f"`exercises/{file}`" for file in exercise.files)
    solutions = ", ".join(f"`{manifest.solution(file).relative_to(ROOT)}`" for file in exercise.files)
    core = ", on the core path" if exercise.core else ""
    needs = ", ".join(f"[{one}]({manifest.find(one).stem}.md)" for one in exercise.needs) or "nothing: begin here"
    return (
        f'!!! abstract "{exercise.points} points, about {exercise.minutes} minutes, {exercise.level}{core}"\n'
        f"    {exercise.goal}\n\n"
        f"    | | |\n    | --- | --- |\n"
        f"    | After | {needs} |\n"
        f"    | Fill in | {files} |\n"
        f"    | Try yours | `make try EX={exercise.number}`, which runs `{exercise.run}` |\n"
        f"    | Check it | `make check EX={exercise.number}` |\n"
        f"    | Try the solution | `{exercise.run_solution}` |\n"
        f"    | Solution | {solutions} |\n"
    )


def _source(text: str, names: list[str]) -> str:
    """The named top-level definitions of a Python file, or methods as Class.method, in the order given."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(text).body:
        if isinstance(node, DEFINITIONS):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{one.name}": one for one in node.body if isinstance(one, DEFINITIONS)}
        if isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return "\n\n\n".join(_lines(text, found[name]) for name in names)


def _lines(text: str, node: ast.AST) -> str:
    """The lines of a definition, its decorators included, without their indentation."""
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))
