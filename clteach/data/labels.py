"""Labels of any kind as whole numbers 0..K-1 in the order of the classes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from clteach.data.dataset import out_of_range, reason
from clteach.data.inputs import as_array, stack
from clteach.errors import DataError


def python_labels(y: Any, part: str) -> list[Hashable]:
    """One Python label (whole number, string, ...) for each input.

    Args:
        y: Labels (N,) or (N, 1): array, tensor, column of a data frame, or any sequence.
        part: "training" or "test", for the messages.

    Raises:
        DataError: No labels, several for one input, or something that is no label; the message names the first.
    """
    if y is None:
        raise DataError(f"{part} inputs without labels: expected one label per input; pass y (or y_test) too")
    if isinstance(y, (str, bytes, Mapping)) or not (hasattr(y, "__len__") or hasattr(y, "__array__")):
        given = repr(y) if isinstance(y, (str, bytes, int, float)) else f"a {type(y).__name__}"
        remedy = "pass list(y)" if hasattr(y, "__next__") else "pass a list or an array"
        raise DataError(f"{part} labels are {given}: expected (N,), one label per input; {remedy}")
    if not isinstance(y, (list, tuple)):
        lazy = hasattr(y, "__len__") and hasattr(y, "__getitem__") and not hasattr(y, "__array__")
        y = [y[index] for index in range(len(y))] if lazy else as_array(y, part)
    elif (
        all(isinstance(label, (list, np.ndarray, Tensor)) for label in y) and len({np.shape(label) for label in y}) == 1
    ):
        y = stack(y, part)
    if isinstance(y, np.ndarray):
        y = _one_column(y, part).tolist()
    labels: list[Hashable] = []
    for position, given in enumerate(y):
        label = given.item() if isinstance(given, (np.generic, np.ndarray, Tensor)) and given.ndim == 0 else given
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        missing = label is None or type(label).__name__ in ("NAType", "NaTType")  # pandas' own None
        if missing or isinstance(label, (bool, float, complex, Tensor)) or not isinstance(label, Hashable):
            remedy = "pass numpy.asarray(y, int)" if isinstance(label, bool) else "convert or drop it"
            problem = f"{part} label {label!r} at position {position} is a {type(label).__name__}"
            raise DataError(f"{problem}: expected an integer or a name; {remedy}")
        labels.append(label)
    if set(labels) == {-1}:
        problem = f"all {part} labels are -1, which stands for images without a label"
        raise DataError(f"{problem}: expected labelled data; pass another part of the data set (split='train', say)")
    return labels


def _one_column(array: np.ndarray, part: str) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "biuf" and array.shape[1]:
        one_hot = np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all()
        shares = array.dtype.kind == "f" and np.allclose(array.sum(axis=1), 1) and (array >= 0).all()
        problem = f"{part} labels have shape {array.shape}: expected (N,), one label per input"
        remedy = "they are one-hot, so pass numpy.argmax(y, 1)"
        soft = "these are shares of classes, so pass numpy.argmax(y, 1)"
        several = "these are several for each (multi-label), so pass the column that is the class, y[:, 0] say"
        raise DataError(f"{problem}; {remedy if one_hot else soft if shares else several}")
    if array.ndim != 1:
        remedy = "pass the class of each, not masks or boxes" if array.ndim else "pass a list or an array"
        raise DataError(f"{part} labels have shape {array.shape}: expected (N,), one label per input; {remedy}")
    return array


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
            if given and isinstance(label, str) and isinstance(values[0], str):
                problem = f"{part} label {label!r} at position {position} is not among the classes"
                raise DataError(f"{problem}: expected one of {', '.join(values)}; mend it, or the list of classes")
            message = out_of_range(part, label, position, len(values)) if given else unseen_label(label, position)
            raise DataError(message)
    return np.array([units[label] for label in labels], dtype=np.int64)


def shown(value: object) -> str:
    """A class's name: bytes, as pickled by Python 2 or kept in HDF5, without their b and quotes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def unseen_label(label: object, position: int) -> str:
    """The message for a test label without a training sample."""
    expected = "expected only classes of the training data; drop it from the test set"
    return f"test label {label!r} at position {position} has no training sample: {expected}"
