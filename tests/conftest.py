"""What every test can ask for."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from course import ROOT
from course.harness import models_for_tests
from course.harness.server import Server
from course.harness.submission import Submission
from course.harness.verdicts import fail


@pytest.fixture(scope="session")
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submission]:
    """The folder under test."""
    folder, scratch = Path(request.config.getoption("--submission")), tmp_path_factory.mktemp("submission")
    if request.config.getoption("--warm"):
        from course.student.warm import WarmSubmission

        with closing(WarmSubmission(folder, scratch)) as submission:
            yield submission
    else:
        yield Submission(folder, scratch)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """tests/reference.py: what PyTorch and torchvision answer. In a process of its own: importing torch takes seconds."""
    return Submission(ROOT / "tests", tmp_path_factory.mktemp("reference"), trusted=True)


@pytest.fixture(scope="module")
def drive(request: pytest.FixtureRequest, submission: Submission, tmp_path_factory: pytest.TempPathFactory):
    """Call a function of driving.py, or of the test file's DRIVER, on the path of the student's FILE."""
    folder = tmp_path_factory.mktemp("driver")
    code = (ROOT / "tests" / "driving.py").read_text() + getattr(request.module, "DRIVER", "")
    (folder / "driver.py").write_text(code)
    driver, file = Submission(folder, folder / "scratch"), request.module.FILE

    def call(function: str, **arguments):
        try:
            return driver.call("driver.py", function, path=submission.existing(file), **arguments)
        except pytest.fail.Exception as failure:  # a student has no driver.py: try_measure() is about measure()
            about = f"{file}: {function[4:]}()" if function.startswith("try_") else file
            said = re.sub(r"driver\.py: \w+\(.*?\)(?= (?:raised|crashed|ended|had|was)\b|: its)", about, str(failure))
            fail(re.sub(r"\btry_\w+\.<locals>\.", "", said))

    return call


@pytest.fixture(scope="session")
def fresh_models_dir(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As models_dir, but the last biases are new in each run: nobody can hand in what these models answer."""
    import onnx  # here and below: most exercises need neither, and `make check` should be quick
    from onnx import numpy_helper

    folder = tmp_path_factory.mktemp("fresh_models")
    for name in ("resnet18", "model_b"):
        model = onnx.load(models_dir / f"{name}.onnx")
        bias = next(weight for weight in model.graph.initializer if list(weight.dims) == [1000])
        values = numpy_helper.to_array(bias) + np.random.default_rng().normal(size=1000)
        bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias.name))
        onnx.save(model, folder / f"{name}.onnx")
    os.link(folder / "resnet18.onnx", folder / "model_a.onnx")
    return folder


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """A folder with real models: see course/harness/models_for_tests.py."""
    return models_for_tests.ready()


@pytest.fixture(scope="session")
def session(fresh_models_dir: Path):
    """ONNX Runtime's session with the resnet18 of this run."""
    import onnxruntime as ort

    return ort.InferenceSession(fresh_models_dir / "resnet18.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def small_models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODELS_DIR of one test file, which may change it; its resnet18 answers in a millisecond, white images later."""
    from small_models import small_models

    return small_models(tmp_path_factory.mktemp("small_models"), resnet18={"white": "slowish"})


# ------------------------------------------------------------------------------ of exercises 09 to 16


@pytest.fixture(scope="module")
def folder(small_models_dir: Path) -> Path:
    """The MODELS_DIR of a module's server."""
    return small_models_dir


@pytest.fixture(scope="module")
def notes(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """What that server does with its models: see noted.py."""
    from noted import Notes

    return Notes(tmp_path_factory.mktemp("notes"), folder)


@pytest.fixture
def working(server: Server) -> Server:
    """The server, once it classifies at all: what comes next would wait long for one that does not."""
    from image_service import assert_still_serves

    assert_still_serves(server, "before that")
    return server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, submission: Submission, notes) -> Iterator[Server]:
    """The service of a module's SERVICE."""
    with submission.serve(request.module.SERVICE, env=notes.env) as running:
        yield running


@pytest.fixture(scope="module")
def model(folder: Path):
    """ONNX Runtime's session with the resnet18 of that folder."""
    import onnxruntime as ort

    return ort.InferenceSession(folder / "resnet18.onnx", providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def sessions(folder: Path) -> list:
    """As model, with model_a and model_b."""
    import onnxruntime as ort

    return [ort.InferenceSession(folder / name) for name in ("model_a.onnx", "model_b.onnx")]
