"""Exercise 19: an archive of images as a task: submit, progress, fetch, cancel, and optionally retry; and its client."""

import io
import re
import shutil
import signal
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import image_service
import numpy as np
import onnxruntime as ort
import pytest
import under_load
from bad_input import BAD_IMAGES, CAT, COFFEE
from PIL import Image
from scripts import expect_one_sentence, expect_success

from course.base.processes import free_port, left_behind, wait
from course.harness import http
from course.harness.load import ask, workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail

SERVICE, CLIENT = "ex19_tasks.py", "ex19_client.py"
ROUTE = "/classify_archive"
TERMINAL = {"TERM": "xterm", "FORCE_COLOR": "1"}  # rich updates its progress bar


@pytest.fixture(scope="module")
def models(fresh_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return under_load.own_copy(fresh_models_dir, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(submission: Submission, models: Path):
    with submission.serve(SERVICE, env={"MODELS_DIR": str(models)}) as running:
        yield running


@pytest.fixture(scope="module")
def session(fresh_models_dir: Path) -> ort.InferenceSession:
    return ort.InferenceSession(fresh_models_dir / "resnet18.onnx")


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def cats(number: int) -> bytes:
    return packed({f"{i:03}.png": CAT.read_bytes() for i in range(number)})


def submit(server: Server, archive: bytes) -> str:
    response = server.request("POST", f"{ROUTE}/submit", content=archive, headers={"content-type": "application/zip"})
    return task_in(server, response, f"POST {ROUTE}/submit with an archive of {len(archive):,} bytes")


def task_in(server: Server, response: httpx.Response, called: str) -> str:
    expect(
        response.status_code == 200 and "task_id" in response.text,
        called=called,
        got=f"{response.status_code} {response.text[:300]}",
        expected='200 and {"task_id": ..., ...}',
        hint=f"decorate classify_archive with @bentoml.task.{server.last_words()}",
    )
    return response.json()["task_id"]


def progress(server: Server, task: str, path: str = "/progress") -> dict:
    response = server.request("POST", path, json={"task_id": task})
    try:
        answer = response.json()
        right = {"status", "done", "total", "error"} <= answer.keys() and isinstance(answer["done"], int)
    except (ValueError, AttributeError):
        right = False
    expect(
        response.status_code == 200 and right,
        called=f'POST {path} with {{"task_id": (one that was submitted)}}',
        got=f"{response.status_code} {response.text[:300]}",
        expected='200 and {"status": ..., "done": 3, "total": 10, "error": null}',
        hint=f"count in classify_archive, under ctx.request.state.task_id.{server.last_words()}",
    )
    return answer


def wait_until(server: Server, task: str, reached, expected: str, seconds: float = 60) -> dict:
    """What /progress says once something is true of it, or once the task has ended."""
    give_up = time.monotonic() + seconds
    while not reached(state := progress(server, task)):
        if time.monotonic() > give_up or state["status"] in ("completed", "failed", "canceled"):
            fail(f"A task was expected to be {expected}; /progress says {state}.{server.last_words()}")
        time.sleep(0.02)
    return state


def ended(server: Server, task: str) -> dict:
    return wait_until(server, task, lambda state: state["status"] in ("completed", "failed", "canceled"), "ended")


def result(server: Server, task: str) -> httpx.Response:
    return server.request("GET", f"{ROUTE}/get", params={"task_id": task})


def classified(server: Server, archive: bytes, called: str) -> list[dict]:
    """Submit, wait, fetch: the entry of each file."""
    task = submit(server, archive)
    state, response = ended(server, task), result(server, task)
    expect(
        state["status"] == "completed" and response.status_code == 200 and "files" in response.text,
        called=called,
        got=f"/progress: {state}; {ROUTE}/get: {response.status_code} {response.text[:300]}",
        expected='completed, and {"files": [{"file": ..., "predictions": [...]}, ...], "weights": ...}',
        hint=f"one bad file must not fail the others.{server.last_words()}",
    )
    return response.json()["files"]


# ------------------------------------------------------------------------------ one image


@pytest.mark.points(0.5)
def test_classify_answers_as_before(server, session):
    for image in (CAT, COFFEE):
        image_service.assert_classifies(server, session, image)
    image_service.assert_refuses_bad_images(server)


@pytest.mark.points(0.25)
def test_swagger_documents_the_apis(server):
    image_service.assert_still_serves(server, "before that")
    got = server.request("GET", "/docs.json")
    expect(
        got.status_code == 200 and {ROUTE, "/progress", "/cancel", "/classify"} <= got.json().get("paths", {}).keys(),
        called="GET /docs.json",
        got=f"{got.status_code} {got.text[:200]}",
        expected=f"{ROUTE}, /progress, /cancel and /classify",
        hint=f"declare their arguments.{server.last_words()}",
    )


# ------------------------------------------------------------------------------ an archive


@pytest.mark.points(1.25)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_each_image_gets_its_own_labels(server, session, method):
    images = {"cat.png": CAT, "deep/er/coffee.png": COFFEE, "../../cat again.png": CAT, "ünï.png": COFFEE}
    files = {name: image.read_bytes() for name, image in images.items()} | {"folder/": b"", ".DS_Store": b"x"}
    got = classified(server, packed(files, method), f"a task with the images {list(images)}")
    best = {image: image_service.best_five(session, Image.open(image).convert("RGB")) for image in (CAT, COFFEE)}
    expected = [(name, best[image]) for name, image in images.items()]
    expect(
        [one["file"] for one in got] == list(images)
        and all(
            "predictions" in one and near(one["predictions"], five)
            for one, (_, five) in zip(got, expected, strict=True)
        ),
        called=f"GET {ROUTE}/get of a task with the images {list(images)}",
        got=got,
        expected=f"in this order {expected}",
        hint="one entry for each of images_in(archive), with top5() of its own logits",
    )


def near(got: list[dict], expected: list[dict]) -> bool:
    """Compares labels and probabilities: with random weights two photographs may share their best label."""
    return [one["label"] for one in got] == [one["label"] for one in expected] and np.allclose(
        [one["probability"] for one in got], [one["probability"] for one in expected], atol=1e-4
    )


@pytest.mark.points(1.5)
def test_a_bad_file_is_reported_and_the_others_are_classified(server):
    files = {"first.png": CAT.read_bytes()} | {kind: make() for kind, make in BAD_IMAGES.items()}
    files |= {"large.png": CAT.read_bytes().ljust(11 * 2**20, b" "), "last.png": CAT.read_bytes()}
    archive = bytearray(packed(files | {"locked.png": CAT.read_bytes(), "broken.png": CAT.read_bytes()}))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        locked, broken = opened.getinfo("locked.png"), opened.getinfo("broken.png")
        contents = opened.start_dir
    archive[broken.header_offset + 5000] ^= 0xFF  # a wrong checksum
    for flags in (locked.header_offset + 6, archive.index(b"locked.png", contents) - 46 + 8):
        archive[flags] |= 1  # "encrypted"
    got = classified(server, bytes(archive), "a task with two cats and many files that are no images")
    good = [one["file"] for one in got if "predictions" in one]
    reasons = {one["file"]: one.get("error") for one in got if "predictions" not in one}
    expect(
        good == ["first.png", "last.png"]
        and reasons.keys() == {*BAD_IMAGES, "large.png", "locked.png", "broken.png"}
        and all("expected" in str(reason) for reason in reasons.values()),
        called="a task with first.png, last.png, and files that are broken, too large, locked or no images",
        got=f"classified: {good}; reasons: {reasons}",
        expected='{"file": ..., "predictions": ...} for these two, {"file": ..., "error": "expected ..."} for the others',
        hint="read_file raises BadFile and read_image InvalidArgument: answer the sentence for that file, and go on",
    )
    image_service.assert_still_serves(server, "after an archive with bad files")


def bomb() -> bytes:
    """270 kB that would unpack into 270 MB."""
    return packed({f"{i}.bmp": bytes(10 * 2**20) for i in range(26)}, zipfile.ZIP_DEFLATED)


BAD_ARCHIVES = {
    "not_a_zip": lambda: CAT.read_bytes(),
    "cut_short": lambda: cats(2)[:-100],
    "without_files": lambda: packed({}),
    "with_folders_only": lambda: packed({"a/": b"", "a/b/": b"", "__MACOSX/._cat.png": b"x"}),
    "with_1001_files": lambda: packed({f"{i}.png": b"x" for i in range(1001)}),
    "with_100_000_files": lambda: packed({f"{i:0100}": b"" for i in range(100_000)}),
    "bomb": bomb,
    "contents_cut": lambda: (whole := cats(2))[: whole.rindex(b"PK\x01\x02")] + whole[whole.rindex(b"PK\x05\x06") :],
}


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_a_bad_archive_fails_with_a_reason(server, kind):
    task = submit(server, BAD_ARCHIVES[kind]())
    state, response = ended(server, task), result(server, task)
    expect(
        state["status"] == "failed" and "expected" in str(state["error"]) and response.status_code == 400,
        called=f"a task with an archive {kind.replace('_', ' ')}",
        got=f"/progress: {state}; {ROUTE}/get: {response.status_code} {response.text[:200]}",
        expected='"failed", and in "error" what was expected; 400 where the result is fetched',
        hint=f"open_archive raises BadArchive with the sentence.{server.last_words()}",
    )
    image_service.assert_still_serves(server, f"after an archive {kind.replace('_', ' ')}")


@pytest.mark.points(0.25)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_refuses_a_body_over_the_limit(server, announced):
    """64 MiB for an archive, whether or not the caller announces its length."""
    image_service.assert_still_serves(server, "before that")
    body = bytes(65 * 2**20) if announced else (bytes(2**20) for _ in range(65))
    response = server.request("POST", f"{ROUTE}/submit", content=body)
    image_service.assert_refused(server, f"POST {ROUTE}/submit with 65 MiB", response, statuses=(413,))


@pytest.mark.points(0.5)
def test_refuses_forms_and_nothing_at_all(server):
    image_service.assert_still_serves(server, "before that")
    response = server.request("POST", f"{ROUTE}/submit", files={"archive": cats(1)})
    image_service.assert_refused(server, f"POST {ROUTE}/submit with a form", response)
    response = server.request("POST", f"{ROUTE}/submit", content=b"")
    image_service.assert_refused(server, f"POST {ROUTE}/submit without a body", response)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("path", ["/progress", "/cancel"])
def test_an_unknown_task_is_not_found(server, path):
    image_service.assert_still_serves(server, "before that")
    response = server.request("POST", path, json={"task_id": "0" * 32})
    expect(
        response.status_code == 404,
        called=f"POST {path} with a task_id that was never given",
        got=f"{response.status_code} {response.text[:300]}",
        expected="404",
        hint=f"self.tasks.find(task_id) raises NotFound.{server.last_words()}",
    )


# ------------------------------------------------------------------------------ while it runs


def some_done(state: dict) -> bool:
    return 0 < state["done"] < state["total"]


@pytest.mark.points(1.5)
def test_progress_is_told_and_others_are_answered_meanwhile(server):
    task = submit(server, cats(40))
    begun = wait_until(server, task, lambda state: state["total"] and some_done(state), "under way")
    for number in range(3):
        image_service.assert_still_serves(server, f"for the {number + 1}. time while an archive is worked through")
    later = progress(server, task)
    expect(
        begun["total"] == 40 and begun["done"] < later["done"] < 40 and later["status"] == "in_progress",
        called="POST /progress before and after three POST /classify, while a task of 40 images runs",
        got=f"{begun}, then {later}",
        expected="in_progress both times, of a total of 40, and more done the second time",
        hint="make classify_archive a coroutine and run each image in a thread (anyio.to_thread.run_sync)",
    )
    expect(
        ended(server, task)["done"] == 40,
        called="POST /progress at the end",
        got=progress(server, task),
        expected="40 done",
        hint="count each file",
    )


@pytest.mark.points(2)
def test_cancel_stops_the_work(server):
    task = submit(server, cats(250))
    before = wait_until(server, task, lambda state: state["total"] and some_done(state), "under way")
    said = progress(server, task, "/cancel")
    time.sleep(0.5)  # for the image at hand
    process = workers(server)[0]
    used = sum(process.cpu_times()[:2])
    state = progress(server, task)
    time.sleep(1)
    used = sum(process.cpu_times()[:2]) - used
    expect(
        {said["status"], state["status"]} == {"canceled"}
        and before["done"] <= state["done"] == progress(server, task)["done"] < 250
        and used < 0.4,
        called="POST /cancel while a task of 250 images runs",
        got=f"{said}, then {state}; a second later the worker had computed for {used:.1f} s more",
        expected="canceled, and no work after the image at hand",
        hint="work inside `with task.scope`; task.cancel() cancels that scope; a status alone stops nothing",
    )
    image_service.assert_refused(
        server, f"GET {ROUTE}/get of a cancelled task", _with_expected(result(server, task)), (409, 400)
    )


def _with_expected(response: httpx.Response) -> httpx.Response:
    """assert_refused looks for the word `expected`; a cancelled task says that it was cancelled."""
    return httpx.Response(response.status_code, json={"expected": response.text} if "cancel" in response.text else {})


@pytest.mark.points(1)
def test_too_many_tasks_are_refused_at_once(server):
    archive = cats(100)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.request, "POST", f"{ROUTE}/submit", content=archive) for _ in range(12)]
        responses = [one.result() for one in asked]
    taken = [task_in(server, one, f"POST {ROUTE}/submit") for one in responses if one.status_code != 429]
    states = [progress(server, task, "/cancel") for task in reversed(taken)]
    refused = [one.text for one in responses if one.status_code == 429]
    expect(
        len(taken) == 8 and all("expected" in text for text in refused),
        called=f"12 times POST {ROUTE}/submit with 100 images",
        got=f"{len(taken)} accepted; the others: {refused[:1]}",
        expected="8 accepted, the others 429 with a sentence",
        hint="add_asgi_middleware(TaskBodies, ..., max_tasks=8)",
    )
    expect(
        all(state["status"] == "canceled" for state in states) and any(state["done"] == 0 for state in states),
        called="POST /cancel for all of them",
        got=states,
        expected="canceled, those that had not begun as well",
        hint="enter the scope before you wait for your turn",
    )
    task = submit(server, cats(1))
    expect(
        ended(server, task)["status"] == "completed",
        called="one more task after that",
        got=progress(server, task),
        expected="completed: cancelled tasks leave their places",
        hint="leave the limiter with `async with`",
    )


