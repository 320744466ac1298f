"""What generators make as pictures: samples, latent spaces, energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from clteach.errors import ConfigError
from clteach.plots.look import (
    ORANGE,
    PALETTE,
    Numbers,
    as_array,
    axes_of,
    finish,
    legend,
    theme,
)


@theme()
def samples(
    images: Numbers, columns: int = 10, row_labels: Sequence[str] | None = None, title: str | None = None
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

    x = torch.from_numpy(as_array(images)).float()
    shape = tuple(x.shape)
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3) or columns < 1:
        raise ConfigError(f"images has shape {shape}; expected (N, C, H, W), C = 1 or 3, or (N, H, W).")
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
    ax = axes_of(None, wide, rows * cell * height / width + (0.5 if title else 0.2))
    ax.imshow(grid, interpolation="nearest")
    ax.grid(False)
    ax.set_xticks([])
    ax.set_yticks(pad + height / 2 + (height + pad) * np.arange(rows) if row_labels else [], row_labels)
    ax.spines[:].set_visible(False)
    return finish(ax, title)


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
    points, group = as_array(z), as_array(y).astype(int)
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
    ax = axes_of(ax, 6.5, 4.8)
    dot: dict[str, Any] = {"s": 16, "linewidths": 0.3, "edgecolors": "0.25"}
    present = np.unique(group)
    if len(present) > 20:
        ax.figure.colorbar(ax.scatter(points[:, 0], points[:, 1], c=group, cmap="viridis", **dot), ax=ax, label="class")
    else:
        for k in present:
            name = classes[k] if classes else str(k)
            ax.scatter(*points[group == k].T, color=PALETTE[k % 10], marker="oX"[k // 10 % 2], label=name, **dot)
        legend(ax, "class")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    return finish(ax, title)


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
            `clteach.data.plane.lattice`).
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
    values = as_array(energies)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ConfigError(f"energies has shape {values.shape}; expected (K, K), one value per point of the lattice.")
    own = ax is None
    ax = axes_of(ax, 5, 4.2)
    half = limit / (len(values) - 1)  # a point of the lattice is the centre of its pixel
    edge = limit + half
    image = ax.imshow(values, origin="lower", extent=(-edge, edge, -edge, edge), cmap="cividis", vmin=0, vmax=vmax)
    if data is not None:
        x, y = as_array(data).T
        ax.scatter(x, y, s=9, facecolors="none", edgecolors="white", linewidths=0.6, label="data")
    if samples is not None:
        x, y = as_array(samples).T
        ax.scatter(x, y, s=4, color=ORANGE, linewidths=0, label="generated")
    ax.grid(False)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    if own:
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
        ax.figure.colorbar(image, ax=ax, label=f"energy ({unit})")
    return finish(ax, title)
