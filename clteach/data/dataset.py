"""What a data set is: labelled inputs in memory with their test set, checked once, when it is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clteach.errors import DataError

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How raw inputs became those of a data set: enough to do it again with others (`clteach.data.raw`).

    Args:
        channels, largest: as in `from_arrays`.
        low, high: of feature vectors, the least and the largest training value of each feature.
        extractor: name, weights, seed and fingerprint of the frozen extractor that made features of the inputs.
    """

    channels: str | None = None
    largest: float | None = None
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    extractor: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A labelled data set with its test set.

    Args:
        name: Name shown in tables and pictures.
        x_train: Images (N, C, H, W), uint8 or float32 in [0, 1]; or feature vectors (N, D), float32 in [0, 1] (of any
            size where an extractor made them).
        y_train: Labels (N,), int64 in 0..n_classes-1.
        x_test: Like ``x_train``, M of them.
        y_test: Like ``y_train``, M of them.
        classes: One name per class; label k belongs to ``classes[k]``, and each has training samples.
        encoded_from: Of features that `clteach.data.extractors.encode` made: the number of values of one image. Else None.
        encoding: How raw inputs become such as these; None: they are so already.

    Raises:
        DataError: The tensors do not fit this description.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: tuple[str, ...]
    encoded_from: int | None = None
    encoding: Encoding | None = None

    def __post_init__(self) -> None:
        train, test = self.x_train, self.x_test
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            kinds = f"{tuple(train.shape[1:])} {train.dtype} but test inputs {tuple(test.shape[1:])} {test.dtype}"
            raise DataError(f"training inputs are {kinds}: expected one shape and one type; convert one of the two")
        for part, x, y in (("training", train, self.y_train), ("test", test, self.y_test)):
            check_lengths(x.shape, len(y), part)
            if (x.ndim, x.dtype) not in ((4, torch.uint8), (4, torch.float32), (2, torch.float32)):
                expected = "expected (N, C, H, W) uint8 or float32, or (N, D) float32; use from_arrays"
                raise DataError(f"{part} inputs are {tuple(x.shape)} {x.dtype}: {expected}")
            if y.ndim != 1 or y.dtype != torch.int64:
                raise DataError(f"{part} labels are {tuple(y.shape)} {y.dtype}: expected (N,) int64; use from_arrays")
            (check_unit_range if self.encoded_from is None else check_finite)(x, part)
            wrong = (y < 0) | (y >= self.n_classes)
            if wrong.any():
                (at,) = first_true(wrong)
                raise DataError(out_of_range(part, int(y[at]), at, self.n_classes))
        empty = torch.bincount(self.y_train, minlength=self.n_classes) == 0
        if empty.any():
            name = self.classes[first_true(empty)[0]]
            expected = "expected at least one of every class; leave its name out, as from_arrays does"
            raise DataError(f"class {name!r} has no training sample: {expected}")

    def __repr__(self) -> str:
        sizes = f"{len(self.x_train)} training, {len(self.x_test)} test"
        return f"Dataset({self.name!r}: {sizes}, shape {self.shape}, {self.n_classes} classes)"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input: (C, H, W) or (D,)."""
        return tuple(self.x_train.shape[1:])

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over shapes, types and bytes of the arrays, and the classes."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for tensor in (self.x_train, self.y_train, self.x_test, self.y_test):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().flatten().numpy().data)
        return digest.hexdigest()[:16]

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on ``device``."""
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in ARRAYS})


def as_floats(x: Tensor) -> Tensor:
    """Bytes 0..255 -> float32 in [0, 1]; floats stay as they are."""
    return torch.div(x, 255) if x.dtype == torch.uint8 else x


