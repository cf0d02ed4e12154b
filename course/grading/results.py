"""What grading comes to, as plain data: the tests of an exercise, the exercises of a submission.

Text that a student had a hand in is made harmless here, once, where it comes in: no control character and no
escape code reaches a terminal, an XML file or a page, and no message is endless.
"""

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator

from course.base.manifest import Exercise

# What student code runs in: see course/grading/run.py. Two are weak, and every report says so.
Isolation = Literal["process", "docker", "limits", "none"]
WEAK = {
    "limits": "Graded with ISOLATION=limits: student code could read and change files, such as tests and solutions.",
    "none": "Graded with ISOLATION=none: student code could do all that the user who graded it can.",
}
LONGEST = 6000
AGAIN = "Not graded: the grader failed, not your work. No point is lost; ask for this submission to be run again."
# What a terminal takes for a command: ESC [ ... letter, ESC ] ... BEL or ESC \, ESC and one character.
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")

# For invisible characters, such as joiners and what turns the direction of writing, and for those that XML refuses:
# control, halves of a pair, no character at all.
INSTEAD = {"Cf": "", "Cc": "�", "Cs": "�", "Cn": "�"}


def clean(text: str) -> str:
    """A text without escape codes, control characters and marks that turn the direction of writing, cut if too long."""
    text = ESCAPES.sub("", text[: 2 * LONGEST].replace("\r\n", "\n"))
    text = "".join(one if one in "\n\t" else INSTEAD.get(unicodedata.category(one), one) for one in text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... (cut here)"


def one_line(text: str) -> str:
    """A clean text without line breaks, such as a name."""
    return " ".join(clean(text).split())


Text = Annotated[str, BeforeValidator(clean)]
Line = Annotated[str, BeforeValidator(one_line)]


class TestResult(BaseModel, extra="forbid", frozen=True):
    """One graded test of one submission."""

    __test__ = False  # pytest: this is not one of your classes

    id: str
    points: float
    # the last two are open, neither won nor lost: the machine was too busy, or lacks what the test needs
    outcome: Literal["passed", "failed", "inconclusive", "skipped"]
    message: Text = ""  # why it did not pass, in sentences
    details: Text = ""  # all that pytest says, where that is more
    seconds: float = 0.0
    private: bool = False

    @property
    def name(self) -> str:
        """Its name as words."""
        name, _, case = self.id.partition("::")[2].removeprefix("test_").replace("_", " ").partition("[")
        return one_line(f"{name} ({case.removesuffix(']')})" if case else name)

    @property
    def reached(self) -> float:
        """Points won."""
        return self.points if self.outcome == "passed" else 0.0

    @property
    def open(self) -> bool:
        """Whether it is neither won nor lost."""
        return self.outcome in ("inconclusive", "skipped")


class ExerciseResult(BaseModel, extra="forbid", frozen=True):
    """One exercise of one submission."""

    number: str
    title: str
    optional: bool
    worth: float  # its points in course.toml, and those of the private tests
    tests: list[TestResult] = []
    failure: Text = ""  # why no test was run, where that is the submission's doing
    problem: Text = ""  # why there is no verdict, where that is the grader's; it is run again next time
    seconds: float = 0.0
    suspicious: bool = False  # no verdict, twice for the same reason: the submission may have caused it
    own_seconds: float = 0.0  # in which a process of the submission was running
    key: str = ""  # a digest of all that the result depends on
    ended: datetime | None = None

    @classmethod
    def of(cls, exercise: Exercise, **found: Any) -> "ExerciseResult":
        """The result of an exercise, with the fields that were found."""
        known = {name: getattr(exercise, name) for name in ("number", "title", "optional")}
        return cls(**known, **{"worth": exercise.points} | found)

    @property
    def reached(self) -> float:
        """Points won."""
        return 0.0 if self.problem else round(sum(test.reached for test in self.tests), 4)

    @property
    def open(self) -> float:
        """Points that are neither won nor lost yet."""
        return self.worth if self.problem else round(sum(test.points for test in self.tests if test.open), 4)

    @property
    def final(self) -> bool:
        """Whether running it again could not change it: a Docker engine may have been started meanwhile."""
        return not self.problem and not any(test.open for test in self.tests)

    @property
    def why_open(self) -> str:
        """Why there is no final verdict, for the teacher."""
        return self.problem or next((test.message for test in self.tests if test.open), "")

    @property
    def state(self) -> str:
        """In a word or two."""
        if self.problem:
            return "suspicious" if self.suspicious else "not graded"
        if not self.final:
            return "inconclusive" if any(test.outcome == "inconclusive" for test in self.tests) else "open"
        if self.reached >= self.worth:
            return "done"
        return "partly" if self.reached else "not yet"

    @property
    def told(self) -> str:
        """Why no test ran, for the student. If the grader failed, it does not say how."""
        return AGAIN if self.problem else self.failure

    @property
    def shown(self) -> list[TestResult]:
        """Its tests; where they could not be run, one that says why."""
        if self.tests and not self.problem:
            return self.tests
        outcome = "skipped" if self.problem else "failed"
        return [TestResult(id=f"::{self.title}", points=self.worth, outcome=outcome, message=self.told)]


class SubmissionResult(BaseModel, extra="forbid", frozen=True):
    """All chosen exercises of one submission."""

    name: Line  # as the folder or archive is called
    slug: str  # the same, fit for a file name
    exercises: list[ExerciseResult]
    isolation: Isolation = "process"

    @property
    def warning(self) -> str:
        """What to say about a weak isolation; nothing about a strong one."""
        return WEAK.get(self.isolation, "")

    @property
    def reached(self) -> float:
        """Points won; those of optional exercises on top."""
        return round(sum(exercise.reached for exercise in self.exercises), 4)

    @property
    def worth(self) -> float:
        """Points that can be won without optional exercises."""
        return round(sum(exercise.worth for exercise in self.exercises if not exercise.optional), 4)

    @property
    def open(self) -> float:
        """Points that are neither won nor lost yet."""
        return round(sum(exercise.open for exercise in self.exercises), 4)

    @property
    def final(self) -> bool:
        """Whether every exercise has its verdict."""
        return all(exercise.final for exercise in self.exercises)

    @property
    def seconds(self) -> float:
        """How long grading it took."""
        return sum(exercise.seconds for exercise in self.exercises)


def points(result: ExerciseResult | SubmissionResult) -> str:
    """`7.5 of 10`, and what is still open."""
    return f"{result.reached:g} of {result.worth:g}" + (f", {result.open:g} open" if result.open else "")
