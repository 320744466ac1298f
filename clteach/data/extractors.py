"""Frozen feature extractors: networks trained beforehand, behind which a learner works.

Any `nn.Module` that maps images (B, *shape) to features (B, n) will do::

    register_extractor("mine", lambda shape: my_module)

There are two places for it. *Before the stream*: the images are encoded once, and any method learns from the features::

    stream = clteach.split(encode(data, "mine"), "class")    # or make_stream("split-cifar100", extractor="mine")
    clteach.train("generative-replay", stream)

*In the learner*: brain-inspired replay, which then may also dream pixels and look at its dreams through the extractor::

    clteach.train("brain-inspired-replay", stream_of_images, extractor="mine", internal=False)

Such a learner's file contains the extractor's weights: whoever loads it needs the registered name, not a file of weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clteach import storage
from clteach.data.catalogue import as_dataset, data_folder
from clteach.data.dataset import Dataset, Encoding, as_floats
from clteach.errors import CheckpointError, ClteachError, ConfigError, unknown
from clteach.models.frozen import frozen_copy
from clteach.models.nets import conv_features, normalised_conv_features
from clteach.seeding import seeded
from clteach.version import __version__

Maker = Callable[[Sequence[int]], nn.Module]
EXTRACTORS: dict[str, Maker] = {"conv": conv_features, "conv-normalised": normalised_conv_features}
"""{name: function of the shape of an image that makes the module}."""


WEIGHTS = Path(__file__).parent / "weights"
"""Weights that come with the package (its README says how they were made); one's own of the same name go before them."""


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
        weights: file that `clteach pretrain` wrote, here or in the data folder, or one of those that come with the package
            (``cifar10.safetensors``, ``cifar10-2020.safetensors``); None: what the maker gives.
        seed: of the maker's random weights.

    Raises:
        ConfigError: an unknown name, no such file, or a module whose output for these inputs is not (B, n).
        CheckpointError: the file of weights is damaged.
    """
    if name not in EXTRACTORS:
        raise unknown("feature extractor", name, EXTRACTORS)
    with seeded(seed, "extractor"):
        module = frozen_copy(EXTRACTORS[name](shape))
    if weights is not None:
        tensors, _ = _load(weights)
        try:
            module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ConfigError(f"{weights} holds the weights of another extractor than {name!r} ({error}).") from error
    if (found := module(torch.zeros(1, *shape)).shape)[0] != 1 or len(found) != 2:
        raise ConfigError(f"the extractor {name!r} makes {tuple(found)} of (1, *{tuple(shape)}); expected (1, n).")
    return module


def _load(weights: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return storage.load_tensors(_place(weights))


def _place(weights: str | Path) -> Path:
    for file in (Path(weights), data_folder() / weights, WEIGHTS / weights):
        if file.exists():
            return file
    come_along = ", ".join(sorted(file.name for file in WEIGHTS.glob("*.safetensors")))
    raise ConfigError(
        f"there is no file of weights {weights}, neither here nor in {data_folder()}, nor does it come with the package "
        f"(as do {come_along}). Make it with clteach pretrain, or set CLTEACH_DATA to the folder that holds it."
    )


def trained(weights: str | Path) -> str:
    """How `clteach.training.pretrain` made a file of weights, in a few words.

    Raises:
        ConfigError: no such file.
        CheckpointError: the file is damaged, or was not made like that.
    """
    about = _load(weights)[1]
    gains = ", gains from [0, 1)" if about.get("uniform_gains") else ""
    try:
        return (
            f"{len(about['classes'])} classes of {about['data']}, {about['epochs']} epochs in batches of "
            f"{about['batch_size']}, Adam {about['lr']:g}{gains}; "
            f"{100 * about['accuracy']:.1f} % of the test images of these classes classified correctly"
        )
    except KeyError as error:
        raise CheckpointError(
            f"{weights} does not say how it was made ({error} is missing). Expected what clteach pretrain of "
            "this version writes; make it again."
        ) from error


def fingerprint(extractor: nn.Module) -> str:
    """16 hexadecimal digits that tell an extractor's weights from any others."""
    digest = hashlib.sha256()
    for value in extractor.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


