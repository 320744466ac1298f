"""An autograder for Gradescope: ``clteach assign 02 --for gradescope``.

Gradescope unpacks the zip into ``/autograder/source`` and runs ``setup.sh`` once. For every submission it then starts
``/autograder/run_autograder``, with the student's files in ``/autograder/submission``, and reads
``/autograder/results/results.json``. (https://gradescope-autograders.readthedocs.io/en/latest/specs/)

Students see at once what the check of each exercise says, with its hint, on the numbers that they know. The points are for
the same functions on hidden numbers too, and are shown when the instructor publishes the grades.
"""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

from clteach.errors import ClteachError
from clteach.exercises.chapters import exercises
from clteach.exercises.course import assignment, hidden_seed, of_chapter, refuse, write_plain
from clteach.exercises.grading import Graded, Limits, grade
from clteach.storage import write_atomic
from clteach.version import __version__

SETUP = f"""\
#!/usr/bin/env bash
# Once, when the autograder is built: Python, and the package beside this file.
set -e
apt-get update
apt-get install -y python3 python3-pip python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu "clteach[course]=={__version__}"
"""
RUN = """\
#!/usr/bin/env bash
# For every submission: it lies in submission/ beside this file, and results/results.json is to be written.
root="$(cd "$(dirname "$0")" && pwd)"
exec "$root/venv/bin/python" -m clteach.exercises.gradescope "$root"
"""
SECONDS = 300.0


def assign(chapter: str, folder: Path, seed: int | None = None, overwrite: bool = False) -> list[Path]:
    """Write a chapter's exercises as an assignment: ``gradescope/NAME.zip`` and the students' ``colab/NAME.ipynb``.

    Args, returns and errors are those of `clteach.exercises.course.assign`.
    """
    name = assignment(chapter)
    packed, colab = folder / "gradescope" / f"{name}.zip", folder / "colab" / f"{name}.ipynb"
    refuse([packed, colab], overwrite)
    contents = autograder(chapter, hidden_seed(seed))
    return [write_atomic(packed, lambda file: file.write(contents)), write_plain(colab, chapter)]


def autograder(chapter: str, seed: int) -> bytes:
    """The zip to upload under "Configure Autograder".

    Args:
        chapter: "02" or "2".
        seed: the points are for answers that are also right on the numbers of this seed.

    Raises:
        ConfigError: there is no such chapter.
    """
    order = {"chapter": of_chapter(chapter)[0].chapter, "seed": seed, "seconds": SECONDS}
    files = {"setup.sh": SETUP, "run_autograder": RUN, "grade.json": json.dumps(order) + "\n"}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)  # with a fixed date: the same assignment gives the same bytes
            entry.external_attr = (0o644 if name.endswith(".json") else 0o755) << 16
            packed.writestr(entry, text)
    return out.getvalue()


def results(graded: Graded, points: dict[str, int], seconds: float) -> dict[str, Any]:
    """What Gradescope reads, of one notebook."""
    tests: list[dict[str, Any]] = []
    for id, most in points.items():
        title = exercises()[id].title
        report = graded.reports.get(id)
        right = report is not None and report["passed"]
        said = report["text"] if report else f"not checked: {graded.remark or graded.status}"
        tests.append(
            {
                "name": f"{title} ({id})",
                "status": "passed" if right else "failed",
                "output": said,
                "visibility": "visible",
            }
        )
        tests.append(
            {
                "name": f"{title} ({id}), on other numbers too",
                "score": graded.points.get(id, 0),
                "max_score": most,
                "visibility": "after_published",
            }
        )
    return {
        "tests": tests,
        "output": f"{graded.file.name}: {graded.status}. {graded.remark}".strip(),
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "execution_time": round(seconds),
    }


def main(root: Path) -> None:
    """Grade what lies in ``submission`` and write ``results/results.json``."""
    start = time.monotonic()
    order = json.loads((root / "source" / "grade.json").read_text(encoding="utf-8"))
    try:
        found, points = grade(root / "submission", order["chapter"], order["seed"], Limits(order["seconds"]))
        best = max(found, key=lambda graded: sum(graded.points.values()))
        document = results(best, points, time.monotonic() - start)
    except ClteachError as error:
        document = {"score": 0, "output": str(error), "visibility": "visible"}
    (root / "results").mkdir(exist_ok=True)
    (root / "results" / "results.json").write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
