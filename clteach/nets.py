"""The networks that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def mlp(
    shape: Sequence[int], hidden: Sequence[int], n_out: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A fully connected network: flatten, `hidden` layers, one linear output layer.

    Args:
        shape: shape of one input; (B, *shape) is flattened to (B, prod(shape)).
        hidden: units of each hidden layer; may be empty (a linear model).
        n_out: output units.
        activation: what follows each hidden layer.

    Returns:
        A module (B, *shape) -> (B, n_out).
    """
    sizes = [math.prod(shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_hidden in pairwise(sizes):
        layers += [nn.Linear(n_in, n_hidden), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


class LeNet(nn.Module):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max-pooling; its 84 last hidden units are the features of a picture.

    Args:
        channels: channels of an image. Images of another size than 28 x 28 are resized (bilinear).
        n_out: number of classes.
    """

    n_features = 84

    def __init__(self, channels: int, n_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),  # (B, 6, 14, 14)
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),  # (B, 16, 5, 5)
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, self.n_features), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(self.n_features, n_out)

    def features(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> last hidden layer (B, 84)."""
        if x.shape[-2:] != (28, 28):
            x = F.interpolate(x, (28, 28), mode="bilinear")
        return self.body(x)

    def probabilities(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> class probabilities (B, n_out)."""
        return self(x).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) in [0, 1] -> logits (B, n_out)."""
        return self.head(self.features(x))
