"""The end of the build of an inference image: make sure that it holds what it is meant to run with.

python -m serving.inference_check models/resnet18.onnx "$CUDA"

There is no GPU where images are built, and both runtimes take the CPU without a word, so a run proves nothing. Looked
at instead: what the runtime was built for, and whether every library that it loads is there.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from serving import Problem
from serving.inference import CUDA, load

# The driver: it belongs to the machine's kernel, and `docker run --gpus` brings it in from there.
FROM_THE_HOST = {"libcuda.so.1"}


def check(path: Path, cuda: str) -> str:
    """Make sure that an image is what its build argument CUDA says, and return a sentence on what it holds.

    Raises Problem: another CUDA than `true` or empty, no sound answer, another build, a missing library.
    """
    if cuda not in ("true", ""):
        raise Problem(f"CUDA={cuda}: say CUDA=true, or leave it out.")
    model = load(path)
    if not np.isfinite(logits := model.run(np.zeros((2, 3, 224, 224), dtype=np.float32))).all() or len(logits) != 2:
        raise Problem(f"{path} runs, but its answer is not two rows of finite numbers: {logits}.")
    built_for = onnxruntime_cuda() if path.suffix == ".onnx" else pytorch_cuda()
    if cuda and not built_for:
        raise Problem(f"CUDA=true, but this build has no CUDA in it: {model.runs_on}. It would always run on the CPU.")
    if built_for and not cuda:
        raise Problem(f"CUDA is empty, but this build is one for CUDA {built_for}: gigabytes that nothing here uses.")
    return f"{path}: {model.runs_on}; {f'CUDA {built_for}, with all that it loads' if cuda else 'no CUDA'}."


def onnxruntime_cuda() -> str:
    """The CUDA version of ONNX Runtime's CUDA provider, empty without one; raises Problem for a missing library."""
    import onnxruntime as ort

    if CUDA not in ort.get_available_providers():  # that is: those which are built in
        return ""
    package = Path(ort.__file__).parent
    # Those that it finds when it needs them, so that no linker names them: cuDNN, cuFFT and others.
    for words in ort._get_nvidia_dll_paths(is_windows=False):
        try:
            ctypes.CDLL(str(package.parent.joinpath(*words)), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise Problem(f"A library that the CUDA provider loads is missing: {error}") from error
    need_linked(package / "capi" / "libonnxruntime_providers_cuda.so", package.parent)
    return ort.cuda_version


def pytorch_cuda() -> str:
    """The CUDA version of PyTorch, empty without one; raises Problem for a missing library."""
    import torch

    if torch.version.cuda is None:
        return ""
    need_linked(Path(torch.__file__).parent / "lib" / "libtorch_cuda.so", Path(torch.__file__).parents[1])
    return torch.version.cuda


def need_linked(library: Path, packages: Path) -> None:
    """Make sure that the linker finds all that a library is linked with, in NVIDIA's Python packages or the system."""
    env = os.environ | {"LD_LIBRARY_PATH": ":".join(map(str, packages.glob("nvidia/*/lib")))}
    listed = subprocess.run(["ldd", str(library)], env=env, capture_output=True, text=True)
    if listed.returncode:
        raise Problem(f"{library} cannot be read: {listed.stderr.strip()}")
    missing = set(re.findall(r"^\s*(\S+) => not found", listed.stdout, re.MULTILINE)) - FROM_THE_HOST
    if missing:
        raise Problem(f"{library.name} is linked with libraries that are not here: {', '.join(sorted(missing))}.")


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
    except Problem as problem:
        sys.exit(str(problem))
