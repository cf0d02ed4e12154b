"""Runs a script's main function as a command line."""

import sys
from collections.abc import Callable

import typer
from rich.console import Console

from course.base.environment import give_bentoml_a_home, never_proxy_this_machine
from serving import Problem


def run(main: Callable) -> None:
    """Make a command line of main's arguments, as Typer does, and run it."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    call(app)


def call(app: Callable) -> None:
    """Run a command line; a Problem, or a part not written yet, ends it with one sentence and exit code 1."""
    never_proxy_this_machine()
    give_bentoml_a_home()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows ? for what it cannot
    try:
        app()
    except Problem as problem:
        _fail(str(problem))
    except NotImplementedError as todo:
        frame = todo.__traceback__
        while frame.tb_next:
            frame = frame.tb_next
        code = frame.tb_frame.f_code
        _fail(f"Still to do: {code.co_name}() in {code.co_filename}, line {frame.tb_lineno}. {todo}")


def _fail(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True).print(sentence, style="bold red", markup=False, highlight=False)
    sys.exit(1)
