"""make doctor: what is wrong, and the command that fixes it, whatever is broken."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from commands import run
from course_copy import Copy
from small_models import small_model

CHECKS = ["Python", "Environment", "Packages", "Course", "Disk", "Home", "Sockets", "Port", "Docker", "Model"]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def doctor(copy: Copy, *words: str, well: bool = True) -> dict[str, str]:
    """Each check's line; the exit code says whether all is well."""
    done = copy.make("doctor", *words)
    assert "Traceback" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.split()[1:2] and line.split()[1] in CHECKS]
    assert [line.split()[1] for line in lines] == CHECKS, f"one line each:\n{done.stdout}{done.stderr}"
    assert (done.returncode == 0) == well
    return {line.split()[1]: line for line in lines}


def test_what_is_well(copy):
    """A model with random weights is noted, and is not a fault."""
    small_model(copy.folder / "models" / "resnet18.onnx")
    lines = doctor(copy)
    for check in ("Python", "Environment", "Packages"):
        assert lines[check].startswith("ok"), lines[check]
    assert lines["Model"].startswith("note   Model        random seed 5: labels mean nothing")


def test_without_an_environment(copy):
    (copy.folder / ".venv").unlink()
    lines = doctor(copy, well=False)
    assert lines["Environment"].startswith("WRONG")
    assert lines["Environment"].endswith(".venv does not exist  →  make setup")


def test_with_half_an_environment(copy):
    """Setup ended while pip was at work: there is a Python, hardly a package, no stamp."""
    (copy.folder / ".venv").unlink()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy.folder / ".venv"], check=True, timeout=120)
    (copy.folder / "models" / "resnet18.onnx").write_bytes(b"some model")
    lines = doctor(copy, well=False)
    assert lines["Environment"].endswith("setup did not finish  →  make setup")
    assert "is missing" in lines["Packages"]
    assert lines["Packages"].endswith("rm -f .venv/.ready && make setup")
    assert "cannot be tried without the packages" in lines["Model"]


def test_an_environment_whose_python_is_gone(copy):
    (copy.folder / ".venv").unlink()
    (copy.folder / ".venv" / "bin").mkdir(parents=True)
    (copy.folder / ".venv" / "bin" / "python").symlink_to("/nowhere/python3")
    lines = doctor(copy, well=False)
    assert lines["Environment"].endswith(".venv has no Python that runs  →  rm -rf .venv && make setup")


def test_another_version_than_the_pinned_one(copy):
    path = copy.folder / "requirements.txt"
    times = path.stat()
    path.write_text(path.read_text().replace("rich==", "rich==99.") + "no-such-package==1.0\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    lines = doctor(copy, well=False)
    assert ", not 99." in lines["Packages"]
    assert "no-such-package is missing" in lines["Packages"]
    os.utime(copy.folder / "requirements.lock")
    assert "requirements.lock changed since setup  →  make setup" in doctor(copy, well=False)["Environment"]


# Says that it is old, and is otherwise the Python of these tests.
OLD = f"""case "$3" in *%d.%d*) echo 3.9.1;; *) exec {sys.executable} "$@";; esac"""


@pytest.mark.parametrize(
    ("python", "found"), [(OLD, "is Python 3.9.1: too old"), ("exit 1", "does not run")], ids=["old", "broken"]
)
def test_a_python_that_will_not_do(copy, python, found):
    (copy.folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (copy.folder / "python").chmod(0o755)
    lines = doctor(copy, f"PYTHON={copy.folder}/python", well=False)
    assert found in lines["Python"]
    assert lines["Python"].endswith("make setup PYTHON=/path/to/python3.11")


def test_a_port_that_is_taken_is_no_fault(copy):
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        lines = doctor(copy, f"PORT={port}")
    assert lines["Port"].startswith("note")
    assert lines["Port"].endswith(f"make serve PORT={port + 1 if port < 65535 else 3000}")


@pytest.mark.parametrize(
    ("home", "found"),
    [("~", "none: `bentoml serve` makes a folder called ~"), ("/proc/nobody", "/proc/nobody cannot be written")],
    ids=["none", "missing"],
)
def test_without_a_home_folder_bentoml_needs_another(copy, home, found):
    """A HOME that is `~` is what Python finds for a user without HOME whom the machine does not know."""
    copy.env["HOME"] = home
    assert doctor(copy)["Home"] == f"note   Home         {found}  →  export BENTOML_HOME=/tmp/bentoml"
    copy.env["BENTOML_HOME"] = str(copy.folder / "bentoml")
    assert doctor(copy)["Home"].startswith("ok")


@pytest.mark.parametrize(
    ("length", "found"),
    [(60, "ok     Sockets      in /tmp/"), (61, "note   Sockets      TMPDIR has 61 characters, 60 are enough  →  ")],
)
def test_a_temporary_folder_too_long_for_sockets_is_noted(copy, length, found):
    """A socket's path is TMPDIR and the 42 characters of /bentoml-uds-12345678/140737488355327.sock: at most 102."""
    with TemporaryDirectory(dir="/tmp") as folder:
        long = Path(folder) / ("t" * (length - len(folder) - 1))
        long.mkdir()
        copy.env["TMPDIR"] = str(long)
        assert doctor(copy)["Sockets"].startswith(found)


def test_a_model_that_is_missing_or_broken(copy):
    lines = doctor(copy)  # the commands that need it make it
    assert lines["Model"].endswith("make export")
    (copy.folder / "models" / "resnet18.onnx").write_bytes(b"no model")
    lines = doctor(copy, well=False)
    whole = f"cannot be loaded: Load model from {copy.folder}/models/resnet18.onnx failed:Protobuf parsing failed."
    assert lines["Model"].endswith(f"{whole}  →  make export")


def test_files_that_are_not_to_be_filled_in_are_compared_with_git(copy):
    assert "there is no git here" in doctor(copy)["Course"]
    for words in ("init --quiet", "add serving exercises", "commit --quiet --message all"):
        who = ["-c", "user.name=Student", "-c", "user.email=student@example.org"]
        assert run("git", *who, *words.split(), cwd=copy.folder).returncode == 0
    copy.file("ex04_inference.py").write_text("mine\n")
    assert doctor(copy)["Course"].endswith("unchanged")
    (copy.folder / "serving" / "model.py").write_text("mine\n")
    line = doctor(copy, well=False)["Course"]
    assert line.endswith("changed: serving/model.py  →  git stash push -- course serving tests")


@pytest.mark.parametrize(
    ("docker", "found", "fix"),
    [
        (None, "not installed", "https://docs.docker.com/get-docker/"),
        ("echo 27.1", "27.1", ""),
        ("echo 'permission denied while trying to connect' >&2; exit 1", "you may not use it", "usermod -aG docker"),
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "does not answer", "start"),
    ],
    ids=["none", "runs", "not_allowed", "no_daemon"],
)
def test_docker_as_its_command_answers(copy, docker, found, fix):
    """A script stands in for docker: a test cannot stop the real engine. Without Docker the exit code is still 0."""
    tools = copy.folder / "bin"
    tools.mkdir()
    for name in ("make", "sh", "awk"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tools / "python3").chmod(0o755)
    if docker:
        (tools / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tools / "docker").chmod(0o755)
    copy.env["PATH"] = str(tools)
    lines = doctor(copy)
    assert found in lines["Docker"]
    assert fix in lines["Docker"]
