"""The book: how docstrings become pages, and the built pages themselves, read as files and opened in Chromium.

The tests marked ``book`` look at book/_build/html (``make book``), those marked ``browser`` also need a Chromium. With
CLTEACH_SHOTS=FOLDER every page is saved there as a picture, at desktop and at phone width.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import importlib.util
import json
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import torch

from clteach import results
from clteach.exercises import course, exercises
from clteach.methods import METHODS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
HTML = ROOT / "book" / "_build" / "html"
PAGES = sorted(str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts)
READ = [name for name in PAGES if not name.startswith("_modules/clteach/")]  # code listings, all alike
DESKTOP, PHONE = 1280, 390
# The theme declares this constant twice on every page; nothing else is exempt.
KNOWN_ERROR = "Identifier 'THEBE_JS_URL' has already been declared"
EXPLORER = "notebooks/00_start_here.html"


@pytest.fixture(scope="session")
def html() -> Path:
    if not PAGES:
        pytest.skip("the book is not built (make book)")
    return HTML


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    """The address of the built book on a local server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(html))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no Chromium on PATH (chromium, chromium-browser or google-chrome)")
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", "--no-first-run", *quiet]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that cannot leave this machine; at its end there was no error and nothing outside was asked for."""
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": DESKTOP, "height": 900})

    def local_only(route: Any) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1" or route.request.url.startswith("file:"):
            route.continue_()
        else:
            wrong.append(f"request to {route.request.url}")
            route.abort()

    def note_error(error: Any) -> None:
        if error.message != KNOWN_ERROR:
            wrong.append(f"error: {error.message}")

    def note_line(line: Any) -> None:
        # From the file system Chromium refuses the icon fonts that the theme preloads.
        preloaded = page.url.startswith("file:") and ".woff2" in line.text + line.location["url"]
        if line.type == "error" and not preloaded:
            wrong.append(f"{line.text} ({line.location['url']})")

    page.route("**/*", local_only)
    page.on("pageerror", note_error)
    page.on("console", note_line)
    yield page
    page.close()
    assert wrong == []


def shoot(page: Page, name: str) -> None:
    if folder := os.environ.get("CLTEACH_SHOTS"):
        width = page.viewport_size["width"] if page.viewport_size else 0
        page.screenshot(
            path=Path(folder) / f"{name.replace('/', '-').removesuffix('.html')}-{width}.png", full_page=True
        )


def what_keeps_readers_out(page: Page) -> list[str]:
    """The serious violations of accessibility that axe-core finds: contrast, names of controls, alt texts, ..."""
    violations = page.evaluate("axe.run(document, { resultTypes: ['violations'] }).then(found => found.violations)")
    return [
        f"{each['id']}: {node['html'][:150]}"
        for each in violations
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"][:3]
    ]


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("name", READ or ["index.html"])
def test_page_is_shown_whole(html: Path, page: Page, site: str, name: str) -> None:
    page.goto(f"{site}/{name}", wait_until="networkidle")
    formulas = page.locator("article .math")
    if formulas.count():
        page.wait_for_function(
            "[...document.querySelectorAll('article .math')].every(m => m.querySelector('mjx-container'))",
            timeout=20_000,
        )
    assert page.locator("mjx-merror").count() == 0
    prose = page.evaluate(
        """() => { const article = (document.querySelector('article') || document.body).cloneNode(true);
        article.querySelectorAll('pre, code, script, mjx-container').forEach(node => node.remove());
        return article.textContent; }"""
    )
    assert re.findall(r"\$\$|\\\(|\\\[|\\begin\{", prose) == []
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []
    shoot(page, name)

    page.add_script_tag(path=ROOT / "book" / "_static" / "vendor" / "axe.min.js")
    for theme in ("dark", "light"):
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
        page.wait_for_timeout(200)  # colours fade into each other
        assert what_keeps_readers_out(page) == [], theme

    page.set_viewport_size({"width": PHONE, "height": 844})
    page.wait_for_timeout(500)  # the side bars slide away
    shoot(page, name)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= PHONE


