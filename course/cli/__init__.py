"""The commands of `python -m course`, which the Makefile calls: one module for each kind of user."""

import os
import sys

import typer
from typer.exceptions import TyperException

from course.cli import instructor, maintainer, student
from course.student.starters import keep_starters
from serving import Problem

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(student.app)
app.add_typer(instructor.app)
app.add_typer(maintainer.app)


@app.callback()
def before_any_command() -> None:
    """The commands behind the Makefile. Options take their values from make's variables: PORT=3001 is --port 3001."""
    keep_starters()


def main() -> None:
    """Run the command on the command line; raises Problem where it, or a variable of make, is not what is expected."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:  # Ctrl-C, or nobody reads: `make list | head`
        sys.exit(130)
    except typer.BadParameter as error:
        raise Problem(_sentence(error)) from error
    except TyperException as error:
        raise Problem(f"{error.format_message()} See: python -m course --help") from error


def _sentence(error: typer.BadParameter) -> str:
    """What was typed and what was expected, such as USERS=x: expected a whole number from 1 to 1000."""
    option = error.param
    kind, limits = option.type_descriptor, option.type_descriptor.parameter_info
    if kind.is_ranged:
        expected = f"a whole number from {limits.min} to {limits.max}"
    elif kind.choices:
        expected = f"one of {', '.join(kind.choices)}"
    elif kind.is_path:
        expected = "a folder that exists"
    elif kind.annotation is bool:
        expected = "1 for yes or 0 for no"
    else:
        return error.format_message()
    in_environment = error.ctx.get_parameter_source(option.name).name == "ENVIRONMENT"
    typed = f"{option.envvar}={os.environ[option.envvar]}" if in_environment else option.opts[0]
    return f"{typed}: expected {expected}."
