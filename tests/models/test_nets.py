"""The networks that several rooms share: their sizes, counted by hand, and what they must not do."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clteach.errors import ConfigError
from clteach.models.nets import conv_net, mlp, one_hot, resnet32
from clteach.seeding import seeded


@pytest.mark.parametrize("shape", [(7,), (2, 3), (0,)])
def test_one_hot(shape: tuple[int, ...]) -> None:
    index = torch.arange(torch.Size(shape).numel()).view(shape) % 4
    assert torch.equal(one_hot(index, 4), F.one_hot(index, 4).float())


def test_sizes() -> None:
    count = {
        net: sum(p.numel() for p in net.parameters()) for net in (resnet32((3, 32, 32), 10), conv_net((3, 32, 32), 10))
    }
    resnet, conv = count.values()
    # stem, three stages of 5 blocks with 2 convolutions each, gain and bias per channel, output layer
    stages = [16 * 27 + 2 * 16]
    for n_in, n in ((16, 16), (16, 32), (32, 64)):
        stages.append(9 * n_in * n + 9 * (9 * n * n) + 10 * 2 * n)
    assert resnet == sum(stages) + 64 * 10 + 10 == 464_154
    convolutions = (9 * 3 * 32 + 32) + (9 * 32 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64)
    assert conv == convolutions + 64 * 8 * 8 * 512 + 512 + 512 * 10 + 10
    assert sum(p.numel() for p in mlp((4,), (3,), 2).parameters()) == 4 * 3 + 3 + 3 * 2 + 2


@pytest.mark.parametrize("make", [resnet32, conv_net])
def test_an_image_is_seen_by_itself(make: object) -> None:
    with seeded(0):
        net = make((1, 9, 8), 5)  # type: ignore[operator]
    x = torch.rand(3, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = net(x), torch.cat([net(one[None]) for one in x])
    assert together.shape == (3, 5)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not list(net.buffers()), "no running statistics"


@pytest.mark.parametrize("make", [resnet32, conv_net])
def test_vectors_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match="needs images"):
        make((64,), 5)  # type: ignore[operator]
