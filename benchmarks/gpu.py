"""All that is wanted of a GPU, for whoever has one for a few minutes: ``make gpu``.

In this order, each piece written to benchmarks/gpu.json as soon as it is there:

1. the CUDA tests;
2. steps per second of every method, on the GPU and on the CPU, and of the bare loops of benchmarks/speed.py; and what a
   step of the dearest rows on CIFAR-100 takes, which says how long their records will;
3. many seeds at once beside one after the other (benchmarks/seeds.py), 20 seeds;
4. the records that are still shortened or lack rows, the most wanted first, through ``clteach reproduce`` into results/;
   of a record that lacks rows only these are run.

It ends by itself when the time is up. The same command goes on where it ended: what was finished with the same code on the
same device is kept. ``make record`` then copies finished records into the package.

Without a GPU it is a trial of the same pieces on the CPU, written to results/gpu-trial.json, and of no further use.

    python -m benchmarks.gpu [--minutes 12] [--device cuda] [--only WORD ...] [--out benchmarks/gpu.json]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import clteach
from benchmarks import seeds, speed
from clteach.data.catalogue import load
from clteach.data.streams import make_stream, split
from clteach.errors import ClteachError
from clteach.experiments.papers import RECIPES, column, full_name
from clteach.experiments.provenance import checkout, machine
from clteach.experiments.recipe import Recipe, chosen
from clteach.methods import METHODS, fitting
from clteach.results.records import FOLDER
from clteach.storage import write_json

ROOT = Path(__file__).parents[1]
SETTINGS = {"hidden": (400, 400)}
STEPS = {"cpu": 20, "cuda": 600}
"""Steps per task of a method whose speed is measured; the second task counts. On a GPU its first ones record the step."""
BARE_STEPS = 40
TESTED = 500
"""Test images: only training is timed."""
SEEDS = 20
WANTED = (
    "brain-inspired-replay-split-cifar100",
    "split-cifar100",
    "split-cifar100-task",
    "brain-inspired-replay-internal",
    "brain-inspired-replay-permuted",
    "hypernetwork-split-cifar100",
    "multiband-vae-dirichlet-mnist",
    "brain-inspired-replay-generator-size",
    "hypernetwork-permuted-mnist",
    "hypernetwork-permuted-mnist-100",
)
"""Recipes whose records are shortened, missing or lack rows: first what a reader compares with the paper's main table."""
BARE = {
    "finetune": speed.bare_finetune,
    "generative-replay": speed.bare_generative_replay,
    "brain-inspired-replay": speed.bare_brain_inspired_replay,
}


DEAR = {
    "generative replay of pixels, CIFAR-100": ("brain-inspired-replay-internal", "GR of pixels", "class"),
    "HNET with ResNet-32, CIFAR-100": ("hypernetwork-split-cifar100", "HNET", "task"),
}
"""{piece: (recipe, row, scenario)} of which one step is timed, with the row's settings and weights that know nothing."""
FEW = {"cpu": 1, "cuda": 20}
"""Steps per task of those."""


class OutOfTime(Exception):
    """The time is up: what is not finished is left for the next call."""


class Clock:
    """The time that is left. What is being measured when it is up is broken off, where the system has an alarm."""

    def __init__(self, minutes: float) -> None:
        self.end = time.monotonic() + 60 * minutes
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, 60 * minutes)

    @staticmethod
    def _ring(*_: object) -> None:
        raise OutOfTime

    def left(self, at_least: float = 0.0) -> float:
        """Seconds.

        Raises:
            OutOfTime: fewer than `at_least`.
        """
        left = self.end - time.monotonic()
        if left <= at_least:
            raise OutOfTime
        return left


def run_for(words: list[str], seconds: float) -> tuple[int, str]:
    """(exit code, output) of a command, which gets Ctrl-C when its time is up.

    Raises:
        OutOfTime: it was.
    """
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        raise OutOfTime from None
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def tests(clock: Clock) -> dict[str, Any]:
    """The CUDA tests: how many passed and failed. Where they are emulated they may take longer than their share."""
    words = [sys.executable, "-m", "pytest", "-q", "-n", "4", "tests/test_cuda.py"]
    code, output = run_for(words, clock.left(5) / 3)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", output)}
    return {"exit_code": code, **counts, **({} if code == 0 else {"output": output[-2000:]})}


def method_speed(name: str, device: str) -> Callable[[Clock], dict[str, Any]]:
    """Steps per second of a method in its second task, on the device and on the CPU."""

    def measure(clock: Clock) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for where in dict.fromkeys([device, "cpu"]):
            clock.left(5)
            data = load("mnist")
            few = replace(data, x_test=data.x_test[:TESTED], y_test=data.y_test[:TESTED])
            stream = split(few, METHODS[name].scenarios[-1], classes=[[0, 1], [2, 3]])
            settings = fitting(name, {**SETTINGS, "features": "inputs"})
            run = clteach.train(name, stream, steps=STEPS[where], batch_size=seeds.BATCH, device=where, **settings)
            steps = sum(phase.steps for phase in run.phases(1))
            row[f"{where}_steps_per_second"] = round(steps / max(run.seconds[1], 1e-9), 1)
        if name in BARE:
            with torch.device(device):
                row["bare_loop_steps_per_second"] = round(_rate(BARE[name](), device), 1)
        return row

    return measure