@pytest.mark.book
def test_every_page_has_a_link_preview(html: Path) -> None:
    for name in READ:
        text = (html / name).read_text(encoding="utf-8")
        if 'http-equiv="Refresh"' in text:  # the entry, which only leads on
            continue
        found = dict(re.findall(r'<meta property="og:(\w+)" content="([^"]+)"', text))
        assert {"title", "description", "image", "url"} <= set(found), name
        assert len(found["description"]) > 40 and "<" not in found["description"], name
        assert (html / "_static" / found["image"].partition("/_static/")[2]).is_file(), found["image"]
        assert 'rel="icon"' in text, name


@pytest.mark.book
def test_the_landing_page_leads_everywhere(html: Path) -> None:
    text = (html / "book" / "index.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    for path in (html / "notebooks").glob("*.html"):
        assert f'href="../notebooks/{path.name}"' in text
    for cls in METHODS.values():
        assert f"#{cls.__module__}.{cls.__qualname__}" in text, cls.name
    record = results.of_recipe("split-digits")
    assert record is not None
    for line in results.table(record).to_dict("records"):
        if line["scenario"] == "class":
            assert f"{results.percent(line['mean'], line['sem'])} %" in text


@pytest.mark.parametrize(
    ("summary", "key"),
    [
        ("replay by class (van de Ven 2020)", "vandeven2020bir"),
        ("keep the old answers (Li & Hoiem 2017)", "li2018lwf"),
        ("learn from dreams (--replay-model)", None),
        ("of nobody (Nobody 2017)", None),
    ],
)
def test_a_summary_names_its_paper(summary: str, key: str | None) -> None:
    assert extension().paper_of(summary) == key


@pytest.mark.parametrize("heads", [["# T", "## Explore: z", "## Exercises"], ["# T", "## Maths", "## Exercises"]])
def test_a_live_model_stands_before_the_reader_explores(heads: list[str]) -> None:
    cells = [{"cell_type": "markdown", "source": [f"{head}\n", "text"]} for head in heads]
    document = json.loads(extension().with_live_model("00_start_here", json.dumps({"cells": cells})))
    sources = ["".join(cell["source"]) for cell in document["cells"]]
    place = next(i for i, text in enumerate(sources) if 'data-live="00"' in text)
    assert sources[place + 1].startswith(("## Explor", "## Exercises")) and len(sources) == len(heads) + 1
    assert extension().with_live_model("99_none", "{}") == "{}"


QUESTION = "# T\n\n[badge](x)\n\n**The question.** Why?\n\n**The answer.** So.\n\nMore."


def test_a_chapter_begins_with_its_summary() -> None:
    cells = [{"cell_type": "markdown", "source": QUESTION.splitlines(keepends=True)}]
    document = json.loads(extension().with_summary("00_start_here", json.dumps({"cells": cells})))
    text = document["cells"][0]["source"]
    seconds = json.loads((ROOT / "book" / "chapter_times.json").read_text())["00_start_here"]["quick"][
        "processor_seconds"
    ]
    assert f"**It takes** {seconds:.0f} s on one CPU core." in text and "_static/cards/00.png" in text
    assert text.startswith("# T\n") and text.endswith("More.")
    with pytest.raises(Exception, match=r"does not begin with \*\*The question"):
        extension().with_summary("00_start_here", json.dumps({"cells": [{"cell_type": "markdown", "source": "# T"}]}))


def test_what_checks_is_folded_and_named() -> None:
    statement = ":::{exercise} T\n:label: ex-00-kl\n"
    cells = [
        {"id": "exercise-00-kl-text", "cell_type": "markdown", "metadata": {}, "source": statement},
        {"id": "exercise-00-kl", "cell_type": "code", "metadata": {}, "source": "check()"},
        {"id": "a-check", "cell_type": "code", "metadata": {"tags": ["hide-cell"]}, "source": ["claims.check()"]},
        {"id": "a-claim", "cell_type": "code", "metadata": {"tags": ["hide-input"]}, "source": ["claims = 1\n", "claims"]},
        {"id": "a", "cell_type": "code", "metadata": {}, "source": "1 + 1"},
    ]
    exercise, answer, check, claim, other = json.loads(extension().folded(json.dumps({"cells": cells})))["cells"]
    assert exercise["source"] == f"{statement}:class: dropdown\n"
    assert answer["metadata"]["tags"] == ["hide-cell"]
    assert check["metadata"]["mystnb"]["code_prompt_show"] == "Show the check" and other == cells[4]
    # The page's style puts these two side by side.
    assert check["metadata"]["tags"] == ["hide-cell", "check"] and claim["metadata"]["tags"] == ["hide-input", "claims"]


CHAPTERS = [name for name in PAGES if name.startswith("notebooks/")]


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("name", CHAPTERS or ["notebooks"])
def test_a_chapter_is_short_until_it_is_unfolded(html: Path, page: Page, name: str) -> None:
    page.goto((html / name).as_uri(), wait_until="load")
    box = page.locator(".summary").bounding_box()
    assert box is not None and box["y"] + box["height"] <= 900, (
        "question, picture, answer and time fill more than a screen"
    )
    assert page.locator(".summary img").evaluate("picture => picture.naturalWidth > 0 && picture.alt.length > 5")
    height = "() => Math.round(document.querySelector('article').getBoundingClientRect().height)"
    page.wait_for_timeout(1500)  # formulas and widgets take their place
    folded = page.evaluate(height)
    page.evaluate(
        """() => { document.querySelectorAll('article details').forEach(each => { each.open = true; });
        document.querySelectorAll('article .toggle-hidden').forEach(each => each.classList.remove('toggle-hidden'));
        const style = document.createElement('style');
        style.textContent = 'article .cell_output * { max-height: none !important; }';
        document.head.append(style); }"""
    )
    page.wait_for_timeout(500)
    unfolded = page.evaluate(height)
    print(f"{name}: {folded} px, unfolded {unfolded} px ({folded / unfolded:.0%})")
    # Prose, pictures and the code that teaches are what is left.
    assert folded <= 0.66 * unfolded


@pytest.mark.book
@pytest.mark.browser
def test_an_exercise_is_a_line_that_brings_its_hint_solution_and_cell(html: Path, page: Page) -> None:
    page.goto((html / "notebooks" / "02_latent_space.html").as_uri(), wait_until="load")
    exercise = page.locator("#ex-02-kl")
    rest = [page.locator(f"#ex-02-kl {path}") for path in ("+ .tip", "+ .tip + .solution", "+ .tip + .solution + .cell")]
    title = exercise.locator(".admonition-title").first
    title.wait_for(state="visible")
    assert not any(each.is_visible() for each in rest)
    title.click()
    for each in rest:
        each.wait_for(state="visible")
    title.click()
    rest[0].wait_for(state="hidden")
    page.emulate_media(media="print")
    assert all(each.is_visible() for each in rest), "paper cannot be unfolded"


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("name", CHAPTERS or ["notebooks"])
def test_what_unfolds_a_cell_stands_beside_it_and_hides_nothing(html: Path, page: Page, name: str) -> None:
    page.goto((html / name).as_uri(), wait_until="load")
    page.wait_for_timeout(1500)
    hidden = page.evaluate(
        """() => [...document.querySelectorAll("article details.hide:not([open]) > summary")].flatMap(summary => {
        const shown = [...summary.children].filter(each => each.getClientRects().length);
        if (!shown.length) return [];  // of an exercise that is closed
        const a = shown[0].getBoundingClientRect(), cell = summary.closest("div.cell");
        return [cell.previousElementSibling, cell, cell.nextElementSibling]
            .flatMap(each => [...each?.querySelectorAll("img, td, th, pre, p:not(.admonition-title)") ?? []])
            .filter(each => each.checkVisibility() && !each.closest("details:not([open])"))
            .map(each => [each, each.getBoundingClientRect(), (each.closest("table") ?? each).getBoundingClientRect()])
            .filter(([, , box]) => a.top < box.bottom - 1)  // a table scrolls in itself
            .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
            .map(([each]) => `${summary.innerText} on ${each.outerHTML.slice(0, 80)}`); })"""
    )
    assert hidden == []
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("article details:not([open])").count() == 0
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("article details[open]").count() == 0


@pytest.mark.book
def test_every_picture_of_a_page_has_words(html: Path) -> None:
    for name in READ:
        article = re.search(r"<article.*</article>", (html / name).read_text(encoding="utf-8"), re.DOTALL)
        pictures = re.findall(r"<img[^>]*>", article[0] if article else "")
        for tag in (each for each in pictures if 'class="toggler"' not in each):  # of Sphinx's own index of modules
            alt = re.search(r'alt="([^"]*)"', tag)
            assert alt and len(alt[1]) > 3 and not alt[1].endswith((".png", ".svg")), f"{name}: {tag[:200]}"


@pytest.mark.book
def test_no_field_is_an_alias_for_a_number(html: Path) -> None:
    assert [path.name for path in html.rglob("*.html") if "Alias for field number" in path.read_text("utf-8")] == []


@pytest.mark.book
@pytest.mark.browser
def test_search_finds_replay(html: Path, page: Page, site: str) -> None:
    page.goto(f"{site}/search.html?q=replay")
    page.get_by_text("Search finished").wait_for(timeout=20_000)
    found = page.locator("#search-results li a").all_inner_texts()
    assert any("Glossary" in title for title in found), found
    summaries = page.locator("#search-results p.context")
    summaries.first.wait_for(timeout=10_000)
    assert min(len(text) for text in summaries.all_inner_texts()) > 50, "a summary without the words of its page"
    shoot(page, "search-replay")


@pytest.mark.book
@pytest.mark.browser
def test_explorer_shows_another_picture(html: Path, page: Page, site: str) -> None:
    """Without a kernel: the slider is linked to the stack of pictures inside the page."""
    page.goto(f"{site}/{EXPLORER}", wait_until="networkidle")
    pictures = page.locator(".jupyter-widgets img:visible")
    pictures.first.wait_for(timeout=20_000)
    before = pictures.evaluate_all("images => images.map(image => image.src)")
    handle = page.locator(".jupyter-widgets .noUi-handle").first
    handle.focus()
    handle.press("ArrowRight")
    page.wait_for_function(
        """before => { const now = [...document.querySelectorAll('.jupyter-widgets img')].filter(i => i.offsetParent);
        return now.length && now.every(i => i.naturalWidth) && now.map(i => i.src).join() !== before.join(); }""",
        arg=before,
        timeout=10_000,
    )
    shoot(page, "explorer-moved")


def script_of(path: Path) -> Any:
    """A script of the book as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


LIVE = sorted(path.stem for path in (ROOT / "book" / "_live").glob("*.md"))


def live_page(html: Path, chapter: str) -> str:
    """The address of a chapter in the file system: a live model needs no server."""
    return next((html / "notebooks").glob(f"{chapter}_*.html")).as_uri()


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("chapter", LIVE)
def test_a_live_model_answers_as_pytorch_does(html: Path, page: Page, chapter: str) -> None:
    live = script_of(ROOT / "book" / "live.py")
    model, nets = live.LIVE[chapter], live.load(chapter)
    x = model.inputs(torch.Generator().manual_seed(0))
    page.goto(live_page(html, chapter), wait_until="load")
    page.wait_for_selector(".live-ui")
    found = page.evaluate("([chapter, x]) => x.map((row) => clteachLive.answer(chapter, row))", [chapter, x.tolist()])
    expected = model.answer(nets, x)
    assert len(x) == 50
    torch.testing.assert_close(torch.tensor(found), expected.float(), rtol=0, atol=1e-4)
    assert float(expected.std()) > 0.01  # answers that differ

    loaded = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    times = page.evaluate("clteachLive.times")
    print(f"{chapter}: first answer {times['ready'] - loaded:+.0f} ms after load, a change {times['change']:.0f} ms")
    # The aims are 1 s and 30 ms on an idle machine; these bounds also hold on one that is busy.
    assert times["ready"] - loaded < 3000 and times["change"] < 600
    assert page.evaluate("document.scrollingElement.scrollWidth") <= DESKTOP


@pytest.mark.book
@pytest.mark.parametrize("chapter", LIVE)
def test_a_live_model_is_light(html: Path, chapter: str) -> None:
    files = [html / "_static" / "live.js", html / "_static" / "live" / f"{chapter}.js"]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 1_500_000


@pytest.mark.book
@pytest.mark.browser
@pytest.mark.parametrize("chapter", LIVE)
def test_without_scripts_a_picture_stands_there(html: Path, browser: Browser, chapter: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(live_page(html, chapter))
    picture = page.locator(".live > img")
    box = picture.bounding_box()
    assert box is not None and box["width"] > 300 and box["height"] > 100
    assert len(picture.get_attribute("alt") or "") > 80
    context.close()


@pytest.mark.book
@pytest.mark.browser
def test_the_reader_watches_a_digit_being_forgotten(html: Path, page: Page) -> None:
    page.goto(live_page(html, "00"), wait_until="load")
    said, time = page.locator(".live-said"), page.locator(".live input[type=range]")
    page.get_by_role("button", name="Take a test image of a 0").click()
    assert "After task 1: fine-tuning calls it 0" in said.inner_text()
    time.focus()
    for _ in range(4):
        time.press("ArrowRight")
    assert re.search(r"After task 5: fine-tuning calls it [89] .*joint training calls it 0 ", said.inner_text())

    # drawn with the mouse: a circle
    page.get_by_role("button", name="Clear the field").click()
    field = page.locator(".live-pad")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box is not None
    for step in range(33):
        angle = 2 * math.pi * step / 32
        page.mouse.move(
            box["x"] + box["width"] * (0.5 + 0.2 * math.cos(angle)),
            box["y"] + box["height"] * (0.5 + 0.3 * math.sin(angle)),
        )
        if step == 0:
            page.mouse.down()
    page.mouse.up()
    assert "joint training calls it 0 " in said.inner_text()

    # with the keyboard: a line from top to bottom
    page.get_by_role("button", name="Clear the field").click()
    assert said.inner_text().startswith("Draw a digit")
    field.focus()
    field.press(" ")
    for _ in range(9):
        field.press("ArrowDown")
    field.press(" ")
    assert "joint training calls it 1 " in said.inner_text()
    field.press("Delete")
    assert said.inner_text().startswith("Draw a digit")


@pytest.mark.book
@pytest.mark.browser
def test_a_point_of_the_plane_is_moved(html: Path, page: Page) -> None:
    page.goto(live_page(html, "02"), wait_until="load")
    said, plane = page.locator(".live-said"), page.locator(".live-plane")
    plane.scroll_into_view_if_needed()
    before = page.locator(".live-pair canvas").first.evaluate("canvas => canvas.toDataURL()")
    plane.click(position={"x": 10, "y": 160})
    assert re.match(r"At z = \(-2\.8\d, [-\d.]+\)", said.inner_text())
    assert page.locator(".live-pair canvas").first.evaluate("canvas => canvas.toDataURL()") != before
    slider = page.get_by_label("z₁")
    slider.focus()
    slider.press("ArrowRight")
    assert re.match(r"At z = \(-2\.[78]", said.inner_text())


class References(HTMLParser):
    """What a page loads by itself: scripts, styles, fonts, pictures, frames; not the links a reader follows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        loads = tag != "link" or values.get("rel") not in {
            "canonical",
            "next",
            "prev",
            "search",
            "index",
            "author",
            "license",
        }
        if loads:
            self.found += [values.get("src") or "", values.get("srcset") or ""]
            self.found += [values.get("href") or ""] if tag == "link" else []


@pytest.mark.book
def test_pages_load_nothing_from_elsewhere(html: Path) -> None:
    outside: list[str] = []
    for name in PAGES:
        references = References()
        references.feed((html / name).read_text(encoding="utf-8"))
        outside += [f"{name}: {url}" for url in references.found if re.match(r"(https?:)?//", url)]
    for path in html.rglob("*.css"):
        loaded = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\") ]+)", path.read_text(encoding="utf-8"))
        outside += [f"{path.relative_to(html)}: {url}" for url in loaded]
    assert outside == []


