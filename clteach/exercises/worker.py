"""The process that grades one notebook: it runs the cells, then checks the functions that it finds by their names.

It writes every result at once, because what comes later may be its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import IPython
import torch
from IPython.core import getipython

import clteach.exercises
from clteach.exercises.cells import furnish, run_cell
from clteach.exercises.chapters import get
from clteach.exercises.checking import SECONDS, Report, check
from clteach.exercises.limits import limited

CELL_SECONDS = 60.0


def main(order: str) -> None:
    """Grade the notebook of an order file, in the folder that lies beside it, and end this process."""
    work = json.loads(Path(order).read_text(encoding="utf-8"))
    folder = str(Path(order).parent / "work")
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    sys.path[0] = tempfile.tempdir = folder
    sys.argv[1:] = []
    with open(work["answer"], "w", encoding="utf-8") as answer:
        for entry in _entries(work):
            answer.write(json.dumps(entry) + "\n")
            answer.flush()
    os._exit(0)  # not through the threads that a notebook may have left running


def _limit_memory(gigabytes: float) -> None:
    """Let this process take no more than that beyond what it has now, where the system can do it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
        most = used + int(gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Checks:
    """`check`, for the cells and for the marks: a function that has run out of time once does not get the time again."""

    def __init__(self) -> None:
        self.late: list[tuple[str, Any, Report]] = []

    def __call__(self, id: str, answer: Any, *, seed: int = 0, seconds: float = SECONDS) -> Report:
        for known, function, report in self.late:
            if known == id and function is answer:
                return report
        report = check(id, answer, seed=seed, seconds=seconds)
        if report.status == "time" and seconds >= SECONDS:
            self.late.append((id, answer, report))
        return report


def _namespace() -> dict[str, Any]:
    """The notebook's names: as in a kernel they are those of the module ``__main__``, where pickle looks for a class."""
    page = ModuleType("__main__")
    sys.modules["__main__"] = page
    space = furnish(page.__dict__)
    IPython.get_ipython = getipython.get_ipython = space["get_ipython"]
    return space


def _entries(work: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run the cells, then yield a line for what went wrong in them and one for every exercise."""
    torch.set_num_threads(1)
    _limit_memory(work["memory"])
    space = _namespace()
    clteach.exercises.check = checked = _Checks()
    for number, cell in enumerate(work["cells"], start=1):
        ended = limited(partial(run_cell, cell, f"cell {number}", space), CELL_SECONDS, isolated=False)
        if not ended.finished:
            yield {"remark": f"cell {number} did not end within {CELL_SECONDS:g} s"}
        elif ended.error is not None:
            yield {"remark": f"cell {number}: {_short(ended.error)}"}
    for id in work["ids"]:
        exercise = get(id)
        if exercise.name not in space:
            yield {"id": id, "points": 0, "remark": f"{id}: no function {exercise.name}"}
            continue
        report = checked(id, space[exercise.name])
        again = checked(id, space[exercise.name], seed=work["seed"]) if report else report
        what = "" if again else f"{id}: {again.status}" if not report else f"{id}: right only on the numbers shown"
        said = {"passed": bool(report), "text": str(report)}
        yield {"id": id, "points": exercise.level if again else 0, "remark": what, "report": said}


def _short(error: BaseException) -> str:
    try:
        text = str(error).split("\n")[0][:100]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


if __name__ == "__main__":
    main(sys.argv[1])
