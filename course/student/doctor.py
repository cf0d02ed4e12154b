"""Finds out what is wrong with this machine or this copy of the course, and says which command fixes it.

python3 -I course/student/doctor.py runs on any Python from 3.7 on, with nothing installed: .venv may be what is wrong.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
READY = VENV / ".ready"
MODELS = [ROOT / "models" / "resnet18.onnx", ROOT / "models" / "efficientnet_lite0.onnx"]  # what make serve takes

LONGEST_TMPDIR = 60  # BentoML adds 42 characters for a socket; a path of 103 is too long for it (Linux: 108)

# A check returns one of these marks, what it found, and the command or the step that fixes it.
FINE, NOTE, WRONG = "ok", "note", "WRONG"
SETUP_AGAIN = "rm -rf .venv && make setup"

VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
PACKAGES = """
import importlib.metadata, importlib.util, sys
for package in importlib.metadata.distributions():
    print(package.metadata["Name"] + "==" + package.version)
sys.exit(0 if importlib.util.find_spec("serving") else 3)
"""
OPEN_MODEL = """
import sys
import onnxruntime
try:
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
except Exception as error:
    sys.exit(" ".join(str(error).split()))
print(session.get_modelmeta().custom_metadata_map.get("weights", "unknown"))
"""


def run(*command, timeout=60):
    """(exit code, standard output, the last line of the errors) of a command; None as the code if it cannot run."""
    options = {"stdin": subprocess.DEVNULL, "cwd": str(ROOT), "timeout": timeout, "text": True, "errors": "replace"}
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, "", str(error)
    return done.returncode, done.stdout.strip(), (done.stderr.strip().splitlines() or [""])[-1]


def version_of(python):
    """The version of a Python, and what is wrong with it."""
    code, version, error = run(ROOT / python if "/" in python else python, "-I", "-c", VERSION)
    if code != 0:
        return "", f"{python} does not run. {error}".strip()
    too_old = tuple(map(int, version.split(".")))[:2] < (3, 11)
    return version, f"{python} is Python {version}: too old" if too_old else ""


def check_python(options):
    """The Python that setup would build .venv with."""
    fix = "install Python 3.11 or newer, or name it: make setup PYTHON=/path/to/python3.11"
    if not options.python:
        return WRONG, f"no Python 3.11 or newer; this one is {sys.version_info[0]}.{sys.version_info[1]}", fix
    version, wrong = version_of(options.python)
    if wrong:
        return WRONG, wrong, fix
    code, _, error = run(options.python, "-I", "-c", "import venv, ensurepip")
    if code != 0:
        return WRONG, f"{options.python} cannot make environments: {error}", "sudo apt-get install python3-venv"
    return FINE, f"{version} ({options.python})", ""


def check_environment(options):
    """Whether .venv exists, runs, and was set up from the present requirements.lock."""
    if not PYTHON.exists():
        if VENV.exists() or PYTHON.is_symlink():
            return WRONG, ".venv has no Python that runs", SETUP_AGAIN
        return WRONG, ".venv does not exist", "make setup"
    version, wrong = version_of(".venv/bin/python")
    if wrong:
        return WRONG, wrong, SETUP_AGAIN
    if not READY.exists():
        return WRONG, "setup did not finish", "make setup"
    if (ROOT / "requirements.lock").stat().st_mtime > READY.stat().st_mtime:
        return WRONG, "requirements.lock changed since setup", "make setup"
    return FINE, f"Python {version} in .venv", ""


def check_packages(options):
    """Whether .venv contains the pinned versions."""
    code, found, error = run(PYTHON, "-I", "-c", PACKAGES)
    if code not in (0, 3):  # 3: all but the course itself
        return WRONG, f"cannot be listed: {error}", SETUP_AGAIN
    files = [ROOT / "requirements.txt", ROOT / "requirements-serving.txt"]
    installed, wanted = pinned(found), pinned("\n".join(file.read_text() for file in files))
    if "onnxruntime-gpu" in installed:  # of any version, in the place of the build for CPUs
        installed["onnxruntime"] = wanted["onnxruntime"]
    bad = []
    for name, version in wanted.items():
        if name not in installed:
            bad.append(f"{name} is missing")
        elif installed[name] != version:
            bad.append(f"{name} is {installed[name]}, not {version}")
    bad += ["the course itself is not installed"] if code else []
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return WRONG, ", ".join(bad[:3]) + more, "rm -f .venv/.ready && make setup"
    return FINE, f"all {len(wanted)} as pinned", ""


def pinned(text):
    """The versions in requirements, by name. 2.14.1+cu130, the build for this CUDA, is 2.14.1."""
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.]+)", text, re.MULTILINE)
    return {name.lower(): version for name, version in found}


def check_course(options):
    """Whether the files of the course that are not to be filled in are those of git's last commit."""
    code, found, _ = run("git", "diff", "--name-only", "--relative", "HEAD", "--", "course", "serving", "tests")
    if code != 0:
        return FINE, "not compared: there is no git here", ""
    changed = found.split()
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        return WRONG, f"changed: {', '.join(changed[:3])}{more}", "git stash push -- course serving tests"
    return FINE, "unchanged", ""


