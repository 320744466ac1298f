"""What people hand over as data, turned into checked arrays of one kind: the ground under ``clteach.data``.

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

from clteach.errors import DataError


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


def encode(labels: list[Hashable], values: Sequence[Any], part: str, given: bool) -> np.ndarray:
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


# ---------------------------------------------------------------------------------------------------------- checks


def check_lengths(shape: Sequence[int], n_labels: int, part: str) -> None:
    """DataError unless the inputs are not empty and have one label each."""
    if 0 in shape or not shape:
        raise DataError(f"{part} inputs are empty, shape {tuple(shape)}: expected at least one input of a size above 0")
    if shape[0] != n_labels:
        raise DataError(f"{shape[0]} {part} inputs but {n_labels} labels: expected one label per input")


def check_finite(x: Tensor, part: str) -> None:
    """DataError that names the first NaN or infinite entry."""
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
        remedy = "divide them by 255 (or their possible maximum)" if low >= 0 and high <= 255 else "rescale them"
        problem = f"{part} inputs range from {low:g} to {high:g}, the first outside at index {at}"
        raise DataError(f"{problem}: expected floats in [0, 1]; {remedy}")


def first_true(wrong: Tensor) -> tuple[int, ...]:
    """Index of the first true entry."""
    return tuple(int(i) for i in np.unravel_index(int(wrong.flatten().byte().argmax()), tuple(wrong.shape)))


def out_of_range(part: str, label: object, position: int, n_classes: int) -> str:
    """The message for a label outside 0..n_classes-1."""
    expected = f"expected an integer in 0..{n_classes - 1} for {n_classes} classes; mend it, or the list of classes"
    return f"{part} label {label!r} at position {position} is out of range: {expected}"


def unseen_label(label: object, position: int) -> str:
    """The message for a test label without a training sample."""
    expected = "expected only classes of the training data; drop it from the test set"
    return f"test label {label!r} at position {position} has no training sample: {expected}"


def reason(error: BaseException) -> str:
    """A library's error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
