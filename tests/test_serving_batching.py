"""batch_without_waiting() changes what BentoML's dispatcher waits for, and nothing else that it learns."""

import subprocess
import sys

from course import ROOT

# In a process of its own: it changes BentoML for good.
LEARN = """
from bentoml._internal.marshal.dispatcher import Optimizer
if {patched}:
    from serving.bentoml_repairs import batch_without_waiting
    batch_without_waiting()
    batch_without_waiting()
optimizer = Optimizer(60)
for rows in list(range(1, 11)) * 2:  # under load: each batch takes 10 ms and 5 ms a row, and had waited for 2 s
    optimizer.log_outbound(rows, wait=2, duration=0.01 + 0.005 * rows)
optimizer.trigger_refresh()
print(round(optimizer.o_a, 4), round(optimizer.o_b, 4), round(optimizer.wait, 4))
"""


def learnt(patched: bool) -> str:
    command = [sys.executable, "-c", LEARN.format(patched=patched)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return run.stdout.strip() or run.stderr[-500:]


def test_bentoml_itself_would_wait_as_long_as_requests_waited():
    """When this fails, BentoML has changed: is batch_without_waiting() still needed?"""
    assert learnt(patched=False) == "0.005 0.01 2.0"


def test_waits_for_nothing_but_learns_how_long_a_batch_takes():
    assert learnt(patched=True) == "0.005 0.01 0.0"
