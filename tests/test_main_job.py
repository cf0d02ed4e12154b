"""What a newcomer types: make serve, make client, Ctrl-C."""

import os
import re
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import ENVIRONMENT, make, wait_for
from typer.main import get_command

from course import ROOT
from course.base.processes import free_port, marked, running, wait
from course.cli import app, main
from course.harness import http
from course.harness.server import Server
from serving import Problem


@contextmanager
def serving(folder: Path, *command: object, **env: str):
    """A command with the port that `{port}` stands for, once it serves there; the port, and the process."""
    port, log = free_port(), folder / "log"
    words = [str(word).format(port=port) for word in command]
    env = ENVIRONMENT | {"BENTOML_HOME": str(folder / "bentoml")} | env
    with running(words, cwd=ROOT, env=env, log=log) as process:
        Server(f"http://127.0.0.1:{port}", process, log).wait_until_ready(" ".join(words), 120)
        yield port, process


def assert_stops(process, number: int) -> None:
    """A signal to the whole foreground group, as Ctrl-C is, ends everything."""
    os.killpg(process.pid, number)
    assert wait(process, 20) is not None, "still there 20 s after the signal"
    assert not marked(process.mark)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory):
    """`make serve` on a free port. It exports the model first if it is missing."""
    with serving(tmp_path_factory.mktemp("serve"), "make", "serve", "PORT={port}") as (port, _):
        yield port


def test_serve_and_client_name_what_is_on_the_photographs(served):
    done = make("client", f"PORT={served}")
    assert done.returncode == 0, done.stdout + done.stderr
    for image in ("cat.png", "coffee.png"):
        assert image in done.stdout
    assert len(re.findall(r"\d\.\d%", done.stdout)) == 10, f"five labels for each of two photographs: {done.stdout}"


def test_serve_takes_an_exercises_number(tmp_path):
    with serving(tmp_path, "make", "serve", "EX=09", "PORT={port}") as (_, process):
        assert_stops(process, signal.SIGINT)
    assert "\nStopping, up to 10 s\n" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("words", [[], ["EX=06"]], ids=" ".join)
def test_netron_shows_the_model_or_says_what_to_run(words, tmp_path):
    """With EX=06 also the optimised model, if exercise 06 has written it."""
    command, log = ["make", "netron", "BROWSER=0", *words], tmp_path / "log"
    missing = words and not (ROOT / "models" / "resnet18.optimized.onnx").exists()
    with running(command, cwd=ROOT, env=ENVIRONMENT | {"WEIGHTS": "random"}, log=log) as process:
        wait_for(lambda: "Stop: Ctrl-C" in log.read_text() or (missing and process.poll()), process, log, 120)
        said = log.read_text()
        if missing:
            assert "resnet18.optimized.onnx. Run `python solutions/ex06_optimize.py` first." in said
            assert "Traceback" not in said
            return
        urls = re.findall(r"http://localhost:\d+", said)
        assert len(urls) == 1 + len(words), said
        assert all("Netron" in http.get(url).text for url in urls)
        assert_stops(process, signal.SIGINT)


def test_a_port_that_is_taken_is_one_sentence(served):
    done = make("serve", f"PORT={served}")
    assert done.returncode != 0
    assert re.search(rf"Port {served} is taken by process \d+ \(python\S* .*serve", done.stderr)
    assert f"make serve PORT={served + 1}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl_c", "sigterm"])
def test_stopping_leaves_no_process(tmp_path, models_dir, stop):
    """The name that README gives, run as a person does: Ctrl-C reaches the whole foreground group."""
    service = "solutions.bentoml_service:ImageClassifierService"
    command = [Path(sys.executable).with_name("bentoml"), "serve", service, "--port", "{port}"]
    env = {"MODELS_DIR": str(models_dir), "BENTOML_DO_NOT_TRACK": "True"}
    with serving(tmp_path, *command, **env) as (_, process):
        assert len(marked(process.mark)) > 1, "a launcher and a worker"
        assert_stops(process, stop)


