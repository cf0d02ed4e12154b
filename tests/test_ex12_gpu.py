"""Exercise 12: a service that says which execution provider it really runs on."""

import tempfile
from pathlib import Path

import image_service
import onnxruntime as ort
import pytest
from bad_input import CAT, COFFEE
from small_models import small_model

from course.harness.load import workers
from course.harness.submission import Submission
from course.harness.verdicts import expect

SERVICE = "ex12_gpu.py"
WANTED = ("CUDAExecutionProvider", "CPUExecutionProvider")


def provider_here() -> str:
    """What a session gets here, not what ONNX Runtime was built with: these tests grade with and without a GPU."""
    wanted = [name for name in WANTED if name in ort.get_available_providers()]
    with tempfile.TemporaryDirectory() as folder:
        model = small_model(Path(folder) / "model.onnx")
        return ort.InferenceSession(model, providers=wanted).get_providers()[0]


HERE = provider_here()


@pytest.mark.points(1.5)
def test_says_which_provider_it_really_has(server):
    response = server.request("POST", "/provider")
    expect(
        response.status_code == 200 and response.json() == {"provider": HERE, "wanted": "CUDAExecutionProvider"},
        called="POST /provider",
        got=f"{response.status_code} {response.text[:300]}",
        expected=f'200 {{"provider": "{HERE}", "wanted": "CUDAExecutionProvider"}}',
        hint=f"session.get_providers()[0] is what the session has, whatever it was asked for.{server.last_words()}",
    )


@pytest.mark.points(2)
def test_says_so_at_start_and_warns_where_it_is_no_gpu(server):
    lines = [line for line in server.log.read_text(errors="replace").splitlines() if HERE in line]
    expect(
        len(lines) == 1
        and (HERE.startswith("CUDA") or ("WARNING" in lines[0] and "CUDAExecutionProvider" in lines[0])),
        called="bentoml serve",
        got=f"{len(lines)} lines in the log that name {HERE}: {lines}",
        expected="one: a WARNING, where it is not CUDAExecutionProvider, that names both, and why_not()",
        hint="log.warning(...) in check_model(), which runs once, not in __init__, which runs in every worker",
    )


@pytest.mark.points(3)
def test_refuses_to_start_without_a_gpu_where_the_user_asked_for_it(submission, small_models_dir, tmp_path):
    assert_refuses_to_start(submission, {"MODELS_DIR": str(small_models_dir), "REQUIRE_GPU": "1"}, "REQUIRE_GPU=1")
    assert_refuses_to_start(submission, {"MODELS_DIR": str(tmp_path)}, "There is no model")


def assert_refuses_to_start(submission: Submission, env: dict[str, str], says: str) -> None:
    with submission.starting(SERVICE, env={"CUDA_VISIBLE_DEVICES": "-1"} | env) as server:
        code = server.exit_code(40)
        log = server.log.read_text(errors="replace")
        expect(
            code not in (None, 0) and says in log and "Traceback" not in log,
            called=f"bentoml serve, where it should say: {says} ...",
            got=f"exit code {code}.{server.last_words()}",
            expected="a non-zero exit code, and one sentence that says what cannot be had",
            hint="in open_session() raise BadModel; check_model() makes it a BentoMLException, which ends the start",
        )


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


@pytest.mark.points(1)
def test_classifies_wherever_it_runs(server, small_session):
    image_service.assert_classifies(server, small_session, CAT)


@pytest.mark.points(1)
def test_predicts_wherever_it_runs(server, small_session):
    image_service.assert_predicts(
        server, small_session, image_service.tensor(CAT, COFFEE), "POST /predict with cat.png and coffee.png"
    )
