"""Exercise 05: a benchmark that is right about what it measured."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from small_models import small_model

from course.harness import written
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from course.isolation import sandbox

# Runs in the worker's process: functions cannot travel there, so these call the student's ones on the spot.
DRIVER = '''
import importlib.util
import time

def load(path):
    spec = importlib.util.spec_from_file_location("ex05", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def try_timed(path):
    def weigh(fruit, *, tare=0):
        """How heavy a fruit is."""
        time.sleep(0.2)
        return len(fruit) - tare
    timed = load(path).timed(weigh)
    result = timed("melon", tare=2)
    return {"result": list(result), "name": timed.__name__, "doc": timed.__doc__}

def try_measure(path, warmup, repeats):
    calls = []
    def run():
        calls.append(1)
        if len(calls) <= warmup:
            time.sleep(0.5)
    seconds = load(path).measure(run, warmup, repeats)
    return {"calls": len(calls), "seconds": list(seconds)}

def try_speedup(path, pairs):
    speedup = load(path).speedup
    return [list(speedup(baseline, candidate)) for baseline, candidate in pairs]

def try_pytorch(path, images, threads):
    import torch
    class Model(torch.nn.Module):
        """Answers otherwise while it is trained, and notes how it is called."""
        def __init__(self):
            super().__init__()
            self.norm, self.weight, self.recorded = torch.nn.BatchNorm2d(3), torch.nn.Parameter(torch.ones(1)), []
        def forward(self, images):
            answer = self.weight * self.norm(images).flatten(1)
            self.recorded.append(answer.requires_grad)
            return answer
    model = Model()
    runner = load(path).pytorch_runner(model, threads)
    answer = runner(images)
    load(path).pytorch_runner(model, threads, autograd=True)(images)
    return {"answer": answer, "threads": torch.get_num_threads(), "recorded": model.recorded}

def try_onnxruntime(path, models, images):
    import os, threading
    import psutil
    open_model = load(path).onnxruntime_runner
    counts = [psutil.Process().num_threads()]
    runners = []
    for number, model in enumerate(models, 1):  # with one thread, then with two, ...
        runners.append(open_model(model, number))
        counts.append(psutil.Process().num_threads())
    return {"answers": [runner(images) for runner in runners], "counts": counts}
'''
FILE = "ex05_benchmark.py"


@pytest.fixture
def drive(submission: Submission, tmp_path: Path):
    """Call a function of DRIVER on the student's file."""
    (tmp_path / "driver.py").write_text(DRIVER)
    driver = Submission(tmp_path, tmp_path / "scratch")

    def call(function: str, **arguments):
        path = submission.folder / FILE
        if not path.is_file():
            fail(f"{FILE} is missing in {submission.folder}.")
        return driver.call("driver.py", function, path=path, **arguments)

    return call


@pytest.mark.points(1)
def test_pytorch_runs_as_it_serves(drive):
    images = np.random.default_rng(1).normal(3, 2, size=(2, 3, 4, 4)).astype(np.float32)
    threads = 1 + (os.cpu_count() or 1)  # not what PyTorch takes by itself
    got = drive("try_pytorch", images=images, threads=threads, timeout=60)
    same = isinstance(got["answer"], np.ndarray) and np.allclose(got["answer"], images.reshape(2, -1), atol=1e-3)
    expect(
        same,
        called="pytorch_runner(model, threads)(images), a model with a new batch normalisation",
        got=got["answer"],
        expected="an array with the images as they are: its mean is 0 and its deviation 1 unless it is trained",
        hint="model.eval() before the first call; torch.from_numpy(images), and .numpy() of the answer",
    )
    expect(
        got["recorded"] == [False, True] and got["threads"] == threads,
        called=f"pytorch_runner(model, threads={threads})(images), and the same with autograd=True",
        got=f"kept for a backward pass: {got['recorded']}, {got['threads']} threads",
        expected=f"kept for a backward pass: [False, True], {threads} threads",
        hint="torch.set_num_threads(threads); with torch.inference_mode(not autograd): around the call",
    )


