"""The layout of course/: packages import lower floors only, no two files import each other."""

import subprocess
import sys
from pathlib import Path

from course import ROOT


def test_packages_import_lower_floors_only_and_nothing_in_a_circle():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, (
        f"`lint-imports` found an import that the floors in pyproject.toml do not allow. Move what is shared down.\n"
        f"{checked.stdout}{checked.stderr}"
    )