def extension() -> Any:
    return script_of(ROOT / "book" / "_ext" / "clteach_book.py")


def on_its_page(data: dict[str, str]) -> dict[str, str]:
    """An output of a chapter, as the book reads it."""
    cells = [
        {"id": "title", "cell_type": "markdown", "metadata": {}, "source": QUESTION},
        {"id": "shown", "cell_type": "code", "metadata": {}, "source": "it", "outputs": [{"data": data}]},
    ]
    source = [json.dumps({"cells": cells})]
    extension().fill_in(None, "notebooks/08_comparison", source)
    shown: dict[str, str] = json.loads(source[0])["cells"][1]["outputs"][0]["data"]
    return shown


def test_links_of_a_notebook_s_output_lead_to_pages() -> None:
    er = '<a href="../book/api/methods.er.md#clteach.methods.er.ER">ER</a>'
    html = f'<a href="04_generative_replay.ipynb">4</a> {er} er.md'
    pages = html.replace("replay.ipynb", "replay.html").replace("er.md#", "er.html#")
    assert on_its_page({"text/html": html}) == {"text/html": pages}


def test_shown_code_leads_to_the_api_page() -> None:
    shown = on_its_page({"text/markdown": "*`clteach.models.vae.VAE.encode`*\n\n```python\n*`x`*"})["text/markdown"]
    assert shown.startswith('<a href="../book/api/models.vae.html#clteach.models.vae.VAE.encode">')
    assert shown.count("<a ") == 1


