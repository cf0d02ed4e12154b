"""Commands on terminals and in environments that are not what most people have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from course_copy import Copy

COMMANDS = ("list", "show 04", "progress", "hint 04", "solution 04 --force --diff", "check 04")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("course") / "copy")


def run(copy: Copy, *words: str, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, *words]
    return subprocess.run(
        command, cwd=copy.folder, env={**copy.env, **env}, capture_output=True, timeout=120, check=False
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_is_not_utf_8_shows_what_it_can(copy, encoding):
    for command in COMMANDS:
        shown = run(copy, "-m", "course", *command.split(), PYTHONIOENCODING=encoding)
        assert b"Traceback" not in shown.stderr, f"{command}: {shown.stderr.decode(encoding)}"
        assert b"ex04_inference.py" in shown.stdout + shown.stderr or command in ("progress", "hint 04"), command
        shown.stdout.decode(encoding)


@pytest.mark.parametrize("home", ["/nowhere", None], ids=["missing", "unset"])
def test_bentoml_makes_no_folder_called_after_the_tilde(copy, home, tmp_path):
    code = "import sys; from course.base.environment import give_bentoml_a_home; give_bentoml_a_home(); import bentoml.models"
    code += "; import os; print(os.environ.get('BENTOML_HOME', 'the home folder'))"
    if home is None:  # a user whom the machine does not know, and no HOME: there is no home folder at all
        code = f"import os.path; os.path.expanduser = lambda path: path; {code}"
        copy_env = {"TMPDIR": str(tmp_path)}
    else:
        copy_env = {"TMPDIR": str(tmp_path), "HOME": home}
    shown = run(copy, "-c", code, **copy_env)
    assert shown.stdout.decode().strip() == str(tmp_path / f"bentoml-{os.getuid()}"), shown.stderr.decode()[-500:]
    assert not (copy.folder / "~").exists()
    assert not Path("/nowhere").exists()
