"""Commands on terminals and in environments that are not what most people have."""

import os
import sys
from pathlib import Path

import pytest
from commands import COURSE, run
from course_copy import Copy

COMMANDS = ("list", "show 04", "progress", "hint 04", "solution 04 --force --diff", "check 04")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("course") / "copy")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_is_not_utf_8_shows_what_it_can(copy, encoding):
    for command in COMMANDS:
        env = copy.env | {"PYTHONIOENCODING": encoding}
        shown = run(*COURSE, *command.split(), cwd=copy.folder, encoding=encoding, **env)
        assert "Traceback" not in shown.stderr, f"{command}: {shown.stderr}"
        words = "ex04_inference.py" if command.startswith("solution") else "Classify a photograph"
        assert words in shown.stdout + shown.stderr or command in ("progress", "hint 04"), command


@pytest.mark.parametrize("home", ["/nowhere", None], ids=["missing", "unset"])
def test_bentoml_makes_no_folder_called_after_the_tilde(copy, home, tmp_path):
    code = "import sys; from course.base.environment import give_bentoml_a_home; give_bentoml_a_home(); import bentoml.models"
    code += "; import os; print(os.environ.get('BENTOML_HOME', 'the home folder'))"
    if home is None:  # a user whom the machine does not know, and no HOME: there is no home folder at all
        code = f"import os.path; os.path.expanduser = lambda path: path; {code}"
    env = copy.env | {"TMPDIR": str(tmp_path)} | ({"HOME": home} if home else {})
    shown = run(sys.executable, "-c", code, cwd=copy.folder, **env)
    assert shown.stdout.strip() == str(tmp_path / f"bentoml-{os.getuid()}"), shown.stderr[-500:]
    assert not (copy.folder / "~").exists()
    assert not Path("/nowhere").exists()
