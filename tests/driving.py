"""Runs in the process of student code, for what a test cannot do from outside; see the fixture `drive`.

Several calls or command lines share one process, because importing PyTorch takes longer than most of them.
"""

import importlib.util
import io
import os
import runpy
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout


def load(path):
    """The module of a student's file."""
    spec = importlib.util.spec_from_file_location("student", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def each(path, name, calls):
    """What a function returns when it is called with each of these arguments, or why it does not return."""
    called, outcomes = getattr(load(path), name), []
    for arguments in calls:
        try:
            outcomes.append({"returned": called(**arguments)})
        except NotImplementedError as todo:
            outcomes.append({"failed": f"{name}() is not written yet. {todo}"})
        except Exception as error:
            outcomes.append({"failed": f"{name}() raised {type(error).__name__}: {error}"})
    return outcomes


def command_lines(path, lines):
    """The exit code and the output of `python path ...` for each of lines: {"arguments", "env" and "path" if others}."""
    outcomes = []
    for line in lines:
        os.environ.update(line.get("env", {}))
        sys.argv = [str(word) for word in (line.get("path", path), *line["arguments"])]
        output, code = io.TextIOWrapper(io.BytesIO()), 0
        with redirect_stdout(output), redirect_stderr(output):
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
            except SystemExit as end:
                code = end.code
            except BaseException:
                traceback.print_exc()
                code = 1
        output.flush()
        outcomes.append([code, output.buffer.getvalue().decode()])
    return outcomes
