"""Hostile submissions: each loses its own points, harms nothing, and leaves no process and no file behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import indent

import httpx
import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from bad_input import CAT
from commands import processes_with, run, words_of
from grader import HOSTILE, REACH, hand_in, paths_json
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
    assert copy_submission(HOSTILE, tmp_path / "submission") == []
    return Submission(tmp_path / "submission", tmp_path / "scratch", limits=SMALL)


def of_students() -> list[psutil.Process]:
    """Every process that was started in a sandbox of this test run."""
    below = psutil.Process().children(recursive=True)
    return [one for one in below if "confine.py" in words_of(one) or "bwrap" in words_of(one)]


# ------------------------------------------------------------------------------ too much of everything


SLOW = "had not ended after 2 s. Is there an endless loop?"
ENDED = "ended the program (exit code 0) instead of returning"
STARTED = "was ended: it started more than 20 processes"
PRINTED = "was ended: it printed more than 1 MB"
MEMORY = "was ended: it used more than 0.5 GB of memory"
FULL = "was ended: it wrote more than 0.125 GB to the disk"
BOMB = "class Bomb:\n  def __reduce__(self): return os.system, ('touch /tmp/it-ran',)\n"
HARM = {  # by what the code does: the code, and the sentence that it costs
    "endless loop": ("while True: pass", SLOW),
    # Python's own signal handlers never get their turn, and it is deaf to SIGTERM.
    "endless in C": ("signal.signal(signal.SIGTERM, signal.SIG_IGN); re.match('(a+)+$', 'a' * 50 + 'b')", SLOW),
    "exits": ("sys.exit(0)", ENDED),
    "exits at once": ("os._exit(0)", ENDED),
    "crashes": ("ctypes.string_at(0)", "crashed the interpreter (SIGSEGV)"),
    "fork bomb": ("while True:\n  with suppress(OSError): os.fork()", STARTED),
    "many processes": ("any(not os.fork() for _ in range(60)); time.sleep(600)", STARTED),
    "all memory": ("return len(bytearray(2**31))", "raised MemoryError"),
    "memory of many": ("any(not os.fork() for _ in range(6)); kept = np.ones(15 * 2**20); time.sleep(600)", MEMORY),
    "prints": ("while True: os.write(1, b'x' * 2**20); time.sleep(0.02)", PRINTED),
    "prints and ends before anybody looks": ("os.write(1, b'x' * 2**21); return 1", PRINTED),
    "prints nothing of a terabyte": ("os.ftruncate(1, 2**40)", "File too large"),
    "large file": ("with open('large', 'wb') as file:\n  while True: file.write(bytes(2**24))", "File too large"),
    "large files": ("for n in count(): Path(folder, f'{n}').write_bytes(bytes(2**24)); time.sleep(0.005)", FULL),
    "many files": ("for n in range(10**6): Path(folder, f'{n}').touch()", FULL),
    # More of them in each other than Python can follow, or the kernel takes in one path.
    "deep folders": ("os.chdir(folder)\nfor _ in range(2100): os.mkdir('x'); os.chdir('x')\nreturn 1", FULL),
    "returns a pickle": (f"{BOMB}return Bomb()", "returned a Bomb; expected arrays, numbers, text"),
    "returns pickles in an array": (
        f"{BOMB}return np.array([Bomb()])",
        "raised ValueError: Object arrays cannot be saved",
    ),
    "writes a pipe": ("os.mkfifo(Path(sys.argv[1], 'result.json')); os._exit(0)", ENDED),
}


IMPORTS = """
import ctypes, json, os, re, shutil, signal, sys, time
from contextlib import suppress
from itertools import count
from pathlib import Path
import numpy as np
"""


def written_by(code: str, submission: Submission) -> str:
    """The name of a file of the submission whose f() runs this code."""
    hand_in(submission.folder, f"{IMPORTS}def f(folder):\n{indent(code, '  ')}", "written.py")
    return "written.py"


@pytest.mark.parametrize("kind", HARM)
def test_harm_costs_its_own_test_with_one_sentence(hostile, tmp_path, kind):
    code, sentence = HARM[kind]
    (folder := tmp_path / "full").mkdir()
    try:
        with pytest.raises(Failed, match=re.escape(sentence)):
            hostile.call(written_by(code, hostile), "f", folder=folder, timeout=2 if sentence == SLOW else 30)
        assert not of_students()
        assert not list(folder.iterdir())
        left = [path for path in hostile.scratch.rglob("*") if path.is_file() and path.name != "call.json"]
        assert sum(path.stat().st_size for path in left) <= MB + 10_000
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
        hostile.call(FILE, "reach")


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
    assert not processes_with(str(tmp_path / "daemon"))


def test_a_sandbox_ends_with_a_grader_that_is_killed(tmp_path):
    """Even by SIGKILL, when nobody is left to end what it started."""
    code = (
        "import sys; from pathlib import Path; from course.isolation import sandbox\n"
        "from course.harness.submission import Submission; sandbox.mode = 'process'\n"
        "Submission(Path(sys.argv[1]), Path(sys.argv[2])).call('endless.py', 'f')\n"
    )
    folder = hand_in(tmp_path / "in", "def f():\n  while True: pass", "endless.py")
    grader = psutil.Popen([sys.executable, "-c", code, folder, tmp_path], cwd=ROOT)
    started: list[psutil.Process] = []
    while not any("course.harness.worker" in words_of(one) for one in started):
        assert grader.poll() is None
        time.sleep(0.1)
        started = grader.children(recursive=True)
    grader.kill()
    grader.wait()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


# ------------------------------------------------------------------------------ what is not its own


def test_what_is_not_its_own_is_out_of_reach(hostile, tmp_path):
    """Tests, solutions, the repository, other submissions, results, the grader's home: not there at all."""
    secret = hostile.new_folder("call") / "result.json"
    secret.write_text("what another call returned")
    (tmp_path / "results.json").write_text("{}")
    shown = [hostile.folder, ROOT / "serving" / "model.py", CAT, Path("/usr")]
    paths_json(hostile.folder, [ROOT / ".pytest_cache", tmp_path / "results.json", secret, Path.home() / ".ssh"], shown)
    got = hostile.call(FILE, "reach")
    assert {name: got[name] for name in REACH} == REACH