_LATEST: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
"""The features, (N, n) and (M, n), that `encode` made last: those of 60,000 images take 250 MB, so there is one of it in a
process, not one per run. Nothing else of a data set is kept, because equal images may come with another encoding."""
_KEPT_FROM = 10_000
"""Images whose features are also kept in a file, since many processes may need them, one after the other or together."""


@torch.no_grad()
def encode(dataset: Dataset, extractor: str, weights: str | Path | None = None, seed: int = 0) -> Dataset:
    """The same data set as an extractor sees it: features in place of images.

    As the extractor never changes, to encode once is the same as to run it in every step, and many times as fast. What this
    package's extractors make of 10,000 images or more with a file of weights is kept beside that file, or in the data
    folder where the weights come with the package, under a name that holds the fingerprints of images and weights.

    Args:
        dataset: images (or vectors, where the extractor takes them).
        extractor, weights, seed: as in `make_extractor`.

    Returns:
        Feature vectors (N, n), float32 of any size; `Dataset.encoded_from` says so.

    Raises:
        ConfigError: as `make_extractor`.
        CheckpointError: as `make_extractor`.
        DataError: the extractor makes NaN or infinite features.
    """
    dataset = as_dataset(dataset)
    module = make_extractor(extractor, dataset.shape, weights, seed)
    weights_print = fingerprint(module)
    key = (dataset.fingerprint, dataset.x_train.device, EXTRACTORS[extractor], weights_print)
    if key not in _LATEST:
        _LATEST.clear()
        _LATEST[key] = _features(module, dataset, _kept(dataset, extractor, weights, module))
    x_train, x_test = _LATEST[key]
    made_by = {
        "name": extractor,
        "weights": None if weights is None else str(weights),
        "seed": seed,
        "fingerprint": weights_print,
    }
    return replace(
        dataset,
        x_train=x_train,
        x_test=x_test,
        encoded_from=math.prod(dataset.shape),
        encoding=replace(dataset.encoding or Encoding(), extractor=made_by),
    )


def _kept(dataset: Dataset, extractor: str, weights: str | Path | None, module: nn.Module) -> Path | None:
    """The file for a data set's features; None: they are made anew in every process."""
    # The code of somebody else's extractor may change without a trace in its weights.
    ours = EXTRACTORS[extractor].__module__.startswith("clteach.")
    if weights is None or not ours or len(dataset.x_train) < _KEPT_FROM:
        return None
    identity = f"{__version__} {extractor} {dataset.fingerprint} {fingerprint(module)}"
    file, digits = _place(weights), hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = data_folder() if file.parent == WEIGHTS else file.parent
    return folder / f"{file.stem}.{dataset.name}-{digits}.features"


@torch.no_grad()
def _features(module: nn.Module, dataset: Dataset, file: Path | None) -> tuple[Tensor, Tensor]:
    """Features of the training and the test images, from the file where it holds them, else made and put there.

    They are made on the CPU, so that they are the same numbers wherever the images are, and go to where those are.
    """
    device = dataset.x_train.device
    if file is not None and file.exists():
        with contextlib.suppress(CheckpointError):  # damaged: they are made again
            tensors, _ = storage.load_tensors(file)
            return tensors["x_train"].to(device), tensors["x_test"].to(device)

    def features(x: Tensor) -> Tensor:
        return torch.cat([module(as_floats(part)) for part in x.cpu().split(100)])  # in small parts: twice as fast

    made = {"x_train": features(dataset.x_train), "x_test": features(dataset.x_test)}
    if file is not None:
        with contextlib.suppress(ClteachError):  # a folder that must not be written to, or without room
            storage.save_tensors(file, made, {"features of": dataset.name})
    return made["x_train"].to(device), made["x_test"].to(device)
