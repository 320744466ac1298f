"""The recorded energy maps: whole, plausible, and made by what the package says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clteach.data.plane import lattice, make_cloud
from clteach.errors import CheckpointError
from clteach.experiments import energy_maps
from clteach.seeding import generator


def test_the_package_has_a_map_for_every_margin_and_weight() -> None:
    maps, about = energy_maps.load()
    assert list(maps) == [(m, w) for m in energy_maps.MARGINS for w in energy_maps.WEIGHTS]
    assert {"command", "commit", "steps", "seed"} <= set(about) and "dirty" not in str(about["commit"])
    for found in maps.values():
        assert found.energies.shape == (energy_maps.SIDE, energy_maps.SIDE) and bool((found.energies >= 0).all())
        assert found.samples.shape == (300, 2) and 0 <= found.covered.modes <= 8 and 0 <= found.covered.quality <= 1


def test_data_lie_low_in_the_recorded_landscapes() -> None:
    """At the paper's weight and the margin of the chapter the places near the data have less energy than the rest."""
    ring = make_cloud("ring", 8, generator(0))
    assert ring.centres is not None
    near = torch.cdist(lattice(energy_maps.LIMIT, energy_maps.SIDE), ring.centres).min(1).values < 0.15
    found = energy_maps.load()[0][1.0, 0.1].energies.flatten()
    assert float(found[near].mean()) < 0.5 * float(found[~near].mean())


def test_maps_are_made_written_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy_maps, "MARGINS", (0.5, 1.0))
    monkeypatch.setattr(energy_maps, "WEIGHTS", (0.1,))
    maps, about = energy_maps.load(energy_maps.make(tmp_path / "maps.safetensors", steps=20, seed=3))
    assert list(maps) == [(0.5, 0.1), (1.0, 0.1)] and about["steps"] == 20 and about["seed"] == 3
    again = energy_maps.energy_map(1.0, 0.1, steps=20, seed=3)
    torch.testing.assert_close(maps[1.0, 0.1].energies, again.energies, rtol=2e-3, atol=2e-3)  # half precision
    torch.testing.assert_close(maps[1.0, 0.1].samples, again.samples, rtol=2e-3, atol=2e-3)
    assert maps[1.0, 0.1].covered == again.covered


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "maps.safetensors"
    damaged.write_bytes(energy_maps.FILE.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        energy_maps.load(damaged)
