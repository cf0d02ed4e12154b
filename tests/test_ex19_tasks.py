"""Exercise 19: an archive of images as a task: submit, progress, fetch, cancel, and optionally retry; and its client."""

import io
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import image_service
import pytest
import under_load
from bad_input import BAD_IMAGES, CAT, COFFEE
from composed_service import WHITE
from PIL import Image
from scripts import expect_one_sentence, expect_success

from course import ROOT
from course.base.processes import free_port, left_behind, wait
from course.harness import http
from course.harness.load import ask, workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail, said

SERVICE, CLIENT = "ex19_tasks.py", "ex19_client.py"
ROUTE = "/classify_archive"
TERMINAL = {"TERM": "xterm", "FORCE_COLOR": "1"}  # rich updates its progress bar
AT_A_TIME = 3  # tasks on a machine of four cores, which the service takes each machine for
FOUR_CORES = """
import os
os.cpu_count, os.sched_getaffinity, exists = lambda: 4, lambda pid: set(range(4)), os.path.exists
os.path.exists = lambda path: not str(path).startswith("/sys/fs/cgroup/cpu") and exists(path)  # nor a container's limit
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def environment(home: Path, small_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(FOUR_CORES)
    python = {"PYTHONPATH": f"{folder}:{ROOT}"}
    return {"MODELS_DIR": str(small_models_dir), "BENTOML_HOME": str(home)} | python


@pytest.fixture(scope="module")
def server(submission: Submission, environment: dict[str, str], model):
    with submission.serve(SERVICE, env=environment) as running:
        yield running


@pytest.fixture(scope="module")
def best(model) -> dict[Path | None, list[dict]]:
    """The five best labels of each photograph, and of a white image, which takes a tenth of a second."""
    white = Image.new("RGB", (300, 300), "white")
    images = {image: Image.open(image).convert("RGB") for image in (CAT, COFFEE)} | {None: white}
    return {image: image_service.best_five(model, pixels) for image, pixels in images.items()}


def packed(files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def archive_of(images: Iterable[Path | None]) -> bytes:
    """An archive of photographs, and of a white image for each None, called 000.png, 001.png, ..."""
    return packed({f"{i:03}.png": image.read_bytes() if image else WHITE for i, image in enumerate(images)})


def slow(number: int) -> bytes:
    """An archive that takes a tenth of a second for each of its images."""
    return archive_of([None] * number)


def answer(server: Server, path: str, *keys: str, hint: str, method: str = "POST", **request) -> dict:
    """The JSON that a route answers: with 200, and with these keys."""
    response = server.request(method, path, **request)
    try:
        got = response.json()
        right = response.status_code == 200 and set(keys) <= got.keys()
    except (ValueError, AttributeError):
        right = False
    expected = f"200 and JSON with {', '.join(keys)}"
    image_service.expect_answer(server, response, right, f"{method} {path}", expected, hint)
    return got


def submit(server: Server, archive: bytes) -> str:
    hint = "decorate classify_archive with @bentoml.task"
    kind = {"content-type": "application/zip"}
    return answer(server, f"{ROUTE}/submit", "task_id", hint=hint, content=archive, headers=kind)["task_id"]


def progress(server: Server, task: str, path: str = "/progress") -> dict:
    hint = "count in the Task that self.tasks.begin(ctx.request.state.task_id) returns"
    state = answer(server, path, "status", "done", "total", "error", hint=hint, json={"task_id": task})
    if not isinstance(state["done"], int) or not isinstance(state["total"], int | None):
        fail(f"POST {path} answers {state}; expected numbers for done and total, null for a total that is not known.")
    return state


def has_ended(state: dict) -> bool:
    return state["status"] in ("completed", "failed", "canceled")


def under_way(state: dict) -> bool:
    return bool(state["total"]) and 0 < state["done"] < state["total"]


def wait_until(server: Server, task: str, reached, expected: str, seconds: float = 60) -> dict:
    """What /progress says once something is true of it, or once the task has ended."""
    give_up = time.monotonic() + seconds
    while not reached(state := progress(server, task)):
        if time.monotonic() > give_up or has_ended(state):
            fail(f"A task was expected to be {expected}; /progress says {state}.{server.last_words()}")
        time.sleep(0.02)
    return state


def ended(server: Server, task: str) -> dict:
    return wait_until(server, task, has_ended, "ended")


def result(server: Server, task: str) -> httpx.Response:
    return server.request("GET", f"{ROUTE}/get", params={"task_id": task})


def files_of(server: Server, task: str, called: str) -> list[dict]:
    """Wait for a task that should succeed, and fetch its result: the entry of each file."""
    state, response = ended(server, task), result(server, task)
    files = response.json().get("files") if response.status_code == 200 else None
    expect(
        state["status"] == "completed"
        and isinstance(files, list)
        and state["done"] == state["total"] == len(files)
        and response.json().get("weights") == "random seed 0",
        called=called,
        got=f"/progress: {state}; {ROUTE}/get: {response.status_code}, {len(files or [])} files {response.text[-300:]}",
        expected='completed, every file done, {"files": [{"file": ..., "predictions": [...]}, ...], "weights": "random ..."}',
        hint=f"task.total and task.files are this task's own; one bad file must not fail the others.{server.last_words()}",
    )
    return files


def assert_labels(got: list[dict], expected: dict[str, list[dict]], called: str) -> None:
    """Each file, in the archive's order, with the labels and probabilities that the model gives its image."""
    same = (image_service.same(file.get("predictions", []), expected.get(file["file"], [])) for file in got)
    wrong = [file for file, right in zip(got, same, strict=True) if not right]
    expect(
        [file["file"] for file in got] == list(expected) and not wrong,
        called=called,
        got=f"the files {[file['file'] for file in got]}; not the labels of their images: {wrong}",
        expected=f"in this order {list(expected)}, each with the five best labels of its own image",
        hint="one entry for each of images_in(archive), with top5() of its own logits, in a list of its own task",
    )