def step_time(recipe: str, row: str, scenario: str, device: str) -> Callable[[Clock], dict[str, Any]]:
    """Milliseconds of a training step of a row of a recorded table, in its second task."""

    def measure(clock: Clock) -> dict[str, Any]:
        clock.left(60)
        record = RECIPES[recipe]
        assert isinstance(record, Recipe)
        method, changed, of_stream = record.rows[row]
        preset = column(record.presets[0], record.stream)
        settings = {**preset.settings(method, scenario), **chosen(changed, scenario)}
        stream = make_stream(record.stream, scenario, **{**preset.stream, **of_stream, "seed": 0}).upto(2)
        settings.pop("weights", None)
        run = clteach.train(
            method, stream, steps=FEW[device], batch_size=preset.batch, device=device, **fitting(method, settings)
        )
        steps = sum(phase.steps for phase in run.phases(1))
        return {"ms_per_step": round(1e3 * run.seconds[1] / steps, 2), "steps_of_the_record": preset.steps}

    return measure


def _rate(step: Callable[[int], None], device: str) -> float:
    """Steps per second, after a few that warm up."""
    for s in range(5):
        step(s)
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for s in range(BARE_STEPS):
        step(s)
    if device != "cpu":
        torch.cuda.synchronize()
    return BARE_STEPS / (time.perf_counter() - start)


def many_seeds(name: str, data: str, device: str) -> Callable[[Clock], dict[str, Any]]:
    """`SEEDS` seeds of a method at once beside one after the other."""

    def measure(clock: Clock) -> dict[str, Any]:
        clock.left(20)
        return seeds.measured((name,), SEEDS, 3, device, {data: seeds.TARGETS[data]})[f"{name}, {data}"]

    return measure


def recorded(name: str, device: str) -> Callable[[Clock], dict[str, Any]]:
    """A record that is still short or lacks rows; stopped in time, its runs go on from their checkpoints."""

    def measure(clock: Clock) -> dict[str, Any]:
        rows = missing_rows(name)
        if rows == []:
            return {"output": "the package's record has all rows"}
        words = [sys.executable, "-m", "clteach", "reproduce", name, "--device", device, "--together"]
        words += ["--out", "results", *(["--rows", *rows] if rows else [])]
        code, output = run_for(words, clock.left(30) - 20)
        if code:
            raise ClteachError(f"{' '.join(words[1:])} ended with {code}: {output[-500:]}")
        return {"output": output[-500:]}

    return measure


def missing_rows(name: str, to: Path = ROOT / "results") -> list[str] | None:
    """The rows that the package's record of a recipe lacks; a copy of it is put into `to`, for them to join.

    None: it has none, or a shortened one.
    """
    recipe = RECIPES[full_name(name)]
    if not isinstance(recipe, Recipe):
        return None
    stem = full_name(name) + (f"-{recipe.presets[0]}" if len(recipe.presets) > 1 else "")
    file = f"{stem.replace('-', '_')}.json"
    if not (FOLDER / file).exists():
        return None
    if not (to / file).exists():
        to.mkdir(parents=True, exist_ok=True)
        shutil.copy(FOLDER / file, to)
    there = {cell["row"] for cell in json.loads((to / file).read_text(encoding="utf-8"))["cells"]}
    return [row for row in recipe.rows if row not in there]


def pieces(device: str) -> Iterator[tuple[str, Callable[[Clock], dict[str, Any]]]]:
    """(name, what measures it) of all pieces, the most important ones first."""
    yield "tests", tests
    for name in METHODS:
        yield f"speed of {name}", method_speed(name, device)
    for name, (recipe, row, scenario) in DEAR.items():
        yield f"step of {name}", step_time(recipe, row, scenario, device)
    for data in seeds.TARGETS:
        for name in seeds.METHODS:
            yield f"{SEEDS} seeds of {name}, {data}", many_seeds(name, data, device)
    for name in WANTED:
        yield f"record {full_name(name)}", recorded(name, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="stop after so many minutes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="pieces that have one of these words in their names")
    parser.add_argument("--out", type=Path, help="default: benchmarks/gpu.json, of a trial results/gpu-trial.json")
    args = parser.parse_args()
    args.out = args.out or ROOT / ("results/gpu-trial.json" if args.device == "cpu" else "benchmarks/gpu.json")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    clock = Clock(args.minutes)
    torch.set_num_threads(1)
    same = {
        "device": {**machine(args.device), "threads_per_process": 1},
        "commit": checkout(),
        "torch": torch.__version__,
    }
    record = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    if {key: record.get(key) for key in same} != same:
        record = {"command": "python -m benchmarks.gpu", **same, "target_many_seeds": seeds.ON_A_GPU, "pieces": {}}
    everything = [
        (name, measure)
        for name, measure in pieces(args.device)
        if args.only is None or any(word in name for word in args.only)
    ]
    for name, measure in everything:
        if name in record["pieces"]:
            continue
        try:
            record["pieces"][name] = measure(clock)
            write_json(args.out, record)
            print(f"{name}: {record['pieces'][name]}", flush=True)
        except OutOfTime:
            continue
        except ClteachError as error:  # data that are not here, say: no reason to do without the rest
            print(f"{name}: {error}", flush=True)
    left = [name for name, _ in everything if name not in record["pieces"]]
    print(f"{len(everything) - len(left)} of {len(everything)} pieces are in {args.out}", flush=True)
    if left:
        print(f"the same command goes on with {', '.join(left[:3])}{', ...' if len(left) > 3 else ''}")


if __name__ == "__main__":
    main()
