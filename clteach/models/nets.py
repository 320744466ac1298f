"""The networks that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.errors import ConfigError
from clteach.models.frozen import in_eval_mode


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


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid)
"""The layers whose outputs are a network's hidden units, for whoever gates them."""


def gated(net: nn.Module, x: Tensor, gates: Sequence[Tensor]) -> Tensor:
    """A network with its hidden units multiplied by gates.

    Args:
        net: what `mlp` made, or any network whose activations are layers (`ACTIVATIONS`), not functions.
        x: (B, *shape) inputs.
        gates: (B, units) for the output of each activation, in the order of the calls; of an activation with outputs
            (B, C, ...) they gate the C channels.

    Returns:
        (B, n_out).

    Raises:
        ConfigError: another number of activations than of gates.
    """
    remaining = list(gates)

    def gate(layer: nn.Module, inputs: Any, h: Tensor) -> Tensor:
        if not remaining:
            raise ConfigError(
                f"a network calls more than {len(gates)} activations: expected as many as there are gates."
            )
        g = remaining.pop(0)
        # h = g ⊙ φ(W h + b)
        return h * g.view(*g.shape, *(1,) * (h.ndim - g.ndim))

    if type(net) is nn.Sequential and not any(len([*layer.children()]) for layer in net):
        for layer in net:  # no hooks needed, which would cost a twentieth of a small network's time
            x = gate(layer, None, layer(x)) if isinstance(layer, ACTIVATIONS) else layer(x)
    else:
        hooks = [layer.register_forward_hook(gate) for layer in net.modules() if isinstance(layer, ACTIVATIONS)]
        try:
            x = net(x)
        finally:
            for hook in hooks:
                hook.remove()
    if remaining:
        raise ConfigError(
            f"{len(remaining)} of {len(gates)} gates found no activation: expected a network whose activations are layers "
            f"({', '.join(kind.__name__ for kind in ACTIVATIONS)}), one for each."
        )
    return x


@torch.no_grad()
def in_call_order(
    net: nn.Module, shape: Sequence[int], kinds: type[nn.Module] | tuple[type[nn.Module], ...]
) -> list[tuple[str, Tensor]]:
    """(name, output for one input (1, *shape)) of each layer of some kinds, in the order in which a network calls them."""
    found: list[tuple[str, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out, name=name: found.append((name, out)))
        for name, layer in net.named_modules()
        if isinstance(layer, kinds)
    ]
    try:
        with in_eval_mode(net):
            net(torch.zeros(1, *shape, device=next(net.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def hidden_units(net: nn.Module, shape: Sequence[int]) -> list[int]:
    """Units (or channels) of each activation of a network, in the order of the calls, for inputs (B, *shape)."""
    return [out.shape[1] for _, out in in_call_order(net, shape, ACTIVATIONS)]


def one_hot(index: Tensor, n: int) -> Tensor:
    """Whole numbers (...) in 0..n-1 -> zeros and ones (..., n), float32; nothing is checked, so a GPU need not wait."""
    return (index[..., None] == torch.arange(n, device=index.device)).float()


def conv_features(shape: Sequence[int], channels: Sequence[int] = (16, 32, 64, 128, 256)) -> nn.Sequential:
    """Convolutions that make features of images: 3 x 3 kernels, batch norm, ReLU; all but the first halve the image.

    From 32 x 32 images with the default channels: 256 x 2 x 2 = 1024 features, as in the CIFAR experiments of van de Ven et
    al. 2020. The last layer has neither batch norm nor ReLU, so a feature may take any value. (A batch norm's gain would
    set how much features vary, and so how much a generator's squared error of them weighs.)

    Args:
        shape: (C, H, W) of one image.
        channels: output channels of each layer.

    Returns:
        A module (B, C, H, W) -> (B, features).

    Raises:
        ConfigError: the inputs are no images.
    """
    if len(shape) != 3:
        raise ConfigError(f"inputs of shape {tuple(shape)} are no images: expected (C, H, W).")
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise([shape[0], *channels])):
        layers += [nn.Conv2d(n_in, n_out, 3, stride=1 if i == 0 else 2, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-2], nn.Flatten())


class ChannelNormalisation(nn.Module):
    r"""$(x - \mu_c) / \sigma_c$ for every channel c; both are buffers, so a file of weights holds them."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def measure(self, x: Tensor) -> None:
        """Take over mean and standard deviation of the channels of images (N, C, H, W), bytes or floats in [0, 1]."""
        n, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for part in x.split(1000):  # all images as floats would need four times their memory
            values = (part / 255 if part.dtype == torch.uint8 else part).double()
            n += values.shape[0] * values.shape[2] * values.shape[3]
            total += values.sum((0, 2, 3), keepdim=True)[0]
            squares += values.square().sum((0, 2, 3), keepdim=True)[0]
        mean = total / n
        self.mean.copy_(mean)
        # a channel that never changes carries nothing, and is left as it is
        std = (squares / n - mean.square()).clamp_min(0).sqrt()
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def normalised_conv_features(shape: Sequence[int]) -> nn.Sequential:
    """`conv_features` behind a `ChannelNormalisation`, as in the experiments on CIFAR of van de Ven et al. 2020 and 2022.

    Raises:
        ConfigError: the inputs are no images.
    """
    convolutions = conv_features(shape)
    return nn.Sequential(ChannelNormalisation(shape[0]), *convolutions)


def deconv_pixels(
    shape: Sequence[int], features: int, channels: Sequence[int] = (16, 32, 64, 128, 256)
) -> nn.Sequential:
    """The mirror image of `conv_features`: transposed convolutions from features back to the logits of pixels.

    It is meant to learn within a learner, so it has no batch norm, whose running means would make a loss impure.

    Args:
        shape: (C, H, W) of one image, H and W divisible by 2 to the power of ``len(channels) - 1``.
        features: how many there are; it must be what `conv_features` makes of such images.
        channels: as in `conv_features`.

    Returns:
        A module (B, features) -> (B, C * H * W).

    Raises:
        ConfigError: H or W is not divisible, or another number of features.
    """
    shrunk = 2 ** (len(channels) - 1)
    if len(shape) != 3 or shape[1] % shrunk or shape[2] % shrunk:
        raise ConfigError(f"inputs of shape {tuple(shape)}: expected (C, H, W) with H and W divisible by {shrunk}.")
    start = (channels[-1], shape[1] // shrunk, shape[2] // shrunk)
    if math.prod(start) != features:
        raise ConfigError(
            f"{features} features cannot be painted as {tuple(shape)}: that takes {math.prod(start)} of them."
        )
    layers: list[nn.Module] = [nn.ReLU(), nn.Unflatten(1, start)]
    for n_in, n_out in pairwise(reversed(channels)):
        layers += [nn.ConvTranspose2d(n_in, n_out, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(channels[0], shape[0], 3, padding=1), nn.Flatten())


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
