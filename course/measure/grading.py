"""make grade-benchmark: what grading costs, and whether a killed grader loses anything.

A complete submission (solutions/) is graded alone. Then a class with hostile submissions in it is graded, its
grader killed with SIGKILL after half of the results, and started again.
"""

import os
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from course import ROOT
from course.base import reports
from course.base.manifest import Exercise, solution
from course.base.processes import running, used
from course.grading.results import ExerciseResult, points

# What stands at the top of every file of a hostile submission, by its kind.
HOSTILE: dict[str, str] = tomllib.loads(Path(__file__).with_name("hostile.toml").read_text())


def benchmark(
    exercises: list[Exercise], size: int, hostile: int, jobs: int, isolation: str, limit: int, console: Console
) -> bool:
    """Print the figures; True where nothing was lost."""
    numbers = " ".join(one.number for one in exercises)
    console.print(f"{reports.here()}, isolation {isolation}, exercises {numbers}\n")
    options = ["--ex", numbers, "--isolation", isolation, "--limit", str(limit)]
    with tempfile.TemporaryDirectory(prefix="grade-benchmark-") as folder:
        complete = _one_complete(Path(folder), exercises, options, console)
        if not size:
            return complete
        kinds = _class(Path(folder) / "class", exercises, size, hostile)
        return _killed_half_way(Path(folder), kinds, exercises, [*options, "--jobs", str(jobs)], console) and complete


def _one_complete(folder: Path, exercises: list[Exercise], options: list[str], console: Console) -> bool:
    _hand_in(folder / "one", exercises)
    seconds, peak, _ = _grade(["--submission", str(folder / "one"), *options], folder / "alone", folder / "log")
    results = [ExerciseResult.model_validate_json(file.read_text()) for file in _files(folder / "alone")]
    run, own = sum(one.seconds for one in results), sum(one.own_seconds for one in results)
    columns = ("exercise", "seconds", "of which the submission's\nown processes ran", "points")
    table = reports.table("A complete submission", *columns, words=0)
    for one in results:
        table.add_row(one.number, f"{one.seconds:.1f}", f"{one.own_seconds:.1f}", points(one))
    console.print(table)
    console.print(f"In all {seconds:.1f} s, of which {run:.1f} s in runs of pytest; largest memory {peak:.0f} MB.")
    console.print(f"Outside the student's own processes: {max(0.0, seconds - own) / seconds:.0%} of the time.\n")
    lost = [one for one in results if one.reached < one.worth]
    for one in lost:
        failed = [f"{test.id}: {test.message}" for test in one.tests if test.outcome == "failed"]
        console.print(f"[red]{escape(chr(10).join([one.problem, *failed]))}[/]")
    return not lost and len(results) == len(exercises)


def _killed_half_way(
    folder: Path, kinds: dict[str, str], exercises: list[Exercise], options: list[str], console: Console
) -> bool:
    command, output, log = ["--submissions", str(folder / "class"), *options], folder / "grades", folder / "log"
    half = len(kinds) * len(exercises) // 2
    first, peak_first, code = _grade(command, output, log, kill_after=half)
    kept = {path: path.stat().st_mtime_ns for path in _files(output)}
    second, peak_second, code_again = _grade(command, output, log)

    console.print(f"[bold]A class of {len(kinds)}, {sum(map(bool, kinds.values()))} of them hostile[/]")
    console.print(f"Killed (exit code {code}) after {first:.1f} s with {len(kept)} results of {half * 2}.")
    console.print(f"Started again: {second:.1f} s, exit code {code_again}. In all {first + second:.1f} s.")
    console.print(f"Largest memory of the grader and all that it started: {max(peak_first, peak_second):.0f} MB.")

    wrong = [f"{path} was graded again" for path, at in kept.items() if path.stat().st_mtime_ns != at]
    for name, kind in kinds.items():
        for exercise in exercises:
            file = output / name / "exercises" / f"{exercise.number}.json"
            result = ExerciseResult.model_validate_json(file.read_text()) if file.is_file() else None
            if not result or result.problem or result.reached != (0 if kind else exercise.points):
                found = f"{points(result)} points. {result.problem}" if result else "no result"
                wrong.append(f"{name}, exercise {exercise.number}: {found}")
    if (output / ".work").exists():
        wrong.append("the grader left its temporary folder behind")
    for sentence in wrong:
        console.print(f"[red]{escape(sentence)}[/]")
    if not wrong:
        console.print("[green]Nothing lost: all results are there. Honest ones have all points, hostile ones none.[/]")
    return not wrong


def _class(folder: Path, exercises: list[Exercise], size: int, hostile: int) -> dict[str, str]:
    """Write submissions; by name, what is hostile about each. These are spread out: some come before the kill."""
    kinds = {}
    for number in range(size):
        nth, after = number * hostile // size, (number + 1) * hostile // size
        name = f"student-{number + 1:02}"
        kinds[name] = list(HOSTILE)[nth % len(HOSTILE)] if nth != after else ""
        _hand_in(folder / name, exercises, HOSTILE.get(kinds[name], ""))
    return kinds


def _hand_in(folder: Path, exercises: list[Exercise], hostile: str = "") -> None:
    for file in (file for exercise in exercises for file in exercise.files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(f"import sys\n{hostile}" if hostile else solution(file).read_text())


def _grade(
    options: list[str], output: Path, log: Path, kill_after: int | None = None
) -> tuple[float, float, int | None]:
    """Run `make grade`'s command: seconds, the most megabytes that all its processes held at a time, exit code."""
    command = [sys.executable, "-m", "course", "grade", *options, "--output", str(output)]
    begun, peak = time.monotonic(), 0.0
    with running(command, cwd=ROOT, env=dict(os.environ), log=log) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                grader = psutil.Process(process.pid)
                peak = max(peak, used([grader, *grader.children(recursive=True)])[1])
            if kill_after is not None and len(_files(output)) >= kill_after:
                process.kill()
                process.wait()
                break
            time.sleep(0.25)
        return time.monotonic() - begun, peak, process.returncode


def _files(output: Path) -> list[Path]:
    return sorted(output.glob("*/exercises/*.json"))