def test_a_killed_worker_comes_back(submission, models_dir):
    with submission.serve("ex10_service.py", env={"MODELS_DIR": str(models_dir)}) as server:
        (worker,) = (one for one in marked(server.process.mark) if one.pid != server.process.pid)
        worker.kill()
        worker.wait(10)
        server.wait_until_ready("a new worker", 20)
        response = server.request("POST", "/classify", content=(ROOT / "data/cat.png").read_bytes())
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["serve", "PORT=abc"], "PORT=abc: expected a whole number from 1 to 65535."),
        (["client", "IMAGE=data/cat.png nowhere.png"], "there is no file nowhere.png."),
        (["help", "EX=77"], "EX=77: no exercise has that number. There are 01"),
        (["netron", "EX=10"], "EX=10: expected 03, the exported graph, or 06"),
        (["netron", "04"], "Did you mean: make netron EX=04"),
        (["serve", "SUBMISSION=data"], "There is no data/ex10_service.py."),
    ],
    ids=" ".join,
)
def test_a_wrong_variable_of_make_is_one_clear_line(words, sentence):
    done = make(*words)
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1, said
    assert sentence in said[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("serve PORT=65536", "PORT=65536: expected a whole number from 1 to 65535."),
        ("serve PORT=0", "PORT=0: expected a whole number from 1 to 65535."),
        ("serve EX=04", "EX=04: exercise 04 has no service."),
        ("serve SUBMISSION=nowhere", "SUBMISSION=nowhere: expected a folder that exists."),
        ("check EX=04,x", "EX=x: no exercise has that number."),
        ("solution FORCE=maybe", "FORCE=maybe: expected 1 for yes or 0 for no."),
        ("loadtest EX=04", "EX=04: there are comparisons for 09"),
        ("loadtest USERS=0", "USERS=0: expected a whole number from 1 to 1000."),
        ("loadtest USERS=many", "USERS=many: expected a whole number from 1 to 1000."),
        ("loadtest DURATION=-1", "DURATION=-1: expected a whole number from 1 to 600."),
        ("loadtest ROUNDS=0", "ROUNDS=0: expected a whole number from 1 to 100."),
        ("loadtest PAYLOAD=text", "PAYLOAD=text: expected one of image, json, npy."),
        ("containerize BY=magic", "BY=magic: expected one of bento, hand."),
        ("compare-images FRESH=2", "FRESH=2: expected 1 for yes or 0 for no."),
        ("grade JOBS=0", "JOBS=0: expected a whole number from 1 to 64."),
        ("grade TIME=soon", "TIME=soon: expected a whole number from 1 to 86400."),
        ("grade ISOLATION=hope", "ISOLATION=hope: expected one of process, docker, limits, none."),
        ("grade EX=99", "EX=99: no exercise has that number."),
        ("gradescope ISOLATION=docker", "ISOLATION=docker: expected one of process, limits, none."),
        ("serve --port x", "--port: expected a whole number from 1 to 65535."),
        ("serve --prt 1", "No such option: --prt"),
        ("surf", "No such command 'surf'."),
    ],
)
def test_a_wrong_variable_or_option_is_one_sentence(monkeypatch, words, sentence):
    """Variables as make hands them on: in the environment."""
    command, *rest = words.split()
    for name, _, value in (word.partition("=") for word in rest if "=" in word):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["course", command, *(word for word in rest if "=" not in word)])
    with pytest.raises(Problem) as problem:
        main()
    assert str(problem.value).startswith(sentence)


def test_an_empty_variable_counts_as_not_set(monkeypatch):
    for name in ("PORT", "IMAGE", "EX", "SUBMISSION", "MODEL", "FORCE"):
        monkeypatch.setenv(name, "")
    became = []
    monkeypatch.setattr("os.execv", lambda program, words: became.append(words[1:]))
    monkeypatch.setattr("sys.argv", ["course", "client"])
    with pytest.raises(SystemExit):
        main()
    client = [str(ROOT / "solutions" / "ex10_client.py"), "data/cat.png", "data/coffee.png"]
    assert became == [[*client, "--url", "http://localhost:3000"]]


@pytest.fixture
def not_set_up(tmp_path) -> Path:
    """A folder without .venv, so that setup has something to do."""
    for file in ("Makefile", "requirements.lock"):
        (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    return tmp_path


def test_an_old_python_is_one_clear_line(not_set_up):
    old = not_set_up / "python2.7"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("setup", f"PYTHON={old}", cwd=not_set_up)
    assert done.returncode != 0
    assert done.stdout.splitlines() == [
        f"PYTHON={old}: Python 3.11 or newer is needed. Install it, or name it: make setup PYTHON=/path/to/python3.11"
    ]


@pytest.mark.parametrize("uv", [False, True])
def test_setup_takes_uv_where_it_is_installed_and_torch_from_pytorchs_own_index(not_set_up, uv):
    """A dry run of make stands in for the download: the index cannot be reached everywhere."""
    if uv:
        (not_set_up / "uv").write_text("#!/bin/sh\n")
        (not_set_up / "uv").chmod(0o755)
    done = make("-n", "setup", "CPU=1", cwd=not_set_up, PATH=f"{not_set_up}{os.pathsep}{os.environ['PATH']}")
    install = "uv pip install --python .venv/bin/python" if uv else ".venv/bin/python -m pip install"
    assert f"\n{install} -r requirements.lock\n" in done.stdout
    assert f"{install} --index-url https://download.pytorch.org/whl/cpu $(grep" in done.stdout
    pins = re.findall(r"^torch(?:vision)?==[0-9.]+$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert len(pins) == 2


def test_help_fits_on_one_screen():
    lines = make("help").stdout.splitlines()
    assert len([line for line in lines if line.startswith("  make ")]) == 10
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


def test_all_of_help_lists_every_target_and_variable():
    targets = set(re.findall(r"^([a-z-]+):(?!=).*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    phony = set(re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split())
    text = make("help", "ALL=1").stdout
    assert targets == phony
    for target in targets:
        assert re.search(rf"^  make {target}\b.*  \w", text, re.MULTILINE), f"{target} has no line in:\n{text}"
    variables = {option.envvar for command in get_command(app).commands.values() for option in command.params}
    for variable in variables - {None} | {"PYTHON", "CPU", "QUICK", "LIE", "PROJECT"}:
        assert re.search(rf"^  (\S+, )*{variable}\b", text, re.MULTILINE), variable


def test_help_shows_what_an_exercise_asks_for():
    text = make("help", "EX=04").stdout
    for words in ("Classify a photograph", "exercises/ex04_inference.py", "make check EX=04", "docs/ex04_inference.md"):
        assert words in text
