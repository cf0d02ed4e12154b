"""What pages, docstrings and TODOs promise or demand stands there, and a test or an answer holds it: promises/exNN.toml."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from answer_files import answers
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from course import ROOT
from course.base.manifest import exercises

PROMISES = Path(__file__).parent / "promises"


class Promise(BaseModel):
    """One promise, or one demand on the student."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str  # who says it, relative to the project
    says: str = Field(min_length=10)  # words of it, verbatim; line breaks and the # of comments do not count
    held_by: list[str] = Field(min_length=1)  # tests/test_x.py::test_name, or verify/answers/exNN.toml::name

    def faults(self) -> Iterator[str]:
        """What is wrong with it, one sentence each."""
        if not (ROOT / self.file).is_file():
            yield f"there is no {self.file}. Correct `file`."
        elif one_line(self.says) not in one_line((ROOT / self.file).read_text()):
            yield f"{self.file} does not say this. Copy its words, or remove the promise if it is gone."
        for holder in self.held_by:
            file, _, name = holder.partition("::")
            known = names_in(file)
            if name.partition("[")[0] not in known:
                what = "answer" if file.endswith(".toml") else "test"
                there = f"{file} has {', '.join(sorted(known))}" if known else f"there is no such file of {what}s"
                yield f"`held_by` names {holder}, but {there}. Name the {what} that fails when the promise is broken."


def one_line(text: str) -> str:
    """The text without its line breaks, and without the # of comments that go on."""
    return " ".join(re.sub(r"\n\s*#+ ", " ", text).split())


@cache
def names_in(file: str) -> set[str]:
    """The tests in a Python file, or the answers in a file of verify/answers/; nothing where there is no such file."""
    if not (ROOT / file).is_file():
        return set()
    if file.endswith(".toml"):
        return {one.name for one in answers() if file == f"verify/answers/ex{one.number}.toml"}
    functions = (node for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef))
    return {one.name for one in functions if one.name.startswith("test_")}


def faults_in(text: str) -> list[str]:
    """What is wrong with a file of promises; each line names its entry.

    Raises:
        ValidationError: an entry lacks a field, or has one that nothing reads.
    """
    promises = [Promise(**entry) for entry in tomllib.loads(text).get("promise", [])]
    return [f'"{promise.says}": {fault}' for promise in promises for fault in promise.faults()]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in sorted(PROMISES.glob("*.toml"))])
def test_each_promise_is_made_and_held(path: Path):
    faults = faults_in(path.read_text())
    if faults:
        pytest.fail("\n".join([f"verify/promises/{path.name}:", *faults]), pytrace=False)


def test_every_exercise_has_its_promises():
    missing = [exercise.number for exercise in exercises() if not (PROMISES / f"ex{exercise.number}.toml").is_file()]
    assert not missing, f"verify/promises/exNN.toml is missing for {missing}: list what their pages promise"


# ------------------------------------------------------------------------------ the check itself

GOOD = """
[[promise]]
file = "docs/maintainers.md"
says = "A test that fails twice fails."
held_by = ["verify/test_promises.py::test_a_promise_that_nobody_makes_or_holds_is_named", "verify/answers/ex04.toml::channels_swapped"]
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("", "", ""),
        ("test that fails twice", "test   that\\nfails twice", ""),
        ("is_named", "is_named[a case]", ""),
        ("twice fails", "twice passes", '"A test that fails twice passes.": docs/maintainers.md does not say this.'),
        ("maintainers.md", "missing.md", "there is no docs/missing.md"),
        ("is_named", "is_lost", "is_lost, but verify/test_promises.py has test_a"),
        ("test_promises.py", "test_nothing.py", "but there is no such file of tests"),
        ("channels_swapped", "channels_eaten", "Name the answer that fails when the promise is broken"),
        ("ex04.toml", "ex99.toml", "but there is no such file of answers"),
    ],
)
def test_a_promise_that_nobody_makes_or_holds_is_named(old, new, sentence):
    faults = faults_in(GOOD.replace(old, new))
    assert len(faults) == bool(sentence)
    assert not sentence or sentence in faults[0]


@pytest.mark.parametrize(("old", "new"), [("held_by", "held"), ("file =", "from ="), ('["', '[] # ["')])
def test_an_entry_has_all_its_fields_and_no_others(old, new):
    with pytest.raises(ValidationError):
        faults_in(GOOD.replace(old, new))
