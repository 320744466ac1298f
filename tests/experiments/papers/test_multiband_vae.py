"""The settings of Multiband VAE."""

from __future__ import annotations

import pytest

from clteach.experiments.papers import column


def test_multiband_has_the_papers_number_of_steps() -> None:
    """210 epochs of 0.7 · 12,000 images per task on average in batches of 64, half of it with twice the tasks."""
    split, dirichlet = (column("multiband", stream) for stream in ("split-mnist", "dirichlet-mnist"))
    assert split.steps == pytest.approx(210 * 0.7 * 12_000 / 64, abs=1) and split.batch == 64
    assert dirichlet.steps == pytest.approx(split.steps / 2, abs=1)
    assert split.settings("multiband-vae", "class") == {"lr": 1e-3}  # the rest are the method's defaults
    assert dirichlet.settings("multiband-vae", "class")["gamma"] == 0.95
