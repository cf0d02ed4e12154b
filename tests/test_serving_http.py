"""What serving/bentoml_repairs.py changes in BentoML."""

import subprocess
import sys

from course import ROOT

CHANGED = {
    "dead workers are looked for every 2 s, also when asked twice": """
from circus.controller import Controller
from serving.bentoml_repairs import restart_dead_workers_quickly

started = []
Controller.start = lambda self: started.append(self.check_delay)
restart_dead_workers_quickly()
restart_dead_workers_quickly()
controller = Controller.__new__(Controller)
controller.check_delay = 10_000  # BentoML's
controller.start()
assert started == [2000], started
""",
    "schemas of inputs are worked out once, and stay what they were": """
from serving.bentoml_repairs import compute_schemas_once
from solutions.ex10_service import ImageClassifierService

specs = [api.input_spec for api in ImageClassifierService.apis.values()]
before = [spec.model_json_schema() for spec in specs]
compute_schemas_once(ImageClassifierService)
after = [spec.model_json_schema() for spec in specs]
assert after == before and before[0] != before[1]
assert all(spec.model_json_schema() is schema for spec, schema in zip(specs, after))
""",
    "the entry service is stopped first, its dependencies when it has ended": """
import asyncio
from types import SimpleNamespace
from contextlib import ExitStack
from bentoml._internal.utils.circus import Arbiter
from serving.bentoml_repairs import stop_dependencies_last

told = []
sockets = ExitStack()
sockets.callback(told.append, "sockets removed")

def watcher(name):
    async def _stop(close_output_streams):
        told.append((name, "told"))
        await asyncio.sleep(0.01)
        told.append((name, "ended"))
    return SimpleNamespace(name=name, _stop=_stop, graceful_timeout=86400)

watchers = [watcher(name) for name in ("service_ModelA", "service_ModelB", "service")]
stop_dependencies_last()
stop_dependencies_last()
arbiter = SimpleNamespace(watchers=watchers, exit_stack=sockets, _stopping=True)
asyncio.run(Arbiter._stop_watchers(arbiter, close_output_streams=True))
names = ("service", "service_ModelA", "service_ModelB")
assert told == [(name, moment) for name in names for moment in ("told", "ended")] + ["sockets removed"], told
assert [one.graceful_timeout for one in watchers] == [5, 5, 35]
""",
    "a refusal of a dependency is its sentence again": """
from bentoml.exceptions import InvalidArgument
from serving.bentoml_repairs import reason

assert reason(InvalidArgument('[{"error":"expected an image"}]')) == "expected an image"
for other in ("expected an image", '{"detail": 3}', "[]", "3", '"text"'):
    assert reason(InvalidArgument(other)) == other
""",
}


def test_what_is_changed_in_bentoml():
    """In processes of their own: these changes last as long as a process does."""
    for what, code in CHANGED.items():
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, f"{what}: {run.stderr[-1500:]}"
