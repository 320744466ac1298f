"""Continual learning with hypernetworks (von Oswald et al. 2020): settings, recorded tables, one study."""

from __future__ import annotations

from typing import Any

import torch

from clteach.data.streams import make_stream
from clteach.experiments.papers.baselines import LONG, LONG_TESTS
from clteach.experiments.recipe import Column, Preset, Recipe, Row, Study
from clteach.methods.hypernetwork import Hypernetwork
from clteach.training.loop import train

_HNET_SPLIT = {"beta": 0.01, "embedding": 96, "chunk": 42000, "chunk_embedding": 96, "hyper_hidden": (10, 10)}
_HNET_SPLIT_REPLAY = {
    "z": 100,
    "encoder_hidden": (400, 400),
    "decoder_beta": 0.01 * 28 * 28,  # 0.01 beside a loss that is averaged over the pixels; here they are summed
    "decoder_embedding": 96,
    "decoder_chunk": 50000,
    "decoder_chunk_embedding": 96,
    "decoder_hyper_hidden": (10, 10),
    "decoder_activation": "elu",
}
_HNET_PERMUTED = {
    "beta": 0.1,
    "embedding": 24,
    "chunk": 78000,
    "chunk_embedding": 8,
    "hyper_hidden": (25, 25),
    "activation": "elu",
}
_HNET_PERMUTED_REPLAY = {
    "z": 100,
    "encoder_hidden": (1000, 1000),
    "decoder_hidden": (400, 400),
    "decoder_beta": 0.1 * 32 * 32,  # as above
    "decoder_embedding": 24,
    "decoder_chunk": 85000,
    "decoder_chunk_embedding": 8,
    "decoder_hyper_hidden": (25, 25),
    "decoder_activation": "elu",
}

_HNET_RESNET = {
    "target": "resnet32",
    "beta": 0.05,
    "embedding": 32,
    "chunk": 7000,
    "chunk_embedding": 32,
    "hyper_hidden": (),
}

_HNET_LATER_SPLIT = {
    "beta": 10.0 / 12_000,  # 10 beside a loss that is summed over the images of a task; here it is their mean
    "embedding": 32,
    "chunk": 8000,
    "chunk_embedding": 32,
    "hyper_hidden": (10, 10, 10, 10),
    "lookahead": False,
}

_HNET_2020 = {
    "split-mnist": Column(
        2000,
        128,
        {"hidden": (400, 400), "lr": 1e-3},
        {"tasks": 5, "class_order": "natural", "active_units": "seen"},
        {
            "hypernetwork": _HNET_SPLIT,
            "hypernetwork-ent": _HNET_SPLIT,
            "hypernetwork-r": {**_HNET_SPLIT_REPLAY, "decoder_hidden": (250, 350)},
            "hypernetwork-tir": {**_HNET_SPLIT, **_HNET_SPLIT_REPLAY, "decoder_hidden": (50, 150)},
        },
    ),
    "permuted-mnist": Column(
        5000,
        128,
        {"hidden": (1000, 1000), "lr": 1e-4},
        {"tasks": 10, "pad": 2, "active_units": "seen"},
        {
            "hypernetwork": _HNET_PERMUTED,
            "hypernetwork-ent": _HNET_PERMUTED,
            "hypernetwork-r": _HNET_PERMUTED_REPLAY,
            "hypernetwork-tir": {**_HNET_PERMUTED, **_HNET_PERMUTED_REPLAY},
        },
    ),
    "split-cifar100": Column(
        31250,  # 200 epochs of 5000 images
        32,
        {"lr": 1e-3},
        {"tasks": 10, "class_order": "natural", "active_units": "seen"},
        {"hypernetwork": _HNET_RESNET, "hypernetwork-ent": _HNET_RESNET},
    ),
}

_WITH_REPLAY_MODEL = ("hypernetwork-r", "hypernetwork-tir")

