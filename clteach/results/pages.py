"""Pages that hold tables: filled from the records, so that no number in them is typed by hand."""

from __future__ import annotations

import re

from clteach.results.tables import (
    readme_table,
)


def stamp(text: str) -> str:
    """`text` with its tables filled from the records.

    ``<!-- table: NAME -->`` ... ``<!-- end of table -->`` holds one record, ``<!-- papers: STREAM PRESET -->`` ... all
    records of a stream and preset beside the published numbers.
    """
    from clteach.results.comparison import beside_paper  # which reads records itself

    pattern = r"(<!-- (table|papers): ([\w-]+)(?: ([\w-]+))? -->\n).*?(<!-- end of table -->)"

    def filled(match: re.Match[str]) -> str:
        content = readme_table(match[3]) if match[2] == "table" else beside_paper(match[3], match[4])
        return f"{match[1]}{content}{match[5]}"

    return re.sub(pattern, filled, text, flags=re.DOTALL)
