"""Presets: the settings of a paper by name, as plain tables.

A preset has one `Column` of settings for every stream it knows; a value written ``by(task, domain, class)`` depends on the
scenario, and None there means that the paper has none (the method's default holds). Columns of different papers are never
mixed: their strengths and their rule for the active output units differ, and so do their results.

Settings of methods that are not registered are simply not applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from clteach.errors import ConfigError, unknown


class by(NamedTuple):
    """A setting that depends on the scenario; None: not given."""

    task: Any
    domain: Any
    class_: Any

    def get(self, scenario: str) -> Any:
        """The value for "task", "domain" or "class"."""
        return self.class_ if scenario == "class" else getattr(self, scenario)


def chosen(values: Mapping[str, Any], scenario: str) -> dict[str, Any]:
    """The values that hold in a scenario: `by` resolved, None left out."""
    resolved = {k: v.get(scenario) if isinstance(v, by) else v for k, v in values.items()}
    return {k: v for k, v in resolved.items() if v is not None}


@dataclass(frozen=True)
class Column:
    """The settings of one preset for one stream.

    Args:
        steps: training steps per task.
        batch: samples per step.
        shared: settings of every method that has them.
        stream: arguments of the stream (`clteach.streams.make_stream`).
        methods: {method: {setting: value or `by`}}.
    """

    steps: int
    batch: int
    shared: Mapping[str, Any]
    stream: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def settings(self, method: str, scenario: str) -> dict[str, Any]:
        """The settings of a method in a scenario, as far as this column names them."""
        return chosen({**self.shared, **self.methods.get(method, {})}, scenario)


@dataclass(frozen=True)
class Preset:
    """One line of description, the source, a `Column` per stream, what is known to be missing, and rows the paper lacks."""

    summary: str
    source: str
    columns: Mapping[str, Column]
    notes: tuple[str | tuple[str, tuple[str, ...]], ...] = ()
    """each a text, or (text, the methods that it is about)"""
    without: tuple[str, ...] = ()

    def notes_about(self, methods: Collection[str]) -> list[str]:
        """The notes that concern a table with these methods."""
        pairs = [(note, ()) if isinstance(note, str) else note for note in self.notes]
        return [text for text, about in pairs if not about or set(about) & set(methods)]


class Row(NamedTuple):
    """A row of a recorded table: a method, settings over those of the preset, arguments of the stream likewise.

    A value written `by` depends on the scenario.
    """

    method: str
    settings: Mapping[str, Any] = {}
    stream: Mapping[str, Any] = {}


def _split(methods: Mapping[str, Mapping[str, Any]], active_units: str) -> Column:
    """Split MNIST, alike in all papers: 5 x 2 digits, 2000 steps, batch 128, 400-400 units, Adam 1e-3."""
    stream = {"tasks": 5, "class_order": "random", "active_units": active_units}
    return Column(2000, 128, {"hidden": (400, 400), "lr": 1e-3}, stream, methods)


_HNET_DIGITS = {
    "lr": 1e-3,
    "beta": 0.1,
    "embedding": 8,
    "chunk": 1000,
    "chunk_embedding": 8,
    "hyper_hidden": (10, 10),
    "activation": "elu",
}
_HNET_DIGITS_REPLAY = {
    "lr": 2e-3,
    "z": 8,
    "decoder_hidden": (100, 100),
    "decoder_beta": 0.3,
    "decoder_embedding": 8,
    "decoder_chunk": 2000,
    "decoder_chunk_embedding": 8,
    "decoder_hyper_hidden": (25, 25),
    "decoder_activation": "elu",
}

_DIGITS = Column(
    1000,
    128,
    {"hidden": (100, 100), "lr": 2e-3},
    {"tasks": 5},
    {
        "ewc": {"lam": by(1e6, 1e4, 1e2)},
        "online-ewc": {"lam": by(1e4, 1e8, 1e2)},
        "si": {"c": by(100.0, 100.0, 10.0)},
        "xdg": {"share": 0.5},
        "si-xdg": {"share": 0.5},
        "brain-inspired-replay": {"gating": by(None, None, 0.3)},
        "brain-inspired-replay-si": {"gating": by(None, None, 0.3), "c": by(100.0, 100.0, 10.0)},
        "hypernetwork": _HNET_DIGITS,
        "hypernetwork-ent": _HNET_DIGITS,
        "hypernetwork-r": _HNET_DIGITS_REPLAY,
        "hypernetwork-tir": {**_HNET_DIGITS, **_HNET_DIGITS_REPLAY},
        "hypernetwork-vae": _HNET_DIGITS_REPLAY,
        **{
            name: {"hidden": (128,), "decoder_hidden": (128,), "lr": 5e-3, "decay": 0.99}
            for name in ("vae-finetune", "vae-joint", "vae-replay", "latent-partition", "multiband-vae")
        },
    },
)

_SUMMED = (
    "distillation on replayed images is summed over the classes; the code behind the paper's table averaged it, which its "
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
    "digits": Preset(
        "small networks for the bundled 8 x 8 digits, seconds per method",
        "this package; strengths and the share gated were chosen on held-out training data (clteach sweep)",
        {"split-digits": _DIGITS, "permuted-digits": _DIGITS, "dirichlet-digits": _DIGITS},
    ),
    "2018": Preset(
        "generative replay with feedback connections",
        "van de Ven & Tolias 2018, arXiv 1809.10635",
        {
            "split-mnist": _split(
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
        },
        notes=(
            (
                "the strength λ of EWC and online EWC on split MNIST is the default of the authors' script of 2018",
                ("ewc", "online-ewc"),
            ),
            _SUMMED,
        ),
        without=("BI-R",),
    ),
    "2019": Preset(
        "three scenarios for continual learning",
        "van de Ven & Tolias 2019, arXiv 1904.07734",
        {
            "split-mnist": _split(
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
        },
        notes=(_SUMMED,),
        without=("BI-R", "RtF"),
    ),
    "2020": Preset(
        "brain-inspired replay",
        "van de Ven, Siegelmann & Tolias 2020, Nature Communications 11:4069",
        {
            "split-mnist": _split(
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
                    "generative-replay": {"targets": "hard"},
                    "brain-inspired-replay": {"gating": by(0.0, None, 0.7)},
                    "brain-inspired-replay-si": {"gating": by(None, None, 0.6), "c": by(None, None, 1e8)},
                },
            ),
        },
        notes=(
            (
                "the paper's λ of online EWC is not known here: unless another is named, the method's default is used",
                ("online-ewc",),
            ),
        ),
        without=("RtF",),
    ),
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
    "2022": Preset(
        "three types of incremental learning",
        "van de Ven, Tuytelaars & Tolias 2022, Nature Machine Intelligence 4",
        {
            "split-mnist": _split(
                {
                    "ewc": {"lam": by(1e5, 1e10, 1e9)},
                    "si": {"c": by(10.0, 5e4, 5e3)},
                    "xdg": {"share": 0.9},
                    "si-xdg": {"c": 10.0, "share": 0.9},
                    "lwf": {"weighting": "sum"},
                    "er": {"per_class": 100},
                    "a-gem": {"per_class": 100},
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
        },
        notes=(
            ("online EWC is not in the paper: on split MNIST it has the method's default strength", ("online-ewc",)),
            ("on permuted MNIST online EWC, which is not in the paper, has the strength of EWC", ("online-ewc",)),
        ),
        without=("DGR + distillation", "RtF"),
    ),
}

_WITH_SI = ("si", "si-xdg", "brain-inspired-replay-si")
_COMPARED = (
    *("finetune", "joint", "ewc", "online-ewc", "lwf", "xdg", "er", "a-gem"),
    *("generative-replay", "brain-inspired-replay"),
)


def _in_their_code(column: Column) -> Column:
    """With two choices of the code behind the tables of these papers, for the methods that they compare.

    Adam's moments are kept from task to task. The path integral of SI takes the gradient of the total loss, where SI's own
    authors take that of the task's loss alone.
    """
    chosen: dict[str, dict[str, Any]] = {name: {"fresh_optimizer": False} for name in (*_COMPARED, *_WITH_SI)}
    for name in _WITH_SI:
        chosen[name]["gradient"] = "total"
    named = {name: {**settings, **column.methods.get(name, {})} for name, settings in chosen.items()}
    return replace(column, methods={**column.methods, **named})


for _paper in ("2018", "2019", "2020", "2022"):
    _columns = {stream: _in_their_code(column) for stream, column in PRESETS[_paper].columns.items()}
    PRESETS[_paper] = replace(PRESETS[_paper], columns=_columns)

# 210 epochs of the 70 % of the training images that are not held out, in batches of 64: the methods' own defaults are
# the paper's networks and schedule. The paper counts epochs, so its larger tasks have more steps than its smaller ones.
_MULTIBAND_EPOCH = 0.7 * 60_000 / 64  # steps, all tasks together

PRESETS["multiband"] = Preset(
    "Multiband VAE and its rivals, judged by FID on held-out images",
    "Deja, Wawrzyński, Masarczyk, Marczak & Trzciński, IJCAI 2022",
    {
        "split-mnist": Column(round(210 * _MULTIBAND_EPOCH / 5), 64, {"lr": 1e-3}, {"tasks": 5, "validation": 0.3}),
        "dirichlet-mnist": Column(
            round(210 * _MULTIBAND_EPOCH / 10),
            64,
            {"lr": 1e-3},
            {"tasks": 10, "alpha": 1.0, "validation": 0.3},
            {"multiband-vae": {"gamma": 0.95}},
        ),
    },
    notes=(
        "FID is measured in the features of this package's LeNet, not of the paper's: only ratios between methods compare",
        "every task has as many steps as an average task has in the paper's number of epochs",
        "controlled forgetting chooses its 1000 real images once per task, in the authors' code once per epoch",
        "the learning rate falls by 0.98 per epoch in all tasks; the authors' code takes 0.99 in the first one",
        "replayed samples of different tasks are drawn from different noise; in the authors' code all tasks share one",
        "the probability that a bit is +1 is σ(ℓ) throughout; in the authors' code it is σ(2ℓ) in the local phase",
        "a global step learns from its real and its replayed images at once; the authors' code cuts them into batches of 64 "
        "with an optimiser step for each, up to two and a half times as many steps on the same images",
    ),
)

PRESETS["ebgan"] = Preset(
    "energy-based GANs and plain ones on a whole data set, judged by FID on held-out images",
    "this package, after Zhao, Mathieu & LeCun, ICLR 2017: fully connected, Adam 1e-3, margin 10, a decoder of one layer",
    {
        "split-mnist": Column(1000, 64, {"lr": 1e-3}, {"tasks": 1, "validation": 0.2}),
        "split-digits": Column(1000, 64, {"lr": 1e-3}, {"tasks": 1, "validation": 0.2}),
    },
    notes=("FID is measured in the features of this package's LeNet",),
)

_DEFAULTS = {"split-mnist": "2022", "permuted-mnist": "2022"}

ROWS: dict[str, Row] = {
    "None": Row("finetune"),
    "Joint": Row("joint"),
    "XdG": Row("xdg"),
    "EWC": Row("ewc"),
    "online EWC": Row("online-ewc"),
    "SI": Row("si"),
    "SI + XdG": Row("si-xdg"),
    "LwF": Row("lwf"),
    "DGR": Row("generative-replay", {"targets": "hard"}),
    "DGR + distillation": Row("generative-replay", {"targets": "soft"}),
    "RtF": Row("brain-inspired-replay", {"conditional": False, "gating": 0.0}),
    "BI-R": Row("brain-inspired-replay"),
    "ER (100 / class)": Row("er"),
    "A-GEM": Row("a-gem"),
}
"""The rows of the published tables, by their names there."""


GENERATORS: dict[str, Row] = {
    "VAE, fine-tuned": Row("vae-finetune"),
    "VAE with replay": Row("vae-replay"),
    "hard latent partition": Row("latent-partition"),
    "Multiband VAE": Row("multiband-vae"),
    "Multiband VAE, joint bits": Row("multiband-vae", {"joint_bits": True}),
    "VAE, joint training": Row("vae-joint"),
}
"""The rows of the tables of generators."""


def default_preset(stream: str) -> str | None:
    """The preset that a stream gets when none is named; None: the methods' own defaults."""
    return "digits" if stream in PRESETS["digits"].columns else _DEFAULTS.get(stream)


def column(preset: str | None, stream: str) -> Column:
    """The settings of a preset for a stream; without a preset an empty column (2000 steps, batch 128).

    Raises:
        ConfigError: no such preset, or it has no settings for this stream.
    """
    if preset is None:
        return Column(2000, 128, {}, {})
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    columns = PRESETS[preset].columns
    if stream not in columns:
        raise ConfigError(
            f"the preset {preset!r} has no settings for the stream {stream!r}. "
            f"Choose {' or '.join(columns)}, another preset, or none."
        )
    return columns[stream]
