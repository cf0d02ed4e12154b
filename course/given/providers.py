"""Sentences about execution providers, for exercise 07."""

import difflib
import re

import onnxruntime as ort

from serving import Problem


def require_known(wanted: list[str]) -> None:
    """Refuse names that no build of ONNX Runtime has: ONNX Runtime itself prints an error and takes the CPU.

    Raises Problem for none, or for an unknown name, and suggests names like it.
    """
    if not wanted:
        raise Problem("Name at least one execution provider: without one, ONNX Runtime silently takes the CPU.")
    known = {_stem(name): name for name in ort.get_all_providers()}
    for name in wanted:
        if name not in known.values():
            close = [known[stem] for stem in difflib.get_close_matches(_stem(name), known)]
            meant = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(known.values())}."
            raise Problem(f"ONNX Runtime knows no execution provider {name!r}. {meant}")


def _stem(name: str) -> str:
    """The part that tells names apart: `cuda` of `CUDAExecutionProvider`, of `CUDAExecProvidr` and of `cuda`."""
    return re.sub(r"(exec|prov).*", "", name.lower())


def why_not(name: str, nodes: dict[str, int]) -> str:
    """Why a wanted provider runs none of the nodes (by provider, of a session), as half a sentence."""
    if name not in ort.get_available_providers():
        return f"this build of ONNX Runtime ({ort.__version__}) does not have it"
    if name not in nodes:
        return "this build has it, but it did not start (no device, no driver, or a library missing)"
    return f"the session has it, but it runs none of the model's {sum(nodes.values())} nodes"
