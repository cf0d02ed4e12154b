"""What `make grade` is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from course import ROOT
from course.base import manifest
from course.base.manifest import Exercise
from course.grading import handed_in
from course.grading.handed_in import HandedIn
from course.grading.results import Isolation
from course.grading.run import Options
from serving import Problem

OUTPUT = ROOT / "reports" / "grades"


@dataclass(frozen=True)
class Plan:
    """What to grade, and how."""

    submissions: list[HandedIn]
    exercises: list[Exercise]
    options: Options
    jobs: int
    output: Path
    fresh: bool = False  # take no result from an earlier run
    single: bool = False

    @classmethod
    def make(
        cls,
        *,
        submission: Path | None = None,
        submissions: Path | None = None,
        exercises: Sequence[Exercise] | None = None,
        jobs: int = 1,
        isolation: Isolation = "process",
        private: Path | None = None,
        limit: int = 600,
        output: Path = OUTPUT,
        fresh: bool = False,
    ) -> "Plan":
        """A plan of what was typed.

        Raises:
            Problem: there is not exactly one of submission and submissions, or one of the folders does not fit.
        """
        if bool(submission) == bool(submissions):
            raise Problem("Name one submission, make grade SUBMISSION=folder, or a folder of them, SUBMISSIONS=folder.")
        return cls(
            submissions=[handed_in.one(submission)] if submission else handed_in.several(submissions),
            exercises=list(exercises or manifest.exercises()),
            options=Options(isolation=isolation, limit=limit, private=handed_in.private_folder(private)),
            jobs=jobs,
            output=output.resolve(),
            fresh=fresh,
            single=bool(submission),
        )