# ------------------------------------------------------------------------------ one image


@pytest.mark.points(0.5)
def test_classify_answers_as_before(server, model):
    for image in (CAT, COFFEE):
        image_service.assert_classifies(server, model, image)
    image_service.assert_refuses_bad_images(server)


@pytest.mark.points(0.25)
def test_swagger_documents_the_apis(server):
    image_service.assert_still_serves(server, "before that")
    paths = answer(server, "/docs.json", "paths", method="GET", hint="declare the APIs' arguments")["paths"]
    missing = {ROUTE, "/progress", "/cancel", "/classify"} - paths.keys()
    if missing:
        fail(f"GET /docs.json does not describe {', '.join(missing)}: declare them with @bentoml.api or @bentoml.task.")


# ------------------------------------------------------------------------------ an archive


@pytest.mark.points(0.5)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_each_image_gets_its_own_labels(server, best, method):
    images = {"cat.png": CAT, "deep/er/coffee.png": COFFEE, "../../cat again.png": CAT, "ünï.png": COFFEE}
    files = {name: image.read_bytes() for name, image in images.items()} | {"folder/": b"", ".DS_Store": b"x"}
    called = f"a task with the images {list(images)}"
    got = files_of(server, submit(server, packed(files, method)), called)
    assert_labels(got, {name: best[image] for name, image in images.items()}, called)


@pytest.mark.points(1.5)
def test_tasks_at_the_same_time_get_their_own_answers(server, model, best):
    """White images first, which are slow: each task is still at work when the next ones begin."""
    photographs = [CAT] * 10, [COFFEE] * 12, [CAT, COFFEE] * 7, [COFFEE] * 3
    archives = [[None] * 6 + images for images in photographs]
    called = (
        f"{len(archives)} archives of {', '.join(str(len(images)) for images in archives)} images, one after the other"
    )
    tasks = [submit(server, archive_of(images)) for images in archives]
    wait_until(server, tasks[AT_A_TIME - 1], under_way, f"in progress: the service may use {AT_A_TIME + 1} cores")
    states = [progress(server, task) for task in tasks]
    for image in (CAT, COFFEE):
        image_service.assert_classifies(server, model, image)
    expect(
        [state["status"] for state in states] == ["in_progress"] * AT_A_TIME + ["pending"]
        and (states[-1]["done"], states[-1]["total"]) == (0, None),
        called=f"{called}: POST /progress for each, where the service may use {AT_A_TIME + 1} cores",
        got=states,
        expected=f"{AT_A_TIME} in progress, the last one pending, with 0 of null done",
        hint="async with self.turns, an anyio.CapacityLimiter(TASKS_AT_A_TIME)",
    )
    for task, images in zip(tasks, archives, strict=True):
        got = files_of(server, task, called)
        assert_labels(got, {f"{i:03}.png": best[image] for i, image in enumerate(images)}, called)


