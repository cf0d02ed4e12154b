"""What serving/http.py changes in BentoML."""

import subprocess
import sys

from course import ROOT

CHANGED = {
    "dead workers are looked for every 2 s, also when asked twice": """
from circus.controller import Controller
from serving.http import restart_dead_workers_quickly

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
from serving.http import compute_schemas_once
from solutions.ex10_service import ImageClassifierService

specs = [api.input_spec for api in ImageClassifierService.apis.values()]
before = [spec.model_json_schema() for spec in specs]
compute_schemas_once(ImageClassifierService)
after = [spec.model_json_schema() for spec in specs]
assert after == before and before[0] != before[1]
assert all(spec.model_json_schema() is schema for spec, schema in zip(specs, after))
""",
}


def test_what_is_changed_in_bentoml():
    """In processes of their own: these changes last as long as a process does."""
    for what, code in CHANGED.items():
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, f"{what}: {run.stderr[-1500:]}"
