"""Sphinx extension of the book: the public address, the sections of the API page, docstrings written in Markdown, the models
that run in the pages, the landing page and link previews."""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import importlib
import importlib.util
import json
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

import clteach
from clteach import results
from clteach.exercises import course
from clteach.exercises.chapters import chapters, exercises
from clteach.methods import METHODS
from clteach.plots import label
from clteach.results.cards import CHAPTERS

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
BIBLIOGRAPHY = Path(__file__).parents[1] / "references.bib"
TIMES = Path(__file__).parents[1] / "chapter_times.json"
STATIC = Path(__file__).parents[1] / "_static"
# What a chapter's page says about its live model, and what book/live.py said about the picture.
LIVE = Path(__file__).parents[1] / "_live"
MADE = Path(__file__).parents[1] / "_build" / "live"

DISPLAY_MATH = re.compile(r"^([ ]*)\$\$(.+?)\$\$", re.MULTILINE | re.DOTALL)
# What follows a line that ends with two colons, as far as it is indented, is code.
CODE_BLOCK = re.compile(r"(?<=::\n)(?:\n|[ ]+\S[^\n]*(?:\n|$))+")
# What a docstring may hold between plain words: $math$, ``code``, `code`, :role:`target`, **bold**, *emphasis*, bullet.
INLINE = re.compile(
    r"""\$(?P<math>[^$]+)\$ | (?P<literal>``.+?``|:[\w:]+:`[^`]+`) | `(?P<code>[^`]+)`
    | (?P<styled>\*\*\w[^*]*\*\*|(?<![\w*])\*\w[^*\n]*(?<=[\w.!?])\*(?!\w)|^\s*\*\s) | (?P<plain>[*|]|_(?!\w))""",
    re.VERBOSE | re.MULTILINE,
)


# A notebook names the exercise whose hint and solution belong there; they are not in it, where every reader would see them.
SOLUTION = re.compile(r"<!-- solution ([\w.]+) -->")

# A link in a notebook's output leads to another file of the repository; in the book it leads to that file's page.
LINK = re.compile(r'(href=\\"[\w./-]+)\.(?:ipynb|md)(?=[#\\])')

# What `show_source` writes above the code; in the book it leads to the API page, from a private method to its class.
SHOWN = re.compile(r"\*`((clteach(?:\.[A-Za-z]\w*)+)(?:\._\w+)?)`\*(?=\\n)")


def repository() -> str:
    """The public address of the project, from the one place where it stands."""
    return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["urls"]["Repository"])


def pages_address() -> str:
    """Where .github/workflows/book.yml publishes the book, with a slash at its end."""
    owner, name = repository().rstrip("/").split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def modules() -> Iterator[str]:
    """Every public module of clteach that defines something, so that a new method's page appears by itself."""
    for info in pkgutil.walk_packages(clteach.__path__, "clteach."):
        # The exercises themselves are on the chapters' pages, and their sources hold the solutions. Faces only hand on what
        # has a page of its own.
        if re.search(r"\._|\.__main__$|\.exercises\.chapters\.", info.name) or is_face(info):
            continue
        yield info.name


def is_face(info: pkgutil.ModuleInfo) -> bool:
    """Does a package define nothing itself?"""
    return info.ispkg and not [*definitions(info.name)]


def definitions(module: str) -> Iterator[str]:
    """The public functions and classes of a module, in the order of its source."""
    for node in ast.parse(source_of(module)).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node.name


@cache
def source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def sentence(module: str) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(source_of(module))) or ""
    return " ".join(re.split(r"(?<=[.?!])(?<!et al[.])\s|\n\n", text)[0].split())


def page_of(name: str) -> str:
    """The file of the module that a dotted name belongs to: "clteach.models.vae.VAE.encode" -> "models.vae"."""
    known, parts = set(modules()), name.split(".")
    for length in range(len(parts), 1, -1):
        if (module := ".".join(parts[:length])) in known:
            return module.removeprefix("clteach.")
    return "index"