# ------------------------------------------------------------------------------ the client


@pytest.mark.points(1)
def test_client_sends_a_folder_and_shows_progress(submission, server, session, tmp_path):
    (tmp_path / "sub").mkdir()
    for number in range(12):
        shutil.copy(CAT, tmp_path / "sub" / f"cat {number}.png")
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    label = image_service.best_five(session, Image.open(CAT).convert("RGB"))[0]["label"]
    for turn in ("first", "second"):
        finished = submission.run(CLIENT, tmp_path, "--url", server.url, env=TERMINAL)
        seen = {int(done) for done in re.findall(r"(\d+)/12", finished.output)}
        expect_success(
            finished,
            *(label, "sub/cat 0.png", "sub/cat 11.png", "RANDOM"),
            called=f"python ex19_client.py FOLDER, for the {turn} time",
            expected=f"a table with sub/cat 0.png to sub/cat 11.png and the label {label}; that the weights are RANDOM",
            hint="submit(), states() until the task has ended, result()",
        )
        expect(
            12 in seen and any(0 < one < 12 for one in seen),
            called="python ex19_client.py FOLDER, in a terminal",
            got=f"shown of 12: {sorted(seen)}",
            expected="a bar that says how many of the 12 images are done while it waits",
            hint="states() yields what /progress says, ten times a second",
        )


