"""Distributions in the plane: their moments and places, by hand."""

from __future__ import annotations

import pytest
import torch

from clteach.data.plane import CLOUDS, lattice, make_cloud
from clteach.errors import ConfigError
from clteach.metrics.modes import coverage
from clteach.seeding import generator


def test_the_25_gaussians() -> None:
    cloud = make_cloud("grid", 10_000, generator(0))
    assert cloud.centres is not None and cloud.centres.shape == (25, 2)
    assert {round(2.83 * float(v)) for v in cloud.centres.flatten()} == {-4, -2, 0, 2, 4}
    torch.testing.assert_close(cloud.x.std(0), torch.ones(2), atol=0.02, rtol=0)  # what dividing by √8 is for
    distance, nearest = torch.cdist(cloud.x, cloud.centres).min(1)
    assert torch.bincount(nearest).tolist() == [400] * 25
    # The radius of a plane Gaussian: E r² = 2 σ², and P(r > 3σ) = exp(-4.5) = 0.011.
    assert float(distance.square().mean()) == pytest.approx(2 * (0.05 / 2.83) ** 2, rel=0.05)
    assert coverage(cloud.x, cloud.centres, cloud.sigma) == (25, pytest.approx(1 - 0.0111, abs=0.004))


def test_ring_and_moons_lie_where_they_should() -> None:
    ring, moons = (make_cloud(name, 2000, generator(0)) for name in ("ring", "moons"))
    assert ring.centres is not None and moons.centres is None
    torch.testing.assert_close(ring.centres.norm(dim=1), torch.full((8,), 1.4))
    # Every point of the moons is near one of the two half circles.
    upper = (moons.x - torch.tensor([-0.5, -0.25])).norm(dim=1)
    lower = (moons.x - torch.tensor([0.5, 0.25])).norm(dim=1)
    assert float(torch.minimum((upper - 1).abs(), (lower - 1).abs()).max()) < 0.25
    assert float(moons.x.mean(0).abs().max()) < 0.05


@pytest.mark.parametrize("name", CLOUDS)
def test_clouds_repeat(name: str) -> None:
    assert torch.equal(make_cloud(name, 50, generator(3)).x, make_cloud(name, 50, generator(3)).x)
    assert make_cloud(name, 50, generator(3)).x.shape == (50, 2)


def test_unknown_cloud() -> None:
    with pytest.raises(ConfigError, match="grid, ring, moons"):
        make_cloud("spiral", 5, generator(0))


def test_lattice_runs_row_by_row_from_below() -> None:
    assert lattice(1.0, 3).tolist() == [[x, y] for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)]
