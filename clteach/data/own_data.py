"""Anyone's own data: whatever people hand over, turned into checked arrays of one kind, and these into a `Dataset`.

Every check names the first offending value, what was expected and what to do.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clteach.data.dataset import (
    Dataset,
    check_finite,
    check_lengths,
    check_unit_range,
    first_true,
    out_of_range,
)
from clteach.errors import ConfigError, DataError

# -------------------------------------------------------------------------------------------------- one's own data


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Give back the global random states of Python, numpy and torch as they were found.

    Random transforms of a data set draw from them, and so does the mere import of ``sklearn.datasets``.
    """
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)


@random_states_kept()
def from_arrays(
    x: Any,
    y: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    *,
    name: str = "own data",
    classes: Sequence[str] | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    channels: str | None = None,
) -> Dataset:
    """Make a data set of one's own arrays, tensors, lists or torchvision-style data set.

    Images, (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels, keep their values: integers are bytes
    0..255, floats lie in [0, 1]. Feature vectors (N, D) may have any finite values; each feature is scaled to [0, 1] by
    its minimum and range in the training set (a constant feature becomes 0, test values beyond the range are clipped).
    Without ``classes``, labels may be integers, strings or other hashable values; the sorted distinct training labels
    become the classes. The data are copied; the global random states stay as they are.

    Args:
        x: Training inputs; or a data set: an object with ``len`` whose items are pairs (image, label), the images PIL
            images, arrays or tensors.
        y: Training labels (N,); None where ``x`` is a data set with labels.
        x_test: Test inputs, like ``x``. None holds out a stratified ``test_share`` of the training data.
        y_test: Test labels, like ``y``.
        name: Name of the result.
        classes: Class names; labels are then integers in 0..len(classes)-1. A data set's own ``classes`` by default.
        test_share: Share held out, between 0 and 1.
        seed: Seed of the hold-out.
        channels: "first" or "last" says where the channels of ambiguous images such as (N, 3, 32, 3) are.

    Raises:
        DataError: Inputs or labels that cannot be used; the message names the first offending value.
        ConfigError: ``test_share`` or ``channels`` out of range.
    """
    if channels not in (None, "first", "last"):
        raise ConfigError(f"channels is {channels!r}: expected 'first', 'last' or None")
    if x_test is None and y_test is not None:
        raise DataError("test labels without test inputs: expected both or neither; pass x_test too")
    if y is None and classes is None and isinstance(getattr(x, "classes", None), (list, tuple)):
        classes = x.classes
    images, labels = inputs_and_labels(x, y, "training", channels)
    values: Sequence[Any] = range(len(classes)) if classes is not None else distinct(labels)
    targets = encode_labels(labels, values, "training", given=classes is not None)
    if x_test is None:
        train, test = _hold_out(targets, test_share, seed, values)
        x_parts, y_parts = [images[train], images[test]], [targets[train], targets[test]]
    else:
        test_images, test_labels = inputs_and_labels(x_test, y_test, "test", channels)
        x_parts, y_parts = (
            [images, test_images],
            [targets, encode_labels(test_labels, values, "test", classes is not None)],
        )
    unseen = ~np.isin(y_parts[1], y_parts[0])
    if unseen.any():
        at = int(unseen.argmax())
        raise DataError(unseen_label(values[y_parts[1][at]], at))
    if images.ndim == 2 and x_parts[0].shape[1:] == x_parts[1].shape[1:]:  # Dataset reports shapes that differ
        x_parts = _scale(*x_parts)
    # np.array copies: the caller may go on writing to the arrays passed in.
    (x0, x1), (y0, y1) = ([torch.from_numpy(np.array(a, order="C")) for a in parts] for parts in (x_parts, y_parts))
    names = tuple(str(value) for value in (values if classes is None else classes))
    return Dataset(name, x0, y0, x1, y1, names)


