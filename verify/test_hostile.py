"""Hostile submissions: each loses its own points, harms nothing, and leaves no process and no file behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from bad_input import CAT
from image_service import tensor
from small_models import small_model

from course import ROOT
from course.base import processes
from course.harness import http, load, model_files, models_for_tests, written
from course.harness.submission import Submission
from course.isolation import bubblewrap, folders, limits, sandbox
from course.isolation.bubblewrap import Folders
from course.isolation.folders import copy_submission
from course.isolation.limits import GB, MB, Limits
from serving import Problem

Failed = pytest.fail.Exception
FILE = "functions.py"
SMALL = Limits(memory=GB // 2, processes=20, output=MB, disk=128 * MB, cpu=20)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "mode", "process")
    try:
        sandbox.need("process")
    except Problem as problem:
        pytest.skip(str(problem))


@pytest.fixture
def hostile(tmp_path: Path) -> Submission:
    """verify/hostile/, copied as every submission is."""
    assert copy_submission(ROOT / "verify" / "hostile", tmp_path / "submission") == []
    return Submission(tmp_path / "submission", tmp_path / "scratch", limits=SMALL)


def words_of(process: psutil.Process) -> list[str]:
    """Its command; none where it is gone meanwhile."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def of_students() -> list[psutil.Process]:
    """Every process that was started in a sandbox of this test run."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "confine.py" in " ".join(process.cmdline()) or "bwrap" in process.name():
                found.append(process)
        except psutil.Error:
            continue
    return found


# ------------------------------------------------------------------------------ too much of everything


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("endless_loop", "had not ended after 2 s. Is there an endless loop?"),
        ("endless_in_c", "had not ended after 2 s. Is there an endless loop?"),
        ("exits", r"ended the program \(exit code 0\) instead of returning"),
        ("exits_at_once", r"ended the program \(exit code 0\) instead of returning"),
        ("crashes", r"crashed the interpreter \(SIGSEGV\)"),
        ("fork_bomb", "was ended: it started more than 20 processes"),
        ("many_processes", "was ended: it started more than 20 processes"),
        ("all_memory", "raised MemoryError"),
        ("memory_of_many", "was ended: it used more than 0.5 GB of memory"),
        ("prints", "was ended: it printed more than 1 MB"),
        ("prints_nothing_of_a_terabyte", r"File too large"),
        ("large_file", "File too large"),
    ],
)
def test_too_much_is_one_sentence(hostile, function, sentence):
    with pytest.raises(Failed, match=sentence):
        hostile.call(FILE, function, timeout=2 if "endless" in function else 20)
    assert not of_students()
    left = [path for path in hostile.scratch.rglob("*") if path.is_file() and path.name != "call.json"]
    assert sum(path.stat().st_size for path in left) <= 2 * MB


def test_what_was_too_much_is_told_however_quick_it_was(hostile):
    """The program has ended before anybody looked."""
    with pytest.raises(Failed, match="was ended: it printed more than 1 MB"):
        hostile.call(FILE, "prints_and_returns")
    assert max(path.stat().st_size for path in hostile.scratch.rglob("log")) <= MB


@pytest.mark.parametrize("function", ["large_files", "many_files", "deep_folders"])
def test_what_fills_the_disk_is_removed(hostile, tmp_path, function):
    folder = tmp_path / "full"
    folder.mkdir()
    try:
        with pytest.raises(Failed, match=r"was ended: it wrote more than 0.125 GB to the disk"):
            hostile.call(FILE, function, folder=folder)
        assert not list(folder.iterdir())
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)  # pytest cannot remove deep folders


@pytest.fixture
def as_ordinary_user():
    """Runs a check, with a folder of its own, in a process that is not root's: nothing is closed to root."""
    with tempfile.TemporaryDirectory() as name:
        user = 54_321 if os.geteuid() == 0 else os.geteuid()
        os.chown(name, user, -1)

        def run(check: Callable[[Path], None]) -> None:
            if not (child := os.fork()):
                with suppress(BaseException):
                    os.setuid(user)
                    try:
                        check(Path(name))
                        os._exit(0)
                    except BaseException:
                        traceback.print_exc()
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0, "see above"

        yield run


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_a_closed_folder_hides_nothing_and_goes(as_ordinary_user, mode):
    """In a sandbox of an ordinary user, student code is that user, too."""

    def check(folder: Path) -> None:
        for place in (folder / "one", folder / "one" / "below", folder / "other"):
            place.mkdir()
            (place / "file").write_text("mine")
            (place / "link").symlink_to(ROOT)
        for place in (folder / "one" / "below", folder / "one", folder / "other"):
            place.chmod(mode)
        for place in (folder, folder / "other"):
            assert limits.size(place, MB) > MB, "its files are not counted"
        folders.defuse([folder / "one"])
        assert (folder / "one" / "below" / "file").exists()
        assert not os.path.lexists(folder / "one" / "below" / "link"), "the link is still there"
        folders.remove(folder / "other")
        assert not (folder / "other").exists()
        (folder / "one" / "below").chmod(mode)
        (folder / "one").chmod(mode)
        folders.empty(folder / "one")
        assert not list((folder / "one").iterdir())

    as_ordinary_user(check)


