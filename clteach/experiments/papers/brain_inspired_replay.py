"""Brain-inspired replay (van de Ven, Siegelmann & Tolias 2020): settings, recorded tables, one study."""

from __future__ import annotations

import math
from typing import Any

import torch

from clteach.data.streams import make_stream
from clteach.experiments.papers import baselines
from clteach.experiments.papers.baselines import LONG, LONG_TESTS, ROWS, in_their_code, split_mnist
from clteach.experiments.recipe import QUALITY, Column, Preset, Recipe, Row, Study, by
from clteach.learners.learner import Generator
from clteach.metrics.judge import feature_classifier, quality, quality_by_group
from clteach.seeding import generator
from clteach.training.loop import train

PRESETS: dict[str, Preset] = {
    "2020": Preset(
        "brain-inspired replay",
        "van de Ven, Siegelmann & Tolias 2020, Nature Communications 11:4069",
        in_their_code(
            {
                "split-mnist": split_mnist(
                    {
                        "ewc": {"lam": by(1e9, None, 1e5)},
                        "online-ewc": {"gamma": 1.0},
                        "si": {"c": by(10.0, None, 0.1)},
                        "xdg": {"share": 0.9},
                        "si-xdg": {"c": 10.0, "share": 0.9},
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": 0.8},
                    },
                    "seen",
                ),
                "permuted-mnist": Column(
                    2000,
                    256,
                    {"hidden": (2000, 2000), "lr": 1e-4},
                    {"tasks": 100, "pad": 2, "active_units": "seen"},
                    {
                        "ewc": {"lam": 1.0},
                        "online-ewc": {"gamma": 1.0},
                        "si": {"c": 10.0},
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": 0.8},
                        "brain-inspired-replay-si": {"gating": 0.8, "c": 1.0},
                    },
                ),
                "split-cifar100": Column(
                    5000,
                    256,
                    {"hidden": (2000, 2000), "lr": 1e-4},
                    {"tasks": 10, "class_order": "random", "active_units": "seen"},
                    {
                        "online-ewc": {"gamma": 1.0},
                        "xdg": {"share": 0.7},
                        "si-xdg": {"share": 0.7},
                        "generative-classifier": baselines.CLASSIFIER_OF_FEATURES,
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": by(0.0, None, 0.7)},
                        "brain-inspired-replay-si": {"gating": by(None, None, 0.6), "c": by(None, None, 1e8)},
                    },
                ),
            }
        ),
        notes=(
            (
                "the paper's λ of online EWC is not known here: unless another is named, the method's default is used",
                ("online-ewc",),
            ),
            *baselines.ABOUT_THE_CLASSIFIER,
        ),
        without=("RtF",),
    ),
}

_MNIST_2022 = baselines.PRESETS["2022"].columns["split-mnist"]


def dreams(
    seed: int, steps: int, method: str, stream: str = "split-mnist", column: Column = _MNIST_2022, **settings: Any
) -> dict[str, float]:
    """Learn all tasks of a stream in Class-IL, then judge as many dreams as there are test images.

    Args:
        seed: seed of the order of classes, weights, training and dreams.
        steps: training steps per task.
        method: a method that replays generated samples, see `clteach list`.
        stream: name of a stream of images.
        column: the settings.
        **settings: fields of the method's Config that differ from them.

    Returns:
        ``accuracy``, the classifier's average accuracy in percent; ``fid``, ``inception_score``, and ``precision`` and
        ``recall`` in percent, of all dreams together; of those of task
        T, from 1, ``recall_T`` and ``share_T``, how many these are, in percent. A dream's task is that of the class that the
        judging classifier (`clteach.metrics.judge`) sees in it.
    """
    tasks = make_stream(stream, "class", seed=seed, **column.stream)
    settings = {**column.settings(method, "class"), **settings}
    run = train(method, tasks, steps=steps, batch_size=column.batch, seed=seed, **settings)
    learner = run.learner
    assert isinstance(learner, Generator), f"{method} generates nothing"
    judge = feature_classifier(tasks)
    tests = [batch for task in tasks for batch in task.test.batches()]
    real, task = (torch.cat([getattr(batch, name) for batch in tests]) for name in ("x", "task"))
    generated = learner.eval().sample(len(real), generator(seed, "dreams", device=real.device))
    found = quality(judge, real, generated)
    by_task = quality_by_group(judge, real, task, generated)
    return {
        "accuracy": 100 * float(run.accuracy[-1].mean()),
        **found,
        "precision": 100 * found["precision"],
        "recall": 100 * found["recall"],
        # Of a task that is dreamed no more nothing is covered, while its FID would not exist.
        **{f"recall_{t + 1}": 100 * (g["recall"] if math.isfinite(g["recall"]) else 0.0) for t, g in by_task.items()},
        **{f"share_{t + 1}": 100 * g["share"] for t, g in by_task.items()},
    }