def scaled(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Feature vectors (N, D) -> float32 in [0, 1] by the range of each feature; values beyond it are clipped."""
    span = high / 2 - low / 2  # halves, because the range of huge values would overflow
    span = np.where(span == 0, 1, span)
    return ((np.clip(x, low, high) / 2 - low / 2) / span).astype(np.float32)


def join(*datasets: Dataset) -> Dataset:
    """Several data sets as one, whose classes are those of the first, then those of the second, and so on.

    So MNIST followed by Fashion-MNIST is ``split(join(mnist, fashion), tasks=10)``, by name "split-mnist+fashion-mnist". A
    class name that two of them share is told apart by the name of its data set: "mnist 3".

    Raises:
        DataError: Fewer than two data sets, a name twice, or inputs of different shapes or types.
    """
    names = [data.name for data in datasets]
    kinds = {(data.shape, data.x_train.dtype, data.encoded_from) for data in datasets}
    if len(set(names)) < max(2, len(names)) or len(kinds) > 1:
        found = ", ".join(f"{data.name!r} {data.shape} {data.x_train.dtype}" for data in datasets) or "nothing"
        raise DataError(
            f"cannot join {found}: expected two or more data sets with different names, one shape and one type"
        )
    classes = [name for data in datasets for name in data.classes]
    starts = [0, *accumulate(data.n_classes for data in datasets[:-1])]
    return Dataset(
        "+".join(names),
        torch.cat([data.x_train for data in datasets]),
        torch.cat([data.y_train + first for data, first in zip(datasets, starts, strict=True)]),
        torch.cat([data.x_test for data in datasets]),
        torch.cat([data.y_test + first for data, first in zip(datasets, starts, strict=True)]),
        tuple(f"{d.name} {name}" if classes.count(name) > 1 else name for d in datasets for name in d.classes),
        datasets[0].encoded_from,
        datasets[0].encoding if all(data.encoding == datasets[0].encoding for data in datasets) else None,
    )


# ---------------------------------------------------------------------------------------------------------- checks


def check_lengths(shape: Sequence[int], n_labels: int, part: str) -> None:
    """DataError unless the inputs are not empty and have one label each."""
    if 0 in shape or not shape:
        raise DataError(f"{part} inputs are empty, shape {tuple(shape)}: expected at least one input of a size above 0")
    if shape[0] != n_labels:
        remedy = "pass the labels of just these inputs"
        raise DataError(f"{shape[0]} {part} inputs but {n_labels} labels: expected one label per input; {remedy}")


def check_finite(x: Tensor, part: str) -> None:
    """DataError that names the first NaN or infinite entry."""
    if x.is_floating_point() and x.numel() and all(bound.isfinite() for bound in x.aminmax()):
        return  # NaN is passed on by the least and the greatest, which take no memory as a mask does
    wrong = ~torch.isfinite(x)
    if wrong.any():
        at = first_true(wrong)
        raise DataError(f"{part} inputs hold {float(x[at])} at index {at}: expected finite numbers; repair or drop it")


def check_unit_range(x: Tensor, part: str) -> None:
    """DataError unless floats are finite and in [0, 1]; uint8 always passes."""
    if x.dtype == torch.uint8:
        return
    check_finite(x, part)
    low, high = (float(bound) for bound in x.aminmax())
    if low < 0 or high > 1:
        at = first_true((x < 0) | (x > 1))
        remedy = "rescale them, (x - x.min()) / (x.max() - x.min())"
        if low >= 0 and high <= 255:
            remedy = "divide them by 255 (or their possible maximum)"
        elif low >= -1 and high <= 1:
            remedy = "rescale them, (x + 1) / 2 where they lie in [-1, 1]"
        problem = f"{part} inputs range from {low:g} to {high:g}, the first outside at index {at}"
        raise DataError(f"{problem}: expected floats in [0, 1]; {remedy}")


def first_true(wrong: Tensor) -> tuple[int, ...]:
    """Index of the first true entry."""
    return tuple(int(i) for i in np.unravel_index(int(wrong.flatten().byte().argmax()), tuple(wrong.shape)))


def out_of_range(part: str, label: object, position: int, n_classes: int) -> str:
    """The message for a label outside 0..n_classes-1."""
    expected = f"expected an integer in 0..{n_classes - 1} for {n_classes} classes; mend it, or the list of classes"
    return f"{part} label {label!r} at position {position} is out of range: {expected}"


def reason(error: BaseException) -> str:
    """A library's error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