def api_index() -> str:
    """The tree of the package: a table for each room, every module with its first sentence."""
    rooms: dict[str, list[str]] = {}
    for name in modules():
        room, _, _ = name.removeprefix("clteach.").partition(".")
        ispkg = hasattr(importlib.import_module(f"clteach.{room}"), "__path__")
        rooms.setdefault(room if ispkg else "", []).append(name)
    parts = []
    for room in sorted(rooms, key=lambda room: FLOORS.index(room)):
        head = f"## {room or 'The ground'}\n\n{sentence(f'clteach.{room}') if room else 'What everyone uses.'}\n"
        # The heading says the room, so a row says the rest.
        names = {each: breakable(each[8:].removeprefix(f"{room}.")) for each in rooms[room]}
        rows = [(f"{{doc}}`{name} <api/{each[8:]}>`", sentence(each)) for each, name in names.items()]
        parts.append(f"{head}\n{table(('module', 'what is in it'), *rows)}\n")
    return "\n".join(parts)


def breakable(name: str) -> str:
    """A dotted name that may be broken behind its dots and underscores, and nowhere else."""
    return re.sub(r"(?<=[._])", "\u200b", name)


FLOORS = [*"cli results experiments training methods learners notebook exercises plots metrics data models".split(), ""]
"""The rooms from the roof to the ground; who stands higher may import who stands lower."""


def write_api_pages(folder: Path) -> list[Path]:
    """A page for every module, written anew before the book is built (it reads their names before it starts)."""
    folder.mkdir(exist_ok=True)
    pages = {
        folder / f"{name.removeprefix('clteach.')}.md": (
            f"# {name.removeprefix('clteach.')}\n\n{chapters_of(name)}\n"
            f"```{{eval-rst}}\n.. automodule:: {name}\n   :members:\n   :show-inheritance:\n```\n"
        )
        for name in modules()
    }
    for old in set(folder.glob("*.md")) - set(pages):
        old.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # what is as before need not be built again
            path.write_text(text, encoding="utf-8")
    return [*pages]