_BIR = "brain-inspired-replay"
_GR = {"feedback": False, "conditional": False, "gating": 0.0, "targets": "hard"}
"""All five changes off: standard generative replay."""
_CHANGES: dict[str, dict[str, Any]] = {
    "feedback": {"feedback": True},
    "conditional replay": {"conditional": True},
    "gating": {"gating": 0.1},
    "distillation": {"targets": "soft"},
}
CIFAR10_AS_PUBLISHED: dict[str, Any] = {**baselines.CIFAR10, "weights": "cifar10-2020.safetensors"}
"""Convolutions trained as those in the paper's published file must have been, which is not as the paper describes it.

That file has seen 39,000 batches, so a hundred epochs in batches of 128, not 256. Its weights are as large as steps of Adam
at 1e-3 make them, not 1e-4. And the gains of its batch norm lie around a half: PyTorch before 1.2 drew them from [0, 1).
Features then vary much less, so their squared error weighs less beside the classification.
"""
_OF_PIXELS: dict[str, Any] = {**baselines.CIFAR10, "internal": False}
"""The convolutions stand in the learner: features are learned, but pixels replayed."""

_PERMUTED = {
    "None": Row("finetune"),
    "online EWC": Row("online-ewc"),
    "SI": Row("si"),
    "DGR": Row("generative-replay", {"targets": "hard"}),
    "BI-R": Row(_BIR),
    "BI-R + SI": Row(f"{_BIR}-si"),
}
_LITTLE: dict[str, Any] = {"hidden": (400, 400), "lr": 1e-3}
_ONLY_REPLAY = {
    "DGR": Row(_BIR, _GR),
    "DGR, re-initialised": Row(_BIR, {**_GR, "reinit": True}),
    "BI-R": Row(_BIR),
    "BI-R, re-initialised": Row(_BIR, {"reinit": True}),
}
_DREAMED = ("feedback", "conditional replay", "gating")
"""The changes that are about the generator."""


