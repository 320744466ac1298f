"""Diffusion models that learn task after task, and as a classifier's memory: settings, recorded tables.

The papers' own numbers (Masip et al. 2023; Cywiński et al. 2024) are of other data and of networks that need a GPU; none is
repeated here.
"""

from __future__ import annotations

from typing import Any

from clteach.experiments.papers import digits
from clteach.experiments.papers.brain_inspired_replay import dreams
from clteach.experiments.recipe import QUALITY, Column, Preset, Recipe, Row, Study

GENERATORS: dict[str, Row] = {
    "diffusion, fine-tuned": Row("diffusion-finetune"),
    "diffusion with replay": Row("diffusion-replay"),
    "generative distillation": Row("diffusion-distill"),
    "diffusion, joint training": Row("diffusion-joint"),
}
"""The rows of the tables of generators."""

DIGITS_STEPS = 500
_OF_DIFFUSION: dict[str, Any] = {"replay_model": "diffusion", "generator_lr": 2e-3}
_MEMORY = (
    f"{DIGITS_STEPS} steps per task for the classifier and as many for the generator",
    "the generators have the settings of their methods, the diffusion model the learning rate that suited it as a generator "
    "on held-out images",
)

MEMORIES: dict[str, Row] = {
    "VAE beside the classifier": Row("generative-replay"),
    "VAE": Row("dream-replay", {"replay_model": "vae"}),
    "Multiband VAE": Row("dream-replay", {"replay_model": "multiband-vae"}),
    "EBGAN-PT": Row("dream-replay", {"replay_model": "ebgan"}),
    "hypernetwork": Row("dream-replay", {"replay_model": "hypernetwork"}),
    "diffusion": Row("dream-replay", _OF_DIFFUSION),
    "diffusion, guided": Row("dream-replay", {**_OF_DIFFUSION, "guidance": 1.0}),
}
"""The generators that one classifier remembers by."""

PRESETS: dict[str, Preset] = {
    "diffusion": Preset(
        "diffusion models on MNIST with a dense network, at a length that a CPU can bear",
        "this package; the method is that of Masip, Rodriguez, Tuytelaars & van de Ven 2023",
        {
            "split-mnist": Column(
                2000,
                128,
                {"lr": 1e-3},
                {"tasks": 5},
                {row.method: {"hidden": (512, 512), "network": "mlp"} for row in GENERATORS.values()},
            ),
        },
        notes=(
            "a dense network instead of a U-Net, and a few thousand steps: the aim is the comparison, not the pictures",
            "FID is measured in the features of this package's LeNet, of 20 DDIM steps: only ratios compare",
            "dreams of the past are made once before each task, 2000 of them",
        ),
    ),
}


def digits_memory(seed: int, steps: int, method: str, **settings: Any) -> dict[str, float]:
    """What a classifier of the bundled digits knows in the end, and what it dreams: see `brain_inspired_replay.dreams`."""
    return dreams(seed, steps, method, "split-digits", digits.PRESETS["digits"].columns["split-digits"], **settings)


RECIPES: dict[str, Recipe | Study] = {
    "diffusion-replay-split-digits": Recipe(
        "diffusion models on the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        GENERATORS,
        deviations=(
            "network and learning rate were chosen on held-out training images (30 %) with the seeds 100 to 102",
        ),
    ),
    "diffusion-replay-split-mnist": Recipe(
        "diffusion models on split MNIST (5 tasks), with a dense network",
        "split-mnist",
        ("diffusion",),
        GENERATORS,
    ),
    "diffusion-replay-memory-digits": Recipe(
        "one classifier, replay from a VAE beside it or from a diffusion model, bundled digits",
        "split-digits",
        ("digits",),
        {name: MEMORIES[name] for name in ("VAE beside the classifier", "diffusion")},
        scenarios=("class",),
        steps=DIGITS_STEPS,
        deviations=_MEMORY,
    ),
    "diffusion-replay-models-digits": Study(
        "one classifier, Class-IL, replay from every kind of generator, with guidance and without, bundled digits",
        digits_memory,
        {name: {"method": row.method, **row.settings} for name, row in MEMORIES.items()},
        {"accuracy": "average accuracy (%)", **{key: QUALITY[key] for key in ("fid", "precision", "recall")}},
        steps=DIGITS_STEPS,
        seeds=3,
        source="this package",
        deviations=(
            *_MEMORY,
            "the strength of guidance was not tuned",
            "FID, precision and recall are measured in the features of this package's LeNet, which sees all images, "
            "on as many dreams as test images",
        ),
    ),
}
