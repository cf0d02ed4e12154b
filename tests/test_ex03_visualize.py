"""Exercise 03: count what is in a graph, export a method other than `forward`, look at graphs in a browser."""

import os
import re
import signal
import stat
import time
from collections import Counter
from pathlib import Path
from socket import socket
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import uses_external_data
from scripts import expect_equal, expect_one_sentence
from small_models import small_model

from course.base.processes import wait
from course.harness import http, model_files, written
from course.harness.verdicts import expect, fail, said
from serving.model import softmax

FILE = "ex03_visualize.py"
# What each method adds to the convolution, the activation and the pooling that all of them share.
OWN = {"forward": {"Gemm"}, "embed": {"Tanh"}, "classify": {"Gemm", "Softmax"}}
ALL_OWN = {"Gemm", "Tanh", "Softmax"}


@pytest.fixture(scope="module")
def counts(drive, tmp_path_factory) -> dict[str, dict]:
    """What operators() makes of a file, by the file's name."""
    folder = tmp_path_factory.mktemp("count")
    names = ["Exp", "Neg", "Relu", "Relu", "Neg", "Relu"]
    nodes = [helper.make_node(name, [f"x{i}"], [f"x{i + 1}"]) for i, name in enumerate(names)]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x0", "x6")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), folder / "chain.onnx")
    (folder / "text.onnx").write_bytes(b"I am not a model.")
    (folder / "empty.onnx").write_bytes(b"")
    files = [folder / f"{name}.onnx" for name in ("chain", "missing", "text", "empty")]
    outcomes = drive("each", name="operators", calls=[{"model_path": file} for file in files])
    return {file.stem: outcome for file, outcome in zip(files, outcomes, strict=True)}


@pytest.mark.points(1)
def test_counts_the_nodes_by_operator(counts):
    got = counts["chain"].get("returned")
    pairs = list(got.items()) if isinstance(got, dict) else counts["chain"]
    called = "operators('chain.onnx'), a file with the nodes Exp, Neg, Relu, Relu, Neg, Relu"
    hint = "collections.Counter over node.op_type of model.graph.node, and its most_common()"
    expect_equal(pairs, [("Relu", 3), ("Neg", 2), ("Exp", 1)], called=called, hint=hint)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("kind", ["missing", "text", "empty"])
def test_says_in_one_sentence_why_a_file_cannot_be_shown(counts, kind):
    failed = counts[kind].get("failed", "")
    expect(
        "returned" in counts["chain"] and "raised Problem" in failed and f"{kind}.onnx" in failed,
        called=f"operators('{kind}.onnx'), and of a good file",
        got=[counts[kind], counts["chain"]],
        expected="a Problem with the file's name, and no complaint about the good one",
        hint="load the file inside `with reading(model_path)`; an empty file has no nodes",
    )


def self_contained(path: Path) -> bool:
    tensors = model_files.load(path).graph.initializer
    return not any(uses_external_data(tensor) for tensor in tensors)


@pytest.fixture(scope="module")
def export(drive, tmp_path_factory):
    """Each method exported, into a folder of its own; `export("embed")` is the file."""
    paths = {method: tmp_path_factory.mktemp(method) / f"{method}.onnx" for method in OWN}
    calls = [{"method": method, "path": path} for method, path in paths.items()]
    outcomes = dict(zip(OWN, drive("each", name="export_method", calls=calls, timeout=180), strict=True))

    def exported(method: str) -> Path:
        if failed := outcomes[method].get("failed"):
            fail(f"export_method('{method}', path): {failed}")
        return paths[method]

    return exported


@pytest.mark.points(0.5)
@pytest.mark.parametrize("method", OWN)
def test_exports_a_method(export, method):
    """Held against what `forward` gives, as exported."""
    path = export(method)
    called = f"export_method('{method}', path)"
    found = [[one.name for one in path.parent.iterdir()], path.is_file() and self_contained(path)]
    hint = "torch.onnx.export(..., external_data=False) inside `with whole_file(path) as written`"
    expect_equal(found, [[path.name], True], called=f"{called}: files, and whether it holds the weights", hint=hint)
    nodes = Counter(node.op_type for node in model_files.load(path).graph.node)
    expect(
        "Conv" in nodes and set(nodes) & ALL_OWN == OWN[method],
        called=called,
        got=dict(nodes),
        expected=f"Conv, Relu, the pooling, and {', '.join(OWN[method])}, which is what Classifier.{method} does",
        hint="the exporter calls the model, that is forward(): wrap the model, and call the method in the wrapper's forward",
    )
    images = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    try:
        got = model_files.open_session(path).run(None, {"input": images})
    except Exception as error:  # ONNX Runtime's own kinds
        fail(f"{path.name} does not take a batch of 5 as `input`: {str(error).splitlines()[0]}. Is the batch dynamic?")
    logits = model_files.open_session(export("forward")).run(None, {"input": images})[0]
    best = softmax(logits).max(axis=1), logits.argmax(axis=1)
    right, expected = {
        "forward": (lambda: got[0].shape == (5, 10) and np.ptp(got[0]) > 0, "logits (5, 10)"),
        "embed": (lambda: got[0].shape == (5, 8) and abs(got[0]).max() <= 1, "features (5, 8) between -1 and 1"),
        "classify": (
            lambda: len(got) == 2 and np.allclose(got[0], best[0], atol=1e-5) and (got[1] == best[1]).all(),
            f"probabilities {best[0].round(3).tolist()} and classes {best[1].tolist()}",
        ),
    }[method]
    expect(
        right(),
        called=f"{path.name} with a batch of 5 random images",
        got=[array.tolist() for array in got],
        expected=f"what the method gives: {expected}",
        hint="the weights are those of Classifier(); call .eval(), and return what the method returns",
    )


