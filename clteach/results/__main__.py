"""``python -m clteach.results README.md``: fill the tables of a Markdown file from the records."""

import sys
from pathlib import Path

from clteach.results.pages import stamp

for name in sys.argv[1:]:
    Path(name).write_text(stamp(Path(name).read_text(encoding="utf-8")), encoding="utf-8")
