"""make grade: one submission or a class, exercise by exercise, as many at a time as wanted.

Each result is written as soon as it is there, under a key of all that it depends on. Started again after Ctrl-C, a
crash or a power cut, grading continues with what has no final result under its present key.
"""

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
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
from course.grading.plan import Plan
from course.grading.results import ExerciseResult, SubmissionResult, points
from course.grading.run import Stopped, grade_exercise, need_isolation
from course.grading.terminal import mark
from course.isolation.folders import remove
from serving import Problem


def grade(plan: Plan, console: Console) -> list[SubmissionResult]:
    """Grade what is planned and write all reports.

    Raises:
        Problem: another grader is at work in the same folder, or the isolation does not work here.
        KeyboardInterrupt: Ctrl-C; what had ended by then is kept.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(plan.output / ".lock", timeout=0):
            work = _begin(plan.output)
            try:
                return _grade(plan, work, console)
            finally:
                _remove_work(plan.output)
    except Timeout:
        raise Problem(
            f"{plan.output} is in use by another `make grade`. Wait for it, or name another OUTPUT=."
        ) from None


def _begin(output: Path) -> Path:
    """Remove what a grader that was killed has left, processes, containers and files; make a temporary folder."""
    mark = f"grade-{hashlib.sha256(str(output).encode()).hexdigest()[:16]}"
    end_marked(mark)  # nobody but us has the lock
    if (output / ".work").exists():
        container.remove_marked(mark)
    _remove_work(output)
    os.environ[MARK] = f"{os.environ.get(MARK, '')} {mark}"
    work = Path(tempfile.mkdtemp(prefix="grade-"))
    write_whole(output / ".work", str(work))
    return work


def _remove_work(output: Path) -> None:
    """Remove the temporary folder that a grader has noted, and the note."""
    note = output / ".work"
    with suppress(OSError):
        work = Path(note.read_text())
        if work.name.startswith("grade-") and work.parent == Path(tempfile.gettempdir()):
            remove(work)
        note.unlink()


def _grade(plan: Plan, work: Path, console: Console) -> list[SubmissionResult]:
    # Imported here: the pages need Jinja, and grading must not.
    from course.grading.reports import write_class, write_submission

    need_isolation(plan.exercises, plan.options, work / "tried")
    # Short names: a service's socket is in a folder below, and its path may have 100 characters.
    places = {submission.slug: work / str(number) for number, submission in enumerate(plan.submissions)}
    for submission in plan.submissions:
        try:
            submission.take_over(places[submission.slug] / "in")
        except GraderFailure as failure:
            raise Problem(f"Nothing is graded: {submission.name} could not be unpacked. {failure}") from failure
    stop = threading.Event()
    results: dict[str, dict[str, ExerciseResult]] = {submission.slug: {} for submission in plan.submissions}
    ended: list[SubmissionResult] = []
    with _progress(console) as progress, ThreadPoolExecutor(plan.jobs) as pool:
        bar = progress.add_task("Grading", total=len(plan.submissions) * len(plan.exercises))
        tasks: dict[Future, HandedIn] = {
            pool.submit(_one, plan, submission, exercise, places[submission.slug], stop): submission
            for submission in plan.submissions
            for exercise in plan.exercises
        }
        try:
            for task in as_completed(tasks):
                submission, result = tasks[task], task.result()
                results[submission.slug][result.number] = result
                progress.advance(bar)
                if len(results[submission.slug]) == len(plan.exercises):
                    whole = _whole(plan, submission, results[submission.slug].values())
                    write_submission(whole, plan.output)
                    ended.append(whole)
                    if not plan.single:
                        progress.console.print(f"{mark(whole)} {escape(whole.name)}: {points(whole)}")
        except BaseException:  # Ctrl-C above all: end what is running, begin nothing new
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    ended.sort(key=lambda result: result.name.lower())
    write_class(ended, plan.output)
    return ended


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _whole(plan: Plan, submission: HandedIn, exercises: Iterable[ExerciseResult]) -> SubmissionResult:
    ordered = sorted(exercises, key=lambda exercise: exercise.number)
    isolation = plan.options.isolation
    return SubmissionResult(name=submission.name, slug=submission.slug, exercises=ordered, isolation=isolation)


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
        result = _result(plan, submission, exercise, work / exercise.number, stop)
    except Stopped:
        raise
    except Exception as error:  # a mistake in the grader: the other submissions go on
        result = _without_tests(exercise, problem=f"The grader failed: {type(error).__name__}: {error}")
    result = kept.again(result.model_copy(update={"key": key, "ended": datetime.now(UTC)}), before)
    write_whole(file, result.model_dump_json(indent=2))
    return result


def _result(plan: Plan, submission: HandedIn, exercise: Exercise, work: Path, stop: threading.Event) -> ExerciseResult:
    if submission.refused:
        return _without_tests(exercise, failure=submission.refused)
    if not any((submission.folder / file).is_file() for file in exercise.files):
        return _without_tests(exercise, failure=submission.lacks(exercise.files))
    return grade_exercise(exercise, submission.folder, work, plan.options, stop)


def _without_tests(exercise: Exercise, *, failure: str = "", problem: str = "") -> ExerciseResult:
    return ExerciseResult(
        number=exercise.number,
        title=exercise.title,
        optional=exercise.optional,
        worth=exercise.points,
        failure=failure,
        problem=problem,
    )
