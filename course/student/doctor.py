"""What is wrong with this machine or this copy of the course, and the command that mends it.

python3 -I course/student/doctor.py: on any Python from 3.7 on, with nothing installed, for .venv may be what is wrong.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv" / "bin" / "python"
MODEL = ROOT / "models" / "resnet18.onnx"

# What the checks give: a mark, what was found, and the command or the step that mends it.
FINE, NOTE, WRONG = "ok", "note", "WRONG"

VERSIONS = """
import importlib.metadata, importlib.util, json
print(json.dumps({
    "packages": {one.metadata["Name"].lower(): one.version for one in importlib.metadata.distributions()},
    "course": importlib.util.find_spec("serving") is not None,
}))
"""
OPEN_MODEL = """
import sys
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(session.get_modelmeta().custom_metadata_map.get("weights", "unknown"))
"""


def output(*command, timeout=60):
    """(exit code, standard output, the last line of the errors) of a command; None as the code where it cannot run."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            cwd=str(ROOT),
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, "", str(error)
    errors = done.stderr.decode(errors="replace").strip().splitlines()
    return done.returncode, done.stdout.decode(errors="replace").strip(), errors[-1] if errors else ""


def check_python(options):
    """The Python that setup would build .venv with."""
    mend = "install Python 3.11 or newer, or name it: make setup PYTHON=/path/to/python3.11"
    if not options.python:
        return WRONG, f"no Python 3.11 or newer; this one is {sys.version_info[0]}.{sys.version_info[1]}", mend
    code, version, _ = output(options.python, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")
    if code != 0:
        return WRONG, f"{options.python} does not run", mend
    if tuple(map(int, version.split(".")))[:2] < (3, 11):
        return WRONG, f"{options.python} is Python {version}: too old", mend
    code, _, error = output(options.python, "-I", "-c", "import venv, ensurepip")
    if code != 0:
        return (
            WRONG,
            f"{options.python} cannot make environments: {error}",
            "sudo apt-get install python3-venv",
        )
    return FINE, f"{version} ({options.python})", ""


def check_environment(options):
    """Whether .venv is there, runs, and is what requirements.txt asks for now."""
    if not PYTHON.exists():
        if (ROOT / ".venv").exists() or PYTHON.is_symlink():
            return WRONG, ".venv has no Python that runs", "rm -rf .venv && make setup"
        return WRONG, ".venv is not there", "make setup"
    code, version, error = output(PYTHON, "-I", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])")
    if code != 0:
        return WRONG, f".venv/bin/python does not run: {error}", "rm -rf .venv && make setup"
    if tuple(map(int, version.split(".")))[:2] < (3, 11):
        return WRONG, f".venv has Python {version}: too old", "rm -rf .venv && make setup"
    stamp = ROOT / ".venv" / ".ready"
    if not stamp.exists():
        return WRONG, "setup did not get to its end", "make setup"
    newer = [file.name for file in ROOT.glob("requirements*.txt") if _is_newer(file, stamp)]
    if newer:
        return WRONG, f"{', '.join(newer)} changed since setup", "make setup"
    return FINE, f"Python {version} in .venv", ""


def _is_newer(file, stamp):
    return file.name != "requirements-gpu.txt" and file.stat().st_mtime > stamp.stat().st_mtime


def check_packages(options):
    """Whether .venv holds what is pinned."""
    code, found, error = output(PYTHON, "-I", "-c", VERSIONS)
    if code != 0:
        return WRONG, f"cannot be listed: {error}", "rm -rf .venv && make setup"
    found = json.loads(found)
    installed = found["packages"]
    # Of a GPU's build there is another package, and its versions say which CUDA: 2.14.1+cu130.
    installed.setdefault("onnxruntime", installed.get("onnxruntime-gpu", ""))
    bad = []
    wanted = pinned(ROOT / "requirements.txt")
    for name, version in wanted.items():
        has = installed.get(name, "").partition("+")[0]
        if not has:
            bad.append(f"{name} is missing")
        elif has != version and not (name == "onnxruntime" and "onnxruntime-gpu" in installed):
            bad.append(f"{name} is {has}, not {version}")
    if not found["course"]:
        bad.append("the course itself is not installed")
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        return WRONG, ", ".join(bad[:3]) + more, "rm -f .venv/.ready && make setup"
    return FINE, f"all {len(wanted)} as pinned", ""


