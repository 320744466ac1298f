"""The networks that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from clteach.errors import ConfigError


def mlp(shape: Sequence[int], hidden: Sequence[int], n_out: int) -> nn.Sequential:
    """A fully connected network with ReLU: flatten, `hidden` layers, one linear output layer.

    Args:
        shape: shape of one input; (B, *shape) is flattened to (B, prod(shape)).
        hidden: units of each hidden layer; may be empty (a linear model).
        n_out: output units.

    Returns:
        A module (B, *shape) -> (B, n_out).
    """
    sizes = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_hidden in pairwise(sizes):
        layers += [nn.Linear(n_in, n_hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around which the input takes a short cut (He et al. 2016); group norm after each.

    Where the block halves the image, the short cut drops every second pixel and pads the new channels with zeros, so it
    has no weights.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.stride, self.new = n_out // n_in, n_out - n_in
        self.conv1 = nn.Conv2d(n_in, n_out, 3, self.stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(8, n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(8, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H / stride, W / stride)."""
        h = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        return F.relu(h + short)


def resnet32(shape: Sequence[int], n_out: int) -> nn.Sequential:
    """ResNet-32 for small images (He et al. 2016): 31 convolutions in three stages of 16, 32 and 64 channels.

    Group norm instead of batch norm: its output for an image depends on that image alone and it keeps no running
    statistics, so it can serve in a loss that writes nothing. Both have the same weights, one gain and bias per channel.

    Args:
        shape: (C, H, W) of one image.
        n_out: output units.

    Returns:
        A module (B, C, H, W) -> (B, n_out).

    Raises:
        ConfigError: the inputs are no images.
    """
    channels = _channels(shape)
    stages = [16] * 6 + [32] * 5 + [64] * 5
    start: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()]
    blocks = [ResidualBlock(n_in, n_next) for n_in, n_next in pairwise(stages)]
    return nn.Sequential(*start, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_out))


def conv_net(shape: Sequence[int], n_out: int) -> nn.Sequential:
    """A small convolutional network: two times (two 3 x 3 convolutions, max pooling), then 512 units.

    Args:
        shape: (C, H, W) of one image.
        n_out: output units.

    Returns:
        A module (B, C, H, W) -> (B, n_out).

    Raises:
        ConfigError: the inputs are no images.
    """
    layers: list[nn.Module] = []
    for n_in, n_next in ((_channels(shape), 32), (32, 64)):
        layers += [nn.Conv2d(n_in, n_next, 3, padding=1), nn.ReLU(), nn.Conv2d(n_next, n_next, 3, padding=1), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    features = 64 * (shape[1] // 4) * (shape[2] // 4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 512), nn.ReLU(), nn.Linear(512, n_out))


def _channels(shape: Sequence[int]) -> int:
    if len(shape) != 3 or min(shape[1:]) < 4:
        raise ConfigError(
            f"inputs of shape {tuple(shape)}: a convolutional network needs images (C, H, W) of 4 x 4 or more."
        )
    return shape[0]
