"""Energy-based GANs (Zhao, Mathieu & LeCun 2017): settings, recorded tables, studies in the plane and on MNIST."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import torch

from clteach.data.catalogue import load
from clteach.data.plane import make_cloud
from clteach.data.streams import split
from clteach.experiments.recipe import QUALITY, Column, Preset, Recipe, Row, Study
from clteach.learners.gan import cooled, fit
from clteach.learners.generator import PureGenerator
from clteach.methods.ebgan import EBGAN, EnergyGAN, make_gan, pull_away
from clteach.metrics.modes import coverage, effective_modes
from clteach.seeding import generator
from clteach.training.loop import train

PRESETS: dict[str, Preset] = {
    "ebgan": Preset(
        "energy-based GANs and plain ones on a whole data set, judged by FID on held-out images",
        "this package, after Zhao, Mathieu & LeCun, ICLR 2017: fully connected, Adam 1e-3, margin 10, a decoder of one "
        "layer",
        {
            "split-mnist": Column(1000, 64, {"lr": 1e-3}, {"tasks": 1, "validation": 0.2}),
            "split-digits": Column(1000, 64, {"lr": 1e-3}, {"tasks": 1, "validation": 0.2}),
        },
        notes=("FID is measured in the features of this package's LeNet",),
    ),
}

SAMPLES = 2500
"""Samples in which modes are counted."""


def plane_gan(seed: int, steps: int, cloud: str = "grid", batch: int = 128, **settings: Any) -> dict[str, float]:
    """Train a GAN on a mixture of Gaussians in the plane and count the modes that its samples cover.

    Args:
        seed: seed of data, weights, training and samples.
        steps: updates of each player.
        cloud: "grid" or "ring", see `clteach.data.plane`.
        batch: samples per update.
        **settings: fields of `EBGAN.Config`.

    Returns:
        ``modes`` covered, ``quality``, the share of samples within 3σ of a mode in percent, and the ``effective`` number of
        modes these are spread over; with an auto-encoder as the critic also ``cosine``, the pull-away term of the samples.
    """
    data = make_cloud(cloud, 50_000, generator(seed, "data"))
    assert data.centres is not None, f"{cloud} has no modes to count"
    gan = make_gan((2,), EBGAN.Config(**settings), seed, bounded=False)
    fit(gan, data.x, steps, batch, seed, cooled)
    with torch.no_grad():
        samples = gan.sample(torch.randn(SAMPLES, gan.cfg.z, generator=generator(seed, "samples")))
        cosine = {"cosine": float(pull_away(gan.encode(samples)))} if isinstance(gan, EnergyGAN) else {}
    covered = coverage(samples, data.centres, data.sigma)
    effective = effective_modes(samples, data.centres, data.sigma)
    return {"modes": covered.modes, "quality": 100 * covered.quality, "effective": effective, **cosine}


TRIAL_SEED = 100
"""Seeds from here on are for choosing settings; no reported number comes from them."""


def plane_trial(seed: int, steps: int, **settings: Any) -> dict[str, float]:
    """`plane_gan` with a seed that is not reported, and its ``score``: modes covered times quality, at most 2500."""
    found = plane_gan(TRIAL_SEED + seed, steps, **settings)
    return {"score": found["modes"] * found["quality"], **found}


def samples(
    seed: int, steps: int, method: str = "ebgan", dataset: str = "mnist", batch: int = 64, **settings: Any
) -> dict[str, float]:
    """Train a generator on a whole data set, as one task, and judge as many samples as there are test images.

    Args:
        seed: seed of weights, training and samples.
        steps: training steps.
        method: a pure generator, see `clteach list`.
        dataset: images, see `clteach.load`.
        batch: images per step.
        **settings: fields of the method's Config.

    Returns:
        ``fid``, ``inception_score``, and ``precision`` and ``recall`` in percent, in the features of a LeNet that was
        trained on the same data (`clteach.metrics.judge.quality`).
    """
    stream = split(load(dataset), "class", tasks=1)
    run = train(method, stream, steps=steps, batch_size=batch, seed=seed, **settings)
    assert isinstance(run.learner, PureGenerator), f"{method} is no pure generator"
    found = run.learner.quality(0, stream[0].test)
    return {**found, "precision": 100 * found["precision"], "recall": 100 * found["recall"]}


_PLANE: dict[str, Any] = {"z": 2, "hidden": (128, 128), "critic_hidden": (256, 256)}
_PLANE_UNIT = math.sqrt(2 / 784)
"""Distances in the plane as shares of distances between MNIST's images of 784 pixels: margins are scaled with it."""
_FOUND = "this package; settings found by hand on a seed that is not reported (100), the first of ebgan-modes-search"
_COUNTED = "2,500 generated samples; a mode counts as covered if at least ten of them are within 3σ of it"
_MODES = {"modes": "modes covered (of 25)", "quality": "samples within 3σ of a mode (%)"}


