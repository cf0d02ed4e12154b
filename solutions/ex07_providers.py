"""Exercise 07: which execution providers there are, and which one a session really runs on.

python solutions/ex07_providers.py --provider CUDAExecutionProvider --provider CPUExecutionProvider
"""

from pathlib import Path
from typing import Annotated

import onnxruntime as ort
from typer import Option

from course.given.files import reading
from course.given.providers import require_known, why_not
from course.given.script import run
from course.given.show import console, print_table
from serving import Problem
from serving.model import MODEL_PATH


def providers() -> dict[str, list[str]]:
    """The execution providers that ONNX Runtime knows ("all") and those in this build ("available"), best first."""
    return {"all": ort.get_all_providers(), "available": ort.get_available_providers()}


def nodes_by_provider(session: ort.InferenceSession) -> dict[str, int]:
    """How many of the model's nodes each provider of a session runs, in the session's order of preference.

    A provider can be registered, even first, and run nothing: then its count is 0.
    Open the session with `session.record_ep_graph_assignment_info` set to 1.
    """
    nodes = dict.fromkeys(session.get_providers(), 0)
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return nodes


def chosen(nodes: dict[str, int]) -> str:
    """The provider that a session really runs on, from nodes_by_provider(): the first that runs a node of the model."""
    return next((name for name, count in nodes.items() if count), "CPUExecutionProvider")


def open_session(model_path: Path, wanted: list[str], strict: bool = False) -> ort.InferenceSession:
    """Open a model with the wanted providers, the most wanted first. The CPU runs what they cannot run.

    Raises:
        Problem: the model is missing or cannot be loaded, a name is unknown, no provider is wanted, or,
            if strict, the session runs on another provider than the first wanted.
    """
    require_known(wanted)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # Only those in this build: ONNX Runtime warns about the others where nobody reads it. why_not() says so instead.
    available = [name for name in dict.fromkeys(wanted) if name in providers()["available"]]
    with reading(model_path):
        session = ort.InferenceSession(model_path, options, providers=available or ["CPUExecutionProvider"])
    if strict:
        nodes = nodes_by_provider(session)
        if chosen(nodes) != wanted[0]:
            raise Problem(
                f"{wanted[0]} was not taken: {why_not(wanted[0], nodes)}. The session would run on {chosen(nodes)}."
            )
        session.disable_fallback()  # otherwise an error while running moves the session to the CPU
    return session


def outcome(model_path: Path, wanted: list[str], strict: bool = False) -> dict:
    """Open a session and say what it runs on.

    Returns:
        {"chosen": the provider that the session really runs on,
         "nodes": {provider: how many of the model's nodes it runs}, in the session's order,
         "not_taken": {provider: why}, for each wanted one that runs no node}

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
    provider: Annotated[list[str], Option(help="A wanted provider; repeat it for the next best.")] = (
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
    strict: Annotated[bool, Option("--strict", help="Fail unless the session runs on the first one.")] = False,
    model: Annotated[Path, Option(help="The model file.")] = MODEL_PATH,
) -> None:
    """Print the execution providers, open a session with the wanted ones, and say which one it runs on."""
    known, wanted = providers(), list(provider)
    rows = [
        (name, "yes" if name in known["available"] else "", f"{wanted.index(name) + 1}." if name in wanted else "")
        for name in known["all"]
    ]
    print_table(rows, "execution provider", "in this build", "wanted", title=f"ONNX Runtime {ort.__version__}")
    result = outcome(model, wanted, strict)
    total = sum(result["nodes"].values())
    console.print(f"The session runs on {result['chosen']}: {result['nodes'][result['chosen']]} of {total} nodes.")
    for name, why in result["not_taken"].items():
        console.print(f"{name} was not taken: {why}.", style="yellow")


if __name__ == "__main__":
    run(main)
