"""The machinery of the course, which students need not open: manifest, terminal, tests' way to submissions."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
