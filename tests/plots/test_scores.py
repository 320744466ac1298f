"""Scores: order, means, intervals and what they are drawn over."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text

from clteach import plots
from clteach.errors import ConfigError
from clteach.plots import look


def test_comparison_is_sorted_and_one_seed_has_no_interval() -> None:
    ax = plots.comparison({"joint": [0.9], "finetune": [0.2, 0.1, 0.3], "ewc": [0.5, 0.5]}).axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["fine-tuning", "EWC", "joint training"]
    assert "mean ± SEM" in ax.get_xlabel()
    assert plots.comparison({"joint": [0.9], "ewc": [0.5]}).axes[0].get_xlabel().endswith(", one seed")
    means, caps = [], []
    for container in ax.containers:
        line, cap, _ = container.lines  # type: ignore[attr-defined]
        means.append(line.get_xdata()[0])
        caps.append([c.get_xdata()[0] for c in cap])
    assert means == pytest.approx([20, 50, 90]) and caps[2] == []
    sem = 10 / np.sqrt(3)
    assert caps[0] == pytest.approx([20 - sem, 20 + sem])
    dots = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert [len(c.get_offsets()) for c in dots] == [3, 2, 1]  # type: ignore[arg-type]
    for scores in ([], [93.0]):
        with pytest.raises(ConfigError):
            plots.comparison({"joint": scores})


def test_comparison_by_scenario_keeps_one_order_and_leaves_a_gap() -> None:
    scores = {"task": {"finetune": [0.9, 0.7], "xdg": [1.0], "er": [0.95]}, "class": {"finetune": [0.2], "er": [0.9]}}
    task, class_ = plots.comparison_by_scenario(scores).axes
    assert [t.get_text() for t in task.get_yticklabels()] == ["experience replay", "XdG", "fine-tuning"]
    assert task.get_ylim() == class_.get_ylim()
    drawn = [sorted(y for line in ax.lines for y in np.atleast_1d(line.get_ydata())) for ax in (task, class_)]
    assert set(drawn[0]) == {0, 1, 2} and set(drawn[1]) == {0, 2}
    with pytest.raises(ConfigError, match="expected \\{scenario"):
        plots.comparison_by_scenario({})


def test_accuracy_bars_leave_room_for_tasks_to_come() -> None:
    figure = plots.accuracy_bars({"finetune": [0.0, 1.0], "joint": [0.5, 0.75]}, n_tasks=5)
    ax = figure.axes[0]
    assert [round(bar.get_height()) for bar in ax.patches] == [0, 100, 50, 75]
    assert ax.get_xlim()[1] > 5 and ax.get_ylabel() == "accuracy (%)"
    assert mpl.colors.same_color(ax.patches[0].get_facecolor(), plots.color("finetune"))
    centres = [bar.get_x() + bar.get_width() / 2 for bar in ax.patches]
    assert np.isclose((centres[0] + centres[2]) / 2, 1), "the bars of a task stand around its number"


def test_accuracy_against_a_setting() -> None:
    scores = {
        "er": {100: [0.9, 0.92], 1: [0.5, 0.7], 10: [0.8, 0.8]},
        "generative-replay": {1: [0.4, 0.4], 10: [0.5, 0.7], 100: [0.6, 0.6]},
    }
    ax = plots.accuracy_against(scores, "samples per step").axes[0]
    line, other = ax.lines
    assert list(line.get_xdata()) == [1, 10, 100] and list(line.get_ydata()) == pytest.approx([60, 80, 91])
    assert line.get_color() == plots.color("er") and len(other.get_xdata()) == 3
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "10", "100"] and ax.get_xscale() == "log"
    assert ax.get_xlabel() == "samples per step"
    with pytest.raises(ConfigError, match="different numbers of seeds"):
        plots.accuracy_against({"er": {1: [0.5], 2: [0.5, 0.6]}}, "samples")
    with pytest.raises(ConfigError, match="No scores"):
        plots.accuracy_against({"er": {}}, "samples")


def test_accuracy_against_cost_names_every_point() -> None:
    scores = {"er": [0.96, 0.98], "mine": [0.97], "ewc": [0.62], "Joint": [0.971, 0.973]}
    costs = {"er": 80.0, "mine": -3.0, "ewc": 140.0, "Joint": 0.0}
    ax = plots.accuracy_against_cost(scores, costs, "memory", "B", methods={"Joint": "joint"}).axes[0]
    texts = {t.get_text(): t for t in ax.texts}
    assert set(texts) == {"experience replay", "mine", "EWC", "Joint"}
    assert to_hex(texts["Joint"].get_color()) == plots.color("joint")
    assert texts["experience replay"].xy == (80.0, pytest.approx(97))
    ax.figure.draw_without_rendering()
    assert "100 B" in [t.get_text().replace("\N{THIN SPACE}", " ") for t in ax.get_xticklabels()]
    assert ax.get_xscale() == "symlog" and ax.get_ylim() == (58, 101)
    boxes = [Text.get_window_extent(t) for t in texts.values()]  # an annotation's own would hold its line too
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    with pytest.raises(ConfigError, match=r"without a cost: \['er'\]"):
        plots.accuracy_against_cost(scores, {"mine": 1, "ewc": 1, "Joint": 1}, "kB")


def test_score_histogram_shows_shares_of_each_group() -> None:
    fids = {"GAN": [10.0, 20.0, 1000.0, 1000.0], "EBGAN": [10.0, 12.0]}
    figure = plots.score_histogram(fids, "fid", "grid", bins=5)
    upper, lower = figure.axes
    for ax, group in ((upper, fids["GAN"]), (lower, fids["EBGAN"])):
        assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(100)  # type: ignore[attr-defined]
        assert ax.get_xscale() == "log"
        assert ax.lines[0].get_xdata()[0] == pytest.approx(float(np.median(group)))  # type: ignore[index]
    assert [bar.get_height() for bar in upper.patches][-1] == pytest.approx(50)  # type: ignore[attr-defined]
    assert "FID, lower is better" in lower.get_xlabel() and upper.get_title(loc="left") == "GAN (4)"
    shares = plots.score_histogram({"one": [0.5, 0.5]}).axes[0]
    assert shares.get_xscale() == "linear" and "accuracy (%), higher is better" in shares.get_xlabel()
    assert shares.lines[0].get_xdata()[0] == 50  # type: ignore[index]
    for bad in ({}, {"none": []}, {"nan": [float("nan")]}):
        with pytest.raises(ConfigError, match="No scores to draw"):
            plots.score_histogram(bad, "fid")


def test_measures_by_row_has_a_panel_per_measure() -> None:
    scores = {
        "modes (of 25)": {"0": [1.0, 3.0], "0.1": [5.0, 5.0]},
        "quality": {"0": [50.0, 60.0], "0.1": [70.0, 90.0]},
    }
    figure = plots.measures_by_row(scores, "weight")
    upper, lower = figure.axes
    assert [text.get_text() for text in lower.get_xticklabels()] == ["0", "0.1"]
    assert upper.get_title(loc="left") == "modes (of 25)" and "weight" in lower.get_xlabel()
    means = [
        float(line.get_ydata()[0])
        for line in lower.lines
        if line.get_color() == look.BLUE and len(line.get_ydata()) == 1
    ]  # type: ignore[arg-type,index]
    assert {55.0, 80.0} <= set(means)
    for bad in ({}, {"modes": {}}, {"modes": {"0": []}}, {"modes": {"0": [1.0]}, "recall": {"1": [1.0]}}):
        with pytest.raises(ConfigError, match="Nothing to draw"):
            plots.measures_by_row(bad, "weight")
