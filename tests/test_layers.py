"""The layout of course/: packages import lower floors only, no two files import each other, no file is long."""

import sys
from pathlib import Path

from commands import run

from course import ROOT

LONGEST = 300


def test_packages_import_lower_floors_only_and_nothing_in_a_circle():
    checked = run(Path(sys.executable).with_name("lint-imports"), "--no-cache")
    assert checked.returncode == 0, (
        f"`lint-imports` found an import that the floors in pyproject.toml do not allow. Move what is shared down.\n"
        f"{checked.stdout}{checked.stderr}"
    )


def test_no_file_is_too_long_to_read():
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for top in ("course", "serving", "solutions")
        for path in sorted((ROOT / top).rglob("*.py"))
    }
    long = {name: count for name, count in lines.items() if count > LONGEST}
    assert not long, f"longer than {LONGEST} lines, so divide or shorten: {long}"
