"""What happens during training as pictures: accuracies and losses over steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from clteach.errors import ConfigError
from clteach.metrics.accuracy import MEASURES, average_accuracy_over_time
from clteach.plots.look import (
    PALETTE,
    Numbers,
    as_array,
    axes_of,
    curve,
    finish,
    in_percent,
    legend,
    legend_height,
    not_empty,
    theme,
)


def _boundaries(ax: Axes, boundaries: Sequence[float]) -> None:
    ax.grid(False, axis="x")  # the boundaries are the vertical lines that matter
    for step in boundaries:
        ax.axvline(step, color="0.45", linestyle="--", linewidth=0.9, zorder=0.9)


@theme()
def accuracy_over_training(
    curves: Mapping[str, tuple[Numbers, Numbers]],
    boundaries: Sequence[float],
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Accuracy during training, as the mean over the tasks seen so far.

    Args:
        curves: {method: (steps (K,), accuracy (K, T) or (seeds, K, T))}; accuracies in [0, 1], NaN allowed for
            tasks not learned yet.
        boundaries: the training steps at which a task ended and the next began (dashed lines). A point on a boundary
            belongs to the task that ends there.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: no curve, its shapes do not fit together, or an accuracy is outside [0, 1].
    """
    not_empty("curves", curves, "{method: (steps, accuracy)}")
    ax = axes_of(ax, 8, legend_height(curves))
    for name, (steps, accuracy) in curves.items():
        x, y = as_array(steps), in_percent(name, accuracy)
        if y.ndim not in (2, 3) or y.shape[-2:-1] != x.shape:
            raise ConfigError(
                f"The curve of {name} has steps of shape {x.shape} and accuracy of shape {y.shape}; "
                "expected (K,) and (K, T) or (seeds, K, T)."
            )
        seen = 1 + np.searchsorted(np.sort(as_array(boundaries)), x)  # (K,) tasks seen at each step
        y = y.reshape(-1, *y.shape[-2:])  # (seeds, K, T)
        curve(ax, name, x, np.stack([y[:, k, : seen[k]].mean(-1) for k in range(len(x))], axis=1), markers=False)
    _boundaries(ax, boundaries)
    ax.set(xlabel="training steps", ylabel="accuracy (%), mean over tasks seen", ylim=(-2, 102))
    legend(ax)
    return finish(ax, title)


@theme()
def accuracy_per_task(
    matrices: Mapping[str, Tensor | Sequence[Tensor]],
    title: str | None = None,
    ax: Axes | None = None,
    measure: str = "accuracy",
) -> Figure:
    """Average accuracy over the tasks seen so far, after each task.

    Args:
        matrices: {method: (T, T) accuracies in [0, 1], or one such matrix per seed}.
        title: above the picture.
        ax: where to draw (default: a new figure).
        measure: what the entries are, one of `metrics.MEASURES`.

    Raises:
        ConfigError: no matrix, or one that is no accuracy matrix.
    """
    not_empty("accuracy matrices", matrices, "{method: R}")
    ax, shows = axes_of(ax, 8, legend_height(matrices)), MEASURES[measure]
    for name, R in matrices.items():
        seeds = [R] if isinstance(R, Tensor) and R.ndim == 2 else list(R)
        y = np.stack([average_accuracy_over_time(one, measure).numpy() for one in seeds])  # (seeds, T)
        curve(ax, name, np.arange(1, y.shape[1] + 1), shows.factor * y, markers=True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="tasks learned", ylabel=f"{shows.label}{shows.unit}, mean over tasks seen")
    ax.set_ylim(*((-2, 102) if measure == "accuracy" else (0, None)))
    legend(ax)
    return finish(ax, title)


@theme()
def losses(
    terms: Mapping[str, Numbers],
    steps: Numbers | None = None,
    boundaries: Sequence[float] = (),
    unit: str = "nats per sample",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The terms of the training loss over the steps.

    Args:
        terms: {name of the term: (K,) values}.
        steps: (K,) training step of each value (default: 1 .. K).
        boundaries: training steps at which a task ended (dashed lines).
        unit: unit of the loss.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: no term, or `steps` and a term differ in length.
    """
    not_empty("losses", terms, "{term: values}")
    ax = axes_of(ax, 8, 3.6)
    for k, (name, values) in enumerate(terms.items()):
        y = as_array(values)
        x = np.arange(1, len(y) + 1) if steps is None else as_array(steps)
        if x.shape != y.shape:
            raise ConfigError(
                f"The loss term {name} has shape {y.shape} but steps has {x.shape}; expected (K,) for both."
            )
        ax.plot(x, y, color=PALETTE[k % 10], linestyle=("-", "--", ":", "-.")[k // 10 % 4], label=name, linewidth=1.2)
    _boundaries(ax, boundaries)
    ax.set(xlabel="training steps", ylabel=f"loss ({unit})")
    legend(ax, "term")
    return finish(ax, title)