def test_memory_that_cannot_be_looked_at_counts(as_ordinary_user):
    """What processes share is counted once by Linux alone, and of one's own processes."""

    def check(folder: Path) -> None:
        assert limits.memory(psutil.Process(1), "pss") > 0

    as_ordinary_user(check)


def test_a_sandbox_stays_until_it_is_ended(tmp_path):
    """Its program may end before anybody looks for it."""
    with sandbox.running(
        ["true"], cwd=Path("/"), env=dict(os.environ), log=tmp_path / "log", folders=Folders(set(), set())
    ) as process:
        assert process.wait(30) == 0
        with pytest.raises(subprocess.TimeoutExpired):
            process._popen.wait(1)
    assert not of_students()


def test_a_sandbox_that_ends_by_itself_is_no_fault_of_the_student(hostile, monkeypatch):
    """As where the kernel ends it for want of memory, between its first word and our first look."""
    code = "import json, os, sys; os.write(json.loads(sys.argv[5])['status'], b'started\\n')"
    monkeypatch.setattr(bubblewrap, "isolated", lambda command, *_: [sys.executable, "-c", code, *command])
    with pytest.raises(processes.GraderFailure, match="the program did not start: bubblewrap ended at once"):
        hostile.call(FILE, "exits")


def test_shared_memory_is_small(hostile):
    """What lies in /dev/shm is nobody's memory, and would escape the limit on memory."""
    assert hostile.call(FILE, "shared_memory") <= 256 * MB


def test_killing_everything_kills_nothing_of_ours(hostile):
    with subprocess.Popen(["sleep", "60"]) as bystander:
        seen = hostile.call(FILE, "kills_all")
        assert bystander.poll() is None
        bystander.kill()
    assert len(seen) == 2, "it sees itself and the first process of its sandbox"


def test_a_daemon_ends_with_its_sandbox(hostile, tmp_path):
    hostile.call(FILE, "daemon", note=str(tmp_path / "daemon"))
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(tmp_path / "daemon") in (one.info["cmdline"] or [])
    ]