@pytest.mark.points(1.5)
def test_a_bad_file_is_reported_and_the_others_are_classified(server):
    files = {"first.png": CAT.read_bytes()} | {kind: make() for kind, make in BAD_IMAGES.items()}
    files |= {"large.png": CAT.read_bytes().ljust(11 * 2**20, b" "), "last.png": COFFEE.read_bytes()}
    archive = bytearray(packed(files | dict.fromkeys(("locked.png", "broken.png", "odd.png"), CAT.read_bytes())))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        places = {name: opened.getinfo(name).header_offset for name in ("locked.png", "broken.png", "odd.png")}
        contents = {name: archive.index(name.encode(), opened.start_dir) - 46 for name in places}
    archive[places["broken.png"] + 5000] ^= 0xFF  # a wrong checksum
    for flags, method in ((6, 8), (8, 10)):
        archive[(places if flags == 6 else contents)["locked.png"] + flags] |= 1  # "encrypted"
        archive[(places if flags == 6 else contents)["odd.png"] + method] = zipfile.ZIP_LZMA
    called = "a task with first.png, last.png, and files that are broken, too large, locked, packed oddly or no images"
    got = files_of(server, submit(server, bytes(archive)), called)
    good = [one["file"] for one in got if "predictions" in one]
    reasons = {one["file"]: one.get("error") for one in got if "predictions" not in one}
    expect(
        good == ["first.png", "last.png"]
        and reasons.keys() == {*BAD_IMAGES, "large.png", *places}
        and all("expected" in str(reason) for reason in reasons.values()),
        called=called,
        got=f"classified: {good}; reasons: {reasons}",
        expected='{"file": ..., "predictions": ...} for these two, {"file": ..., "error": "expected ..."} for the others',
        hint="read_file raises BadFile and read_image InvalidArgument: answer the sentence for that file, and go on",
    )
    image_service.assert_still_serves(server, "after an archive with bad files")


BAD_ARCHIVES = {
    "not_a_zip": lambda: CAT.read_bytes(),
    "cut_short": lambda: archive_of([CAT, COFFEE])[:-100],
    "without_files": lambda: packed({}),
    "with_folders_only": lambda: packed({"a/": b"", "a/b/": b"", "__MACOSX/._cat.png": b"x"}),
    "with_1001_files": lambda: packed({f"{i}.png": b"x" for i in range(1001)}),
    "with_100_000_files": lambda: packed({f"{i:0100}": b"" for i in range(100_000)}),
    # 270 kB that would unpack into 270 MB.
    "bomb": lambda: packed({f"{i}.bmp": bytes(10 * 2**20) for i in range(26)}, zipfile.ZIP_DEFLATED),
    "contents_cut": lambda: (whole := slow(2))[: whole.rindex(b"PK\x01\x02")] + whole[whole.rindex(b"PK\x05\x06") :],
}


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", BAD_ARCHIVES)
def test_a_bad_archive_fails_with_a_reason(server, kind):
    task = submit(server, BAD_ARCHIVES[kind]())
    state, response = ended(server, task), result(server, task)
    got = f"/progress: {state}; {ROUTE}/get: {response.status_code} {response.text[:200]}"
    expected = '"failed", and in "error" what was expected; 400 where the result is fetched'
    hint = f"open_archive raises BadArchive with the sentence.{server.last_words()}"
    right = state["status"] == "failed" and "expected" in str(state["error"]) and response.status_code == 400
    expect(right, called=f"a task with an archive {kind.replace('_', ' ')}", got=got, expected=expected, hint=hint)
    image_service.assert_still_serves(server, f"after an archive {kind.replace('_', ' ')}")


