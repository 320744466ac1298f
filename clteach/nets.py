"""The networks that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


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
