"""Answers that students give, kept in answers/exNN.toml: wrong ones, and right ones that look different."""

import shutil
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from course.base.manifest import Exercise, find, solution

ANSWERS = Path(__file__).parent / "answers"


class BadAnswer(Exception):
    """An answer cannot be made from the solution as it now is."""


class Answer(BaseModel):
    """One answer to one exercise: how it differs from the solution."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: str  # of the exercise
    name: str
    why: str  # one sentence: why a student writes this; or how a right answer differs
    file: str = ""  # which file it changes; the exercise's first unless said otherwise
    replace: list[tuple[str, str]] = []  # a text that is in it once, and its replacement
    whole: str = ""  # or a file in answers/ that replaces all of it
    fails: list[str] | None = None  # the graded tests that it fails: `test_a`, or one of its cases: `test_a[case]`
    keeps: list[str] | None = None  # or, where it fails nearly all, those that it passes
    only: list[str] = []  # the tests to run, where all of them would take minutes

    @model_validator(mode="after")
    def _says_one_of_each(self) -> "Answer":
        if (self.fails is None) == (self.keeps is None):
            raise ValueError(
                f"ex{self.number} {self.name}: name either the tests that it `fails` or those that it `keeps`."
            )
        if bool(self.replace) == bool(self.whole):
            raise ValueError(f"ex{self.number} {self.name}: give either the texts to `replace` or the `whole` file.")
        return self

    @property
    def right(self) -> bool:
        return self.fails == []

    @property
    def exercise(self) -> Exercise:
        return find(self.number)

    def write(self, folder: Path) -> None:
        """Make a submission of it: the solution's files of its exercise, and its own changes.

        Raises:
            BadAnswer: a text to replace is not in the solution exactly once.
        """
        for file in self.exercise.files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(solution(file), target)
        target = folder / (self.file or self.exercise.files[0])
        if self.whole:
            shutil.copy(ANSWERS / self.whole, target)
        text = target.read_text()
        for old, new in self.replace:
            if text.count(old) != 1:
                raise BadAnswer(
                    f"{self.name}: found this text {text.count(old)} times in {target.name}, expected it once:\n{old}\n"
                    f"The solution has changed: bring answers/ex{self.number}.toml up to date."
                )
            text = text.replace(old, new)
        target.write_text(text)

    def loses(self, test: str) -> bool:
        """Whether it should fail this test; the list may name `test_a[case]` either way."""
        names = {test, test.partition("[")[0]}
        return bool(names & set(self.fails)) if self.fails is not None else not names & set(self.keeps)


def answers() -> list[Answer]:
    """All answers, in the order of the exercises."""
    return [
        Answer(number=path.stem.removeprefix("ex"), **entry)
        for path in sorted(ANSWERS.glob("ex??.toml"))
        for entry in tomllib.loads(path.read_text())["answer"]
    ]