def test_nothing_is_left_for_the_next_submission(hostile):
    """In temporary folders, in shared memory, at home, in the project."""
    assert hostile.call(FILE, "notes") == [[], 4]
    assert hostile.call(FILE, "notes") == [[], 4]


def test_a_project_without_models_has_a_sandbox(hostile, monkeypatch):
    """models/ and data/ may be missing, as after `make clean`."""
    everything = bubblewrap.lent()
    monkeypatch.setattr(bubblewrap, "lent", lambda: {*everything, ROOT / "never" / "made"})
    assert hostile.call(FILE, "kills_all")


def test_what_a_test_gives_to_read_stays_as_it_is(hostile, tmp_path):
    """Tests work out what they expect from the model that they gave, after the student's code has seen it."""
    model = small_model(tmp_path / "model.onnx")
    output = tmp_path / "output.onnx"  # for which the folder must be writable
    before = model.read_bytes()
    assert hostile.call(FILE, "change", model=model, output=output) == [False] * 4
    assert model.read_bytes() == before
    assert output.read_text() == "its own"


# ------------------------------------------------------------------------------ what comes back


def npy(kind: str, shape: str) -> bytes:
    """The head of a .npy file that promises elements, and has none."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + head.encode().ljust(117) + b"\n"


ARRAY = b'{"array": "result.npy"}'
MANY = b'{"list": [%s]}' % b",".join([ARRAY] * 20)
SHORT = b'{"value": [' + b"[]," * 3 * MB + b"[]]}"  # each list takes 3 bytes here, and 64 where it is read
FORGED = {  # result.json and result.npy, which the student's code writes in the worker's stead, and the sentence
    "depth": (b'{"list": [' * 100_000, b"", "lists in lists without end"),
    "shape": (ARRAY, npy("<f8", "(1000000, 1000000)"), "mmap length is greater than file size"),
    "size": (b"1" * 9 * MB, b"", "it is larger than the 8 MB that a function may return"),
    "lists": (SHORT, b"", "it is larger than the 8 MB that a function may return"),
    "many": (
        MANY,
        npy("|u1", f"({4 * MB},)") + bytes(4 * MB),
        "it is larger than the 64 MB that a function may return",
    ),
    "nothing": (ARRAY, npy("<U0", "(1000000,)"), "its array has elements without a size"),
    "error": (b'{"kind": 1}', b"", "an error that the worker did not write"),
    "link": (ARRAY, None, ".*No such file"),  # what the grader may read, the student would like to answer
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_result_is_refused(hostile, tmp_path, kind):
    np.save(tmp_path / "expected.npy", np.arange(3))
    (folder := tmp_path / "forged").mkdir()
    json, array, sentence = FORGED[kind]
    (folder / ("error.json" if kind == "error" else "result.json")).write_bytes(json)
    if array is None:
        (folder / "result.npy").symlink_to(tmp_path / "expected.npy")
    else:
        (folder / "result.npy").write_bytes(array)
    code = "shutil.copytree(folder, sys.argv[1], symlinks=True, dirs_exist_ok=True); os._exit(0)"
    with pytest.raises(Failed, match=f"its result cannot be read: {sentence}"):
        hostile.call(written_by(code, hostile), "f", folder=folder)


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
    [("nodes", ".*2,000,000 nodes"), ("memory", ""), ("time", ".*had not ended after 3 s"), ("outside", "")],
)
def test_an_onnx_file_is_opened_out_of_harms_way(tmp_path, monkeypatch, kind, sentence):
    if kind == "time":
        monkeypatch.setattr(model_files, "PATIENCE", 3)  # the others have to be opened first, however busy we are
    (tmp_path / "models").mkdir()
    (tmp_path / "secret").write_bytes(b"0123456789abcdef" * 4)
    path = bomb(kind, tmp_path / "models" / "bomb.onnx")
    with pytest.raises(Failed, match=f"(?s)bomb.onnx, which the submission wrote, cannot be read.*{sentence}"):
        model_files.open_session(path).run(None, {"input": np.zeros(1, np.float32)})


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
    server = hostile.serve_app("servers.py", env={"HOSTILE": kind}, deadline=3)
    with pytest.raises(Failed, match=r"`uvicorn servers:app` was not ready after 3 s"), server:
        pass
    assert not of_students()


def test_no_client_of_the_tests_waits_or_reads_without_end(hostile):
    """Whichever of them, alone or under load; and a server deaf to signals ends with its daemons."""
    with hostile.serve_app("servers.py", env={"HOSTILE": "deaf"}) as server:
        for path, words in (("/endless", "longer than 32 MB"), ("/drip", "had not ended after 3 s")):
            tracemalloc.start()
            begun = time.monotonic()
            with pytest.raises(httpx.TransportError, match=words):
                http.get(server.url + path, timeout=3)
            with http.Client(timeout=3) as client:
                assert words in load.ask(client, server, path).text
                assert load.ask(client, server, path).status == 0, "no request follows"
            assert time.monotonic() - begun < 20
            assert tracemalloc.get_traced_memory()[1] < 100 * MB
            tracemalloc.stop()
        with pytest.raises(Failed, match=r"GET /endless got no answer: .*longer than 32 MB"):
            server.request("GET", "/endless")
        answers = load.at_once(server, "/endless", [b""] * 20, users=10)
        assert all(answer.status == 0 and "longer than 2 MB" in answer.text for answer in answers)
    assert server.process.returncode == -signal.SIGKILL
    assert not of_students()


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


def pytest_says(folder: Path, *tests: str, within: Sequence[str] = ()) -> str:
    """What pytest says of a submission that fails, tested as the grader does it."""
    command = [*within, sys.executable, "-m", "pytest", "-q", "--submission", str(folder), "--isolation", "process"]
    done = run(*bubblewrap.without_network([*command, *(f"tests/{test}" for test in tests)]), timeout=200)
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    return done.stdout


def test_a_hostile_submission_loses_its_own_points(tmp_path):
    """With conftest.py and sitecustomize.py and numpy.py beside it, results of its own, a network to reach, and
    constants for answers; its one right function keeps its point."""
    names = ("conftest", "sitecustomize", "usercustomize", "pytest", "onnx", "course")
    folder = hand_in(
        tmp_path / "written",
        FUNCTIONS,
        "ex04_inference.py",
        ex10_service=SERVICE,
        **{name: f"raise SystemExit('{name}.py of the submission')" for name in names},
    )
    (folder / "evil.pth").write_text("import os; os._exit(0)")
    known = ort.InferenceSession(models_for_tests.ready() / "resnet18.onnx").run(None, {"input": tensor(CAT)})[0]
    np.save(folder / "known.npy", known)
    tests = ["test_ex04_inference.py::test_finds_the_names_of_input_and_output"]
    tests += ["test_ex04_inference.py::test_softmax_survives_large_logits"]
    tests += ["test_ex04_inference.py::test_preprocesses_as_torchvision_does"]
    tests += ["test_ex10_service.py::test_predict_answers_the_models_logits"]
    copy = tmp_path / "copy"
    came = []
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        own = {one.address for ones in psutil.net_if_addrs().values() for one in ones if one.family == socket.AF_INET}
        (folder / "addresses.json").write_text(json.dumps([[address, port] for address in sorted(own)]))
        threading.Thread(target=lambda: came.append(listener.accept()), daemon=True).start()
        copy_submission(folder, copy)
        before = {path: path.stat().st_mtime_ns for path in (ROOT, ROOT / "tests", ROOT / "course", copy)}
        said = pytest_says(copy, *tests)
    for words in (
        "3 failed, 1 passed",
        "ex10_service             0 of",
        "expected  the model's logits",
        "softmax(logits=an array of shape (2, 3)",
        "ended the program (exit code 0) instead of returning",
        "bubblewrap: tests, solutions and other submissions do not exist",
    ):
        assert words in said, said[-3000:]
    assert not came, "it reached a network"
    assert {path: path.stat().st_mtime_ns for path in before} == before, "something was written beside the tests"


ENDLESS = {  # a file, what it does without end, and the test that reads it
    "ex03_visualize.py": (
        """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(bytes(2**20))
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(2 * f"http://localhost:{server.server_port} ", flush=True)
server.serve_forever()
""",
        "test_shows_two_models_side_by_side_until_it_is_stopped",
        "the answer is longer than 32 MB",
    ),
    "ex05_benchmark.py": (
        """
