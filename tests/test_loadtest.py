"""The load test: what it measures, what it counts, and what it does where something goes wrong."""

import csv
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil
import pytest
from image_service import tensor
from PIL import Image

from course import ROOT
from course.base.manifest import find
from course.base.processes import marked, running, wait
from course.loadtest import report as tables
from course.loadtest.ceiling import Work, answer, within
from course.loadtest.plan import Plan
from course.loadtest.run import batch_counts, require_equal, turn_of, without_server
from serving import Problem
from serving.model import softmax

SHORT = ["--users", "4", "--duration", "1", "--rounds", "1"]
# As `python -m course`, with a shorter warm-up.
COURSE = (
    "import runpy; from course.loadtest import run; run.WARM_UP = 0.2; runpy.run_module('course', run_name='__main__')"
)


def loadtest(folder: Path, models_dir: Path, *options: object):
    """`python -m course loadtest` with its output in folder/log; the process, not waited for."""
    command = [sys.executable, "-c", COURSE, "loadtest", *map(str, options)]
    env = os.environ | {"MODELS_DIR": str(models_dir), "COLUMNS": "100"}
    return running(command, cwd=ROOT, env=env, log=folder / "log")


def finished(folder: Path, models_dir: Path, *options: object) -> tuple[int, str]:
    with loadtest(folder, models_dir, *options) as process:
        code = wait(process, 100)
    said = (folder / "log").read_text()
    assert code is not None, said
    assert "Traceback" not in said
    return code, said


# ------------------------------------------------------------------------------ one real run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, small_models_dir: Path) -> tuple[Path, str]:
    """Exercise 10, as the solutions have it and so that half of its answers are 400."""
    folder = tmp_path_factory.mktemp("loadtest")
    services = folder / "services"
    shutil.copytree(ROOT / "solutions", services, ignore=shutil.ignore_patterns("__pycache__"))
    source = (services / "ex10_service.py").read_text()
    moody = source.replace(
        "        try:\n            batch = preprocess(",
        '        self.asked = getattr(self, "asked", 0) + 1\n'
        '        if os.environ.get("MOODY") and self.asked % 2:\n'
        '            raise InvalidArgument("expected better weather")\n'
        "        try:\n            batch = preprocess(",
    )
    (services / "ex10_service.py").write_text(moody.replace("from typing", "import os\nfrom typing"))
    options = ["--services", "10 10:MOODY=1", "--folder", services, "--output", folder / "report", *SHORT]
    code, said = finished(folder, small_models_dir, *options)
    assert code == 1, said
    return folder / "report", said


def test_the_tables_show_every_service_and_the_ceiling(report):
    _, said = report
    words = ["Successful requests/s", "share of", "10 MOODY=1", "The ceiling, decode, preprocess, resnet18", "p99"]
    words += ["locust is a closed loop", "RANDOM weights in resnet18.onnx", "docs/loadtest.md"]
    assert not [one for one in words if one not in said], said


def test_a_4xx_is_a_failure_and_its_body_is_shown(report):
    folder, said = report
    rows = {row["service"]: row for row in csv.DictReader((folder / "table.csv").open())}
    good, moody = rows["10"], rows["10 MOODY=1"]
    assert int(good["failed"]) == 0
    assert int(good["successes"]) > 0
    assert int(moody["failed"]) > 0
    assert abs(int(moody["failed"]) - int(moody["successes"])) <= 4, "every other request was refused"
    words = ["failed: ", "400", "expected better weather", "requests failed: the lines below the first table say why."]
    assert not [one for one in words if one not in said], said


def test_the_report_is_whole(report):
    folder, _ = report
    names = {path.name for path in folder.iterdir()}
    assert names == {"latency.png", "measurements.json", "table.csv", "throughput.png"}
    for picture in folder.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 300
    everything = json.loads((folder / "measurements.json").read_text())
    assert {"cpu", "used_cores", "versions", "weights", "made"} <= everything["machine"].keys()
    assert everything["machine"]["versions"].keys() == {"bentoml", "onnxruntime", "locust"}
    assert everything["machine"]["weights"] == {"resnet18.onnx": "random seed 0"}
    assert {"users": 4, "duration": 1, "payload": "image"}.items() <= everything["plan"].items()
    (ceiling,) = everything["ceilings"]["decode, preprocess, resnet18"]
    good = everything["turns"][0]
    assert ceiling > 0
    assert good["rate"] * good["seconds"] == pytest.approx(good["successes"], abs=4), "but for the four at the edges"
    assert len(good["milliseconds"]) == good["successes"]
    assert good["server_cores"] > 0
    assert good["client_cores"] >= 0
    assert good["megabytes"] > 100, "the launcher and its worker"


