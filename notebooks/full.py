"""Does every cell of the chapters run at full size? ``make chapters-full``, before a release.

MNIST and the papers' networks, but a few steps of each training: a hidden cap, so that every cell is reached within minutes
on a CPU. What a chapter claims of its trained models is not judged here; a cell that raises is an error. Nothing is
written.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)

CELL_SECONDS = 1800

CAP = """
import warnings
warnings.simplefilter("ignore")  # models that have hardly been trained: no convergence, empty classes
import clteach.learners.gan as gan, clteach.training.loop as loop
import clteach.notebook, clteach.notebook.page as page

def few(steps, most):
    return min(steps, most) if isinstance(steps, int) else steps

COUNTS = (2000, 3000, 4000, 10_000, 20_000)

def capped(train):
    def call(*args, **settings):
        for name in ("steps", "generator_steps"):
            settings[name] = few(settings.get(name, 2000), 20) if name == "steps" or name in settings else None
        for name in ("eval_every", "log_every"):
            settings[name] = few(settings[name], 10) if name in settings else None
        return train(*args, **{name: value for name, value in settings.items() if value is not None})
    return call

def capped_fit(fit):
    def call(networks, x, steps, *args, **settings):
        return fit(networks, x, few(steps, 400), *args, **settings)
    return call

def capped_size(by_size):
    # Loops of a chapter's own count to such a number; smaller ones are units, images, samples.
    return lambda quick, full: few(by_size(quick, full), 400) if full in COUNTS else by_size(quick, full)

loop.train, gan.fit = capped(loop.train), capped_fit(gan.fit)
clteach.notebook.by_size = page.by_size = capped_size(page.by_size)
"""


def problem(path: Path) -> str | None:
    """What goes wrong in a chapter at full size, or None."""
    notebook = nbformat.read(path, as_version=4)
    # In a namespace of its own: a chapter may call something of its own `few`.
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"exec({CAP!r}, {{}})"))
    resources = {"metadata": {"path": str(path.parent)}}
    try:
        NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_SECONDS,
            resources=resources,
        ).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return str(error)
    skipped = [
        index
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
        and cell.source.strip()
        and cell.execution_count is None
    ]
    return f"cells {skipped} were not reached" if skipped else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "notebooks", nargs="*", type=Path, help="default: all chapters"
    )
    arguments = parser.parse_args()
    os.environ["CLTEACH_SIZE"] = "full"
    failed = []
    for path in arguments.notebooks or sorted(
        Path(__file__).parent.glob("*.ipynb")
    ):
        start = time.perf_counter()
        found = problem(path.resolve())
        print(
            f"{path.name}: {found or 'every cell runs'} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
        if found is not None:
            failed.append(path.name)
    sys.exit(
        f"at full size these chapters fail: {', '.join(failed)}" if failed else 0
    )


if __name__ == "__main__":
    main()