@pytest.mark.points(0.5)
def test_client_sends_an_archive_and_names_what_was_refused(submission, server, tmp_path):
    (tmp_path / "mixed.zip").write_bytes(packed({"[red]cat.png": CAT.read_bytes(), "[red]bad.png": b"no image"}))
    finished = submission.run(CLIENT, tmp_path / "mixed.zip", "--url", server.url)
    called = "python ex19_client.py mixed.zip, with one image and one file that is not an image"
    hint = "result() returns the reasons, too; main() prints them"
    expect_one_sentence(finished, "[red]bad.png", "expected an image", called=called, hint=hint)
    assert "[red]cat.png" in finished.output, "the image is not in the table"


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", ["nothing_listens", "no_archive", "no_image", "no_such_file"])
def test_client_says_what_is_wrong(submission, server, tmp_path, kind):
    (tmp_path / "notes.zip").write_text("no archive")
    (tmp_path / "empty").mkdir()
    url = f"http://127.0.0.1:{free_port()}" if kind == "nothing_listens" else server.url
    path, expected = {
        "nothing_listens": (CAT.parent, "make serve"),
        "no_archive": (tmp_path / "notes.zip", "expected a zip archive"),
        "no_image": (tmp_path / "empty", "no image"),
        "no_such_file": (tmp_path / "nowhere.zip", "cannot be read"),
    }[kind]
    finished = submission.run(CLIENT, path, "--url", url)
    called = f"python ex19_client.py {path.name} --url ({kind.replace('_', ' ')})"
    expect_one_sentence(finished, expected, called=called, hint="do not catch what the httpx calls raise")


