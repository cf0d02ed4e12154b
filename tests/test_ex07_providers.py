"""Exercise 07: a session says which execution provider it really runs on; strict mode refuses any other.

Which providers there are depends on the machine. So the tests find out what is expected with a session of their own.
"""

from collections import Counter
from pathlib import Path

import onnxruntime as ort
import pytest
from scripts import expect_equal, expect_one_sentence, expect_problem, expect_success
from small_models import small_model

from course.harness.submission import Submission
from course.harness.verdicts import expect

FILE, CPU = "ex07_providers.py", "CPUExecutionProvider"
MISSING = next(name for name in ort.get_all_providers() if name not in ort.get_available_providers())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("models") / "small.onnx")


def true_nodes(model: Path, wanted: list[str]) -> dict[str, int]:
    """How many nodes each provider of a session runs, without those that run none."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    parts = ort.InferenceSession(model, options, providers=wanted).get_provider_graph_assignment_info()
    return dict(Counter(part.ep_name for part in parts for _ in part.get_nodes()))


def true_choice(model: Path, wanted: list[str]) -> str:
    nodes = true_nodes(model, wanted)
    return next(name for name in [*wanted, CPU] if name in nodes)


def outcome(submission: Submission, model: Path, wanted: list[str]) -> tuple[str, dict]:
    """The call as a student types it, and what it returns."""
    called = f"outcome('small.onnx', {wanted})"
    got = submission.call(FILE, "outcome", model_path=model, wanted=wanted)
    expect(
        isinstance(got, dict) and set(got) >= {"chosen", "nodes", "not_taken"},
        called=called,
        got=got,
        expected="a dict with 'chosen', 'nodes' and 'not_taken'",
        hint="the docstring of outcome() says what each holds",
    )
    return called, got


@pytest.mark.points(1)
def test_lists_the_providers(submission):
    expected = {"all": ort.get_all_providers(), "available": ort.get_available_providers()}
    hint = "ONNX Runtime has one function for each of the two lists; keep its order"
    expect_equal(submission.call(FILE, "providers"), expected, called="providers()", hint=hint)


@pytest.mark.points(2)
def test_says_which_provider_runs_the_model(submission, model):
    """For each provider of this build: one that is registered, even first, may run none of the nodes."""
    for first in ort.get_available_providers():
        wanted = list(dict.fromkeys([first, CPU]))
        called, got = outcome(submission, model, wanted)
        nodes = true_nodes(model, wanted)
        counts = {name: n for name, n in got["nodes"].items() if n} if isinstance(got["nodes"], dict) else got["nodes"]
        hint = "session.get_provider_graph_assignment_info() lists parts of the graph, each with its nodes"
        expect_equal(counts, nodes, called=f"{called}: nodes; one that runs none has 0 or is left out", hint=hint)
        hint = "session.get_providers()[0] was registered first; the one that counts runs the nodes"
        expect_equal(got["chosen"], true_choice(model, wanted), called=f"{called}: chosen", hint=hint)
        idle = {name for name in wanted if name not in nodes}
        hint = "a reason for each wanted provider whose count is 0"
        expect_equal(set(got["not_taken"]), idle, called=f"{called}: not_taken", hint=hint)


@pytest.mark.points(1)
def test_says_when_the_wanted_provider_is_not_there(submission, model):
    """ONNX Runtime takes the CPU. That is fine if the script says so."""
    called, got = outcome(submission, model, [MISSING, CPU])
    expect(
        got["chosen"] == CPU and list(got["not_taken"]) == [MISSING] and isinstance(got["not_taken"][MISSING], str),
        called=called,
        got=got,
        expected=f"chosen: '{CPU}', and not_taken with {MISSING!r} alone and why: this build does not have it",
        hint="go through `wanted`, not through what the session has",
    )
    finished = submission.run(FILE, "--provider", MISSING, "--model", model)
    words = f"runs on {CPU}", f"{MISSING} was not taken"
    called, expected = f"python {FILE} --provider {MISSING}", f"a sentence with `{words[0]}` and one with `{words[1]}`"
    expect_success(finished, *words, called=called, expected=expected, hint="main() prints what outcome() returns")


@pytest.mark.points(2)
def test_strict_takes_the_first_wanted_or_nothing(submission, model):
    """Every provider of this build, and one that it does not have, with the CPU as the second best."""
    for first in [*ort.get_available_providers(), MISSING]:
        runs = first != MISSING and true_choice(model, list(dict.fromkeys([first, CPU]))) == first
        finished = submission.run(FILE, "--strict", "--provider", first, "--provider", CPU, "--model", model)
        called = f"python {FILE} --strict --provider {first} --provider {CPU}"
        if runs:
            hint = "strict refuses only what the first wanted provider does not run"
            expect_success(finished, f"runs on {first}", called=called, expected=f"{first} runs the model", hint=hint)
        else:
            hint = (
                "raise Problem unless chosen(nodes_by_provider(session)) is wanted[0]; the second best does not count"
            )
            expect_one_sentence(finished, first, called=f"{called}; {first} runs no node here", hint=hint)


@pytest.mark.points(0.5)
@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["CUDAExecutionProvidr"], "CUDAExecutionProvider"),
        ([CPU, "TensorRTExecutionProvider"], "TensorrtExecutionProvider"),
    ],
    ids=["misspelt", "second"],
)
def test_an_unknown_provider_is_one_sentence(submission, model, names, meant):
    """ONNX Runtime prints an error, takes the CPU, and the exit code is 0."""
    finished = submission.run(FILE, *(word for name in names for word in ("--provider", name)), "--model", model)
    called = f"python {FILE} --provider {' --provider '.join(names)}"
    expect_one_sentence(finished, names[-1], meant, called=called, hint="require_known(wanted) comes first")
    assert "VitisAIExecutionProvider" not in finished.output.splitlines()[-1], "it lists names that nobody meant"


@pytest.mark.points(0.5)
def test_no_provider_is_one_sentence(submission, model):
    """ONNX Runtime takes the CPU, without a word."""
    given, hint = {"model_path": model, "wanted": []}, "require_known(wanted) comes first"
    expect_problem(submission, FILE, "outcome", called="outcome('small.onnx', [])", hint=hint, **given)


@pytest.mark.points(0.5)
def test_a_missing_or_broken_model_is_one_sentence(submission, tmp_path):
    (tmp_path / "note.onnx").write_text("This is a note, not a model.\n" * 100)
    for name in ("nowhere.onnx", "note.onnx"):
        finished = submission.run(FILE, "--provider", CPU, "--model", tmp_path / name)
        called = f"python {FILE} --provider {CPU} --model {name}"
        expect_one_sentence(finished, name, called=called, hint="open the session inside `with reading(model_path)`")
