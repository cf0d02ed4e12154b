"""make grade: one submission or a class, exercise by exercise, as many at a time as wanted.

Each result is written as soon as it is there, under a key of all that it depends on. Started again after Ctrl-C, a
crash or a power cut, grading continues with what has no final result under its present key.
"""

import hashlib
import os
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from course.base.files import write_whole
from course.base.manifest import Exercise
from course.base.processes import MARK, GraderFailure, end_marked
from course.grading import container, kept
from course.grading.handed_in import HandedIn
from course.grading.reports import write_class, write_submission
from course.grading.results import ExerciseResult, SubmissionResult, points
from course.grading.run import Options, Stopped, grade_exercise, need_isolation
from course.grading.terminal import mark
from course.isolation.folders import remove
from serving import Problem


@dataclass(frozen=True)
class Plan:
    """What to grade, and how."""

    submissions: list[HandedIn]
    exercises: list[Exercise]
    options: Options
    jobs: int
    output: Path
    fresh: bool = False  # take no result from an earlier run


def grade(plan: Plan, console: Console) -> list[SubmissionResult]:
    """Grade what is planned and write all reports; after Ctrl-C, what had ended by then is kept.

    Raises Problem where another grader is at work in the same folder, or the isolation does not work here.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(plan.output / ".lock", timeout=0), _temporary_folder(plan.output) as work:
            return _grade(plan, work, console)
    except Timeout:
        used = f"{plan.output} is in use by another `make grade`."
        raise Problem(f"{used} Wait for it, or name another OUTPUT=.") from None


@contextmanager
def _temporary_folder(output: Path) -> Iterator[Path]:
    """Remove what a grader that was killed has left, processes, containers and files; then make a folder."""
    mark, note = f"grade-{hashlib.sha256(str(output).encode()).hexdigest()[:16]}", output / ".work"
    end_marked(mark)  # nobody but us has the lock
    if note.exists():
        container.remove_marked(mark)
        if (left := Path(note.read_text())).name.startswith("grade-"):
            remove(left)
    os.environ[MARK] = f"{os.environ.get(MARK, '')} {mark}"
    work = Path(tempfile.mkdtemp(prefix="grade-"))
    write_whole(note, str(work))
    try:
        yield work
    finally:
        with suppress(OSError):
            remove(work)
            note.unlink()


def _grade(plan: Plan, work: Path, console: Console) -> list[SubmissionResult]:
    need_isolation(plan.exercises, plan.options, work / "tried")
    # Short names: a service's socket is in a folder below, and its path may have 100 characters.
    places = {submission.slug: work / str(number) for number, submission in enumerate(plan.submissions)}
    for submission in plan.submissions:
        try:
            submission.take_over(places[submission.slug] / "in")
        except GraderFailure as failure:
            raise Problem(f"Nothing is graded: {submission.name} could not be unpacked. {failure}") from failure
    stop = threading.Event()
    results: dict[str, list[ExerciseResult]] = defaultdict(list)
    ended: list[SubmissionResult] = []
    columns = (TextColumn("Grading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress, ThreadPoolExecutor(plan.jobs) as pool:
        tasks = {
            pool.submit(_one, plan, submission, exercise, places[submission.slug], stop): submission
            for submission in plan.submissions
            for exercise in plan.exercises
        }
        try:
            for task in progress.track(as_completed(tasks), total=len(tasks)):
                name, slug = tasks[task].name, tasks[task].slug
                results[slug].append(task.result())
                if len(results[slug]) == len(plan.exercises):
                    exercises = sorted(results[slug], key=lambda exercise: exercise.number)
                    isolation = plan.options.isolation
                    ended.append(SubmissionResult(name=name, slug=slug, exercises=exercises, isolation=isolation))
                    write_submission(ended[-1], plan.output)
                    if len(plan.submissions) > 1:
                        progress.console.print(f"{mark(ended[-1])} {escape(ended[-1].name)}: {points(ended[-1])}")
        except BaseException:  # Ctrl-C above all: end what is running, begin nothing new
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    ended.sort(key=lambda result: result.name.lower())
    write_class(ended, plan.output)
    return ended


def _one(plan: Plan, submission: HandedIn, exercise: Exercise, work: Path, stop: threading.Event) -> ExerciseResult:
    """One exercise of one submission: from an earlier run, or graded now. Never raises but to stop."""
    if stop.is_set():
        raise Stopped
    file = plan.output / submission.slug / "exercises" / f"{exercise.number}.json"
    key = kept.key_of(submission, exercise, plan.options)
    before = None if plan.fresh else kept.earlier(file, key)
    if before and (before.final or before.suspicious):
        return before
    if not before:
        file.unlink(missing_ok=True)  # it belongs to another submission, or to other tests
    try:
        if submission.refused:
            result = ExerciseResult.of(exercise, failure=submission.refused)
        elif any((submission.folder / name).is_file() for name in exercise.files):
            result = grade_exercise(exercise, submission.folder, work / exercise.number, plan.options, stop)
        else:
            result = ExerciseResult.of(exercise, failure=submission.lacks(exercise.files))
    except Stopped:
        raise
    except Exception as error:  # a mistake in the grader: the other submissions go on
        result = ExerciseResult.of(exercise, problem=f"The grader failed: {type(error).__name__}: {error}")
    result = kept.again(result.model_copy(update={"key": key, "ended": datetime.now(UTC)}), before)
    write_whole(file, result.model_dump_json(indent=2))
    return result
