"""Pictures: what they say (numbers, labels, colours) and what they leave alone (settings, pyplot, random state)."""

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
from matplotlib.collections import PathCollection, PolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

from clteach import plots
from clteach.errors import ClteachError, ConfigError
from clteach.plots import look

mpl.use("agg")  # else the first look at the settings changes them
METHODS = [*plots.STYLES, "my own method"]


def matrix(n: int, base: float = 0.9) -> Tensor:
    t, i = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return torch.where(i <= t, base ** (t - i).clamp(min=0), torch.nan)


def codes(d: int, n: int = 40) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def curve(n_tasks: int = 3, seeds: int = 2) -> tuple[Tensor, Tensor]:
    """100 steps per task; accuracy 0.1 on tasks not learned yet, else 0.1 (i + 1) on task i, 0.1 more for seed 1."""
    steps = torch.arange(0, 100 * n_tasks + 1, 50)
    accuracy = 0.1 * (1 + torch.arange(n_tasks)) + 0.1 * torch.arange(seeds)[:, None, None] + 0 * steps[:, None]
    return steps, accuracy.masked_fill(steps[:, None] <= 100 * torch.arange(n_tasks), torch.nan).nan_to_num(0.1)


PICTURES: dict[str, Callable[[], Figure]] = {
    "accuracy_matrix": lambda: plots.accuracy_matrix(matrix(5), title="T"),
    "accuracy_matrices": lambda: plots.accuracy_matrices({m: matrix(5) for m in METHODS[:5]}, title="T"),
    "accuracy_over_training": lambda: plots.accuracy_over_training(
        {m: curve() for m in METHODS}, [100, 200], title="T"
    ),
    "accuracy_per_task": lambda: plots.accuracy_per_task(
        {m: [matrix(10), matrix(10, 0.8)] for m in METHODS}, title="T"
    ),
    "comparison": lambda: plots.comparison({m: [0.5, 0.6, 0.7] for m in METHODS}, title="T"),
    "comparison_by_scenario": lambda: plots.comparison_by_scenario(
        {s: {m: [0.5, 0.6, 0.7] for m in METHODS} for s in ("task", "domain", "class")}, title="T"
    ),
    "samples": lambda: plots.samples(
        torch.linspace(0, 1, 768).reshape(12, 1, 8, 8), 4, row_labels=["a", "b", "c"], title="T"
    ),
    "pca": lambda: plots.latent_scatter(codes(5), torch.arange(40) % 10, title="T"),
    "tsne": lambda: plots.latent_scatter(codes(5), torch.arange(40) % 10, method="tsne", title="T"),
    "against": lambda: plots.accuracy_against(
        {"er": {2**k: [0.1 * k, 0.11 * k] for k in range(9)}}, "replayed samples per step", title="T"
    ),
    "against_cost": lambda: plots.accuracy_against_cost(
        {m: [0.05 * k, 0.05 * k + 0.02] for k, m in enumerate(METHODS[:19])},
        {m: 10.0**k - 1 if k < 7 else -5e3 for k, m in enumerate(METHODS)},
        "memory",
        unit="B",
        log_from=1e3,
        title="T",
    ),
    "losses": lambda: plots.losses({"classification": torch.arange(50), "KL divergence": torch.ones(50)}, title="T"),
}


def random_states() -> list[str]:
    numpy_state: Any = np.random.get_state()
    return [str(torch.get_rng_state().tolist()), str(numpy_state[1].tolist()), str(random.getstate())]


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture(name: str) -> None:
    settings, before = mpl.rcParams.copy(), random_states()
    fig = PICTURES[name]()
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


@pytest.mark.parametrize(("n", "annotated"), [(1, True), (5, True), (10, True), (100, False)])
def test_accuracy_matrix(n: int, annotated: bool) -> None:
    ax = plots.accuracy_matrix(matrix(n)).axes[0]
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


def test_accuracy_matrices() -> None:
    fig = plots.accuracy_matrices({"finetune": matrix(3), "joint": matrix(3), "mine": matrix(3)})
    *panels, bar = fig.axes
    assert [ax.get_title() for ax in panels] == ["fine-tuning", "joint training", "mine"]
    assert bar.get_ylabel() == "accuracy (%)" and len({ax.collections[0].get_clim() for ax in panels}) == 1
    with pytest.raises(ConfigError, match="at least one method"):
        plots.accuracy_matrices({})
    with pytest.raises(ConfigError, match=r"have \[2, 3\] tasks"):
        plots.accuracy_matrices({"joint": matrix(3), "ewc": matrix(2)})


def test_accuracy_over_training_averages_tasks_seen_and_seeds() -> None:
    ax = plots.accuracy_over_training({"ewc": curve()}, boundaries=[100, 200]).axes[0]
    line, *boundaries = ax.lines
    # Steps 0, 50, 100 see task 0 alone; 150, 200 two tasks; 250, 300 three.
    steps, accuracy = curve()
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


def test_a_method_looks_the_same_everywhere() -> None:
    training = plots.accuracy_over_training({m: curve(seeds=1) for m in METHODS}, []).axes[0]
    tasks = plots.accuracy_per_task({m: matrix(4) for m in METHODS}).axes[0]
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


