"""Print the built book into one PDF through Chromium, with an outline and page numbers: ``make pdf``.

The pages of the table of contents are put one behind the other into one document, so that page numbers run through and links
between them lead inside it. The API pages are left out: they are there to be searched, and links to them go to the public
address.
"""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

BOOK = Path(__file__).parent
HTML = BOOK / "_build" / "html"
WHOLE = HTML / "whole.html"
PDF = BOOK / "_build" / "clteach.pdf"

PRINT = """
@page { size: A4; margin: 18mm 16mm 20mm; }
body { font-size: 10pt; }
article { break-before: page; max-width: none; }
article:first-of-type { break-before: auto; }
img, figure, table, .cell_output { max-width: 100%; }
img, .exercise, .live, .summary, .sd-col, tr { break-inside: avoid; }
pre { break-inside: auto; }
h1, h2, h3 { break-after: avoid; }
details.hide > summary { display: none !important; }
[id$="--all-methods"] table { font-size: 0.62em; }
[id$="--all-methods"] :is(td, th) { padding: 0.2rem; }
[id$="--all-methods"] :is(td, td code *) { overflow-wrap: normal; word-break: normal; }
"""
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center; color: #444">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)


def pages() -> Iterator[str]:
    """The pages in the order of the table of contents: "notebooks/00_start_here"."""
    toc: dict[str, Any] = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    yield toc["root"]
    for part in toc["parts"]:
        yield from (chapter["file"] for chapter in part["chapters"])


def anchor(page: str, fragment: str = "") -> str:
    """The name of a place of a page in the whole document."""
    return f"{page.replace('/', '-')}--{fragment}"


def moved(link: str, page: str, inside: set[str], address: str) -> str:
    """Where a link of a page leads from the whole document, which lies beside the folders of the pages."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return link
    if not parts.path:
        return f"#{anchor(page, parts.fragment)}"
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), parts.path))
    name = target.removesuffix(".html")
    if name in inside:
        return f"#{anchor(name, parts.fragment)}"
    return f"{address}{target}#{parts.fragment}" if target.endswith(".html") else target


def article(page: str, inside: set[str], address: str) -> tuple[Tag, BeautifulSoup]:
    """The article of a built page, fit for the whole document, and the page."""
    soup = BeautifulSoup((HTML / f"{page}.html").read_text(encoding="utf-8"), "html.parser")
    found = soup.find("article")
    assert isinstance(found, Tag)
    for useless in found.select("script, .headerlink, .live figcaption"):
        useless.decompose()
    for element in found.find_all(True):
        if element.get("id"):
            element["id"] = anchor(page, str(element["id"]))
        for key in ("href", "src"):
            if element.get(key):
                element[key] = moved(str(element[key]), page, inside, address)
        if element.name == "details":
            element["open"] = ""
    found["id"] = anchor(page)
    return found, soup


def address_of(soup: BeautifulSoup) -> str:
    """The public address of the book, which every page names in its link preview."""
    tag = soup.find("meta", property="og:url")
    assert isinstance(tag, Tag)
    return str(tag["content"]).removesuffix("book/index.html")


def whole() -> str:
    """All pages as one document."""
    order = [*pages()]
    first = BeautifulSoup((HTML / f"{order[0]}.html").read_text(encoding="utf-8"), "html.parser")
    address = address_of(first)
    articles, styles = [], ""
    for page in order:
        found, soup = article(page, set(order), address)
        articles.append(str(found))
        math = soup.select('head script[src*="mathjax"], head script:-soup-contains("window.MathJax")')
        if math and not styles:
            for element in [*soup.select('head link[rel="stylesheet"]'), *math]:
                for key in ("href", "src"):
                    if element.get(key):
                        element[key] = moved(str(element[key]), page, set(), address)
                styles += str(element)
    return (
        f'<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8"><title>clteach</title>{styles}'
        f"<style>{PRINT}</style></head><body>{''.join(articles)}</body></html>"
    )


def print_pdf() -> Path:
    """Write the PDF.

    Raises:
        SystemExit: the book is not built, or there is no Chromium.
    """
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not (HTML / "book" / "index.html").is_file() or executable is None:
        raise SystemExit("make pdf needs the built book (make book) and Chromium on PATH (or Google Chrome).")
    from playwright.sync_api import sync_playwright

    WHOLE.write_text(whole(), encoding="utf-8")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.goto(WHOLE.as_uri(), wait_until="load", timeout=300_000)
            page.wait_for_function(
                "[...document.querySelectorAll('.math')].every(each => each.querySelector('mjx-container'))",
                timeout=300_000,
            )
            page.pdf(
                path=PDF, prefer_css_page_size=True, print_background=True, outline=True, tagged=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOTER,
            )  # fmt: skip
            browser.close()
    finally:
        WHOLE.unlink()
    return PDF


if __name__ == "__main__":
    print(f"{print_pdf()}: {PDF.stat().st_size / 1e6:.1f} MB")
