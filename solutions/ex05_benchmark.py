"""Exercise 05: PyTorch against ONNX Runtime, measured so that a critical reader believes it.

python solutions/ex05_benchmark.py --quick
"""

import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from typer import Option

# What the course gives: the models, one process for each turn, tables and plots.
from course.given.benchmark import Lie, Plan, benchmark
from course.given.script import run

Runner = Callable[[np.ndarray], np.ndarray]  # images (batch, 3, height, width) to logits (batch, 1000), both float32


def pytorch_runner(model: Any, threads: int, autograd: bool = False) -> Runner:
    """Prepare a PyTorch model, a torch.nn.Module, to serve with that many threads.

    With autograd, PyTorch keeps what a backward pass would need, as it does by default: LIE=autograd measures that.
    """
    import torch  # here and not above: each process imports the runtime that it measures, and no other

    torch.set_num_threads(threads)
    model.eval()  # batch normalisation uses the statistics of the training, not those of the batch

    def run_model(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode(not autograd):
            return model(torch.from_numpy(images)).detach().numpy()

    return run_model


def onnxruntime_runner(path: Path, threads: int) -> Runner:
    """Open an ONNX file on the CPU, with that many threads; its first output is the logits."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads  # share the work of each operator
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def timed(function: Callable) -> Callable:
    """Decorate a function so that it returns (what it returned, the seconds that it took).

    The seconds are those of a clock that only goes forward: time.time() jumps when somebody sets it.
    """

    @wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> tuple[Any, float]:
        begin = time.perf_counter()
        result = function(*arguments, **options)
        return result, time.perf_counter() - begin

    return wrapper


def measure(function: Callable[[], Any], warmup: int, repeats: int) -> list[float]:
    """Call a function warmup times and then repeats times; return the seconds of each of the latter, in order.

    The first calls pay for what happens once: memory is allocated, kernels are chosen, caches are cold.
    """
    for _ in range(warmup):
        function()
    return [timed(function)()[1] for _ in range(repeats)]


def speedup(baseline: list[list[float]], candidate: list[list[float]]) -> tuple[float, float, float]:
    """How many times faster the candidate is, and the 95% interval of that: (ratio, low, high).

    Both are seconds by round. The ratio is that of the medians. The interval comes from a bootstrap in two
    steps: rounds are drawn with replacement, then runs within each. So it counts what differs between rounds
    (another process, a warmer machine) as doubt; drawing from all runs at once would hide it.
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.)
    """
    random = np.random.default_rng(0)

    def median_of_resample(rounds: list[list[float]]) -> float:
        drawn = (rounds[i] for i in random.integers(len(rounds), size=len(rounds)))
        return float(np.median(np.concatenate([random.choice(runs, size=len(runs)) for runs in drawn])))

    ratio = np.median(np.concatenate(baseline)) / np.median(np.concatenate(candidate))
    ratios = [median_of_resample(baseline) / median_of_resample(candidate) for _ in range(2000)]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(ratio), float(low), float(high)


def main(
    quick: Annotated[bool, Option("--quick", help="One size, two batches, three runtimes: under a minute.")] = False,
    sizes: Annotated[list[int] | None, Option("--size", help="Height and width.", show_default="224 448 896")] = None,
    batches: Annotated[list[int] | None, Option("--batch", help="Images at once.", show_default="1 8 32")] = None,
    rounds: Annotated[int | None, Option(min=1, help="Turns of each runtime.", show_default="2, quick 3")] = None,
    threads: Annotated[int | None, Option(min=1, help="Of each runtime.", show_default="physical cores")] = None,
    lie: Annotated[Lie | None, Option(help="Measure wrongly on purpose, to see what comes out.")] = None,
    output: Annotated[Path, Option(help="Folder for table, plots and all measurements.")] = Path("reports/benchmark"),
) -> None:
    """Compare runtimes over image sizes and batch sizes; each in turn, in a process of its own."""
    plan = Plan.make(quick=quick, sizes=sizes, batches=batches, rounds=rounds, threads=threads, lie=lie)
    benchmark(plan, Path(__file__), measure, speedup, output)


if __name__ == "__main__":
    run(main)
