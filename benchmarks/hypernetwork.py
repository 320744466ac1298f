"""A hypernetwork's step on split MNIST, and the time of its regulariser as past tasks accumulate.

The regulariser is timed twice: in the form that runs (inner products of small matrices) and as it is defined (generate all
weights of all past tasks), each with its gradient. Machines are noisy: every number is a median.

    python benchmarks/hypernetwork.py [--repeats 30] [--threads 2] [--direct-up-to 20] [--out benchmarks/hypernetwork.json]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clteach.data.tasks import Batch, Spec
from clteach.experiments.papers import column
from clteach.experiments.provenance import checkout, machine
from clteach.learners.learner import Phase
from clteach.methods import build
from clteach.methods.hypernetwork import Hypernetwork
from clteach.models.hypernet import Hypernet, Target, direct_drift
from clteach.models.nets import mlp
from clteach.plots import look

SPEC = Spec((1, 28, 28), 5, 10, "task", tuple((2 * t, 2 * t + 1) for t in range(5)))
SETTINGS = column("2020-hypernetworks", "split-mnist").settings("hypernetwork", "task")
TARGETS = {"step_ms": 15.0, "peak_memory_gib": 1.2, "growth_from_5_to_100": 1.5}
"""To reach, with 2 threads on 2 cores."""


def median_ms(f: Callable[[], object], repeats: int) -> float:
    """Milliseconds per call, the median over `repeats` calls after two to warm up."""
    f(), f()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return round(statistics.median(times) * 1e3, 3)


def step_ms(task: int, repeats: int) -> float:
    """A training step of the given task (1: no past), batch 128, the 2020 paper's settings."""
    learner = build("hypernetwork", SPEC, **SETTINGS)
    phase = Phase("train", 1)
    learner.enter(task - 1, phase)
    assert isinstance(learner, Hypernetwork)
    learner.hypernet.remember(task - 1)
    y = torch.randint(2 * task - 2, 2 * task, (128,))
    batch = Batch(torch.rand(128, 1, 28, 28), y, torch.full((128,), task - 1))
    return median_ms(lambda: learner.step(batch, {}), repeats)


def regulariser_ms(past: int, repeats: int, direct: bool) -> float:
    """The regulariser and its gradient with this many past tasks."""
    names = ("embedding", "chunk", "chunk_embedding")
    net = Hypernet(
        Target(mlp((1, 28, 28), (400, 400), 10)),
        past + 1,
        hidden=SETTINGS["hyper_hidden"],
        **{name: SETTINGS[name] for name in names},
    )
    net.remember(past)
    targets = net(net.first(past)).detach() if direct else None
    with torch.no_grad():
        net.last.add_(1e-3)

    def once() -> None:
        net.zero_grad(set_to_none=True)
        (net.drift(past) if targets is None else direct_drift(net, past, targets)).backward()

    return median_ms(once, repeats)


def picture(record: dict[str, Any], path: Path) -> Path:
    """Draw the regulariser's time against the number of past tasks."""
    with look.theme():
        fig = look.Picture(figsize=(6, 3.2), layout="constrained")
        ax = fig.subplots()
        for name, color, marker in (("gram", look.PURPLE, "o-"), ("direct", look.GREY, "s--")):
            points = {int(k): v for k, v in record["regulariser_ms"][name].items()}
            ax.plot(list(points), list(points.values()), marker, color=color, label=f"{name} form")
        ax.set(xlabel="past tasks", ylabel="time (ms), with the gradient", yscale="log")
        ax.legend()
    return look.save(fig, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--direct-up-to", type=int, default=20, help="past tasks up to which the direct form is timed")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/hypernetwork.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    commit = checkout()
    steps = {f"task {task}": step_ms(task, args.repeats) for task in (1, 2, 5)}
    gram = {past: regulariser_ms(past, args.repeats, direct=False) for past in (5, 20, 50, 100)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # before the direct form, which needs more
    direct = {
        p: regulariser_ms(p, max(3, args.repeats // 10), direct=True)
        for p in (5, 20, 50, 100)
        if p <= args.direct_up_to
    }
    record = {
        "command": f"python benchmarks/hypernetwork.py --repeats {args.repeats} --threads {args.threads}",
        "commit": commit,
        "torch": torch.__version__,
        "machine": {**machine(), "threads_per_process": args.threads},
        "targets": TARGETS,
        "step_ms": steps,
        "regulariser_ms": {"gram": gram, "direct": direct},
        "growth_from_5_to_100": round(gram[100] / gram[5], 3),
        "peak_memory_gib": round(peak, 3),
    }
    print(json.dumps(record, indent=1))
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out} and {picture(record, args.out.with_suffix('.png'))}")


if __name__ == "__main__":
    main()
