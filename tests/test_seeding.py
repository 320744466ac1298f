"""Seeds are addresses."""

from __future__ import annotations

import torch

from clteach.seeding import derive, generator, seeded


def test_seeds_are_addresses() -> None:
    assert derive(0, "step", 1, 2) == derive(0, "step", 1, 2)
    addresses = {derive(s, *path) for s in range(3) for path in [("a", 1), ("a", 2), ("b", 1), ("a",), ("a", 1, 1)]}
    assert len(addresses) == 15
    before = torch.get_rng_state()
    with seeded(0, "net"):
        first = torch.nn.Linear(3, 3).weight
    with seeded(0, "net"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, first)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.rand(1, generator=generator(1, "x")) == torch.rand(1, generator=generator(1, "x"))
