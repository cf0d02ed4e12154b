"""The page of the course, and Swagger, in a real browser."""

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest
from commands import run, wait_for
from small_models import small_model

from course import ROOT
from course.base.manifest import exercises, solution
from course.base.processes import free_port
from course.pages import figures
from course.pages import hook as page
from course.pages.frameworks import frameworks

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def needs_browser(test):
    """Mark a test, and skip it where there is no browser."""
    missing = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
    return pytest.mark.browser(missing(test))


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not run as root, as containers do; it visits our own pages only.
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = run(*command, GITHUB_API_URL=f"http://127.0.0.1:{free_port()}")  # as without a network
    assert built.returncode == 0, built.stderr[-2000:]
    return folder


def test_every_exercise_has_its_page_with_hints_and_code(site):
    for exercise in exercises():
        text = (site / exercise.stem / "index.html").read_text()
        assert text.count("Hint ") >= len(exercise.hints)
        assert "<!-- " not in text.partition("<article")[2].partition("</article")[0], "a mark was not replaced"
        assert 'href="https://' in text.partition('id="read-on"')[2].partition('id="hints"')[0], "no documentation"
        shown = re.findall(r'(?:title="|class="filename">)([\w./-]+)', text)
        assert {str(solution(file).relative_to(ROOT)) for file in exercise.files} & {*shown}, "no code is shown"


def test_a_page_does_not_give_the_answer_away(site):
    """The code of a solution is folded, under a sentence on what to compare; other code is open."""
    answers = {str(solution(file).relative_to(ROOT)) for exercise in exercises() for file in exercise.files}
    for path in site.glob("*/index.html"):
        text = path.read_text().partition("<article")[2]
        folded, opened = r'<details class="example">.*?</details>', r'class="filename">([\w./-]+)'
        assert not answers & {*re.findall(opened, re.sub(folded, "", text, flags=re.DOTALL))}, path
        assert all("Write yours first. " in one for one in re.findall(folded, text, re.DOTALL))
    text = (site / "ex10_service" / "index.html").read_text()
    assert "How often does yours open a session" in text
    assert '<div class="highlight"><span class="filename">serving/service.py' in text.rpartition("</details>")[0]


def test_the_page_is_whole_without_github(site):
    text = (site / "serving" / "index.html").read_text()
    assert text.count(">N/A</a>") == len(frameworks())
    assert "<!-- " not in text.partition("<article")[2].partition("</article")[0], "a mark was not replaced"


PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]


def by_hand(text: str) -> list[str]:
    """The figures of docs/figures.toml that stand in the text itself, by name."""
    text = " ".join(text.split())
    all_figures = {name: figure for run in figures.runs().values() for name, figure in run.figures.items()}
    return [name for name, figure in all_figures.items() if re.search(rf"(?<![\d.]){re.escape(figure)}\b", text)]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_takes_measured_figures_from_the_file(path):
    """So one figure cannot stand on two pages differently."""
    text = path.read_text()
    for kind, name in re.findall(r"<!-- (figure|measured) +(\S+) *-->", text):
        assert getattr(figures, kind)(name)
    assert not by_hand(text), f"{path.name} writes these figures itself. Write <!-- figure NAME --> instead."


def test_a_new_run_replaces_the_one_of_its_name_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FILE", tmp_path / "figures.toml")
    figures.FILE.write_text("# about\n\n")
    figures.record("one", "make one", "X 1", {"first": '3 "ms"', "second": "2 s (1 to 3)"})
    figures.record("two", "make two", "X 1", {"third": "4 ms"})
    figures.record("one", "make one", "X 2", {"first": "5 ms"})
    assert figures.FILE.read_text().startswith("# about\n\n[one]")
    found = {name: (run.versions, run.figures) for name, run in figures.runs().items()}
    assert found == {"one": ("X 2", {"first": "5 ms"}), "two": ("X 1", {"third": "4 ms"})}


@pytest.mark.parametrize(
    "mark",
    [
        "<!-- figure nothing -->",
        "<!-- measured nothing -->",
        "<!-- diagram nothing -->",
        "<!-- card 77 -->",
        "<!-- code solutions/ex04_inference.py nothing -->",
        "<!-- code no.py f -->",
    ],
)
def test_a_mark_that_names_nothing_fails_the_build(mark):
    class Page:
        class file:  # noqa: N801
            src_path = "page.md"

    with pytest.raises(page.PluginError, match=r"page\.md"):
        page.on_page_markdown(mark, Page)


