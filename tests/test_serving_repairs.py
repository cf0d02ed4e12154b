"""serving/bentoml_repairs.py: each fault is still there without its repair, and gone with it.

When a test says that BentoML itself does it right, read "Can go when" of that repair and take the repair out.
"""

import asyncio
import contextlib
import functools
import inspect
import logging
import multiprocessing
import os
import pkgutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bentoml
import httpx
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils.analytics import usage_stats
from under_load import standing_still

from course import ROOT
from course.harness.load import workers
from course.harness.submission import Server, Submission
from serving import Problem, bentoml_repairs, repair
from serving.service import Json

MAY_GO = "BentoML itself does it right now: this repair may go"


def in_its_own_process(test: Callable) -> Callable:
    """Run a test in a forked process: repairs last as long as their process does."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        fork = multiprocessing.get_context("fork")
        failure = fork.SimpleQueue()

        def child() -> None:
            try:
                test(**fixtures)
            except BaseException:
                failure.put(traceback.format_exc())
                raise

        process = fork.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0, "took over 60 s" if failure.empty() else failure.get()

    return run


def plain_service() -> bentoml.Service:
    """One API whose whole body is one argument."""

    class Plain:
        @bentoml.api
        def size(self, data: bytes, /) -> Json[dict]:
            from opentelemetry.trace import get_current_span

            return {"size": len(data), "traced": get_current_span().get_span_context().is_valid}

    return bentoml.service(Plain)


def client_of(service: bentoml.Service):
    from starlette.testclient import TestClient  # here, where its warning about httpx disturbs nobody

    return TestClient(service.to_asgi())


def answer(service: bentoml.Service) -> dict:
    with client_of(service) as client:
        return client.post("/size", content=b"xyz").json()


# ------------------------------------------------------------------------------ in one process


@in_its_own_process
def test_schemas_are_worked_out_at_every_request():
    from pydantic.json_schema import GenerateJsonSchema

    made = []
    generate = GenerateJsonSchema.generate
    GenerateJsonSchema.generate = lambda self, *args, **options: made.append(1) or generate(self, *args, **options)

    service = plain_service()
    spec = service.apis["size"].input_spec
    schema, options = spec.model_json_schema(), spec.model_json_schema(ref_template="#/{model}")
    with client_of(service) as client:

        def made_for_a_request() -> int:
            before = len(made)
            assert client.post("/size", content=b"xyz").json()["size"] == 3
            return len(made) - before

        made_for_a_request()
        assert made_for_a_request() > 0, MAY_GO
        bentoml_repairs.compute_schemas_once(service)
        assert made_for_a_request() == 0
    assert spec.model_json_schema() == schema
    assert spec.model_json_schema(ref_template="#/{model}") == options


@pytest.mark.parametrize("repaired", [False, True])
@in_its_own_process
def test_spans_are_made_that_nobody_collects(repaired):
    service = plain_service()
    if repaired:
        bentoml_repairs.make_no_traces(service)
    assert answer(service) == {"size": 3, "traced": not repaired}, "" if repaired else MAY_GO


@pytest.mark.parametrize("repaired", [False, True])
@in_its_own_process
def test_the_page_of_a_service_asks_no_other_machine(repaired):
    if repaired:
        bentoml_repairs.send_nothing_elsewhere()
        bentoml_repairs.send_nothing_elsewhere()  # twice changes nothing more
    with client_of(plain_service()) as client:
        told = client.get("/").text + client.get("/docs.json").text
    assert "swagger-ui" in told
    assert ("googletagmanager" in told, "shields.io" in told) == (not repaired,) * 2, "" if repaired else MAY_GO
    assert usage_stats.do_not_track() or not repaired
    assert repair.fits("send_nothing_elsewhere"), "its own patches are no other version of BentoML"


def test_tracing_that_a_service_asks_for_stays():
    service = bentoml.service(tracing={"sample_rate": 1.0})(plain_service().inner)
    bentoml_repairs.make_no_traces(service)
    assert service.config["tracing"] == {"sample_rate": 1.0}


@in_its_own_process
def test_a_batch_waits_for_more_requests_as_long_as_they_waited_lately():
    from bentoml._internal.marshal.dispatcher import Optimizer

    def learnt() -> list[float]:
        optimizer = Optimizer(60)
        for rows in list(range(1, 11)) * 2:  # under load: each batch takes 10 ms and 5 ms a row, and had waited for 2 s
            optimizer.log_outbound(rows, wait=2, duration=0.01 + 0.005 * rows)
        optimizer.trigger_refresh()
        return [round(value, 4) for value in (optimizer.o_a, optimizer.o_b, optimizer.wait)]

    assert learnt() == [0.005, 0.01, 2.0], MAY_GO
    bentoml_repairs.batch_without_waiting()
    assert learnt() == [0.005, 0.01, 0.0]  # it still learns how long a batch takes


@pytest.mark.parametrize("repaired", [False, True])
@in_its_own_process
def test_a_dead_worker_is_missing_for_ten_seconds(repaired):
    """Circus as BentoML starts it, with a worker that dies after half a second; watched for three."""
    from bentoml._internal.utils.circus import create_standalone_arbiter
    from bentoml.serving import create_watcher

    os.environ["BENTOML_CONTAINERIZED"] = "true"
    if repaired:
        bentoml_repairs.restart_dead_workers_quickly(1)
        bentoml_repairs.restart_dead_workers_quickly(1)  # twice changes nothing more
    watcher = create_watcher("service", ["-c", "__import__('time').sleep(0.5)"], use_sockets=False)
    assert watcher.respawn is repaired, "" if repaired else MAY_GO
    watcher.respawn = True
    starts, spawn = [], watcher.spawn_process
    watcher.spawn_process = lambda *args, **options: starts.append(1) or spawn(*args, **options)
    arbiter = create_standalone_arbiter([watcher])
    arbiter.loop.call_later(3, arbiter.loop.stop)
    arbiter.start()
    assert (len(starts) > 1) is repaired, "" if repaired else MAY_GO


@in_its_own_process
def test_a_long_temporary_folder_ends_the_start(tmp_path):
    from _bentoml_impl.server.serving import _get_server_socket

    def socket_of(service: bentoml.Service) -> str:
        return _get_server_socket(service, tempfile.mkdtemp(), contextlib.ExitStack(), 64)[0]

    tempfile.tempdir = str(tmp_path / ("long" * 20))
    Path(tempfile.tempdir).mkdir()
    with pytest.raises(AssertionError):  # unless it may go
        socket_of(plain_service())
    bentoml_repairs.keep_socket_paths_short()
    assert socket_of(plain_service()).startswith("file:///tmp/")


@in_its_own_process
def test_an_interrupted_save_leaves_half_a_version(tmp_path):
    import shutil

    def copytree(source: Path, place: Path, **_: object) -> None:
        Path(place, "half").touch()
        raise KeyboardInterrupt

    shutil.copytree = copytree
    BentoMLContainer.bentoml_home.set(str(tmp_path))
    (tmp_path / "models").mkdir()
    with (
        pytest.raises(KeyboardInterrupt),
        bentoml_repairs.moved_in_whole() as store,
        bentoml.models.create("resnet18", _model_store=store),
    ):
        pass
    assert not list((tmp_path / "models").iterdir())
    with pytest.raises(KeyboardInterrupt), bentoml.models.create("resnet18"):
        pass
    assert list((tmp_path / "models").rglob("half")), MAY_GO


@in_its_own_process
def test_a_task_whose_worker_died_is_in_progress_for_ever(tmp_path):
    from _bentoml_impl.tasks import Sqlite3Store

    BentoMLContainer.result_store_file.set(str(tmp_path / "tasks.db"))
    Sqlite3Store.init_db(str(tmp_path / "tasks.db"))

    class Tasks:
        @bentoml.task
        async def count(self, ctx: bentoml.Context) -> str:
            (tmp_path / "task_id").write_text(ctx.request.state.task_id)
            os._exit(1)  # as a worker does that is killed

    service = bentoml.service(Tasks)
    worker = os.fork()
    if worker == 0:
        with client_of(service) as client:
            client.post("/count/submit", json={})
    assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 1
    task_id = (tmp_path / "task_id").read_text()
    with client_of(service) as next_worker:
        asked = functools.partial(next_worker.get, "/count/status", params={"task_id": task_id})
        assert asked().json()["status"] == "in_progress", MAY_GO
        assert asyncio.run(bentoml_repairs.fail_lost_tasks("the worker has died")) == [task_id]
        assert asked().json()["status"] == "failed"
        assert "the worker has died" in next_worker.get("/count/get", params={"task_id": task_id}).text


# ------------------------------------------------------------------------------ servers


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, Server]]:
    """The same service as BentoML serves it (False) and with its repairs (True)."""
    submission = Submission(ROOT / "tests", tmp_path_factory.mktemp("repairs"), trusted=True)
    with (
        submission.starting("repaired_service.py", env={"REPAIRED": "0"}) as broken,
        submission.serve("repaired_service.py", env={"REPAIRED": "1"}) as repaired,
    ):
        while not httpx.get(f"{broken.url}/readyz").is_success:
            time.sleep(0.1)
        yield {False: broken, True: repaired}


def statuses(server: Server, requests: int, **body: float) -> list[int]:
    """What so many requests at once are answered; 0: not at all."""

    async def all_of_them() -> list[int]:
        async def one() -> int:
            try:
                return (await client.post("/ask", json=body)).status_code
            except httpx.TransportError:
                return 0

        limits = httpx.Limits(max_connections=requests)
        async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(one() for _ in range(requests)))

    return asyncio.run(all_of_them())


def test_the_client_between_services_closes_connections_in_use(servers):
    assert set(statuses(servers[False], 150, then=1)) > {200}, MAY_GO
    assert set(statuses(servers[True], 150, then=1)) == {200}


def test_the_refusal_of_a_dependency_is_json_in_json(servers):
    texts = {repaired: server.request("POST", "/refuse", json={}).text for repaired, server in servers.items()}
    assert "\\" in texts[False], MAY_GO
    assert texts[True] == '[{"error":"expected something else"}]'


def test_a_refusal_is_logged_as_a_stack_trace(servers):
    def logged(server: Server) -> str:
        before = len(server.log.read_text())
        assert server.request("POST", "/ask", json={"then": "no number"}).status_code == 400
        time.sleep(0.5)
        return server.log.read_text()[before:]

    assert "Traceback" in logged(servers[False]), MAY_GO
    line = logged(servers[True])
    assert "Traceback" not in line
    assert "refused /ask: " in line


def test_a_header_that_is_not_ascii_cuts_a_refusal_off(servers):
    def refusal(server: Server) -> str:
        try:
            return httpx.post(f"{server.url}/refuse", content=b"{}", headers=[(b"content-type", b"caf\xe9")]).text
        except httpx.RemoteProtocolError:
            return ""

    assert refusal(servers[False]) == "", MAY_GO
    assert refusal(servers[True]) == '[{"error":"expected something else"}]'


def test_a_hanging_dependency_makes_readyz_hang(servers):
    def ready(server: Server) -> int | None:
        try:
            return httpx.get(f"{server.url}/readyz", timeout=4).status_code
        except httpx.ReadTimeout:
            return None

    processes = [one for server in servers.values() for one in workers(server, "Dependency")]
    assert len(processes) == 2
    with standing_still(processes):
        assert ready(servers[False]) is None, MAY_GO
        assert ready(servers[True]) == 503


def test_at_sigterm_what_was_accepted_finds_no_dependency(servers):
    """The last: both servers end."""

    def told_to_stop(server: Server) -> set[int]:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(statuses, server, 20, first=2, then=0)
            time.sleep(1)  # all are accepted, none has asked the dependency yet
            server.process.send_signal(signal.SIGTERM)
            return set(asked.result())

    assert told_to_stop(servers[False]) != {200}, MAY_GO
    assert told_to_stop(servers[True]) == {200}


# ------------------------------------------------------------------------------ another BentoML


def warnings_at_start(caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.WARNING, "bentoml.repairs"):
        repair.warn_of_another_version()
    return [record.getMessage() for record in caplog.records]


def test_the_tested_version_starts_without_a_warning(caplog):
    assert bentoml.__version__ == repair.WRITTEN_FOR
    assert warnings_at_start(caplog) == []


def test_another_version_is_warned_of_once(caplog, monkeypatch):
    monkeypatch.setattr(bentoml, "__version__", "1.5.0")
    (warning,) = warnings_at_start(caplog)
    assert f"tested with BentoML {repair.WRITTEN_FOR}; this is 1.5.0. Every repair fits." in warning


@pytest.mark.parametrize(
    ("name", "place"), [(name, place) for name, places in repair.NEEDS.items() for place in places]
)
def test_a_repair_that_does_not_fit_is_left_out(name, place, caplog, monkeypatch):
    """What it patches is missing in this version."""
    module, _, path = place.partition(":")
    *parents, attribute = path.split(".")
    monkeypatch.delattr(pkgutil.resolve_name(f"{module}:{'.'.join(parents)}" if parents else module), attribute)
    (warning,) = warnings_at_start(caplog)
    assert name in warning.partition("left out: ")[2]
    call = getattr(bentoml_repairs, name)
    if name == "moved_in_whole":
        with pytest.raises(Problem, match="This BentoML saves models in another way"):
            call()
    elif name == "fail_lost_tasks":
        assert asyncio.run(call("a reason")) == []
    else:
        assert call(*[None] * ("service" in str(inspect.signature(call)).lower())) is None  # None: never looked at


def test_a_repair_whose_place_looks_otherwise_is_left_out(caplog, monkeypatch):
    class Controller:
        def start(self, loop: object) -> None: ...

    monkeypatch.setattr("circus.controller.Controller", Controller)
    (warning,) = warnings_at_start(caplog)
    assert "restart_dead_workers_quickly" in warning.partition("left out: ")[2]
    start = Controller.start
    bentoml_repairs.restart_dead_workers_quickly()
    assert Controller.start is start


@in_its_own_process
def test_a_service_starts_without_the_repairs_that_do_not_fit():
    warnings = []
    repair.logger.warning = lambda text, *values: warnings.append(text % values)
    for needs in repair.NEEDS.values():
        needs["bentoml:nowhere"] = ["nothing"]
    service = plain_service()
    bentoml_repairs.apply(service)
    service.inner._before_the_workers()
    (warning,) = warnings
    assert all(name in warning for name in repair.NEEDS)
    assert answer(service)["size"] == 3
