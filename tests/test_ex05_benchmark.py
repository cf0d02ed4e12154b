"""Exercise 05: a benchmark that is right about what it measured."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from scripts import expect_close, expect_equal, expect_one_sentence, expect_success
from small_models import small_model

from course.given.turns import speedup
from course.harness import written
from course.harness.submission import Submission
from course.harness.verdicts import expect
from course.isolation import sandbox

# Functions cannot travel to the student's process, so these call the student's ones on the spot; see driving.py.
DRIVER = '''
import sys
import time

def set_back():
    """Anybody can set time.time(): from now on, each call gives an hour less."""
    now = iter(range(10**9, 0, -3600))
    time.time = lambda: float(next(now))
    time.time_ns = lambda: next(now) * 10**9

def try_timed(path):
    took = []
    def weigh(fruit, *, tare=0):
        """How heavy a fruit is."""
        begin = time.perf_counter()
        time.sleep(0.05)
        took.append(time.perf_counter() - begin)
        return len(fruit) - tare
    set_back()
    timed = load(path).timed(weigh)
    begin = time.perf_counter()
    result = timed("melon", tare=2)
    took.append(time.perf_counter() - begin)
    return {"result": list(result), "took": took, "name": timed.__name__, "doc": timed.__doc__}

def try_measure(path, warmup, sleeps):
    begun, ended = [], [time.perf_counter()]
    def run():
        begun.append(time.perf_counter())
        time.sleep(sleeps[len(begun) - 1] if len(begun) <= len(sleeps) else 0)
        ended.append(time.perf_counter())
    set_back()
    seconds = load(path).measure(run, warmup, len(sleeps) - warmup)
    begun.append(time.perf_counter())
    # of each call: at least this long, at most that
    took = [(ended[i + 1] - begun[i], begun[i + 1] - ended[i]) for i in range(len(ended) - 1)]
    return {"took": took, "seconds": list(seconds)}

def try_speedup(path, pairs):
    speedup = load(path).speedup
    return [list(speedup(baseline, candidate)) for baseline, candidate in pairs]

def try_pytorch_runner(path, images, threads):
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
    return {"answer": answer, "threads": torch.get_num_threads(), "recorded": model.recorded,
            "other": "onnxruntime" in sys.modules}

def try_onnxruntime_runner(path, models, images):
    import os, threading
    import psutil
    open_model = load(path).onnxruntime_runner
    counts = [psutil.Process().num_threads()]
    runners = []
    for number, model in enumerate(models, 1):  # with one thread, then with two, ...
        runners.append(open_model(model, number))
        counts.append(psutil.Process().num_threads())
    return {"answers": [runner(images) for runner in runners], "counts": counts, "other": "torch" in sys.modules}
'''
FILE = "ex05_benchmark.py"
SAME = 1e-3  # seconds: another steady clock may be a little coarser


@pytest.mark.points(1)
def test_pytorch_runs_as_it_serves(drive):
    images = np.random.default_rng(1).normal(3, 2, size=(2, 3, 4, 4)).astype(np.float32)
    threads = 1 + (os.cpu_count() or 1)  # not what PyTorch takes by itself
    got = drive("try_pytorch_runner", images=images, threads=threads, timeout=60)
    called = "pytorch_runner(model, threads)(images), a model with a new batch normalisation: the images as they are"
    hint = "model.eval() before the first call; torch.from_numpy(images), and .numpy() of the answer"
    expect_close(got["answer"], images.reshape(2, -1), 1e-3, called=called, hint=hint)
    expect_equal(
        {"kept for a backward pass": got["recorded"], "threads": got["threads"], "ONNX Runtime, too": got["other"]},
        {"kept for a backward pass": [False, True], "threads": threads, "ONNX Runtime, too": False},
        called=f"pytorch_runner(model, threads={threads})(images), and the same with autograd=True",
        hint="torch.set_num_threads(threads); with torch.inference_mode(not autograd): around the call",
    )


@pytest.mark.points(1)
def test_onnxruntime_runs_with_the_threads_that_it_is_given(drive, tmp_path):
    paths = [small_model(tmp_path / f"{name}.onnx", input_name=name) for name in ("warm_up", "input", "pixels")]
    images = np.random.default_rng(1).normal(size=(2, 3, 224, 224)).astype(np.float32)
    got = drive("try_onnxruntime_runner", models=[str(path) for path in paths], images=images, timeout=60)
    (expected,) = ort.InferenceSession(paths[0]).run(None, {"warm_up": images})
    for path, answer in zip(paths, got["answers"], strict=True):
        called = f"onnxruntime_runner(path, threads)(images), a model whose input is {path.stem!r}"
        hint = "session.get_inputs()[0].name; session.run(None, {name: images})[0]"
        expect_close(answer, expected, 1e-4, called=called, hint=hint)
    _, one, two, three = got["counts"]
    called = "onnxruntime_runner(path, threads=2), then another with threads=3: new threads of the process"
    hint = "options.intra_op_num_threads = threads, given to ort.InferenceSession; the thread that calls is one of them"
    expect_equal([two - one, three - two], [1, 2], called=called, hint=hint)
    hint = "import the runtime inside its function: each process imports the one that it measures, and no other"
    expect_equal(got["other"], False, called="onnxruntime_runner(): whether PyTorch is imported as well", hint=hint)


@pytest.mark.points(1.5)
def test_timed_returns_the_result_and_the_seconds(drive):
    """The driver looks at the clock as well, inside and outside of the call: how fast the machine is does not matter."""
    got = drive("try_timed")
    (result, seconds), (least, most) = got["result"], got["took"]
    expect(
        result == 3 and least - SAME <= seconds <= most + SAME,
        called="timed(weigh)('melon', tare=2), which takes its time and returns 3, while somebody sets time.time() back",
        got=got["result"],
        expected=f"(3, {least:.3f} to {most:.3f}): seconds, not milliseconds",
        hint="pass on all arguments; time.perf_counter() before and after: time.time() may jump",
    )
    called, expected = "timed(weigh).__name__ and .__doc__", ["weigh", "How heavy a fruit is."]
    expect_equal([got["name"], got["doc"]], expected, called=called, hint="functools.wraps")


@pytest.mark.points(1.5)
def test_measure_gives_the_seconds_of_each_call_after_the_warm_up(drive):
    sleeps = [0.3, 0.3, 0.02, 0.06, 0.01, 0.05, 0.03, 0.08, 0.04]
    got = drive("try_measure", warmup=2, sleeps=sleeps)
    called = f"measure(function, warmup=2, repeats=7), whose calls sleep {sleeps} s"
    hint = "two loops: one whose times nobody keeps, one whose times are the result"
    expect_equal([len(got["took"]), len(got["seconds"])], [9, 7], called=f"{called}: calls and measurements", hint=hint)
    right = [
        least - SAME <= it <= most + SAME for it, (least, most) in zip(got["seconds"], got["took"][2:], strict=True)
    ]
    expect(
        all(right),
        called=called,
        got=[round(one, 4) for one in got["seconds"]],
        expected=f"what each call after the warm-up took, in their order: {[round(one, 4) for one, _ in got['took'][2:]]}",
        hint="the warm-up comes first and does not count; keep the seconds of timed(function)() as they are",
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


@pytest.mark.points(1.5)
def test_the_interval_is_as_wide_as_the_doubt(drive):
    """Each of these has another width: no fixed percentage and no rule of thumb fits them all."""
    random = np.random.default_rng(3)

    def benchmark(between: float, within: float) -> list:
        """Seconds of both, 6 rounds of 20 runs; the true speed-up is 1.5."""
        lengths = random.normal(1, between, (2, 6, 1)) * random.normal(1, within, (2, 6, 20))
        return (lengths * [[[1.5]], [[1]]]).tolist()

    experiments = {
        "rounds differ by 2%, runs by 2%": benchmark(0.02, 0.02),
        "rounds differ by 20%, runs by 2%": benchmark(0.2, 0.02),
        "rounds do not differ, runs differ by 10%": benchmark(0, 0.1),
        "all runs take the same time": [[[1.5] * 20] * 6, [[1.0] * 20] * 6],
    }
    results = drive("try_speedup", pairs=list(experiments.values()), timeout=120)
    for (kind, seconds), got in zip(experiments.items(), results, strict=True):
        ratio, low, high = speedup(*seconds)
        expect(
            len(got) == 3 and np.allclose(got, (ratio, low, high), rtol=1e-6, atol=0.25 * (high - low)),
            called=f"speedup() of 6 rounds of 20 runs each; {kind}",
            got=[round(one, 3) for one in got],
            expected=f"about {ratio:.3f} ({low:.3f} to {high:.3f})",
            hint="some 2000 times, draw whole rounds with replacement, then runs within them; 2.5th and 97.5th percentile",
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
    called = f"python {FILE} --quick --size 64 --batch 1 --batch 3 --rounds 2"
    expected = "two tables: the speed-up of ONNX Runtime over PyTorch eager, and what a new process needs"
    expect_success(
        finished, "over eager", "A new process", called=called, expected=expected, hint="run the same command yourself"
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
    for row in rows:
        own = [turn["seconds"][f"64x{row['batch']}"] for turn in turns if turn["runtime"] == row["runtime"]]
        shown = [float(row[f"{name}_ms"]) for name in ("lower_quartile", "median", "upper_quartile")]
        assert np.allclose(shown, 1000 * np.percentile(np.concatenate(own), [25, 50, 75]), rtol=1e-3)
        if row["runtime"] == "onnxruntime dynamo":
            assert float(row["low"]) <= float(row["speedup"]) <= float(row["high"])
    pictures = ["latency_by_size.png", "throughput_by_batch.png"]
    for picture in pictures:
        assert written.beginning(report / picture, 4) == b"\x89PNG"
    assert sorted(path.name for path in report.iterdir()) == sorted(["measurements.json", "table.csv", *pictures])


@pytest.mark.points(0.25)
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
    called = f"python {FILE} {' '.join(arguments)}"
    expect_one_sentence(finished, sentence, called=called, hint="leave main() as it was given")
