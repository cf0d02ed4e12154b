"""An untouched starter runs and says what is left to do. That it earns nothing: verify/test_starters.py."""

import sys

import pytest
from commands import run

from course.base.manifest import exercises, untouched


@pytest.mark.parametrize(
    "line",
    [
        "ex01_export.py --weights random --output {tmp}/mine.onnx",
        "ex02_check.py {models}/resnet18.onnx",
        "ex03_visualize.py {models}/resnet18.onnx --no-browser",
        "ex04_inference.py data/cat.png --model {models}/resnet18.onnx",
        "ex05_benchmark.py --quick --size 64 --batch 1 --rounds 1",
        "ex06_optimize.py --model {models}/resnet18.onnx --quick --rounds 1",
        "ex07_providers.py --model {models}/resnet18.onnx",
        "ex09_fastapi.py",
        "ex10_client.py data/cat.png",
        "ex18_cloud.py --project my-project --region europe-west1 --repository course --dry-run",
        "ex19_client.py data",
        "ex20_model_store.py save {models}/resnet18.onnx",
        "ex21_sklearn.py --output {tmp}/forest.onnx",
    ],
)
def test_a_starter_runs_and_says_what_is_left_to_do(line, models_dir, tmp_path):
    file, *words = (word.format(tmp=tmp_path, models=models_dir) for word in line.split())
    exercise = next(one for one in exercises() if file in one.files)
    if not untouched(exercise):
        pytest.skip(f"exercises/{file} has been worked on")
    done = run(sys.executable, f"exercises/{file}", *words)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("Still to do: ")
    assert f"exercises/{file}, line " in done.stderr
    assert "Traceback" not in done.stderr
