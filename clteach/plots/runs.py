"""A run in one picture: what it scored on every task after every task, and its losses on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from clteach.plots.curves import losses
from clteach.plots.look import label, new_figure, theme
from clteach.plots.matrices import accuracy_matrix


class Trained(Protocol):
    """What `clteach.train` returns."""

    learner: Any
    config: dict[str, Any]
    accuracy: Tensor
    losses: list[dict[str, Any]]


@theme()
def run(run: Trained, title: str | None = None) -> Figure:
    """The accuracy matrix of a run, and the terms of its loss over all its steps.

    Args:
        run: what `clteach.train` returns.
        title: above the picture (default: the method and its stream).

    Raises:
        ConfigError: a run that lacks scores of tasks learned, as one that goes on without the results of then.
    """
    fig = new_figure(8, 3.6)
    left, right = fig.subplots(1, 2, width_ratios=(1, 1.2))
    accuracy_matrix(run.accuracy, ax=left, measure=run.learner.measure)
    steps, boundaries, terms = _over_all_steps(run.losses)
    losses(terms, steps, boundaries, ax=right)
    fig.suptitle(
        title or f"{label(run.config['name'])}, {run.config['stream']}, {run.learner.spec.scenario}-incremental"
    )
    return fig


def _over_all_steps(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, list[int], dict[str, np.ndarray]]:
    """Steps over the whole run (K,), those at which a task ended, and every term (K,), NaN where a phase has it not."""
    steps, boundaries, before = [], [], 0
    for row, following in zip(rows, [*rows[1:], None], strict=True):
        steps.append(before + row["step"])
        if following is not None and (following["task"], following["phase"]) != (row["task"], row["phase"]):
            before = steps[-1]
            if following["task"] != row["task"]:
                boundaries.append(before)
    names = dict.fromkeys(name for row in rows for name in row if name not in ("task", "phase", "step"))
    return np.array(steps), boundaries, {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
