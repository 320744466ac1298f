"""Accuracy matrices: numbers, colours, labels."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh

from clteach import plots
from clteach.errors import ConfigError


@pytest.mark.parametrize(("n", "annotated"), [(1, True), (5, True), (10, True), (100, False)])
def test_accuracy_matrix(toy: Any, n: int, annotated: bool) -> None:
    ax = plots.accuracy_matrix(toy.matrix(n)).axes[0]
    texts = [t.get_text() for t in ax.texts]
    expected = [f"{100 * 0.9 ** (t - i):.0f}" for t in range(n) for i in range(t + 1)]
    assert texts == (expected if annotated else [])
    mesh = ax.collections[0]
    assert isinstance(mesh, QuadMesh) and mesh.get_clim() == (0, 100)
    assert np.ma.getmaskarray(np.ma.asarray(mesh.get_array())).reshape(n, n)[np.triu_indices(n, 1)].all()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("accuracy (%) on task", "after learning task")
    ticks = [t.get_text() for t in ax.get_yticklabels()]
    assert ticks[0] == "1" and ticks[-1] == str(n) and len(ticks) == min(n, 5 if n > 12 else n)


def test_accuracy_matrix_hides_a_known_future_and_takes_names_and_axes() -> None:
    fig, ax = plt.subplots()
    R = torch.full((3, 3), 0.5)
    assert plots.accuracy_matrix(R, task_names=["cat, dog", "car, bus", "sun"], ax=ax) is fig
    plt.close(fig)
    assert len(ax.texts) == 6 and [t.get_text() for t in ax.get_xticklabels()] == ["cat, dog", "car, bus", "sun"]
    with pytest.raises(ConfigError, match="2 names but the matrix has 3 tasks"):
        plots.accuracy_matrix(R, task_names=["a", "b"])
    with pytest.raises(ConfigError, match="divide percentages"):
        plots.accuracy_matrix(100 * R)


def test_accuracy_matrices(toy: Any) -> None:
    fig = plots.accuracy_matrices({"finetune": toy.matrix(3), "joint": toy.matrix(3), "mine": toy.matrix(3)})
    *panels, bar = fig.axes
    assert [ax.get_title() for ax in panels] == ["fine-tuning", "joint training", "mine"]
    assert bar.get_ylabel() == "accuracy (%)" and len({ax.collections[0].get_clim() for ax in panels}) == 1
    with pytest.raises(ConfigError, match="at least one method"):
        plots.accuracy_matrices({})
    with pytest.raises(ConfigError, match=r"have \[2, 3\] tasks"):
        plots.accuracy_matrices({"joint": toy.matrix(3), "ewc": toy.matrix(2)})


def test_matrices_of_another_measure_are_shown_as_they_are() -> None:
    fid = torch.tensor([[12.0, torch.nan], [250.0, 40.0]])
    ax = plots.accuracy_matrix(fid, measure="fid").axes[0]
    assert [t.get_text() for t in ax.texts] == ["12", "250", "40"]
    assert ax.collections[0].get_clim() == (0, 250) and ax.get_xlabel() == "FID on task"
    both = plots.accuracy_matrices({"vae-joint": fid / 10, "vae-finetune": fid}, measure="fid")
    assert both.axes[0].collections[0].get_clim() == (0, 250), "one scale for all"
    curve = plots.accuracy_per_task({"vae-joint": fid}, measure="fid").axes[0]
    assert curve.lines[0].get_ydata().tolist() == [12, 145] and curve.get_ylabel().startswith("FID")