def check_disk(options):
    """Whether there is room for what is still to be installed and exported."""
    if not os.access(str(ROOT), os.W_OK):
        return WRONG, "this folder cannot be written", f"sudo chown -R $USER {ROOT}"
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    needed = 1 if READY.exists() else 7 if sys.platform == "linux" else 3
    if free >= needed:
        return FINE, f"{free:.0f} GB free", ""
    without_cuda = needed == 7 and free > 2
    fix = "make room; setup with CPU=1 needs 2 GB: make setup CPU=1" if needed == 7 else "make room on this disk"
    return NOTE if without_cuda else WRONG, f"{free:.1f} GB free of {needed} GB", fix


def check_home(options):
    """Whether BentoML has a place for its files."""
    home = os.path.expanduser("~")
    if os.environ.get("BENTOML_HOME") or (os.access(home, os.W_OK) and home != "~"):
        return FINE, os.environ.get("BENTOML_HOME") or home, ""
    found = "none: `bentoml serve` makes a folder called ~" if home == "~" else f"{home} cannot be written"
    return NOTE, found, "export BENTOML_HOME=/tmp/bentoml"


def check_sockets(options):
    """Whether the path of the temporary folder leaves room for the names of sockets between services."""
    folder = tempfile.gettempdir()
    if len(folder) <= LONGEST_TMPDIR:
        return FINE, f"in {folder}", ""
    return NOTE, f"TMPDIR has {len(folder)} characters, {LONGEST_TMPDIR} are enough", "export TMPDIR=/tmp"


def check_port(options):
    """Whether a service can listen."""
    if not options.port.isdigit() or not 0 < int(options.port) < 65536:
        return WRONG, f"PORT={options.port}: expected a whole number from 1 to 65535", "make doctor PORT=3000"
    port = int(options.port)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))
        except OSError:
            other = port + 1 if port < 65535 else 3000
            return NOTE, f"{port} is taken, perhaps by a service of yours", f"make serve PORT={other}"
    return FINE, f"{port} is free", ""


def check_docker(options):
    """Whether images can be built. Most exercises do not need it."""
    only = "only the exercises with containers need it"
    if not shutil.which("docker"):
        return NOTE, "not installed; " + only, "see https://docs.docker.com/get-docker/"
    code, version, error = run("docker", "info", "--format", "{{.ServerVersion}}", timeout=15)
    if code == 0 and version:
        return FINE, version, ""
    if "permission denied" in error.lower():
        return NOTE, "you may not use it; " + only, "sudo usermod -aG docker $USER, and log in again"
    fix = "start Docker Desktop" if sys.platform == "darwin" else "sudo systemctl start docker"
    return NOTE, "does not answer; " + only, fix


def check_model(options):
    """Whether the exported model exists and can be run."""
    model = next((path for path in MODELS if path.exists()), None)
    if model is None:
        return NOTE, "not exported yet; the commands that need it export it", "make export"
    code, weights, error = run(PYTHON, "-I", "-c", OPEN_MODEL, model)
    if code is None or "ModuleNotFoundError" in error:
        return WRONG, f"cannot be tried without the packages: {error}", "make setup, then make doctor"
    if code != 0:
        return WRONG, f"cannot be loaded: {error.rpartition(' : ')[2]}", "make export"
    if weights.startswith("random"):
        return (
            NOTE,
            f"{weights}: labels mean nothing",
            "make serve MODEL=efficientnet_lite0, or once online: make export",
        )
    return FINE, weights, ""


CHECKS = (check_python, check_environment, check_packages, check_course, check_disk, check_home, check_sockets)
CHECKS += (check_port, check_docker, check_model)


def main():
    """Run every check, one line each; exit code 1 if something that is needed is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="the Python that setup would take")
    parser.add_argument("--port", default="3000", help="the port that services would take")
    options = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `make doctor | head` ends quietly
    wrong = 0
    for check in CHECKS:
        try:
            mark, found, fix = check(options)
        except Exception as error:
            mark, found, fix = WRONG, f"could not be checked: {error!r}", "make clean && make setup"
        wrong += mark == WRONG
        name = check.__name__[len("check_") :].capitalize()
        print(f"{mark:5}  {name:12} {found}" + (f"  →  {fix}" if fix else ""), flush=True)
    print(f"\n{wrong} to fix." if wrong else "\nAll that you need is here.")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