class Links(HTMLParser):
    """What a page of the site links to, and where in it a link may point."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] for name in ("href", "src") if found.get(name)]
        self.ids.add(found.get("id") or "")


def test_no_link_inside_the_site_is_broken(site):
    """Neither to a page or file, nor to a place in a page."""
    found = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    broken, checked = [], 0
    for path, links in ((path, one.links) for path, one in found.items()):
        for link in (link for link in links if not urlsplit(link).scheme):
            parts = urlsplit(link)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            checked += 1
            if not target.is_file() or (target in found and unquote(parts.fragment) not in found[target].ids):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert checked > 1000
    assert not broken


def test_the_bars_of_the_images_are_as_long_as_their_figures():
    """0.058 units for each MB, beginning at 146; docs/figures.toml holds the MB."""
    text = (ROOT / "docs" / "images" / "image_sizes.svg").read_text()
    bars = re.findall(r'x="(\d+)"[^>]*><!-- figure (image-[\w-]+)', text)
    sizes = {name: figure for run in figures.runs().values() for name, figure in run.figures.items()}
    assert len(bars) == 4
    for end, name in bars:  # the text begins 6 behind its bar
        assert int(end) - 152 == pytest.approx(0.058 * int(sizes[name].split()[0]), abs=1)
        assert f'width="{int(end) - 152}"' in text


DIAGRAMS = re.findall(r"<!-- diagram (\w+) -->", "".join(path.read_text() for path in PAGES))


@needs_browser
def test_diagrams_fit_a_phone_follow_the_colours_and_load_nothing(site, browser):
    drawn = {path.stem for path in (ROOT / "docs" / "images").glob("*.svg")}
    assert drawn == {*DIAGRAMS}
    tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    for path in PAGES[:-1]:
        for name in re.findall(r"<!-- diagram (\w+) -->", path.read_text()):
            tab.goto((site / path.stem / "index.html").as_uri())
            title = ElementTree.parse(ROOT / "docs" / "images" / f"{name}.svg").findtext(
                "{http://www.w3.org/2000/svg}title"
            )
            picture = tab.get_by_role("img", name=title)
            assert picture.bounding_box()["width"] <= 390
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            colour = "element => getComputedStyle(element).fill"
            page_colour = tab.locator("article p").first.evaluate("element => getComputedStyle(element).color")
            assert picture.locator("text").first.evaluate(colour) == page_colour
    assert all(url.startswith(site.as_uri()) for url in asked)
    tab.close()


@needs_browser
def test_hints_open_one_by_one(site, browser):
    tab = browser.new_page()
    tab.goto((site / "ex04_inference" / "index.html").as_uri())
    hints = tab.locator("details.tip")
    assert hints.count() == 4
    assert not hints.nth(0).locator("p").last.is_visible()
    hints.nth(0).locator("summary").click()
    assert hints.nth(0).locator("p").last.is_visible()
    assert not hints.nth(1).locator("p").last.is_visible()
    tab.close()


@needs_browser
@pytest.mark.parametrize(
    ("page", "least"),
    [("", 18), ("_services", 18), ("_containers", 12), ("_further", 12)],
    ids=["I", "II", "III", "IV"],
)
def test_answers_of_the_knowledge_check_open_one_by_one(site, browser, page, least):
    tab = browser.new_page()
    tab.goto((site / f"knowledge_check{page}" / "index.html").as_uri())
    questions = tab.locator("details.question")
    assert questions.count() >= least
    for number in range(questions.count()):
        question = questions.nth(number)
        assert question.locator("summary").inner_text().startswith(f"{number + 1}. ")
        assert not question.locator("p").last.is_visible()
        question.locator("summary").click()
        assert question.locator("p").last.is_visible()
    tab.close()


@needs_browser
def test_a_photograph_can_be_classified_at_demo(submission, models_dir, browser):
    """Chosen with the keyboard, dropped, or taken with the camera; nobody but the service is asked."""
    cat, asked = ROOT / "data" / "cat.png", []
    with submission.serve("ex10_service.py", env={"MODELS_DIR": str(models_dir)}) as server:
        tab = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{server.url}/demo")
        state, labels = tab.locator("#state"), tab.locator("#labels li")
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Choose a photograph").press("Enter")
        chooser.value.set_files(cat)
        labels.first.wait_for()
        answer = server.request("POST", "/classify", content=cat.read_bytes()).json()
        expected = [f"{one['label']} {100 * one['probability']:.1f} %" for one in answer["predictions"]]
        assert [" ".join(text.split()) for text in labels.all_inner_texts()] == expected
        assert f"model resnet18 · weights: {answer['weights']}" in tab.locator("#facts").inner_text()
        assert tab.locator("#random").is_visible() == answer["weights"].startswith("random")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "it does not fit a telephone"

        tab.evaluate("""() => {
            const data = new DataTransfer();
            data.items.add(new File(["text"], "notes.txt"));
            document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""")
        state.get_by_text("these 4 bytes are not an image").wait_for()
        assert labels.count() == 0

        tab.get_by_role("button", name="Use the camera").click()
        tab.get_by_role("button", name="Take the photograph").click()
        labels.first.wait_for()
        server.process.terminate()
        server.process.wait(30)
        tab.get_by_role("button", name="Classify it again").click()
        state.get_by_text("does not answer").wait_for()
        tab.close()
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked), asked


@needs_browser
def test_a_photograph_can_be_classified_by_hand_in_swagger(submission, models_dir, browser):
    with submission.serve("ex10_service.py", env={"MODELS_DIR": str(models_dir)}) as server:
        tab, asked = browser.new_page(), []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(server.url)
        tab.get_by_role("link", name="Drop a photograph").wait_for()
        operation = tab.locator(".opblock", has_text="/classify")
        operation.locator(".opblock-summary").click()
        operation.get_by_role("button", name="Try it out").click()
        operation.locator("input[type=file]").set_input_files(str(ROOT / "data" / "cat.png"))
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table tbody tr.response")
        assert answer.locator(".response-col_status").inner_text().startswith("200")
        shown = answer.locator("code.language-json").first.inner_text()
        expected = server.request("POST", "/classify", content=(ROOT / "data" / "cat.png").read_bytes()).json()
        assert json.loads(shown) == expected
        tab.close()
    assert all(url.startswith((server.url, "blob:", "data:")) for url in asked), asked  # no tag manager, no badges


@needs_browser
@pytest.mark.parametrize("today", [None, "2040-01-01"], ids=["today", "years_from_now"])
def test_netron_draws_the_graph(submission, models_dir, browser, tmp_path, today):
    """Two models side by side, each drawn as it is; nothing is asked of any other machine, however old netron is."""
    other = small_model(tmp_path / "other.onnx")
    with submission.start("ex03_visualize.py", models_dir / "resnet18.onnx", other, "--no-browser") as process:
        log, found = process.log.path, r"http://localhost:\d+"
        wait_for(lambda: len(re.findall(found, process.log.read_text())) == 2, process, log)
        drawn, asked = [], []
        for i, url in enumerate(re.findall(found, process.log.read_text())):
            tab = browser.new_page()
            tab.on("request", lambda request: asked.append(request.url))
            if today:
                tab.clock.set_fixed_time(today)
            tab.goto(url)
            tab.locator("svg .node", has_text="Flatten" if i else "Gemm").first.wait_for(timeout=60_000)
            nodes = tab.locator("svg .node")
            operators = ("Conv", "Relu", "Add", "MaxPool", "AveragePool", "MatMul")
            drawn.append({name: nodes.get_by_text(name, exact=True).count() for name in operators})
            tab.screenshot(path=tmp_path / f"{i}.png")
            tab.close()
    assert drawn == [
        {"Conv": 20, "Relu": 17, "Add": 8, "MaxPool": 1, "AveragePool": 0, "MatMul": 0},
        {"Conv": 0, "Relu": 0, "Add": 0, "MaxPool": 0, "AveragePool": 1, "MatMul": 1},
    ]
    assert all(url.startswith(("http://localhost:", "blob:", "data:")) for url in asked), asked