PRESETS: dict[str, Preset] = {
    "2020-hypernetworks": Preset(
        "continual learning with hypernetworks",
        "von Oswald, Henning, Grewe & Sacramento 2020, arXiv 1906.00695",
        _HNET_2020,
        notes=(
            (
                "the authors' code averages the replay model's loss over the pixels; here it is summed, so the strength of "
                "its regulariser is as many times larger as there are pixels",
                _WITH_REPLAY_MODEL,
            ),
            (
                "the replay model is told the class of an image; in the authors' code its decoder is told the task",
                _WITH_REPLAY_MODEL,
            ),
        ),
    ),
    "hypernetworks-later": Preset(
        "hypernetworks for smaller targets, without look-ahead",
        "later code by the authors of arXiv 1906.00695 (deterministic hypernetwork)",
        {
            "split-mnist": Column(
                5000,
                32,
                {"hidden": (100, 100), "lr": 5e-4},
                {"tasks": 5, "class_order": "natural", "active_units": "seen"},
                {"hypernetwork": _HNET_LATER_SPLIT, "hypernetwork-ent": _HNET_LATER_SPLIT},
            ),
        },
        notes=(
            "the authors' code sums the task's loss over its images; here it is their mean, so the strength of the "
            "regulariser is divided by 12,000, about as many as there are in a task",
            "the chunk embeddings are drawn with a standard deviation of 1, in the authors' code 0.1",
        ),
    ),
}

PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places on the line between two tasks' embeddings: 0 is the first task's own, 1 the second's."""


@torch.no_grad()
def embedding_line(
    seed: int,
    steps: int,
    first: int,
    second: int,
    stream: str = "split-mnist",
    column: Column = PRESETS["2020-hypernetworks"].columns["split-mnist"],
    **settings: Any,
) -> dict[str, float]:
    """Train a hypernetwork on all tasks, then walk from one task's embedding to another's in a straight line.

    Args:
        seed: seed of weights and training.
        steps: training steps per task.
        first: the task at whose embedding the line begins, from 1.
        second: the task at whose embedding it ends.
        stream: name of the stream, learned with the task known.
        column: the settings.
        **settings: fields of `Hypernetwork.Config` that differ from them.

    Returns:
        For each of `PLACES` the accuracies in percent of the network that is generated there, on the test images of the two
        tasks: ``first_PLACE`` and ``second_PLACE``.
    """
    tasks = make_stream(stream, "task", **column.stream)
    settings = {**column.settings("hypernetwork", "task"), **settings}
    with torch.enable_grad():
        run = train("hypernetwork", tasks, steps=steps, batch_size=column.batch, seed=seed, **settings)
    learner = run.learner.eval()
    assert isinstance(learner, Hypernetwork)
    begin, end = (learner.hypernet.embeddings[t - 1] for t in (first, second))
    tasks = tasks.to(begin.device)
    found = {}
    for place in PLACES:
        # e(s) = (1 - s) e_first + s e_second
        weights = learner.hypernet(torch.lerp(begin, end, place)[None])[0]
        for name, t in (("first", first - 1), ("second", second - 1)):
            right = [
                (learner.target(weights, batch.x) + learner.log_task_units[t]).argmax(1) == batch.y
                for batch in tasks[t].test.batches()
            ]
            found[f"{name}_{place:g}"] = 100 * float(torch.cat(right).float().mean())
    return found


_HNET_ROWS = {
    "HNET": Row("hypernetwork"),
    "HNET+ENT": Row("hypernetwork-ent"),
    "HNET+TIR": Row("hypernetwork-tir"),
    "HNET+R": Row("hypernetwork-r"),
}