def test_methods_lead_to_their_chapters() -> None:
    book = extension()
    chapter = "{doc}`05 Brain-inspired replay <../../notebooks/05_brain_inspired_replay>`"
    assert book.chapters_of("clteach.methods.brain_inspired_replay") == f"Taken apart in chapter {chapter}.\n"
    assert chapter in book.chapters_of("clteach.models.context_vae")  # which imports from it
    assert chapter not in book.chapters_of("clteach.learners.gan")


def test_every_module_has_a_page_and_a_sentence(tmp_path: Path) -> None:
    book = extension()
    written = {path.stem: path.read_text(encoding="utf-8") for path in book.write_api_pages(tmp_path / "api")}
    assert {"methods", "methods.ewc", "data.tasks", "training.loop", "storage", "exercises"} <= set(written)
    assert not {"data", "plots", "results", "__main__"} & set(written)  # faces hand on what has a page of its own
    assert not [name for name in written if "chapters." in name]  # the solutions
    index = book.api_index()
    for name in written:
        # Its heading says the room; a long name may be broken, but not within a word.
        room, _, rest = name.partition(".")
        shown = (rest or room).replace("_", "_\u200b").replace(".", ".\u200b")
        assert f"{{doc}}`{shown} <api/{name}>`" in index
        assert re.fullmatch(r"[A-Z`*].{15,160}[.:?]", book.sentence(f"clteach.{name}")), book.sentence(
            f"clteach.{name}"
        )
    assert sorted(book.FLOORS) == sorted({name.partition(".")[0] for name in written if "." in name} | {""})