def pinned(path):
    """The versions that a requirements file asks for, by name; files that it names are read as well."""
    found = {}
    for line in path.read_text().splitlines():
        other, package = re.match(r"-r (\S+)", line), re.match(r"([\w.-]+)(?:\[.*\])?==([\w.]+)", line)
        if other:
            found.update(pinned(path.parent / other.group(1)))
        elif package:
            found[package.group(1).lower()] = package.group(2)
    return found


def check_disk(options):
    """Whether there is room for what is still to be installed and exported."""
    if not os.access(str(ROOT), os.W_OK):
        return WRONG, "this folder cannot be written", f"sudo chown -R $USER {ROOT}"
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    needed = 1 if (ROOT / ".venv" / ".ready").exists() else 7 if sys.platform == "linux" else 3
    if free < needed:
        mend = "make room; setup with CPU=1 needs 2 GB: make setup CPU=1" if needed == 7 else "make room on this disk"
        return (NOTE if needed == 7 and free > 2 else WRONG), f"{free:.1f} GB free of {needed} GB", mend
    return FINE, f"{free:.0f} GB free", ""


def check_port(options):
    """Whether a service can listen."""
    if not options.port.isdigit() or not 0 < int(options.port) < 65536:
        return WRONG, f"PORT={options.port} is no port", "make doctor PORT=3000"
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
    """Whether images can be built; all other exercises do without."""
    only = "only the exercises with containers need it"
    if not shutil.which("docker"):
        return NOTE, "not installed; " + only, "see https://docs.docker.com/get-docker/"
    code, version, error = output("docker", "info", "--format", "{{.ServerVersion}}", timeout=15)
    if code == 0 and version:
        return FINE, version, ""
    if "permission denied" in error.lower():
        return NOTE, "you may not use it; " + only, "sudo usermod -aG docker $USER, and log in again"
    mend = "start Docker Desktop" if sys.platform == "darwin" else "sudo systemctl start docker"
    return NOTE, "does not answer; " + only, mend


def check_model(options):
    """Whether the exported model is there and can be run."""
    if not MODEL.exists():
        return NOTE, "not exported yet; the commands that need it do that", "make export"
    code, weights, error = output(PYTHON, "-I", "-c", OPEN_MODEL, MODEL)
    if code is None or "ModuleNotFoundError" in error:
        return WRONG, f"cannot be tried without the packages: {error}", "make setup, then make doctor"
    if code != 0:
        return WRONG, f"cannot be loaded: {error[:120]}", "make export"
    if weights.startswith("random"):
        return NOTE, f"{weights}: labels mean nothing", "with a network connection: make export"
    return FINE, weights, ""


CHECKS = (
    ("Python", check_python),
    ("Environment", check_environment),
    ("Packages", check_packages),
    ("Disk", check_disk),
    ("Port", check_port),
    ("Docker", check_docker),
    ("Model", check_model),
)


def main():
    """Do every check, one line each; exit code 1 where something that is needed is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="the Python that setup would take")
    parser.add_argument("--port", default="3000", help="the port that services would take")
    options = parser.parse_args()
    marks = []
    for name, check in CHECKS:
        try:
            mark, found, mend = check(options)
        except Exception as error:
            mark, found, mend = WRONG, f"could not be checked: {error!r}", "make clean && make setup"
        marks.append(mark)
        print(f"{mark:5}  {name:12} {found}" + (f"  →  {mend}" if mend else ""), flush=True)
    wrong = marks.count(WRONG)
    print(f"\n{wrong} to mend." if wrong else "\nAll that is needed is there.")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
