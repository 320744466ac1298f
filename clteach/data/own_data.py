"""Anyone's own data: whatever people hand over, turned into checked arrays of one kind, and these into a `Dataset`.

What becomes of inputs stands in `inputs`, of labels in `labels`, of other libraries' data sets in `items`.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from clteach.data.dataset import Dataset, Encoding, check_lengths, reason, scaled
from clteach.data.inputs import as_inputs, check_bright
from clteach.data.items import LABEL_NAMES, ONLY_DICTS, class_names, is_array, read_items, refuse
from clteach.data.labels import distinct, encode_labels, python_labels, shown, unseen_label
from clteach.errors import ConfigError, DataError
from clteach.seeding import whole_seed
from clteach.settings import convert

SHARE = "a share between 0 and 1, such as 0.2"
WHITE = "a number above 0, the value that means white, such as 65535"


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
    largest: float | None = None,
    columns: Sequence[str] | None = None,
) -> Dataset:
    """Make a data set of one's own arrays, tensors, data frames, lists or of another library's data set.

    Images, (N, H, W), (N, C, H, W) or (N, H, W, C) with 1, 3 or 4 channels, keep their values: integers are bytes
    0..255, booleans 0 and 1, floats lie in [0, 1]; any other scale is named with ``largest``. Training images that as
    bytes would all stay below 128 are refused: their numbers may be on another scale. Feature vectors (N, D) may have any
    finite values; each feature is scaled to [0, 1] by its minimum and range in the training set (a constant feature
    becomes 0, test values beyond the range are clipped).

    Without ``classes``, labels may be integers, strings or other hashable values; the sorted distinct training labels
    become the classes. Class names without a training sample are left out, with a warning. The data are copied; the
    global random states stay as they are.

    Args:
        x: Training inputs; or a data set: an object with ``len`` whose items are pairs (image, label), as those of
            torchvision and medmnist, or dicts with an image and a label, as those of Hugging Face.
        y: Training labels (N,) or (N, 1); None where ``x`` is a data set with labels.
        x_test: Test inputs, like ``x``. None holds out a stratified ``test_share`` of the training data.
        y_test: Test labels, like ``y``.
        name: Name of the result.
        classes: Class names; labels are then names among them, or integers in 0..len(classes)-1. None: those that a data
            set brings, if any.
        test_share: Share held out, between 0 and 1.
        seed: Seed of the hold-out.
        channels: "first" or "last" says where the channels of ambiguous images such as (N, 3, 32, 3) are.
        largest: The value of images that means white, where it is not 255 of integers or 1 of floats: 16, 4095, 65535.
        columns: The keys of image and label in items that are dicts, where their types leave a choice.

    Raises:
        DataError: Inputs or labels that cannot be used; the message names the first offending value.
        ConfigError: ``test_share``, ``channels`` or ``largest`` out of range.
    """
    if channels not in (None, "first", "last"):
        raise ConfigError(f"channels is {channels!r}: expected 'first', 'last' or None")
    seed, test_share, largest = as_numbers(seed, test_share, largest)
    if isinstance(classes, (str, Mapping)):
        remedy = "list(classes.values())" if isinstance(classes, Mapping) else "['cat', 'dog']"
        raise ConfigError(f"classes is a {type(classes).__name__}: expected a list of names; pass classes={remedy}")
    if classes is not None and (twice := [name for i, name in enumerate(classes) if name in list(classes)[:i]]):
        raise ConfigError(f"classes names {twice[0]!r} twice: expected one name for each class; tell the two apart")
    if isinstance(x, tuple) and isinstance(y, tuple) and len(x) == len(y) == 2 and x_test is None:
        problem = "the first two arguments are pairs"
        raise DataError(f"{problem}: expected inputs and labels apart; pass from_arrays(*train, *test)")
    if x_test is None and y_test is not None:
        raise DataError("test labels without test inputs: expected both or neither; pass x_test too")
    images, labels = inputs_and_labels(x, y, "training", channels, largest, columns)
    if largest is None and images.ndim == 4:
        check_bright(images)
    if y is None and classes is None:
        classes = class_names(x, columns)
    if classes is None:
        values: Sequence[Any] = distinct(labels)
        if len(values) > 3 and list(values) == list(range(-1, len(values) - 1)):
            warnings.warn(
                f"{name}: the label -1 beside 0..{values[-1]} is taken for a class of its own; where it means 'no label', "
                "leave these samples out, x[y >= 0]",
                stacklevel=3,
            )
    else:
        values = list(classes) if all(isinstance(label, str) for label in labels) else range(len(classes))
    targets = encode_labels(labels, values, "training", given=classes is not None)
    if x_test is None:
        train, test = hold_out(targets, test_share, seed, values)
        x_parts = [_rows(images, train), _rows(images, test)]
        y_parts = [targets[train], targets[test]]
    else:
        test_images, test_labels = inputs_and_labels(x_test, y_test, "test", channels, largest, columns)
        test_targets = encode_labels(test_labels, values, "test", given=classes is not None)
        x_parts, y_parts = [images, test_images], [targets, test_targets]
        _unshare(x_parts, (x, x_test))
    del images
    # Two frames lie between the warning and the caller: this function and its decorator.
    return assembled(name, x_parts, y_parts, values, classes, Encoding(channels, largest), stacklevel=4)


def as_numbers(seed: Any, test_share: Any, largest: Any) -> tuple[int, float, float | None]:
    """These arguments of `from_arrays` as Python's own numbers; ConfigError for what is none."""
    white = None if largest is None else convert("largest", largest, float, WHITE)
    return whole_seed(seed), convert("test_share", test_share, float, SHARE), white


