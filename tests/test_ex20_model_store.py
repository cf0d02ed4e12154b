"""Exercise 20: models in BentoML's store: saved, listed, served by tag, rolled back, moved to another machine."""

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path

import onnxruntime as ort
import pytest
import under_load
from bad_input import CAT, COFFEE
from image_service import assert_classified, assert_does_not_start, assert_refuses_bad_images, best_five, expect_answer
from PIL import Image
from scripts import expect_one_sentence, expect_success

from course import ROOT
from course.harness.load import load, tally
from course.harness.model_worker import LARGEST
from course.harness.server import Server
from course.harness.submission import Finished, Submission
from course.harness.verdicts import expect, fail, said
from course.harness.written import beginning, read

SERVICE, COMMANDS = "ex20_service.py", "ex20_model_store.py"


class Store:
    """A BENTOML_HOME of its own, like another machine, and the commands of exercise 20 on it."""

    def __init__(self, submission: Submission, home: Path, of: "Store | None" = None) -> None:
        """of: begin with the versions of this store."""
        self.submission, self.home, self.env = submission, home, {"BENTOML_HOME": str(home)}
        shutil.copytree(of.home, home) if of else home.mkdir(exist_ok=True)

    def run(self, *words: object, env: dict[str, str] | None = None, writes: Iterable[Path] = ()) -> Finished:
        return self.submission.run(COMMANDS, *words, env=self.env | (env or {}), writes=writes)

    def does(self, *words: object, writes: Iterable[Path] = ()) -> str:
        """The output of a command that is expected to succeed."""
        finished, hint = self.run(*words, writes=writes), "bentoml.models.create, list, get, export_model, import_model"
        expect_success(finished, called=typed(words), expected="and no failure", hint=hint)
        return finished.output

    def tag(self, *words: object) -> str:
        """The tag that a command printed last."""
        output = self.does(*words)
        found = re.findall(r"^resnet18:[a-z0-9._-]+$", output, re.MULTILINE)
        expected = "the tag on a line of its own, such as resnet18:bc75jvhg2kdtkax4"
        expect(bool(found), called=typed(words), got=said(output), expected=expected, hint="print(model.tag)")
        return found[-1]

    def refuses(self, *words: object, because: str) -> None:
        hint = "raise Problem('...') for what a user can get wrong"
        expect_one_sentence(self.run(*words), because, called=typed(words), hint=hint)

    def rows(self) -> list[str]:
        """The lines of `list` that show a version, the newest first."""
        return rows(self.does("list"))

    def versions(self) -> list[Path]:
        """What is in the store, read without a command."""
        return sorted(self.home.glob("models/*/*/model.yaml"))


def typed(words: Iterable[object]) -> str:
    return f"python ex20_model_store.py {' '.join(map(str, words))}"


def rows(listed: str) -> list[str]:
    return [line for line in listed.splitlines() if re.match(r"\W*resnet18:", line)]


