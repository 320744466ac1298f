"""Recorded numbers: `records` read back, `tables` of one, `comparison` of all of a stream, `footprint` what a method keeps,
`cards` of the methods, `pages` that hold tables.

Every table of the book and of the README is made here from the records; none is typed by hand.
"""

from __future__ import annotations

from clteach.results.pages import stamp
from clteach.results.records import FOLDER, load, matrices, measured, names, scores
from clteach.results.tables import markdown, of_recipe, overview, percent, readme_table, report, reports, shown, table

__all__ = [
    "FOLDER",
    "load",
    "markdown",
    "matrices",
    "measured",
    "names",
    "of_recipe",
    "overview",
    "percent",
    "readme_table",
    "report",
    "reports",
    "scores",
    "shown",
    "stamp",
    "table",
]