def test_samples() -> None:
    images = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    ax = plots.samples(images, columns=3, row_labels=["zero", "one"]).axes[0]
    (shown,) = ax.images
    grid = np.asarray(shown.get_array())
    assert grid.shape == (2 * 9 + 1, 3 * 9 + 1, 3) and shown.get_interpolation() == "nearest"
    np.testing.assert_allclose(grid[1:9, 1:9, 0], images[0])
    np.testing.assert_allclose(grid[10:18, 19:27, 2], images[5])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["zero", "one"]
    assert ax.get_yticks().tolist() == [5, 14]
    color = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    picture = np.asarray(plots.samples(color).axes[0].images[0].get_array())
    np.testing.assert_allclose(picture[1:5, 1:5], color[0].permute(1, 2, 0))
    for bad in (images - 1, 2 * images, images * torch.nan):
        with pytest.raises(ConfigError, match=r"expected pixels in \[0, 1\]"):
            plots.samples(bad)
    for shape in ((8, 8), (0, 8, 8), (2, 2, 8, 8)):
        with pytest.raises(ConfigError, match="C = 1 or 3"):
            plots.samples(torch.zeros(shape))
    with pytest.raises(ConfigError, match="expected one per row, 2"):
        plots.samples(images, columns=3, row_labels=["zero"])


def test_latent_scatter() -> None:
    y = torch.arange(40) % 3
    ax = plots.latent_scatter(codes(2), y, classes=["cat", "dog", "cow"]).axes[0]
    legend = ax.get_legend()
    assert legend and [t.get_text() for t in legend.get_texts()] == ["cat", "dog", "cow"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), codes(2)[y == 1])  # type: ignore[arg-type]
    assert ax.get_xlabel() == "latent dimension 1"
    # Points on a line in 4 dimensions: the first component has all the variance.
    line = torch.linspace(0, 1, 40)[:, None] * torch.tensor([1.0, 2, 3, 4])
    assert plots.latent_scatter(line, y).axes[0].get_xlabel() == "component 1 (100% of variance)"
    points = [
        plots.latent_scatter(codes(4), y, method="tsne", seed=s).axes[0].collections[0].get_offsets() for s in (0, 0)
    ]
    np.testing.assert_array_equal(points[0], points[1])
    assert plots.latent_scatter(codes(2), torch.arange(40)).axes[1].get_ylabel() == "class"
    with pytest.raises(ConfigError, match='method is "umap"'):
        plots.latent_scatter(codes(2), y, method="umap")
    for z, labels in ((codes(1), y), (codes(2)[:2], y[:2]), (codes(2), y[1:])):
        with pytest.raises(ConfigError, match="z and y have shapes"):
            plots.latent_scatter(z, labels)


def test_losses() -> None:
    ax = plots.losses({"a": [3.0, 2.0], "b": torch.ones(2)}, steps=[10, 20], boundaries=[15], unit="bits").axes[0]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[10, 3], [20, 2]])
    assert ax.get_ylabel() == "loss (bits)" and len(ax.lines) == 3
    with pytest.raises(ConfigError, match="The loss term a has shape"):
        plots.losses({"a": [1.0, 2.0]}, steps=[1])


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
    assert path.read_bytes() == again._repr_png_()  # type: ignore[attr-defined]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ClteachError, match="cannot write"):
        plots.save(fig, tmp_path / "file" / "loss.png")


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


def test_matrices_of_another_measure_are_shown_as_they_are() -> None:
    fid = torch.tensor([[12.0, torch.nan], [250.0, 40.0]])
    ax = plots.accuracy_matrix(fid, measure="fid").axes[0]
    assert [t.get_text() for t in ax.texts] == ["12", "250", "40"]
    assert ax.collections[0].get_clim() == (0, 250) and ax.get_xlabel() == "FID on task"
    both = plots.accuracy_matrices({"vae-joint": fid / 10, "vae-finetune": fid}, measure="fid")
    assert both.axes[0].collections[0].get_clim() == (0, 250), "one scale for all"
    curve = plots.accuracy_per_task({"vae-joint": fid}, measure="fid").axes[0]
    assert curve.lines[0].get_ydata().tolist() == [12, 145] and curve.get_ylabel().startswith("FID")


def test_energy_map_puts_each_value_at_its_point() -> None:
    from clteach.data.plane import lattice

    energies = lattice(2.0, 5).square().sum(1).view(5, 5)  # x² + y²
    figure = plots.energy_map(energies, 2.0, samples=[[0.5, 1.0]], data=[[0.0, 0.0], [1.0, 1.0]], title="map")
    ax = figure.axes[0]
    (image,) = ax.images
    assert (
        image.get_extent() == [-2.5, 2.5, -2.5, 2.5] and image.origin == "lower"
    )  # each point in the middle of its pixel
    data, samples = ax.collections
    assert data.get_offsets().tolist() == [[0.0, 0.0], [1.0, 1.0]] and samples.get_offsets().tolist() == [[0.5, 1.0]]
    assert figure.axes[1].get_ylabel() == "energy (units of the data)"
    with pytest.raises(ConfigError, match="one value per point"):
        plots.energy_map(energies[:3], 2.0)


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
    for bad in ({}, {"modes": {}}, {"modes": {"0": []}}):
        with pytest.raises(ConfigError, match="Nothing to draw"):
            plots.measures_by_row(bad, "weight")