# ------------------------------------------------------------------------------ what is made of samples


def samples(ends: list[float], seconds: list[float], failures: dict | None = None) -> dict:
    return {"window": [10.0, 20.0], "ends": ends, "seconds": seconds, "failures": failures or {}, "answer": None}


def snapshots(batches_before: dict | None = None, batches_after: dict | None = None) -> tuple[dict, dict]:
    names = ("time", "server", "client", "all", "megabytes", "workers", "batches")
    before = (10.0, 5.0, 1.0, 50.0, 300.0, {7: 2.0, 8: 1.0}, batches_before or {})
    after = (20.0, 24.0, 2.0, 75.0, 280.0, {7: 8.0, 8: 3.0, 9: 1.0}, batches_after or {})
    return dict(zip(names, before, strict=True)), dict(zip(names, after, strict=True))


def test_a_request_counts_as_much_as_it_lies_within_the_window():
    ends, seconds = np.array([9.0, 11.0, 15.0, 22.0, 31.0]), np.array([1.0, 2.0, 1.0, 4.0, 1.0])
    assert within(ends, seconds, 10, 20) == pytest.approx(0 + 0.5 + 1 + 0.5 + 0)
    assert within(np.array([30.0]), np.array([25.0]), 10, 20) == pytest.approx(10 / 25), "open before, closed after"


def test_a_steady_load_is_measured_the_same_wherever_its_batches_fall():
    """32 requests end together every 0.7 s: counting those that end within 10 s gives 448 or 480, as it happens."""
    for shift in np.linspace(0, 0.7, 8):
        ends = np.repeat(np.arange(0, 40, 0.7) + shift, 32)
        turn = turn_of("x", 0, samples(list(ends), [0.7] * len(ends)), *snapshots())
        assert turn.rate == pytest.approx(32 / 0.7, rel=1e-6)


def test_only_what_succeeded_within_the_window_counts():
    failures = {"1": "429 busy", "2": "429 busy", "4": "500 oh"}
    turn = turn_of("x", 0, samples([9, 11, 12, 13, 21, 14], [0.5] * 6, failures), *snapshots())
    assert turn.successes == 2
    assert turn.rate == pytest.approx(0.2)
    assert turn.failures == {"429 busy": 2}
    assert turn.milliseconds == [500, 500]
    assert (turn.server_cores, turn.client_cores, turn.other_cores) == pytest.approx((1.9, 0.1, 0.5))
    assert turn.megabytes == 300
    assert turn.shares == pytest.approx([1 / 9, 2 / 9, 6 / 9]), "7 used 6 s, 8 used 2, and 9 came meanwhile and used 1"


def test_batches_are_those_within_the_window():
    counts = snapshots({"a.b": [10, 10], "c.d": [4, 4]}, {"a.b": [90, 20], "c.d": [4, 4]})
    turn = turn_of("x", 0, samples([11], [1]), *counts)
    assert turn.batches == {"a.b": 8}


def test_no_metrics_are_no_batches():
    assert batch_counts("http://127.0.0.1:1") == {}


def test_the_gain_of_batching_is_compared_at_the_batches_that_were_served():
    bare = [{1: 100.0, 8: 200.0, 16: 240.0, 32: 240.0}]
    rows = [{"batches": {}, "times_first": [1.0]}, {"batches": {"a.b": 8.0}, "times_first": [1.8]}]
    said = tables.batching(rows, bare)
    assert said["bare_gain"] == pytest.approx(2)
    assert said["share"] == pytest.approx(0.9)
    assert tables.batching(rows[:1], bare) is None


def test_speed_is_compared_only_where_answers_agree():
    right = {"predictions": [{"label": "cat", "probability": 0.9}, {"label": "dog", "probability": 0.1}]}
    require_equal("10", "image", json.dumps(right | {"weights": "x"}), right)
    require_equal("10", "npy", "[[1.0, 2.0]]", {"rows": [[1.00001, 2]]})
    require_equal("10", "image", None, right)
    for payload, text, expected in [
        ("image", '{"predictions": []}', right),
        ("image", json.dumps(right).replace("cat", "cow"), right),
        ("image", json.dumps(right).replace("0.9", "0.7"), right),
        ("npy", "[[1.0, 2.0]]", {"rows": [[1.1, 2]]}),
        ("npy", "[[1.0, 2.0, 3.0]]", {"rows": [[1.0, 2.0]]}),
        ("npy", "busy", {"rows": [[1.0, 2.0]]}),
    ]:
        with pytest.raises(Problem, match="10 answers something else"):
            require_equal("10", payload, text, expected)