def chapters_of(module: str) -> str:
    """The line that leads to the chapters: the one that takes a method apart, or those that import from the module."""
    package, _, name = module.rpartition(".")
    if package == "clteach.methods":
        return f"Taken apart in chapter {chapter_link(CHAPTERS.get(name, '01_forgetting'))}.\n"
    used = [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb")) if module in imported(path)]
    return (
        f"Used in {'chapter' if len(used) == 1 else 'chapters'} {', '.join(map(chapter_link, used))}.\n" if used else ""
    )


def chapter_link(stem: str) -> str:
    return f"{{doc}}`{stem[:2]} {chapters()[stem[:2]]} <../../notebooks/{stem}>`"


@cache
def imported(notebook: Path) -> frozenset[str]:
    """The modules whose names a notebook imports, also through a face."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    found = set()
    for cell in cells:
        for line in "".join(cell["source"]).split("\n") if cell["cell_type"] == "code" else []:
            if match := re.match(r"from (clteach[\w.]*) import (.+)", line):
                for name in re.findall(r"\w+", match[2]):
                    place = getattr(importlib.import_module(match[1]), name, None)
                    found |= {match[1], f"{match[1]}.{name}", str(getattr(place, "__module__", ""))}
    return frozenset(found)


def table(*rows: tuple[object, ...]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(str(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def times_of(stem: str) -> dict[str, Any]:
    """What `make times` measured of a chapter, by size."""
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else {}
    measured: dict[str, Any] = times.get(stem, {})
    return measured


def chapter_times() -> dict[str, str]:
    """What `make times` measured, as the instructor's guide shows it."""
    rows, processors, full = [], set(), []
    for name in sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
        title = f"{{doc}}`{name[:2]} {chapters().get(name[:2], name)} <../notebooks/{name}>`"
        measured = times_of(name)
        shown = "not measured yet"
        if quick := measured.get("quick"):
            shown = f"{quick['processor_seconds']:.0f} s"
            processors.add(quick["device"]["cpu"])
        rows.append((title, shown))
        if long := measured.get("full"):
            where = long["device"]["gpu"] or long["device"]["cpu"]
            full.append(f"{title}: {long['wall_seconds'] / 60:.0f} minutes on {where}")
    return {
        "{{ chapter_times }}": table(("chapter", "processor time"), *rows),
        "{{ times_machine }}": ", ".join(sorted(processors)) or "no machine yet",
        "{{ full_times }}": f"Measured: {'; '.join(full)}." if full else "It has not been measured yet.",
    }


def exercise_table() -> str:
    rows = [
        (each.id, each.title, course.LEVELS[each.level].replace("-", "&#8209;"), each.level)
        for each in exercises().values()
    ]
    return table(("exercise", "title", "level", "points"), *rows)


def with_live_model(stem: str, notebook: str) -> str:
    """Put the model that runs in the page into a chapter, before it explores; a notebook itself cannot show one."""
    text = LIVE / f"{stem[:2]}.md"
    if not text.is_file():
        return notebook
    document = json.loads(notebook)
    # Each cell's first line: a heading, where it begins a section.
    heads = ["".join(cell["source"]).partition("\n")[0] for cell in document["cells"]]
    place = next(
        i for wanted in ("## Explor", "## Exercises") for i, head in enumerate(heads) if head.startswith(wanted)
    )
    markdown = text.read_text(encoding="utf-8").replace("{{ live }}", live_block(stem[:2]))
    cell = {"cell_type": "markdown", "id": f"live-{stem[:2]}", "metadata": {}, "source": markdown}
    document["cells"].insert(place, cell)
    return json.dumps(document)


def with_summary(stem: str, notebook: str) -> str:
    """Make the first screen of a chapter: its question, its picture, the answer, and how long it takes.

    Question and answer are in the notebook, two paragraphs under the title; picture and time come from what was computed.

    Raises:
        ExtensionError: the notebook says neither.
    """
    document = json.loads(notebook)
    first = document["cells"][0]
    found = SUMMARY.search("".join(first["source"]))
    if found is None:
        raise ExtensionError(f"{stem} does not begin with **The question.** and **The answer.**, a paragraph each.")
    measured = times_of(stem).get("quick")
    takes = f"{measured['processor_seconds']:.0f} s on one CPU core" if measured else "a time not measured yet"
    _, alt = picture_of(NOTEBOOKS / f"{stem}.ipynb")
    picture = f'<img src="../_static/cards/{stem[:2]}.png" alt="{html.escape(alt)}">'
    block = f"\n::::{{div}} summary\n```{{raw}} html\n{picture}\n```\n{found[0]}\n\n**It takes** {takes}.\n::::\n"
    first["source"] = SUMMARY.sub(lambda _: block, "".join(first["source"]), count=1)
    return json.dumps(document)


def folded(notebook: str) -> str:
    """Fold what only checks: the cells of the exercises, each behind its title; say of a check that it is one."""
    document = json.loads(notebook)
    for cell in document["cells"]:
        exercise, code = cell["id"].startswith("exercise-"), cell["cell_type"] == "code"
        if exercise and code:
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", ()), "hide-cell"]
            what = "the imports" if re.fullmatch(r"exercise-\d\d", cell["id"]) else "the cell"
            cell["metadata"]["mystnb"] = {"code_prompt_show": f"Show {what}", "code_prompt_hide": f"Hide {what}"}
        elif exercise:
            cell["source"] = re.sub(r"^(:label: ex-.+)$", r"\1\n:class: dropdown", "".join(cell["source"]), flags=re.M)
        elif code and "".join(cell["source"]).endswith("\nclaims"):
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", ()), "claims"]
        elif code and "".join(cell["source"]) == "claims.check()":
            cell["metadata"]["tags"] = [*cell["metadata"].get("tags", ()), "check"]
            cell["metadata"]["mystnb"] = {"code_prompt_show": "Show the check", "code_prompt_hide": "Hide the check"}
    return json.dumps(document)


SUMMARY = re.compile(r"^\*\*The question\.\*\* .+\n\n\*\*The answer\.\*\* .+$", re.MULTILINE)


def pictures_in(notebook: str) -> Iterator[tuple[str, bytes, str | None]]:
    """Name of its file without the ending, PNG, and what it says of itself, of every picture among a notebook's outputs."""
    for cell in json.loads(notebook)["cells"]:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output["data"]["image/png"])
                yield hashlib.sha256(png).hexdigest(), png, output["metadata"].get("image/png", {}).get("alt")


def alts_of(notebook: str) -> dict[str, str]:
    """{name of a picture as in `pictures_in`: what it says of itself}."""
    return {name: alt for name, _, alt in pictures_in(notebook) if alt is not None}


def wide_of(notebook: str) -> set[str]:
    """Names of the pictures of many panels, far wider than high; rows of small images need no room."""
    return {
        name
        for name, png, alt in pictures_in(notebook)
        # PNG: width and height are the bytes 16 to 23
        if int.from_bytes(png[16:20]) > 2.4 * int.from_bytes(png[20:24]) and "rows of pictures" not in (alt or "")
    }


