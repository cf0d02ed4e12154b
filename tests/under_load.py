"""What every service must stand while it is busy: a killed worker, SIGTERM, too many callers, a new model file."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
from bad_input import CAT

from course.base.processes import left_behind, wait
from course.harness import http
from course.harness.load import CLIENTS, Answer, ask, load, tally, workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail

BACK_AGAIN, ENDED = 10, 20  # seconds until a killed worker is replaced, until a service has stopped


def wait_for(answered: list[Answer], more: int, server: Server) -> None:
    """Until so many more requests were answered with 200."""
    wanted = Counter(answer.status for answer in answered)[200] + more
    give_up = time.monotonic() + 60
    while Counter(answer.status for answer in answered)[200] < wanted:
        if time.monotonic() > give_up:
            fail(f"The service answers no more under load: {tally(answered)}.{server.last_words()}")
        time.sleep(0.05)


def labels_in(answer: Answer) -> object:
    """The predictions of one answer; the whole answer where it holds none."""
    try:
        return json.loads(answer.text)["predictions"]
    except (ValueError, LookupError, TypeError):
        return answer.text


def assert_survives_a_killed_worker(
    server: Server, service: str = "ImageClassifierService", may_lose: int = CLIENTS
) -> None:
    """SIGKILL for one worker under load costs at most what it held; another takes its place within BACK_AGAIN s."""
    before = workers(server, service)
    called = f"kill -KILL (a worker of {service}) while {CLIENTS} clients classify"
    hint = "restart_dead_workers_quickly() from serving.http; nothing that the next worker needs may be lost"
    if not before:
        fail(f"{called}: there is no process with --service-name {service}.{server.last_words()}")
    with load(server) as answered:
        wait_for(answered, 5, server)
        before[0].kill()
        give_up = time.monotonic() + BACK_AGAIN
        while (
            not (now := [one for one in workers(server, service) if one not in before]) and time.monotonic() < give_up
        ):
            time.sleep(0.1)
        expect(
            len(now) == 1,
            called=called,
            got=f"after {BACK_AGAIN} s no new process",
            expected=f"{len(before)} workers again within {BACK_AGAIN} s",
            hint=hint,
        )
        wait_for(answered, 2 * CLIENTS, server)
    lost = [answer for answer in answered if answer.status != 200]
    expect(
        len(lost) <= may_lose,
        called=called,
        got=tally(answered),
        expected=f"200 for all but the {may_lose} requests that it may have held" if may_lose else "200 for all",
        hint=hint,
    )


def assert_finishes_on_sigterm(submission: Submission, file: str, env: dict[str, str], requests: int = 100) -> None:
    """SIGTERM under load: every request that the service has accepted is answered, it ends, nothing is left.

    The server's own count says how many it has accepted; what comes later finds nobody who accepts it.
    """

    async def crowd(answered: list[Answer]) -> None:
        async with http.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=requests)) as client:

            async def one() -> None:
                begun = time.monotonic()
                try:
                    response = await client.post(f"{server.url}/classify", content=CAT.read_bytes())
                    answered.append(Answer(begun, response.status_code, response.text))
                except httpx.HTTPError as error:
                    answered.append(Answer(begun, 0, repr(error)))

            await asyncio.gather(*(one() for _ in range(requests)))

    answered: list[Answer] = []
    accepted = 0  # at least: what is answered between the two counts is in neither

    def many_in_work() -> bool:
        nonlocal accepted
        before, in_work = len(answered), requests_in_work(server)
        accepted = before + in_work
        return in_work >= requests // 4

    with submission.serve(file, env=env) as server:
        thread = threading.Thread(target=lambda: asyncio.run(crowd(answered)))
        thread.start()
        in_time = wait_until(many_in_work, seconds=30)
        server.process.send_signal(signal.SIGTERM)
        code = wait(server.process, ENDED)
        left = left_behind(server.process)
        thread.join()
    called = (
        f"{requests} POST /classify at once, and kill -TERM (bentoml serve {Path(file).stem}) while many are accepted"
    )
    statuses = Counter(one.status for one in answered)
    expect(
        in_time and statuses[200] >= accepted and set(statuses) <= {200, 0},
        called=called,
        got=f"{tally(answered)}{server.last_words()}",
        expected=f"200 for the {accepted} that the service had accepted; no answer, not a broken one, for those after",
        hint="services with dependencies: stop_dependencies_last() under @bentoml.on_deployment",
    )
    expect(
        code is not None and not left,
        called=called,
        got=f"exit code {code}, processes left: {left}",
        expected=f"ended within {ENDED} s, with all its workers",
        hint="do not catch SIGTERM; end what you start in @bentoml.on_shutdown",
    )


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something becomes true in time."""
    give_up = time.monotonic() + seconds
    while not (now := holds()) and time.monotonic() < give_up:
        time.sleep(0.05)
    return now


