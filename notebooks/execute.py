"""Execute the chapters and write them back: ``make notebooks``.

The executed notebook is the one source of a chapter: the book shows its outputs, Colab opens it, nbval compares a new
run with it. So two executions must give the same file, byte for byte. With ``CLTEACH_SIZE=full`` the result goes to
out/notebooks instead, because the committed outputs are those of the quick size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
import tomllib
from functools import partial
from pathlib import Path

import nbformat
import torch
from nbclient import NotebookClient
from nbclient.exceptions import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
)
from nbconvert.preprocessors.coalescestreams import CoalesceStreamsPreprocessor
from nbformat import NotebookNode

from clteach import __version__
from clteach.exercises import course
from clteach.exercises.chapters import chapters
from clteach.experiments.provenance import checkout, machine

ROOT = Path(__file__).parents[1]
TIMES = ROOT / "book" / "chapter_times.json"
CELL_SECONDS = 300
BADGE = "[![Open in Colab]"
SETUP = "try:\n    import clteach\n"  # how the cell begins that makes the package be there
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class ChapterError(Exception):
    """A chapter that cannot be executed or must not be written; the message names the cell and what to do."""


def address() -> str:
    """The public address of the project, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"])


def setup_cell() -> str:
    """The source of the cell that installs the package where it is missing, as on Colab, and says what it did.

    The release of the chapter's version comes first; where there is none yet, the repository at that version, then as it
    is now.
    """
    return f"""{SETUP}
    print("clteach is installed already.")
except ImportError:  # as on Colab
    import importlib
    import subprocess
    import sys

    for place in (
        "clteach=={__version__}",
        "git+{address()}@v{__version__}",
        "git+{address()}@main",
    ):
        pip = [sys.executable, "-m", "pip", "install", "-q", place]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode == 0:
            print("Installed", place)
            break
        print("There is no", place)
    else:
        raise ImportError(
            f"clteach could not be installed. Is there a network? pip says:\\n{{done.stderr}}"
        ) from None
    importlib.invalidate_caches()
    import clteach"""


def write_setup(notebook: NotebookNode) -> None:
    """Write the cell that makes the package be there, which is the same in every chapter."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith(SETUP):
            cell.source = setup_cell()


def colab_badge(name: str) -> str:
    """The line under a chapter's title that opens it in Colab, from the address in pyproject.toml."""
    repository = address().removeprefix("https://github.com/")
    return f"{BADGE}(../book/_static/colab.svg)](https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name})"


def stamp(notebook: NotebookNode, name: str) -> None:
    """Write what is the same in every chapter (Colab badge, set-up, kernel, ids), drop what varies between machines."""
    title, *rest = notebook.cells[0].source.split("\n")
    if notebook.cells[0].cell_type != "markdown" or not title.startswith("# "):
        raise ChapterError(f"{name}: the first cell must be Markdown and begin with the title (# ...).")
    body = "\n".join(line for line in rest if not line.startswith(BADGE)).strip("\n")
    notebook.cells[0].source = f"{title}\n\n{colab_badge(name)}\n\n{body}".rstrip("\n")
    write_setup(notebook)

    widgets = notebook.metadata.get("widgets")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python", "pygments_lexer": "ipython3"},
    )
    shown = any(WIDGET_VIEW in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    if widgets and shown:
        notebook.metadata["widgets"] = widgets

    notebook.nbformat, notebook.nbformat_minor = 4, 5
    taken: set[str] = set()
    for index, cell in enumerate(notebook.cells):
        if not cell.get("id") or cell["id"] in taken:
            cell["id"] = hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8]
        taken.add(cell["id"])
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in ("tags", "mystnb") if key in cell.metadata})


def write_exercises(notebook: NotebookNode, name: str) -> None:
    """Write the chapter's exercises, as the package has them, behind the cell that holds the heading "Exercises".

    They are cells with ids of their own (exercise-...), so what the chapter says before and after them stays.
    """
    number = name[:2]
    if number not in chapters():
        return
    cells = [cell for cell in notebook.cells if not cell.get("id", "").startswith("exercise-")]
    texts = [(index, cell) for index, cell in enumerate(cells) if cell.cell_type == "markdown"]
    headings = [index for index, cell in texts if "## Exercises" in cell.source.split("\n")]
    if not headings:
        raise ChapterError(
            f"{name}: clteach/exercises/ch{number}.py has exercises, but no cell begins with ## Exercises."
        )
    written = [nbformat.from_dict(cell) for cell in course.chapter_cells(number)]
    notebook.cells = cells[: headings[0] + 1] + written + cells[headings[0] + 1 :]


