"""The bundled digits: small networks for every method, seconds each. No paper; strengths were chosen by this package."""

from __future__ import annotations

from clteach.experiments.recipe import Column, Preset, Recipe, Row, Study, by
from clteach.methods import METHODS

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
        "separate-networks": {"hidden": (35, 35)},
        "fromp": {"per_class": 20},
        "xdg": {"share": 0.5},
        "si-xdg": {"share": 0.5},
        "generative-classifier": {"hidden": (50, 50)},
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
        **{
            name: {"hidden": (256, 256)}
            for name in ("diffusion-finetune", "diffusion-joint", "diffusion-replay", "diffusion-distill")
        },
    },
)
PRESETS: dict[str, Preset] = {
    "digits": Preset(
        "small networks for the bundled 8 x 8 digits, seconds per method",
        "this package; strengths and the share gated were chosen on held-out training data (clteach sweep)",
        {"split-digits": _DIGITS, "permuted-digits": _DIGITS, "dirichlet-digits": _DIGITS},
    ),
}

RECIPES: dict[str, Recipe | Study] = {
    "split-digits": Recipe(
        "every method in three scenarios on the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        {name: Row(name) for name, cls in METHODS.items() if cls.measure == "accuracy"},
    ),
}