@pytest.mark.points(1)
def test_ctrl_c_of_the_client_cancels_the_task(submission, server, tmp_path):
    (tmp_path / "cats.zip").write_bytes(cats(250))
    with submission.start(CLIENT, tmp_path / "cats.zip", "--url", server.url, env=TERMINAL) as client:
        give_up = time.monotonic() + 30
        while not re.search(r"[1-9]\d*/250", client.log.read_text()):
            if time.monotonic() > give_up or client.poll() is not None:
                fail(f"The client showed no progress: {client.log.read_text()[-500:]}{server.last_words()}")
            time.sleep(0.05)
        client.send_signal(signal.SIGINT)
        code, output = wait(client, 20), client.log.read_text()
    told = re.search(r"\b[0-9a-f]{32}\b", output)
    state = progress(server, told[0]) if told else None
    expect(
        code == 130 and "Traceback" not in output and state is not None and state["status"] == "canceled",
        called="Ctrl-C while python ex19_client.py waits for 250 images",
        got=f"exit code {code}: {output[-300:]}; /progress: {state}",
        expected="exit code 130, the task's id, and the task canceled",
        hint='cancel(): client.post("/cancel", json={"task_id": task})',
    )


# ------------------------------------------------------------------------------ faults and load


@pytest.fixture(scope="module")
def lost(server) -> list[str]:
    """Two tasks whose worker was killed while it ran them."""
    tasks = [submit(server, cats(60)) for _ in range(2)]
    wait_until(server, tasks[0], lambda state: state["total"] and some_done(state), "under way")
    workers(server)[0].kill()
    give_up = time.monotonic() + under_load.BACK_AGAIN
    with http.Client() as client:
        while ask(client, server).status != 200:
            if time.monotonic() > give_up:
                fail(f"After {under_load.BACK_AGAIN} s no worker has taken a killed one's place.{server.last_words()}")
            time.sleep(0.1)
    return tasks


