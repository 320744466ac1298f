"""What the chapters use: `page` their size and the package's own code, `claims` what they say with the numbers behind it,
`explorers` sliders that work without a kernel."""

from __future__ import annotations

from clteach.notebook.claims import Claims
from clteach.notebook.explorers import explorer, explorer_grid
from clteach.notebook.page import by_size, show_source

__all__ = [
    "Claims",
    "by_size",
    "explorer",
    "explorer_grid",
    "show_source",
]