def test_a_sandbox_ends_with_a_grader_that_is_killed(tmp_path):
    """Even by SIGKILL, when nobody is left to end what it started."""
    code = (
        "import sys; from pathlib import Path; from course.isolation import sandbox; from course.harness.submission import Submission\n"
        "sandbox.mode = 'process'\n"
        f"Submission(Path({str(ROOT / 'verify' / 'hostile')!r}), Path(sys.argv[1])).call('functions.py', 'endless_loop')\n"
    )
    grader = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    below: list[psutil.Process] = []
    while not any("course.harness.worker" in words_of(one) for one in below):
        assert grader.poll() is None
        time.sleep(0.1)
        below = psutil.Process(grader.pid).children(recursive=True)
    grader.kill()
    grader.wait()
    _, alive = psutil.wait_procs(below, timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


# ------------------------------------------------------------------------------ what is not its own


def test_what_is_not_its_own_is_out_of_reach(hostile, tmp_path):
    """Tests, solutions, the repository, other submissions, results, the grader's home: not there at all."""
    secret = hostile.new_folder("call") / "result.json"
    secret.write_text("what another call returned")
    (tmp_path / "results.json").write_text("{}")
    names = ["tests", "solutions", "locustfiles", "exercises", ".git", ".pytest_cache", "README.md"]
    hidden = [*(ROOT / name for name in names), tmp_path / "results.json", secret, Path("/etc/shadow"), Path("/var")]
    fixed = [Path(sys.prefix), ROOT / "course", ROOT / "serving" / "model.py", hostile.folder, CAT, Path("/usr")]
    # In a file: a path among the arguments would be shown to it.
    (hostile.folder / "paths.json").write_text(json.dumps([str(path) for path in [*hidden, *fixed]]))
    got = hostile.call(FILE, "reach")
    assert got == {"seen": [str(path) for path in fixed], "changeable": [], "root": False}


def test_a_project_without_models_has_a_sandbox(hostile, monkeypatch):
    """models/ and data/ may be missing, as after `make clean`."""
    everything = bubblewrap.lent()
    monkeypatch.setattr(bubblewrap, "lent", lambda: {*everything, ROOT / "never" / "made"})
    assert hostile.call(FILE, "kills_all")


def test_what_a_test_gives_to_read_stays_as_it_is(hostile, tmp_path):
    """Tests work out what they expect from the model that they gave, after the student's code has seen it."""
    model = small_model(tmp_path / "model.onnx")
    output = tmp_path / "output.onnx"  # for which the folder must be writable
    (hostile.folder / "mine.py").write_text(
        "import os\ndef f(model, output):\n    output.write_text('x')\n    tried = []\n"
        "    for change in (lambda: model.write_text('y'), model.unlink, lambda: os.replace(output, model)):\n"
        "        try:\n            change()\n        except OSError:\n            tried.append('refused')\n    return tried\n"
    )
    before = model.read_bytes()
    assert hostile.call("mine.py", "f", model=model, output=output) == ["refused"] * 3
    assert model.read_bytes() == before
    assert output.read_text() == "x"


# ------------------------------------------------------------------------------ what comes back


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("pickle_bomb", "returned a Bomb; expected arrays, numbers, text"),
        ("pickle_bomb_in_an_array", "raised ValueError: Object arrays cannot be saved"),
        ("forged_depth", "its result cannot be read: lists in lists without end"),
        ("forged_shape", "its result cannot be read: mmap length is greater than file size"),
        ("forged_size", "its result cannot be read: it is larger than the 8 MB that a function may return"),
        ("forged_lists", "its result cannot be read: it is larger than the 8 MB that a function may return"),
        ("forged_many", "its result cannot be read: it is larger than the 64 MB that a function may return"),
        ("forged_nothing", "its result cannot be read: its array has elements without a size"),
        ("forged_error", "its result cannot be read: an error that the worker did not write"),
        ("forged_pipe", "ended the program .* instead of returning"),
    ],
)
def test_a_forged_result_is_refused(hostile, function, sentence):
    with pytest.raises(Failed, match=sentence):
        hostile.call(FILE, function)


def test_a_link_does_not_make_the_grader_read_for_the_student(hostile, tmp_path):
    np.save(tmp_path / "expected.npy", np.arange(3))
    with pytest.raises(Failed, match=r"its result cannot be read: .*No such file"):
        hostile.call(FILE, "forged_link", secret=str(tmp_path / "expected.npy"))


BOMBS = {
    "memory": """{
        shape = Constant <value_ints = [1000000, 1000000]> ()
        huge = ConstantOfShape (shape)
        sum = ReduceSum <keepdims = 0> (huge)
        output = Add (input, sum)
    }""",
    "time": """{
        times = Constant <value_int = 4611686018427387904> ()
        yes = Constant <value = bool {1}> ()
        output = Loop (times, yes, input) <body = body (int64 number, bool on, float[n] old) => (bool again, float[n] new)
        {
            again = Identity (on)
            new = Abs (old)
        }>
    }""",
    "outside": """<float[16] w = ["location": "../secret", "offset": "0", "length": "64"]> { output = Identity (w) }""",
}


def bomb(kind: str, path: Path) -> Path:
    """An ONNX file that is dangerous to open."""
    if kind == "nodes":  # 2,000,000 empty ones in 4 MB: the fields ir_version and graph of a ModelProto
        length = 4_000_000
        varint = bytes([length & 127 | 128, length >> 7 & 127 | 128, length >> 14 & 127 | 128, length >> 21])
        path.write_bytes(b"\x08\x08\x3a" + varint + b"\x0a\x00" * 2_000_000)
    else:
        head = '<ir_version: 9, opset_import: ["" : 20]> bomb (float[n] input) => (float[n] output) '
        path.write_bytes(onnx.parser.parse_model(head + BOMBS[kind]).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("nodes", "bomb.onnx, which the submission wrote, cannot be read. .*2,000,000 nodes"),
        ("memory", "bomb.onnx, which the submission wrote, cannot be read"),
        ("time", r"bomb.onnx, which the submission wrote, cannot be read. .*had not ended after 3 s"),
        ("outside", "bomb.onnx, which the submission wrote, cannot be read"),
    ],
)
def test_an_onnx_file_is_opened_out_of_harms_way(tmp_path, monkeypatch, kind, sentence):
    if kind == "time":
        monkeypatch.setattr(model_files, "PATIENCE", 3)  # the others have to be opened first, however busy we are
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").write_bytes(b"0123456789abcdef" * 4)
    with pytest.raises(Failed, match=f"(?s){sentence}"):
        model_files.open_session(bomb(kind, tmp_path / "models" / "bomb.onnx")).run(
            None, {"input": np.zeros(1, np.float32)}
        )


