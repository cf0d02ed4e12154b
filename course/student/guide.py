"""The commands for one's own work: list, show, check, hint, progress, solution, reset."""

import difflib
import os
import sys
import time
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table
from typer import Argument, Option

from course import ROOT, STARTED
from course.base import manifest
from course.base.manifest import Exercise
from course.base.processes import is_free
from course.student import check as checks
from course.student import progress, starters
from serving import Problem


class Terminal(Console):
    """A console that ends a command as Ctrl-C does when nobody reads it any more: `make check | head`."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise KeyboardInterrupt


console = Terminal(highlight=False)
# On a terminal lines wrap between words, in a file or a pipe they do not wrap.
console.soft_wrap = not console.is_terminal

Number = Annotated[
    Exercise | None,
    Argument(parser=manifest.find, envvar="EX", metavar="NUMBER", help="Without it, the exercise that you work on."),
]


def page_server() -> tuple[str, list[str]]:
    """What serves the course page: the address, on the first free port from 8000 on, and Python's words."""
    address = next(f"localhost:{port}" for port in range(8000, 8100) if is_free(port))
    return address, ["-m", "mkdocs", "serve", "--quiet", "--dev-addr", address]


def list_exercises() -> None:
    """List all exercises."""
    table = Table("no.", "exercise", "time", "level", "points")
    for part, exercises in groupby(manifest.exercises(), key=lambda one: one.part):
        table.add_section()
        table.add_row("", f"[bold]{escape(part)}[/]")
        for one in exercises:
            title = f"[bold]{escape(one.title)}[/]" if one.core else escape(one.title)
            points = f"{one.points}{' extra' if one.optional else ''}"
            table.add_row(one.number, title, f"{one.minutes} min", one.level, points)
    console.print(table)
    console.print("In bold: the core path.")
    console.print("Next: make help EX=01 shows what an exercise asks for, make check EX=01 checks your work.")


def show(exercise: Number = None) -> None:
    """Show what an exercise asks for, and the commands for it."""
    exercise = exercise or progress.current()
    console.print(_title(exercise) + f"  ({exercise.points} points)\n\n{escape(exercise.goal)}\n")
    for file in exercise.files:
        console.print(f"Fill in   exercises/{file}")
    console.print(f"Try it    make try EX={exercise.number}, which runs: {escape(exercise.run)}")
    console.print(f"Check it  make check EX={exercise.number}")
    console.print(f"Read on   {exercise.page}, or `make docs`: what, why, and {len(exercise.hints)} hints")
    console.print(f"Solution  {', '.join(str(manifest.solution(file).relative_to(ROOT)) for file in exercise.files)}")


def _title(exercise: Exercise) -> str:
    return f"[bold]{exercise.number}  {escape(exercise.title)}[/]"


def check(
    exercises: Annotated[
        list | None,
        Argument(
            parser=manifest.find_several,
            envvar="EX",
            metavar="NUMBERS",
            help="Such as '04 07'. Without any: all that you began.",
        ),
    ] = None,
) -> None:
    """Run the tests on exercises/, up to the first failure of each exercise."""
    chosen = exercises or manifest.exercises()
    begun = [exercise for exercise in chosen if exercises or not manifest.untouched(exercise)]
    try:
        done = [exercise for exercise in begun if checks.check_exercise(exercise, console)]
    except (checks.Stopped, KeyboardInterrupt):
        console.print("\nStopped. Nothing was left running. The unfinished check is not recorded.")
        raise typer.Exit(130) from None
    if new := [exercise.number for exercise in chosen if exercise not in begun]:
        console.print(f"\nNot begun: {', '.join(new)}")
    _show_next(chosen[0] if len(chosen) == 1 else None)
    console.print()
    _show_total()
    console.print(f"[dim]{time.perf_counter() - STARTED:.1f} s[/]")
    if len(done) < len(chosen):
        raise typer.Exit(1)


def _show_next(exercise: Exercise | None) -> None:
    """What to do after a check of one exercise, or of several (None)."""
    entries = progress.load()
    if exercise is None:
        exercise = progress.current()
        console.print(f"Next: make check EX={exercise.number} ({exercise.title})")
    elif progress.is_done(exercise, entries):
        console.print(f"Compare: make solution EX={exercise.number}")
        following = progress.following(exercise)
        console.print(f"Next: make help EX={following.number} ({following.title})" if following else "All done.")
    else:
        opened, total = entries[exercise.number].hints, len(exercise.hints)
        hint = f"hint {opened + 1} of {total}" if opened < total else f"all {total} are open"
        console.print(f"Stuck? make hint EX={exercise.number} ({hint}), or read {exercise.page}")
        console.print(f"Then again: make check EX={exercise.number}")


def _show_total() -> None:
    """How far along: exercises, points, and, on a terminal, a bar."""
    entries, known = progress.load(), manifest.exercises()
    done = sum(progress.is_done(one, entries) for one in known)
    reached = sum(progress.points(one, entries) for one in known if not one.optional)
    extra = sum(progress.points(one, entries) for one in known if one.optional)
    possible = sum(one.points for one in known if not one.optional)
    words = f"{done} of {len(known)} exercises done, {reached:g} of {possible} points"
    words += f", {extra:g} extra" if extra else ""
    if console.is_terminal:
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=possible, completed=reached, width=20), words)
        console.print(row, soft_wrap=False)
    else:
        console.print(words)


