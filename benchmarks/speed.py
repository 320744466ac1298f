"""Steps per second of every method beside a bare loop of the same arithmetic, both in one process, in turn.

A bare loop holds its tensors in memory and does the same forward and backward passes and the same fused Adam, nothing
else: no batches to draw, no scenario, no bookkeeping. Machines are noisy, so only ratios are meant to be compared: each is
the median over rounds in which both loops run one after the other.

    python benchmarks/speed.py [--steps 40] [--rounds 25] [--threads 2] [--out benchmarks/speed.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.catalogue import load
from clteach.data.streams import split
from clteach.data.tasks import Shuffle, Stream
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.provenance import checkout, machine
from clteach.learners.fisher import fisher_diagonal
from clteach.learners.learner import Learner
from clteach.learners.optim import IDLE_EVERY, adam, drop_idle_moments
from clteach.methods import METHODS, build
from clteach.models.nets import mlp
from clteach.models.vae import VAE
from clteach.seeding import derive

HIDDEN, BATCH, Z = (400, 400), 128, 100
TARGETS = {"finetune": 0.9, "generative-replay": 0.85, "brain-inspired-replay": 0.85}
"""To reach: the share of the bare loop's steps per second."""
OF_FINETUNE = {"ewc": 0.8, "si": 0.7, "lwf": 0.6, "fromp": 0.4, "icarl": 0.5}
"""To reach: the share of fine-tuning's steps per second."""
LONG = 1500
"""Steps after which the moments of weights without a gradient have long become denormal."""
TWO_CORES = 1.7
"""To reach: how much faster two processes finish a sweep than one."""


def learner_step(name: str, stream: Stream, task: int, drop: bool = True) -> tuple[Learner, Callable[[int], None]]:
    """A learner that has been through tasks 1..task-1 (few steps each), and a function that does training step s."""
    learner = build(name, stream.spec, hidden=HIDDEN)
    rng = torch.Generator()
    for t in range(task):
        data = learner.training_data(stream, t)
        phase = learner.phases(t, 20)[0]
        learner.enter(t, phase)
        learner.begin_phase(t, phase, data, rng)
        shuffle = Shuffle(len(data), BATCH, t, torch.device("cpu"))
        if t < task - 1:
            for s in range(phase.steps):
                learner.step(batch := data.batch(shuffle(s)), learner.draw(len(batch.y), rng))
            learner.end_task(t, data, rng)

    def step(s: int) -> None:  # what the loop in clteach.training does in every step
        if drop and s % IDLE_EVERY == 0:
            for opt in learner.opts.values():
                drop_idle_moments(opt)
        batch = data.batch(shuffle(s))
        rng.manual_seed(derive(0, "step", task - 1, 0, s))
        learner.step(batch, learner.draw(len(batch.y), rng))

    return learner, step