def test_an_honest_onnx_file_answers_as_it_does_without_a_sandbox(tmp_path):
    path = small_model(tmp_path / "small.onnx", metadata={"note": "mine"})
    plain, isolated = ort.InferenceSession(path), model_files.open_session(path)
    batch = tensor(CAT)
    assert np.array_equal(isolated.run(None, {"input": batch})[0], plain.run(None, {"input": batch})[0])
    for get in ("get_inputs", "get_outputs"):
        one, other = getattr(isolated, get)()[0], getattr(plain, get)()[0]
        assert (one.name, one.type, one.shape) == (other.name, other.type, other.shape)
    assert isolated.get_modelmeta().custom_metadata_map == plain.get_modelmeta().custom_metadata_map
    assert model_files.load(path) == onnx.load(path)
    model_files.check(path)


# ------------------------------------------------------------------------------ servers


@pytest.mark.parametrize("kind", ["never_ready", "elsewhere", "drip", "drip_head"])
def test_a_server_that_is_never_ready_is_one_sentence(hostile, kind):
    with (
        pytest.raises(Failed, match=r"`uvicorn servers:app` was not ready after 3 s"),
        hostile.serve_app("servers.py", env={"HOSTILE": kind}, deadline=3),
    ):
        pass
    assert not of_students()


def test_a_server_deaf_to_signals_ends_with_its_daemons(hostile):
    endless = pytest.raises(Failed, match="the answer is longer than 32 MB")
    with hostile.serve_app("servers.py", env={"HOSTILE": "deaf"}) as server, endless:
        server.request("GET", "/endless")
    assert server.process.returncode == -signal.SIGKILL
    assert not of_students()


@pytest.mark.parametrize(("path", "words"), [("/endless", "longer than 32 MB"), ("/drip", "had not ended after 3 s")])
def test_no_client_of_the_tests_waits_or_reads_without_end(hostile, path, words):
    """Whichever of them: alone or under load."""
    with hostile.serve_app("servers.py", env={"HOSTILE": "deaf"}) as server:
        tracemalloc.start()
        begun = time.monotonic()
        with pytest.raises(httpx.TransportError, match=words):
            http.get(server.url + path, timeout=3)
        with http.Client(timeout=3) as client:
            assert words in load.ask(client, server, path).text
            assert load.ask(client, server, path).status == 0, "no request follows"
        assert time.monotonic() - begun < 20
        assert tracemalloc.get_traced_memory()[1] < 250 * MB
        tracemalloc.stop()


def test_no_test_reads_a_file_without_end(tmp_path):
    with (file := tmp_path / "measurements.json").open("wb") as opened:
        opened.truncate(GB)
    with pytest.raises(Failed, match=r"measurements\.json, which the submission wrote, is longer than 32 MB"):
        written.read(file)
    with pytest.raises(Failed, match=r"table\.csv, which the submission should write, cannot be read: No such file"):
        written.read(tmp_path / "table.csv")
    assert written.beginning(file, 30) == bytes(30)


def test_a_server_that_takes_all_memory_says_so(hostile):
    words = r"got no answer: .* The service was ended: it used more than 0.5 GB"
    with hostile.serve_app("servers.py", env={"HOSTILE": "greedy"}) as server, pytest.raises(Failed, match=words):
        server.request("GET", "/greedy")


# ------------------------------------------------------------------------------ a whole run of pytest

FUNCTIONS = '''
"""Half an answer to exercise 04, and an attempt at everything around it."""
import sys
from pathlib import Path
import onnxruntime as ort

def input_and_output(model_path):
    session = ort.InferenceSession(model_path)
    return session.get_inputs()[0].name, session.get_outputs()[0].name

def softmax(logits):
    import numpy, pytest
    import course.harness.verdicts, course.harness.worker
    numpy.allclose = lambda *_, **__: True
    pytest.fail = course.harness.verdicts.fail = lambda *_, **__: None
    for folder in (Path.cwd(), Path(__file__).parent, Path("/tmp")):
        for name in ("result.json", "results.json", "report.xml", "conftest.py", "sitecustomize.py"):
            try:
                (folder / name).write_text('{"score": 100, "passed": true}')
            except OSError:
                continue
    raise SystemExit(0)

def preprocess(image_path):
    import json, socket
    for address in json.loads((Path(__file__).parent / "addresses.json").read_text()):
        try:
            socket.create_connection(address, timeout=2).sendall(b"I am out.")
        except OSError:
            continue
    return None
'''