def tidy_streams(notebook: NotebookNode, name: str) -> None:
    """Remove progress bars and join what was printed. Anything else on stderr is a warning, and a chapter has none."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in [output for output in cell.get("outputs", []) if output.get("name") == "stderr"]:
            if not re.search(r"\r|\d+%\|", output.text):
                raise ChapterError(f"{name}, cell {number} wrote to stderr; mend its cause:\n{output.text.strip()}")
            cell.outputs.remove(output)
    CoalesceStreamsPreprocessor().preprocess(notebook, {})  # the kernel cuts what is printed by the clock


def to_text(notebook: NotebookNode) -> str:
    """The notebook as it is written, with the widgets' random ids replaced by their order of creation."""
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    order = {model: f"{index:032x}" for index, model in enumerate(state)}
    text = re.sub(
        r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", lambda match: order.get(match[0], match[0]), nbformat.writes(notebook)
    )
    return str(nbformat.writes(nbformat.reads(text, as_version=4))) + "\n"  # once more: the keys are sorted by id


def execute(path: Path, size: str) -> str:
    """Execute one chapter in a kernel of its own.

    Args:
        path: the notebook; it is not written.
        size: ``quick`` (no cell may run over 300 s) or ``full`` (no limit).

    Returns:
        The text of the executed notebook.

    Raises:
        ChapterError: A cell failed, ran too long or wrote to stderr.
    """
    notebook = nbformat.read(path, as_version=4)
    write_setup(notebook)
    write_exercises(notebook, path.name)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS if size == "quick" else None,
        record_timing=False,
        store_widget_state=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellTimeoutError as error:
        problem = f"{path.name}: a cell ran over {CELL_SECONDS} s; make its quick size smaller."
        raise ChapterError(f"{problem}\n{error}") from error
    except (CellExecutionError, DeadKernelError) as error:
        raise ChapterError(f"{path.name}: {error}") from error
    tidy_streams(notebook, path.name)
    stamp(notebook, path.name)
    nbformat.validate(notebook)
    return to_text(notebook)


def execute_exercises(path: Path) -> str:
    """Write and execute the cells of the exercises alone, which need nothing of the chapter; all others stay as they are.

    Returns:
        The text of the notebook, the same as if all of it had been executed.

    Raises:
        ChapterError: A cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    widgets = notebook.metadata.get("widgets")
    write_exercises(notebook, path.name)
    own = [cell for cell in notebook.cells if cell.get("id", "").startswith("exercise-")]
    alone = nbformat.v4.new_notebook(cells=own)  # the same cells: they get their outputs here
    try:
        NotebookClient(alone, kernel_name="python3", timeout=CELL_SECONDS, record_timing=False).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(f"{path.name}: {error}") from error
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    if widgets:
        notebook.metadata["widgets"] = widgets
    tidy_streams(notebook, path.name)
    stamp(notebook, path.name)
    nbformat.validate(notebook)
    return to_text(notebook)


def processor_seconds() -> float:
    """Processor time of the kernels so far: unlike the wall time, it is the same on a busy machine."""
    return os.times().children_user + os.times().children_system


def record_time(name: str, size: str, wall: float, processor: float, commit: str | None) -> None:
    """Write what a chapter took into book/chapter_times.json, which the instructor's guide shows."""
    times = json.loads(TIMES.read_text(encoding="utf-8")) if TIMES.is_file() else {}
    entry = {
        "processor_seconds": round(processor, 1),
        "wall_seconds": round(wall, 1),
        "device": machine("cuda" if torch.cuda.is_available() else "cpu"),
        "commit": commit,
        "command": f"make times SIZE={size}",
    }
    times.setdefault(name, {})[size] = entry
    TIMES.write_text(json.dumps(times, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all chapters")
    parser.add_argument("--times", action="store_true", help="record how long it takes, and write no notebook")
    parser.add_argument("--exercises", action="store_true", help="write and execute the exercises' cells alone")
    arguments = parser.parse_args()
    chosen = arguments.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    size = os.environ.setdefault("CLTEACH_SIZE", "quick")
    commit = checkout()  # before the first time is written, which changes the checkout
    for path in chosen:
        start, before = time.perf_counter(), processor_seconds()
        try:
            text = (execute_exercises if arguments.exercises else partial(execute, size=size))(path.resolve())
        except ChapterError as error:
            sys.exit(str(error))
        if arguments.times:
            wall, processor = time.perf_counter() - start, processor_seconds() - before
            record_time(path.stem, size, wall, processor, commit)
            print(f"{path.name}: {wall:.1f} s, {processor:.1f} s of processor time -> {TIMES}", flush=True)
            continue
        target = path if size == "quick" else ROOT / "out" / "notebooks" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
        seconds, size_kb = time.perf_counter() - start, target.stat().st_size / 1e3
        print(f"{path.name}: {seconds:.1f} s, {size_kb:.0f} kB -> {target}", flush=True)


if __name__ == "__main__":
    main()
