"""One function per picture: plain data in, a Figure out.

Every function returns a `Picture`: a matplotlib Figure that pyplot does not know. Nothing stays open and nothing is
shown twice. A picture that is the last value of a notebook cell is displayed whichever backend is active, because it
brings its own PNG; a script writes it to a file with `save`. A function that takes `ax` draws there and returns its
Figure.

Accuracies go in as shares of 1 and are shown in percent; another measure is shown as it is. Intervals are the mean ± the
standard error over seeds (SEM). A method has the same colour, line and marker in every picture, and related methods share a
hue. The colours are the colour-blind safe ones of seaborn's "colorblind" palette.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator
from torch import Tensor

from clteach.errors import ConfigError
from clteach.files import write_atomic
from clteach.metrics import MEASURES, average_accuracy_over_time, check_matrix, mean_sem

Numbers = Tensor | np.ndarray | Sequence[Any]
PALETTE: list[str] = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, _, GREY, _, SKY = PALETTE  # pink and yellow are too pale for lines on white


class Style(NamedTuple):
    """How a method is drawn."""

    label: str
    color: str
    linestyle: str
    marker: str


STYLES: dict[str, Style] = {
    "finetune": Style("fine-tuning", GREY, "-", "o"),
    "joint": Style("joint training", "#222222", "--", "s"),
    "ewc": Style("EWC", BLUE, "-", "o"),
    "online-ewc": Style("online EWC", BLUE, "--", "s"),
    "lwf": Style("LwF", BLUE, ":", "D"),
    "si": Style("SI", SKY, "-", "o"),
    "xdg": Style("XdG", SKY, "--", "s"),
    "si-xdg": Style("SI + XdG", SKY, ":", "D"),
    "er": Style("experience replay", ORANGE, "-", "o"),
    "a-gem": Style("A-GEM", ORANGE, "--", "s"),
    "generative-replay": Style("generative replay", GREEN, "-", "o"),
    "brain-inspired-replay": Style("brain-inspired replay", RED, "-", "o"),
    "brain-inspired-replay-si": Style("brain-inspired replay + SI", RED, "--", "s"),
    "hypernetwork": Style("hypernetwork", PURPLE, "-", "o"),
    "hypernetwork-ent": Style("hypernetwork + ENT", PURPLE, "--", "s"),
    "hypernetwork-r": Style("hypernetwork + R", PURPLE, ":", "D"),
    "hypernetwork-tir": Style("hypernetwork + TIR", PURPLE, "-.", "^"),
    "vae-finetune": Style("VAE, fine-tuned", GREY, "--", "s"),
    "vae-joint": Style("VAE, joint training", "#222222", ":", "D"),
    "vae-replay": Style("VAE with replay", GREEN, "--", "s"),
    "latent-partition": Style("hard latent partition", PURPLE, "-.", "D"),
    "multiband-vae": Style("Multiband VAE", BROWN, "-", "o"),
    "ebgan": Style("EBGAN", BROWN, "--", "s"),
    "hypernetwork-vae": Style("hypernetwork VAE", PURPLE, ":", "o"),
    "dream-replay": Style("replay of dreams", GREEN, ":", "D"),
}
COLORS: dict[str, str] = {name: style.color for name, style in STYLES.items()}
LABELS: dict[str, str] = {name: style.label for name, style in STYLES.items()}
_BY_LABEL: dict[str, Style] = {style.label: style for style in STYLES.values()}


def style(name: str) -> Style:
    """The style of a method, by its name or label; one of the user's own gets a fixed one that depends on its name alone."""
    if known := STYLES.get(name) or _BY_LABEL.get(name):
        return known
    number = zlib.crc32(name.encode())  # unlike hash(), the same in every process
    colors, markers = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, SKY), "vPX*<>"  # markers that no known method uses
    return Style(name, colors[number % 7], ("-", "--", ":", "-.")[number // 7 % 4], markers[number // 28 % 6])


def color(name: str) -> str:
    """The colour of a method, as "#rrggbb"."""
    return style(name).color


def label(name: str) -> str:
    """The display name of a method."""
    return style(name).label


class Picture(Figure):
    """A Figure outside pyplot that a notebook displays."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def to_png(fig: Figure, dpi: float | None = None) -> bytes:
    """Render a figure as PNG bytes; `dpi` is in pixels per inch (default: the figure's own, 100)."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi or fig.dpi)
    return buffer.getvalue()


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as PNG: complete or not at all. Missing folders are made.

    Returns:
        The path written.

    Raises:
        ClteachError: the place cannot be written.
    """
    png = to_png(fig)
    return write_atomic(path, lambda file: file.write(png))


@contextmanager
def theme() -> Iterator[None]:
    """The look of every picture; the global settings are as before when it ends. Also usable as a decorator."""
    look: Any = sns.axes_style("whitegrid") | sns.plotting_context("paper", font_scale=1.1)
    look |= {"axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 5, "legend.frameon": False}
    with mpl.rc_context(look):
        yield


def _figure(width: float, height: float) -> Picture:
    """A new figure of that size in inches, 100 pixels each: 8 inches fill the column of a web page."""
    return Picture(figsize=(width, height), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return _figure(width, height).subplots() if ax is None else ax


def _finish(ax: Axes, title: str | None) -> Figure:
    if title:
        ax.set_title(title)
    figure = ax.figure.figure  # also through a subfigure
    assert figure is not None
    return figure


def _array(values: Numbers) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float)


def _percent(name: str, shares: Numbers) -> np.ndarray:
    values = _array(shares)
    if (bad := values[(values < 0) | (values > 1)]).size:
        raise ConfigError(f"{name} has the accuracy {bad[0]:g}; expected shares in [0, 1] (divide percentages by 100).")
    return 100 * values


def _legend(ax: Axes, title: str | None = None) -> None:
    # Outside, so that it covers no data however many entries it has.
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, title=title, alignment="left")


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
    ax = _axes(ax, 5, 4)
    shown = MEASURES[measure].label + MEASURES[measure].unit
    _heatmap(ax, R, task_names, 3.2 / len(R), measure, _scale_end([R], measure))
    ax.set(xlabel=f"{shown} on task", ylabel="after learning task")
    ax.figure.colorbar(ax.collections[0], ax=ax, label=shown)
    return _finish(ax, title)


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
    fig = _figure(min(8, side * columns + 1.4), (side + 0.45) * rows + 0.4)
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


def _height(methods: Mapping[str, object]) -> float:
    """Height in inches of a picture with one line per method: the legend must fit beside it."""
    return max(4, 0.5 + 0.23 * len(methods))


def _curve(ax: Axes, name: str, x: np.ndarray, y: np.ndarray, markers: bool) -> None:
    """Draw a method's mean over seeds, y (seeds, K), with a band of ± SEM where there are two seeds or more."""
    look = style(name)
    mean = y.mean(0)
    marker = look.marker if markers else ""
    ax.plot(x, mean, label=look.label, color=look.color, linestyle=look.linestyle, marker=marker)
    if len(y) > 1:
        sem = y.std(0, ddof=1) / np.sqrt(len(y))
        ax.fill_between(x, mean - sem, mean + sem, color=look.color, alpha=0.2, linewidth=0)


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
        ConfigError: a curve's shapes do not fit together, or an accuracy is outside [0, 1].
    """
    ax = _axes(ax, 8, _height(curves))
    for name, (steps, accuracy) in curves.items():
        x, y = _array(steps), _percent(name, accuracy)
        if y.ndim not in (2, 3) or y.shape[-2:-1] != x.shape:
            raise ConfigError(
                f"The curve of {name} has steps of shape {x.shape} and accuracy of shape {y.shape}; "
                "expected (K,) and (K, T) or (seeds, K, T)."
            )
        seen = 1 + np.searchsorted(np.sort(_array(boundaries)), x)  # (K,) tasks seen at each step
        y = y.reshape(-1, *y.shape[-2:])  # (seeds, K, T)
        _curve(ax, name, x, np.stack([y[:, k, : seen[k]].mean(-1) for k in range(len(x))], axis=1), markers=False)
    _boundaries(ax, boundaries)
    ax.set(xlabel="training steps", ylabel="accuracy (%), mean over tasks seen", ylim=(-2, 102))
    _legend(ax)
    return _finish(ax, title)


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
        ConfigError: a matrix is no accuracy matrix.
    """
    ax, shows = _axes(ax, 8, _height(matrices)), MEASURES[measure]
    for name, R in matrices.items():
        seeds = [R] if isinstance(R, Tensor) and R.ndim == 2 else list(R)
        y = np.stack([average_accuracy_over_time(one, measure).numpy() for one in seeds])  # (seeds, T)
        _curve(ax, name, np.arange(1, y.shape[1] + 1), shows.factor * y, markers=True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="tasks learned", ylabel=f"{shows.label}{shows.unit}, mean over tasks seen")
    ax.set_ylim(*((-2, 102) if measure == "accuracy" else (0, None)))
    _legend(ax)
    return _finish(ax, title)


@theme()
def accuracy_bars(
    accuracies: Mapping[str, Numbers], n_tasks: int | None = None, title: str | None = None, ax: Axes | None = None
) -> Figure:
    """Accuracy on each task at one moment, one bar per method; room is left for the tasks to come.

    Args:
        accuracies: per method, (k,) accuracies in [0, 1] on the first k tasks.
        n_tasks: number of tasks in all (default: k).
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: an accuracy outside [0, 1].
    """
    ax = _axes(ax, 7, 3.2)
    width = 0.8 / len(accuracies)
    for i, (name, shares) in enumerate(accuracies.items()):
        values = _percent(name, shares)
        n_tasks = max(n_tasks or 0, len(values))
        left = np.arange(1, len(values) + 1) + (i - (len(accuracies) - 1) / 2) * width
        ax.bar(left, values, width, color=color(name), label=label(name))
    ax.set(xlabel="task", ylabel="accuracy (%)", ylim=(0, 100), xlim=(0.4, (n_tasks or 1) + 0.6))
    ax.set_xticks(range(1, (n_tasks or 1) + 1))
    ax.grid(axis="x", visible=False)
    _legend(ax)
    return _finish(ax, title)


@theme()
def accuracy_against(
    scores: Mapping[str, Mapping[float, Sequence[float]]],
    xlabel: str,
    log: bool = True,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Average accuracy against a setting: the mean over seeds, with a band of ± SEM where there are two seeds or more.

    Args:
        scores: {method: {value of the setting: average accuracies in [0, 1], one per seed}}; as many seeds per value.
        xlabel: what the setting is, with its unit ("replayed samples per step").
        log: a logarithmic axis; the values must then be > 0.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: no scores, different numbers of seeds, or an accuracy outside [0, 1].
    """
    if not scores or not all(scores.values()):
        raise ConfigError("No scores to draw; expected {method: {value: scores}} with at least one of each.")
    ax = _axes(ax, 8, _height(scores))
    for name, points in scores.items():
        if len({len(seeds) for seeds in points.values()}) != 1:
            raise ConfigError(f"{name} has different numbers of seeds at different values; expected the same for all.")
        x = np.array(sorted(points), dtype=float)
        _curve(ax, name, x, np.stack([_percent(name, points[value]) for value in sorted(points)], axis=1), markers=True)
    if log:
        ax.set_xscale("log")
    ticks = sorted({value for points in scores.values() for value in points})
    if len(ticks) <= 12:
        ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
        ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel="average accuracy (%)", ylim=(-2, 102))
    _legend(ax)
    return _finish(ax, title)


@theme()
def accuracy_against_cost(
    scores: Mapping[str, Sequence[float]],
    costs: Mapping[str, float],
    xlabel: str,
    unit: str = "",
    log_from: float | None = 1.0,
    methods: Mapping[str, str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Every method as a point: what it costs and how well it does. Its name stands on the right, tied to it by a line.

    Args:
        scores: {row: average accuracies in [0, 1], one per seed}; mean and, with two seeds or more, ± SEM are drawn.
        costs: {row: what it costs, in the unit of the axis}.
        xlabel: what the cost is.
        unit: its unit, written with each number as in "10 kB" (unit "B"); empty: plain numbers, name the unit in `xlabel`.
        log_from: the axis is logarithmic from here on, and linear around 0, where also savings (negative costs) have their
            place; None: linear everywhere.
        methods: {row: method whose style it has} where rows are not called as their methods are.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: nothing to draw, a row without a cost, or an accuracy outside [0, 1].
    """
    missing = [row for row in scores if row not in costs]
    if not scores or missing:
        raise ConfigError(
            f"rows without a cost: {missing or 'none, but there are no rows at all'}; expected one per row."
        )
    height = max(4, 0.5 + 0.21 * len(scores))
    ax = _axes(ax, 8, height)
    statistics = {row: mean_sem(list(_percent(row, values))) for row, values in scores.items()}
    order = sorted(scores, key=lambda row: (statistics[row][0], -costs[row]))
    highest = 101.0
    lowest = 10 * math.floor(min(mean for mean, _ in statistics.values()) / 10) - 2.0  # where all do well, look closer
    gap = min(0.19 / (0.85 * height), 1 / len(order)) * (highest - lowest)  # a line of text
    places = _apart([statistics[row][0] for row in order], gap, lowest, highest)
    for row, place in zip(order, places, strict=True):
        (mean, sem), look = statistics[row], style((methods or {}).get(row, row))
        error = sem if len(scores[row]) > 1 else None
        ax.errorbar(costs[row], mean, yerr=error, fmt=look.marker, color=look.color, capsize=2, zorder=3)
        ax.annotate(
            label(row), (costs[row], mean), (1.03, place), textcoords=ax.get_yaxis_transform(), va="center", fontsize=8.5,
            color=look.color,
            arrowprops={"arrowstyle": "-", "color": look.color, "alpha": 0.35, "linewidth": 0.7, "relpos": (0, 0.5)},
        )  # fmt: skip
    if log_from is not None:
        ax.set_xscale("symlog", linthresh=log_from)
        reach = {sign: max([sign * costs[row] for row in scores]) / log_from for sign in (-1, 1)}
        powers = {sign: range(math.floor(math.log10(most)) + 1) for sign, most in reach.items() if most >= 1}
        ax.set_xticks(sorted([0, *(sign * log_from * 10**k for sign, ks in powers.items() for k in ks)]))
        ax.minorticks_off()
    ax.xaxis.set_major_formatter(EngFormatter(unit))
    ax.set(xlabel=xlabel, ylabel="average accuracy (%)", ylim=(lowest, highest))
    return _finish(ax, title)


def _apart(values: Sequence[float], gap: float, lowest: float, highest: float) -> list[float]:
    """Places near increasing values, at least `gap` from each other and between two bounds if there is room."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + gap if places else lowest))
    ceiling = highest
    for k in reversed(range(len(places))):
        places[k] = min(places[k], ceiling)
        ceiling = places[k] - gap
    return places


@theme()
def comparison(scores: Mapping[str, Sequence[float]], title: str | None = None, ax: Axes | None = None) -> Figure:
    """Methods compared, best on top: the mean, an interval of ± SEM, and a pale dot for each seed.

    Args:
        scores: {method: average accuracies in [0, 1], one per seed}. One seed has no interval.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: a method has no scores, or one outside [0, 1].
    """
    ax = _axes(ax, 7, 0.8 + 0.32 * len(scores))
    order = sorted(scores, key=lambda name: mean_sem(scores[name])[0])
    _rows(ax, order, scores)
    ax.set(xlabel=f"average accuracy (%), {_spread(scores.values())}")
    return _finish(ax, title)


@theme()
def comparison_by_scenario(scores: Mapping[str, Mapping[str, Sequence[float]]], title: str | None = None) -> Figure:
    """Methods compared in several scenarios side by side; a row stays empty where a method does not exist.

    Args:
        scores: {scenario: {method: average accuracies in [0, 1], one per seed}}. The methods stand in the order in
            which they first appear, from the top.
        title: above the picture.

    Raises:
        ConfigError: no scenario, a method without scores, or one outside [0, 1].
    """
    if not scores:
        raise ConfigError("No scenario to draw; expected {scenario: {method: scores}} with at least one scenario.")
    order = list(dict.fromkeys(name for methods in scores.values() for name in methods))[::-1]
    fig = _figure(8, 1.2 + 0.28 * len(order))
    axes = fig.subplots(1, len(scores), squeeze=False, sharey=True)[0]
    for ax, (scenario, methods) in zip(axes, scores.items(), strict=True):
        _rows(ax, order, methods)
        ax.set_title(scenario)
    spread = _spread(seeds for methods in scores.values() for seeds in methods.values())
    fig.supxlabel(f"average accuracy (%), {spread}", fontsize="medium")
    if title:
        fig.suptitle(title)
    return fig


def _spread(scores: Iterable[Sequence[float]]) -> str:
    """What marks and lines of a comparison mean, given the scores of every row."""
    return "mean ± SEM (pale dots: seeds)" if any(len(seeds) > 1 for seeds in scores) else "one seed"


def _rows(ax: Axes, order: Sequence[str], scores: Mapping[str, Sequence[float]]) -> None:
    """One row per method, from the bottom up: mean, ± SEM where there are two seeds or more, a dot per seed."""
    for row, name in enumerate(order):
        if name not in scores:
            continue
        (mean, sem), look = mean_sem(scores[name]), style(name)
        seeds = _percent(name, scores[name])
        ax.scatter(seeds, np.full(len(seeds), row), s=22, color=look.color, alpha=0.35, linewidth=0)
        ax.errorbar(
            100 * mean, row, xerr=100 * sem if len(seeds) > 1 else None, fmt=look.marker, color=look.color, capsize=3
        )
    ax.set_yticks(range(len(order)), [label(name) for name in order])
    ax.set(xlim=(-2, 102), ylim=(-0.6, len(order) - 0.4))


@theme()
def measures_by_row(
    scores: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str, title: str | None = None
) -> Figure:
    """What a study measured, one panel per measure: for every row the mean ± SEM over seeds, and a pale dot for each seed.

    Args:
        scores: {measure, with its unit: {row: values, one per seed}}, the rows in the order in which they shall stand.
        xlabel: what the rows are, with the unit.
        title: above the picture.

    Raises:
        ConfigError: no measure, or a row without values.
    """
    if not scores or not all(rows and all(map(len, rows.values())) for rows in scores.values()):
        raise ConfigError("Nothing to draw; expected {measure: {row: values}} with at least one value in each row.")
    names = list(next(iter(scores.values())))
    fig = _figure(8, 0.8 + 1.6 * len(scores))
    axes = fig.subplots(len(scores), 1, squeeze=False, sharex=True)[:, 0]
    for ax, (measure, rows) in zip(axes, scores.items(), strict=True):
        for x, name in enumerate(names):
            mean, sem = mean_sem(rows[name])
            ax.plot([x] * len(rows[name]), rows[name], "o", color=GREY, alpha=0.5, markersize=4, linestyle="none")
            ax.errorbar(x, mean, 0 if np.isnan(sem) else sem, fmt="o", color=BLUE, capsize=3)
        ax.set_title(measure, loc="left", fontsize="medium")  # too long for the side of a low panel
        ax.set(ylim=(0, None))
    axes[-1].set_xticks(range(len(names)), names)
    axes[-1].set(xlabel=f"{xlabel}; {_spread(seeds for rows in scores.values() for seeds in rows.values())}")
    if title:
        fig.suptitle(title)
    return fig


@theme()
def score_histogram(
    scores: Mapping[str, Sequence[float]], measure: str = "accuracy", title: str | None = None, bins: int = 12
) -> Figure:
    """How the scores of many candidates are distributed: one histogram per group, one above the other, on one axis.

    Args:
        scores: {group: score of each of its candidates}; groups may have different numbers, so shares are shown.
        measure: what the scores are, one of `clteach.metrics.MEASURES`; an unbounded one has a logarithmic axis.
        title: above the picture.
        bins: number of bars over the range of all groups.

    Raises:
        ConfigError: a group without scores, or a score that is not finite.
    """
    shows = MEASURES[measure]
    values = {name: shows.factor * _array(group) for name, group in scores.items()}
    if not values or not all(len(group) and np.isfinite(group).all() for group in values.values()):
        raise ConfigError("No scores to draw; expected {group: scores} with at least one finite score in each group.")
    everything = np.concatenate(list(values.values()))
    log = np.isinf(shows.upper) and everything.min() > 0
    low, high = everything.min(), everything.max()
    if low == high:  # a single bar needs a width
        low, high = 0.9 * low, 1.1 * high + 1e-9
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    fig = _figure(7, 0.8 + 1.25 * len(values))
    axes = fig.subplots(len(values), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
    for index, (ax, (name, group)) in enumerate(zip(axes, values.items(), strict=True)):
        weights = np.full(len(group), 100 / len(group))
        ax.hist(group, edges, weights=weights, color=(BLUE, ORANGE, GREEN, RED, PURPLE)[index % 5])
        ax.axvline(float(np.median(group)), color="black", linestyle="--")
        ax.set_title(f"{name} ({len(group)})", loc="left", fontsize="medium", pad=3)
        if log:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
            ax.xaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
    better = "higher" if shows.sign > 0 else "lower"
    axes[-1].set(xlabel=f"{shows.label}{shows.unit}, {better} is better (dashed: median)")
    fig.supylabel("share of candidates (%)", fontsize="medium")
    if title:
        fig.suptitle(title)
    return fig


@theme()
def samples(
    images: Tensor, columns: int = 10, row_labels: Sequence[str] | None = None, title: str | None = None
) -> Figure:
    """A grid of images, row by row, pixels not smoothed.

    Args:
        images: (N, C, H, W) with C = 1 or 3, or (N, H, W), in [0, 1].
        columns: images per row.
        row_labels: one label per row, for example the class or the task.
        title: above the picture.

    Raises:
        ConfigError: another shape, values outside [0, 1], or the number of labels is not that of the rows.
    """
    from torchvision.utils import make_grid

    x = images.detach().cpu().float()
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3) or columns < 1:
        raise ConfigError(f"images has shape {tuple(images.shape)}; expected (N, C, H, W), C = 1 or 3, or (N, H, W).")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise ConfigError(f"images spans [{x.min():g}, {x.max():g}]; expected pixels in [0, 1].")
    columns, (height, width) = min(columns, len(x)), x.shape[2:]
    rows = -(-len(x) // columns)
    if row_labels is not None and len(row_labels) != rows:
        raise ConfigError(f"row_labels has {len(row_labels)} labels; expected one per row, {rows}.")
    cell = min(0.7, 6.6 / columns)  # inches
    pad = max(1, width // 14)
    grid = make_grid(x, nrow=columns, padding=pad, pad_value=1).permute(1, 2, 0).numpy()
    wide = max(columns * cell + (1.2 if row_labels else 0.2), 4 if title else 0)
    ax = _axes(None, wide, rows * cell * height / width + (0.5 if title else 0.2))
    ax.imshow(grid, interpolation="nearest")
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks(pad + height / 2 + (height + pad) * np.arange(rows) if row_labels else [], row_labels)
    ax.spines[:].set_visible(False)
    return _finish(ax, title)


@theme()
def latent_scatter(
    z: Tensor,
    y: Tensor,
    classes: Sequence[str] | None = None,
    method: str = "pca",
    seed: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Latent codes in the plane, coloured by class; projected when they have more than two dimensions.

    Args:
        z: (N, d) codes, d >= 2 and N >= 3.
        y: (N,) class of each code, an integer.
        classes: display names, indexed by class (default: the numbers). More than 20 classes get a colour bar.
        method: "pca" (the axes tell the variance explained) or "tsne" (distances between groups mean little). Codes
            with d = 2 are shown as they are.
        seed: seed of the projection; the global random state is not used.
        title: above the picture.
        ax: where to draw (default: a new figure).

    Raises:
        ConfigError: shapes that do not fit, or an unknown method.
    """
    points, group = _array(z), _array(y).astype(int)
    if points.ndim != 2 or len(points) < 3 or points.shape[1] < 2 or group.shape != points.shape[:1]:
        raise ConfigError(
            f"z and y have shapes {points.shape} and {group.shape}; expected (N, d) and (N,), N >= 3, d >= 2."
        )
    xlabel, ylabel = "latent dimension 1", "latent dimension 2"
    if method not in ("pca", "tsne"):
        raise ConfigError(f'method is "{method}"; expected "pca" or "tsne".')
    if points.shape[1] > 2 and method == "pca":
        from sklearn.decomposition import PCA

        pca = PCA(2, svd_solver="full").fit(points)
        points = pca.transform(points)
        xlabel, ylabel = (
            f"component {k + 1} ({share:.0%} of variance)" for k, share in enumerate(pca.explained_variance_ratio_)
        )
    elif points.shape[1] > 2:
        from sklearn.manifold import TSNE

        points = TSNE(perplexity=min(30, (len(points) - 1) / 3), random_state=seed).fit_transform(points)
        xlabel, ylabel = "t-SNE dimension 1 (no unit)", "t-SNE dimension 2 (no unit)"
    ax = _axes(ax, 6.5, 4.8)
    dot: dict[str, Any] = {"s": 16, "linewidths": 0.3, "edgecolors": "0.25"}
    present = np.unique(group)
    if len(present) > 20:
        ax.figure.colorbar(ax.scatter(points[:, 0], points[:, 1], c=group, cmap="viridis", **dot), ax=ax, label="class")
    else:
        for k in present:
            name = classes[k] if classes else str(k)
            ax.scatter(*points[group == k].T, color=PALETTE[k % 10], marker="oX"[k // 10 % 2], label=name, **dot)
        _legend(ax, "class")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return _finish(ax, title)


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
        ConfigError: `steps` and a term differ in length.
    """
    ax = _axes(ax, 8, 3.6)
    for k, (name, values) in enumerate(terms.items()):
        y = _array(values)
        x = np.arange(1, len(y) + 1) if steps is None else _array(steps)
        if x.shape != y.shape:
            raise ConfigError(
                f"The loss term {name} has shape {y.shape} but steps has {x.shape}; expected (K,) for both."
            )
        ax.plot(x, y, color=PALETTE[k % 10], linestyle=("-", "--", ":", "-.")[k // 10 % 4], label=name, linewidth=1.2)
    _boundaries(ax, boundaries)
    ax.set(xlabel="training steps", ylabel=f"loss ({unit})")
    _legend(ax, "term")
    return _finish(ax, title)


@theme()
def energy_map(
    energies: Numbers,
    limit: float,
    samples: Numbers | None = None,
    data: Numbers | None = None,
    vmax: float | None = None,
    unit: str = "units of the data",
    title: str | None = None,
    ax: Axes | None = None,
) -> Figure:
    """What a critic makes of the plane: its energy in colours (dark: low), with data and generated samples over it.

    Args:
        energies: (K, K) energies ≥ 0 on the regular lattice over [-limit, limit]², rows from the lowest y upwards (see
            `clteach.plane.lattice`).
        limit: half the side of the square that is shown.
        samples: (N, 2) generated points.
        data: (N, 2) points of the data.
        vmax: energy of the brightest colour (default: the largest).
        unit: unit of the energy.
        title: above the picture.
        ax: where to draw (default: a new figure with a colour bar).

    Raises:
        ConfigError: the energies are no square.
    """
    values = _array(energies)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ConfigError(f"energies has shape {values.shape}; expected (K, K), one value per point of the lattice.")
    own = ax is None
    ax = _axes(ax, 5, 4.2)
    half = limit / (len(values) - 1)  # a point of the lattice is the centre of its pixel
    edge = limit + half
    image = ax.imshow(values, origin="lower", extent=(-edge, edge, -edge, edge), cmap="cividis", vmin=0, vmax=vmax)
    if data is not None:
        x, y = _array(data).T
        ax.scatter(x, y, s=9, facecolors="none", edgecolors="white", linewidths=0.6, label="data")
    if samples is not None:
        x, y = _array(samples).T
        ax.scatter(x, y, s=4, color=ORANGE, linewidths=0, label="generated")
    ax.grid(False)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    if own:
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        ax.figure.colorbar(image, ax=ax, label=f"energy ({unit})")
    return _finish(ax, title)
