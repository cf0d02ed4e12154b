"""The load test: services under the same load in turn, beside what the cores do without a server."""

import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import Progress

from course import ROOT
from course.base.files import last_error, writable
from course.base.processes import job, marked, running, used
from course.base.reports import machine
from course.harness.load import workers
from course.harness.server import Server
from course.harness.submission import Submission
from course.loadtest.ceiling import Work, within
from course.loadtest.plan import Measured, Plan, Turn, Variant
from course.loadtest.report import described, report
from serving import Problem
from serving.cores import cores
from serving.model import MODEL_PATH, MODELS_DIR, open_model, weights

LOCUSTFILE = ROOT / "locustfiles" / "ex11_locustfile.py"
BATCHES = [1, 8, 16, 32]
WARM_UP = 2  # seconds with all users
LIMIT = 240  # seconds that a turn may take beyond its duration

console = Console(highlight=False)


def report_folder(ex: str) -> Path:
    """A folder for each comparison and model: reports/loadtest/ex11, with MODEL=alexnet reports/loadtest/ex11-alexnet."""
    name = f"ex{ex.zfill(2)}" if ex else "services"
    return Path("reports/loadtest") / (name if MODEL_PATH.stem == "resnet18" else f"{name}-{MODEL_PATH.stem}")


def loadtest(plan: Plan, output: Path) -> None:
    """Measure everything, print the tables, write a report; raises Problem, also for requests that failed."""
    provenance = {Path(model).name: weights(open_model(Path(model))) for work in plan.works for model in work.models}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C does
    try:
        with writable(output):
            measured = take_turns(plan)
            taken_on = machine({name: version(name) for name in ("bentoml", "onnxruntime", "locust")})
            report(plan, measured, taken_on | {"used_cores": cores(), "weights": provenance}, output, console)
    except KeyboardInterrupt:
        raise Problem("Stopped: everything that was started has been ended, and no report was written.") from None
    console.print(f"All measurements and two plots are in {output}/. How to read them: docs/loadtest.md")
    if failed := sum(sum(turn.failures.values()) for turn in measured.turns):
        raise Problem(f"{failed} requests failed: the lines below the first table say why.")


def take_turns(plan: Plan) -> Measured:
    """Every round: each ceiling, the session alone where that is wanted, then each service (A B A B)."""
    measured = Measured([], {work: [] for work in plan.works}, [])
    answers: dict[Work, dict] = {}
    with Progress(console=console, transient=True) as progress, tempfile.TemporaryDirectory() as name:
        task = progress.add_task("", total=plan.rounds * (len(plan.works) + plan.session_alone + len(plan.variants)))

        def done(rate: float, what: str) -> None:
            progress.console.print(f"{where}: {rate:6.1f}/s  {what}", markup=False)
            progress.advance(task)

        for i in range(plan.rounds):
            where = f"round {i + 1} of {plan.rounds}"
            for work in plan.works:
                title = f"the ceiling of {described(work)}"
                progress.update(task, description=f"{where}: {title}")
                result = without_server(work._asdict() | {"processes": cores(), "window": plan.duration})
                measured.ceilings[work].append(result["rate"])
                answers[work] = result["answer"]
                done(result["rate"], title)
            if plan.session_alone:
                progress.update(task, description=f"{where}: batches in the session alone")
                measured.alone.append(session_alone(plan))
                done(measured.alone[-1][1], "the session alone, one image at a time")
            for one in plan.variants:
                progress.update(task, description=f"{where}: {one.name}")
                turn = take_turn(plan, one, i, answers[plan.work(one)], Path(name))
                measured.turns.append(turn)
                failed = sum(turn.failures.values())
                done(turn.rate, f"{one.name}{f', {failed} failed' if failed else ''}")
    return measured


def without_server(task: dict) -> dict:
    """What course/loadtest/ceiling.py measures, in a process of its own."""
    limit = LIMIT + 10 * task["window"]
    with job("The loop without a server", "course.loadtest.ceiling", task, limit=limit) as folder:
        return json.loads((folder / "result.json").read_text())


def session_alone(plan: Plan) -> dict[int, float]:
    """Images a second by size of batch, with as many threads as the last service gives its session."""
    service = plan.variants[-1]
    threads = service.env.get("THREADS", "0")
    threads = int(threads) if threads.isdigit() else 0  # 0: as many as ONNX Runtime takes by itself
    task = {"model": plan.work(service).models[0], "threads": threads, "batches": BATCHES}
    rates = without_server(task | {"window": plan.duration / len(BATCHES)})["rates"]
    return {int(batch): rate for batch, rate in rates.items()}


def take_turn(plan: Plan, service: Variant, i: int, answer: dict, scratch: Path) -> Turn:
    """Start a service on a free port, with a BENTOML_HOME of its own, load it, end it."""
    env = {"MODELS_DIR": str(MODELS_DIR), "MODEL": MODEL_PATH.stem} | service.env
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        submission = Submission(plan.folder, Path(name))
        serve = submission.serve_app if service.exercise.app else submission.serve
        try:
            with serve(service.exercise.service, env=env) as server:
                samples, before, after = drive(plan, service, server, Path(name))
                if server.process.poll() is not None:
                    raise Problem(f"{service.name} ended while it was under load.{server.last_words()}")
        except pytest.fail.Exception as failure:  # how Submission says that something did not start
            raise Problem(f"{service.name}: {failure}") from failure
    require_equal(service.name, plan.payload, samples["answer"], answer)
    return turn_of(service.name, i, samples, before, after)