def test_a_line_of_the_page_is_broken_where_it_may_be() -> None:
    body = (
        '<td><p>93.3 ± 0.4</p></td><td><p>not known here</p></td> <code><span class="pre">--ewc.lam</span></code>'
        '<div class="highlight"><pre><span></span><b>if</b> x:\n    <b>y</b>\n\nz\n</pre></div>'
    )
    context = {"body": body}
    extension().keep_together(None, "p", "t", context, None)
    assert "93.3\u00a0±\u00a00.4" in context["body"] and "not\u00a0known\u00a0here" in context["body"]
    assert '<span class="pre option">--ewc.lam</span>' in context["body"]
    lines = re.findall(r'<span class="code-line" style="--indent:(\d+)">(.*?)\n</span>', context["body"])
    assert [int(indent) for indent, _ in lines] == [0, 4, 0, 0]
    code = re.sub(r"<[^>]+>", "", re.search(r"<pre>(.*)</pre>", context["body"], re.DOTALL)[1])  # type: ignore[index]
    assert code == "if x:\n    y\n\nz\n", "what is copied is what was written"
    assert extension().table(("a", "b|c")).split("\n")[0] == r"| a | b\|c |"


@pytest.mark.book
def test_tables_that_cells_display_are_tables(html: Path) -> None:
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (html / "notebooks").glob("*.html")}
    assert "<td" in pages["08_comparison"]
    assert not [name for name, text in pages.items() if re.search(r"<p>\| ", text)]


