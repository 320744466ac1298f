"""Images and points in the plane stand where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from clteach import plots
from clteach.errors import ConfigError


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
    of_arrays = np.asarray(plots.samples(color.numpy()).axes[0].images[0].get_array())
    np.testing.assert_array_equal(of_arrays, picture)
    for bad in (images - 1, 2 * images, images * torch.nan):
        with pytest.raises(ConfigError, match=r"expected pixels in \[0, 1\]"):
            plots.samples(bad)
    for shape in ((8, 8), (0, 8, 8), (2, 2, 8, 8)):
        with pytest.raises(ConfigError, match="C = 1 or 3"):
            plots.samples(torch.zeros(shape))
    with pytest.raises(ConfigError, match="expected one per row, 2"):
        plots.samples(images, columns=3, row_labels=["zero"])


def test_latent_scatter(toy: Any) -> None:
    y = torch.arange(40) % 3
    ax = plots.latent_scatter(toy.codes(2), y, classes=["cat", "dog", "cow"]).axes[0]
    legend = ax.get_legend()
    assert legend and [t.get_text() for t in legend.get_texts()] == ["cat", "dog", "cow"]
    np.testing.assert_allclose(ax.collections[1].get_offsets(), toy.codes(2)[y == 1])  # type: ignore[arg-type]
    assert ax.get_xlabel() == "latent dimension 1"
    # Points on a line in 4 dimensions: the first component has all the variance.
    line = torch.linspace(0, 1, 40)[:, None] * torch.tensor([1.0, 2, 3, 4])
    assert plots.latent_scatter(line, y).axes[0].get_xlabel() == "component 1 (100% of variance)"
    points = [
        plots.latent_scatter(toy.codes(4), y, method="tsne", seed=s).axes[0].collections[0].get_offsets()
        for s in (0, 0)
    ]
    np.testing.assert_array_equal(points[0], points[1])
    assert plots.latent_scatter(toy.codes(2), torch.arange(40)).axes[1].get_ylabel() == "class"
    with pytest.raises(ConfigError, match='method is "umap"'):
        plots.latent_scatter(toy.codes(2), y, method="umap")
    for z, labels in ((toy.codes(1), y), (toy.codes(2)[:2], y[:2]), (toy.codes(2), y[1:])):
        with pytest.raises(ConfigError, match="z and y have shapes"):
            plots.latent_scatter(z, labels)


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