def test_the_session_alone_runs_each_size_of_batch(models_dir):
    job = {"model": str(models_dir / "resnet18.onnx"), "threads": 1, "batches": [1, 3], "window": 0.1}
    rates = without_server(job)["rates"]
    assert rates.keys() == {"1", "3"}
    assert all(rate > 0 for rate in rates.values())


def test_two_models_have_to_answer_the_mean_of_their_probabilities(models_dir):
    paths = [models_dir / "model_a.onnx", models_dir / "model_b.onnx"]
    image = tensor(ROOT / "data" / "cat.png")
    wanted = np.mean([softmax(ort.InferenceSession(path).run(None, {"input": image})[0]) for path in paths], axis=0)
    work = Work("image", tuple(map(str, paths)))
    assert [one["probability"] for one in answer(work)["predictions"]] == pytest.approx(sorted(wanted[0])[:-6:-1])
    assert np.allclose(answer(work._replace(payload="npy"))["rows"], wanted, atol=1e-6)


# ------------------------------------------------------------------------------ what can go wrong


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"ex": "04"}, "EX=04: there are comparisons for 09, 10, 11, 13, 15, 16."),
        ({"services": "77"}, "SERVICES=77: no exercise has that number."),
        ({"services": "10 04"}, "SERVICES=04: exercise 04 has no service."),
        ({"services": "22"}, "SERVICES=22: the load test sends photographs, and exercise 22 classifies none."),
        ({"services": "10:workers=2"}, "'workers=2' is not of the form 13:WORKERS=4,THREADS=0."),
        ({"services": "10:WORKERS"}, "'WORKERS' is not of the form"),
        ({"services": " "}, "SERVICES= : name at least one"),
        ({"folder": Path("nowhere")}, "There is no nowhere/ex09_fastapi.py."),
    ],
    ids=lambda value: " ".join(f"{key}={one}" for key, one in value.items()) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_one_sentence_before_anything_starts(wrong, sentence):
    with pytest.raises(Problem) as problem:
        Plan.make(find(wrong.pop("ex", "10")), **wrong)
    assert sentence in str(problem.value)


def test_a_comparison_can_be_changed():
    plan = Plan.make(find("9"), users=5, services="10:A=b=c,THREADS=2")
    assert [one.name for one in plan.variants] == ["10 A=b=c THREADS=2"]
    assert (plan.users, plan.payload, plan.duration, plan.rounds) == (5, "image", 10, 2)
    assert plan.works == [Work("image", plan.works[0].models)]


def test_a_missing_model_is_one_sentence(tmp_path):
    code, said = finished(tmp_path, tmp_path, "--services", "10", "--output", tmp_path / "report", *SHORT)
    assert code == 1
    assert said.startswith("There is no model at")
    assert not (tmp_path / "report").exists()


def test_a_service_that_does_not_start_is_told_with_its_log(tmp_path, models_dir):
    (tmp_path / "ex10_service.py").write_text("raise OSError('the disk is gone')")
    options = ["--services", "10", "--folder", tmp_path, "--output", tmp_path / "report", *SHORT]
    code, said = finished(tmp_path, models_dir, *options)
    assert code == 1
    assert "10: `bentoml serve ex10_service:ImageClassifierService` ended" in said
    assert "the disk is gone" in said
    assert not list((tmp_path / "report").iterdir()), "no report, and no half of one"


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_stopping_ends_everything_with_one_line(tmp_path, models_dir, stop):
    options = ["--services", "10", "--users", "2", "--duration", "1", "--rounds", "50", "--output", tmp_path / "report"]
    with loadtest(tmp_path, models_dir, *options) as process:
        give_up = time.monotonic() + 60
        wanted = "locust" if stop == signal.SIGINT else "course.loadtest.ceiling"
        while not any(wanted in command_of(one) for one in marked(process.mark)):
            assert time.monotonic() < give_up, (tmp_path / "log").read_text()
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)
        os.kill(process.pid, stop)
        assert wait(process, 30) == 1
        assert not marked(process.mark)
    said = (tmp_path / "log").read_text()
    assert said.strip().splitlines()[-1].startswith("Stopped: everything that was started has been ended")
    assert "Traceback" not in said
    assert not list((tmp_path / "report").iterdir())