@pytest.fixture(scope="module")
def store(submission: Submission, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(submission, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def older(store: Store, small_models_dir: Path) -> str:
    """The tag of a first version: weights of seed 0."""
    labels = ("--label", "stage=production", "--label", "team=vision")
    return store.tag("save", small_models_dir / "resnet18.onnx", *labels)


@pytest.fixture(scope="module")
def newer(store: Store, older: str, small_models_dir: Path) -> str:
    """The tag of a second version: weights of seed 2."""
    return store.tag("save", small_models_dir / "model_b.onnx", "--label", "stage=trial")


@pytest.fixture(scope="module")
def moved(store: Store, newer: str, older: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the first version, written to a path relative to the current folder, as the page does it."""
    file = tmp_path_factory.mktemp("moved") / "older.tar"
    store.does("export", older, f"data/{os.path.relpath(file, ROOT / 'data')}", writes=[file.parent])
    return file


@pytest.fixture(scope="module")
def server(submission: Submission, store: Store, newer: str, small_models_dir: Path):
    """Serves the latest version, since MODEL_TAG is not set."""
    with submission.serve(SERVICE, env=store.env | {"MODELS_DIR": str(small_models_dir)}) as running:
        yield running


def best(model: Path) -> dict[Path, list[dict]]:
    session = ort.InferenceSession(model)
    return {image: best_five(session, Image.open(image).convert("RGB")) for image in (CAT, COFFEE)}


def served_tag(server: Server) -> str | None:
    """What /version says, which must be what /classify says."""
    response = server.request("POST", "/version", json={})
    labels = server.request("POST", "/classify", content=CAT.read_bytes())
    try:
        said = response.json()["tag"], labels.json()["version"]
    except (ValueError, KeyError, TypeError):
        said = None, None
    called = "POST /version, and POST /classify"
    got = f"{response.status_code} {response.text[:200]}, and {labels.status_code} {labels.text[-200:]}"
    expected = '{"tag": "resnet18:...", ...}, and {"predictions": ..., "version": (the same tag)}'
    hint = f"str(self.model.tag), with its exact version.{server.last_words()}"
    expect(said[0] is not None and said[0] == said[1], called=called, got=got, expected=expected, hint=hint)
    return said[0]


def assert_serves(server: Server, tag: str, model: Path, how: str) -> None:
    got = served_tag(server)
    expect(got == tag, called=how, got=f"/version: {got}", expected=tag, hint="bentoml.models.get(tag)")
    for image, expected in best(model).items():
        assert_classified(server, image.read_bytes(), f"{how}: POST /classify with {image.name}", expected)


# ------------------------------------------------------------------------------ save and list


@pytest.mark.points(2)
def test_list_shows_every_version_with_what_is_known_of_it(store, older, newer):
    got = store.rows()
    expect(
        len(got) == 2
        and all(text in got[0] for text in (newer, "latest", "stage=trial", "random seed 2"))
        and all(text in got[1] for text in (older, "stage=production", "team=vision", "random seed 0"))
        and "latest" not in got[1],
        called="python ex20_model_store.py list, after two times `save`",
        got="\n".join(got),
        expected=f"{newer} with its label and weights, marked as latest, then {older} with its own",
        hint="labels from --label; the weights from the model's own metadata, with weights(session)",
    )


@pytest.mark.points(0.25)
@pytest.mark.parametrize("kind", ["no_file", "no_model", "label_without_value", "impossible_name"])
def test_save_refuses_what_cannot_be_served(store, newer, small_models_dir, tmp_path, kind):
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x0a not a model")
    before = store.versions()
    words, because = {
        "no_file": ([tmp_path / "nowhere.onnx"], "There is no model"),
        "no_model": ([tmp_path / "broken.onnx"], "cannot be loaded"),
        "label_without_value": ([small_models_dir / "resnet18.onnx", "--label", "stage"], "key=value"),
        "impossible_name": ([small_models_dir / "resnet18.onnx", "--name", "../../resnet18"], "not a valid"),
    }[kind]
    store.refuses("save", *words, because=because)
    called = f"the store after a `save` that was refused: {kind.replace('_', ' ')}"
    hint = "check before you create a version, or raise inside the `with`"
    expect(store.versions() == before, called=called, got=store.versions(), expected="what was there before", hint=hint)


CUT_SHORT = """
import os, shutil
from pathlib import Path
def copytree(source, place, **_):
    for file in Path(source).iterdir():
        if file.suffix == '.onnx':
            Path(place).mkdir(parents=True, exist_ok=True)
            (Path(place) / file.name).write_bytes(file.read_bytes()[:1000])
            {ending}
shutil.copytree = copytree
"""


@pytest.mark.points(0.5)
@pytest.mark.parametrize(("command", "how"), [("save", "killed"), ("save", "interrupted"), ("import", "killed")])
def test_an_interrupted_command_leaves_nothing_half_written(
    submission, store, older, moved, small_models_dir, tmp_path, command, how
):
    """While BentoML copies, the process ends as by SIGKILL, or gets Ctrl-C."""
    ending = {"killed": "os._exit(137)", "interrupted": "raise KeyboardInterrupt"}[how]
    (tmp_path / "sitecustomize.py").write_text(CUT_SHORT.format(ending=ending))
    own, file = Store(submission, tmp_path / "home", of=store), small_models_dir / "resnet18.onnx"
    if command == "import":  # on another machine, which has one of the versions
        file = moved
        shutil.rmtree(own.home / "models" / "resnet18" / older.partition(":")[2])
    before = own.versions()
    finished = own.run(command, file, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    after = own.run("list")
    called = f"`list` after `{command}` was {how} while BentoML copied the version into the store"
    got = f"exit code {after.code}: {said(after.output)}"
    hint = "with moved_in_whole() as store, and _model_store=store for bentoml.models.create and import_model"
    right = finished.code == 0 or (after.code == 0 and len(rows(after.output)) == len(before))
    expect(right, called=called, got=got, expected="the versions that were there before, and no other", hint=hint)


# ------------------------------------------------------------------------------ serve


@pytest.mark.points(2)
def test_serves_the_latest_version_and_says_so(server, newer, small_models_dir):
    assert_serves(server, newer, small_models_dir / "model_b.onnx", "bentoml serve after two times `save`")


@pytest.mark.points(1)
def test_version_tells_labels_and_metadata(server, newer, small_models_dir):
    response = server.request("POST", "/version", json={})
    got = response.json() if response.status_code == 200 else {}
    digest = hashlib.sha256((small_models_dir / "model_b.onnx").read_bytes()).hexdigest()
    metadata, labels = {"weights": "random seed 2", "classes": 1000, "sha256": digest}, {"stage": "trial"}
    right = "saved" in got and got.get("labels") == labels and metadata.items() <= got.get("metadata", {}).items()
    expected = f'{{"tag": ..., "saved": ..., "labels": {labels}, "metadata": {metadata}}}'
    hint = "model.info has creation_time, labels and metadata"
    expect_answer(server, response, right, "POST /version", expected, hint)


@pytest.mark.points(0.5)
def test_classify_refuses_what_is_no_image(server):
    assert_refuses_bad_images(server)


@pytest.mark.points(0.5)
@pytest.mark.parametrize("tag", ["resnet18:latest", "resnet18:nosuchversion", "Not a tag!"])
def test_does_not_start_without_its_model(submission, tmp_path, tag):
    env = {"BENTOML_HOME": str(tmp_path), "MODEL_TAG": tag}
    assert_does_not_start(submission, SERVICE, env, tag)


@pytest.mark.points(0.5)
def test_does_not_start_with_a_file_that_was_changed(submission, store, newer, tmp_path):
    other = Store(submission, tmp_path / "home", of=store)
    (file,) = other.home.glob(f"models/resnet18/{newer.partition(':')[2]}/*.onnx")
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    assert_does_not_start(submission, SERVICE, other.env, newer.partition(":")[2])


# ------------------------------------------------------------------------------ roll back


@pytest.mark.points(1.5)
def test_a_pinned_tag_is_served_whatever_is_latest(submission, store, older, newer, small_models_dir):
    with submission.serve(SERVICE, env=store.env | {"MODEL_TAG": older}) as pinned:
        assert_serves(pinned, older, small_models_dir / "resnet18.onnx", f"MODEL_TAG={older} bentoml serve")


@pytest.mark.points(2)
def test_rollback_makes_an_earlier_version_the_latest(submission, store, older, newer, small_models_dir, tmp_path):
    own = Store(submission, tmp_path / "home", of=store)
    back = own.tag("rollback", older)
    got = own.rows()
    expect(
        len(got) == 3
        and all(text in got[0] for text in (back, "latest", "random seed 0", "stage=production"))
        and newer in got[1]
        and older in got[2],
        called=f"`list` after `rollback {older}`",
        got="\n".join(got),
        expected=f"the file and the labels of {older} as the latest version; {newer} still there",
        hint="save the file of stored(tag) as a new version, with its labels",
    )
    own.refuses("rollback", "resnet18:nosuchversion", because="resnet18:nosuchversion")
    with submission.serve(SERVICE, env=own.env) as server:
        assert_serves(server, back, small_models_dir / "resnet18.onnx", "bentoml serve after `rollback`")
        metadata = server.request("POST", "/version", json={}).json().get("metadata", {})
    called, expected = "POST /version after `rollback`", f'"metadata": {{"rolled_back_to": "{older}", ...}}'
    hint = '_save(..., {"rolled_back_to": str(earlier.tag)})'
    expect(metadata.get("rolled_back_to") == older, called=called, got=metadata, expected=expected, hint=hint)


# ------------------------------------------------------------------------------ another machine


@pytest.mark.points(2.5)
def test_a_version_moves_to_another_machine(submission, moved, older, tmp_path):
    other = Store(submission, tmp_path / "other machine")
    got, listed = other.tag("import", moved), other.rows()
    expect(
        got == older
        and len(listed) == 1
        and all(text in listed[0] for text in (older, "team=vision", "random seed 0")),
        called=f"`export {older} older.tar`, `import` with another BENTOML_HOME, `list` there",
        got=f"{got}; {listed}",
        expected="the same tag, labels and metadata",
        hint="bentoml.models.export_model(tag, path), bentoml.models.import_model(path)",
    )
    other.refuses("import", moved, because="already")


def with_other_file(exported: Path, path: Path, onnx: bytes, digests: tuple[bytes, bytes] = (b"", b"")) -> None:
    """Write an exported version whose ONNX file is another one, and one digest in it for another."""
    with tarfile.open(fileobj=io.BytesIO(read(exported, LARGEST)), mode="r:") as old, tarfile.open(path, "w") as new:
        for entry in old:
            data = old.extractfile(entry).read(LARGEST) if entry.isfile() else b""
            data = onnx if entry.name.endswith(".onnx") else data.replace(*digests)
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))


@pytest.mark.points(1)
def test_import_refuses_what_is_no_model(submission, moved, small_models_dir, tmp_path):
    other = Store(submission, tmp_path / "home")
    model, broken = (small_models_dir / "resnet18.onnx").read_bytes(), b"\x08\x0a not a model"
    digests = tuple(hashlib.sha256(one).hexdigest().encode() for one in (model, broken))
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "cut.tar").write_bytes(beginning(moved, min(LARGEST, moved.stat().st_size // 2)))
    with tarfile.open(tmp_path / "out.tar", "w") as hostile:
        entry = tarfile.TarInfo("../../../../escaped.txt")
        entry.size = 1
        hostile.addfile(entry, io.BytesIO(b"x"))
    with_other_file(moved, tmp_path / "changed.tar", model[:-1] + bytes([model[-1] ^ 1]))
    with_other_file(moved, tmp_path / "broken.tar", broken, digests)
    for name in ("text.tar", "cut.tar", "out.tar", "nowhere.tar"):
        other.refuses("import", tmp_path / name, because=name)
    other.refuses("import", tmp_path / "changed.tar", because="not what was saved")
    other.refuses("import", tmp_path / "broken.tar", because="cannot be loaded")
    if other.versions():
        fail(f"`import` refused these files, but the store holds {other.versions()}: check before the block ends.")


# ------------------------------------------------------------------------------ faults and load


@pytest.mark.points(2)
def test_a_version_saved_while_another_is_served_harms_nothing(server, store, newer, small_models_dir):
    before = served_tag(server)
    with load(server) as answered:
        under_load.wait_for(answered, 5, server)
        store.tag("save", small_models_dir / "resnet18.onnx")
        under_load.wait_for(answered, 16, server)
    different = [one for one in answered if one.status != 200 or before not in one.text]
    called = "`save` of another version while 8 clients classify"
    got = tally(different)
    hint = "load the model in __init__, not at each request"
    expect(not different, called=called, got=got, expected=f"200, and the version {before}, for all of them", hint=hint)
    under_load.assert_survives_a_killed_worker(server)
    called = "POST /version, after a newer version was saved, and a worker killed and replaced"
    expected = f"still {before}: what is served changes when the service is started, not when a worker dies"
    hint = 'under @bentoml.on_deployment: os.environ["MODEL_TAG"] = (the exact tag); workers inherit it'
    expect(served_tag(server) == before, called=called, got=served_tag(server), expected=expected, hint=hint)


@pytest.mark.points(0.5)
def test_overload_is_answered(server):
    under_load.assert_answers_overload(server)


@pytest.mark.points(0.5)
def test_sigterm_finishes_what_was_accepted(server):
    under_load.assert_finishes_on_sigterm(server)