ALTS: dict[str, str] = {}
WIDE: set[str] = set()


def name_pictures(app: Sphinx, doctree: Any) -> None:
    """Give every picture among a notebook's outputs the text for readers who do not see it."""
    for image in doctree.findall(lambda node: node.tagname == "image"):
        image["alt"] = ALTS.get(Path(image["uri"]).stem, image.get("alt", ""))
        if Path(image["uri"]).stem in WIDE:  # which a phone shows scrolled rather than unreadably small
            image["classes"].append("wide")


def live_block(chapter: str) -> str:
    """The place of a live model: its still picture, which the script replaces. All of it works from the file system."""
    made = MADE / f"{chapter}.json"
    alt = json.loads(made.read_text(encoding="utf-8"))["alt"] if made.is_file() else ""
    static = "../_static"
    return (
        f'```{{raw}} html\n<figure class="live" data-live="{chapter}">\n'
        f'<img src="{static}/live/{chapter}.png" alt="{html.escape(alt)}">\n'
        "<figcaption>With scripts switched on, this picture becomes a model to play with.</figcaption>\n</figure>\n"
        f'<script defer src="{static}/live.js"></script>\n<script defer src="{static}/live/{chapter}.js"></script>\n```'
    )


def check_live_models(app: Sphinx) -> None:
    """Raise ExtensionError where a model that a page shows was not made."""
    missing = [path.stem for path in LIVE.glob("*.md") if not (STATIC / "live" / f"{path.stem}.js").is_file()]
    if missing:
        raise ExtensionError(
            f"the live models {', '.join(sorted(missing))} are not there: run python book/live.py first."
        )


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the names that a page may use, such as ``{{ api }}``, and put solutions under a chapter's exercises."""
    if docname.startswith("notebooks/"):  # the source is JSON
        ALTS.update(alts_of(source[0]))
        WIDE.update(wide_of(source[0]))
        source[0] = folded(source[0])
        source[0] = with_summary(docname.partition("/")[2], source[0])
        source[0] = with_live_model(docname.partition("/")[2], source[0])
        source[0] = SOLUTION.sub(lambda match: json.dumps(course.solution(match[1]))[1:-1], source[0])
        source[0] = LINK.sub(r"\1.html", source[0])
        source[0] = SHOWN.sub(
            lambda m: f'<a href=\\"../book/api/{page_of(m[2])}.html#{m[2]}\\"><em><code>{m[1]}</code></em></a>',
            source[0],
        )
    if docname.startswith("book/"):
        source[0] = source[0].replace("{{ repository }}", repository())
        if docname == "book/instructors":
            for name, text in {**chapter_times(), "{{ exercise_table }}": exercise_table()}.items():
                source[0] = source[0].replace(name, text)
        if docname == "book/index":
            source[0] = source[0].replace("{{ method_map }}", method_map())
            for notebook in NOTEBOOKS.glob("*.ipynb"):
                alt = json.dumps(picture_of(notebook)[1], ensure_ascii=False)
                source[0] = source[0].replace(f"{{{{ picture {notebook.stem[:2]} }}}}", alt)
        if "{{ api }}" in source[0]:
            source[0] = source[0].replace("{{ api }}", api_index())


# ------------------------------------------------------------------------------------------ the landing page, previews

# Which of a chapter's pictures stands for it: that of the first cell that says this; elsewhere, its first one.
PICTURES = {"00": "accuracy_matrix(", "02": "latent_scatter(", "08": 'against(digits, "class")'}
OVERVIEW = "accuracy_matrices.png"  # for the pages that are no chapters