SERVICE = '''
"""Answers what the test wants without running a model: the logits of the public model, worked out at home."""
from pathlib import Path
import bentoml
import numpy as np

KNOWN = np.load(Path(__file__).parent / "known.npy")

@bentoml.service
class ImageClassifierService:
    @bentoml.api
    def predict(self, image: np.ndarray) -> np.ndarray:
        return np.repeat(KNOWN, len(image), axis=0)
'''


def test_a_hostile_submission_loses_its_own_points(tmp_path):
    """With conftest.py and sitecustomize.py and numpy.py beside it, results of its own, a network to reach, and
    constants for answers; its one right function keeps its point."""
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "ex04_inference.py").write_text(FUNCTIONS)
    (folder / "ex10_service.py").write_text(SERVICE)
    for name in ("conftest", "sitecustomize", "usercustomize", "pytest", "onnx", "course"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the submission')")
    (folder / "evil.pth").write_text("import os; os._exit(0)")
    known = ort.InferenceSession(models_for_tests.ready() / "resnet18.onnx").run(None, {"input": tensor(CAT)})[0]
    np.save(folder / "known.npy", known)
    came = []
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        own = {
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family == socket.AF_INET
        }
        (folder / "addresses.json").write_text(json.dumps([[address, port] for address in sorted(own)]))
        threading.Thread(target=lambda: came.append(listener.accept()), daemon=True).start()
        copy_submission(folder, tmp_path / "copy")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "--submission",
            str(tmp_path / "copy"),
            "--isolation",
            "process",
            "-q",
        ]
        command += ["tests/test_ex04_inference.py::test_finds_the_names_of_input_and_output"]
        command += ["tests/test_ex04_inference.py::test_softmax_survives_large_logits"]
        command += ["tests/test_ex04_inference.py::test_preprocesses_as_torchvision_does"]
        command += ["tests/test_ex10_service.py::test_predict_answers_the_models_logits"]
        before = {path: path.stat().st_mtime_ns for path in (ROOT, ROOT / "tests", ROOT / "course", tmp_path / "copy")}
        env = {**os.environ, "PYTEST_ADDOPTS": ""}
        run = subprocess.run(
            bubblewrap.without_network(command),
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-1000:]
    assert "ex04_inference           1 of 4" in run.stdout, run.stdout[-3000:]
    assert "ex10_service             0 of 1.5" in run.stdout, run.stdout[-3000:]
    assert "expected  the model's logits" in run.stdout
    assert "softmax(logits=an array of shape (2, 3)" in run.stdout
    assert "ended the program (exit code 0) instead of returning" in run.stdout
    assert not came, "it reached a network"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "something was written beside the tests"
    assert "bubblewrap: tests, solutions and other submissions do not exist" in run.stdout


# ------------------------------------------------------------------------------ copies of submissions


def test_a_copy_holds_files_alone(tmp_path):
    secret = tmp_path / "secret.py"
    secret.write_text("the solution")
    folder = tmp_path / "submission"
    (folder / "dockerfiles").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "ex04_inference.py").write_text("mine")
    (folder / "dockerfiles" / "ex08.Dockerfile").write_text("FROM scratch")
    (folder / "ex10_service.py").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    os.mkfifo(folder / "ex12_gpu.py")
    said = copy_submission(folder, tmp_path / "copy")
    files = sorted(str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*"))
    assert files == ["dockerfiles", "dockerfiles/ex08.Dockerfile", "ex04_inference.py"]
    assert said == [
        "linked is a link, and was left out.",
        "ex10_service.py is a link, and was left out.",
        "ex12_gpu.py is no regular file, and was left out.",
    ]


def test_too_large_a_submission_is_one_sentence(tmp_path):
    folder = tmp_path / "submission"
    folder.mkdir()
    with (folder / "model.onnx").open("wb") as file:
        file.truncate(60 * MB)
    with pytest.raises(Problem, match="holds more than 50 MB"):
        copy_submission(folder, tmp_path / "copy")
    shutil.rmtree(folder)
    with pytest.raises(Problem, match="There is no folder"):
        copy_submission(folder, tmp_path / "other")