def bare_finetune() -> Callable[[int], None]:
    """Forward, cross-entropy, backward, Adam."""
    net = mlp((1, 28, 28), HIDDEN, 10)
    optimizer = adam(net.parameters(), 1e-3)
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))

    def step(s: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step


def bare_generative_replay() -> Callable[[int], None]:
    """The same classifier, VAE and sampling passes as a step of generative replay, from task 2 on."""
    net, old_net = mlp((1, 28, 28), HIDDEN, 10), mlp((1, 28, 28), HIDDEN, 10)
    vae, old_vae = VAE((1, 28, 28), HIDDEN, Z), VAE((1, 28, 28), HIDDEN, Z)
    optimizers = [adam(m.parameters(), 1e-3) for m in (net, vae)]
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))

    def step(s: int) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            replayed = old_vae.sample(torch.randn(BATCH, Z))
            targets = F.softmax(old_net(replayed) / 2, 1)
        both = torch.cat([x, replayed])
        logits = net(both)
        loss = F.cross_entropy(logits[:BATCH], y) + F.cross_entropy(logits[BATCH:] / 2, targets)
        pixels, mean, logvar = vae(both, torch.randn(2 * BATCH, Z))
        loss = loss + F.binary_cross_entropy_with_logits(pixels, both.flatten(1))
        loss = loss + 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / both.numel()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def bare_brain_inspired_replay(gating: float = 0.1) -> Callable[[int], None]:
    """One network with feedback, a prior and gates per class, and its old copy, as in BI-R from task 2 on."""
    trunk, head = mlp((1, 28, 28), HIDDEN[:-1], HIDDEN[-1]), nn.Linear(HIDDEN[-1], 10)
    old_trunk, old_head = mlp((1, 28, 28), HIDDEN[:-1], HIDDEN[-1]), nn.Linear(HIDDEN[-1], 10)
    to_z, decoder, old_decoder = nn.Linear(HIDDEN[-1], 2 * Z), mlp((Z,), HIDDEN, 784), mlp((Z,), HIDDEN, 784)
    mean, logvar = (nn.Parameter(torch.randn(10, Z)) for _ in range(2))
    gates = [(torch.rand(10, units) >= gating).float() for units in HIDDEN]
    parameters = [p for m in (trunk, head, to_z, decoder) for p in m.parameters()]
    optimizer = adam([*parameters, mean, logvar], 1e-3)
    x, y = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))

    def decode(net: nn.Sequential, z: Tensor, label: Tensor) -> Tensor:
        h = net[2](net[1](z)) * (label @ gates[0])
        return net[5](net[4](net[3](h)) * (label @ gates[1]))

    def step(s: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            meant = F.one_hot(torch.randint(0, 10, (BATCH,)), 10).float()
            z = meant @ mean + (0.5 * meant @ logvar).exp() * torch.randn(BATCH, Z)
            replayed = decode(old_decoder, z, meant).sigmoid()
            targets = F.softmax(old_head(old_trunk(replayed).relu()) / 2, 1)
            label = torch.cat([F.one_hot(y, 10).float(), targets])
        both = torch.cat([x.flatten(1), replayed])
        hidden = trunk(both).relu()
        logits = head(hidden)
        loss = F.cross_entropy(logits[:BATCH], y) + F.cross_entropy(logits[BATCH:] / 2, targets)
        q_mean, q_logvar = to_z(hidden).chunk(2, 1)
        eps = torch.randn(2 * BATCH, Z)
        z = q_mean + (0.5 * q_logvar).exp() * eps
        loss = loss + F.binary_cross_entropy_with_logits(decode(decoder, z, label), both)
        precision = (-logvar).exp()
        distance = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
        log_p = torch.logsumexp(label.log() - 0.5 * (distance + logvar.sum(1)), 1)
        loss = loss - (0.5 * (eps.square() + q_logvar).sum(1) + log_p).sum() / both.numel()
        loss.backward()
        optimizer.step()

    return step


def race(first: Callable[[int], None], second: Callable[[int], None], steps: int, rounds: int) -> dict[str, float]:
    """Milliseconds per step of both, and how fast the first is as a share of the second (median over rounds)."""
    times: list[tuple[float, float]] = []
    s = 0
    for turn in range(rounds + 1):
        row = []
        for step in (first, second):
            start = time.perf_counter()
            for k in range(steps):
                step(s + k)
            row.append((time.perf_counter() - start) / steps * 1e3)
        s += steps
        if turn:  # the first round warms up
            times.append((row[0], row[1]))
    return {
        "ms": round(statistics.median(a for a, _ in times), 3),
        "other_ms": round(statistics.median(b for _, b in times), 3),
        "ratio": round(statistics.median(b / a for a, b in times), 3),
    }


def far_into_a_task(stream: Stream, drop: bool) -> Callable[[int], None]:
    """A step of fine-tuning, `LONG` steps into the second task, with or without `drop_idle_moments`."""
    step = learner_step("finetune", stream, 2, drop)[1]
    for s in range(LONG):
        step(s)
    return lambda s: step(LONG + s)


def fisher_ms_per_sample(stream: Stream) -> float:
    """Milliseconds per sample of EWC's Fisher information over all ten labels."""
    net: nn.Module = mlp((1, 28, 28), HIDDEN, 10)
    active = torch.ones(10, dtype=torch.bool)
    data = stream[0].train.subset(torch.arange(5000))
    fisher_diagonal(net, data, active)
    start = time.perf_counter()
    fisher_diagonal(net, data, active)
    return (time.perf_counter() - start) / len(data) * 1e3


def sweep_speedup(steps: int = 600) -> dict[str, float]:
    """Seconds of four equal runs one after the other, and side by side on two cores (started workers are not timed)."""
    jobs = [
        Job("ewc", "split-mnist", seed=seed, steps=steps, settings={"hidden": HIDDEN}, device="cpu")
        for seed in range(4)
    ]
    seconds: list[float] = []
    for n_jobs in (1, 2, 1, 2):  # the first two warm up: loading the data, starting the workers
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            run_jobs(jobs if len(seconds) > 1 else [replace(job, steps=20) for job in jobs], folder, n_jobs=n_jobs)
            seconds.append(time.perf_counter() - start)
    return {"one_s": round(seconds[2], 2), "two_s": round(seconds[3], 2), "ratio": round(seconds[2] / seconds[3], 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/speed.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stream = split(load("mnist"), "class")
    timing = {"steps": args.steps, "rounds": args.rounds}
    rows: dict[str, object] = {}
    commit = checkout()

    def note(name: str, row: dict[str, float], target: float | None) -> None:
        rows[name] = {**row, "target": target}
        print(
            f"{name:56s} {row['ms']:7.2f} ms  {row['other_ms']:7.2f} ms  ratio {row['ratio']:.2f}  target {target or '–'}"
        )

    print(f"{'':56s}      ours       other")
    note("finetune / bare loop", race(learner_step("finetune", stream, 2)[1], bare_finetune(), **timing), 0.9)
    note(
        f"finetune, {LONG} steps into a task / moments not dropped",
        race(far_into_a_task(stream, True), far_into_a_task(stream, False), **timing),
        None,
    )
    replaying = {"generative-replay": bare_generative_replay, "brain-inspired-replay": bare_brain_inspired_replay}
    for name, bare in replaying.items():
        for task in (2, 5):
            step = learner_step(name, stream, task)[1]
            note(f"{name} task {task} / bare loop", race(step, bare(), **timing), TARGETS[name])
    for name in METHODS:
        if name in TARGETS or "class" not in METHODS[name].scenarios:
            continue
        if METHODS[name].measure != "accuracy":  # another arithmetic altogether, see benchmarks/multiband.py
            continue
        for task in (2, 5):
            ours, plain = learner_step(name, stream, task)[1], learner_step("finetune", stream, task)[1]
            note(f"{name} task {task} / finetune", race(ours, plain, **timing), OF_FINETUNE.get(name))
    fisher = fisher_ms_per_sample(stream)
    print(f"Fisher information {fisher:.3f} ms per sample")
    scaling = sweep_speedup()
    print(f"four runs: {scaling['one_s']} s with one process, {scaling['two_s']} s with two; target {TWO_CORES}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"peak memory {peak:.2f} GiB")
    record = {
        "command": f"python benchmarks/speed.py --steps {args.steps} --rounds {args.rounds} --threads {args.threads}",
        "network": f"784-{HIDDEN[0]}-{HIDDEN[1]}-10, batch {BATCH}, z {Z}, split MNIST, class-incremental",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": args.threads},
        "rows": rows,
        "fisher_ms_per_sample": round(fisher, 4),
        "two_processes": {**scaling, "target": TWO_CORES},
        "peak_memory_gib": round(peak, 3),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