class Shown(NamedTuple):
    """Two models, shown until a signal comes."""

    models: list[Path]
    urls: list[str]
    pages: list[str]  # of each URL
    files: list[bytes]  # the model that each page names
    others: list[int]  # status of the other model at each URL
    opened: list[str]  # what was opened in a browser
    code: int | None
    output: str


@pytest.fixture(
    scope="module",
    params=[(signal.SIGINT, ()), (signal.SIGTERM, ("--no-browser",))],
    ids=["browser_and_ctrl_c", "no_browser_and_sigterm"],
)
def shown(request, submission, tmp_path_factory) -> Shown:
    """Python's webbrowser starts what $BROWSER names; here a script that notes what it should open."""
    (stop, options), folder = request.param, tmp_path_factory.mktemp("shown")
    browser, note = folder / "browser", folder / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" >> "{note}"\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    models = [small_model(folder / f"{name}.onnx", seed=seed) for seed, name in enumerate(("one", "other"))]

    def opened() -> list[str]:
        return written.read(note).decode().split() if note.exists() else []

    with submission.start(FILE, *models, *options, env={"BROWSER": str(browser)}, writes=[folder]) as process:
        urls = urls_of(process, 2)
        pages = [http.get(url).text for url in urls]
        names = [re.search(r'<meta name="file" content="(.*?)">', page) for page in pages]
        files = [http.get(url + name[1]).content if name else b"" for url, name in zip(urls, names, strict=True)]
        others = [
            http.get(f"{url}/data/{model.name}").status_code for url, model in zip(urls, models[::-1], strict=True)
        ]
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up and (
            "Stop" not in process.log.read_text() or len(opened()) < (0 if options else 2)
        ):
            time.sleep(0.1)
        os.killpg(process.pid, stop)
        code = wait(process, 30)
        return Shown(models, urls, pages, files, others, opened(), code, process.log.read_text())


def urls_of(process, number: int) -> list[str]:
    """The URLs that the script prints, once all of them are there."""
    give_up = time.monotonic() + 60
    while len(urls := re.findall(r"http://localhost:\d+", process.log.read_text())) < number:
        if process.poll() is not None or time.monotonic() > give_up:
            fail(f"`python ex03_visualize.py` shows no {number} graphs. It says: {process.log.read_text()[-500:]}")
        time.sleep(0.1)
    return urls


@pytest.mark.points(0.5)
def test_shows_two_models_side_by_side_until_it_is_stopped(shown):
    called = "python ex03_visualize.py one.onnx other.onnx"
    hint = "view(models, port, browser) of course.given.netron does this"
    for url, page, file, model in zip(shown.urls, shown.pages, shown.files, shown.models, strict=True):
        found = ["Netron" in page, len(file), file == model.read_bytes()]
        expected = [True, model.stat().st_size, True]
        expect_equal(
            found, expected, called=f"{called}, GET {url}: netron's page, its model's bytes and content", hint=hint
        )
    expect_equal(
        shown.others, [404, 404], called=f"{called}: the other model at each URL, which is not shown", hint=hint
    )
    expect(
        shown.code == 0 and "Traceback" not in shown.output and "┃" in shown.output,
        called=f"{called}, then Ctrl-C or SIGTERM",
        got=f"exit code {shown.code}: {said(shown.output)}",
        expected="a table of operators, two URLs, and exit code 0 within 30 s",
        hint="print_operators(models), then view(models, port, browser)",
    )


@pytest.mark.points(0.25)
def test_opens_a_browser_unless_told_not_to(shown, request):
    wanted = "no_browser" not in request.node.callspec.id
    called = f"python ex03_visualize.py one.onnx other.onnx{'' if wanted else ' --no-browser'}: opened in a browser"
    hint = "view(models, port, browser): the last one is the option"
    expect_equal(shown.opened, shown.urls if wanted else [], called=called, hint=hint)


@pytest.mark.points(0.5)
def test_a_port_that_is_taken_is_one_sentence(submission, tmp_path):
    model = small_model(tmp_path / "one.onnx")
    with socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        finished = submission.run(FILE, model, "--no-browser", "--port", port, timeout=60)
    called = f"python ex03_visualize.py one.onnx --port {port}, where something listens"
    expect_one_sentence(finished, port, called=called, hint="view() raises a Problem that says so: do not catch it")