RECIPES: dict[str, Recipe | Study] = {
    "hypernetwork-split-mnist": Recipe(
        "hypernetworks on split MNIST: task known, inferred by entropy, by a task classifier; replay",
        "split-mnist",
        ("2020-hypernetworks",),
        _HNET_ROWS,
    ),
    "hypernetwork-split-mnist-later": Recipe(
        "hypernetworks for a small target on split MNIST, without look-ahead",
        "split-mnist",
        ("hypernetworks-later",),
        {name: _HNET_ROWS[name] for name in ("HNET", "HNET+ENT")},
        scenarios=("task", "class"),
    ),
    "hypernetwork-permuted-mnist": Recipe(
        "hypernetworks on permuted MNIST (10 permutations)",
        "permuted-mnist",
        ("2020-hypernetworks",),
        _HNET_ROWS,
    ),
    "hypernetwork-permuted-mnist-100": Recipe(
        "a hypernetwork on 100 permutations of MNIST, 8 of the past ones in the regulariser per step",
        "permuted-mnist",
        ("2020-hypernetworks",),
        {
            "HNET": Row(
                "hypernetwork",
                {
                    "beta": 0.01,
                    "embedding": 128,
                    "chunk": 7500,
                    "chunk_embedding": 12,
                    "hyper_hidden": (200, 250, 350),
                    "activation": "relu",
                    "past_tasks": 8,
                },
                LONG,
            )
        },
        seeds=1,
        deviations=LONG_TESTS,
    ),
    "hypernetwork-split-cifar100": Recipe(
        "a hypernetwork that generates ResNet-32, ten tasks of ten CIFAR-100 classes",
        "split-cifar100",
        ("2020-hypernetworks",),
        {"HNET": Row("hypernetwork")},
        scenarios=("task",),
        seeds=1,
        deviations=(
            "ten tasks of CIFAR-100; the paper has CIFAR-10 as task 1 and then the first fifty classes of CIFAR-100",
            "group norm instead of batch norm; no augmentation of the images",
        ),
    ),
    "hypernetwork-beta": Recipe(
        "strength of a hypernetwork's regulariser, split MNIST, task known",
        "split-mnist",
        ("2020-hypernetworks",),
        {f"{beta:g}": Row("hypernetwork", {"beta": beta}) for beta in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)},
        scenarios=("task",),
        steps=500,
        axis="strength β of the regulariser",
        deviations=("500 steps per task: the sweep compares strengths, not with the paper",),
    ),
    "hypernetwork-compression": Recipe(
        "weights generated at a time by a hypernetwork, split MNIST, task known",
        "split-mnist",
        ("2020-hypernetworks",),
        {str(chunk): Row("hypernetwork", {"chunk": chunk}) for chunk in (2000, 4000, 8000, 16000, 42000, 478410)},
        scenarios=("task",),
        steps=500,
        axis="weights generated at a time",
        deviations=("500 steps per task: the sweep compares sizes, not with the paper",),
    ),
    "hypernetwork-lookahead": Recipe(
        "a hypernetwork's regulariser with and without look-ahead, split MNIST",
        "split-mnist",
        ("2020-hypernetworks",),
        {
            "HNET": Row("hypernetwork"),
            "HNET, no look-ahead": Row("hypernetwork", {"lookahead": False}),
            "HNET+ENT": Row("hypernetwork-ent"),
            "HNET+ENT, no look-ahead": Row("hypernetwork-ent", {"lookahead": False}),
        },
        scenarios=("task", "class"),
    ),
    "hypernetwork-line": Study(
        "networks that a hypernetwork generates on the line between two tasks' embeddings, split MNIST",
        embedding_line,
        {"tasks 1 and 2": {"first": 1, "second": 2}, "tasks 1 and 5": {"first": 1, "second": 5}},
        {f"{which}_{place:g}": f"{which} task at {place:g} (%)" for which in ("first", "second") for place in PLACES},
        steps=2000,
        seeds=3,
        source="von Oswald, Henning, Grewe & Sacramento 2020, arXiv 1906.00695, split MNIST with the task known",
        deviations=("accuracy on test images after the last task; 0 is the first task's embedding, 1 the second's",),
    ),
}
