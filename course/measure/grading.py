"""make grade-benchmark: what grading costs, and whether a killed grader loses anything.

A complete submission (solutions/) is graded alone. Then a class with hostile submissions in it is graded, its
grader killed with SIGKILL after half of the results, and started again.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from course import ROOT
from course.base import reports
from course.base.manifest import Exercise, solution
from course.base.processes import running, used

# What stands at the top of every file of a hostile submission. Each harms nothing but itself, sandbox or not.
HOSTILE = {
    "endless loop": "while True:\n    pass\n",
    "exit with success": "import os\nos._exit(0)\n",
    "forged results": (
        "import glob, json, os\n"
        "for folder in {'.', *sys.argv[1:], *glob.glob('../*'), *glob.glob('../../*')}:\n"
        "    if os.path.isdir(folder):\n"
        "        try:\n"
        "            open(os.path.join(folder, 'results.json'), 'w').write(json.dumps({'tests': {}, 'exit': 0}))\n"
        "        except OSError:\n"
        "            pass\n"
        "os._exit(0)\n"
    ),
    "a flood of output": "for _ in range(20_000):\n    print('x' * 1000)\nraise SystemExit(0)\n",
    "deaf children": (
        "import signal, subprocess\n"
        "deaf = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'\n"
        "for _ in range(3):\n"
        "    subprocess.Popen([sys.executable, '-c', deaf], start_new_session=True)\n"
        "raise SystemExit(0)\n"
    ),
}


def benchmark(
    exercises: list[Exercise], size: int, hostile: int, jobs: int, isolation: str, limit: int, console: Console
) -> bool:
    """Print the figures; True where nothing was lost."""
    with tempfile.TemporaryDirectory(prefix="grade-benchmark-") as scratch:
        folder = Path(scratch)
        console.print(
            f"{reports.here()}, isolation {isolation}, exercises {' '.join(one.number for one in exercises)}\n"
        )
        options = ["--ex", " ".join(one.number for one in exercises), "--isolation", isolation, "--limit", str(limit)]
        complete = _one_complete(folder, exercises, options, console)
        if not size:
            return complete
        names = _class(folder / "class", exercises, size, hostile)
        return _class_killed_half_way(folder, names, exercises, [*options, "--jobs", str(jobs)], console) and complete


def _one_complete(folder: Path, exercises: list[Exercise], options: list[str], console: Console) -> bool:
    _hand_in(folder / "one", exercises)
    seconds, peak, _ = _grade(["--submission", str(folder / "one"), *options], folder / "alone", folder / "log")
    results = _results(folder / "alone", ["one"], exercises)["one"]
    run, own = sum(one["seconds"] for one in results), sum(one["own_seconds"] for one in results)
    columns = ("exercise", "seconds", "of which the submission's\nown processes ran", "points")
    table = reports.table("A complete submission", *columns, words=0)
    lost = []
    for one in results:
        reached = _points(one)
        points = f"{reached:g} of {one['worth']:g}"
        table.add_row(one["number"], f"{one['seconds']:.1f}", f"{one['own_seconds']:.1f}", points)
        why = [f"{test['id']}: {test['message']}" for test in one["tests"] if test["outcome"] == "failed"]
        lost += [one["problem"], *why] if reached < one["worth"] else []
    console.print(table)
    console.print(f"In all {seconds:.1f} s, of which {run:.1f} s in runs of pytest; largest memory {peak:.0f} MB.")
    console.print(f"Outside the student's own processes: {max(0.0, seconds - own) / seconds:.0%} of the time.\n")
    for sentence in lost:
        console.print(f"[red]{escape(sentence)}[/]")
    return not lost


def _class_killed_half_way(
    folder: Path, names: dict[str, str], exercises: list[Exercise], options: list[str], console: Console
) -> bool:
    command = ["--submissions", str(folder / "class"), *options]
    half = len(names) * len(exercises) // 2
    first, peak_first, code = _grade(command, folder / "grades", folder / "log", kill_after=half)
    kept = {path: path.stat().st_mtime_ns for path in _files(folder / "grades")}
    second, peak_second, code_again = _grade(command, folder / "grades", folder / "log")
    results = _results(folder / "grades", list(names), exercises)

    console.print(f"[bold]A class of {len(names)}, {sum(map(bool, names.values()))} of them hostile[/]")
    console.print(f"Killed (exit code {code}) after {first:.1f} s with {len(kept)} results of {half * 2}.")
    console.print(f"Started again: {second:.1f} s, exit code {code_again}. In all {first + second:.1f} s.")
    console.print(f"Largest memory of the grader and all that it started: {max(peak_first, peak_second):.0f} MB.")

    wrong = [f"{path.parent.parent.name}/{path.stem} was graded again" for path, at in kept.items() if path.stat().st_mtime_ns != at]  # fmt: skip
    for name, kind in names.items():
        for exercise, result in zip(exercises, results.get(name, []), strict=False):
            reached = _points(result)
            if result["problem"] or reached != (0 if kind else exercise.points):
                wrong.append(f"{name}, exercise {exercise.number}: {reached:g} points. {result['problem']}")
        if len(results.get(name, [])) != len(exercises):
            wrong.append(f"{name}: {len(results.get(name, []))} of {len(exercises)} results")
    left = [file.name for file in (folder / "grades").glob(".work")]
    if left:
        wrong.append(f"left behind: {left}")
    for sentence in wrong:
        console.print(f"[red]{sentence}[/]", markup=True)
    if not wrong:
        console.print("[green]Nothing lost: every result is there, each honest one with all points, each hostile one with none.[/]")  # fmt: skip
    return not wrong


def _class(folder: Path, exercises: list[Exercise], size: int, hostile: int) -> dict[str, str]:
    """Write submissions; by name, what is hostile about each."""
    kinds = list(HOSTILE) * hostile
    names = {}
    for number in range(size):
        # Spread out, so that some are graded before the grader is killed, and some after.
        kind = kinds[number * hostile // size] if number * hostile // size != (number + 1) * hostile // size else ""
        name = f"student-{number + 1:02}"
        names[name] = kind
        _hand_in(folder / name, exercises, HOSTILE.get(kind, ""))
    return names


def _hand_in(folder: Path, exercises: list[Exercise], before: str = "") -> None:
    for exercise in exercises:
        for file in exercise.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if not before:
                shutil.copy(solution(file), folder / file)
            else:
                (folder / file).write_text(f"import sys\n{before}")


def _grade(
    options: list[str], output: Path, log: Path, kill_after: int | None = None
) -> tuple[float, float, int | None]:
    """Run `make grade`'s command: seconds, the most megabytes that all its processes held at a time, exit code."""
    command = [sys.executable, "-m", "course", "grade", *options, "--output", str(output)]
    begun, peak = time.monotonic(), 0.0
    with running(command, cwd=ROOT, env=dict(os.environ), log=log) as process:
        while process.poll() is None:
            peak = max(peak, _megabytes(process.pid))
            if kill_after is not None and len(_files(output)) >= kill_after:
                process.kill()
                process.wait()
                break
            time.sleep(0.25)
        return time.monotonic() - begun, peak, process.returncode


def _megabytes(pid: int) -> float:
    """What a process and all below it hold."""
    try:
        process = psutil.Process(pid)
        return used([process, *process.children(recursive=True)])[1]
    except psutil.Error:
        return 0


def _points(result: dict) -> float:
    return round(sum(test["points"] for test in result["tests"] if test["outcome"] == "passed"), 4)


def _files(output: Path) -> list[Path]:
    return sorted(output.glob("*/exercises/*.json"))


def _results(output: Path, names: list[str], exercises: list[Exercise]) -> dict[str, list[dict]]:
    found = {}
    for name in names:
        files = [output / name / "exercises" / f"{one.number}.json" for one in exercises]
        found[name] = [json.loads(file.read_text()) for file in files if file.is_file()]
    return found
