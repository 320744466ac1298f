"""Frozen feature extractors: networks trained beforehand, behind which a learner works.

Brain-inspired replay can reconstruct and replay what such an extractor says of an image in place of the image itself. Any
`nn.Module` that maps images (B, *shape) to features (B, n) will do::

    register_extractor("mine", lambda shape: my_module)
    clteach.train("brain-inspired-replay", stream, extractor="mine")

A saved learner contains the extractor's weights, so whoever loads it needs the registered name, not a file of weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from clteach import storage
from clteach.data import data_folder
from clteach.errors import ConfigError, unknown
from clteach.learner import frozen_copy
from clteach.nets import conv_features
from clteach.seeding import seeded

Maker = Callable[[Sequence[int]], nn.Module]
EXTRACTORS: dict[str, Maker] = {"conv": conv_features}
"""{name: function of the shape of an image that makes the module}."""


def register_extractor(name: str, make: Maker) -> None:
    """Make a feature extractor known by name.

    Args:
        name: what `extractor=` will be.
        make: shape of one input -> module (B, *shape) -> (B, n). It may hand out one ready-trained module every time: a
            learner works on a copy of its own.
    """
    EXTRACTORS[name] = make


def make_extractor(name: str, shape: Sequence[int], weights: str | Path | None = None, seed: int = 0) -> nn.Module:
    """A frozen copy of a registered extractor, for good in evaluation mode.

    Args:
        name: one of `EXTRACTORS`.
        shape: shape of one input.
        weights: file that `clteach.pretraining.pretrain` wrote, here or in the data folder; None: what the maker gives.
        seed: of the maker's random weights.

    Raises:
        ConfigError: an unknown name, or a module whose output for these inputs is not (B, n).
        CheckpointError: the file of weights is missing or damaged.
    """
    if name not in EXTRACTORS:
        raise unknown("feature extractor", name, EXTRACTORS)
    with seeded(seed, "extractor"):
        module = frozen_copy(EXTRACTORS[name](shape))
    if weights is not None:
        tensors, _ = storage.load_tensors(weights if Path(weights).exists() else data_folder() / weights)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ConfigError(f"{weights} holds the weights of another extractor than {name!r} ({error}).") from error
    if (found := module(torch.zeros(1, *shape)).shape)[0] != 1 or len(found) != 2:
        raise ConfigError(f"the extractor {name!r} makes {tuple(found)} of (1, *{tuple(shape)}); expected (1, n).")
    return module


def fingerprint(extractor: nn.Module) -> str:
    """16 hexadecimal digits that tell an extractor's weights from any others."""
    digest = hashlib.sha256()
    for value in extractor.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
