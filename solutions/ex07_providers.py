"""Exercise 07: which execution providers there are, and which one a session really runs on.

python solutions/ex07_providers.py --provider CUDAExecutionProvider --provider CPUExecutionProvider
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
    return {"all": ort.get_all_providers(), "available": ort.get_available_providers()}


def require_known(wanted: list[str]) -> None:
    """Refuse names that no build of ONNX Runtime has, which are slips of the pen.

    ONNX Runtime itself would print its error and go on with the CPU.

    Raises:
        Problem: wanted is empty, or a name is unknown; the sentence names those that look like it.
    """
    if not wanted:
        raise Problem("Name at least one execution provider: ONNX Runtime would take the CPU and say nothing.")
    known = {_stem(name): name for name in providers()["all"]}
    for name in wanted:
        if name not in known.values():
            close = [known[stem] for stem in difflib.get_close_matches(_stem(name), known)]
            meant = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(known.values())}."
            raise Problem(f"ONNX Runtime knows no execution provider {name!r}. {meant}")


def _stem(name: str) -> str:
    """What tells names apart: `cuda` of `CUDAExecutionProvider`, of `CUDAExecProvidr` and of `cuda`."""
    return re.sub(r"(exec|prov).*", "", name.lower())


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, int]:
    """How many of the model's nodes each provider of a session runs, in the session's order of preference.

    A provider can be registered, even first, and run nothing: then its count is 0.
    The session must have been opened with `session.record_ep_graph_assignment_info` set to 1.
    """
    nodes = dict.fromkeys(session.get_providers(), 0)
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return nodes


def chosen(nodes: dict[str, int]) -> str:
    """The provider that a session really runs on: the first that was given a node of the model.

    Args:
        nodes: what nodes_by_provider() returned.
    """
    return next((name for name, count in nodes.items() if count), "CPUExecutionProvider")


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
    require_known(wanted)
    if not Path(model_path).is_file():
        raise Problem(f"There is no model at {model_path}. Run `make export` first.")
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Only what this build has: the rest would raise warnings that nobody reads. why_not() tells of it instead.
    available = [name for name in dict.fromkeys(wanted) if name in providers()["available"]]
    try:
        session = ort.InferenceSession(model_path, options, providers=available or ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a dozen kinds of its own for a broken file
        raise Problem(f"{model_path} cannot be loaded: {str(error).splitlines()[0]}") from error
    if strict:
        nodes = nodes_by_provider(session)
        if chosen(nodes) != wanted[0]:
            raise Problem(
                f"{wanted[0]} was not taken: {why_not(wanted[0], nodes)}. The session would run on {chosen(nodes)}."
            )
        session.disable_fallback()  # or an error while running would move the session to the CPU
    return session


def outcome(model_path: Path, wanted: list[str], strict: bool = False) -> dict:
    """Open a session and say what came of the wish.

    Returns:
        {"chosen": the provider that the session really runs on,
         "nodes": {provider: how many of the model's nodes it runs}, in the session's order,
         "not_taken": {provider: why}, for each wanted one that runs none of the nodes}

    Raises:
        Problem: as open_session().
    """
    nodes = nodes_by_provider(open_session(model_path, wanted, strict))
    return {
        "chosen": chosen(nodes),
        "nodes": nodes,
        "not_taken": {name: why_not(name, nodes) for name in wanted if not nodes.get(name)},
    }


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
