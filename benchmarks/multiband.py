"""Milliseconds per local and per global step of Multiband VAE beside bare loops of the same arithmetic.

As in benchmarks/speed.py: a bare loop holds its tensors in memory and does the same forward and backward passes, clipping
and fused Adam, nothing else. The target in milliseconds is 2.5 times as fast as the published code on two CPU cores.

    python -m benchmarks.multiband [--steps 40] [--rounds 15] [--threads 2] [--out benchmarks/multiband.json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.speed import race
from clteach.data.catalogue import load
from clteach.data.streams import split
from clteach.data.tasks import Shuffle, Stream
from clteach.experiments.provenance import checkout, machine
from clteach.learners.optim import adam
from clteach.methods.multiband_vae import Decoder, MultibandVAE
from clteach.models.nets import mlp
from clteach.seeding import derive

BATCH, Z, BITS, PIXELS = 64, 8, 4, 784
TARGET_RATIO = 0.85
TARGET_MS = {"local": 42 / 2.5, "global": 70 / 2.5}


def learner_step(stream: Stream, phase_name: str, task: int) -> Callable[[int], None]:
    """What the loop in clteach.training does in every step of a phase of a task (counted from 1)."""
    learner = MultibandVAE(stream.spec, MultibandVAE.Config(features="inputs"))
    data, rng = stream[task - 1].train, torch.Generator()
    for phase in learner.phases(task - 1, 10_000):
        learner.enter(task - 1, phase)
        learner.begin_phase(task - 1, phase, data, rng)
        if phase.name == phase_name:
            break
    shuffle = Shuffle(len(data), BATCH, task, torch.device("cpu"))

    def step(s: int) -> None:
        batch = data.batch(shuffle(s))
        rng.manual_seed(derive(0, "step", task - 1, 0, s))
        learner.step(batch, learner.draw(len(batch.y), rng))

    return step


def networks() -> tuple[nn.Module, Decoder]:
    """The paper's encoder, and its translator with decoder."""
    config = MultibandVAE.Config()
    encoder = mlp((1, 28, 28), config.hidden, 2 * Z + BITS, nn.LeakyReLU)
    return encoder, Decoder(PIXELS, 5, Z, BITS, config.translated, config.decoder_hidden)


def bare_local() -> Callable[[int], None]:
    """Encoder, decoder, ELBO, backward, clipping, Adam."""
    encoder, decoder = networks()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = adam(parameters, 1e-3, weight_decay=1e-5)
    x, task = torch.rand(BATCH, 1, 28, 28), torch.ones(BATCH, dtype=torch.int64)

    def step(s: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        mean, logvar, bits = encoder(x).split([Z, Z, BITS], 1)
        b = 2 * torch.sigmoid((bits + torch.rand(BATCH, BITS).logit(1e-6)) / 0.5) - 1
        logits = decoder(mean + (0.5 * logvar).exp() * torch.randn(BATCH, Z), b, task)
        loss = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum") / BATCH
        loss = loss + 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum() / BATCH
        loss.backward()
        nn.utils.clip_grad_value_(parameters, 4.0)
        optimizer.step()

    return step


def bare_global(task: int) -> Callable[[int], None]:
    """The same passes as a global step: encoder and old decoder without gradient, new decoder with it."""
    (encoder, decoder), (_, old) = networks(), networks()
    optimizer = adam(decoder.parameters(), 1e-3)
    replayed = int(BATCH * min(task - 1, 3) * 0.5)
    x, past = torch.rand(BATCH, 1, 28, 28), torch.arange(replayed) % (task - 1)
    tasks = torch.cat([torch.full((BATCH,), task - 1), past])

    def step(s: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            mean, logvar, bits = encoder(x).split([Z, Z, BITS], 1)
            z, b = mean + (0.5 * logvar).exp() * torch.randn(BATCH, Z), torch.sign(bits)
            old_z, old_b = torch.randn(replayed, Z), torch.sign(torch.rand(replayed, BITS) - 0.5)
            dreams = old(old_z, old_b, past).sigmoid()
        logits = decoder(torch.cat([z, old_z]), torch.cat([b, old_b]), tasks)
        target = torch.cat([x.flatten(1), dreams])
        (F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / len(target)).backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/multiband.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stream, commit = split(load("mnist"), "class"), checkout()
    rows = {}
    for name, phase, task, bare in (
        ("local step, task 2", "local", 2, bare_local()),
        ("global step, task 2", "global", 2, bare_global(2)),
        ("global step, task 5", "global", 5, bare_global(5)),
    ):
        row = race(learner_step(stream, phase, task), bare, args.steps, args.rounds)
        rows[name] = {**row, "target_ratio": TARGET_RATIO, "target_ms": round(TARGET_MS[phase], 1)}
        print(f"{name:20s} {row['ms']:6.2f} ms (target {TARGET_MS[phase]:.1f}), bare loop {row['other_ms']:6.2f} ms, "
              f"ratio {row['ratio']:.2f} (target {TARGET_RATIO})")  # fmt: skip
    options = f"--steps {args.steps} --rounds {args.rounds} --threads {args.threads}"
    record = {
        "command": f"python -m benchmarks.multiband {options}",
        "network": "the paper's for MNIST, batch 64",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": args.threads},
        "rows": rows,
    }
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
