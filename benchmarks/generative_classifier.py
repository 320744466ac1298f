"""Seconds that a generative classifier takes to classify 10,000 images, with a VAE for each of 10 classes and 100 samples.

What must be computed for it is ten million decoded images. Beside it stands a bare matrix product of that size, the last
layer of all decoders alone: nothing that decodes all samples can be faster.

    python benchmarks/generative_classifier.py [--threads 2] [--rounds 3] [--out benchmarks/generative_classifier.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from clteach.data.catalogue import load
from clteach.data.streams import split
from clteach.experiments.provenance import checkout, machine
from clteach.methods.generative_classifier import AT_ONCE, GenerativeClassifier

IMAGES = 10_000
TARGET_SECONDS = 20.0
"""To reach on two CPU cores."""


def seconds(work: Callable[[], object], rounds: int) -> list[float]:
    """The seconds of each round."""
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(round(time.perf_counter() - start, 2))
    return found


def prediction(learner: GenerativeClassifier, x: Tensor) -> Callable[[], None]:
    """The likelihoods of all images x, 1000 at a time as in an evaluation."""

    def work() -> None:
        for part in x.split(1000):
            learner.predict(part)

    return work


def bare_product(learner: GenerativeClassifier) -> Callable[[], None]:
    """The product of the decoders' last layers, for all images, samples and classes, in the same pieces."""
    k, s, p = learner.spec.n_out, len(learner.eps), learner.spec.pixels
    rows = max(1, AT_ONCE // (k * s * p)) * s
    h, weight = torch.rand(k, rows, learner.cfg.hidden[0]), torch.rand(k, learner.cfg.hidden[0], p)

    def work() -> None:
        for _ in range(IMAGES * s // rows):
            torch.bmm(h, weight)

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/generative_classifier.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stream = split(load("mnist"), "class", tasks=5)
    rows: dict[str, object] = {}
    x = torch.cat([batch.x for task in stream for batch in task.test.batches()])[:IMAGES]
    for observation in ("trained", "gaussian"):
        learner = GenerativeClassifier(stream.spec, GenerativeClassifier.Config(observation=observation))
        learner.predict(x[:100])
        found = seconds(prediction(learner, x), args.rounds)
        rows[observation] = {"seconds": found, "median": statistics.median(found), "target": TARGET_SECONDS}
        print(f"{observation:10s} {found} s, target {TARGET_SECONDS} s")
    found = seconds(bare_product(learner), args.rounds)
    rows["bare product of the last layers"] = {"seconds": found, "median": statistics.median(found)}
    print(f"bare product of the last layers {found} s")
    record = {
        "command": f"python benchmarks/generative_classifier.py --threads {args.threads} --rounds {args.rounds}",
        "network": f"10 VAEs of {learner.cfg.hidden} units, z {learner.cfg.z}, {learner.cfg.samples} samples",
        "images": IMAGES,
        "commit": checkout(),
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": args.threads},
        "rows": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
