"""Exercise 18: the commands for Cloud Run, and Cloud Run's contract, tested with a real container.

A test cannot use Google's cloud. A program called `gcloud` replaces it: it records its arguments and prints what the
real one prints. `docker push` is recorded as well, and not run. Everything else is real.
"""

import json
import os
import re
import shlex
import shutil
import signal
import sys
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import service_images as images
from bad_input import CAT, COFFEE, LARGE
from once import once
from service_images import CONFINED, DOCKERFILE, serving
from under_load import SPEED, Alone, assert_all_served, photographs_a_second, requests_in_work, wait_until

from course import ROOT
from course.base import docker
from course.base.processes import free_port
from course.harness.load import Crowd, tally
from course.harness.server import Log, Server
from course.harness.submission import Submission
from course.harness.verdicts import expect, fail, inconclusive, said
from course.harness.written import read
from course.isolation import sandbox

pytestmark = pytest.mark.timeout(images.PATIENCE)

FILE = "ex18_cloud.py"
ONE, TWO = "ex10_service", "ex16_pipeline"
EACH = pytest.mark.parametrize("service", [ONE, TWO])
PLACE = {"project": "my-project", "region": "europe-west1", "repository": "course"}
ADDRESS = "europe-west1-docker.pkg.dev/my-project/course/ex10_service:0123456789ab"
COMMANDS = "commands('my-project', 'europe-west1', 'course', 'ex10_service', '0123456789ab')"
MOST = 20  # requests that an instance takes at a time
USERS = 80
ENDS_WITHIN = 10  # seconds that Cloud Run waits between SIGTERM and SIGKILL


# ------------------------------------------------------------------------------ the commands


@pytest.fixture(scope="module")
def commands(submission: Submission) -> list[list[str]]:
    return commands_of(submission)


def commands_of(submission: Submission, **more: bool) -> list[list[str]]:
    """What commands() returns, if it is a list of lists of words."""
    got = submission.call(FILE, "commands", **PLACE, service=ONE, version="0123456789ab", **more)
    right = isinstance(got, list) and all(
        isinstance(one, list) and one and all(isinstance(word, str) for word in one) for one in got
    )
    expected, hint = "a list of commands, each a list of words", '["docker", "tag", ...]: so that no shell reads it'
    expect(right, called=COMMANDS, got=got, expected=expected, hint=hint)
    return got


@pytest.fixture(scope="module")
def settings(submission: Submission) -> dict[str, dict[str, str]]:
    """The settings of both services, each value as it is in the command."""
    got = {service: submission.call(FILE, "settings", service=service) for service in (ONE, TWO)}
    right = all(isinstance(own, dict) for own in got.values())
    expected = 'options with their values, such as {"cpu": "1", "memory": "1Gi"}'
    hint = "without the dashes; an option that takes no value has an empty one"
    expect(right, called=f"settings({ONE!r}), and settings({TWO!r})", got=got, expected=expected, hint=hint)
    return {service: {name: str(value) for name, value in own.items()} for service, own in got.items()}