@pytest.mark.book
def test_links_to_the_api_page_arrive(html: Path) -> None:
    there = {
        (page.stem, name)
        for page in (html / "book" / "api").glob("*.html")
        for name in re.findall(r'id="(clteach[\w.]+)"', page.read_text(encoding="utf-8"))
    }
    links = {
        link
        for page in (html / "notebooks").glob("*.html")
        for link in re.findall(r'href="\.\./book/api/([\w.]+)\.html#([\w.]+)"', page.read_text(encoding="utf-8"))
    }
    assert len(links) > 30
    assert not sorted(links - there)


def markdown_to_rest(docstring: str) -> str:
    lines = docstring.split("\n")
    extension().from_markdown(None, "function", "name", None, None, lines)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("markdown", "rest"),
    [
        ("x of shape (B, *shape)", r"x of shape (B, \*shape)"),
        ("it stands *inside* the **sum**", "it stands *inside* the **sum**"),
        ("with $a_i * b_i$ and p(x|z)", r"with :math:`a_i * b_i` and p(x\|z)"),
        ("see `net.py` and ``a*b``, a_b, c_", r"see ``net.py`` and ``a*b``, a_b, c\_"),
        ("* one\n* two", "* one\n* two"),
        ("so:\n\n$$a_i\n  + *b*$$\n\nThen", "so:\n\n\n.. math:: a_i + *b*\n\n\n\nThen"),
        ("    $$a$$ is", "\n    .. math:: a\n\n     is"),
        ("so::\n\n    a * b_\n\nthen (B, *c)", "so::\n\n    a * b_\n\nthen (B, \\*c)"),
    ],
)
def test_docstrings_in_markdown(markdown: str, rest: str) -> None:
    assert markdown_to_rest(markdown) == rest