@pytest.mark.points(0.5)
def test_an_archive_is_deleted_when_its_task_has_ended(server, home):
    def kept() -> set[Path]:
        return set(home.rglob("task_bodies/*"))

    before = kept()
    tasks = [submit(server, archive) for archive in (archive_of([CAT]), b"no archive", slow(100))]
    under_work = kept() - before
    states = [ended(server, tasks[0]), ended(server, tasks[1]), progress(server, tasks[2], "/cancel")]
    right = under_load.wait_until(lambda: not kept() - before, seconds=10) and bool(under_work)
    called = f"three tasks, which are {', '.join(state['status'] for state in states)}"
    got = f"{len(kept() - before)} of their archives are still on the disk"
    expected = "none: an archive is deleted when its task has completed, failed or been cancelled"
    hint = "archive.unlink(missing_ok=True), after `with task.scope`"
    expect(right, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_refuses_a_body_over_the_limit(server, announced):
    """64 MiB for an archive, whether or not the caller announces its length."""
    image_service.assert_still_serves(server, "before that")
    image_service.assert_refuses_too_much(server, f"{ROUTE}/submit", 65, announced)


@pytest.mark.points(0.5)
def test_refuses_what_is_no_archive_to_work_on(server):
    image_service.assert_still_serves(server, "before that")
    for what, path, request, statuses in (
        ("a form", "/submit", {"files": {"archive": slow(1)}}, (400, 415)),
        ("no body", "/submit", {"content": b""}, (400,)),
        ("an archive, to wait for its result", "", {"content": slow(1)}, (405,)),
    ):
        response = server.request("POST", ROUTE + path, **request)
        image_service.assert_refused(server, f"POST {ROUTE}{path} with {what}", response, statuses)


@pytest.mark.points(0.25)
@pytest.mark.parametrize("path", ["/progress", "/cancel"])
def test_an_unknown_task_is_not_found(server, path):
    image_service.assert_still_serves(server, "before that")
    response = server.request("POST", path, json={"task_id": "0" * 32})
    called = f"POST {path} with a task_id that was never given"
    image_service.assert_refused(server, called, response, statuses=(404,))


# ------------------------------------------------------------------------------ while it runs


@pytest.mark.points(1.5)
def test_progress_is_told_and_others_are_answered_meanwhile(server, model):
    task = submit(server, slow(20))
    begun = wait_until(server, task, under_way, "under way")
    for image in (CAT, COFFEE, CAT):
        image_service.assert_classifies(server, model, image)
    wait_until(server, task, lambda state: state["done"] > begun["done"], "further on")
    later = progress(server, task)
    called = "POST /progress before and after three POST /classify, while a task of 20 images runs"
    expected = "in_progress both times, of a total of 20, and more done the second time"
    hint = "make classify_archive a coroutine and run each image in a thread (anyio.to_thread.run_sync)"
    right = begun["total"] == 20 and later["done"] < 20 and later["status"] == "in_progress"
    expect(right, called=called, got=f"{begun}, then {later}", expected=expected, hint=hint)
    states = [ended(server, task), progress(server, task, "/cancel")]
    called = "POST /progress at the end, and POST /cancel after that"
    expected = "completed, 20 done, both times: a task that has ended stays as it is"
    hint = "count each file; task.cancel() changes nothing in a task that has ended"
    right = all((state["status"], state["done"]) == ("completed", 20) for state in states)
    expect(right, called=called, got=states, expected=expected, hint=hint)


@pytest.mark.points(1.5)
def test_cancel_stops_the_work(server):
    task = submit(server, slow(250))
    before = wait_until(server, task, under_way, "under way")
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
    response = result(server, task)
    called, hint = f"GET {ROUTE}/get of a cancelled task", "raise BentoMLException(task.error, error_code=CONFLICT)"
    right = response.status_code in (409, 400) and "cancel" in response.text
    image_service.expect_answer(server, response, right, called, "409, and that it was cancelled", hint)


@pytest.mark.points(1)
def test_too_many_tasks_are_refused_at_once(server):
    archive = slow(100)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.request, "POST", f"{ROUTE}/submit", content=archive) for _ in range(12)]
        responses = [one.result() for one in asked]
    taken = [one.json().get("task_id") for one in responses if one.status_code == 200]
    states = [progress(server, task, "/cancel") for task in reversed(taken)]
    refused = [one.text for one in responses if one.status_code == 429]
    called, got = f"12 times POST {ROUTE}/submit with 100 images", f"{len(taken)} accepted; refused with 429: {refused}"
    expected = "8 accepted, the others 429 with a sentence"
    right = len(taken) == 8 and len(refused) == 4 and all("expected" in text for text in refused)
    expect(right, called=called, got=got, expected=expected, hint="add_asgi_middleware(TaskBodies, ..., max_tasks=8)")
    called, expected = "POST /cancel for all of them", "canceled, those that had not begun as well"
    right = all(state["status"] == "canceled" for state in states) and any(state["done"] == 0 for state in states)
    expect(right, called=called, got=states, expected=expected, hint="enter the scope before you wait for your turn")
    files_of(server, submit(server, archive_of([CAT, COFFEE])), "one more task: cancelled ones have left their places")