def options(command: list[str]) -> dict[str, str]:
    """The options of a gcloud command, with their values: `--cpu=1` or `--cpu 1`."""
    found = {}
    for word, following in zip(command, [*command[1:], "--"], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals or following.startswith("--") else following
    return found


def deploy_of(commands: list[list[str]]) -> list[str]:
    """The command that deploys, wherever it is in the list: another test checks the order."""
    return next((command for command in commands if command[:3] == ["gcloud", "run", "deploy"]), [])


@pytest.mark.points(0.5)
@pytest.mark.parametrize(("project", "there"), [("my-project", "my-project"), ("example.com:shop", "example.com/shop")])
def test_the_address_of_an_image(submission, project, there):
    got = submission.call(FILE, "image_address", **PLACE | {"project": project}, service=ONE, version="0123456789ab")
    called = f"image_address({project!r}, 'europe-west1', 'course', 'ex10_service', '0123456789ab')"
    expected = ADDRESS.replace("my-project", there)
    hint = "REGION-docker.pkg.dev/PROJECT/REPOSITORY/IMAGE:TAG; the colon of a domain's project becomes a slash"
    expect(got == expected, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(2)
def test_the_commands_tag_log_in_push_and_deploy(commands):
    kinds, wanted = [" ".join(command[:2]) for command in commands], "docker tag, gcloud auth, docker push, gcloud run"
    expected, hint = (
        f"{wanted}, in this order",
        "Cloud Run pulls the image from the registry: push it before you deploy",
    )
    expect(", ".join(kinds) == wanted, called=COMMANDS, got=", ".join(kinds), expected=expected, hint=hint)
    deploy = options(deploy_of(commands))
    expect(
        commands[0][2:] == ["ex10_service:hand", ADDRESS]
        and "europe-west1-docker.pkg.dev" in commands[1]
        and commands[2][-1] == ADDRESS
        and commands[3][2:4] == ["deploy", "ex10-service"]
        and [deploy.get(name) for name in ("image", "project", "region")] == [ADDRESS, "my-project", "europe-west1"],
        called=COMMANDS,
        got="; ".join(map(shlex.join, commands))[:390],
        expected=f"docker tag, gcloud auth configure-docker, docker push, gcloud run deploy, of {ADDRESS}",
        hint="the name of a service in Cloud Run has no underscores: cloud.name()",
    )


@pytest.mark.points(1)
def test_a_service_is_public_only_if_you_ask_for_it(submission, commands):
    both = [deploy_of(commands), deploy_of(commands_of(submission, public=True))]
    got = [[name for name in options(one) if "unauthenticated" in name] for one in both]
    called = "the gcloud run deploy of commands(...), and of commands(..., public=True)"
    expected = "--no-allow-unauthenticated in the one, --allow-unauthenticated in the other"
    hint = "every request to a public service costs you money"
    right = got == [["no-allow-unauthenticated"], ["allow-unauthenticated"]]
    expect(right, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(1)
def test_the_settings_are_in_the_command(commands, settings):
    got = options(deploy_of(commands))
    missing = {name: value for name, value in settings[ONE].items() if got.get(name) != value}
    called = "the gcloud run deploy of commands(...), and settings('ex10_service')"
    expected = "each setting as an option: --NAME=VALUE, or --NAME where the value is empty"
    hint = "for name, value in settings(service).items()"
    expect(not missing, called=called, got=f"without {missing}", expected=expected, hint=hint)


@pytest.mark.points(0.5)
@EACH
def test_the_settings_have_bounds_and_probes(service, settings):
    own = settings[service]
    startup, liveness = probe(own.get("startup-probe", "")), probe(own.get("liveness-probe", ""))
    port = own.get("port", "8080")  # Cloud Run's own
    asked = {one.get("httpGet.port", port) for one in (startup, liveness)}
    needed = ("cpu", "memory", "concurrency", "timeout", "max-instances")
    problems = {
        f"no {', '.join(name for name in needed if name not in own)}": not own.keys() >= set(needed),
        f"concurrency is not from 1 to {MOST}": not 1 <= whole(own.get("concurrency", "")) <= MOST,
        "the start-up probe does not request /readyz": startup.get("httpGet.path") != "/readyz",
        "the start-up probe waits less than 30 s, or more than 240": not 30 <= patience(startup) <= 240,
        "the liveness probe does not request /livez": liveness.get("httpGet.path") != "/livez",
        "one busy moment fails the liveness probe": whole(liveness.get("failureThreshold", "3")) < 2,
        f"a probe requests port {', '.join(asked - {port})}, the service listens on {port}": asked != {port},
    }
    got = "; ".join(problem for problem, holds in problems.items() if holds)
    expected = "a limit for everything, and two probes with the right paths"
    hint = "/readyz says that the model is loaded, /livez that the server responds at all; PORT is set to `port`"
    expect(not got, called=f"settings({service!r})", got=got, expected=expected, hint=hint)


def probe(words: str) -> dict[str, str]:
    """httpGet.path=/readyz,periodSeconds=2 as a dict."""
    return dict(pair.split("=", 1) for pair in words.split(",") if "=" in pair)


def patience(startup: dict[str, str]) -> int:
    """How many seconds a start-up probe waits."""
    tries = whole(startup.get("failureThreshold", "3"))
    return whole(startup.get("initialDelaySeconds", "0")) + whole(startup.get("periodSeconds", "10")) * tries


def whole(number: str) -> int:
    """A whole number; 0 for anything else, which is no valid setting."""
    return int(number) if number.isdecimal() else 0


# ------------------------------------------------------------------------------ make deploy


@contextmanager
def answering(status: int, body: str):
    """A server that gives every POST the same response; its URL, and of each request path, Authorization and body."""
    came = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sent = self.rfile.read(int(self.headers["content-length"]))
            came.append((self.path, self.headers.get("Authorization"), sent))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", came
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.points(1)
def test_the_smoke_test_sends_the_photograph_and_the_token_and_returns_the_best_label(submission):
    body = json.dumps({"predictions": [{"label": "tabby", "probability": 0.5}, {"label": "cup", "probability": 0.1}]})
    with answering(200, body) as (url, came):
        got = submission.call(FILE, "smoke_test", url=url, photograph=CAT, token="a-token")
        submission.call(FILE, "smoke_test", url=url, photograph=COFFEE)
    sent = [("/classify", "Bearer a-token", CAT.read_bytes()), ("/classify", None, COFFEE.read_bytes())]
    expect(
        got == "tabby" and came == sent,
        called="smoke_test(url, cat.png, token='a-token'), and smoke_test(url, coffee.png)",
        got=f"{got!r}; sent: {[(path, token, f'{len(body)} bytes') for path, token, body in came]}",
        expected="'tabby'; each photograph to /classify, the first one with Authorization: Bearer a-token",
        hint='headers={"Authorization": f"Bearer {token}"} if token else {}',
    )


@pytest.mark.points(0.25)
@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (403, "Forbidden", "look at response.status_code first"),
        (200, "<html>", "json() raises ValueError"),
        (200, "{}", "what json() returns may be a dict without predictions, or no dict"),
        (0, "", "httpx.HTTPError is the base class of all of httpx's errors"),
    ],
    ids=["forbidden", "no_json", "no_predictions", "nothing_listens"],
)
def test_the_smoke_test_says_what_is_wrong(submission, status, body, hint):
    """Another status, no JSON, no predictions; nothing listens."""
    with answering(status or 200, body) as (url, _):
        url = url if status else f"http://127.0.0.1:{free_port()}"
        try:
            got = submission.call(FILE, "smoke_test", url=url, photograph=CAT)
        except pytest.fail.Exception as failure:
            if "is not written yet" in str(failure):
                raise
            got = str(failure)
    called = f"smoke_test(url), where {url} returns {status or 'nothing'} {body}"
    told = str(got).partition("raised Problem")[2]
    right = told and (status != 403 or "403" in told)
    expect(bool(right), called=called, got=got, expected="raise Problem, with a sentence that says which", hint=hint)


# What `docker` prints for a submission that may not reach the engine: the truth about the images on this machine.
ANSWERS = """
if sys.argv[1] == 'version':
    print('27.0.0 27.0.0')
if sys.argv[1:3] in (['image', 'ls'], ['image', 'inspect']):
    print(known.get(sys.argv[-1], ''))
    sys.exit(sys.argv[2] == 'inspect' and sys.argv[-1] not in known)
"""


def _images() -> dict[str, str]:
    tags = [f"{service}:hand" for service in (ONE, TWO)]
    return {tag: json.dumps([docker.inspect(tag)]) for tag in tags if docker.exists(tag)}


class Stage:
    """A folder of programs that is first on PATH: a gcloud, and a docker that does everything but push."""

    def __init__(self, folder: Path, url: str = "", account: str = "me@example.com") -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.programs = folder / "bin"
        self.programs.mkdir(parents=True)
        answers = {"auth list": account, "run services": url, "auth print-identity-token": "a-token"}
        self._program("gcloud", f"answers = {answers!r}\nprint(answers.get(' '.join(sys.argv[1:3]), ''))")
        real = shutil.which("docker") or "docker"
        code = f"if sys.argv[1] != 'push':\n    os.execv({real!r}, ['docker', *sys.argv[1:]])"
        if sandbox.mode != "none":  # access to the engine means root on this machine: we ask it beforehand
            code = f"known = {_images()!r}\n" + ANSWERS
        self._program("docker", code, only="push")

    def _program(self, name: str, code: str, only: str = "") -> None:
        path = self.programs / name
        note = f"open({str(self.notes)!r}, 'a').write(json.dumps([{name!r}, *sys.argv[1:]]) + '\\n')"
        note = f"if {only!r} in ('', sys.argv[1]):\n    {note}"
        path.write_text(f"#!{sys.executable}\nimport json, os, sys\n{note}\n{code}\n")
        path.chmod(0o755)

    def without(self, name: str) -> "Stage":
        """As if a program were not installed."""
        (self.programs / name).unlink()
        return self

    @property
    def told(self) -> list[list[str]]:
        """The recorded commands."""
        return [json.loads(line) for line in read(self.notes).splitlines()] if self.notes.exists() else []

    def deploy(self, submission: Submission, *words: str):
        """Run the script as `make deploy` does."""
        return submission.run(FILE, *words, env={"PATH": str(self.programs), "COLUMNS": "1000"}, writes=[self.folder])


def place(**other: str) -> list[str]:
    return [f"--{name}={value}" for name, value in (PLACE | other).items()]


@pytest.fixture(scope="module")
def written(submission: Submission) -> None:
    """Fails if commands() is not written: what the script does before it is given."""
    submission.call(FILE, "commands", **PLACE, service=ONE, version="1")


@pytest.mark.points(1)
def test_a_dry_run_prints_the_commands_and_runs_none(submission, written, tmp_path):
    stage = Stage(tmp_path)
    done = stage.deploy(submission, *place(), "--ex=16", "--dry-run")
    lines = [shlex.split(line) for line in done.output.splitlines() if line.strip()]
    version = lines[0][-1].rpartition(":")[2] if lines and lines[0] else ""
    wanted = submission.call(FILE, "commands", **PLACE, service=TWO, version=version)
    called, hint = "python ex18_cloud.py --project=my-project ... --ex=16 --dry-run", "shlex.join(command)"
    got = f"exit code {done.code}, {stage.told} was run: {done.output[:300]}"
    expected = "the commands, one a line, and nothing run"
    expect(done.code == 0 and lines == wanted and not stage.told, called=called, got=got, expected=expected, hint=hint)


@pytest.mark.points(1)
@pytest.mark.docker
def test_says_what_is_missing_before_it_runs_anything(submission, written, tmp_path, image):
    cases = {
        "PROJECT=": (Stage(tmp_path / "1"), place(project="")),
        "REGION=Europe": (Stage(tmp_path / "2"), place(region="Europe")),
        "REPOSITORY=": (Stage(tmp_path / "3"), place(repository="")),
        "EX=19": (Stage(tmp_path / "4"), [*place(), "--ex=19"]),
        "There is no `gcloud` command": (Stage(tmp_path / "5").without("gcloud"), place()),
        "not logged in": (Stage(tmp_path / "6", account=""), place()),
        "There is no `docker` command": (Stage(tmp_path / "7").without("docker"), place()),
    }
    for sentence, (stage, words) in cases.items():
        done = stage.deploy(submission, *words)
        changed = [one for one in stage.told if one[1:3] != ["auth", "list"]]
        called = f"python ex18_cloud.py {' '.join(words)}"
        got = f"exit code {done.code}, {changed} was run: {said(done.output)}"
        expected = f"exit code 1 and one sentence with {sentence!r}, and nothing run"
        right = done.code == 1 and sentence in done.output and done.output.count("\n") == 1 and not changed
        expect(right, called=called, got=got, expected=expected, hint="main() does this; commands() runs nothing")


@pytest.fixture(scope="module")
def project(models_dir, tmp_path_factory) -> Path:
    return images.make_project(tmp_path_factory.mktemp("project"), models_dir)


@pytest.fixture(scope="module")
def image(project, tmp_path_factory, submission):
    """Build the image of a service once, with the course's own Dockerfile, and remove it at the end."""

    @once
    def build(service: str) -> str:
        tag = images.tag_of(submission, service)
        remove.callback(docker.remove, tag)
        log = tmp_path_factory.mktemp("build") / "log"
        return images.build_by_hand(ROOT / DOCKERFILE, service, project, tag, log)

    with ExitStack() as remove:
        if not docker.exists(f"{ONE}:hand"):  # the script looks for this name; a student's own image stays as it is
            docker.docker("tag", build(ONE), f"{ONE}:hand")
            remove.callback(docker.remove, f"{ONE}:hand")
        yield build


@pytest.fixture(scope="module")
def instances(settings, image):
    """A container of each service, confined as on Cloud Run, with the CPU and memory of its settings, on port 8080."""

    @once
    def instance(service: str) -> docker.Container:
        cpu, memory = settings[service].get("cpu"), size(settings[service].get("memory", ""))
        if not cpu or not memory:
            fail(f"settings({service!r}) has no cpu or no memory: set both.")
        limits = f"--cpus={cpu}", f"--memory={memory}", f"--memory-swap={memory}", "--env=PORT=8080", *CONFINED
        deadline = patience(probe(settings[service].get("startup-probe", "")))
        return opened.enter_context(serving(image(service), *limits, port=8080, deadline=deadline))

    with ExitStack() as opened:
        yield instance


@pytest.mark.points(2)
@pytest.mark.docker
def test_deploy_runs_the_commands_and_then_calls_the_service(submission, written, instances, models_dir, tmp_path):
    stage = Stage(tmp_path, url=instances(ONE).url)
    done = stage.deploy(submission, *place())
    address = next((one[-1] for one in stage.told if one[:2] == ["docker", "push"]), "")
    docker.remove(address)
    version = address.rpartition(":")[2]
    wanted = submission.call(FILE, "commands", **PLACE, service=ONE, version=version)
    got = [one for one in stage.told if one in wanted]
    label = images.best_labels(models_dir / "resnet18.onnx")[0]
    expect(
        done.code == 0 and got == wanted[1:] and f"cat.png: {label}" in done.output,
        called=f"python ex18_cloud.py {' '.join(place())}",
        got=f"exit code {done.code}; {[' '.join(one[:3]) for one in stage.told]}; {said(done.output)}",
        expected=f"gcloud auth configure-docker, docker push, gcloud run deploy; and of the running service: {label}",
        hint="smoke_test() comes last, with the URL that gcloud prints",
    )


# ------------------------------------------------------------------------------ Cloud Run's contract


class InContainer(Server):
    """A container as a server, for under_load."""

    def __init__(self, container: docker.Container) -> None:
        self.url, self.container, self.log = container.url, container, Log(Path(os.devnull))

    def last_words(self, lines: int = 15) -> str:
        return f" {self.container.last_words(lines)}"


def size(memory: str) -> str:
    """Cloud Run's 1Gi or 512Mi as Docker writes it."""
    return re.sub("i?B?$", "", memory).lower()


@EACH
@pytest.mark.docker
@pytest.mark.points(1)
def test_is_ready_in_time_and_writes_one_line_to_standard_output_for_each_request(service, instances):
    container = instances(service)

    def lines() -> int:
        """How many lines of standard output are about requests for /classify. docker() returns no standard error."""
        return docker.docker("logs", container.name).count("path=/classify")

    before = lines()
    for photograph in (CAT, COFFEE, CAT):
        InContainer(container).request("POST", "/classify", content=photograph.read_bytes())
    wait_until(lambda: lines() >= before + 3, seconds=10)
    got = lines() - before
    called = "POST /classify three times; docker logs, standard output alone"
    expected = "3: Cloud Run keeps standard output, one entry for each line"
    hint = "BentoML's access log; PYTHONUNBUFFERED=1"
    expect(got == 3, called=called, got=f"{got} lines about it", expected=expected, hint=hint)


@EACH
@pytest.mark.docker
@pytest.mark.points(1)
def test_answers_80_users_within_its_memory(service, instances):
    """All at the same time: ten times its concurrency."""
    server = InContainer(instances(service))
    alone = Alone(server)
    answers, state = Crowd(server, USERS).wait(), server.container.state()
    called = f"POST /classify by {USERS} users at once, settings({service!r})"
    got = (
        f"{tally(answers)}, running: {state['Running']}, killed for memory: {state['OOMKilled']}.{server.last_words(5)}"
    )
    hint = "memory: 220 to 380 MB for each process without load, of which there are one more than services"
    right = state["Running"] and not state["OOMKilled"]
    expect(right, called=called, got=got, expected="200 for all", hint=hint)
    assert_all_served(server, answers, called, hint)
    alone.assert_same(answers, called)


@EACH
@pytest.mark.docker
@pytest.mark.points(1)
def test_answers_what_it_accepted_when_cloud_run_ends_it(service, instances):
    """The last test of this container: SIGTERM while it works on requests."""
    container = instances(service)
    server = InContainer(container)
    alone = Alone(server, LARGE)
    crowd, accepted = Crowd(server, 24, LARGE), 0

    def some_in_work() -> bool:
        nonlocal accepted
        before, in_work = len(crowd.answered), requests_in_work(server)
        accepted = before + in_work
        return in_work >= 6

    in_time = wait_until(some_in_work, seconds=30)
    docker.docker("kill", "--signal", signal.SIGTERM.name, container.name)
    code = container.wait(ENDS_WITHIN)
    answers, called = crowd.wait(), f"24 POST /classify at once, and SIGTERM to {service} while some are in work"
    got = Counter(answer.status for answer in answers)
    right = in_time and code == 0 and got[200] >= accepted and set(got) <= {200, 0}
    if not right and (speed := photographs_a_second()) < SPEED:
        inconclusive(f"this machine decodes {speed:.0f} photographs a second; the test needs {SPEED}")
    expect(
        right,
        called=called,
        got=f"exit code {code} (None: still there), {dict(got)}, accepted were {accepted}",
        expected=f"exit code 0 within {ENDS_WITHIN} s, and 200 for all {accepted} that were accepted",
        hint="no shell between Docker and the server; serving/container.py gives requests 9 s to end",
    )
    alone.assert_same(answers, called)
