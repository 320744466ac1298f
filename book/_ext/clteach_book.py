"""Sphinx extension of the book: the public address, the sections of the API page, docstrings written in Markdown."""

from __future__ import annotations

import pkgutil
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import clteach

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

DISPLAY_MATH = re.compile(r"^([ ]*)\$\$(.+?)\$\$", re.MULTILINE | re.DOTALL)
# What a docstring may hold between plain words: $math$, ``code``, `code`, :role:`target`, **bold**, *emphasis*, bullet.
INLINE = re.compile(
    r"""\$(?P<math>[^$]+)\$ | (?P<literal>``.+?``|:[\w:]+:`[^`]+`) | `(?P<code>[^`]+)`
    | (?P<styled>\*\*\w[^*]*\*\*|(?<![\w*])\*\w[^*\n]*(?<=[\w.!?])\*(?!\w)|^\s*\*\s) | (?P<plain>[*|]|_(?!\w))""",
    re.VERBOSE | re.MULTILINE,
)


def repository() -> str:
    """The public address of the project, from the one place where it stands."""
    return str(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["urls"]["Repository"])


def modules() -> Iterator[str]:
    """Every public module of clteach, so that a new method's section appears by itself."""
    for info in pkgutil.walk_packages(clteach.__path__, "clteach."):
        if not info.name.rpartition(".")[2].startswith("_"):
            yield info.name


def api_sections() -> str:
    section = "## {1}\n\n```{{eval-rst}}\n.. automodule:: {0}\n   :members:\n   :show-inheritance:\n```\n"
    return "\n".join(section.format(name, name.removeprefix("clteach.")) for name in modules())


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the two names that a page may use: ``{{ repository }}`` and ``{{ api }}``."""
    if docname.startswith("book/"):
        source[0] = source[0].replace("{{ repository }}", repository())
        if "{{ api }}" in source[0]:
            source[0] = source[0].replace("{{ api }}", api_sections())


def reread_api(app: Sphinx, *_: object) -> list[str]:
    """The API page follows the package, not its own file: it is read at every build."""
    return ["book/api"]


def inline(match: re.Match[str]) -> str:
    """One piece of Markdown as reStructuredText; what means nothing in Markdown is escaped: the star of (B, *shape)."""
    if match["math"]:
        return f":math:`{match['math']}`"
    if match["code"]:
        return f"``{match['code']}``"
    return match["literal"] or match["styled"] or f"\\{match['plain']}"


def from_markdown(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are also read in an editor and in notebooks, so they are Markdown with TeX; autodoc wants reST."""
    pieces = DISPLAY_MATH.split("\n".join(lines))
    text = INLINE.sub(inline, pieces[0])
    for indent, tex, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        text += f"\n{indent}.. math:: {' '.join(tex.split())}\n\n{indent}{INLINE.sub(inline, rest)}"
    lines[:] = text.split("\n")


def skip_foreign(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave out members that a base class of another library writes into ours."""
    return True if not (getattr(obj, "__module__", None) or "clteach").startswith("clteach") else None


def set_address(app: Sphinx, config: Any) -> None:
    config.html_theme_options |= {
        "repository_url": repository(),
        "repository_branch": "main",
        "use_repository_button": True,
    }
    config.html_context["default_mode"] = "light"  # pictures are drawn for it; a reader can choose the dark one


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", set_address)
    app.connect("env-get-outdated", reread_api)
    app.connect("source-read", fill_in)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("autodoc-process-docstring", from_markdown, priority=400)  # before napoleon
    return {"parallel_read_safe": True, "parallel_write_safe": True}
