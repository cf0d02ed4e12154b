"""make grade: one submission or a class, exercise by exercise, as many at a time as wanted.

Each result is written as soon as it is there, under a key of all that it depends on. Started again, after Ctrl-C,
a crash or a power cut, grading goes on with what has no final result under its present key.
"""

import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from course import ROOT
from course.base import manifest
from course.base.files import write_whole
from course.base.manifest import Exercise
from course.base.processes import MARK, end_marked
from course.grading import container, handed_in
from course.grading.handed_in import HandedIn
from course.grading.results import ExerciseResult, SubmissionResult, points
from course.grading.run import Options, Stopped, grade_exercise, private_tests
from course.isolation import sandbox
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
        isolation: str = "process",
        private: Path | None = None,
        limit: int = 600,
        output: Path = OUTPUT,
        fresh: bool = False,
    ) -> "Plan":
        """One submission or a folder of them, and the exercises to grade; without any, all.

        Raises:
            Problem: it cannot be graded.
        """
        if bool(submission) == bool(submissions):
            raise Problem("Name one submission, make grade SUBMISSION=folder, or a folder of them, SUBMISSIONS=folder.")
        return cls(
            submissions=[handed_in.one(submission)] if submission else handed_in.several(submissions),
            exercises=exercises or manifest.exercises(),
            options=Options(isolation=isolation, limit=limit, private=handed_in.private_folder(private)),
            jobs=jobs,
            output=output.resolve(),
            fresh=fresh,
            single=bool(submission),
        )


def grade(plan: Plan, console: Console) -> list[SubmissionResult]:
    """Grade what is planned and write all reports.

    Raises:
        Problem: another grader is at work in the same folder, or there can be no containers here.
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
    """End what a grader that was killed has left, processes, containers and files; a new temporary folder."""
    mark = f"grade-{hashlib.sha256(str(output).encode()).hexdigest()[:16]}"
    end_marked(mark)  # nobody but us has the lock
    if (output / ".work").exists():
        container.remove_marked(mark)
    _remove_work(output)
    os.environ[MARK] = f"{os.environ.get(MARK, '')} {mark}"
    work = Path(tempfile.mkdtemp(prefix="grade-"))
    write_whole(output / ".work", str(work))
    work.chmod(0o711)  # student code may run as another user, who must get at his own folder in there
    return work


def _remove_work(output: Path) -> None:
    """Remove the temporary folder that a grader has noted, and the note."""
    note = output / ".work"
    with suppress(OSError):
        work = Path(note.read_text())
        if work.name.startswith("grade-") and work.parent == Path(tempfile.gettempdir()):
            sandbox.remove(work)
        note.unlink()


def _grade(plan: Plan, work: Path, console: Console) -> list[SubmissionResult]:
    # Imported here: the pages need Jinja, and grading must not.
    from course.grading.reports import write_class, write_submission

    if plan.options.isolation == "docker":
        container.prepare(work / "tried")
    # Short names: a service's socket is in a folder below, and its path may have 100 characters.
    places = {submission.slug: work / str(number) for number, submission in enumerate(plan.submissions)}
    for submission in plan.submissions:
        submission.take_over(places[submission.slug] / "in")
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
                    whole = _whole(submission, results[submission.slug].values())
                    write_submission(whole, plan.output)
                    ended.append(whole)
                    if not plan.single:
                        progress.console.print(f"{_mark(whole)} {escape(whole.name)}: {points(whole)}")
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


def _whole(submission: HandedIn, exercises: Iterable[ExerciseResult]) -> SubmissionResult:
    ordered = sorted(exercises, key=lambda exercise: exercise.number)
    return SubmissionResult(name=submission.name, slug=submission.slug, exercises=ordered)


def _one(plan: Plan, submission: HandedIn, exercise: Exercise, work: Path, stop: threading.Event) -> ExerciseResult:
    """One exercise of one submission: as it was found last time, or graded now. Never raises but to stop."""
    if stop.is_set():
        raise Stopped
    file = plan.output / submission.slug / "exercises" / f"{exercise.number}.json"
    key = key_of(submission, exercise, plan.options)
    if not plan.fresh and (earlier := _earlier(file, key)):
        return earlier
    with suppress(OSError):
        file.unlink()  # what is there is of another submission, or of other tests
    try:
        result = _result(plan, submission, exercise, work / exercise.number, stop)
    except Stopped:
        raise
    except Exception as error:  # ours, whatever it is: the other submissions go on
        result = _without_tests(exercise, problem=f"The grader failed: {type(error).__name__}: {error}")
    result = result.model_copy(update={"key": key, "ended": datetime.now(UTC)})
    write_whole(file, result.model_dump_json(indent=2))
    return result


def _result(plan: Plan, submission: HandedIn, exercise: Exercise, work: Path, stop: threading.Event) -> ExerciseResult:
    if submission.refused:
        return _without_tests(exercise, failure=submission.refused)
    if not any((submission.folder / file).is_file() for file in exercise.files):
        return _without_tests(
            exercise, failure=f"Nothing was handed in: there is no {' and no '.join(exercise.files)}."
        )
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


def _earlier(file: Path, key: str) -> ExerciseResult | None:
    """The result of an earlier run, where it is final and nothing that it depends on has changed."""
    try:
        result = ExerciseResult.model_validate_json(file.read_text())
    except (OSError, ValidationError, ValueError):
        return None
    return result if result.key == key and result.final else None


def key_of(submission: HandedIn, exercise: Exercise, options: Options) -> str:
    """A digest of all that a result depends on: the submission's files, the tests, the grader, how it grades."""
    private = handed_in.private_files(options.private) if private_tests(exercise, options) else {}
    depends_on = [
        submission.digests or submission.refused,
        exercise.model_dump(exclude={"hints", "goal", "title", "run", "part"}),
        [_digest(ROOT / exercise.test), {name: _digest(path) for name, path in private.items()}],
        _grader(),
        [options.isolation, options.limit],
    ]
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()


