"""Exercise 06: graphs optimised and saved, compared before they take their place, and fusions that really happened."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from scripts import expect_close, expect_equal, expect_problem, expect_success

from course.harness import model_files, written
from course.harness.submission import Submission
from course.harness.verdicts import expect

FILE = "ex06_optimize.py"
AGREEMENT = 1e-4


def network(
    path: Path,
    *,
    named: bool = True,
    noise: bool = False,
    batch: str | int = "batch",
    input_name: str = "pixels",
    output_name: str = "scores",
    seed: int = 1,
    scale: float = 1.0,
) -> Path:
    """A small network with everything that matters here: fusions that happen, one that must not, nodes that go.

    Conv + Relu and MatMul + Add can be fused; Conv + Mul becomes a Conv with other weights. The last Conv cannot be
    fused: what it gives is used twice. Identity and a Mul by one are removed, and Neg works on a constant. With noise,
    no two sessions answer alike.
    """
    random = np.random.default_rng(seed)
    weights = {
        "w1": random.normal(size=(16, 3, 8, 8)) / 14,
        "w2": random.normal(size=(16, 16, 3, 3)) / 12,
        "w3": random.normal(size=(16, 16, 3, 3)) / 12,
        "w5": random.normal(size=(16, 16, 3, 3)) / 12,
        "factor": random.uniform(1, 2, size=(16, 1, 1)),
        "one": np.ones(1),
        "minus_shift": random.normal(size=(1, 16, 1, 1)),
        "w4": random.normal(size=(16, 1000)) * scale,
        "b4": random.normal(size=1000),
    }
    pads = {"pads": [1, 1, 1, 1]}
    steps = [
        ("Conv", [input_name, "w1"], "c1", {"strides": [16, 16]}),
        ("Relu", ["c1"], "r1", {}),
        ("Conv", ["r1", "w2"], "c2", pads),
        ("Identity", ["c2"], "i2", {}),
        ("Add", ["i2", "r1"], "a2", {}),
        ("Conv", ["a2", "w5"], "c5", pads),
        ("Mul", ["c5", "factor"], "m5", {}),
        ("Conv", ["m5", "w3"], "c3", pads),
        ("Relu", ["c3"], "r3", {}),
        ("Sub", ["r3", "c3"], "s3", {}),
        ("Neg", ["minus_shift"], "shift", {}),
        ("Mul", ["s3", "shift"], "m3", {}),
        ("Mul", ["m3", "one"], "o3", {}),
        ("GlobalAveragePool", ["o3"], "g", {}),
        ("Flatten", ["g"], "f", {}),
        ("MatMul", ["f", "w4"], "logits", {}),
        ("Add", ["logits", "b4"], "sum" if noise else output_name, {}),
    ]
    if noise:
        steps += [("RandomNormalLike", ["sum"], "noise", {}), ("Add", ["sum", "noise"], output_name, {})]
    nodes = [
        helper.make_node(kind, inputs, [output], name=f"node_{output}" if named else "", **attributes)
        for kind, inputs, output, attributes in steps
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, 224, 224])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, [batch, 1000])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {"labels": json.dumps(["one", "two"])})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def optimised(before: Path, after: Path, level: str) -> Path:
    """What ONNX Runtime itself makes of a model."""
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.optimized_model_filepath = str(after)
    ort.InferenceSession(before, options, providers=["CPUExecutionProvider"])
    return after


def counted(path: Path) -> Counter:
    return Counter(node.op_type for node in model_files.load(path).graph.node)


def optimize(submission: Submission, model: Path, level: str, output: Path) -> float:
    got = submission.call(FILE, "optimize", model_path=model, level=level, output=output)
    expect(
        output.is_file(),
        called=f"optimize('{model.name}', '{level}', '{output.name}')",
        got=f"{got}; files: {sorted(file.name for file in output.parent.iterdir())}",
        expected=f"the file {output.name}",
        hint="options.optimized_model_filepath before the session is made, os.replace at the end",
    )
    return got


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("models") / "network.onnx")


@pytest.mark.points(1.5)
def test_saves_the_optimised_graph(submission, model, tmp_path):
    before = model.read_bytes()
    output = tmp_path / "new" / "network.extended.onnx"
    difference = optimize(submission, model, "extended", output)
    called = "optimize('network.onnx', 'extended', 'new/network.extended.onnx')"
    expect(
        counted(output)["FusedConv"] == 1 and counted(output).total() < counted(model).total(),
        called=called,
        got=f"a file with {dict(counted(output))}",
        expected="a Conv and its Relu fused into a FusedConv",
        hint="options.graph_optimization_level = LEVELS[level]",
    )
    left = [sorted(file.name for file in output.parent.iterdir()), model.read_bytes() == before]
    hint = "tempfile.TemporaryDirectory as a context manager"
    expect_equal(
        left, [[output.name], True], called=f"{called}: files, and whether the original is as it was", hint=hint
    )
    fine = isinstance(difference, float) and 0 <= difference <= AGREEMENT
    expected = "what compare() returns, at most 1e-4"
    expect(fine, called=called, got=difference, expected=expected, hint="return difference")


@pytest.mark.points(1)
def test_each_level_is_used(submission, model, tmp_path):
    for level, name in {
        "disable": "DISABLE_ALL",
        "basic": "ENABLE_BASIC",
        "extended": "ENABLE_EXTENDED",
        "layout": "ENABLE_LAYOUT",
        "all": "ENABLE_ALL",
    }.items():
        output = tmp_path / f"{level}.onnx"
        optimize(submission, model, level, output)
        expected = counted(optimised(model, tmp_path / "expected.onnx", name))  # what ONNX Runtime itself makes of it
        called = f"optimize('network.onnx', '{level}', ...): the operators"
        hint = "options.graph_optimization_level = LEVELS[level]; all sessions that you compare with: level 'disable'"
        expect_equal(counted(output), expected, called=called, hint=hint)


@pytest.mark.points(0.5)
def test_resnet18_becomes_as_fast_as_it_can(submission, fresh_models_dir, tmp_path):
    """Level `all` makes it 1.4 times faster: a file of `extended`, or the original, is over the limit."""
    model, output = fresh_models_dir / "resnet18.onnx", tmp_path / "resnet18.all.onnx"
    optimize(submission, model, "all", output)
    called = "optimize('resnet18.onnx', 'all', ...)"
    expect_same_answers(model, output, called, "input")  # three nodes that answer 0 are the fastest
    model_files.expect_as_fast(
        output,
        optimised(model, tmp_path / "reference.onnx", "ENABLE_ALL"),
        called=called,
        hint="let the session that saves the file optimise at this very level",
    )


def expect_same_answers(before: Path, after: Path, called: str, name: str) -> None:
    """Fail unless two files answer batches of 1, 2 and 5 alike, within AGREEMENT."""
    sessions = [model_files.open_session(path) for path in (before, after)]
    for batch in (1, 2, 5):
        images = np.random.default_rng(batch).normal(size=(batch, 3, 224, 224)).astype(np.float32)
        expected, got = (session.run(None, {name: images})[0] for session in sessions)
        what = f"{called}: the file on a batch of {batch}, and the original"
        expect_close(got, expected, AGREEMENT, called=what, hint="compare() before os.replace")


@pytest.mark.points(1)
def test_the_optimised_file_keeps_its_contract(submission, model, tmp_path):
    output = tmp_path / "network.onnx"
    optimize(submission, model, "extended", output)

    def contract(path: Path) -> dict:
        session = model_files.open_session(path)
        values = [*session.get_inputs(), *session.get_outputs()]
        return {
            "inputs and outputs": [(value.name, value.type, value.shape) for value in values],
            "metadata": session.get_modelmeta().custom_metadata_map,
        }

    hint = "ONNX Runtime keeps names, the dynamic batch axis and the metadata: take the file as it writes it"
    expect_equal(contract(output), contract(model), called="the optimised file", hint=hint)
    expect_same_answers(model, output, "optimize('network.onnx', 'extended', ...)", "pixels")


@pytest.mark.points(1.5)
def test_a_model_that_answers_otherwise_replaces_nothing(submission, tmp_path):
    """Noise in the graph: no two sessions answer alike, and so nobody can say that the files agree."""
    optimize(submission, network(tmp_path / "quiet.onnx"), "extended", tmp_path / "fine" / "quiet.onnx")
    model = network(tmp_path / "noisy.onnx", noise=True)
    output = tmp_path / "models" / "noisy.optimized.onnx"
    output.parent.mkdir()
    output.write_bytes(b"the model of yesterday")
    called = "optimize('noisy.onnx', ...), a model whose answers differ from run to run"
    hint = "save into a temporary folder, compare, and only then os.replace"
    given = {"model_path": model, "level": "extended", "output": output}
    expect_problem(submission, FILE, "optimize", called=called, hint=hint, **given)
    left = {file.name: written.beginning(file, 30) for file in output.parent.iterdir()}
    expect_equal(left, {output.name: b"the model of yesterday"}, called=f"{called}: files left", hint=hint)


@pytest.mark.points(1)
def test_compare_lets_nothing_else_pass(submission, model, tmp_path):
    got = submission.call(FILE, "compare", before=model, after=model)
    expect_equal(got, 0, called="compare('network.onnx', 'network.onnx')", hint="abs(a - b).max()")
    for kind, change in {
        "other weights": {"seed": 2},
        "weights 0.1% larger at the end": {"scale": 1.001},
        "outputs that are NaN": {"scale": float("nan")},
        "another name for its input": {"input_name": "input"},
        "another name for its output": {"output_name": "output"},
        "a batch axis fixed to 1": {"batch": 1},
    }.items():
        called = f"compare('network.onnx', 'other.onnx'), where the other has {kind}"
        hint = "names, types and shapes first; then every batch, with `if not difference <= AGREEMENT`"
        given = {"before": model, "after": network(tmp_path / "other.onnx", **change)}
        expect_problem(submission, FILE, "compare", called=called, hint=hint, **given)


@pytest.mark.points(0.5)
def test_counts_nodes_by_operator(submission, model, tmp_path):
    after = optimised(model, tmp_path / "after.onnx", "ENABLE_EXTENDED")
    for path in (model, after):
        got = submission.call(FILE, "operators", model_path=path)
        expected = dict(counted(path))
        if "FusedConv" in expected:
            expected["com.microsoft.FusedConv"] = expected.pop("FusedConv")
        expect_equal(got, expected, called=f"operators('{path.name}')", hint="operator(node) puts the domain in front")


@pytest.mark.points(0.5)
@pytest.mark.parametrize("named", [True, False], ids=["named_nodes", "nameless_nodes"])
def test_lists_the_fusions_that_happened_and_no_others(submission, tmp_path, named):
    """Not among them: Neg (folded), Identity and a Mul by one (removed), and the Relu whose Conv is used twice."""
    before = network(tmp_path / "before.onnx", named=named)
    after = optimised(before, tmp_path / "after.onnx", "ENABLE_EXTENDED")
    nodes = {node.output[0]: node.op_type for node in onnx.load(after).graph.node}
    assert "i2" not in nodes, "the Identity was meant to go"
    assert "shift" not in nodes, "Neg was meant to be folded"
    expected = [
        {"into": "com.microsoft.FusedConv", "from": ["Conv", "Relu"], "output": "r1"},
        {"into": "Conv", "from": ["Conv", "Mul"], "output": "m5"},
        {"into": "Gemm", "from": ["MatMul", "Add"], "output": "scores"},
    ]
    hint = "work(old, new): nodes that do the work of two or more, and are not what one of them was"
    for file, right in ((after, expected), (before, [])):
        got = submission.call(FILE, "fusions", before=before, after=file)
        expect_equal(got, right, called=f"fusions('before.onnx', '{file.name}')", hint=hint)


@pytest.mark.points(0.5)
def test_finds_what_a_change_of_layout_has_swallowed(submission, tmp_path):
    """The graphs are written by hand, as ONNX Runtime makes them where it knows the layout nchwc (Arm does not)."""
    before, after = (residual(tmp_path / f"{blocked}.onnx", blocked=blocked) for blocked in (False, True))
    expected = [
        {"into": "com.microsoft.nchwc.Conv", "from": ["Conv", "Relu"], "output": "t1"},
        {"into": "com.microsoft.nchwc.Conv", "from": ["Conv", "Add"], "output": "t2"},
        {"into": "com.microsoft.nchwc.Conv", "from": ["Conv", "Add", "Relu"], "output": "t3"},
    ]
    got = submission.call(FILE, "fusions", before=before, after=after)
    called = "fusions(before, after), where `after` has the layout nchwc"
    hint = "operator() puts the domain in front; ReorderOutput fuses nothing"
    expect_equal(got, expected, called=called, hint=hint)


def residual(path: Path, *, blocked: bool) -> Path:
    """MaxPool, Conv + Relu, Conv + Add, Conv + Add + Relu."""
    here = "com.microsoft.nchwc"
    before = [
        ("MaxPool", ["input"], "pool", "p"),
        ("Conv", ["pool", "w1"], "c1", "n1"),
        ("Relu", ["c1"], "r1", "n2"),
        ("Conv", ["r1", "w2"], "c2", "n3"),
        ("Add", ["c2", "pool"], "a2", "n4"),
        ("Conv", ["a2", "w3"], "c3", "n5"),
        ("Add", ["c3", "a2"], "a3", "n6"),
        ("Relu", ["a3"], "output", "n7"),
    ]
    after = [
        ("MaxPool", ["input"], "t0", "pool_nchwc"),
        ("Conv", ["t0", "v1"], "t1", "r1_nchwc"),
        ("Conv", ["t1", "v2", "", "t0"], "t2", "c2_nchwc"),
        ("Conv", ["t2", "v3", "", "t2"], "t3", "c3_nchwc"),
        ("ReorderOutput", ["t3"], "output", "ReorderOutput"),
    ]
    nodes = [
        helper.make_node(kind, inputs, [output], name=name, domain=here if blocked else "")
        for kind, inputs, output, name in (after if blocked else before)
    ]
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 8, 8])] for name in ("input", "output")]
    letter = "v" if blocked else "w"
    weights = [numpy_helper.from_array(np.ones((16, 16, 3, 3), np.float32), f"{letter}{i}") for i in (1, 2, 3)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "residual", *values, weights)), path)
    return path


@pytest.mark.points(0.5)
def test_reports_every_level(submission, tmp_path):
    (tmp_path / "models").mkdir()
    model = network(tmp_path / "models" / "net.onnx")
    output = tmp_path / "report"
    arguments = ["--model", model, "--quick", "--rounds", 2, "--threads", 1, "--output", output]
    finished = submission.run(FILE, *arguments, timeout=200, writes=[model.parent])
    called = f"python {FILE} --model net.onnx --quick --rounds 2 --threads 1 --output report"
    expected = "and a report that names FusedConv"
    expect_success(finished, "FusedConv", called=called, expected=expected, hint="run the same command yourself")
    levels = ["disable", "basic", "extended", "layout", "all"]
    files = {f"net.optimized.{level}.onnx" for level in levels} | {"net.onnx", "net.optimized.onnx"}
    assert {file.name for file in model.parent.iterdir()} == files
    shown = counted(model.with_name("net.optimized.onnx"))
    assert shown == counted(model.with_name("net.optimized.extended.onnx")), "shown by default: extended"
    tied = any(
        n.domain.endswith("nchwc") for n in model_files.load(model.with_name("net.optimized.all.onnx")).graph.node
    )
    assert ("'all' is tied to this kind of processor" in finished.output) == tied
    assert "'extended' is tied" not in finished.output
    assert sorted(file.name for file in output.iterdir()) == ["first_block.png", "measurements.json", "table.csv"]
    assert written.beginning(output / "first_block.png", 4) == b"\x89PNG"
    rows = list(csv.DictReader(written.read(output / "table.csv").decode().splitlines()))
    assert [row["runtime"] for row in rows] == [*levels, "at load"]
    assert all(float(row["median_ms"]) > 0 for row in rows)
    turns = json.loads(written.read(output / "measurements.json"))["turns"]
    assert len({turn["pid"] for turn in turns}) == len(turns) == 12, "each turn in a process of its own"
    assert [turn["runtime"] for turn in turns[:6]] == [*levels, "at load"]
    assert [turn["runtime"] for turn in turns[6:]] == [*levels[1:], "at load", "disable"], "taken in turn"
    assert {turn["runtime"] for turn in turns if turn["options"]["optimise"]} == {"at load"}, (
        "a saved graph is measured as it is"
    )


@pytest.mark.points(0.25)
@pytest.mark.parametrize("mistake", ["no model", "a file for a folder", "not a model", "an unknown level"])
def test_what_a_user_gets_wrong_is_one_sentence(submission, model, tmp_path, mistake):
    (tmp_path / "file").write_text("neither a folder nor a model")
    given = {"model_path": model, "level": "extended", "output": tmp_path / "out.onnx"}
    change, kind, words = {
        "no model": ({"model_path": tmp_path / "none.onnx"}, "Problem", "none.onnx"),
        "a file for a folder": ({"output": tmp_path / "file" / "out.onnx"}, "Error", "file"),
        "not a model": ({"model_path": tmp_path / "file"}, "Problem", "file"),
        "an unknown level": ({"level": "extreme"}, "Problem", "extreme"),
    }[mistake]
    hint = "open_session() says it for a model; OSError is main()'s to turn into a sentence"
    kwargs = {"called": f"optimize() with {mistake}", "hint": hint, "kind": kind}
    expect_problem(submission, FILE, "optimize", words, **kwargs, **given | change)
    assert [file.name for file in tmp_path.iterdir()] == ["file"], "nothing left behind"
