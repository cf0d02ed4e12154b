"""What a student sees besides the tests: hints, progress, solutions, and what to do next."""

import difflib
import time
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.syntax import Syntax
from rich.table import Table

from course import ROOT, STARTED
from course.base import manifest
from course.base.manifest import Exercise
from course.student import progress
from serving import Problem


def terminal() -> Console:
    """A console whose lines wrap between words on a terminal, and do not wrap where they go into a file or a pipe."""
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal
    return console


def check(number: str, console: Console) -> bool:
    """Check one exercise, or all that were begun; True where all that were asked for are done."""
    from course.student.check import check_exercise

    chosen = [manifest.find(number)] if number else manifest.exercises()
    begun = [exercise for exercise in chosen if number or not manifest.untouched(exercise)]
    done = [exercise for exercise in begun if check_exercise(exercise, console).done]
    if new := [exercise.number for exercise in chosen if exercise not in begun]:
        console.print(f"\nNot begun: {', '.join(new)}")
    _show_next(console, begun[0] if number else None, bool(done))
    console.print(f"[dim]{time.perf_counter() - STARTED:.1f} s[/]")
    return len(done) == len(chosen)


def _show_next(console: Console, exercise: Exercise | None, done: bool) -> None:
    """What to look at after a check, and how far along the whole course is."""
    if exercise is None:
        exercise, done = progress.current(), False
        console.print(f"Next: make check EX={exercise.number} ({exercise.title})")
    elif done:
        following = _following(exercise)
        console.print(f"Compare: make solution EX={exercise.number}")
        console.print(
            f"Next: make help EX={following.number} ({following.title})" if following else "That was the last."
        )
    else:
        opened, all_hints = progress.load()[exercise.number].hints, len(exercise.hints)
        hint = f"hint {opened + 1} of {all_hints}" if opened < all_hints else f"all {all_hints} are open"
        console.print(f"Stuck? make hint EX={exercise.number} ({hint}), or read {exercise.page}")
        console.print(f"Then again: make check EX={exercise.number}")
    console.print()
    _show_total(console)


def _following(exercise: Exercise) -> Exercise | None:
    """The next exercise that is not done: after this one, or else from the beginning."""
    entries = progress.load()
    left = [one for one in manifest.exercises() if not progress.is_done(one, entries[one.number])]
    return next((one for one in left if one.number > exercise.number), left[0] if left else None)


def _show_total(console: Console) -> None:
    """How far along: exercises, points, and, on a terminal, a bar."""
    entries = progress.load()
    known = manifest.exercises()
    done = sum(progress.is_done(one, entries[one.number]) for one in known)
    reached = {
        optional: sum(progress.points(one, entries[one.number]) for one in known if one.optional == optional)
        for optional in (False, True)
    }
    possible = sum(one.points for one in known if not one.optional)
    extra = f", {reached[True]:g} extra" if reached[True] else ""
    words = f"{done} of {len(known)} exercises done, {reached[False]:g} of {possible} points{extra}"
    if console.is_terminal:
        row = Table.grid(padding=(0, 1))
        row.add_row(ProgressBar(total=possible, completed=reached[False], width=20), words)
        console.print(row, soft_wrap=False)
    else:
        console.print(words)


def hint(number: str, console: Console) -> None:
    """Open the next hint of an exercise."""
    exercise = manifest.find(number) if number else progress.current()
    with progress.changing() as entries:
        entry = entries[exercise.number]
        was_last = entry.hints >= len(exercise.hints)
        opened = entry.hints = min(entry.hints + 1, len(exercise.hints))
    console.print(f"\n[bold]{exercise.number}  {escape(exercise.title)}[/]")
    for i, text in enumerate(exercise.hints[:opened], 1):
        new = i == opened and not was_last
        console.print(f"\n[bold]Hint {i} of {len(exercise.hints)}[/]" if new else f"\n[dim]Hint {i}[/]")
        console.print(Markdown(text) if console.is_terminal else text, markup=False, style=None if new else "dim")
    console.print()
    if left := len(exercise.hints) - opened:
        console.print(f"{left} left: make hint EX={exercise.number}")
    else:
        console.print(f"No hints left. {exercise.page} goes on (make docs): what, why, and what you should see.")
        console.print(f"If you insist, the solution: make solution EX={exercise.number} FORCE=1")


