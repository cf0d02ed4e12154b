"""Exercise 07: a session says which execution provider it really runs on; strict mode refuses any other.

Which providers there are depends on the machine. What must come out is therefore found here first,
with a session of the test's own.
"""

from collections import Counter
from pathlib import Path

import onnxruntime as ort
import pytest
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
    """The call as a student would type it, and what came back."""
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


def last_line(output: str) -> str:
    return (output.strip() or " ").splitlines()[-1]


@pytest.mark.points(1)
def test_lists_the_providers(submission):
    got = submission.call(FILE, "providers")
    expected = {"all": ort.get_all_providers(), "available": ort.get_available_providers()}
    expect(
        got == expected,
        called="providers()",
        got=got,
        expected=f"{expected}",
        hint="ONNX Runtime has one function for each of the two lists; keep its order",
    )


@pytest.mark.points(2)
def test_says_which_provider_runs_the_model(submission, model):
    """For each provider of this build: one that is registered, even first, may run none of the nodes."""
    for first in ort.get_available_providers():
        wanted = list(dict.fromkeys([first, CPU]))
        called, got = outcome(submission, model, wanted)
        nodes = true_nodes(model, wanted)
        expect(
            isinstance(got["nodes"], dict) and {name: n for name, n in got["nodes"].items() if n} == nodes,
            called=called,
            got=f"nodes: {got['nodes']}",
            expected=f"{nodes}; whoever runs none has 0 or is left out",
            hint="session.get_provider_graph_assignment_info() lists parts of the graph, each with its nodes",
        )
        expect(
            got["chosen"] == true_choice(model, wanted),
            called=called,
            got=f"chosen: {got['chosen']!r}, nodes: {got['nodes']}",
            expected=f"{true_choice(model, wanted)!r}",
            hint="session.get_providers()[0] was registered first; the one that counts runs the nodes",
        )
        idle = {name for name in wanted if name not in nodes}
        expect(
            set(got["not_taken"]) == idle,
            called=called,
            got=f"not_taken: {got['not_taken']}",
            expected=f"{idle or 'none'}: the wanted ones that run no node",
            hint="a reason for each wanted provider whose count is 0",
        )


@pytest.mark.points(1)
def test_says_when_the_wanted_provider_is_not_there(submission, model):
    """ONNX Runtime goes on with the CPU. That is fine, as long as somebody says so."""
    called, got = outcome(submission, model, [MISSING, CPU])
    expect(
        got["chosen"] == CPU and list(got["not_taken"]) == [MISSING] and isinstance(got["not_taken"][MISSING], str),
        called=called,
        got=got,
        expected=f"chosen: '{CPU}', and not_taken with {MISSING!r} alone and why, for this build does not have it",
        hint="go through `wanted`, not through what the session has",
    )
    finished = submission.run(FILE, "--provider", MISSING, "--model", model)
    expect(
        finished.code == 0 and f"runs on {CPU}" in finished.output and f"{MISSING} was not taken" in finished.output,
        called=f"python {FILE} --provider {MISSING}",
        got=f"exit code {finished.code}: {finished.output[-400:]}",
        expected=f"exit code 0, a sentence with `runs on {CPU}` and one with `{MISSING} was not taken`",
        hint="main() is given: it prints what outcome() returns",
    )


@pytest.mark.points(2)
def test_strict_takes_the_first_wanted_or_nothing(submission, model):
    """Every provider of this build, and one that is not in it, with the CPU as the second best."""
    for first in [*ort.get_available_providers(), MISSING]:
        runs = first != MISSING and true_choice(model, list(dict.fromkeys([first, CPU]))) == first
        finished = submission.run(FILE, "--strict", "--provider", first, "--provider", CPU, "--model", model)
        called = f"python {FILE} --strict --provider {first} --provider {CPU}"
        got = f"exit code {finished.code}: {finished.output[-400:]}"
        if runs:
            expect(
                finished.code == 0 and f"runs on {first}" in finished.output,
                called=called,
                got=got,
                expected=f"exit code 0: {first} runs the model here",
                hint="strict refuses only what the first wanted provider does not run",
            )
            continue
        expect(
            finished.code != 0 and first in last_line(finished.output) and "Traceback" not in finished.output,
            called=called,
            got=got,
            expected=f"a non-zero exit code and one sentence that names {first}, which runs no node of this model here",
            hint="raise Problem unless chosen(nodes_by_provider(session)) is wanted[0]; the second best does not count",
        )


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
    """ONNX Runtime would print its error, go on with the CPU, and exit with 0."""
    finished = submission.run(FILE, *(word for name in names for word in ("--provider", name)), "--model", model)
    sentence = last_line(finished.output)
    names_all = "VitisAIExecutionProvider" in sentence  # which nobody meant
    expect(
        finished.code != 0 and names[-1] in sentence and meant in sentence and not names_all,
        called=f"python {FILE} --provider {' --provider '.join(names)}",
        got=f"exit code {finished.code}: {finished.output[-400:]}",
        expected=f"a non-zero exit code and one sentence that names {names[-1]} and what may be meant: {meant}, not all there are",
        hint="difflib.get_close_matches(name, ...), without regard to upper and lower case",
    )


@pytest.mark.points(1)
def test_a_missing_or_broken_model_is_one_sentence(submission, tmp_path):
    (tmp_path / "note.onnx").write_text("This is a note, not a model.\n" * 100)
    for name in ("nowhere.onnx", "note.onnx"):
        finished = submission.run(FILE, "--provider", CPU, "--model", tmp_path / name)
        expect(
            finished.code != 0 and name in last_line(finished.output) and "Traceback" not in finished.output,
            called=f"python {FILE} --provider {CPU} --model {name}",
            got=f"exit code {finished.code}: {finished.output[-400:]}",
            expected=f"a non-zero exit code and one sentence that names {name}",
            hint="look whether the file is there, and turn whatever the session raises into a Problem",
        )