def hint(exercise: Number = None) -> None:
    """Show the next hint of an exercise."""
    exercise = exercise or progress.current()
    with progress.changing() as entries:
        entry, total = entries[exercise.number], len(exercise.hints)
        new = entry.hints + 1  # beyond the last there is none
        opened = entry.hints = min(new, total)
    console.print(f"\n{_title(exercise)}")
    for i, text in enumerate(exercise.hints[:opened], 1):
        console.print(f"\n[bold]Hint {i} of {total}[/]" if i == new else f"\n[dim]Hint {i}[/]")
        text = Markdown(text) if console.is_terminal else text
        console.print(text, markup=False, style=None if i == new else "dim")
    console.print()
    if left := total - opened:
        console.print(f"{left} left: make hint EX={exercise.number}")
    else:
        console.print(f"No hints left. Read {exercise.page} (make docs): what, why, and what you should see.")
        console.print(f"To see the solution anyway: make solution EX={exercise.number} FORCE=1")


def show_progress() -> None:
    """Show how far you are, from the results of the last checks."""
    entries = progress.load()
    for part, exercises in groupby(manifest.exercises(), key=lambda one: one.part):
        console.print(f"\n[bold]{escape(part)}[/]")
        for one in exercises:
            opened = entries[one.number].hints
            mark, words = _state(one, entries[one.number])
            hints = f", {opened} hint{'s' if opened > 1 else ''}" if opened else ""
            console.print(f"  {mark} {one.number}  {escape(one.name):18} {words}{hints}")
    console.print()
    _show_total()
    exercise = progress.current()
    if not progress.is_done(exercise, entries):
        console.print(f"Next: make help EX={exercise.number} ({escape(exercise.title)})")


def _state(exercise: Exercise, entry: progress.Entry) -> tuple[str, str]:
    """A mark and words for one exercise."""
    last = entry.last
    if manifest.untouched(exercise):
        return "[dim]·[/]", f"[dim]not begun, {exercise.points} points[/]"
    if last is None:
        return "[yellow]…[/]", f"not checked yet: make check EX={exercise.number}"
    found = f"{last.points:g} of {exercise.points} points"
    if entry.best > last.points:
        found += f" (best: {entry.best:g})"
    if not last.done and last.tests:
        found += f", {last.passed} of {last.tests} tests before the first that fails"
    if last.fingerprint != progress.fingerprint(exercise):
        return "[yellow]…[/]", f"{found}; changed since: make check EX={exercise.number}"
    return ("[green]✓[/]" if last.done else "[red]✗[/]"), found


def solution(
    exercise: Number = None,
    force: Annotated[bool, Option("--force", envvar="FORCE", help="Also before your tests pass.")] = False,
    diff: Annotated[bool, Option("--diff", envvar="DIFF", help="Show how your files differ from it.")] = False,
) -> None:
    """Show the solution of an exercise once its tests pass."""
    exercise = exercise or progress.current()
    entry = progress.load()[exercise.number]
    if not (entry.solved or force):
        number, left = exercise.number, max(0, len(exercise.hints) - entry.hints)
        hints = (
            f"{left} of {len(exercise.hints)} hints are left: make hint EX={number}."
            if left
            else "All its hints are open."
        )
        raise Problem(
            f"Exercise {number} has not passed its tests yet (make check EX={number}). {hints} To see it anyway: "
            f"make solution EX={number} FORCE=1"
        )
    for file in exercise.files:
        own, path = ROOT / "exercises" / file, manifest.solution(file)
        shown, text = str(path.relative_to(ROOT)), path.read_text()
        if diff:
            before = own.read_text(errors="replace") if own.is_file() else ""
            sides = before.splitlines(keepends=True), text.splitlines(keepends=True)
            difference = "".join(difflib.unified_diff(*sides, f"exercises/{file}", path.name))
            _show_code(f"exercises/{file} → {shown}", difference or "No difference.\n", "diff")
        else:
            _show_code(shown, text, Syntax.guess_lexer(shown))
    if not diff:
        again = "" if entry.solved else " FORCE=1"
        console.print(f"To compare it with yours: make solution EX={exercise.number} DIFF=1{again}")


def _show_code(title: str, text: str, lexer: str) -> None:
    """Code in colours on a terminal, unchanged in a pipe."""
    if console.is_terminal:
        console.rule(escape(title))
        console.print(Syntax(text, lexer, background_color="default", word_wrap=True), soft_wrap=False)
    else:
        console.file.write(f"# {title}\n{text}")


def reset(exercise: Number = None) -> None:
    """Put the starter of an exercise back. Your own files are kept."""
    if exercise is None:
        raise Problem("Which exercise? make reset EX=04")
    changed = starters.reset(exercise)
    if not changed:
        console.print(
            f"Nothing to do: {' and '.join(f'exercises/{file}' for file in exercise.files)} is already the starter."
        )
    for file, kept in changed:
        console.print(f"[green]exercises/{file} is the starter again.[/]")
        if kept:
            back = f"cp {kept.relative_to(ROOT)} exercises/{file}"
            console.print(f"Your file is kept. To take it back:\n{back}", soft_wrap=True)
