"""The settings and studies of brain-inspired replay."""

from __future__ import annotations

import math

import pytest

from clteach.experiments.papers import (
    RECIPES,
    brain_inspired_replay,
    column,
)
from clteach.experiments.recipe import Study


def test_brain_inspired_replay_has_no_temperature_squared_in_2022() -> None:
    for stream in ("split-mnist", "permuted-mnist"):
        assert column("2022", stream).settings("brain-inspired-replay", "class")["squared"] is False


@pytest.mark.parametrize("row", ["GR", "BI-R"])
def test_dreams_are_judged_together_and_by_task(row: str) -> None:
    study = RECIPES["brain-inspired-replay-generator-quality"]
    assert isinstance(study, Study)
    small = {**study.rows[row], "vae_hidden": (32,), "hidden": (32,)}
    found = brain_inspired_replay.dreams(1, 60, stream="split-digits", column=column("digits", "split-digits"), **small)
    assert set(study.measures) <= set(found) and all(map(math.isfinite, found.values()))
    if row == "GR":  # so short a run dreams of some tasks no more: that is a number as well
        missing = [t for t in range(1, 6) if found[f"share_{t}"] == 0]
        assert missing and all(found[f"recall_{t}"] == 0 for t in missing)
    assert sum(found[f"share_{t}"] for t in range(1, 6)) == pytest.approx(100)
    assert all(0 <= found[share] <= 100 for share in ("precision", "recall")) and 1 <= found["inception_score"] <= 10