RECIPES: dict[str, Recipe | Study] = {
    "brain-inspired-replay-split-mnist": Recipe(
        "brain-inspired replay on split MNIST; the methods it is compared with are in split-mnist",
        "split-mnist",
        ("2022", "2020"),
        {"BI-R": ROWS["BI-R"]},
        paper_seeds=20,
    ),
    "brain-inspired-replay-number": Recipe(
        "brain-inspired replay on split MNIST with fewer and more replayed samples per step",
        "split-mnist",
        ("2022", "2020"),
        {
            # 128 is the batch, and as many are replayed if nothing is said: a run that other recipes have too
            str(n): Row(_BIR, {} if n == 128 else {"replay_batch": n})
            for n in (1, 4, 16, 64, 128, 256)
        },
        scenarios=("class",),
        axis="replayed samples per step",
    ),
    "brain-inspired-replay-generator-size": Recipe(
        "brain-inspired replay on split MNIST with smaller and larger decoders",
        "split-mnist",
        ("2022", "2020"),
        {
            # the classifier's layers have 400 units, and so have the decoder's if nothing is said
            str(n): Row(_BIR, {} if n == 400 else {"vae_hidden": (n, n)})
            for n in (10, 20, 40, 100, 200, 400, 1000)
        },
        scenarios=("class",),
        axis="units per hidden layer of the decoder",
    ),
    "brain-inspired-replay-reinit": Recipe(
        "keep only replay: all weights are forgotten before every task of split MNIST",
        "split-mnist",
        ("2022", "2020"),
        _ONLY_REPLAY,
        scenarios=("class",),
        axis="variant",
    ),
    "brain-inspired-replay-reinit-digits": Recipe(
        "keep only replay: all weights are forgotten before every task of the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        {**_ONLY_REPLAY, "BI-R − gating, re-initialised": Row(_BIR, {"gating": 0.0, "reinit": True})},
        scenarios=("class",),
        axis="variant",
    ),
    "brain-inspired-replay-ablation": Recipe(
        "each change of brain-inspired replay added to generative replay, and taken from the whole, on split MNIST",
        "split-mnist",
        ("2022",),
        {
            "GR": Row(_BIR, _GR),
            **{f"GR + {change}": Row(_BIR, {**_GR, **on}) for change, on in _CHANGES.items()},
            "BI-R": Row(_BIR),
            **{f"BI-R − {change}": Row(_BIR, {key: _GR[key] for key in on}) for change, on in _CHANGES.items()},
        },
        scenarios=("class",),
        axis="variant",
        deviations=("the paper's Fig. 8 is about permuted MNIST and CIFAR-100, not split MNIST",),
    ),
    "brain-inspired-replay-permuted": Recipe(
        "a hundred permutations of MNIST: brain-inspired replay beside SI and online EWC, task after task",
        "permuted-mnist",
        ("2020",),
        {name: row._replace(stream=LONG) for name, row in _PERMUTED.items()},
        scenarios=("domain",),
        paper_seeds=5,
        deviations=LONG_TESTS,
    ),
    "brain-inspired-replay-permuted-small": Recipe(
        "brain-inspired-replay-permuted in little: 20 permutations, small networks, a few hundred steps for each",
        "permuted-mnist",
        ("2020",),
        {
            name: Row(
                row.method,
                {**row.settings, **_LITTLE, **({"lam": 10.0} if row.method == "online-ewc" else {})},
                {**LONG, "tasks": 20},
            )
            for name, row in _PERMUTED.items()
        },
        scenarios=("domain",),
        seeds=1,
        steps=300,
        deviations=(
            "small: 400 units per layer instead of 2000, learning rate 1e-3 instead of 1e-4, 20 permutations instead of 100 "
            "and 300 steps for each instead of 2000",
            "tuned at this size, on a twentieth of seed 0's training data, held out: λ of online EWC (best of 1, 10, 100, "
            "1000) and c of SI (best of 1, 10, 100: the paper's 10); BI-R keeps the paper's settings for large networks",
            *LONG_TESTS,
        ),
    ),
    "brain-inspired-replay-split-cifar100": baselines.split_cifar100(
        "split CIFAR-100 by the protocol of brain-inspired replay, behind convolutions that learned CIFAR-10",
        ("2020",),
        ("BI-R", "BI-R + SI", "generative classifier"),
        others={
            "BI-R, convolutions as published": Row(_BIR, stream=CIFAR10_AS_PUBLISHED),
            "generative classifier, convolutions as published": Row("generative-classifier", stream=CIFAR10_AS_PUBLISHED),
        },
    ),
    "brain-inspired-replay-internal": Recipe(
        "features against pixels: what is replayed, on split CIFAR-100 behind convolutions that learned CIFAR-10",
        "split-cifar100",
        ("2020",),
        {
            "GR of pixels": Row(_BIR, {**_OF_PIXELS, **_GR}),
            "GR of features": Row("generative-replay", {"targets": "hard"}, baselines.CIFAR10),
            "BI-R of pixels": Row(_BIR, {**_OF_PIXELS, "gating": by(0.8, None, 0.9)}),
            "BI-R of features": Row(_BIR, stream=baselines.CIFAR10),
        },
        scenarios=("class",),
        seeds=1,
        paper_seeds=10,
        axis="what is replayed",
        deviations=("pixels are in [0, 1], and the decoder of pixels has no batch norm",),
    ),
    "brain-inspired-replay-generator-quality": Study(
        "what is dreamed at the end of split MNIST, Class-IL: by generative replay, with single changes, and by BI-R",
        dreams,
        {
            "GR": {"method": _BIR, **_GR},
            **{
                f"GR + {change}": {"method": _BIR, **_GR, **on} for change, on in _CHANGES.items() if change in _DREAMED
            },
            "BI-R": {"method": _BIR},
        },
        {
            **QUALITY,
            **{f"recall_{t}": f"recall, task {t} (%)" for t in range(1, 6)},
            **{f"share_{t}": f"task {t} (% of dreams)" for t in range(1, 6)},
        },
        steps=2000,
        seeds=3,
        source="van de Ven, Tuytelaars & Tolias 2022, split MNIST, Class-IL",
        deviations=(
            "measured in the features of this package's LeNet, which sees all images, on as many dreams as test images; "
            "a dream's task is that of the class that the LeNet sees in it",
            "no published numbers: the paper of 2020 gives such measures as a figure only (Fig. 9)",
        ),
    ),
}
