"""The machinery of the course, which students need not open: manifest, terminal, tests' way to submissions."""

import time
from pathlib import Path

STARTED = time.perf_counter()  # what a command says it took counts from here
ROOT = Path(__file__).resolve().parents[1]