def margins(*values: float, end: float | None = None) -> dict[str, dict[str, Any]]:
    """Rows of plain EBGAN in the plane, with these margins on MNIST's scale, which may move to `end` during training."""
    rows = {}
    for m in values:
        name = f"{m:g}" if end is None else f"{m:g} → {end:g}"
        moving = {} if end is None else {"margin_end": end * _PLANE_UNIT}
        rows[name] = {**_PLANE, "pull_away": 0.0, "lr": 2e-3, "margin": m * _PLANE_UNIT, **moving}
    return rows


_FAMILIES: dict[str, dict[str, Any]] = {
    "GAN": {"objective": "gan"},
    "EBGAN": {"objective": "ebgan", "pull_away": 0.0},
    "EBGAN-PT": {"objective": "ebgan", "pull_away": 0.1},
}


def trials(n: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Rows of a random search in the plane: n settings for each family, the first by hand, the same networks for all."""
    rng = random.Random(seed)
    shared = [{**_PLANE, "lr": 2e-3, "batch": 128, "beta1": 0.5}]
    energies = [{"margin": 10 * _PLANE_UNIT, "code": 32, "decoder_hidden": ()}]
    weights = [0.1]
    while len(shared) < n:
        lr = rng.choice((5e-4, 1e-3, 2e-3))
        shared.append(
            {
                "z": rng.choice((2, 4, 16)),
                "hidden": rng.choice(((128, 128), (256, 256), (128, 128, 128))),
                "critic_hidden": rng.choice(((128, 128), (256, 256), (512,))),
                "lr": lr,
                "critic_lr": lr * rng.choice((0.5, 1, 2)),
                "batch": rng.choice((128, 256)),
                "beta1": rng.choice((0.0, 0.5)),
            }
        )
        margin, code = rng.choice((5, 10, 16)) * _PLANE_UNIT, rng.choice((8, 32))
        energies.append({"margin": margin, "code": code, "decoder_hidden": rng.choice(((), (128,)))})
        weights.append(rng.choice((0.03, 0.1, 0.3)))
    return {
        f"{family}, {i + 1}": {
            **shared[i],
            **of_family,
            **({} if family == "GAN" else energies[i]),
            **({"pull_away": weights[i]} if family == "EBGAN-PT" else {}),
        }
        for family, of_family in _FAMILIES.items()
        for i in range(n)
    }


_TRIALS = trials(16)
FINALISTS = (
    *("GAN, 7", "GAN, 2", "GAN, 1", "GAN, 16"),
    *("EBGAN, 4", "EBGAN, 1", "EBGAN, 11", "EBGAN, 7"),
    *("EBGAN-PT, 4", "EBGAN-PT, 1", "EBGAN-PT, 14", "EBGAN-PT, 5"),
)
"""The four best of each method in the record of ebgan-modes-search, by its score."""
WINNERS = ("GAN, 7", "EBGAN, 4", "EBGAN-PT, 14")
"""The best of each method in the record of ebgan-modes-finals."""

_GRID = list(itertools.product(((200,), (200, 200), (400,), (400, 400)), ((128,), (128, 128), (256,), (256, 256))))


def _units(layers: tuple[int, ...]) -> str:
    return "-".join(map(str, layers))


RECIPES: dict[str, Recipe | Study] = {
    "ebgan-modes": Study(
        "modes of 25 Gaussians in the plane that a GAN, EBGAN and EBGAN-PT cover",
        plane_gan,
        {row.split(",")[0]: _TRIALS[row] for row in WINNERS},
        _MODES,
        steps=10_000,
        seeds=5,
        source=(
            "this package; for each method the best of sixteen settings by modes times quality, on a seed that is not "
            "reported (100): all sixteen for 3000 steps (ebgan-modes-search), the best four for 10,000 (ebgan-modes-finals)"
        ),
        deviations=(
            "the search began at a setting found by hand in some thirty shorter runs, nearly all of EBGAN-PT; from there on "
            "the budget is equal",
            _COUNTED,
            "no published counterpart: the paper has no such experiment",
        ),
    ),
    "ebgan-modes-search": Study(
        "a random search for the settings of a GAN, EBGAN and EBGAN-PT on 25 Gaussians, equally long for each",
        plane_trial,
        _TRIALS,
        {"score": "modes × quality", **_MODES},
        steps=3000,
        seeds=1,
        source="this package; 16 settings for each method, on a seed (100) from which no other number comes",
        deviations=(
            "the first setting of each method is one found by hand: some thirty shorter runs, nearly all of EBGAN-PT",
            _COUNTED,
            "the settings of row i are the same for all three methods, but for what only an auto-encoder has",
        ),
    ),
    "ebgan-modes-finals": Study(
        "the four best settings of each method in ebgan-modes-search, trained for longer",
        plane_trial,
        {row: _TRIALS[row] for row in FINALISTS},
        {"score": "modes × quality", **_MODES},
        steps=10_000,
        seeds=1,
        source="this package; the four best of ebgan-modes-search by modes times quality, on the same seed (100)",
        deviations=(_COUNTED,),
    ),
    "ebgan-margin": Study(
        "the margin of an EBGAN on 25 Gaussians in the plane, and margins that move during training",
        plane_gan,
        {**margins(1, 2, 4, 6, 8, 10, 12, 16, 32), **margins(10, end=0), **margins(10, end=1), **margins(1, end=10)},
        _MODES,
        steps=3000,
        seeds=3,
        source=_FOUND,
        deviations=(
            "the margins that the paper tries and its 10 for MNIST, times √(2/784): distances grow with the square root of "
            "the number of values, and a point has 2 where an image has 784",
            _COUNTED,
            "no published counterpart",
        ),
    ),
    "ebgan-pull-away": Study(
        "the weight of the pull-away term against the diversity of samples, on 25 Gaussians in the plane",
        plane_gan,
        {
            f"{weight:g}": {**_PLANE, "pull_away": weight, "lr": 2e-3}
            for weight in (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
        },
        {**_MODES, "effective": "effective number of modes", "cosine": "mean squared cosine of codes"},
        steps=3000,
        seeds=3,
        source=_FOUND,
        deviations=(
            _COUNTED,
            "effective number of modes: exp of the entropy of the shares of the modes among the samples within 3σ of one",
            "no published counterpart: the paper's weight is 0.1",
        ),
    ),
    "ebgan-grid": Recipe(
        "networks of a GAN, EBGAN and EBGAN-PT tried on MNIST: a small version of the paper's grid search",
        "split-mnist",
        ("ebgan",),
        {
            f"{family}, G {_units(hidden)}, D {_units(critic)}": Row(
                "ebgan", {**of_family, "hidden": hidden, "critic_hidden": critic}
            )
            for family, of_family in _FAMILIES.items()
            for hidden, critic in _GRID
        },
        scenarios=("class",),
        seeds=1,
        deviations=(
            "16 networks for each method, one seed and short training; the paper tried 512 EBGANs and 6144 GANs",
            "judged by FID on a fifth of the training images that was held out, not by the paper's score",
            "clteach sweep ebgan --stream split-mnist --preset ebgan --by objective, with these values, tries the GANs and "
            "the EBGAN-PTs; with --set objective=ebgan --set pull-away=0 the EBGANs",
        ),
        evaluate_on="valid",
    ),
    "ebgan-samples": Study(
        "samples of MNIST by a GAN, EBGAN, EBGAN-PT and a VAE, all digits at once",
        samples,
        {**{name: {**row, "cooling": True} for name, row in _FAMILIES.items()}, "VAE": {"method": "vae-replay"}},
        QUALITY,
        steps=4000,
        seeds=3,
        source="this package; the methods' defaults, nothing tuned",
        deviations=(
            "FID, Inception Score, precision and recall are measured in the features of this package's LeNet",
            "short training, as many steps for each; the learning rates fall, each by its method's own rule",
            "the VAE has the networks and the schedule of Multiband VAE",
        ),
    ),
    "dream-replay-split-mnist": Recipe(
        "one classifier, replay from different generators, split MNIST",
        "split-mnist",
        ("2022",),
        {
            "VAE beside the classifier": Row("generative-replay", {"targets": "soft"}),
            "VAE": Row("dream-replay", {"replay_model": "vae"}),
            "Multiband VAE": Row("dream-replay", {"replay_model": "multiband-vae"}),
            "EBGAN-PT": Row("dream-replay", {"replay_model": "ebgan", "generator_steps": 3000}),
            "hypernetwork": Row("dream-replay", {"replay_model": "hypernetwork"}),
        },
        scenarios=("class",),
        steps=1000,
        deviations=(
            "a shortened experiment: 1000 steps per task for the classifier and as many for the generator, instead of 2000; "
            "the EBGAN has 3000 short ones, which take about as long",
            "the EBGAN's settings were chosen on held-out training images with two other seeds (100 and 101), at half this "
            "length: replaying itself kept 63 %, with a decoder of two layers 75 %, with the past aligned as well 81 and "
            "89 %; a margin of 20 instead of 10, which kept both digits of a single task more often, kept 65 %; a falling "
            "learning rate 63 %, no pull-away term 77 %; the other generators were not tuned",
            "in a first record, half as long, the EBGAN kept 78.6 ± 2.0 % of the test images and the VAE 79.0 ± 2.3 %; "
            "after a run of this length had kept 91 % of held-out images (seed 100), all were trained for longer",
            "no published counterpart",
            "each generator has the networks of its own method, so their sizes and their times differ",
            "the first row's VAE learns in the same steps as the classifier; the others learn each task before it",
            "the hypernetwork's VAE is told the classes of the images, the other generators are not",
        ),
    ),
}
