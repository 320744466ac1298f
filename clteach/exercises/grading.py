"""Grade a folder of submitted notebooks, whatever is in it: ``clteach grade FOLDER --csv FILE``.

Each notebook runs in a process of its own with limits for time and memory. The process runs the code cells one after the
other, goes on after a cell that fails, then checks the functions that it finds by their names, on the numbers of two seeds.
So it does not matter what became of the cells with the checks, and the marks are those of the code that was handed in.

The process protects the others from accidents: crashes, endless loops, memory without end. It is no prison for code that
means harm: grade what you would also run by hand, or grade in a container.

Works on every system; the memory limit needs the `resource` module (Linux; macOS does not enforce it, Windows lacks it),
and where a process cannot be copied (macOS, Windows) each notebook waits some seconds for its imports.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import re
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import clteach
from clteach.errors import ClteachError, ConfigError
from clteach.exercises.chapters import exercises
from clteach.exercises.course import of_chapter
from clteach.exercises.processes import CAN_FORK, Forked, Fresh, Order
from clteach.storage import write_atomic

LARGEST = 20_000_000  # bytes of a notebook that is read
MENTIONED = re.compile(r"""["'](\d\d\.\w+)["']""")


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
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    """of each exercise that was checked: ``passed`` on the numbers that students know, and the ``text`` they read there"""


class _Unreadable(Exception):
    """A file that is not graded: the status that it gets, and a remark."""


def grade(
    folder: Path,
    chapter: str | None = None,
    seed: int = 1,
    limits: Limits | None = None,
    jobs: int = 1,
    report: Callable[[Graded, int], object] = lambda graded, total: None,
    kept: Path | None = None,
    forks: bool = CAN_FORK,
) -> tuple[list[Graded], dict[str, int]]:
    """Grade every notebook under `folder`.

    Args:
        folder: searched with all its subfolders for ``*.ipynb``.
        chapter: whose exercises; None: the chapter that most of the notebooks mention.
        seed: the functions are tried on the numbers of seed 0 (as the students do) and of this one.
        limits: time and memory of one notebook.
        jobs: notebooks at a time.
        report: called with each result as it comes, and with the number of files in all.
        kept: a file that each result is written to as it comes, and from which those of an earlier call are taken, if
            notebook, exercises, limits and package are the same.
        forks: let one process import everything and copy itself for each notebook, not each notebook import it again.

    Returns:
        The results in the order of the file names, and {exercise: its points}.

    Raises:
        ConfigError: the folder holds no notebook, or the chapter cannot be told.
        ClteachError: `kept` cannot be written.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Expected the folder with the submitted notebooks.")
    files = sorted(p for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts and not p.is_dir())
    if not files:
        raise ConfigError(f"{folder} holds no notebook (*.ipynb), also not in its subfolders.")
    limits = limits or Limits()
    results: dict[Path, Graded] = {}
    sources: dict[Path, list[str]] = {}
    for file in files:
        try:
            sources[file] = _read(file)
        except _Unreadable as error:
            results[file] = Graded(file, *error.args)
    points = {each.id: each.level for each in of_chapter(chapter or _chapter(sources.values()))}
    store = _Store(kept, [clteach.__version__, _fingerprint(), [*points], seed, asdict(limits)])
    for file in sources:
        if found := store.find(file, sources[file]):
            results[file] = found
    for graded in results.values():
        report(graded, len(files))
    left = {file: cells for file, cells in sources.items() if file not in results}
    with store:
        for graded in _run(left, [*points], seed, limits, jobs, forks):
            results[graded.file] = graded
            store.add(graded, sources[graded.file])
            report(graded, len(files))
    return [results[file] for file in files], points


def _read(file: Path) -> list[str]:
    """The code cells of a notebook."""
    try:
        if file.stat().st_size > LARGEST:
            raise _Unreadable("too large")
        text = file.read_bytes()
        document = json.loads(text)
        if document.get("nbformat", 4) < 4:
            document = _upgraded(text.decode())
        cells = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
        return ["".join(cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _Unreadable("not a notebook") from None


def _upgraded(text: str) -> Any:
    """A notebook of an older format in that of today."""
    try:
        import nbformat
    except ImportError:
        remedy = (
            "of a format older than 4: install nbformat (pip install 'clteach[course]'), or save it again in Jupyter"
        )
        raise _Unreadable("not a notebook", {}, remedy) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return nbformat.reads(text, as_version=4)
        except Exception:  # whatever its converters meet
            raise _Unreadable("not a notebook") from None


def _chapter(sources: Iterable[list[str]]) -> str:
    votes = Counter(
        number
        for source in sources
        for number in {
            exercises()[id].chapter for cell in source for id in MENTIONED.findall(cell) if id in exercises()
        }
    )
    if not votes:
        raise ConfigError("none of the notebooks mentions an exercise. Say which chapter they belong to: --chapter 02.")
    return votes.most_common(1)[0][0]


def _run(
    sources: dict[Path, list[str]], ids: list[str], seed: int, limits: Limits, jobs: int, forks: bool
) -> Iterator[Graded]:
    """Grade the notebooks in processes of their own; yield the results as they come."""
    waiting = list(sources.items())[::-1]
    running: dict[int, tuple[Path, tempfile.TemporaryDirectory[str], float]] = {}
    processes = Forked() if forks else Fresh()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                file, cells = waiting.pop()
                folder = tempfile.TemporaryDirectory(prefix="clteach-grade-", ignore_cleanup_errors=True)
                running[number := len(waiting)] = file, folder, time.monotonic()
                order, answer = (Path(folder.name, name) for name in ("order.json", "answer.jsonl"))
                work = {"cells": cells, "ids": ids, "seed": seed, "memory": limits.memory, "answer": str(answer)}
                order.write_text(json.dumps(work), encoding="utf-8")
                processes.start(Order(number, order, limits.seconds))
            number, code = processes.wait()
            file, folder, start = running.pop(number)
            with folder:
                graded = _result(file, code, Path(folder.name, "answer.jsonl"), ids)
            graded.seconds = time.monotonic() - start
            if code is None:
                graded.remark = f"stopped after {limits.seconds:g} s. {graded.remark}".strip()
            yield graded
    finally:
        processes.close()
        for _, folder, _ in running.values():
            folder.cleanup()


def _result(file: Path, code: int | None, answer: Path, ids: list[str]) -> Graded:
    status = "timeout" if code is None else "graded" if code == 0 else "crashed"
    graded = Graded(file, status, dict.fromkeys(ids, 0))
    remarks = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        for line in answer.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "id" in entry:
                graded.points[entry["id"]] = entry["points"]
                if "report" in entry:
                    graded.reports[entry["id"]] = entry["report"]
            if entry["remark"]:
                remarks.append(entry["remark"])
    if status == "crashed":
        name = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
        remarks.insert(0, f"the process ended with {name}")
    graded.remark = "; ".join(remarks)
    return graded


class _Store:
    """Results in a file, one per line, found again by the notebook's cells and by `setting`: all that they depend on."""

    def __init__(self, path: Path | None, setting: list[Any]) -> None:
        self.path, self.setting = path, json.dumps(setting)
        self.entries: dict[str, dict[str, Any]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # the last may have been cut off
                    entry = json.loads(line)
                    self.entries[entry.pop("key")] = entry

    def __enter__(self) -> None:
        """Open the file before the work that is to be written to it."""
        if self.path is None:
            self.file: IO[str] = io.StringIO()
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise ClteachError(
                f"cannot write {self.path}: {error.strerror or error}. Results are kept there until all are graded: "
                "choose a folder with write permission for the table (--csv)."
            ) from error

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _key(self, cells: list[str]) -> str:
        return hashlib.sha256(json.dumps([self.setting, cells]).encode()).hexdigest()

    def find(self, file: Path, cells: list[str]) -> Graded | None:
        entry = self.entries.get(self._key(cells))
        return None if entry is None else Graded(file, **entry)

    def add(self, graded: Graded, cells: list[str]) -> None:
        entry = {name: value for name, value in asdict(graded).items() if name != "file"}
        # On a line of its own, also after one that was cut off.
        self.file.write("\n" + json.dumps({"key": self._key(cells), **entry}))
        self.file.flush()


def _fingerprint() -> str:
    """Changes with the code of the exercises."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


def to_csv(results: list[Graded], points: dict[str, int], folder: Path, path: Path, table: str = "all") -> Path:
    """Write the marks as a table.

    Args:
        results: as from `grade`.
        points: {exercise: its points}.
        folder: the folder of the notebooks.
        path: the file.
        table: "all": one line per notebook, with student, file, status, points, of, each exercise, remark. "canvas",
            "moodle" or "blackboard": one line per student, the best of several notebooks, with the columns that the
            gradebook imports; the student's name, of folder or file, is taken for the login.

    Returns:
        The file.
    """
    rows = _all_columns(results, points, folder) if table == "all" else _gradebook(results, points, folder, table)
    out = io.StringIO()
    csv.writer(out).writerows([[_harmless(value) for value in row] for row in rows])
    return write_atomic(path, lambda file: file.write(out.getvalue().encode()))


def _all_columns(results: list[Graded], points: dict[str, int], folder: Path) -> list[list[Any]]:
    rows: list[list[Any]] = [["student", "file", "status", "points", "of", *points, "remark"]]
    for each in results:
        own = [each.points.get(id, 0) for id in points]
        place = str(each.file.relative_to(folder))
        rows.append(
            [_student(each.file, folder), place, each.status, sum(own), sum(points.values()), *own, each.remark]
        )
    return rows


def _gradebook(results: list[Graded], points: dict[str, int], folder: Path, table: str) -> list[list[Any]]:
    best: dict[str, tuple[int, str]] = {}
    for each in results:
        student, marks = _student(each.file, folder), (sum(each.points.values()), each.remark)
        best[student] = max(best.get(student, marks), marks, key=lambda one: one[0])
    most, chapter = sum(points.values()), next(iter(points)).partition(".")[0]
    item = f"clteach {chapter}"
    if table == "canvas":  # its first five columns are fixed, and the line below the names holds the possible points
        rows: list[list[Any]] = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", item]]
        rows.append(["    Points Possible", "", "", "", "", most])
        return rows + [[student, "", "", student, "", marks] for student, (marks, _) in best.items()]
    if table == "moodle":  # the columns are chosen when it is imported: the user by username, the item, its feedback
        rows = [["username", item, f"{item} feedback"]]
        return rows + [[student, marks, remark] for student, (marks, remark) in best.items()]
    rows = [["Username", f"{item} [Total Pts: {most} Score]"]]
    return rows + [[student, marks] for student, (marks, _) in best.items()]


def _student(file: Path, folder: Path) -> str:
    """The name of the sub-folder, or of the file where there is none."""
    place = file.relative_to(folder)
    return place.parts[0] if len(place.parts) > 1 else place.stem


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet does not take for a formula, on one line."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.encode("utf-8", "replace").decode().split())[:1000]
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