def _hold_out(targets: np.ndarray, share: float, seed: int, values: Sequence[Any]) -> list[np.ndarray]:
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ConfigError(f"test_share is {share}: expected a share between 0 and 1, such as 0.2")
    units, counts = np.unique(targets, return_counts=True)
    if counts.min() < 2:
        expected = "expected 2 or more, to train and to test; add samples, drop the class, or pass x_test and y_test"
        raise DataError(f"class {values[units[counts.argmin()]]!r} has a single sample: {expected}")
    try:
        return list(train_test_split(np.arange(len(targets)), test_size=share, stratify=targets, random_state=seed))
    except ValueError as error:
        problem = f"no test set of {share:.0%} can be held out of {len(targets)} samples ({reason(error)})"
        expected = "expected every class on both sides; change test_share or seed, or pass x_test and y_test"
        raise DataError(f"{problem}: {expected}") from None


def _scale(train: np.ndarray, test: np.ndarray) -> list[np.ndarray]:
    low, high = train.min(axis=0), train.max(axis=0)
    span = high / 2 - low / 2  # halves, because the range of huge values would overflow
    span[span == 0] = 1
    return [((np.clip(part, low, high) / 2 - low / 2) / span).astype(np.float32) for part in (train, test)]


def inputs_and_labels(x: Any, y: Any, part: str, channels: str | None) -> tuple[np.ndarray, list[Hashable]]:
    """Inputs as (N, C, H, W) uint8 or float32, or unscaled (N, D) float64, and one Python label for each.

    Args:
        x: Array, tensor, list, or a data set of pairs (image, label).
        y: Labels (N,), or None for a data set's own.
        part: "training" or "test", for the messages.
        channels: "first", "last", or None where the shape tells.

    Raises:
        DataError: Anything that is not finite numbers with one label each.
    """
    listed = isinstance(x, (list, tuple))
    if isinstance(x, Tensor) or hasattr(x, "__array__") or (listed and y is not None):
        if y is None:
            raise DataError(f"{part} inputs without labels: expected one label per input; pass y (or y_test) too")
    elif hasattr(x, "__len__") and hasattr(x, "__getitem__"):
        x, own = _read_items(x, part)
        y = own if y is None else y
    else:
        raise DataError(f"{part} inputs are a {type(x).__name__}: expected an array, a tensor, a list or a data set")
    array = _stack(x, part) if isinstance(x, (list, tuple)) else _as_array(x, part)
    labels = _python_labels(y, part)
    check_lengths(array.shape, len(labels), part)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{part} inputs are of type {array.dtype}: expected real numbers; convert them first")
    if array.ndim == 2:
        array = array.astype(np.float64)
        check_finite(torch.from_numpy(array), part)
        return array, labels
    if array.ndim not in (3, 4):
        expected = "expected images (N, H, W), (N, C, H, W) or (N, H, W, C), or feature vectors (N, D); reshape them"
        raise DataError(f"{part} inputs have shape {array.shape}: {expected}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is reported as inf just below
            array = array.astype(np.float32)
        check_unit_range(torch.from_numpy(array), part)
    elif array.dtype != np.uint8:
        wrong = (array < 0) | (array > 255)
        if wrong.any():
            at = first_true(torch.from_numpy(wrong))
            expected = "expected integer pixels in 0..255; rescale them, or pass floats in [0, 1]"
            raise DataError(f"{part} inputs hold {array[at]} at index {at}: {expected}")
        array = array.astype(np.uint8)
    return _channels_first(array, part, channels), labels


def _read_items(data: Any, part: str) -> tuple[list[Any], list[Any]]:
    pairs = []
    for index in range(len(data)):
        try:
            image, label = data[index]
        except Exception as error:  # the user's code may raise anything
            problem = f"item {index} of the {part} data cannot be read ({reason(error)})"
            raise DataError(f"{problem}: expected a pair (image, label); mend or drop it") from None
        pairs.append((image, label))
    return [image for image, _ in pairs], [label for _, label in pairs]


def _stack(items: Sequence[Any], part: str) -> np.ndarray:
    arrays = [_as_array(item, part) for item in items]
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            problem = f"{part} input {index} has shape {array.shape} but input 0 has {arrays[0].shape}"
            raise DataError(f"{problem}: expected one shape for all; resize or convert them")
    return np.stack(arrays) if arrays else np.empty(0)


def _as_array(x: Any, part: str) -> np.ndarray:
    try:
        if isinstance(x, Tensor):
            x = x.detach().cpu()
            x = x.float() if x.is_floating_point() and x.dtype != torch.float64 else x  # numpy knows no bfloat16
            return np.asarray(x.numpy())
        if getattr(x, "mode", None) in ("1", "P", "CMYK"):  # PIL images whose raw values are not grey or RGB
            x = x.convert("L" if x.mode == "1" else "RGB")
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"{part} data cannot be read as an array ({reason(error)})"
        raise DataError(f"{problem}: expected numbers in rows of equal length; convert them first") from None


def _channels_first(images: np.ndarray, part: str, channels: str | None) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in (1, 3, 4), images.shape[3] in (1, 3, 4)
    if channels is not None:
        first, last = first and channels == "first", last and channels == "last"
    if first == last:
        remedy = "ambiguous, so say channels='first' or 'last'" if first else "no such C here, so convert the images"
        expected = "expected (N, C, H, W) or (N, H, W, C) with C = 1, 3 or 4"
        raise DataError(f"{part} images have shape {images.shape}: {expected}; {remedy}")
    return images if first else np.moveaxis(images, 3, 1)


def _python_labels(y: Any, part: str) -> list[Hashable]:
    if not isinstance(y, (list, tuple)):
        array = _as_array(y, part) if y is not None else np.empty(())
        if array.ndim != 1:
            raise DataError(f"{part} labels have shape {array.shape}: expected (N,), one label per input")
        if array.dtype.kind in "iu":
            return [int(label) for label in array]
        y = array.tolist()
    labels: list[Hashable] = []
    for position, given in enumerate(y):
        label = given.item() if isinstance(given, (np.generic, np.ndarray, Tensor)) and given.ndim == 0 else given
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if label is None or isinstance(label, (bool, float, complex, Tensor)) or not isinstance(label, Hashable):
            expected = "expected an integer or a name; convert the labels"
            raise DataError(f"{part} label {label!r} at position {position} is a {type(label).__name__}: {expected}")
        labels.append(label)
    return labels


def distinct(labels: Sequence[Any]) -> list[Any]:
    """The different labels, sorted; DataError where they have no order."""
    try:
        return sorted(set(labels))
    except TypeError as error:
        problem = f"labels cannot be sorted ({reason(error)})"
        raise DataError(f"{problem}: expected all of one type; convert them to strings or integers") from None


def encode_labels(labels: list[Hashable], values: Sequence[Any], part: str, given: bool) -> np.ndarray:
    """Labels as int64 positions in ``values``; DataError for a label that is not among them.

    Args:
        labels: One label per input.
        values: The labels that may occur, in the order of the classes.
        part: "training" or "test", for the message.
        given: Whether the caller listed the classes (else they are those of the training labels).
    """
    units = {value: unit for unit, value in enumerate(values)}
    for position, label in enumerate(labels):
        if label not in units:
            message = out_of_range(part, label, position, len(values)) if given else unseen_label(label, position)
            raise DataError(message)
    return np.array([units[label] for label in labels], dtype=np.int64)


def unseen_label(label: object, position: int) -> str:
    """The message for a test label without a training sample."""
    expected = "expected only classes of the training data; drop it from the test set"
    return f"test label {label!r} at position {position} has no training sample: {expected}"


def reason(error: BaseException) -> str:
    """A library's error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
