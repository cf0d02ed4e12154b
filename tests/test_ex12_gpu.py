"""Exercise 12: a service that says which execution provider it really runs on."""

from pathlib import Path

import onnxruntime as ort
import pytest
from image_api import (  # noqa: F401
    test_classify_answers_the_five_best_labels,
    test_predict_answers_the_models_logits,
)
from image_service import assert_does_not_start

from course.harness.load import workers
from course.harness.verdicts import expect

SERVICE, PROVIDERS = "ex12_gpu.py", ("CUDAExecutionProvider", "CPUExecutionProvider")


@pytest.fixture(scope="module")
def here(folder: Path) -> str:
    """What a session gets here, not what ONNX Runtime was built with: these tests grade with and without a GPU."""
    wanted = [name for name in PROVIDERS if name in ort.get_available_providers()]
    return ort.InferenceSession(folder / "resnet18.onnx", providers=wanted).get_providers()[0]


@pytest.mark.points(1.5)
def test_says_which_provider_it_really_has(server, here):
    response = server.request("POST", "/provider")
    expect(
        response.status_code == 200 and response.json() == {"provider": here, "wanted": "CUDAExecutionProvider"},
        called="POST /provider",
        got=f"{response.status_code} {response.text[:300]}",
        expected=f'200 {{"provider": "{here}", "wanted": "CUDAExecutionProvider"}}',
        hint=f"session.get_providers()[0] is what the session has, whatever it was asked for.{server.last_words()}",
    )


@pytest.mark.points(2)
def test_says_so_at_start_and_warns_where_it_is_no_gpu(submission, server, here):
    warning = ["CUDAExecutionProvider"]
    if not here.startswith("CUDA"):
        warning += ["WARNING", submission.call(SERVICE, "why_not")]
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if here in line]
    expect(
        len(lines) == 1 and all(words in lines[0] for words in warning),
        called="bentoml serve",
        got=f"{len(lines)} lines in the log that name {here}: {lines}",
        expected="one: a WARNING, where it is not CUDAExecutionProvider, that names both, and why_not()",
        hint="log.warning(...) in check_model(), which runs once, not in __init__, which runs in every worker",
    )


@pytest.mark.points(3)
def test_refuses_to_start_without_a_gpu_where_the_user_asked_for_it(submission, small_models_dir, tmp_path):
    """And in either case where there is no model, which is found out in another process."""
    hidden = {"CUDA_VISIBLE_DEVICES": "-1"}
    required = hidden | {"MODELS_DIR": str(small_models_dir), "REQUIRE_GPU": "1"}
    assert_does_not_start(submission, SERVICE, required, "REQUIRE_GPU=1")
    assert_does_not_start(submission, SERVICE, hidden | {"MODELS_DIR": str(tmp_path)}, "There is no model")


@pytest.mark.points(1.5)
def test_is_given_a_gpu_of_its_own(server):
    given = [one.environ().get("CUDA_VISIBLE_DEVICES") for one in workers(server)]
    expect(
        given == ["0"],
        called="bentoml serve",
        got=f"workers whose CUDA_VISIBLE_DEVICES is {given}",
        expected='one worker, and for it "0": the first GPU, which no other service of this server then gets',
        hint='resources={"gpu": 1} in @bentoml.service',
    )
