"""What is packed is enough: each service starts with what its bentofile or the Dockerfile by hand puts beside it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course import ROOT

# Ex20's service looks its model up in a store when it is imported: test_ex20_model_store.py builds its bento.
BENTOFILES = [path for path in sorted((ROOT / "bentofiles").glob("*.yaml")) if path.stem != "ex20_model_store"]
IMPORT = """
import importlib, sys
sys.path.insert(0, {folder!r})
sys.meta_path = [one for one in sys.meta_path if "editable" not in repr(one)]  # it finds the project's own files
for name in {without}:
    sys.modules[name] = None  # importing it raises ImportError
for name in {modules}:
    importlib.import_module(name)
assert sys.modules["serving"].__file__.startswith({folder!r})
"""


def assert_imports(modules: list[str], folder: Path, without: list[str]) -> None:
    """The modules can be imported with this folder's files and the packages that are installed, except some."""
    code = IMPORT.format(folder=str(folder), modules=modules, without=without)
    finished = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr[-1500:]


@pytest.mark.parametrize("bentofile", BENTOFILES, ids=lambda path: path.stem)
def test_a_service_is_imported_from_its_bento(bentofile, tmp_path):
    packed = yaml.safe_load(bentofile.read_text())
    for pattern in packed["include"]:
        for file in ROOT.glob(pattern):
            place = tmp_path / file.relative_to(ROOT)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
    assert_imports([packed["service"].partition(":")[0]], tmp_path, ["torch", "torchvision", "course"])


def test_services_are_imported_from_the_image_by_hand(tmp_path):
    dockerfile = (ROOT / "dockerfiles" / "bentoml_service.dockerfile").read_text()
    assert "COPY serving serving\n" in dockerfile
    assert "COPY ${FOLDER}/${SERVICE}.py ./\n" in dockerfile
    shutil.copytree(ROOT / "serving", tmp_path / "serving", ignore=shutil.ignore_patterns("__pycache__"))
    for path in BENTOFILES:
        shutil.copy(ROOT / "solutions" / f"{path.stem}.py", tmp_path)
    assert_imports([path.stem for path in BENTOFILES], tmp_path, ["torch", "torchvision", "course"])


@pytest.mark.parametrize("kind", ["onnx", "pytorch"])
def test_the_images_of_exercise_08_need_no_bentoml(kind, tmp_path):
    dockerfile = (ROOT / "dockerfiles" / f"inference_{kind}.dockerfile").read_text()
    (copied,) = re.findall(r"COPY ((?:serving/\w+\.py[\s\\]+)+)serving/\n", dockerfile)
    (tmp_path / "serving").mkdir()
    for file in re.findall(r"serving/\w+\.py", copied):
        shutil.copy(ROOT / file, tmp_path / file)
    assert_imports(["serving.inference_check"], tmp_path, ["bentoml", "fastapi", "torch", "course"])


def test_one_module_leans_on_the_inside_of_bentoml():
    """But for tracking.py, a repair on its own; cores.py asks for a container's quota, tasks.py for a task's status."""
    private = re.compile(r"\b(bentoml\._internal|_bentoml_impl|_bentoml_sdk|circus)\b")
    files = [*(ROOT / "serving").glob("*.py"), *(ROOT / "solutions").glob("*.py"), *(ROOT / "exercises").glob("*.py")]
    assert {file.name for file in files if private.search(file.read_text())} == {
        "bentoml_repairs.py",
        "cores.py",
        "tasks.py",
        "tracking.py",
    }