def assembled(
    name: str,
    x_parts: list[np.ndarray],
    y_parts: list[np.ndarray],
    values: Sequence[Any],
    classes: Sequence[str] | None,
    encoding: Encoding,
    stacklevel: int,
) -> Dataset:
    """A data set of checked arrays.

    Args:
        name: Name of the result.
        x_parts: Training and test inputs as `inputs_and_labels` gives them. Their memory becomes that of the data set where
            their layout allows it, and the list is emptied, so that no more than one of them is ever copied at a time.
        y_parts: For each the positions of the labels in ``values``.
        values: The labels that may occur, in the order of the classes.
        classes: Names of the classes; None: the labels themselves.
        encoding: How raw inputs became such; of feature vectors the scale is found here.
        stacklevel: Whose line a warning is about.

    Raises:
        DataError: A test label without a training sample, or what a `Dataset` refuses.
    """
    unseen = ~np.isin(y_parts[1], y_parts[0])
    if unseen.any():
        at = int(unseen.argmax())
        raise DataError(unseen_label(values[y_parts[1][at]], at))
    train, test = x_parts
    if train.ndim == 2 and train.shape[1:] == test.shape[1:]:  # Dataset reports shapes that differ
        low, high = train.min(axis=0), train.max(axis=0)
        x_parts[:] = [scaled(part, low, high) for part in x_parts]
        encoding = Encoding(low=tuple(low.tolist()), high=tuple(high.tolist()))
    del train, test
    names = [shown(value) for value in (values if classes is None else classes)]
    kept = np.unique(y_parts[0])
    if len(kept) < len(names):
        empty = ", ".join(repr(names[unit]) for unit in range(len(names)) if unit not in kept)
        left = f"{len(kept)} classes are left, counted from 0: {', '.join(repr(names[unit]) for unit in kept[:3])}"
        warnings.warn(
            f"{name}: no training sample of {empty}; {left}{', ...' if len(kept) > 3 else ''}", stacklevel=stacklevel
        )
        y_parts = [np.searchsorted(kept, part) for part in y_parts]
    x0, x1 = (torch.from_numpy(np.ascontiguousarray(x_parts.pop(0))) for _ in range(2))
    y0, y1 = (torch.from_numpy(np.array(part)) for part in y_parts)
    return Dataset(name, x0, y0, x1, y1, tuple(names[unit] for unit in kept), encoding=encoding)


def _rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """x[rows] laid out in order, with one copy, where NumPy makes two if the channels stood last."""
    out = np.empty((len(rows), *x.shape[1:]), x.dtype)
    for start in range(0, len(rows), 1000):
        out[start : start + 1000] = x[rows[start : start + 1000]]
    return out


def _unshare(parts: list[np.ndarray], given: Sequence[Any]) -> None:
    """Copy what may still be the caller's own memory: the caller may go on writing to it."""
    for i, (part, own) in enumerate(zip(parts, given, strict=True)):
        if is_array(own) and part.ndim == 4:  # vectors are scaled, which copies them
            parts[i] = np.array(part, order="C")


def hold_out(targets: np.ndarray, share: float, seed: int, values: Sequence[Any]) -> list[np.ndarray]:
    """Positions of training and of test samples, the same share of every class (targets (N,), positions in ``values``).

    Raises:
        ConfigError: No share.
        DataError: A class with a single sample, or no such set can be held out.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < share < 1:
        raise ConfigError(f"test_share is {share}: expected {SHARE}")
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


def inputs_and_labels(
    x: Any,
    y: Any,
    part: str,
    channels: str | None = None,
    largest: float | None = None,
    columns: Sequence[str] | None = None,
    bounded: bool = True,
) -> tuple[np.ndarray, list[Hashable]]:
    """Inputs as (N, C, H, W) uint8 or float32, or unscaled (N, D) float64, and one Python label for each.

    Args:
        x: Array, tensor, data frame, list, or a data set of pairs (image, label) or of dicts.
        y: Labels (N,), or None for a data set's own.
        part: "training" or "test", for the messages.
        channels: "first", "last", or None where the shape tells.
        largest: The value of images that means white; None: 255 for integers, 1 for floats and booleans.
        columns: The keys of image and label where items are dicts; None: told by their types.
        bounded: Whether float images must lie in the range that `largest` says.

    Raises:
        DataError: Anything that is not finite numbers with one label each.
    """
    refuse(x, part)
    if columns is not None and is_array(x) and part == "training":
        raise DataError(f"columns={columns!r} of an array: {ONLY_DICTS}")
    if y is None and is_array(x):
        remedy = "pass y (or y_test) too"
        if hasattr(x, "columns") and hasattr(x, "drop") and len(x.columns) > 1:  # a data frame
            column = next((key for key in x.columns if key in LABEL_NAMES), x.columns[-1])
            remedy = f"if they are a column of this frame, pass x.drop(columns={column!r}) and x[{column!r}]"
        raise DataError(f"{part} inputs without labels: expected one label per input; {remedy}")
    if not is_array(x):
        x, own = read_items(x, part, columns, labelled=y is not None)
        y = own if y is None else y
    array = as_inputs(x, part, channels, largest, bounded)
    labels = python_labels(y, part)
    check_lengths(array.shape, len(labels), part)
    return array, labels