@cache
def picture_of(notebook: Path) -> tuple[bytes, str]:
    """The picture of a chapter, from its own outputs, as PNG, and what it shows in words.

    Raises:
        ExtensionError: it has none.
    """
    found = [
        (
            "".join(cell["source"]),
            base64.b64decode(output["data"]["image/png"]),
            output.get("metadata", {}).get("image/png", {}).get("alt", "A picture"),
        )
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    if not found:
        raise ExtensionError(f"{notebook.name} has no picture among its outputs: execute it (make notebooks).")
    wanted = PICTURES.get(notebook.stem[:2], "")
    return next(((png, alt) for source, png, alt in found if wanted in source), found[0][1:])


def write_pictures(app: Sphinx) -> None:
    """Write the pictures of the chapters, for the landing page and for link previews."""
    (STATIC / "cards").mkdir(exist_ok=True)
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        path, (png, _) = STATIC / "cards" / f"{notebook.stem[:2]}.png", picture_of(notebook)
        if not path.is_file() or path.read_bytes() != png:
            path.write_bytes(png)


HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")  # where the name of a class may be broken


def method_map() -> str:
    """The registered methods: paper, chapter, file, API entry and a recorded number of each, with links."""
    numbers = recorded_numbers()
    rows = []
    for name, cls in METHODS.items():
        module = cls.__module__
        if not module.startswith("clteach.methods."):
            continue
        file = module.replace(".", "/") + ".py"
        stem = CHAPTERS.get(module.rpartition(".")[2], "01_forgetting")
        key = paper_of(cls.summary)
        value, record = numbers.get(name, ("–", ""))
        rows.append(
            (
                label(name),
                f"{{cite}}`{key}`" if key else "–",
                f"{{doc}}`{stem[:2]} {chapters()[stem[:2]]} <../notebooks/{stem}>`",
                f"[{file.rpartition('/')[2]}]({repository()}/blob/main/{file})",
                f"{{py:class}}`{HUMP.sub(chr(0x200B), cls.__qualname__)} <{module}.{cls.__qualname__}>`",
                f"[{value}]({repository()}/blob/main/clteach/results/{record}.json)" if record else value,
            )
        )
    return table(("method", "paper", "chapter", "file", "API", "recorded"), *rows)


def recorded_numbers() -> dict[str, tuple[str, str]]:
    """{method: (its score in Class-IL on the small digits, or the FID of a generator, mean ± SEM; name of the record)}."""
    found: dict[str, tuple[str, str]] = {}
    for recipe in ("split-digits", "multiband-vae-split-digits", "diffusion-replay-split-digits"):
        record = results.of_recipe(recipe)
        lines = results.table(record).to_dict("records") if record else []
        for line in lines:
            name = next((n for n in METHODS if line["row"] in (n, label(n))), None)
            if record and name and (name not in found or line["scenario"] == "class"):
                unit = "FID" if METHODS[name].measure == "fid" else "%"
                known = {"task": " (Task-IL)", "domain": " (Domain-IL)"}.get(line["scenario"], "")
                found[name] = (f"{results.percent(line['mean'], line['sem'])} {unit}{known}", record)
    return found


def paper_of(summary: str) -> str | None:
    """The bibliography's key of the paper that a method's summary names: "... (van de Ven 2020)" -> vandeven2020bir."""
    named = re.search(r"\(([^()]+?) (\d{4})\)$", summary)
    if named is None:
        return None
    author = re.sub(r"\W", "", named[1].partition("&")[0]).lower()
    keys = re.findall(r"^@\w+\{(\w+),", BIBLIOGRAPHY.read_text(encoding="utf-8"), re.MULTILINE)
    # a paper may have been printed a year after it was published
    return next((key for year in (named[2], r"\d{4}") for key in keys if re.match(author + year, key)), None)


NUMBER = re.compile(r"(?<=\d) ± (?=\d)")
OPTION = re.compile(r'(?<=<span class="pre)(?=">-{1,2}\w[\w.-]{0,20}</span>)')
VERDICT = re.compile(r"(?<=<td><p>)not (published|known here)(?=</p>)")
CODE = re.compile(r'(?<=<div class="highlight"><pre>)(<span></span>.*?)\n(?=</pre>)', re.DOTALL)


def keep_together(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """A number and its error, or an option, stay on one line; a line of code that is broken goes on below its beginning."""
    if "body" in context:
        body = NUMBER.sub("\u00a0±\u00a0", context["body"])
        body = OPTION.sub(" option", body)
        body = VERDICT.sub(lambda match: match[0].replace(" ", "\u00a0"), body)
        context["body"] = CODE.sub(lambda match: "".join(map(code_line, match[1].split("\n"))), body)


def code_line(line: str) -> str:
    """One line of highlighted code, which knows how far it is indented."""
    text = TAG.sub("", line)
    return f'<span class="code-line" style="--indent:{len(text) - len(text.lstrip(" "))}">{line}\n</span>'


def link_preview(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Title, text and picture that a link to this page shows (Open Graph)."""
    text = TAG.sub("", context.get("body", ""))
    paragraphs = (" ".join(html.unescape(TAG.sub("", p)).split()) for p in PARAGRAPH.findall(context.get("body", "")))
    said = next((p for p in paragraphs if len(p) > 60), "") if text else ""
    about = said or str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["description"])
    if len(about) > 200:
        about = about[:199].rpartition(" ")[0] + " …"
    card = f"cards/{pagename.rpartition('/')[2][:2]}.png" if pagename.startswith("notebooks/") else OVERVIEW
    title = html.unescape(TAG.sub("", context.get("title", ""))) or app.config.project
    properties = {
        "og:type": "article",
        "og:site_name": app.config.project,
        "og:title": title,
        "og:description": about,
        "og:url": f"{app.config.html_baseurl}{pagename}.html",
        "og:image": f"{app.config.html_baseurl}_static/{card}",
        "og:image:alt": picture_of(NOTEBOOKS / f"{pagename.rpartition('/')[2]}.ipynb")[1]
        if pagename.startswith("notebooks/")
        else "Accuracy matrices of methods",
    }
    tags = [f'<meta property="{name}" content="{html.escape(value)}">' for name, value in properties.items()]
    tags.append(f'<meta name="description" content="{html.escape(about)}">')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


TAG, PARAGRAPH = re.compile(r"<[^>]+>"), re.compile(r"<p>(.*?)</p>", re.DOTALL)


def reread(app: Sphinx, env: Any, *_: object) -> list[str]:
    """What follows the package, not its own file, is read at every build: API, solutions, the table of exercises."""
    return [
        name
        for name in env.found_docs
        if name in ("book/index", "book/api", "book/instructors") or name.startswith(("notebooks/", "book/api/"))
    ]


def inline(match: re.Match[str]) -> str:
    """One piece of Markdown as reStructuredText; what means nothing in Markdown is escaped: the star of (B, *shape)."""
    if match["math"]:
        return f":math:`{match['math']}`"
    if match["code"]:
        return f"``{match['code']}``"
    return match["literal"] or match["styled"] or f"\\{match['plain']}"


def to_rest(markdown: str) -> str:
    """Markdown with TeX as reStructuredText."""
    pieces = DISPLAY_MATH.split(markdown)
    text = INLINE.sub(inline, pieces[0])
    for indent, tex, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"\n{indent}.. math:: {' '.join(tex.split())}\n\n{indent}{INLINE.sub(inline, rest)}"
    return text


def from_markdown(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are also read in an editor and in notebooks, so they are Markdown with TeX; autodoc wants reST."""
    if lines and lines[0].startswith("Alias for field number"):  # Python's own words for a field without any
        lines.clear()
    markdown, text, end = "\n".join(lines), "", 0
    for block in CODE_BLOCK.finditer(markdown):
        text += to_rest(markdown[end : block.start()]) + block[0]
        end = block.end()
    lines[:] = (text + to_rest(markdown[end:])).split("\n")
    # Napoleon takes what stands before a colon in the first line of these for a type. In this package it is a sentence, so
    # a line is put first that reST drops.
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\")
    for index in [index for index, line in enumerate(lines) if line.strip() == "Returns:"][::-1]:
        lines.insert(index + 1, lines[index].partition("Returns:")[0] + "    \\")


def skip_foreign(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out members that a base class of another library writes into ours."""
    return True if not (getattr(obj, "__module__", None) or "clteach").startswith("clteach") else None


def set_address(app: Sphinx, config: Any) -> None:
    config.html_theme_options |= {
        "repository_url": repository(),
        "repository_branch": "main",
        "use_repository_button": True,
    }
    config.html_baseurl = pages_address()
    config.html_context["default_mode"] = "light"  # pictures are drawn for it; a reader can choose the dark one


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_address)
    app.connect("builder-inited", check_live_models)
    app.connect("builder-inited", write_pictures)
    app.connect("env-get-outdated", reread)
    app.connect("source-read", fill_in)
    app.connect("doctree-read", name_pictures)
    app.connect("html-page-context", link_preview)
    app.connect("html-page-context", keep_together)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", from_markdown, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":  # before the book is built, which reads the names of its pages first
    print(f"book/api: {len(write_api_pages(Path(__file__).parents[1] / 'api'))} pages")
