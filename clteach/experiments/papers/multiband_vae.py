"""Multiband VAE (Deja et al. 2022) and its rivals: settings, recorded tables."""

from __future__ import annotations

from clteach.experiments.recipe import Column, Preset, Recipe, Row, Study

GENERATORS: dict[str, Row] = {
    "VAE, fine-tuned": Row("vae-finetune"),
    "VAE with replay": Row("vae-replay"),
    "hard latent partition": Row("latent-partition"),
    "Multiband VAE": Row("multiband-vae"),
    "Multiband VAE, joint bits": Row("multiband-vae", {"joint_bits": True}),
    "VAE, joint training": Row("vae-joint"),
}
"""The rows of the tables of generators."""

# 210 epochs of the 70 % of the training images that are not held out, in batches of 64: the methods' own defaults are
# the paper's networks and schedule. The paper counts epochs, so its larger tasks have more steps than its smaller ones.
_MULTIBAND_EPOCH = 0.7 * 60_000 / 64  # steps, all tasks together

PRESETS: dict[str, Preset] = {
    "multiband": Preset(
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
            "FID is measured in the features of this package's LeNet, not of the paper's: only ratios between methods "
            "compare",
            "every task has as many steps as an average task has in the paper's number of epochs",
            "controlled forgetting chooses its 1000 real images once per task, in the authors' code once per epoch",
            "the learning rate falls by 0.98 per epoch in all tasks; the authors' code takes 0.99 in the first one",
            "replayed samples of different tasks are drawn from different noise; in the authors' code all tasks share one",
            "the probability that a bit is +1 is σ(ℓ) throughout; in the authors' code it is σ(2ℓ) in the local phase",
            "a global step learns from its real and its replayed images at once; the authors' code cuts them into batches "
            "of 64 with an optimiser step for each, up to two and a half times as many steps on the same images",
        ),
    ),
}

RECIPES: dict[str, Recipe | Study] = {
    "multiband-vae-split-digits": Recipe(
        "generators on the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        GENERATORS,
    ),
    "multiband-vae-split-mnist": Recipe(
        "generators on split MNIST (5 tasks), at the settings of Multiband VAE",
        "split-mnist",
        ("multiband",),
        GENERATORS,
        evaluate_on="valid",
    ),
    "multiband-vae-dirichlet-mnist": Recipe(
        "generators on MNIST dealt out to 10 tasks by Dirichlet shares (α = 1), at the settings of Multiband VAE",
        "dirichlet-mnist",
        ("multiband",),
        {
            "VAE with replay": GENERATORS["VAE with replay"],
            "Multiband VAE, γ = 1": Row("multiband-vae", {"gamma": 1.0}),
            "Multiband VAE": GENERATORS["Multiband VAE"],
            "Multiband VAE, joint bits": GENERATORS["Multiband VAE, joint bits"],
            "VAE, joint training": GENERATORS["VAE, joint training"],
        },
        evaluate_on="valid",
    ),
}
