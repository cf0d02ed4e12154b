"""What only a machine with an NVIDIA GPU and requirements-gpu.txt can show: pytest -m gpu."""

import numpy as np
import onnxruntime as ort
import pytest

CUDA = "CUDAExecutionProvider"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        CUDA not in ort.get_available_providers(),
        reason=f"needs an NVIDIA GPU: this build of ONNX Runtime has no {CUDA} (see requirements-gpu.txt)",
    ),
]


def test_exercise_12_runs_on_the_gpu_and_agrees_with_the_cpu(submission, models_dir):
    images = np.random.default_rng(0).standard_normal((4, 3, 224, 224), dtype=np.float32)
    on_cpu = ort.InferenceSession(models_dir / "resnet18.onnx", providers=["CPUExecutionProvider"])
    expected = on_cpu.run(None, {"input": images})[0]
    with submission.serve("ex12_gpu.py", env={"MODELS_DIR": str(models_dir), "REQUIRE_GPU": "1"}) as server:
        assert server.request("POST", "/provider").json() == {"provider": CUDA, "wanted": CUDA}
        got = np.array(server.request("POST", "/predict", json={"image": images.tolist()}).json())
        assert f"Running on {CUDA}" in server.log.read_text()
    # A GPU multiplies in TF32, with 10 bits of mantissa.
    assert abs(got - expected).max() < 1e-2 * abs(expected).max()


def test_exercise_12_refuses_to_start_where_the_gpu_is_hidden(submission, models_dir):
    env = {"MODELS_DIR": str(models_dir), "REQUIRE_GPU": "1", "CUDA_VISIBLE_DEVICES": "-1"}
    with submission.starting("ex12_gpu.py", env=env) as server:
        assert server.process.wait(60) != 0
        assert "REQUIRE_GPU=1" in server.log.read_text()
