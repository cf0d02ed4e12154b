"""Exercise 07: which execution providers there are, and which one a session really runs on.

python exercises/ex07_providers.py --provider CUDAExecutionProvider --provider CPUExecutionProvider
"""

import difflib
import re
from pathlib import Path
from typing import Annotated

import onnxruntime as ort
from rich.console import Console
from rich.table import Table
from typer import Option

from course.given.script import run
from serving import Problem
from serving.model import MODEL_PATH


def providers() -> dict[str, list[str]]:
    """The execution providers that ONNX Runtime knows of, and those in this build, best first.

    Returns:
        {"all": [...], "available": [...]} of names such as `CPUExecutionProvider`.
    """
    # TODO 1: ort.get_all_providers() and ort.get_available_providers().
    raise NotImplementedError("List the execution providers.")


def require_known(wanted: list[str]) -> None:
    """Refuse names that no build of ONNX Runtime has, which are slips of the pen.

    ONNX Runtime itself would print its error and go on with the CPU.

    Raises:
        Problem: wanted is empty, or a name is unknown; the sentence names those that look like it.
    """
    # TODO 2: a Problem where wanted is empty, and where a name is not in providers()["all"];
    # difflib.get_close_matches finds the names that look like it. Think of `cuda`, too, which many people type.
    raise NotImplementedError("Refuse unknown names, and say which were meant.")


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, int]:
    """How many of the model's nodes each provider of a session runs, in the session's order of preference.

    A provider can be registered, even first, and run nothing: then its count is 0.
    The session must have been opened with `session.record_ep_graph_assignment_info` set to 1.
    """
    # TODO 3: start every provider of session.get_providers() with 0; each part of
    # session.get_provider_graph_assignment_info() has an `ep_name` and `get_nodes()`.
    raise NotImplementedError("Count the nodes that each provider runs.")


def chosen(nodes: dict[str, int]) -> str:
    """The provider that a session really runs on: the first that was given a node of the model.

    Args:
        nodes: what nodes_by_provider() returned.
    """
    # TODO 4: the first provider with more than 0 nodes; a model without nodes needs the CPU alone.
    raise NotImplementedError("Find the provider that runs the model.")


def why_not(name: str, nodes: dict[str, int]) -> str:
    """Why a wanted provider runs none of the model's nodes, in half a sentence."""
    if name not in providers()["available"]:
        return f"this build of ONNX Runtime ({ort.__version__}) does not have it"
    if name not in nodes:
        return "this build has it, but it did not start (no device, no driver, or a library missing)"
    return f"the session has it, but it runs none of the model's {sum(nodes.values())} nodes"


def open_session(model_path: Path, wanted: list[str], strict: bool = False) -> ort.InferenceSession:
    """Open a model with the wanted providers in order of preference; what they cannot run, the CPU does.

    Args:
        model_path: an ONNX file.
        wanted: names of providers, the most wanted first.
        strict: refuse a session that does not run on the first of them.

    Raises:
        Problem: the model is missing or cannot be loaded, a name is unknown, none is wanted, or,
            if strict, the session would run on another provider than the first wanted.
    """
    # TODO 5: require_known(); a Problem where the file is missing or cannot be loaded; ort.InferenceSession with
    # `session.record_ep_graph_assignment_info` set to "1" in its options and those of the wanted providers that this
    # build has; if strict, a Problem unless chosen(nodes_by_provider(session)) is the first wanted.
    raise NotImplementedError("Open a session, and refuse the wrong provider if strict.")


def outcome(model_path: Path, wanted: list[str], strict: bool = False) -> dict:
    """Open a session and say what came of the wish.

    Returns:
        {"chosen": the provider that the session really runs on,
         "nodes": {provider: how many of the model's nodes it runs}, in the session's order,
         "not_taken": {provider: why}, for each wanted one that runs none of the nodes}

    Raises:
        Problem: as open_session().
    """
    # TODO 6: open_session(), nodes_by_provider(), chosen(), and why_not() for each wanted provider with no nodes.
    raise NotImplementedError("Say what the session really got.")


def main(
    provider: Annotated[list[str], Option(help="Wanted; give it again for the next best.")] = (
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
    strict: Annotated[bool, Option("--strict", help="Fail unless the first one is taken.")] = False,
    model: Annotated[Path, Option(help="The model file.")] = MODEL_PATH,
) -> None:
    """Print the execution providers, open a session with the wanted ones, and say which it really got."""
    console = Console(soft_wrap=True)
    known, wanted = providers(), list(provider)
    table = Table(title=f"ONNX Runtime {ort.__version__}", title_justify="left")
    for column in ("execution provider", "in this build", "wanted"):
        table.add_column(column)
    for name in known["all"]:
        place = f"{wanted.index(name) + 1}." if name in wanted else ""
        table.add_row(name, "yes" if name in known["available"] else "", place)
    console.print(table)

    result = outcome(model, wanted, strict)
    total = sum(result["nodes"].values())
    console.print(f"The session runs on {result['chosen']}: {result['nodes'][result['chosen']]} of {total} nodes.")
    for name, why in result["not_taken"].items():
        console.print(f"{name} was not taken: {why}.", style="yellow")


if __name__ == "__main__":
    run(main)