def require_equal(service: str, payload: str, text: str | None, answer: dict) -> None:
    """Compare speed only if answers agree: the first one that locust got (None: failures say why there is none)
    with the model's own; raises Problem if they differ.
    """
    if text is None:
        return
    try:
        got = json.loads(text)
        if payload == "image":
            got, wanted = got["predictions"], answer["predictions"]
            values = [[one["probability"] for one in side] for side in (got, wanted)]
            same = got[0]["label"] == wanted[0]["label"] and np.allclose(*values, atol=1e-3)
        else:
            same = np.allclose(got, answer["rows"], atol=1e-3)
    except (ValueError, LookupError, TypeError):
        same = False
    if not same:
        raise Problem(
            f"{service} answers something else than its model does without a server, and speed is compared only "
            f"where answers agree. It answered: {text[:200]}"
        )


def drive(plan: Plan, service: Variant, server: Server, folder: Path) -> tuple[dict, dict, dict]:
    """Load a service with locust: the samples, and snapshots of when their window opened and closed."""
    command = [sys.executable, "-m", "locust", "-f", f"{LOCUSTFILE},{ROOT / 'course' / 'loadtest' / 'samples.py'}"]
    command += ["--headless", "--only-summary", "--host", server.url, "--payload", plan.payload]
    # All users at once, and time for the requests in flight at the end.
    command += ["--users", str(plan.users), "--spawn-rate", str(plan.users), "--stop-timeout", "10"]
    command += ["--samples", str(folder), "--warm-up", str(WARM_UP), "--window", str(plan.duration)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    log, deadline = folder / "locust.log", time.monotonic() + LIMIT + plan.duration
    with running(command, cwd=folder, env=env, log=log) as client:

        def wait_for(name: str) -> Path:
            """The file, once locust has written it; raises Problem if locust ends without it."""
            while not (file := folder / name).exists():
                ended = client.poll() is not None or time.monotonic() > deadline
                if ended and not file.exists():  # it may have written the file just before it ended
                    said = last_error(log.read_text(errors="replace"))
                    raise Problem(f"locust stopped under {service.name}: {said}")
                time.sleep(0.02)
            return file

        wait_for("open")
        before = snapshot(server, client.mark)
        wait_for("closed")
        after = snapshot(server, client.mark)
        return json.loads(wait_for("samples.json").read_text()), before, after


def turn_of(service: str, i: int, samples: dict, before: dict, after: dict) -> Turn:
    """What the samples within the window say, and the difference of two snapshots."""
    opened, closed = samples["window"]
    ends, seconds = np.array(samples["ends"]), np.array(samples["seconds"])
    failures = {int(place): reason for place, reason in samples["failures"].items()}
    good = np.array([place not in failures for place in range(len(ends))], dtype=bool)
    inside = (opened < ends) & (ends <= closed)
    seconds_passed = after["time"] - before["time"]
    server, client, everything = ((after[who] - before[who]) / seconds_passed for who in ("server", "client", "all"))
    spent = sorted(seconds - before["workers"].get(pid, 0.0) for pid, seconds in after["workers"].items())
    grown = {api: np.subtract(now, before["batches"].get(api, 0)) for api, now in after["batches"].items()}
    return Turn(
        service=service,
        round=i,
        seconds=closed - opened,
        rate=within(ends[good], seconds[good], opened, closed) / (closed - opened),
        successes=int((good & inside).sum()),
        failures=dict(Counter(reason for place, reason in failures.items() if inside[place])),
        milliseconds=[round(one * 1000, 2) for one in seconds[good & inside]],
        batches={api: float(requests / batches) for api, (requests, batches) in grown.items() if batches},
        server_cores=server,
        client_cores=client,
        other_cores=max(0, everything - server - client),
        megabytes=max(before["megabytes"], after["megabytes"]),
        shares=[seconds / sum(spent) for seconds in spent] if sum(spent) else [],
    )


def snapshot(server: Server, client_mark: str) -> dict:
    """Processor time so far, memory, and the server's own count of its batches."""
    machine_wide = psutil.cpu_times()
    seconds, megabytes = used(marked(server.process.mark))
    return {
        "time": time.monotonic(),
        "server": seconds,
        "client": used(marked(client_mark))[0],
        "all": sum(getattr(machine_wide, kind, 0) for kind in ("user", "nice", "system", "irq", "softirq")),
        "megabytes": megabytes,
        "batches": batch_counts(server.url),
        "workers": {worker.pid: used([worker])[0] for worker in workers(server)},
    }


def batch_counts(url: str) -> dict[str, list[float]]:
    """By API: how many requests have been in batches so far, and how many batches there were.

    BentoML counts a batch's requests, not the rows in them; here each request holds one image.
    """
    counts: dict[str, list[float]] = {}
    try:
        text = httpx.get(f"{url}/metrics", timeout=20).raise_for_status().text
    except httpx.HTTPError:  # FastAPI has none
        return counts
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    for sample in samples:
        metric, _, kind = sample.name.rpartition("_")
        if metric == "bentoml_service_adaptive_batch_size" and kind in ("sum", "count"):
            api = f"{sample.labels['runner_name']}.{sample.labels['method_name']}"
            counts.setdefault(api, [0.0, 0.0])[kind == "count"] += sample.value
    return counts
