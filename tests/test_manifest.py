"""course.toml and the files on disk say the same."""

import re
from pathlib import Path

import pytest

from course import ROOT
from course.base.manifest import Exercise, exercises, find, find_service, solution
from course.pages.exercise_table import with_table
from serving import Problem

EACH = pytest.mark.parametrize("exercise", exercises(), ids=lambda exercise: exercise.stem)


def points_of(path: Path) -> float:
    """The sum over a file of tests, read without running it: marks times the cases they are parametrized with."""
    collected: list[pytest.Item] = []

    class Collector:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            collected.extend(session.items)

    pytest.main([str(path), "--collect-only", "-p", "no:terminal", "--rootdir", str(ROOT)], plugins=[Collector()])
    return sum(item.get_closest_marker("points").args[0] for item in collected)


@EACH
def test_every_file_of_an_exercise_is_there(exercise: Exercise):
    wanted = [path for file in exercise.files for path in (ROOT / "exercises" / file, solution(file))]
    missing = [path for path in [*wanted, ROOT / exercise.test, ROOT / exercise.page] if not path.is_file()]
    assert not missing, f"course.toml names {missing}, which are not there"


def test_every_file_is_in_course_toml():
    listed = {file for exercise in exercises() for file in exercise.files}
    folder = ROOT / "exercises"
    starters = {path for kind in ("ex[0-9][0-9]_*.*", "*.dockerfile") for path in folder.rglob(kind)}
    assert {path.relative_to(folder).as_posix() for path in starters if path.suffix != ".pyc"} == listed
    solutions = {path.name for path in (ROOT / "solutions").glob("ex[0-9][0-9]_*")}
    assert solutions == {file for file in listed if "/" not in file}


@EACH
def test_points_of_the_tests_add_up(exercise: Exercise):
    assert points_of(ROOT / exercise.test) == pytest.approx(exercise.points)


@EACH
def test_starters_say_what_to_do(exercise: Exercise):
    for file in exercise.files:
        assert "TODO" not in solution(file).read_text()
    assert exercise.hints


def test_readme_shows_the_exercises():
    text = (ROOT / "README.md").read_text()
    assert with_table(text) == text, "run `make manifest`"
    assert all(exercise.goal in text for exercise in exercises())


def test_the_lock_file_pins_what_is_asked_for():
    def pins(*files: str) -> dict[str, str]:
        text = "\n".join((ROOT / file).read_text() for file in files)
        return {
            name.lower(): version
            for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.]+)", text, re.MULTILINE)
        }

    wanted, locked = pins("requirements.txt", "requirements-serving.txt"), pins("requirements.lock")
    assert {name: locked.get(name) for name in wanted} == wanted, "run `make lock`"
    assert len(locked) > 2 * len(wanted), "indirect dependencies are missing: run `make lock`"


def test_an_unknown_number_names_those_there_are():
    assert find("4") == find("04")
    with pytest.raises(Problem, match=re.escape("EX=44: no exercise has that number. There are 01, 02")):
        find("44")


@EACH
def test_the_service_of_an_exercise_is_the_file_that_holds_one(exercise: Exercise):
    """A script may hold an `app` of its own: a command line."""

    def holding(what: str) -> list[str]:
        return [one for one in exercise.files if re.search(what, solution(one).read_text(), re.M)]

    services, apps = holding(f"^class {exercise.service_class}\\b"), holding("^app = FastAPI")
    assert services + apps == [exercise.service] * bool(exercise.service)
    assert bool(apps) == exercise.app


def test_an_exercise_without_a_service_is_refused():
    assert find_service("9").service == "ex09_fastapi.py"
    with pytest.raises(Problem, match="EX=4: exercise 04 has no service"):
        find_service("4")


def test_an_exercise_leans_on_earlier_ones_and_the_core_path_on_itself():
    known = {exercise.number: exercise for exercise in exercises()}
    for exercise in known.values():
        assert all(needed < exercise.number for needed in exercise.needs)
        if exercise.core:
            assert all(known[needed].core for needed in exercise.needs), f"{exercise.number} is on the core path"


def test_the_navigation_of_the_page_follows_the_parts():
    lines = [line.strip(" -") for line in (ROOT / "mkdocs.yml").read_text().splitlines()]
    parts = {exercise.part: [] for exercise in exercises()}
    for line in lines:
        if line.rstrip(":") in parts:
            part = line.rstrip(":")
        elif found := re.search(r": (ex\d\d_\w+)\.md", line):
            parts[part].append(found[1])
    assert parts == {part: [one.stem for one in exercises() if one.part == part] for part in parts}
