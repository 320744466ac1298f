"""Accuracy matrices as pictures: every task (columns) after learning each (rows)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from clteach.errors import ConfigError
from clteach.metrics.accuracy import MEASURES, check_matrix
from clteach.plots.look import (
    axes_of,
    finish,
    label,
    new_figure,
    theme,
)


def _scale_end(matrices: Iterable[Tensor], measure: str) -> float:
    """The end of the scale on which matrices of a measure are shown: its greatest value, or theirs."""
    shows = MEASURES[measure]
    if np.isfinite(shows.upper):
        return shows.factor * shows.upper
    return max(float(check_matrix(R, measure=measure).tril().max()) for R in matrices)


def _heatmap(ax: Axes, R: Tensor, names: Sequence[str] | None, cell: float, measure: str, top: float) -> None:
    """Draw one matrix; `cell` is about the width of a cell in inches, `top` the end of the scale."""
    R = check_matrix(R, measure=measure)
    n, shows = len(R), MEASURES[measure]
    if names is not None and len(names) != n:
        raise ConfigError(
            f"task_names has {len(names)} names but the matrix has {n} tasks; expected one name per task."
        )
    digits = min(10.0, (28 if top < 1000 else 23) * cell)
    sns.heatmap(
        shows.factor * R.numpy(), mask=np.triu(np.ones((n, n), dtype=bool), 1), vmin=0, vmax=top, square=True,
        cmap="crest" if shows.sign > 0 else "crest_r",  # dark is good
        annot=n <= 12 and cell >= 0.22, fmt=".0f", annot_kws={"size": digits}, cbar=False, ax=ax,
        linecolor="white", linewidths=0.5 if n <= 12 else 0, xticklabels=False, yticklabels=False,
    )  # fmt: skip
    shown = np.arange(n) if n <= 12 else np.linspace(0, n - 1, 5).round().astype(int)
    labels = [names[i] if names else str(i + 1) for i in shown]
    slanted = max(map(len, labels)) > 4
    ax.set_xticks(shown + 0.5, labels, rotation=40 if slanted else 0, ha="right" if slanted else "center")
    ax.set_yticks(shown + 0.5, labels, rotation=0)
    ax.grid(False)
    ax.set_facecolor("0.92")  # the future


@theme()
def accuracy_matrix(
    R: Tensor,
    title: str | None = None,
    task_names: Sequence[str] | None = None,
    ax: Axes | None = None,
    measure: str = "accuracy",
) -> Figure:
    """The accuracy matrix as a heat map in percent; tasks not learned yet are grey.

    Args:
        R: (T, T) accuracies in [0, 1], R[t, i] on task i after learning task t; not read for i > t.
        title: above the picture.
        task_names: T names, for example the classes of each task (default: 1 .. T). Cells are annotated for T <= 12.
        ax: where to draw (default: a new figure).
        measure: what the entries are, one of `metrics.MEASURES`; dark is good.

    Raises:
        ConfigError: `R` is no accuracy matrix (see `metrics.check_matrix`), or the number of names is not T.
    """
    check_matrix(R, measure=measure)
    ax = axes_of(ax, 5, 4)
    shown = MEASURES[measure].label + MEASURES[measure].unit
    _heatmap(ax, R, task_names, 3.2 / len(R), measure, _scale_end([R], measure))
    ax.set(xlabel=f"{shown} on task", ylabel="after learning task")
    ax.figure.colorbar(ax.collections[0], ax=ax, label=shown)
    return finish(ax, title)


@theme()
def accuracy_matrices(
    matrices: Mapping[str, Tensor],
    title: str | None = None,
    task_names: Sequence[str] | None = None,
    measure: str = "accuracy",
) -> Figure:
    """Several accuracy matrices side by side on one scale (accuracies: from 0 to 100 %), up to four in a row.

    Args:
        matrices: {method: (T, T) accuracies in [0, 1]}, see `accuracy_matrix`.
        title: above the picture.
        task_names: T names, shared by all matrices (default: 1 .. T).
        measure: what the entries are, one of `metrics.MEASURES`; dark is good.

    Raises:
        ConfigError: no matrices, different numbers of tasks, or as `accuracy_matrix`.
    """
    if not matrices:
        raise ConfigError("No accuracy matrix to draw; expected {method: R} with at least one method.")
    if len(sizes := {len(R) for R in matrices.values()}) > 1:
        raise ConfigError(
            f"The accuracy matrices have {sorted(sizes)} tasks; expected the same number for every method."
        )
    n_tasks = sizes.pop()
    columns = min(len(matrices), 4 if n_tasks <= 6 else 3)
    rows = -(-len(matrices) // columns)
    side = 6.6 / max(columns, 2)
    fig = new_figure(min(8, side * columns + 1.4), (side + 0.45) * rows + 0.4)
    axes = fig.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    top, shown = _scale_end(matrices.values(), measure), MEASURES[measure].label + MEASURES[measure].unit
    for ax, (name, R) in zip(axes.flat, matrices.items(), strict=False):
        _heatmap(ax, R, task_names, 0.85 * side / n_tasks, measure, top)
        ax.set_title(label(name))
        ax.tick_params(labelbottom=True)
    for ax in axes.flat[len(matrices) :]:
        ax.set_axis_off()
    fig.supxlabel(f"{shown} on task", fontsize="medium")
    fig.supylabel("after learning task", fontsize="medium")
    fig.colorbar(axes[0, 0].collections[0], ax=axes, label=shown, aspect=20 * rows)
    if title:
        fig.suptitle(title)
    return fig
