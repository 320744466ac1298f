"""A run in one picture."""

from __future__ import annotations

import numpy as np

from clteach import plots
from clteach.data.streams import split
from clteach.methods import METHODS
from clteach.training.learner_checks import tiny, toy_data
from clteach.training.loop import train


def test_the_matrix_and_the_losses_over_all_steps() -> None:
    stream, cls = split(toy_data(), tasks=2), METHODS["hypernetwork-r"]  # two phases in every task
    run = train(cls(stream.spec, tiny(cls)), stream, steps=4, batch_size=5, log_every=3, device="cpu")
    figure = plots.run(run)
    matrix, losses = figure.axes[:2]
    assert len(matrix.texts) == 3 and figure.get_suptitle() == "hypernetwork + R, split-toy, class-incremental"
    per_task = sum(phase.steps for phase in run.phases(0))
    lines = {line.get_label(): line for line in losses.lines if not str(line.get_label()).startswith("_")}
    steps = np.asarray(lines["vae"].get_xdata())
    assert steps[-1] == 2 * per_task and (np.diff(steps) > 0).all()
    values = np.asarray(lines["vae"].get_ydata(), float)
    expected = [row.get("vae", np.nan) for row in run.losses]
    np.testing.assert_array_equal(values, expected)
    (border,) = [line for line in losses.lines if line.get_linestyle() == "--" and len(line.get_xdata()) == 2]
    assert border.get_xdata()[0] == per_task
    assert plots.run(run, "mine").get_suptitle() == "mine"
