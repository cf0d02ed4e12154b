"""serving/cores.py counts what a process may use, not what the machine has."""

import os
import subprocess
import sys

import pytest
from bentoml._internal.resource import CpuResource

from course import ROOT
from serving.cores import cores

COUNT = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from serving.cores import cores; print(cores())"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux confines processes to cores")
def test_a_process_that_is_confined_to_one_core_has_one():
    counted = subprocess.run([sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert counted.stdout.strip() == "1", counted.stderr[-500:]


@pytest.mark.parametrize(("quota", "counted"), [(0.5, 1), (1.0, 1), (1.9, 1)])
def test_a_containers_quota_counts_whole_cores_and_never_none(monkeypatch, quota, counted):
    monkeypatch.setattr(CpuResource, "from_system", lambda: quota)
    assert cores() == counted


def test_a_quota_of_more_than_there_are_adds_none(monkeypatch):
    monkeypatch.setattr(CpuResource, "from_system", lambda: 1000.0)
    assert 1 <= cores() <= os.cpu_count()
