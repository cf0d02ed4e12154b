"""Runs in the process of student code, for what a test cannot do from outside; see the fixture `drive`."""

import importlib.util


def load(path):
    """The module of a student's file."""
    spec = importlib.util.spec_from_file_location("student", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def each(path, name, calls):
    """What each of several calls returns, or why it does not. In one process: to import PyTorch takes seconds."""
    called, outcomes = getattr(load(path), name), []
    for arguments in calls:
        try:
            outcomes.append({"returned": called(**arguments)})
        except NotImplementedError as todo:
            outcomes.append({"failed": f"{name}() is not written yet. {todo}"})
        except Exception as error:
            outcomes.append({"failed": f"{name}() raised {type(error).__name__}: {error}"})
    return outcomes