import pathlib, sys
folder = pathlib.Path(sys.argv[-1])
folder.mkdir(parents=True)
with (folder / "measurements.json").open("wb") as file:
    file.truncate(2**30)
print("over eager, A new process")
""",
        "test_the_report_says_what_was_measured_and_how",
        "measurements.json, which the submission wrote, is longer than 32 MB",
    ),
}


@pytest.mark.parametrize("file", ENDLESS)
def test_what_a_submission_serves_or_writes_without_end_costs_its_own_points(tmp_path, file):
    """pytest may have 600 MB here: it does not even try to read more."""
    models_for_tests.ready()
    program, test, sentence = ENDLESS[file]
    folder = hand_in(tmp_path / "written", program, file)
    within = ["sh", "-c", 'ulimit -d 600000 && exec "$@"', "sh"]
    assert sentence in pytest_says(folder, f"test_{file}::{test}", within=within)


# ------------------------------------------------------------------------------ copies of submissions


def test_a_copy_holds_files_alone(tmp_path):
    folder = hand_in(tmp_path / "submission", "FROM scratch", "dockerfiles/ex08.Dockerfile", ex04_inference="mine")
    hand_in(folder, "", ".git/config")
    (folder / "ex10_service.py").symlink_to(hand_in(tmp_path, "the solution", "secret.py") / "secret.py")
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
    folder = hand_in(tmp_path / "submission")
    os.truncate(folder / "ex07_providers.py", 60 * MB)
    with pytest.raises(Problem, match="holds more than 50 MB"):
        copy_submission(folder, tmp_path / "copy")
    with pytest.raises(Problem, match="There is no folder"):
        copy_submission(tmp_path / "nowhere", tmp_path / "other")