def show_progress(console: Console) -> None:
    """Every exercise with what its last check found."""
    entries = progress.load()
    for part in dict.fromkeys(exercise.part for exercise in manifest.exercises()):
        console.print(f"\n[bold]{escape(part)}[/]")
        for exercise in (one for one in manifest.exercises() if one.part == part):
            mark, words = _state(exercise, entries[exercise.number])
            used = entries[exercise.number].hints
            hints = f", {used} hint{'s' if used > 1 else ''}" if used else ""
            console.print(f"  {mark} {exercise.number}  {escape(exercise.name):18} {words}{hints}")
    console.print()
    _show_total(console)
    exercise = progress.current()
    if not progress.is_done(exercise, entries[exercise.number]):
        console.print(f"Next: make help EX={exercise.number} ({escape(exercise.title)})")


def _state(exercise: Exercise, entry: progress.Entry) -> tuple[str, str]:
    """A mark and words for one exercise."""
    if manifest.untouched(exercise):
        return "[dim]·[/]", f"[dim]not begun, {exercise.points} points[/]"
    if entry.last is None:
        return "[yellow]…[/]", f"not checked yet: make check EX={exercise.number}"
    found = f"{entry.last.points:g} of {exercise.points} points"
    if not entry.last.done and entry.last.tests:
        found += f", {entry.last.passed} of {entry.last.tests} tests before the first that fails"
    if progress.changed(exercise, entry):
        return "[yellow]…[/]", f"{found}; changed since: make check EX={exercise.number}"
    return ("[green]✓[/]" if entry.last.done else "[red]✗[/]"), found


def show_solution(number: str, force: bool, diff: bool, console: Console) -> None:
    """Print an exercise's solution, or how the student's files differ from it.

    Raises:
        Problem: the exercise was never solved, and nobody insists.
    """
    exercise = manifest.find(number) if number else progress.current()
    entry = progress.load()[exercise.number]
    if not (entry.solved or force):
        left = len(exercise.hints) - entry.hints
        hints = f"There {'is' if left == 1 else 'are'} {left} of {len(exercise.hints)} hints to open: make hint EX={exercise.number}"
        raise Problem(
            f"Exercise {exercise.number} has not passed its tests yet (make check EX={exercise.number}). "
            f"{hints if left else 'All its hints are open.'} If you insist: make solution EX={exercise.number} FORCE=1"
        )
    for file in exercise.files:
        path = manifest.solution(file)
        shown = str(path.relative_to(ROOT))
        if diff:
            text = _difference(ROOT / "exercises" / file, path)
            _show_code(console, f"exercises/{file} → {shown}", text or "No difference.\n", "diff")
        else:
            _show_code(console, shown, path.read_text(), Syntax.guess_lexer(shown))
    if not diff:
        console.print(f"Beside your own: make solution EX={exercise.number} DIFF=1{'' if entry.solved else ' FORCE=1'}")


def _difference(own: Path, solved: Path) -> str:
    """A unified diff from the student's file to the solution."""
    before = own.read_text(errors="replace").splitlines(keepends=True) if own.is_file() else []
    return "".join(
        difflib.unified_diff(
            before, solved.read_text().splitlines(keepends=True), str(own.relative_to(ROOT)), solved.name
        )
    )


def _show_code(console: Console, title: str, text: str, lexer: str) -> None:
    """Code in colours on a terminal; as it is, in a pipe."""
    console.rule(escape(title)) if console.is_terminal else console.print(f"# {title}", markup=False)
    if console.is_terminal:
        console.print(Syntax(text, lexer, background_color="default", word_wrap=True), soft_wrap=False)
    else:
        console.file.write(text)


def reset(number: str, console: Console) -> None:
    """Put an exercise's starter back, and tell where the student's own files are now."""
    from course.student.starters import reset

    if not number:
        raise Problem("Which exercise? make reset EX=04")
    exercise = manifest.find(number)
    changed = reset(exercise)
    if not changed:
        console.print(f"Nothing to do: {_files(exercise)} is the starter already.")
    for file, kept in changed:
        console.print(f"[green]exercises/{file} is the starter again.[/]")
        if kept:
            kept = kept.relative_to(ROOT)
            console.print(f"Your own is kept. To take it back:\ncp {kept} exercises/{file}", soft_wrap=True)


def _files(exercise: Exercise) -> str:
    return " and ".join(f"exercises/{file}" for file in exercise.files)
