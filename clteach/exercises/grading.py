"""Grade a folder of submitted notebooks, whatever is in it: ``clteach grade FOLDER --csv FILE``.

Each notebook runs in a process of its own with limits for time and memory. The process runs the code cells one after the
other, goes on after a cell that fails, then checks the functions that it finds by their names, on the numbers of two seeds.
So it does not matter what became of the cells with the checks, and the marks are those of the code that was handed in.

The process protects the others from accidents: crashes, endless loops, memory without end. It is no prison for code that
means harm: grade what you would also run by hand, or grade in a container.

Works on every system; the memory limit needs the `resource` module (Linux; macOS does not enforce it, Windows lacks it).
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clteach.errors import ConfigError
from clteach.storage import write_atomic

LARGEST = 20_000_000  # bytes of a notebook that is read
CELL_SECONDS = 60.0
MAGIC = re.compile(r"^([ \t]*)[%!?].*$", re.MULTILINE)
MENTIONED = re.compile(r"""["'](\d\d)\.\w+["']""")


@dataclass(frozen=True)
class Limits:
    """What one notebook may use."""

    seconds: float = 300.0
    memory: float = 4.0  # GB beyond what Python and torch need


@dataclass
class Graded:
    """The result for one file."""

    file: Path
    status: str  # graded, timeout, crashed, too large, not a notebook
    points: dict[str, int] = field(default_factory=dict)
    remark: str = ""
    seconds: float = 0.0


def grade(
    folder: Path,
    chapter: str | None = None,
    seed: int = 1,
    limits: Limits | None = None,
    jobs: int = 1,
    report: Callable[[Graded], object] = lambda graded: None,
) -> tuple[list[Graded], dict[str, int]]:
    """Grade every notebook under `folder`.

    Args:
        folder: searched with all its subfolders for ``*.ipynb``.
        chapter: whose exercises; None: the chapter that most of the notebooks mention.
        seed: the functions are tried on the numbers of seed 0 (as the students do) and of this one.
        limits: time and memory of one notebook.
        jobs: notebooks at a time.
        report: called with each result as it comes.

    Returns:
        The results in the order of the file names, and {exercise: its points}.

    Raises:
        ConfigError: the folder holds no notebook, or the chapter cannot be told.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Expected the folder with the submitted notebooks.")
    files = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.is_dir())
    if not files:
        raise ConfigError(f"{folder} holds no notebook (*.ipynb), also not in its subfolders.")
    sources = {file: _read(file) for file in files}
    from clteach.exercises.course import of_chapter

    chosen = of_chapter(chapter or _chapter(sources))

    def one(file: Path) -> Graded:
        source = sources[file]
        if isinstance(source, str):
            graded = Graded(file, source)
        else:
            graded = _run(file, source, [each.id for each in chosen], seed, limits or Limits())
        report(graded)
        return graded

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, files)), {each.id: each.level for each in chosen}


def _read(file: Path) -> list[str] | str:
    """The code cells of a notebook, or why it is none."""
    try:
        if file.stat().st_size > LARGEST:
            return "too large"
        document = json.loads(file.read_bytes())
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        return ["".join(cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "not a notebook"


def _chapter(sources: dict[Path, list[str] | str]) -> str:
    from clteach.exercises.chapters import chapters

    votes = Counter(
        number
        for source in sources.values()
        if not isinstance(source, str)
        for number in {match[1] for cell in source for match in MENTIONED.finditer(cell)} & chapters().keys()
    )
    if not votes:
        raise ConfigError("none of the notebooks mentions an exercise. Say which chapter they belong to: --chapter 02.")
    return votes.most_common(1)[0][0]


def _run(file: Path, cells: list[str], ids: list[str], seed: int, limits: Limits) -> Graded:
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clteach-grade-", ignore_cleanup_errors=True) as folder:
        order, answer = Path(folder, "order.json"), Path(folder, "answer.jsonl")
        work = {"cells": cells, "ids": ids, "seed": seed, "memory": limits.memory, "answer": str(answer)}
        order.write_text(json.dumps(work), encoding="utf-8")
        # Where this package was found, also if it is not installed; everything else as it is.
        path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, "-m", "clteach.exercises.grading", str(order)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill(process)
        graded = _result(file, code, answer, ids)
    graded.seconds = time.monotonic() - start
    if code is None:
        graded.remark = f"stopped after {limits.seconds:g} s. {graded.remark}".strip()
    return graded


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: see start_new_session
        else:
            process.kill()
    process.wait()


def _result(file: Path, code: int | None, answer: Path, ids: list[str]) -> Graded:
    status = "timeout" if code is None else "graded" if code == 0 else "crashed"
    graded = Graded(file, status, dict.fromkeys(ids, 0))
    remarks = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        for line in answer.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "id" in entry:
                graded.points[entry["id"]] = entry["points"]
            if entry["remark"]:
                remarks.append(entry["remark"])
    if status == "crashed":
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        remarks.insert(0, f"the process ended with {name}")
    graded.remark = "; ".join(remarks)
    return graded


def to_csv(results: list[Graded], points: dict[str, int], folder: Path, path: Path) -> Path:
    """Write one line per notebook: student, file, status, points, of, each exercise, remark."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(["student", "file", "status", "points", "of", *points, "remark"])
    for each in results:
        place = each.file.relative_to(folder)
        student = place.parts[0] if len(place.parts) > 1 else place.stem
        own = [each.points.get(id, 0) for id in points]
        row = [student, str(place), each.status, sum(own), sum(points.values()), *own, each.remark]
        table.writerow([_harmless(value) for value in row])
    return write_atomic(path, lambda file: file.write(out.getvalue().encode()))


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet does not take for a formula, on one line."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.split())[:1000]
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


# ------------------------------------------------------------------------------------------- inside the process


def _limit_memory(gigabytes: float) -> None:
    """Let this process take no more than that beyond what it has now, where the system can do it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        most = used + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _without_magic(cell: str) -> str:
    """A cell as plain Python: lines for IPython or the shell do nothing (there is nothing to install here)."""
    return MAGIC.sub(r"\1pass", cell)


def _entries(work: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the cells, then yield a line for what went wrong in them and one for every exercise."""
    import torch

    from clteach.exercises.chapters import get
    from clteach.exercises.checking import check
    from clteach.exercises.limits import limited

    torch.set_num_threads(1)
    _limit_memory(work["memory"])
    space: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(work["cells"], start=1):

        def run(cell: str = cell, number: int = number) -> None:
            exec(compile(_without_magic(cell), f"cell {number}", "exec"), space)

        ended = limited(run, CELL_SECONDS, isolated=False)
        if not ended.finished:
            yield {"remark": f"cell {number} did not end within {CELL_SECONDS:g} s"}
        elif ended.error is not None:
            yield {"remark": f"cell {number}: {_short(ended.error)}"}
    for id in work["ids"]:
        exercise = get(id)
        if exercise.name not in space:
            yield {"id": id, "points": 0, "remark": f"{id}: no function {exercise.name}"}
            continue
        report = check(id, space[exercise.name])
        again = check(id, space[exercise.name], seed=work["seed"]) if report else report
        what = "" if again else f"{id}: {again.status}" if not report else f"{id}: right only on the numbers shown"
        yield {"id": id, "points": exercise.level if again else 0, "remark": what}


def _short(error: BaseException) -> str:
    try:
        text = str(error).split("\n")[0][:100]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def main(order: str) -> None:
    """The process that grades one notebook. Every line is written at once: what comes later may be its end."""
    work = json.loads(Path(order).read_text(encoding="utf-8"))
    with open(work["answer"], "w", encoding="utf-8") as answer:
        for entry in _entries(work):
            answer.write(json.dumps(entry) + "\n")
            answer.flush()
    os._exit(0)  # not through the threads that a notebook may have left running


if __name__ == "__main__":
    main(sys.argv[1])
