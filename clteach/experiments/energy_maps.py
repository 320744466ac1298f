"""Energy maps of EBGANs on eight Gaussians in the plane, one for each margin and each weight of the pull-away term.

    python -m clteach.experiments.energy_maps

trains one EBGAN per map, a few minutes on one core, and writes `FILE` into the package, where `load` finds it: a reader who
moves a slider should not wait for a training.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from clteach import storage
from clteach.data.plane import lattice, make_cloud
from clteach.experiments.provenance import checkout
from clteach.learners.gan import cooled, fit
from clteach.methods.ebgan import EBGAN, make_gan
from clteach.metrics.modes import Coverage, coverage
from clteach.progress import bar
from clteach.seeding import generator

FILE = Path(__file__).parents[1] / "results" / "ebgan_maps.safetensors"
MARGINS = (0.1, 0.25, 0.5, 1.0, 2.0)
WEIGHTS = (0.0, 0.03, 0.1, 0.3, 1.0)
CONFIG = EBGAN.Config(z=2, hidden=(64, 64), critic_hidden=(128, 128), lr=2e-3)
"""Networks and learning rate of every map; margin and weight are the map's own."""
LIMIT = 2.2
"""The maps cover [-LIMIT, LIMIT]²."""
SIDE = 61
"""Points of a map along each axis."""


class EnergyMap(NamedTuple):
    """What one pair of players looks like after training."""

    energies: Tensor  # (SIDE, SIDE), rows from the lowest y upwards, in the units of the data
    samples: Tensor  # (N, 2)
    covered: Coverage  # modes of 8, and the share of 1000 samples within 3σ of one


def energy_map(margin: float, weight: float, steps: int = 3000, seed: int = 0) -> EnergyMap:
    """Train an EBGAN on the ring with this margin and this weight of the pull-away term, and look at it.

    Args:
        margin: > 0, in the units of the data; neighbouring heaps are 1.07 apart.
        weight: ≥ 0; 0 is plain EBGAN.
        steps: updates of each player.
        seed: seed of data, weights, training and samples.
    """
    ring = make_cloud("ring", 10_000, generator(seed, "data"))
    assert ring.centres is not None
    gan = make_gan((2,), replace(CONFIG, margin=margin, pull_away=weight), seed, bounded=False)
    fit(gan, ring.x, steps, seed=seed, lr_scale=cooled)
    with torch.no_grad():
        energies = gan.energy(lattice(LIMIT, SIDE)).view(SIDE, SIDE)
        samples = gan.sample(torch.randn(1000, CONFIG.z, generator=generator(seed, "samples")))
    return EnergyMap(energies, samples[:300], coverage(samples, ring.centres, ring.sigma))


def make(out: str | Path = FILE, steps: int = 3000, seed: int = 0) -> Path:
    """Train all maps and write them, in half precision, with how they were made; returns `out`."""
    made: dict[str, Tensor] = {}
    commit = checkout()
    pairs = list(itertools.product(MARGINS, WEIGHTS))
    with bar("energy maps") as report:
        for done, (margin, weight) in enumerate(pairs):
            name = f"{margin:g}/{weight:g}"
            report(done, len(pairs), name)
            found = energy_map(margin, weight, steps, seed)
            made[f"{name}/energies"], made[f"{name}/samples"] = found.energies.half(), found.samples.half()
            made[f"{name}/covered"] = torch.tensor(found.covered, dtype=torch.float64)
    about = {"command": "python -m clteach.experiments.energy_maps", "commit": commit, "steps": steps, "seed": seed}
    return storage.save_tensors(out, made, {**about, "margins": MARGINS, "weights": WEIGHTS})


def load(path: str | Path = FILE) -> tuple[dict[tuple[float, float], EnergyMap], dict[str, object]]:
    """The recorded maps as {(margin, weight): map}, and how they were made.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    tensors, about = storage.load_tensors(path)
    maps = {}
    for margin, weight in itertools.product(about["margins"], about["weights"]):
        name = f"{margin:g}/{weight:g}"
        modes, quality = tensors[f"{name}/covered"].tolist()
        energies, samples = tensors[f"{name}/energies"].float(), tensors[f"{name}/samples"].float()
        maps[margin, weight] = EnergyMap(energies, samples, Coverage(int(modes), quality))
    return maps, about


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m clteach.experiments.energy_maps", description=make.__doc__)
    parser.add_argument("--steps", type=int, default=3000, help="updates of each player (default: 3000)")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default: in the package)")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(make(given.out, given.steps))
