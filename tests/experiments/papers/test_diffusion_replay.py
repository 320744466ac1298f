"""The study of one classifier with every kind of memory."""

from __future__ import annotations

import math

from clteach.experiments.papers import RECIPES, diffusion_replay
from clteach.experiments.recipe import Study


def test_a_memory_is_judged_by_what_is_known_and_by_what_is_dreamed() -> None:
    study = RECIPES["diffusion-replay-models-digits"]
    assert isinstance(study, Study)
    row = {**study.rows["VAE"], "hidden": (32,)}
    short, longer = (diffusion_replay.digits_memory(0, steps, **row) for steps in (1, 60))
    assert set(study.measures) <= set(short) and all(map(math.isfinite, longer.values()))
    assert longer["accuracy"] > short["accuracy"] + 10 and longer["fid"] < short["fid"]
    assert all(0 <= longer[share] <= 100 for share in ("accuracy", "precision", "recall"))