@pytest.mark.parametrize(
    ("what", "docstring"),
    [
        ("attribute", "share of the units that is off, in [0, 1) (0: fine-tuning)"),
        ("property", "All of it: what a checkpoint holds."),
        ("function", "The score.\n\nReturns:\n    A value in [-1, 1]: negative means forgetting."),
    ],
)
def test_what_stands_before_a_colon_is_no_type(what: str, docstring: str) -> None:
    from sphinx.ext.napoleon import Config, GoogleDocstring

    lines = docstring.split("\n")
    extension().from_markdown(None, what, "name", None, None, lines)
    shown = str(GoogleDocstring(lines, Config(), what=what, name="name", obj=None))
    assert "type:" not in shown
    assert docstring.split("\n")[-1].strip() in shown.replace("\\\n", "\n")


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.name)
def test_solutions_are_put_under_the_exercises(path: Path) -> None:
    """A chapter's page gets hint and solution of every exercise, from the package, and stays valid JSON."""
    source = [path.read_text(encoding="utf-8")]
    before = source[0].count("<!-- solution")
    extension().fill_in(None, f"notebooks/{path.stem}", source)
    text = "\n".join("".join(cell["source"]) for cell in json.loads(source[0])["cells"])
    own = [each for each in exercises().values() if each.chapter == path.name[:2]]
    assert before == len(own) == text.count(":::{solution}") and "<!-- solution" not in text
    for each in own:
        assert f":::{{exercise}} {each.title}" in text and each.statement in text
        assert each.solved.rstrip() in text and each.hint in text


def test_the_guide_shows_what_was_measured_and_every_exercise() -> None:
    source = [(ROOT / "book" / "instructors.md").read_text(encoding="utf-8")]
    extension().fill_in(None, "book/instructors", source)
    assert "{{" not in source[0]
    for each in exercises().values():
        assert f"| {each.id} | {each.title} |" in source[0]
    times = json.loads((ROOT / "book" / "chapter_times.json").read_text(encoding="utf-8"))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        quick = times.get(path.stem, {}).get("quick")
        shown = f"{quick['processor_seconds']:.0f} s" if quick else "not measured yet"
        assert f"../notebooks/{path.stem}>` | {shown} |" in source[0]


@pytest.mark.book
def test_solutions_are_on_the_page_but_not_in_the_api(html: Path) -> None:
    for each in exercises().values():
        page = next((html / "notebooks").glob(f"{each.chapter}_*.html"), None)
        if page is not None:
            assert f'id="{course.label(each)}"' in page.read_text(encoding="utf-8")
            assert "Solution to" in page.read_text(encoding="utf-8")
    assert not list((html / "book" / "api").glob("exercises.chapters.ch*"))
