"""The baselines and standard generative replay as compared by van de Ven & Tolias (2018, 2019) and with Tuytelaars (2022).

Three papers, one table: presets "2018", "2019" and "2022", and the recipes on split and permuted MNIST. What the papers on
top of them share with these stands here too: the rows, split MNIST, the two choices of the code behind the tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from clteach.experiments.recipe import Column, Preset, Recipe, Row, Study, by

ROWS: dict[str, Row] = {
    "None": Row("finetune"),
    "Joint": Row("joint"),
    "Separate Networks": Row("separate-networks"),
    "XdG": Row("xdg"),
    "EWC": Row("ewc"),
    "online EWC": Row("online-ewc"),
    "SI": Row("si"),
    "SI + XdG": Row("si-xdg"),
    "LwF": Row("lwf"),
    "FROMP": Row("fromp"),
    "DGR": Row("generative-replay", {"targets": "hard"}),
    "DGR + distillation": Row("generative-replay", {"targets": "soft"}),
    "RtF": Row("brain-inspired-replay", {"conditional": False, "gating": 0.0}),
    "BI-R": Row("brain-inspired-replay"),
    "BI-R + SI": Row("brain-inspired-replay-si"),
    "ER (100 / class)": Row("er"),
    "A-GEM": Row("a-gem"),
    "iCaRL": Row("icarl"),
    "generative classifier": Row("generative-classifier"),
}
"""The rows of the published tables, by their names there."""

_LATER = (
    "iCaRL",  # the table of 2019 has it with 2000 places in all, divided among the classes so far
    "generative classifier",
    "BI-R + SI",
    "Separate Networks",
    "FROMP",  # on permuted MNIST its kernels would take 3 GB
)
"""Rows that are compared on split MNIST and with the settings of 2022 alone."""

_WITH_SI = ("si", "si-xdg", "brain-inspired-replay-si")
_COMPARED = (
    *("finetune", "joint", "ewc", "online-ewc", "lwf", "xdg", "er", "a-gem"),
    *("separate-networks", "fromp"),
    *("generative-replay", "brain-inspired-replay"),
    *("icarl", "generative-classifier"),
)


def in_their_code(columns: Mapping[str, Column]) -> dict[str, Column]:
    """With two choices of the code behind the tables of these papers, for the methods that they compare.

    Adam's moments are kept from task to task. The path integral of SI takes the gradient of the total loss, where SI's own
    authors take that of the task's loss alone.
    """
    choices: dict[str, dict[str, Any]] = {name: {"fresh_optimizer": False} for name in (*_COMPARED, *_WITH_SI)}
    for name in _WITH_SI:
        choices[name]["gradient"] = "total"

    def with_choices(column: Column) -> Column:
        named = {name: {**choice, **column.methods.get(name, {})} for name, choice in choices.items()}
        return replace(column, methods={**column.methods, **named})

    return {stream: with_choices(column) for stream, column in columns.items()}


def split_mnist(methods: Mapping[str, Mapping[str, Any]], active_units: str) -> Column:
    """Split MNIST, alike in all papers: 5 x 2 digits, 2000 steps, batch 128, 400-400 units, Adam 1e-3."""
    stream = {"tasks": 5, "class_order": "random", "active_units": active_units}
    return Column(2000, 128, {"hidden": (400, 400), "lr": 1e-3}, stream, methods)


_SUMMED = (
    "distillation on replayed images is summed over the classes; the code behind the paper's table averaged it, "
    "which its "
    "authors mended in May 2019",
    ("generative-replay", "brain-inspired-replay"),
)

_PERMUTED_2018 = Column(
    5000,
    128,
    {"hidden": (1000, 1000), "lr": 1e-4},
    {"tasks": 10, "pad": 2, "active_units": "seen"},
    {
        "ewc": {"lam": by(500.0, 500.0, 1.0), "fisher_labels": "predicted"},
        "online-ewc": {"lam": by(500.0, 1000.0, 5.0), "gamma": by(0.8, 0.9, 1.0), "fisher_labels": "predicted"},
        "lwf": {"averaged": True},
        "si": {"c": by(5.0, 5.0, 0.1)},
        "xdg": {"share": 0.55},
        "si-xdg": {"c": 5.0, "share": 0.55},
        "generative-replay": {"targets": "hard"},
    },
)

CLASSIFIER_OF_FEATURES: dict[str, Any] = {"hidden": (85,), "z": 20, "lr": 1e-3, "batches": 10, "samples": 1000}
"""The generative classifier on split CIFAR-100: 500 updates of every class, each with a batch of its own."""
ABOUT_THE_CLASSIFIER = (
    (
        "an update of a generative classifier gathers as many batches as a task has classes, each divided among their VAEs, "
        "where the paper trains one class after the other",
        ("generative-classifier",),
    ),
    (
        "on split CIFAR-100 the generative classifier's likelihoods are of 1000 importance samples instead of 10,000",
        ("generative-classifier",),
    ),
)

PRESETS: dict[str, Preset] = {
    "2018": Preset(
        "generative replay with feedback connections",
        "van de Ven & Tolias 2018, arXiv 1809.10635",
        in_their_code(
            {
                "split-mnist": split_mnist(
                    {
                        "ewc": {"lam": 5e3, "fisher_labels": "predicted"},
                        "online-ewc": {"lam": 5e3, "gamma": 1.0, "fisher_labels": "predicted"},
                        "lwf": {"averaged": True},
                        "si": {"c": by(50.0, 500.0, 0.5)},
                        "xdg": {"share": 0.95},
                        "si-xdg": {"c": 50.0, "share": 0.95},
                        "generative-replay": {"targets": "hard"},
                    },
                    "seen",
                ),
                "permuted-mnist": _PERMUTED_2018,
            }
        ),
        notes=(
            (
                "the strength λ of EWC and online EWC on split MNIST is the default of the authors' script of 2018",
                ("ewc", "online-ewc"),
            ),
            _SUMMED,
        ),
        without=("BI-R", *_LATER),
    ),
    "2019": Preset(
        "three scenarios for continual learning",
        "van de Ven & Tolias 2019, arXiv 1904.07734",
        in_their_code(
            {
                "split-mnist": split_mnist(
                    {
                        "ewc": {"lam": by(1e7, 1e6, 1e8), "fisher_labels": "predicted"},
                        "online-ewc": {
                            "lam": by(1e8, 1e8, 1e9),
                            "gamma": by(0.8, 0.7, 0.8),
                            "fisher_labels": "predicted",
                        },
                        "lwf": {"averaged": True},
                        "si": {"c": by(50.0, 500.0, 0.5)},
                        "xdg": {"share": 0.95},
                        "si-xdg": {"c": 50.0, "share": 0.95},
                        "generative-replay": {"targets": "hard"},
                    },
                    "seen",
                ),
                "permuted-mnist": _PERMUTED_2018,
            }
        ),
        notes=(_SUMMED,),
        without=("BI-R", "RtF", *_LATER),
    ),
    "2022": Preset(
        "three types of incremental learning",
        "van de Ven, Tuytelaars & Tolias 2022, Nature Machine Intelligence 4",
        in_their_code(
            {
                "split-mnist": split_mnist(
                    {
                        "ewc": {"lam": by(1e5, 1e10, 1e9)},
                        "si": {"c": by(10.0, 5e4, 5e3)},
                        "xdg": {"share": 0.9},
                        "si-xdg": {"c": 10.0, "share": 0.9},
                        "lwf": {"weighting": "sum"},
                        "separate-networks": {"hidden": (100, 100)},
                        "fromp": {"per_class": 100, "tau": by(0.01, 10.0, 1000.0)},
                        "er": {"per_class": 100},
                        "a-gem": {"per_class": 100},
                        "icarl": {"per_class": 100, "temperature": 2.0, "exemplars": "random"},
                        "generative-classifier": {
                            **{"hidden": (85, 85), "z": 5, "samples": 100},
                            **{"batches": 2, "observation": "gaussian"},
                        },
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": by(0.0, 0.1, 0.1), "squared": False},
                    },
                    "all",
                ),
                "permuted-mnist": Column(
                    5000,
                    128,
                    {"hidden": (1000, 1000), "lr": 1e-4},
                    {"tasks": 10, "pad": 2, "active_units": "all"},
                    {
                        "ewc": {"lam": 100.0},
                        "online-ewc": {"lam": 100.0},
                        "si": {"c": by(10.0, 10.0, 5.0)},
                        "xdg": {"share": 0.6},
                        "si-xdg": {"c": 10.0, "share": 0.6},
                        "lwf": {"weighting": "sum"},
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": by(0.0, 0.5, 0.7), "squared": False},
                    },
                ),
                "split-cifar100": Column(
                    5000,
                    256,
                    {"hidden": (2000, 2000), "lr": 1e-4},
                    {"tasks": 10, "class_order": "random", "active_units": "all"},
                    {
                        "ewc": {"lam": by(1e3, 1e3, 1e2)},
                        "si": {"c": by(1e2, 5e2, 5.0)},
                        "xdg": {"share": 0.85},
                        "lwf": {"weighting": "sum"},
                        "er": {"per_class": 100},
                        "a-gem": {"per_class": 100},
                        "generative-classifier": CLASSIFIER_OF_FEATURES,
                        "generative-replay": {"targets": "hard"},
                        "brain-inspired-replay": {"gating": by(0.0, 0.5, 0.7), "squared": False},
                    },
                ),
            }
        ),
        notes=(
            *ABOUT_THE_CLASSIFIER,
            (
                "iCaRL's exemplars are random: the paper says herded, but its code shuffles the features and not the "
                "images, so that what herding chooses are other images",
                ("icarl",),
            ),
            ("online EWC is not in the paper: on split MNIST it has the method's default strength", ("online-ewc",)),
            ("on permuted MNIST online EWC, which is not in the paper, has the strength of EWC", ("online-ewc",)),
        ),
        without=("DGR + distillation", "RtF", "BI-R + SI"),
    ),
}

LONG: dict[str, Any] = {"tasks": 100, "test_samples": 1000}
LONG_TESTS = ("accuracies are those of 1000 random test images for each permutation",)

CIFAR10: dict[str, Any] = {"extractor": "conv-normalised", "weights": "cifar10.safetensors"}
"""What the papers put before every method on CIFAR-100: convolutions that have learned CIFAR-10, then frozen."""


def split_cifar100(
    summary: str,
    presets: tuple[str, ...],
    rows: Collection[str],
    scenario: str = "class",
    others: Mapping[str, Row] = {},
) -> Recipe:
    """Split CIFAR-100 as published: rows that learn what the frozen convolutions make of the images, and others."""
    return Recipe(
        summary,
        "split-cifar100",
        presets,
        {**{name: ROWS[name]._replace(stream=CIFAR10) for name in rows}, **others},
        scenarios=(scenario,),
        seeds=1,  # of 50,000 steps of large networks each: BI-R takes five hours on a core, two minutes on a large GPU
        paper_seeds=10,
    )


RECIPES: dict[str, Recipe | Study] = {
    "split-mnist": Recipe(
        "split MNIST (5 tasks) in three scenarios, beside a paper's table",
        "split-mnist",
        ("2022", "2019", "2018"),
        ROWS,
        paper_seeds=20,
    ),
    "permuted-mnist": Recipe(
        "permuted MNIST (10 permutations) in three scenarios, beside a paper's table",
        "permuted-mnist",
        ("2019", "2022", "2018"),
        {name: row for name, row in ROWS.items() if name not in _LATER},
        seeds=1,  # of 30 or so runs of 50,000 steps each: 20 hours on one core
        paper_seeds=20,
    ),
    "finetune-permuted-mnist": Recipe(
        "fine-tuning on permuted MNIST with the task known: how far one seed is from another",
        "permuted-mnist",
        ("2019",),
        {"None": ROWS["None"]},
        scenarios=("task",),
        paper_seeds=20,
    ),
    "lwf-split-mnist": Recipe(
        "a missing sum: LwF's distillation averaged over the classes, as behind the paper's table, and summed",
        "split-mnist",
        ("2018",),
        {"LwF": ROWS["LwF"], "LwF, summed": Row("lwf", {"averaged": False})},
        paper_seeds=20,
        axis="variant",
    ),
    "split-cifar100": split_cifar100(
        "split CIFAR-100 (10 tasks of 10 classes), every method behind convolutions that learned CIFAR-10",
        ("2022",),
        ("None", "Joint", "EWC", "SI", "LwF", "ER (100 / class)", "BI-R", "generative classifier"),
        # What the published code calls joint: the steps of a single task, once, on the data of all.
        others={"Joint, trained once": Row("joint", stream={**CIFAR10, "tasks": 1})},
    ),
    "split-cifar100-task": split_cifar100(
        "split CIFAR-100 with the task known, so that XdG can take part, behind convolutions that learned CIFAR-10",
        ("2022",),
        ("None", "Joint", "SI", "XdG", "BI-R"),
        scenario="task",
    ),
}
