"""Exercise 22: summaries of a tiny T5 with random weights: whose, how long, how many at a time. Never how good."""

import json
import random
import string
from pathlib import Path

import pytest
from image_service import assert_ends_with, expect_answer

from course import ROOT
from course.harness.load import Answer, at_once, tally
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect

SERVICE, NAME = "ex22_summarize.py", "Summarization"
STARTED = f"bentoml serve ex22_summarize:{NAME}"
TOKENS_READ, TOKENS_WRITTEN, AT_MOST = 512, 60, 16
ENV = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}  # threads would only slow down so small a model
PATIENCE = 120  # importing PyTorch and transformers takes seconds, on a busy machine many
GENERATE = "self.model.generate(**read, do_sample=False, num_beams=1, max_new_tokens=..., max_time=...)"


def random_text(length: int) -> str:
    return "A" + "".join(random.choices(string.ascii_letters + " ", k=length - 2)) + "."  # no spaces around it


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """tests/tiny_summarizer.py, in a process of its own."""
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("tiny"), trusted=True)


@pytest.fixture(scope="module")
def folder(tiny: Submission, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The summariser's."""
    folder = tmp_path_factory.mktemp("summarizer")
    tiny.call("tiny_summarizer.py", "make", timeout=PATIENCE, output=folder)
    return folder


@pytest.fixture(scope="module")
def summaries(tiny: Submission, folder: Path) -> dict[str, str]:
    """What the model writes about texts of this run alone, each by itself; no two summaries are alike."""
    texts = [random_text(length) for length in [*range(5, 35), 600, 700]]  # a character is a token
    limits = {"tokens_read": TOKENS_READ, "max_new_tokens": TOKENS_WRITTEN}
    written = tiny.call("tiny_summarizer.py", "summaries", timeout=PATIENCE, folder=folder, texts=texts, **limits)
    return {text: summary for text, summary in zip(texts, written, strict=True) if written.count(summary) == 1}


@pytest.fixture(scope="module")
def server(submission: Submission, folder: Path):
    env = ENV | {"SUMMARIZER": str(folder)}
    with submission.serve(SERVICE, service=NAME, env=env, deadline=PATIENCE) as running:
        yield running


def body_of(*texts: str) -> bytes:
    return json.dumps({"texts": texts}).encode()


def assert_summaries(server: Server, summaries: dict[str, str], texts: list[str], hint: str) -> None:
    response = server.request("POST", "/summarize", content=body_of(*texts))
    wanted = [summaries[text] for text in texts]
    right = response.status_code == 200 and response.json() == wanted
    called = f"POST /summarize with {len(texts)} texts of {', '.join(str(len(text)) for text in texts)} characters"
    expect_answer(server, response, right, called, f"200 and {json.dumps(wanted)}", hint)


def assert_own_summaries(
    server: Server, summaries: dict[str, str], requests: list[list[str]], answers: list[Answer], called: str
) -> None:
    wrong = [
        f"for {texts}: {one.status} {one.text}"
        for texts, one in zip(requests, answers, strict=True)
        if one.status != 200 or json.loads(one.text) != [summaries[text] for text in texts]
    ]
    hint = f"return one summary for each text, in the order of the texts; padding=True.{server.last_words()}"
    expected = "for each caller the summaries that their own texts get alone"
    expect(not wrong, called=called, got=f"{len(wrong)} wrong, {wrong[:1]}", expected=expected, hint=hint)


def batches(server: Server) -> dict[str, float]:
    """What the metric says so far: `sum` of the requests that ran in batches, `count` of the batches."""
    lines = server.request("GET", "/metrics").text.splitlines()
    own = [line for line in lines if "adaptive_batch_size" in line and 'method_name="summarize"' in line]
    return {
        key: max((float(line.split()[-1]) for line in own if f"_{key}{{" in line), default=0)
        for key in ("sum", "count")
    }


# ------------------------------------------------------------------------------ one caller


@pytest.mark.points(2)
def test_each_text_gets_its_summary(server, summaries):
    """The most likely one, with the model's own prefix, however the model's file says to generate."""
    first, *others = list(summaries)[:8]
    assert_summaries(server, summaries, [first], f"the prefix of the config before the text; {GENERATE}")
    assert_summaries(server, summaries, [first, *others], "padding=True, and the attention mask: generate(**read)")


@pytest.mark.points(1)
def test_the_same_text_gets_the_same_summary(server, summaries):
    text = next(iter(summaries))
    for _ in range(3):
        assert_summaries(server, summaries, [text, f"  {text}\n"[2:-1]], f"do_sample=False. {GENERATE}")


@pytest.mark.points(1)
def test_what_follows_the_first_512_tokens_is_not_read(server, summaries):
    text = next(text for text in summaries if len(text) >= 600)
    longer = {text: summaries[text], text + random_text(9000): summaries[text]}
    assert_summaries(
        server, longer, list(longer), "truncation=True, max_length=MAX_TOKENS: a tokenizer may know no limit"
    )


# ------------------------------------------------------------------------------ many callers


@pytest.mark.points(2)
def test_callers_at_once_get_their_own_summaries_in_batches(server, summaries):
    texts = [text for text in summaries if len(text) < 100][:16]
    requests = [texts[i : i + 1 + i % 2] for i in range(len(texts) - 1)] * 3
    before = batches(server)
    answers = at_once(server, "/summarize", [body_of(*one) for one in requests], users=len(texts))
    called = f"{len(requests)} x POST /summarize with one or two texts, from {len(texts)} callers at once"
    assert_own_summaries(server, summaries, requests, answers, called)
    after = batches(server)
    queued, ran = after["sum"] - before["sum"], after["count"] - before["count"]
    expect(
        queued >= len(requests) and ran <= queued / 2,  # one that two batches share counts twice
        called=f"{called}, then GET /metrics",
        got=f"{queued:.0f} requests in {ran:.0f} batches",
        expected=f"at least {len(requests)} requests, in at most half as many batches",
        hint=f"@bentoml.api(batchable=True, max_batch_size={AT_MOST}, max_latency_ms=60_000)",
    )


BAD = {
    "no_text": body_of(),
    "an_empty_text": body_of("good", ""),
    "a_text_of_spaces": body_of(" \n "),
    "nine_texts": body_of(*["one of nine"] * 9),
    "a_text_of_20_001_characters": body_of("x" * 20_001),
    "half_a_character": b'{"texts": ["a \\ud800 b"]}',
    "a_number": b'{"texts": [3]}',
    "one_string": b'{"texts": "not a list"}',
    "null": b'{"texts": null}',
    "no_texts": b"{}",
    "no_json": b"Breaking news",
}


@pytest.mark.points(1.5)
def test_bad_input_is_refused_and_harms_no_neighbour(server, summaries):
    texts = [text for text in summaries if len(text) < 100][: len(BAD)]
    bodies = [body for text, bad in zip(texts, BAD.values(), strict=True) for body in (body_of(text), bad)]
    answers = at_once(server, "/summarize", bodies, users=len(bodies))
    for kind, answer in zip(BAD, answers[1::2], strict=True):
        expect(
            answer.status == 400 and "error" in answer.text,
            called=f"POST /summarize with {kind.replace('_', ' ')}",
            got=f"{answer.status} {answer.text[:300]}",
            expected='400 and {"error": ...}',
            hint=f"Text and Texts: StringConstraints and Field, checked before the batch.{server.last_words()}",
        )
    called = f"{len(texts)} good and {len(texts)} bad POST /summarize at once ({tally(answers[::2])})"
    assert_own_summaries(server, summaries, [[text] for text in texts], answers[::2], called)


@pytest.mark.points(0.5)
def test_a_body_over_a_megabyte_is_refused(server):
    response = server.request("POST", "/summarize", content=b" " * 2**20 + body_of("long"))
    hint = f"finish({NAME}), the last line"
    expect_answer(server, response, response.status_code == 413, "POST /summarize with 1 MiB of spaces", "413", hint)


# ------------------------------------------------------------------------------ time, and no model


@pytest.mark.points(1)
def test_the_time_of_a_batch_is_limited(submission, folder, summaries):
    env = ENV | {"SUMMARIZER": str(folder), "MAX_SECONDS": "0"}
    text = max(summaries, key=lambda text: len(summaries[text]))
    with submission.serve(SERVICE, service=NAME, env=env, deadline=PATIENCE) as server:
        response = server.request("POST", "/summarize", content=body_of(text))
        right = response.status_code == 200 and len(response.json()[0]) < 5 < len(summaries[text])
        called, expected = (
            f"MAX_SECONDS=0 {STARTED}, POST /summarize",
            "200, and a summary that ends after a token or two",
        )
        expect_answer(server, response, right, called, expected, "max_time=MAX_SECONDS in generate(...)")


@pytest.mark.points(1)
def test_without_a_model_it_does_not_start(submission, folder, tmp_path):
    """Nothing at that path, or nothing on this machine and no network."""
    for summarizer in (str(tmp_path / "nothing"), "nobody/nothing-here"):
        env = ENV | {"SUMMARIZER": summarizer}
        hint = "load() under @bentoml.on_deployment; except Exception: raise BentoMLException(one sentence)"
        with submission.starting(SERVICE, service=NAME, env=env) as server:
            assert_ends_with(server, STARTED, env, summarizer, hint, patience=PATIENCE)