@pytest.mark.points(1)
def test_onnxruntime_runs_with_the_threads_that_it_is_given(drive, tmp_path):
    paths = [small_model(tmp_path / f"{name}.onnx", input_name=name) for name in ("warm_up", "input", "pixels")]
    images = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(np.float32)
    got = drive("try_onnxruntime", models=[str(path) for path in paths], images=images, timeout=60)
    (expected,) = ort.InferenceSession(paths[0]).run(None, {"warm_up": images})
    expect(
        all(isinstance(one, np.ndarray) and np.allclose(one, expected, atol=1e-4) for one in got["answers"]),
        called="onnxruntime_runner(path, threads)(images), models whose inputs have other names",
        got=got["answers"],
        expected=f"the first output of each: {expected.shape}",
        hint="session.get_inputs()[0].name; session.run(None, {name: images})[0]",
    )
    _, one, two, three = got["counts"]
    expect(
        (two - one, three - two) == (1, 2),
        called="onnxruntime_runner(path, threads=2), then another with threads=3: new threads of the process",
        got=f"{two - one} and {three - two}",
        expected="1 and 2: the thread that calls is one of them",
        hint="options.intra_op_num_threads = threads, and the options given to ort.InferenceSession",
    )


@pytest.mark.points(1.5)
def test_timed_returns_the_result_and_the_seconds(drive):
    got = drive("try_timed")
    result, seconds = got["result"]
    expect(
        result == 3 and 0.2 <= seconds < 20,
        called="timed(weigh)('melon', tare=2), which sleeps 0.2 s and returns 3",
        got=got["result"],
        expected="(3, a little over 0.2): seconds, not milliseconds",
        hint="pass on all arguments; time.perf_counter() before and after",
    )
    expect(
        got["name"] == "weigh" and got["doc"] == "How heavy a fruit is.",
        called="timed(weigh).__name__ and .__doc__",
        got=[got["name"], got["doc"]],
        expected="'weigh' and its docstring",
        hint="functools.wraps",
    )


@pytest.mark.points(1.5)
def test_measure_throws_the_warm_up_away(drive):
    got = drive("try_measure", warmup=2, repeats=7)
    expect(
        got["calls"] == 9 and len(got["seconds"]) == 7,
        called="measure(function, warmup=2, repeats=7)",
        got=f"{got['calls']} calls and {len(got['seconds'])} measurements",
        expected="9 calls and 7 measurements",
        hint="two loops: one whose times nobody keeps, one whose times are the result",
    )
    expect(
        sorted(got["seconds"])[-2] < 0.25,  # one may be slow by chance, the two of the warm-up are not
        called="measure(function, warmup=2, repeats=7), where only the first two calls sleep 0.5 s",
        got=got["seconds"],
        expected="none of the slow first calls among the measurements",
        hint="the warm-up comes first and does not count",
    )


@pytest.mark.points(1)
def test_speedup_is_the_ratio_of_the_medians(drive):
    baseline, candidate = [[2.0, 2.0, 9.0], [2.0, 2.0, 2.0]], [[0.5, 0.5, 0.5], [0.5, 0.5, 7.0]]
    got = drive("try_speedup", pairs=[(baseline, candidate)])[0]
    expect(
        len(got) == 3 and abs(got[0] - 4) < 1e-9 and got[1] <= got[0] <= got[2],
        called=f"speedup({baseline}, {candidate})",
        got=got,
        expected="(4.0, low, high) with low <= 4.0 <= high: medians 2 and 0.5, whatever the outliers",
        hint="median of the baseline divided by median of the candidate",
    )


