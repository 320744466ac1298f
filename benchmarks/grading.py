"""Processor time of ``clteach grade``, this build beside an older one, on the same 40 submissions in one run.

Until c0a1af2 an interpreter was started for every notebook, which imports torch; now a process that has imported it makes
a copy of itself. The submissions are right, wrong, crashing, endless, hungry for memory, and no notebooks at all. Both
builds must write the same table. Processor time counts everything that the command has started.

    python -m benchmarks.grading [--against c0a1af2] [--jobs 1] [--out benchmarks/grading.json]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from clteach.exercises import grading
from clteach.exercises.course import imports, of_chapter
from clteach.experiments.provenance import checkout, machine
from clteach.storage import write_json

ROOT = Path(__file__).parents[1]
CHAPTER = "03"
LIMITS = grading.Limits(seconds=40, memory=1.5)
TARGET = 8.0
"""To reach: how many times less processor time than the older build."""
TWO_CORES = 1.8
"""To reach: how much faster two notebooks at a time are than one."""
ENDLESS = {"place": "def place(z_new, task, n_tasks):\n    while True:\n        pass\n"}
WRONG = {
    "place": "def place(z_new, task, n_tasks):\n    return z_new\n",
    "frechet": "def frechet(real, generated):\n    1 / 0\n",
}
CRASHES = ("import os\nos._exit(3)", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
HUNGRY = ("hoard = []\nwhile True:\n    hoard.append(bytearray(10**8))", "import torch\ntorch.ones(10**10)")


def notebook(path: Path, *cells: str) -> None:
    """Write the cells as a notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code: list[dict[str, Any]] = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": c} for c in cells
    ]
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": code}), encoding="utf-8")


def answers(wrong: dict[str, str] | None = None) -> list[str]:
    """The cells of a student who solved the chapter, but for the answers in `wrong`."""
    chosen = of_chapter(CHAPTER)
    solved = [f'{(wrong or {}).get(each.name, each.solved)}\ncheck("{each.id}", {each.name})' for each in chosen]
    return [imports(chosen), *solved]


def submissions(folder: Path) -> None:
    """Forty files as they come in."""
    for i in range(25):
        notebook(folder / f"right{i:02}.ipynb", *answers())
    for i in range(5):
        notebook(folder / f"wrong{i}.ipynb", *answers(WRONG))
    for i, cell in enumerate(CRASHES):
        notebook(folder / f"crash{i}.ipynb", *answers(), cell)
    for i, cell in enumerate(HUNGRY):
        notebook(folder / f"hungry{i}.ipynb", cell, "hoard = None", *answers())
    notebook(folder / "endless.ipynb", *answers(ENDLESS))
    notebook(
        folder / "asleep.ipynb", *answers(), "import threading\nthreading.Lock().acquire() and threading.Event().wait()"
    )
    for name, content in (("text", b"dear professor"), ("picture", b"\x89PNG\x00\xff"), ("list", b"[1, 2]")):
        (folder / f"{name}.ipynb").write_bytes(content)
    with open(folder / "large.ipynb", "wb") as file:
        file.truncate(grading.LARGEST + 1)


def measured(package: Path, folder: Path, table: Path, jobs: int) -> dict[str, float]:
    """Grade with the package in that folder: seconds of processor time, children included, and on the clock."""
    limits = ("--seconds", f"{LIMITS.seconds:g}", "--memory", f"{LIMITS.memory:g}", "--jobs", str(jobs))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "clteach", "grade", str(folder), "--csv", str(table), *limits],
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        cwd=table.parent,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"processor_s": round(processor, 1), "wall_s": round(wall, 1)}


def older(commit: str, folder: Path) -> Path:
    """The package as it was at that commit, unpacked into a folder."""
    packed = subprocess.run(["git", "archive", commit, "clteach"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def speedup(folder: Path, notebooks: int = 12) -> dict[str, float]:
    """Seconds for notebooks that compute for a while, one at a time and two; importing is over before the clock starts."""
    notebook(folder / "first.ipynb", "pass")
    for i in range(notebooks):
        notebook(folder / f"work{i:02}.ipynb", "total = 0\nfor i in range(20_000_000):\n    total += i")
    seconds = []
    for jobs in (1, 2):
        ended: list[float] = []

        def report(one: grading.Graded, total: int, ended: list[float] = ended) -> None:
            ended.append(time.perf_counter())

        grading.grade(folder, CHAPTER, jobs=jobs, report=report)
        seconds.append(ended[-1] - ended[0])
    return {"one_s": round(seconds[0], 2), "two_s": round(seconds[1], 2), "ratio": round(seconds[0] / seconds[1], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", default="c0a1af2", help="the commit of the older build")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/grading.json"))
    args = parser.parse_args()
    commit = checkout()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        submissions(place / "submitted")
        tables: dict[str, list[list[str]]] = {}
        rows: dict[str, dict[str, float]] = {}
        for name, package in (("this build", ROOT), (args.against, older(args.against, place / "older"))):
            rows[name] = measured(package, place / "submitted", place / f"{name}.csv", args.jobs)
            print(
                f"{name:12s} {rows[name]['processor_s']:8.1f} s of processor time, {rows[name]['wall_s']:7.1f} s",
                flush=True,
            )
            with open(place / f"{name}.csv", newline="", encoding="utf-8") as lines:
                tables[name] = list(csv.reader(lines))
        same = tables["this build"] == tables[args.against]
        ratio = rows[args.against]["processor_s"] / rows["this build"]["processor_s"]
        files = len(tables["this build"]) - 1
        print(f"{files} files, tables {'the same' if same else 'DIFFERENT'}, ratio {ratio:.1f}, target {TARGET:g}")
        scaling = speedup(place / "work")
    print(f"12 working notebooks: {scaling['one_s']} s one at a time, {scaling['two_s']} s two; target {TWO_CORES}")
    record: dict[str, Any] = {
        "command": f"python -m benchmarks.grading --against {args.against} --jobs {args.jobs}",
        "submissions": f"{files} files of chapter {CHAPTER}: right, wrong, crashing, endless, hungry, no notebooks",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": 1},
        "rows": {name: {**row, "per_file_s": round(row["processor_s"] / files, 3)} for name, row in rows.items()},
        "same_table": same,
        "ratio": {"value": round(ratio, 2), "target": TARGET},
        "two_at_a_time": {**scaling, "target": TWO_CORES},
    }
    print(f"written to {write_json(args.out, record)}")


if __name__ == "__main__":
    main()
