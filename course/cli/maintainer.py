"""What a maintainer types."""

import typer

from course import ROOT
from course.base import manifest
from course.cli import models

app = typer.Typer()


@app.command()
def figures() -> None:
    """Measure agreement, start-up, memory and faults; write the first three into docs/figures.toml."""
    from course.measure.figures import print_figures

    models.need(["resnet18", *models.ARCHITECTURES])
    print_figures()


@app.command()
def crowd() -> None:
    """Send 500 photographs at the same time to the services of exercises 09 and 10."""
    from course.measure.crowd import print_crowd

    models.need(["resnet18"])
    print_crowd()


@app.command("manifest")
def write_manifest() -> None:
    """Write what is made from course.toml and exercises/: the table of README, the digests of the starters."""
    from course.pages.exercise_table import with_table

    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
    manifest.record_starters()