@pytest.mark.points(1)
def test_the_interval_covers_the_truth(drive):
    """The truth is 1.5, and rounds differ by 5%: of 12 experiments with 6 rounds of 20 runs, at least 9 must cover it."""
    random = np.random.default_rng(3)

    def rounds(seconds: float) -> list:
        return [(seconds * random.normal(1, 0.05) * random.normal(1, 0.02, 20)).tolist() for _ in range(6)]

    results = drive("try_speedup", pairs=[(rounds(1.5), rounds(1.0)) for _ in range(12)], timeout=120)
    covered = sum(low <= 1.5 <= high for _, low, high in results)
    widths = [(high - low) / ratio for ratio, low, high in results]
    expect(
        covered >= 9 and max(widths) < 0.5,
        called="speedup() on 12 simulated benchmarks whose true speed-up is 1.5",
        got=f"{covered} of 12 intervals hold 1.5; the widest is {max(widths):.0%} of its ratio",
        expected="at least 9 (95% is the aim), and none wider than half its ratio",
        hint="draw whole rounds with replacement first, then runs within them",
    )


@pytest.fixture(scope="module")
def report(submission: Submission, models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark, really run."""
    folder = tmp_path_factory.mktemp("reports") / "benchmark"
    arguments = ["--quick", "--size", 64, "--batch", 1, "--batch", 3, "--rounds", 2, "--threads", 1, "--output", folder]
    models = models_dir
    if sandbox.mode != "none":  # the benchmark exports into its models' folder, and others are graded with models_dir
        models = tmp_path_factory.mktemp("models")
        shutil.copy(models_dir / "resnet18.onnx", models)
    finished = submission.run(FILE, *arguments, env={"MODELS_DIR": str(models)}, timeout=240, writes=[models])
    expect(
        finished.code == 0 and "over eager" in finished.output,
        called=f"python {FILE} --quick --size 64 --batch 1 --batch 3 --rounds 2",
        got=f"exit code {finished.code}: {finished.output[-600:]}",
        expected="exit code 0 and a table with the speed-up of ONNX Runtime over PyTorch eager",
        hint="run the same command yourself",
    )
    return folder


@pytest.mark.points(2)
def test_the_report_says_what_was_measured_and_how(report):
    measured = json.loads(written.read(report / "measurements.json"))
    turns = measured["turns"]
    order = [(turn["round"], turn["runtime"]) for turn in turns]
    names = ["pytorch eager", "pytorch channels-last", "onnxruntime dynamo"]
    assert order == [*((0, name) for name in names), *((1, name) for name in names[1:] + names[:1])], "taken in turn"
    assert len({turn["pid"] for turn in turns}) == len(turns), "each in a process of its own"
    assert {turn["threads"] for turn in turns} == {1}
    assert all(min(seconds) > 0 for turn in turns for seconds in turn["seconds"].values())
    assert all(turn["import_seconds"] > 0.01 for turn in turns), "imports were paid before they were measured"
    assert {"torch", "torchvision", "onnxruntime"} <= measured["machine"]["versions"].keys()
    assert measured["machine"]["cpu"]
    rows = list(csv.DictReader(written.read(report / "table.csv").decode().splitlines()))
    assert [(row["size"], row["batch"], row["runtime"]) for row in rows] == [("64", b, n) for b in "13" for n in names]
    for picture in ("latency_by_size.png", "throughput_by_batch.png"):
        assert written.beginning(report / picture, 4) == b"\x89PNG"
    assert sorted(path.name for path in report.iterdir()) == [
        "latency_by_size.png",
        "measurements.json",
        "table.csv",
        "throughput_by_batch.png",
    ]


@pytest.mark.points(0.5)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "10"], "--size 10: a size is a number of pixels from 32 to 2048."),
        (["--batch", "0"], "--batch 0: a batch is 1 to 256 images."),
    ],
    ids=["size", "batch"],
)
def test_what_cannot_be_measured_is_one_sentence(submission, report, arguments, sentence):
    finished = submission.run(FILE, *arguments)
    expect(
        finished.code == 1 and sentence in finished.output and "Traceback" not in finished.output,
        called=f"python {FILE} {' '.join(arguments)}",
        got=f"exit code {finished.code}: {finished.output[-300:]}",
        expected=sentence,
        hint="leave main() as it was given",
    )
