"""Final scores as pictures: methods beside each other, against a setting, against what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from clteach.errors import ConfigError
from clteach.metrics.accuracy import MEASURES, mean_sem
from clteach.plots.look import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    Numbers,
    as_array,
    axes_of,
    color,
    curve,
    finish,
    in_percent,
    label,
    legend,
    legend_height,
    new_figure,
    not_empty,
    style,
    theme,
)


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
        ConfigError: no method, or an accuracy outside [0, 1].
    """
    not_empty("accuracies", accuracies, "{method: accuracies}")
    ax = axes_of(ax, 7, 3.2)
    width = 0.8 / len(accuracies)
    for i, (name, shares) in enumerate(accuracies.items()):
        values = in_percent(name, shares)
        n_tasks = max(n_tasks or 0, len(values))
        left = np.arange(1, len(values) + 1) + (i - (len(accuracies) - 1) / 2) * width
        ax.bar(left, values, width, color=color(name), label=label(name))
    ax.set(xlabel="task", ylabel="accuracy (%)", ylim=(0, 100), xlim=(0.4, (n_tasks or 1) + 0.6))
    ax.set_xticks(range(1, (n_tasks or 1) + 1))
    ax.grid(axis="x", visible=False)
    legend(ax)
    return finish(ax, title)


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
    ax = axes_of(ax, 8, legend_height(scores))
    for name, points in scores.items():
        if len({len(seeds) for seeds in points.values()}) != 1:
            raise ConfigError(f"{name} has different numbers of seeds at different values; expected the same for all.")
        x = np.array(sorted(points), dtype=float)
        curve(
            ax, name, x, np.stack([in_percent(name, points[value]) for value in sorted(points)], axis=1), markers=True
        )
    if log:
        ax.set_xscale("log")
    ticks = sorted({value for points in scores.values() for value in points})
    if len(ticks) <= 12:
        ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
        ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel="average accuracy (%)", ylim=(-2, 102))
    legend(ax)
    return finish(ax, title)


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
    ax = axes_of(ax, 8, height)
    statistics = {row: mean_sem(list(in_percent(row, values))) for row, values in scores.items()}
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
    return finish(ax, title)


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
        ConfigError: no method, one without scores, or a score outside [0, 1].
    """
    not_empty("scores", scores, "{method: scores}")
    ax = axes_of(ax, 7, 0.8 + 0.32 * len(scores))
    order = sorted(scores, key=lambda name: mean_sem(scores[name])[0])
    _rows(ax, order, scores)
    ax.set(xlabel=f"average accuracy (%), {_spread(scores.values())}")
    return finish(ax, title)


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
    fig = new_figure(8, 1.2 + 0.28 * len(order))
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
        seeds = in_percent(name, scores[name])
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
        ConfigError: no measure, a row without values, or different rows in different measures.
    """
    names = list(next(iter(scores.values()), ()))
    if not names or not all(set(rows) == set(names) and all(map(len, rows.values())) for rows in scores.values()):
        raise ConfigError(
            "Nothing to draw, or measures of different rows; expected {measure: {row: values}} with the same rows for every "
            "measure, and at least one value in each."
        )
    fig = new_figure(8, 0.8 + 1.6 * len(scores))
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
        measure: what the scores are, one of `clteach.metrics.accuracy.MEASURES`; an unbounded one has a logarithmic axis.
        title: above the picture.
        bins: number of bars over the range of all groups.

    Raises:
        ConfigError: a group without scores, or a score that is not finite.
    """
    shows = MEASURES[measure]
    values = {name: shows.factor * as_array(group) for name, group in scores.items()}
    if not values or not all(len(group) and np.isfinite(group).all() for group in values.values()):
        raise ConfigError("No scores to draw; expected {group: scores} with at least one finite score in each group.")
    everything = np.concatenate(list(values.values()))
    log = np.isinf(shows.upper) and everything.min() > 0
    low, high = everything.min(), everything.max()
    if low == high:  # a single bar needs a width
        low, high = 0.9 * low, 1.1 * high + 1e-9
    edges = np.geomspace(low, high, bins + 1) if log else np.linspace(low, high, bins + 1)
    fig = new_figure(7, 0.8 + 1.25 * len(values))
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
