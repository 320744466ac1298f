"""What brain-inspired replay dreams of on CIFAR-100. Dreams are features, so of each the nearest photograph is shown.

    clteach reproduce brain-inspired-replay-split-cifar100 --rows BI-R --keep
    python -m clteach.experiments.dreamed_photographs results/runs/FOLDER

The first trains for hours on a CPU and keeps the model; the second looks at it for two minutes and writes `FILE` into the
package, where `load` finds it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clteach import storage
from clteach.data.catalogue import load as load_dataset
from clteach.data.extractors import encode
from clteach.data.streams import make_stream
from clteach.errors import ConfigError
from clteach.experiments.papers import column
from clteach.experiments.papers.baselines import CIFAR10
from clteach.experiments.provenance import checkout, machine
from clteach.methods.brain_inspired_replay import BrainInspiredReplay
from clteach.progress import bar
from clteach.seeding import generator
from clteach.training.run import Run

FILE = Path(__file__).parents[1] / "results" / "dreamed_photographs.safetensors"
ROWS = 10
"""Classes that are shown, the same number of each task that was learned."""
SHOWN = 6
"""Photographs of a class, and dreams of it."""
DREAMS = 100
"""Dreams of a class of which is asked whether the nearest photograph is of that class."""


class Dreamed(NamedTuple):
    """Dreams of one class."""

    name: str
    task: int  # which learned it, from 0
    real: Tensor  # (SHOWN, 3, 32, 32) uint8, training images of the class
    nearest: Tensor  # (SHOWN, 3, 32, 32) uint8, to one dream each
    share: float  # in [0, 1], of DREAMS dreams: the nearest training image is of the class


def nearest(dreams: Tensor, features: Tensor) -> Tensor:
    """(D,) which of the features (N, n) is nearest to each dream (D, n), by Euclidean distance."""
    return torch.cat([torch.cdist(part, features).argmin(1) for part in dreams.split(50)])


def make(folder: str | Path, out: str | Path = FILE, seed: int = 0) -> Path:
    """Look up the dreams of a kept run on split CIFAR-100, and write the photographs with how they came about.

    Args:
        folder: of a run of "brain-inspired-replay" on "split-cifar100" that `clteach reproduce --keep` left.
        out: file to write.
        seed: of the dreams.

    Raises:
        ConfigError: it is a run of another method or on other data.
        ClteachError: the run, or the photographs, cannot be read.
    """
    run = Run.load(folder)
    learner, photographs = run.learner, load_dataset("cifar100")
    settings = {**column("2020", "split-cifar100").stream, **CIFAR10}
    stream = make_stream("split-cifar100", seed=run.config["train_seed"], **settings)
    if type(learner) is not BrainInspiredReplay or run.config["fingerprint"] != stream.fingerprint:
        raise ConfigError(
            f"{folder} is a run of {learner.name} on {run.config['stream']} ({run.config['fingerprint']}). Expected one of "
            f"brain-inspired-replay on split-cifar100 as published ({stream.fingerprint}): clteach reproduce "
            "brain-inspired-replay-split-cifar100 --rows BI-R --keep."
        )
    features = encode(photographs, **CIFAR10).x_train
    learned = int((~run.accuracy.isnan()).any(1).sum())  # tasks
    per_task = -(-ROWS // learned)
    tensors: dict[str, Tensor] = {}
    classes: list[dict[str, Any]] = []
    with bar("dreams") as report:
        for t, task in enumerate(stream.upto(learned)):
            for unit, name in zip(stream.spec.units[t], task.classes, strict=True):
                report(len(classes), stream.spec.n_out, name)
                dreams = learner.sample(DREAMS, generator(seed, "dreams", unit), torch.full((DREAMS,), unit))
                found, label = nearest(dreams, features), photographs.classes.index(name)
                share = float((photographs.y_train[found] == label).double().mean())
                classes.append({"name": name, "task": t, "share": share})
                if unit in stream.spec.units[t][:per_task]:
                    real = (photographs.y_train == label).nonzero()[:SHOWN, 0]
                    tensors[f"{name}/real"] = photographs.x_train[real]
                    tensors[f"{name}/nearest"] = photographs.x_train[found[:SHOWN]]
    about: dict[str, Any] = {
        "command": "python -m clteach.experiments.dreamed_photographs FOLDER",
        "commit": checkout(),
        "seed": seed,
        "device": machine(),
        "run": {
            "steps": run.config["steps"],
            "seed": run.config["train_seed"],
            "device": run.config["device"],
            "tasks": learned,
        },
        "classes": classes,
    }
    return storage.save_tensors(out, tensors, about)


def load(path: str | Path = FILE) -> tuple[list[Dreamed], dict[str, Any]]:
    """The first classes of every task, dreamed of after the last; and how they were recorded, with every class's share.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, about = storage.load_tensors(path)
    shown = [
        Dreamed(
            each["name"],
            each["task"],
            tensors[f"{each['name']}/real"],
            tensors[f"{each['name']}/nearest"],
            each["share"],
        )
        for each in about["classes"]
        if f"{each['name']}/real" in tensors
    ]
    return shown, about


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m clteach.experiments.dreamed_photographs", description=make.__doc__)
    parser.add_argument("folder", type=Path, help="the kept run")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default: in the package)")
    given = parser.parse_args()
    print(make(given.folder, given.out))
