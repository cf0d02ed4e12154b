"""MkDocs hook: fills what the pages take from course.toml and from the code itself.

<!-- exercises -->              the table of exercises
<!-- frameworks -->             the table of serving frameworks, with their stars on GitHub
<!-- card 04 -->                what to fill in, how to try and to check it
<!-- hints 04 -->               the hints, each closed until it is opened
<!-- code FILE NAME ... -->     functions, classes or constants of a Python file
<!-- code FILE -->              another file, whole
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from course import ROOT
from course.base import manifest
from course.pages import exercise_table, frameworks
from serving import Problem

LANGUAGES = {".dockerfile": "dockerfile", ".yaml": "yaml"}
MARK = r"<!-- (exercises|frameworks|card|hints|code)\b *(.*?) *-->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace the marks of a page; an unknown name in a mark fails the build."""
    try:
        return re.sub(MARK, lambda mark: _fill(*mark.groups()), markdown)
    except (Problem, OSError, KeyError) as error:
        raise PluginError(f"{page.file.src_path}: {error}") from error


def _fill(kind: str, words: str) -> str:
    match kind:
        case "exercises":
            return exercise_table.table("")
        case "frameworks":
            return frameworks.table(os.environ.get("GITHUB_API_URL", frameworks.API))
        case "card":
            return _card(manifest.find(words))
        case "hints":
            return "\n".join(_hint(i, hint) for i, hint in enumerate(manifest.find(words).hints, 1))
    file, *names = words.split()
    language, text = ("python", _source(file, names)) if names else (LANGUAGES[Path(file).suffix], _whole(file))
    return f'```{language} title="{file}"\n{text}\n```'


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
        f"    | Try it | `{exercise.run}` |\n"
        f"    | Check it | `make check EX={exercise.number}` |\n"
        f"    | Solution | {solutions} |\n"
    )


def _hint(number: int, text: str) -> str:
    return f'??? tip "Hint {number}"\n    {text}\n'


def _whole(file: str) -> str:
    return (ROOT / file).read_text().rstrip()


def _source(file: str, names: list[str]) -> str:
    """The source of the named top-level definitions, or methods as Class.method, in the order given."""
    source = (ROOT / file).read_text()
    found: dict[str, ast.AST] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found[node.name] = node
        if isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{child.name}": child
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return "\n\n\n".join(_lines(source, found[name]) for name in names)


def _lines(source: str, node: ast.AST) -> str:
    first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
    lines = source.splitlines()[first - 1 : node.end_lineno]
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines)
