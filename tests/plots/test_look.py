"""How every picture looks: what it leaves alone (settings, pyplot, random state), nothing cut off, one look for a method."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import sklearn.manifold  # noqa: F401  (its first import draws from Python's global random state)
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from clteach import plots
from clteach.errors import ClteachError, ConfigError

METHODS = [*plots.STYLES, "my own method"]
PICTURES: dict[str, Callable[[Any], Figure]] = {
    "accuracy_matrix": lambda toy: plots.accuracy_matrix(toy.matrix(5), title="T"),
    "accuracy_matrices": lambda toy: plots.accuracy_matrices({m: toy.matrix(5) for m in METHODS[:5]}, title="T"),
    "accuracy_over_training": lambda toy: plots.accuracy_over_training(
        {m: toy.curve() for m in METHODS}, [100, 200], title="T"
    ),
    "accuracy_per_task": lambda toy: plots.accuracy_per_task(
        {m: [toy.matrix(10), toy.matrix(10, 0.8)] for m in METHODS}, title="T"
    ),
    "comparison": lambda toy: plots.comparison({m: [0.5, 0.6, 0.7] for m in METHODS}, title="T"),
    "comparison_by_scenario": lambda toy: plots.comparison_by_scenario(
        {s: {m: [0.5, 0.6, 0.7] for m in METHODS} for s in ("task", "domain", "class")}, title="T"
    ),
    "samples": lambda toy: plots.samples(
        torch.linspace(0, 1, 768).reshape(12, 1, 8, 8), 4, row_labels=["a", "b", "c"], title="T"
    ),
    "pca": lambda toy: plots.latent_scatter(toy.codes(5), torch.arange(40) % 10, title="T"),
    "tsne": lambda toy: plots.latent_scatter(toy.codes(5), torch.arange(40) % 10, method="tsne", title="T"),
    "against": lambda toy: plots.accuracy_against(
        {"er": {2**k: [0.1 * k, 0.11 * k] for k in range(9)}}, "replayed samples per step", title="T"
    ),
    "against_cost": lambda toy: plots.accuracy_against_cost(
        {m: [0.05 * k, 0.05 * k + 0.02] for k, m in enumerate(METHODS[:19])},
        {m: 10.0**k - 1 if k < 7 else -5e3 for k, m in enumerate(METHODS)},
        "memory",
        unit="B",
        log_from=1e3,
        title="T",
    ),
    "losses": lambda toy: plots.losses(
        {"classification": torch.arange(50), "KL divergence": torch.ones(50)}, title="T"
    ),
}


def random_states() -> list[str]:
    numpy_state: Any = np.random.get_state()
    return [str(torch.get_rng_state().tolist()), str(numpy_state[1].tolist()), str(random.getstate())]


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture(toy: Any, name: str) -> None:
    settings, before = mpl.rcParams.copy(), random_states()
    fig = PICTURES[name](toy)
    assert mpl.rcParams == settings and plt.get_fignums() == []
    assert random_states() == before
    image = Image.open(io.BytesIO(plots.to_png(fig)))
    assert image.width <= 800 and image.format == "PNG"
    # Nothing sticks out of the picture, and no two texts of an axis overlap.
    width, height = fig.bbox.size
    for ax in fig.axes:
        box = ax.get_tightbbox()
        assert box and box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 1 and box.y1 <= height + 1
        for axis in (ax.xaxis, ax.yaxis):
            shown = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_visible() and t.get_text()]
            assert not any(a.overlaps(b) for a, b in pairwise(shown)), name
    if name != "samples":
        assert fig.axes[0].get_xlabel() or fig.get_supxlabel()


def test_a_method_looks_the_same_everywhere(toy: Any) -> None:
    training = plots.accuracy_over_training({m: toy.curve(seeds=1) for m in METHODS}, []).axes[0]
    tasks = plots.accuracy_per_task({m: toy.matrix(4) for m in METHODS}).axes[0]
    compared = plots.comparison({m: [0.1 + 0.01 * k] for k, m in enumerate(METHODS)}).axes[0]
    for k, m in enumerate(METHODS):
        dots = compared.collections[k].get_facecolor()
        colors = [training.lines[k].get_color(), tasks.lines[k].get_color(), to_hex(np.asarray(dots)[0])]
        assert {to_hex(c) for c in colors} == {plots.color(m)}
        assert training.lines[k].get_label() == tasks.lines[k].get_label() == plots.label(m)
        assert training.lines[k].get_linestyle() == tasks.lines[k].get_linestyle()


def test_styles() -> None:
    assert plots.COLORS["ewc"] == plots.color("ewc") and plots.LABELS["finetune"] == plots.label("finetune")
    assert set(plots.COLORS.values()) <= {*plots.PALETTE, "#222222"}
    looks = [style[1:] for style in plots.STYLES.values()]
    assert len(set(looks)) == len(looks) and len(set(plots.LABELS.values())) == len(looks)
    # A user's method keeps its look in every process, and is never taken for a known one.
    assert plots.style("EWC") == plots.style("ewc")  # a record's rows have labels
    assert plots.style("my own method") == plots.Style("my own method", "#ca9161", ":", ">")
    assert not {plots.style(f"m{k}").marker for k in range(200)} & {style.marker for style in plots.STYLES.values()}


def test_theme_ends_also_after_an_error() -> None:
    settings = mpl.rcParams.copy()
    with pytest.raises(ValueError, match="stop"), plots.theme():
        assert mpl.rcParams["axes.grid"] and mpl.rcParams != settings
        raise ValueError("stop")
    assert mpl.rcParams == settings


def test_save(tmp_path: Path) -> None:
    fig, again = (plots.losses({"a": [2.0, 1.0]}) for _ in range(2))
    path = plots.save(fig, tmp_path / "new" / "folder" / "loss.png")
    with Image.open(path) as image:
        assert image.size == (800, 360)
    assert [p.name for p in path.parent.iterdir()] == ["loss.png"]
    # A notebook shows what the file holds.
    assert path.read_bytes() == again._repr_png_()[0]  # type: ignore[attr-defined]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ClteachError, match="cannot write"):
        plots.save(fig, tmp_path / "file" / "loss.png")


SAID = "rows of pictures: a 3, a 8"


def test_a_picture_says_what_it_shows() -> None:
    with plots.theme():
        figure = plots.Picture(figsize=(5, 2))
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], label="right Fisher")
        left.set(xlabel="steps", ylabel=r"$\Sigma$ of shares", title="A title")
        left.legend()
        right.barh(["one", "two"], [1, 2])
    figure.suptitle("Both")
    text = "Both. A title; Sigma of shares against steps; right Fisher. one, two"
    assert plots.described(figure) == text
    png, metadata = figure._repr_png_()
    assert metadata == {"alt": text} and png.startswith(b"\x89PNG")
    assert plots.described(plots.samples(torch.zeros(4, 1, 8, 8), columns=2, row_labels=["a 3", "a 8"])) == SAID
    assert plots.described(plots.samples(torch.zeros(4, 1, 8, 8))) == "Pictures without labels"


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_says_something(name: str, toy: Any) -> None:
    assert len(plots.described(PICTURES[name](toy))) > 3


@pytest.mark.parametrize(
    "draw",
    [
        plots.accuracy_bars,
        plots.accuracy_matrices,
        plots.accuracy_per_task,
        lambda nothing: plots.accuracy_over_training(nothing, [10]),
        lambda nothing: plots.accuracy_against(nothing, "x"),
        lambda nothing: plots.accuracy_against_cost(nothing, {}, "x"),
        plots.comparison,
        plots.comparison_by_scenario,
        lambda nothing: plots.measures_by_row(nothing, "x"),
        plots.score_histogram,
        plots.losses,
        lambda nothing: plots.accuracy_matrix(torch.zeros(0, 0)),
    ],
)
def test_nothing_to_draw_is_said_so(draw: Callable[[Any], Figure]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        draw({})