@pytest.mark.points(0.5)
def test_optional_a_task_whose_worker_died_has_failed_and_can_be_retried(server, lost):
    state = progress(server, lost[0])
    stored = server.request("GET", f"{ROUTE}/status", params={"task_id": lost[0]}).json()
    expect(
        state["status"] == stored.get("status") == "failed" and "retry" in str(state["error"]),
        called="POST /progress for a task whose worker was killed",
        got=f"{state}; {ROUTE}/status: {stored}",
        expected='"failed", and in "error" that it can be retried',
        hint="fail_lost_tasks() from serving.tasks, in a method under @bentoml.on_startup",
    )
    response = server.request("POST", f"{ROUTE}/retry", params={"task_id": lost[0]})
    again = task_in(server, response, f"POST {ROUTE}/retry for that task")
    state, response = ended(server, again), result(server, again)
    expect(
        state["status"] == "completed" and response.status_code == 200 and len(response.json()["files"]) == 60,
        called="the retried task",
        got=f"/progress: {state}; {ROUTE}/get: {response.status_code} {response.text[:200]}",
        expected="completed, with all 60 files",
        hint="keep the archive until its task has ended",
    )


@pytest.mark.points(0.5)
def test_optional_client_retries_a_task(submission, server, lost):
    finished = submission.run(CLIENT, "--retry", lost[1], "--url", server.url)
    called, expected = (
        "python ex19_client.py --retry (a task whose worker was killed)",
        "a table with 000.png to 059.png",
    )
    hint = 'client.post("/classify_archive/retry", params={"task_id": ...}) returns the id of a new task'
    expect_success(finished, "000.png", "059.png", called=called, expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_a_killed_worker_costs_what_it_held(server):
    under_load.assert_survives_a_killed_worker(server)


@pytest.mark.points(0.5)
def test_overload_is_answered(server):
    under_load.assert_answers_overload(server)


@pytest.mark.points(0.25)
def test_a_new_model_file_harms_nothing(server, models):
    under_load.assert_unharmed_by_a_new_model(server, models)


@pytest.mark.points(0.5)
def test_sigterm_ends_running_tasks(submission, server, fresh_models_dir):
    """Nobody can fetch their results, so the service must not wait for them."""
    image_service.assert_still_serves(server, "before that")
    with submission.serve(SERVICE, env={"MODELS_DIR": str(fresh_models_dir)}) as own:
        archive = cats(250)
        tasks = [submit(own, archive) for _ in range(4)]
        wait_until(own, tasks[0], lambda state: state["total"] and some_done(state), "under way")
        begun = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        code, took = wait(own.process, under_load.ENDED), time.monotonic() - begun
        left = left_behind(own.process)
    expect(
        code is not None and not left,
        called="kill -TERM (bentoml serve) while 4 tasks of 250 images are unfinished",
        got=f"exit code {code} after {took:.0f} s, processes left: {left}",
        expected=f"ended within {under_load.ENDED} s",
        hint="before_sigterm(self.tasks.cancel_all) under @bentoml.on_startup",
    )


@pytest.mark.points(0.5)
def test_does_not_start_without_a_model(submission, tmp_path):
    image_service.assert_does_not_start(submission, SERVICE, {"MODELS_DIR": str(tmp_path)}, "resnet18.onnx")


@pytest.mark.points(0.5)
def test_sigterm_finishes_what_was_accepted(server):
    under_load.assert_finishes_on_sigterm(server)