@cache
def _grader() -> list[str]:
    """Digests of what all exercises are graded with."""
    helpers = [path for path in sorted((ROOT / "tests").glob("*.py")) if not path.name.startswith("test_")]
    ours = [*sorted((ROOT / "course").rglob("*.py")), *sorted((ROOT / "serving").glob("*.py"))]
    return [_digest(path) for path in [*ours, *helpers, ROOT / "requirements.txt", ROOT / "requirements-serving.txt"]]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _mark(result: SubmissionResult) -> str:
    if not result.final:
        return "[yellow]?[/]"
    return "[green]✓[/]" if result.reached >= result.worth else "[red]✗[/]" if not result.reached else "[yellow]·[/]"


def print_results(results: list[SubmissionResult], plan: Plan, console: Console) -> None:
    """What it came to, where the reports are, and what to do about what is open."""
    if plan.single:
        console.print(_table(results[0]))
    console.print(f"Reports: {escape(str(plan.output))}/index.html, class.csv, and a folder for each submission.")
    loose = [(result, exercise) for result in results for exercise in result.exercises if not exercise.final]
    for result, exercise in loose[:10]:
        where = f"{escape(result.name)}, exercise {exercise.number}"
        console.print(f"[yellow]{where}: {exercise.state}.[/] {escape(exercise.why_open)}")
    if loose:
        console.print(
            f"[bold yellow]{len(loose)} of {sum(len(result.exercises) for result in results)} exercises have no final"
            " verdict. No point is lost for them: run the same command again, and they alone are graded.[/]"
        )


def _table(result: SubmissionResult) -> Table:
    table = Table(title=escape(result.name), title_justify="left")
    for column in ("no.", "exercise", "points", "the first thing that failed"):
        table.add_column(column, overflow="fold")
    for exercise in result.exercises:
        failed = next((test for test in exercise.tests if test.outcome == "failed" and not test.private), None)
        why = exercise.problem or exercise.failure or (f"{failed.name}\n{failed.message}" if failed else "")
        extra = " extra" if exercise.optional else ""
        table.add_row(exercise.number, escape(exercise.title), points(exercise) + extra, escape(why[:600]))
    table.add_section()
    table.add_row("", "all", points(result), "")
    return table
