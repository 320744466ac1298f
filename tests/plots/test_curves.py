"""Curves: means over tasks and seeds, and their bands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection

from clteach import plots
from clteach.errors import ConfigError


def test_accuracy_over_training_averages_tasks_seen_and_seeds(toy: Any) -> None:
    ax = plots.accuracy_over_training({"ewc": toy.curve()}, boundaries=[100, 200]).axes[0]
    line, *boundaries = ax.lines
    # Steps 0, 50, 100 see task 0 alone; 150, 200 two tasks; 250, 300 three.
    steps, accuracy = toy.curve()
    seen = [1, 1, 1, 2, 2, 3, 3]
    expected = [100 * float(accuracy[:, k, :n].mean()) for k, n in enumerate(seen)]
    np.testing.assert_allclose(np.asarray(line.get_ydata()), np.array(expected), rtol=1e-6)
    np.testing.assert_array_equal(line.get_xdata(), steps)
    assert [b.get_xdata()[0] for b in boundaries] == [100, 200]  # type: ignore[index]
    assert all(b.get_linestyle() == "--" for b in boundaries)
    (band,) = ax.collections
    assert isinstance(band, PolyCollection)
    y = 100 * np.stack([accuracy[:, k, :n].mean(-1).numpy() for k, n in enumerate(seen)], axis=1)  # (seeds, K)
    sem = y.std(0, ddof=1) / np.sqrt(2)
    vertices = band.get_paths()[0].vertices
    assert np.max(np.asarray(vertices)[:, 1]) == pytest.approx((y.mean(0) + sem).max())
    # One seed, with or without its dimension: the same line, no band.
    for one in (accuracy[:1], accuracy[0]):
        single = plots.accuracy_over_training({"ewc": (steps, one)}, [100, 200]).axes[0]
        np.testing.assert_allclose(np.asarray(single.lines[0].get_ydata()), y[0], rtol=1e-6)
        assert len(single.collections) == 0
    with pytest.raises(ConfigError, match="The curve of ewc has steps of shape"):
        plots.accuracy_over_training({"ewc": (steps[:-1], accuracy)}, [])
    with pytest.raises(ConfigError, match="ewc has the accuracy 10; "):
        plots.accuracy_over_training({"ewc": (steps, 100 * accuracy)}, [])


def test_accuracy_per_task() -> None:
    R = torch.tensor([[1.0, torch.nan], [0.5, 0.9]])
    ax = plots.accuracy_per_task({"si": R, "xdg": torch.stack([R, R])}).axes[0]
    for line in ax.lines:
        np.testing.assert_allclose(np.asarray(line.get_ydata()), [100, 70], rtol=1e-6)
        np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    assert len(ax.collections) == 1  # the band of the two seeds


def test_losses() -> None:
    ax = plots.losses({"a": [3.0, 2.0], "b": torch.ones(2)}, steps=[10, 20], boundaries=[15], unit="bits").axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[10, 3], [20, 2]])
    assert ax.get_ylabel() == "loss (bits)" and len(ax.lines) == 3
    with pytest.raises(ConfigError, match="The loss term a has shape"):
        plots.losses({"a": [1.0, 2.0]}, steps=[1])
