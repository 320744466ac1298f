"""Steps per second of many seeds trained at once (`clteach.train_seeds`) beside the same seeds one after the other.

One thread on a CPU. Both are taken in turn in one process, in the second task of a class-incremental stream, with all that
a step of the training loop does: drawing batches and noise, the loss, the optimiser. Times are processor times, so that a
busy machine matters less; each ratio is the median over the rounds.

    python -m benchmarks.seeds [--seeds 10] [--rounds 15] [--device cpu] [--out benchmarks/seeds.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clteach.data.catalogue import load
from clteach.data.streams import split
from clteach.data.tasks import Shuffle, Stream
from clteach.experiments.provenance import checkout, machine
from clteach.learners.learner import Learner, Phase
from clteach.methods import build
from clteach.seeding import derive, generator
from clteach.training.graphs import step_of
from clteach.training.seeds import Draws, Stack, pays_off
from clteach.training.start import Plan

METHODS = ("finetune", "ewc", "si", "lwf", "er", "generative-replay")
TARGETS = {"digits": 2.0, "mnist": 1.0}
"""To reach on a CPU, with one thread and 10 seeds: how many times as many steps per second."""
ON_A_GPU = 8.0
"""To reach on a GPU with 20 seeds."""
HIDDEN = {"digits": (100, 100), "mnist": (400, 400)}
BATCH = 128
BETWEEN = 20
"""Steps in each task, which the learners have been through before they are measured."""


def in_second_task(name: str, stream: Stream, hidden: tuple[int, ...], seed: int) -> tuple[Learner, Phase]:
    """A learner that has learned the first task in a few steps, and begun the second."""
    device = stream[0].train.device
    learner = build(name, stream.spec, hidden=hidden, seed=seed).to(device)
    for t in range(2):
        data, phase = learner.training_data(stream, t), learner.phases(t, BETWEEN)[0]
        learner.enter(t, phase)
        learner.begin_phase(t, phase, data, generator(seed, "begin", t, device=device))
        if t == 0:
            shuffle = Shuffle(len(data), BATCH, derive(seed, "shuffle", t), device)
            for s in range(phase.steps):
                learner.step(data.batch(shuffle(s)), learner.draw(BATCH, generator(seed, s, device=device)))
            learner.end_task(t, data, generator(seed, "end", device=device))
    return learner, phase


def steps_of(name: str, stream: Stream, hidden: tuple[int, ...], seeds: int) -> tuple[Callable, Callable, Learner]:
    """Functions that do step s of all seeds, one after the other and at once; and one of the learners."""
    device = stream[0].train.device
    alone = [in_second_task(name, stream, hidden, seed)[0] for seed in range(seeds)]
    stack = Stack([in_second_task(name, stream, hidden, seed)[0] for seed in range(seeds)])
    stack.enter(1, alone[0].phases(1, BETWEEN)[0])
    stack.follow()
    plans = [Plan(BETWEEN, BATCH, seed, device, None, None, 1, 0, 1, "test", False) for seed in range(seeds)]
    draws = Draws(stack, [learner.training_data(stream, 1) for learner in stack.learners], plans, 1, 0)
    data, rng = alone[0].training_data(stream, 1), torch.Generator(device)
    shuffles = [Shuffle(len(data), BATCH, derive(seed, "shuffle", 1, 0), device) for seed in range(seeds)]

    phase = alone[0].phases(1, BETWEEN)[0]
    steps, step = [step_of(learner, phase) for learner in alone], step_of(stack.whole, phase, stack.step)

    def one_by_one(s: int) -> None:
        for seed, (learner, do, shuffle) in enumerate(zip(alone, steps, shuffles, strict=True)):
            batch = data.batch(shuffle(s))
            rng.manual_seed(derive(seed, "step", 1, 0, s))
            do(batch, learner.draw(BATCH, rng))

    def at_once(s: int) -> None:
        step(draws.batch(s), draws.noise(s))

    return one_by_one, at_once, alone[0]


def race(
    one_by_one: Callable[[int], None], at_once: Callable[[int], None], seeds: int, rounds: int, gpu: bool
) -> dict[str, float]:
    """Milliseconds per step and seed of both, and how many times faster the second is (median over rounds)."""
    clock = time.perf_counter if gpu else time.process_time
    times: list[list[float]] = []
    steps = 10
    for turn in range(rounds + 1):
        row = []
        for step in (one_by_one, at_once):
            if gpu:
                torch.cuda.synchronize()
            start = clock()
            for s in range(turn * steps, (turn + 1) * steps):
                step(s)
            if gpu:
                torch.cuda.synchronize()
            row.append((clock() - start) / steps / seeds * 1e3)
        if turn:  # the first round warms up
            times.append(row)
    return {
        "one_by_one_ms": round(statistics.median(a for a, _ in times), 3),
        "at_once_ms": round(statistics.median(b for _, b in times), 3),
        "ratio": round(statistics.median(a / b for a, b in times), 3),
    }


def measured(
    methods: tuple[str, ...], seeds: int, rounds: int, device: str, targets: dict[str, float] = TARGETS
) -> dict[str, dict[str, Any]]:
    """{"METHOD, DATA": row} for the data sets that have a target."""
    rows: dict[str, dict[str, Any]] = {}
    gpu = device != "cpu"
    for data, target in targets.items():
        stream = split(load(data), "class").to(device)
        for name in methods:
            one_by_one, at_once, learner = steps_of(name, stream, HIDDEN[data], seeds)
            row = race(one_by_one, at_once, seeds, rounds if data == "digits" else max(rounds // 3, 2), gpu)
            used = pays_off(learner, BATCH, device)
            rows[f"{name}, {data}"] = {**row, "target": ON_A_GPU if gpu else target, "used_by_run": used}
            print(f"{name:20s} {data:7s} {row['one_by_one_ms']:7.3f} ms one by one  {row['at_once_ms']:7.3f} ms at once  "
                  f"ratio {row['ratio']:.2f}  target {ON_A_GPU if gpu else target}")  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/seeds.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    commit = checkout()
    rows = measured(METHODS, args.seeds, args.rounds, args.device)
    record = {
        "command": f"python -m benchmarks.seeds --seeds {args.seeds} --rounds {args.rounds} --device {args.device}",
        "setting": f"batch {BATCH}, second of five tasks, digits {HIDDEN['digits']}, MNIST {HIDDEN['mnist']}",
        "times": "processor time, one thread" if args.device == "cpu" else "wall time",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": 1},
        "seeds": args.seeds,
        "rows": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