def requests_in_work(server: Server, service: str = "ImageClassifierService") -> int:
    """How many POST /classify a service has accepted and not yet answered, from the server's metrics."""
    lines = server.request("GET", "/metrics").text.splitlines()
    counts = [line for line in lines if line.startswith("bentoml_service_request_in_progress{")]
    own = [line for line in counts if f'runner_name="{service}"' in line and 'endpoint="/classify"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in own)


def assert_answers_overload(server: Server, requests: int = 400) -> None:
    """More requests at once than the service takes: the surplus gets 429 or 503 at once, the others 200."""

    async def crowd() -> list[tuple[float, int, str]]:
        limits = httpx.Limits(max_connections=requests)
        async with http.AsyncClient(timeout=120, limits=limits) as client:

            async def one() -> tuple[float, int, str]:
                response = await client.post(f"{server.url}/classify", content=CAT.read_bytes())
                return time.monotonic(), response.status_code, response.text

            return await asyncio.gather(*(one() for _ in range(requests)))

    called = f"{requests} POST /classify at once"
    try:
        got = asyncio.run(crowd())
    except httpx.HTTPError as error:
        fail(f"{called}: a connection was dropped: {error!r}.{server.last_words()}")
    counts = Counter(status for _, status, _ in got)
    refused = [(ended, text) for ended, status, text in got if status in (429, 503)]
    served = [ended for ended, status, _ in got if status == 200]
    expect(
        set(counts) <= {200, 429, 503} and bool(refused) and bool(served) and all(text.strip() for _, text in refused),
        called=called,
        got=f"{dict(counts)}, the first refusal: {refused[0][1][:200] if refused else None}",
        expected="some 200, and 429 or 503 with a body that says so for those over the bound",
        hint=f'traffic={{"max_concurrency": 256}} in @bentoml.service.{server.last_words()}',
    )
    expect(
        min(ended for ended, _ in refused) < max(served),
        called=called,
        got="the refusals came after all answers",
        expected="refused at once, not after waiting in the queue",
        hint='traffic={"max_concurrency": 256} in @bentoml.service',
    )


def assert_unharmed_by_a_new_model(server: Server, folder: Path, name: str = "resnet18.onnx") -> None:
    """Another file takes the model's place under load: every answer stays 200, and what it was.

    folder: the MODELS_DIR of this server alone; it must hold model_b.onnx.
    """
    called = f"another model takes the place of {name} while {CLIENTS} clients classify"
    with http.Client(timeout=60) as client:
        before = ask(client, server)
    with load(server) as answered:
        wait_for(answered, 5, server)
        shutil.copy(folder / "model_b.onnx", folder / "new")
        os.replace(folder / "new", folder / name)
        wait_for(answered, 2 * CLIENTS, server)
    different = [one for one in answered if one.status != 200 or labels_in(one) != labels_in(before)]
    expect(
        not different,
        called=called,
        got=tally(different),
        expected=f"200 with the same labels as before: {before.text[:200]}",
        hint="load the model once, in __init__; the next start takes the new file",
    )


def own_copy(models_dir: Path, folder: Path) -> Path:
    """Links to all models in a folder of one's own: replacing one there leaves models_dir as it is."""
    for model in models_dir.glob("*.onnx"):
        os.link(model, folder / model.name)
    return folder