# ------------------------------------------------------------------------------ the client


@pytest.mark.points(1)
def test_client_sends_a_folder_and_shows_progress(submission, server, best, tmp_path):
    (tmp_path / "sub").mkdir()
    for image in (CAT, COFFEE):
        shutil.copy(image, tmp_path / "sub")
    for number in range(12):
        (tmp_path / "sub" / f"{number}.png").write_bytes(WHITE)
    (tmp_path / "notes.txt").write_text("not an image, and not meant to be one")
    finished = submission.run(CLIENT, tmp_path, "--url", server.url, env=TERMINAL)
    seen = {int(done) for done in re.findall(r"(\d+)/14", finished.output)}
    called, hint = "python ex19_client.py FOLDER", "submit(), states() until the task has ended, result()"
    words = ("sub/0.png", "sub/11.png", "RANDOM", *(best[image][0]["label"] for image in (CAT, COFFEE)))
    expected = f"a table of all images and their labels; that the weights are random: {', '.join(words)}"
    expect_success(finished, *words, called=called, expected=expected, hint=hint)
    expect(
        14 in seen and any(0 < one < 14 for one in seen),
        called=f"{called}, in a terminal",
        got=f"shown of 14: {sorted(seen)}",
        expected="a bar that says how many of the 14 images are done while it waits",
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


def wait_for_progress(client, server: Server) -> None:
    """Until the client's bar shows that some images are done."""
    give_up = time.monotonic() + 30
    while not re.search(r"[1-9]\d*/\d", client.log.read_text()):
        if time.monotonic() > give_up or client.poll() is not None:
            fail(f"The client showed no progress: {client.log.read_text()[-500:]}{server.last_words()}")
        time.sleep(0.05)


def task_named(output: str) -> str | None:
    return found[0] if (found := re.findall(r"\b[0-9a-f]{32}\b", output)) else None


@pytest.mark.points(1)
def test_ctrl_c_of_the_client_cancels_the_task(submission, server, tmp_path):
    (tmp_path / "slow.zip").write_bytes(slow(250))
    with submission.start(CLIENT, tmp_path / "slow.zip", "--url", server.url, env=TERMINAL) as client:
        wait_for_progress(client, server)
        client.send_signal(signal.SIGINT)
        code, output = wait(client, 20), client.log.read_text()
    state = progress(server, task) if (task := task_named(output)) else {"status": "unknown"}
    called = "Ctrl-C while python ex19_client.py waits for 250 images"
    got = f"exit code {code}: {said(output)}; /progress: {state}"
    expected = "exit code 130; the task's id, that it is canceled, and how many of its images were done"
    hint = 'cancel(): client.post("/cancel", json={"task_id": task}), and return the answer'
    right = code == 130 and "of 250 files were done" in output and state["status"] == "canceled"
    expect(right, called=called, got=got, expected=expected, hint=hint)


# ------------------------------------------------------------------------------ faults and load


@pytest.fixture(scope="module")
def lost(submission, server, tmp_path_factory) -> tuple[str, str]:
    """A task whose worker was killed while it ran, and what a client printed that waited for another one."""
    archive = tmp_path_factory.mktemp("lost") / "slow.zip"
    archive.write_bytes(slow(20))
    with submission.start(CLIENT, archive, "--url", server.url, env=TERMINAL) as client:
        wait_for_progress(client, server)
        task = submit(server, slow(20))
        wait_until(server, task, under_way, "under way")
        workers(server)[0].kill()
        with http.Client() as asking:
            back = under_load.wait_until(lambda: ask(asking, server).status == 200, under_load.BACK_AGAIN)
        if not back:
            fail(f"After {under_load.BACK_AGAIN} s no worker has taken a killed one's place.{server.last_words()}")
        wait(client, 5)
        return task, client.log.read_text()


@pytest.mark.points(0.5)
def test_optional_a_task_whose_worker_died_has_failed_and_can_be_retried(server, lost):
    task, _ = lost
    state = progress(server, task)
    stored = server.request("GET", f"{ROUTE}/status", params={"task_id": task}).json()
    expect(
        state["status"] == stored.get("status") == "failed" and "retry" in str(state["error"]),
        called="POST /progress for a task whose worker was killed",
        got=f"{state}; {ROUTE}/status: {stored}",
        expected='"failed", and in "error" that it can be retried',
        hint="fail_lost_tasks() from serving.tasks, in a method under @bentoml.on_startup",
    )
    hint = "keep the archive until its task has ended"
    again = answer(server, f"{ROUTE}/retry", "task_id", hint=hint, params={"task_id": task})["task_id"]
    if again == task:
        fail(f"POST {ROUTE}/retry answers the id of the old task; expected the id of a new one.")
    if (number := len(files_of(server, again, f"POST {ROUTE}/retry for that task"))) != 20:
        fail(f"The task that was retried answers {number} files; expected the 20 of its archive.")


@pytest.mark.points(0.5)
def test_optional_client_outlives_a_dead_worker_and_retries_its_task(submission, server, lost):
    output = re.sub(r"\s+", " ", lost[1])  # a terminal breaks the line
    task = task_named(output)
    expect(
        task is not None and "is failed" in output and "--retry" in output,
        called="python ex19_client.py slow.zip, whose worker was killed meanwhile",
        got=said(output),
        expected="that the task is failed, and the command that retries it",
        hint="states(): catch httpx.TransportError until PATIENCE seconds brought no response, then raise it",
    )
    finished = submission.run(CLIENT, "--retry", task, "--url", server.url)
    hint = 'client.post("/classify_archive/retry", params={"task_id": ...}) returns the id of a new task'
    called, expected = f"python ex19_client.py --retry {task}", "a table with 000.png to 019.png"
    expect_success(finished, "000.png", "019.png", called=called, expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_a_killed_worker_costs_what_it_held(server):
    under_load.assert_survives_a_killed_worker(server)


@pytest.mark.points(0.5)
def test_overload_is_answered(server):
    under_load.assert_answers_overload(server)


CANCELLED = 25  # seconds; after 35, the supervisor kills a worker that waits for its tasks


@pytest.mark.points(0.5)
def test_sigterm_ends_running_tasks(submission, server, environment, tmp_path):
    """Nobody can fetch their results, so the service must not wait for them."""
    image_service.assert_still_serves(server, "before that")
    with submission.serve(SERVICE, env=environment | {"BENTOML_HOME": str(tmp_path)}) as own:
        tasks = [submit(own, slow(600)) for _ in range(4)]
        wait_until(own, tasks[0], under_way, "under way")
        begun = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        code, took = wait(own.process, CANCELLED), time.monotonic() - begun
        left = left_behind(own.process)
    called = "kill -TERM (bentoml serve) while 4 tasks of 600 images are unfinished"
    got, expected = f"exit code {code} after {took:.0f} s, processes left: {left}", f"ended within {CANCELLED} s"
    hint = "before_sigterm(self.tasks.cancel_all) under @bentoml.on_startup"
    expect(code is not None and not left, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(0.25)
def test_a_new_model_file_harms_nothing(server, small_models_dir):
    under_load.assert_unharmed_by_a_new_model(server, small_models_dir)


@pytest.mark.points(0.5)
def test_does_not_start_without_a_model(submission, tmp_path):
    image_service.assert_does_not_start(submission, SERVICE, {"MODELS_DIR": str(tmp_path)}, "resnet18.onnx")


@pytest.mark.points(0.5)
def test_sigterm_finishes_what_was_accepted(server):
    under_load.assert_finishes_on_sigterm(server)
