"""Milliseconds of a sampler's step and of training steps of the diffusion models, beside bare loops of the same arithmetic.

As in benchmarks/speed.py: a bare loop holds its tensors in memory and does the same passes and the same fused Adam, nothing
else. A step of the sampler is compared with the network's forward pass alone. The network is the dense one for MNIST.

    python -m benchmarks.diffusion [--steps 20] [--rounds 15] [--threads 2] [--out benchmarks/diffusion.json]
"""

from __future__ import annotations

import argparse
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import race
from clteach.data.catalogue import load
from clteach.data.streams import split
from clteach.data.tasks import Shuffle, Stream
from clteach.experiments.provenance import checkout, machine
from clteach.learners.optim import adam
from clteach.methods import METHODS
from clteach.methods.diffusion_replay import DiffusionGenerator
from clteach.models.diffusion import Diffusion, denoise
from clteach.models.frozen import frozen_copy
from clteach.seeding import derive

BATCH, LEVELS = 128, 1000
SETTINGS: dict[str, Any] = {"hidden": (512, 512), "network": "mlp", "features": "inputs"}
SAMPLER, TRAINING = 0.85, 0.9
"""To reach: the share of the bare loop's steps per second."""


def network() -> Diffusion:
    return Diffusion((1, 28, 28), 5, 10, SETTINGS["hidden"], network="mlp")


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images, tasks and classes."""
    return torch.rand(BATCH, 1, 28, 28), torch.randint(5, (BATCH,)), torch.randint(10, (BATCH,))


def sampler_step(net: Diffusion) -> Callable[[int], None]:
    """A step of DDIM: every call makes a chain of ten and is counted as ten."""
    _, task, y = batch()
    start = torch.randn(BATCH, 1, 28, 28)

    def epsilon(x: Tensor, t: int) -> Tensor:
        return net(x, torch.full_like(y, t), task, y)

    def step(s: int) -> None:
        deque(denoise(epsilon, start, net.signal, 10), maxlen=1)

    return step


def bare_forward(net: Diffusion) -> Callable[[int], None]:
    """Ten forward passes, nothing else."""
    x, task, y = batch()
    t = torch.randint(1, LEVELS, (BATCH,))

    def step(s: int) -> None:
        with torch.no_grad():
            for _ in range(10):
                net(x, t, task, y)

    return step


def learner_step(stream: Stream, name: str, task: int) -> Callable[[int], None]:
    """What the loop in clteach.training does in every step of a task (counted from 1)."""
    cls = METHODS[name]
    assert issubclass(cls, DiffusionGenerator)
    learner = cls(stream.spec, cls.Config(**SETTINGS))
    data, rng = stream[task - 1].train, torch.Generator()
    phase = learner.phases(task - 1, 10_000)[0]
    learner.enter(task - 1, phase)
    learner.begin_phase(task - 1, phase, data, rng)
    shuffle = Shuffle(len(data), BATCH, task, torch.device("cpu"))

    def step(s: int) -> None:
        now = data.batch(shuffle(s))
        rng.manual_seed(derive(0, "step", task - 1, 0, s))
        learner.step(now, learner.draw(len(now.y), rng))

    return step


def bare_training(replays: bool, distils: bool) -> Callable[[int], None]:
    """Noise, the passes of the network (and of its old copy), the squared error, backward, Adam."""
    net = network()
    old = frozen_copy(net)
    optimizer = adam(net.parameters(), 1e-3)
    x, task, y = (torch.cat([part, part]) if replays else part for part in batch())
    n = len(x)

    def step(s: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        t, eps = torch.randint(1, LEVELS, (n,)), torch.randn(n, 1, 28, 28)
        x_t = net.noised(x, t, eps)
        target = eps
        if distils:
            with torch.no_grad():
                target = torch.cat([eps[:BATCH], old(x_t[BATCH:], t[BATCH:], task[BATCH:], y[BATCH:])])
        (target - net(x_t, t, task, y)).square().mean().backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/diffusion.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stream, commit, net = split(load("mnist"), "class"), checkout(), network()
    rows = {}
    for name, ours, bare, target in (
        ("ten steps of DDIM / forward passes", sampler_step(net), bare_forward(net), SAMPLER),
        ("task 1", learner_step(stream, "diffusion-distill", 1), bare_training(False, False), TRAINING),
        ("standard replay, task 2", learner_step(stream, "diffusion-replay", 2), bare_training(True, False), TRAINING),
        ("distillation, task 2", learner_step(stream, "diffusion-distill", 2), bare_training(True, True), TRAINING),
    ):
        row = race(ours, bare, args.steps, args.rounds)
        rows[name] = {**row, "target": target}
        print(
            f"{name:36s} {row['ms']:7.2f} ms, bare {row['other_ms']:7.2f} ms, ratio {row['ratio']:.2f} (target {target})"
        )
    record = {
        "command": f"python -m benchmarks.diffusion --steps {args.steps} --rounds {args.rounds} --threads {args.threads}",
        "network": f"dense {SETTINGS['hidden']} for MNIST, batch {BATCH}",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": args.threads},
        "rows": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
