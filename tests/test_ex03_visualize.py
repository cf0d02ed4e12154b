"""Exercise 03: count what is in a graph, export a method other than `forward`, look at graphs in a browser."""

import os
import re
import signal
import stat
import time
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data
from scripts import expect_one_sentence
from small_models import small_model

from course.base.processes import wait
from course.harness import http, model_files, written
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail
from serving.model import softmax

FILE = "ex03_visualize.py"
# What each method adds to the convolution, the activation and the pooling that all of them share.
OWN = {"forward": {"Gemm"}, "embed": {"Tanh"}, "classify": {"Gemm", "Softmax"}}
ALL_OWN = {"Gemm", "Tanh", "Softmax"}


@pytest.mark.points(1)
def test_counts_the_nodes_by_operator(submission, tmp_path):
    names = ["Exp", "Neg", "Relu", "Relu", "Neg", "Relu"]
    nodes = [helper.make_node(name, [f"x{i}"], [f"x{i + 1}"]) for i, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", "x6")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), tmp_path / "chain.onnx")
    got = submission.call(FILE, "operators", model_path=tmp_path / "chain.onnx")
    expect(
        isinstance(got, dict) and list(got.items()) == [("Relu", 3), ("Neg", 2), ("Exp", 1)],
        called=f"operators('chain.onnx'), whose nodes are {', '.join(names)}",
        got=got,
        expected="{'Relu': 3, 'Neg': 2, 'Exp': 1}, the most frequent first",
        hint="collections.Counter over node.op_type of model.graph.node, and its most_common()",
    )


@pytest.mark.points(0.5)
@pytest.mark.parametrize("kind", ["missing", "broken"])
def test_says_in_one_sentence_why_a_file_cannot_be_shown(submission, tmp_path, kind):
    path = tmp_path / "mine.onnx"
    if kind == "broken":
        path.write_bytes(b"I am not a model.")
    finished = submission.run(FILE, path, "--no-browser")
    called = f"python ex03_visualize.py mine.onnx, a {kind} file"
    expect_one_sentence(finished, "mine.onnx", called=called, hint="load it inside `with reading(model_path)`")


def self_contained(path: Path) -> bool:
    tensors = model_files.load(path).graph.initializer
    return not any(uses_external_data(tensor) for tensor in tensors)


@pytest.fixture(scope="module")
def export(submission: Submission, tmp_path_factory):
    """Export each method once, into a folder of its own; `export("embed")` is the file, if there is one."""
    folder = tmp_path_factory.mktemp("export")

    def once(method: str) -> Path:
        path = folder / method / f"{method}.onnx"
        if not path.parent.exists():
            path.parent.mkdir()
            submission.call(FILE, "export_method", method=method, path=path, timeout=120)
        return path

    return once


@pytest.mark.points(0.5)
@pytest.mark.parametrize("method", OWN)
def test_exports_a_method(export, method):
    """Held against what `forward` gives, as exported."""
    path = export(method)
    called = f"export_method('{method}', path)"
    expect(
        path.is_file() and [one.name for one in path.parent.iterdir()] == [path.name] and self_contained(path),
        called=called,
        got=f"in the folder afterwards: {sorted(one.name for one in path.parent.iterdir())}",
        expected=f"{path.name} alone, with the weights in it, and nothing left over",
        hint="torch.onnx.export(..., external_data=False) inside `with whole_file(path) as written`",
    )
    nodes = Counter(node.op_type for node in model_files.load(path).graph.node)
    expect(
        "Conv" in nodes and set(nodes) & ALL_OWN == OWN[method],
        called=called,
        got=dict(nodes),
        expected=f"Conv, Relu, the pooling, and {', '.join(OWN[method])}, which is what Classifier.{method} does",
        hint="the exporter calls the model, that is forward(): wrap the model, and call the method in the wrapper's forward",
    )
    images = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    session = model_files.open_session(path)
    try:
        got = session.run(None, {"input": images})
    except Exception as error:  # ONNX Runtime's own kinds
        fail(f"{path.name} does not take a batch of 5 as `input`: {str(error).splitlines()[0]}. Is the batch dynamic?")
    forward = export("forward")
    if not forward.is_file():
        fail("export_method('forward', path) failed; see the first test that needed it")
    logits = model_files.open_session(forward).run(None, {"input": images})[0]
    probabilities = softmax(logits)
    right = {
        "forward": lambda: got[0].shape == (5, 10) and np.ptp(got[0]) > 0,
        "embed": lambda: got[0].shape == (5, 8) and abs(got[0]).max() <= 1,
        "classify": lambda: (
            len(got) == 2
            and np.allclose(got[0], probabilities.max(axis=1), atol=1e-5)
            and (got[1] == logits.argmax(axis=1)).all()
        ),
    }
    expect(
        right[method](),
        called=f"{path.name} with a batch of 5 random images",
        got=[array.tolist() for array in got],
        expected="what the method gives: "
        + {
            "forward": "logits (5, 10)",
            "embed": "features (5, 8) between -1 and 1",
            "classify": f"probabilities {probabilities.max(axis=1).round(3).tolist()} and classes {logits.argmax(axis=1).tolist()}",
        }[method],
        hint="the weights are those of Classifier(); call .eval(), and return what the method returns",
    )


def urls_of(process, number: int) -> list[str]:
    """The URLs that the script prints, once all of them are there."""
    give_up = time.monotonic() + 60
    while len(urls := re.findall(r"http://localhost:\d+", process.log.read_text())) < number:
        if process.poll() is not None or time.monotonic() > give_up:
            fail(f"`python ex03_visualize.py` shows no {number} graphs. It says: {process.log.read_text()[-500:]}")
        time.sleep(0.1)
    return urls


@pytest.mark.points(0.75)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_shows_two_models_side_by_side_until_it_is_stopped(submission, tmp_path, stop):
    models = [small_model(tmp_path / f"{name}.onnx", seed=seed) for seed, name in enumerate(("one", "other"))]
    with submission.start(FILE, *models, "--no-browser") as process:
        urls = urls_of(process, 2)
        for model, url in zip(models, urls, strict=True):
            page = http.get(url).text
            file = re.search(r'<meta name="file" content="(.*?)">', page)
            got = http.get(url + file[1]).content if file else b""
            expect(
                "Netron" in page and got == model.read_bytes(),
                called=f"GET {url}, which shows {model.name}",
                got=f"a page whose model is {file[1] if file else 'missing'}, {len(got)} bytes",
                expected=f"netron's page with {model.name}, {model.stat().st_size} bytes",
                hint="view(models, port, browser) of course.given.netron does this",
            )
            outside = http.get(f"{url}/data/{models[0].name if model is models[1] else models[1].name}").status_code
            assert outside == 404, "only the model is served from its folder"
        os.killpg(process.pid, stop)
        code, output = wait(process, 10), process.log.read_text()
        expect(
            code == 0 and "Traceback" not in output and "┃" in output,
            called=f"python ex03_visualize.py one.onnx other.onnx --no-browser, then {stop.name}",
            got=f"exit code {code}: {output[-400:]}",
            expected="a table of operators, two URLs, and exit code 0 within 10 s",
            hint="print_operators(models), then view(models, port, browser)",
        )


@pytest.mark.points(0.5)
def test_a_port_that_is_taken_is_one_sentence(submission, tmp_path):
    model = small_model(tmp_path / "one.onnx")
    with submission.start(FILE, model, "--no-browser") as process:
        port = urls_of(process, 1)[0].rpartition(":")[2]
        finished = submission.run(FILE, model, "--no-browser", "--port", port, timeout=60)
    called = f"python ex03_visualize.py one.onnx --port {port}, where something listens"
    hint = "view() raises a Problem that says so: do not catch it"
    expect_one_sentence(finished, f"Port {port} is taken", called=called, hint=hint)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("wanted", [True, False], ids=["browser", "no_browser"])
def test_opens_a_browser_unless_told_not_to(submission, tmp_path, wanted):
    """Python's webbrowser starts what $BROWSER names; here a script that records what it should open."""
    browser, note = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" >> "{note}"\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)

    def opened() -> list[str]:
        return written.read(note).decode().split() if note.exists() else []

    model = small_model(tmp_path / "one.onnx")
    options = [] if wanted else ["--no-browser"]
    with submission.start(FILE, model, *options, env={"BROWSER": str(browser)}, writes=[tmp_path]) as process:
        (url,) = urls_of(process, 1)
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up and ("Stop" not in process.log.read_text() or (wanted and not opened())):
            time.sleep(0.1)
    expect(
        opened() == ([url] if wanted else []),
        called=" ".join(["python ex03_visualize.py one.onnx", *options]),
        got=f"opened in a browser: {opened()}",
        expected=f"{[url] if wanted else 'nothing'}",
        hint="view(models, port, browser): the last one is the option",
    )
