"""Data sets of items, those of other libraries among them: pairs (image, label) or dicts, read once into memory.

Everything is told by its behaviour; no library is imported. What only holds a data set gets an error that names what to
pass instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
from torch import Tensor

from clteach.data.dataset import reason
from clteach.errors import DataError

TASKS = (
    "a ready-made sequence of tasks becomes a stream with clteach.from_tasks([(train, test), ...]), an avalanche benchmark "
    "with clteach.from_avalanche(benchmark), a continuum scenario with clteach.from_continuum(scenario, test)"
)

ONLY_DICTS = "expected them with a data set of dicts alone, as Hugging Face has; leave columns out"
LABEL_NAMES = ("label", "labels", "target", "targets", "class", "y")
"""What a column of labels is usually called."""


def is_array(x: Any) -> bool:
    """Whether something is one array of all inputs: numpy, torch, a data frame, a sparse matrix and their kind."""
    return isinstance(x, Tensor) or hasattr(x, "__array__") or hasattr(x, "toarray")


def refuse(x: Any, part: str) -> None:
    """DataError for what is neither an array nor a data set that can be read by position."""
    problem = f"{part} data are a {type(x).__name__}"
    if isinstance(x, Mapping):
        problem += f" with the entries {', '.join(map(repr, x)) or 'none'}"
        remedy = f"pass what is in it one by one, x[{next(iter(x), 'x_train')!r}] for instance"
    elif isinstance(x, (str, PathLike)):
        remedy = "a folder of pictures is read by clteach.from_folder, a file of arrays by numpy.load"
    elif hasattr(x, "train_stream") or hasattr(x, "current_experience"):
        remedy = TASKS
    elif hasattr(x, "batch_size") and hasattr(x, "dataset"):
        remedy = "pass the data set behind it, x.dataset"
    elif callable(getattr(x, "get_data", None)):
        remedy = "pass its arrays, x, y, _ = data.get_data()"
    elif is_array(x) or (hasattr(x, "__len__") and hasattr(x, "__getitem__")):
        return
    else:
        remedy = "convert it"
        if hasattr(x, "__getitem__"):
            remedy = "it has no length, so give its class a __len__, or pass [x[i] for i in range(n)]"
        if hasattr(x, "__iter__"):
            remedy = "it can only be run through, so pass list(x)"
    expected = "expected an array, a tensor, a list or a data set of pairs (image, label)"
    raise DataError(f"{problem}: {expected}; {remedy}")


def read_items(
    data: Any, part: str, columns: Sequence[str] | None, labelled: bool
) -> tuple[list[Any], list[Any] | None]:
    """The inputs of a data set, and its labels.

    Args:
        data: What has ``len`` and positions; its items are pairs (image, label), dicts with both, or bare inputs.
        part: "training" or "test", for the messages.
        columns: The keys of image and label in items that are dicts; None: told by their types.
        labelled: Whether labels are given apart, so that items may be bare inputs.

    Returns:
        Inputs, and labels or None where the items have none.

    Raises:
        DataError: An item that cannot be read, or is none of these.
    """
    items = []
    for index in range(len(data)):
        try:
            items.append(data[index])
        except Exception as error:  # the user's code may raise anything
            problem = f"item {index} of the {part} data cannot be read ({reason(error)})"
            raise DataError(f"{problem}: expected a pair (image, label); mend or drop it") from None
    if items and isinstance(items[0], Mapping):
        image, label = find_columns(data, items[0], part, columns, labelled)
        for index, item in enumerate(items):
            if not isinstance(item, Mapping) or image not in item or (label is not None and label not in item):
                expected = f"expected a dict with {image!r} and {label!r}, as the first; mend or drop it"
                raise DataError(f"item {index} of the {part} data is {_described(item)}: {expected}")
        return [item[image] for item in items], None if label is None else [item[label] for item in items]
    if columns is not None and items and part == "training":
        raise DataError(f"columns={columns!r} of items that are {_described(items[0])}: {ONLY_DICTS}")
    if labelled and (isinstance(data, (list, tuple)) or not (items and _is_pair(items[0]))):
        return items, None
    for index, item in enumerate(items):
        if not _is_pair(item):
            raise DataError(_no_pair(item, index, part))
    return [image for image, _ in items], [label for _, label in items]


def find_columns(
    data: Any, item: Mapping[str, Any], part: str, columns: Sequence[str] | None, labelled: bool
) -> tuple[str, str | None]:
    """The keys of image and label in items that are dicts.

    Args:
        data: The data set; its `features`, where it has them, tell class labels from other numbers.
        item: Its first item.
        part: "training" or "test", for the messages.
        columns: The two keys, where the caller names them.
        labelled: Whether labels are given apart.

    Raises:
        DataError: No column, or several, that could be one of the two.
    """
    if columns is not None:
        if isinstance(columns, str) or len(columns) != 2 or not set(columns) <= set(item):
            problem = f"columns={columns!r} of items with {', '.join(map(repr, item))}"
            raise DataError(f"{problem}: expected two of these, image and label; write columns=('image', 'label')")
        return columns[0], columns[1]
    sizes = {key: _dimensions(value) for key, value in item.items()}
    images = [key for key, size in sizes.items() if size >= 2] or [key for key, size in sizes.items() if size == 1]
    features = getattr(data, "features", None)
    labels = [key for key in item if isinstance(features, Mapping) and getattr(features.get(key), "names", None)]
    labels = labels or [key for key, value in item.items() if _is_label(value)]
    usual = [key for key in labels if key in LABEL_NAMES]
    labels = usual if len(usual) == 1 else labels
    for what, found in (("image", images), ("label", labels)):
        if len(found) != 1 and not (labelled and what == "label"):
            problem = (
                f"items of the {part} data have {', '.join(map(repr, item))}, of which {', '.join(found) or 'none'}"
            )
            raise DataError(
                f"{problem} can be the {what}: expected one; name both, columns=('image', 'label'), or pass x and y apart"
            )
    return images[0], None if labelled else labels[0]


def class_names(data: Any, columns: Sequence[str] | None) -> Sequence[str] | None:
    """The class names that a data set brings: its `classes`, those of its label column, or a table of its labels."""
    if isinstance(names := getattr(data, "classes", None), (list, tuple)):
        return names
    features, info = getattr(data, "features", None), getattr(data, "info", None)
    if isinstance(features, Mapping) and isinstance(item := data[0], Mapping):
        _, label = find_columns(data, item, "training", columns, labelled=False)
        return getattr(features[label], "names", None)
    table = info.get("label") if isinstance(info, Mapping) else None  # medmnist: {"0": "normal", "1": "pneumonia"}
    if isinstance(table, Mapping) and list(table) == [str(number) for number in range(len(table))]:
        return [str(name) for name in table.values()]
    return None


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _no_pair(item: Any, index: int, part: str) -> str:
    remedy = "pass inputs and labels apart, from_arrays(x, y)"
    if isinstance(item, (tuple, list)) and len(item) == 3:
        remedy = f"if the third is the task: {TASKS}; else {remedy}"
    elif hasattr(item, "dataset") or (
        hasattr(item, "__getitem__") and not is_array(item) and not isinstance(item, str)
    ):
        remedy = f"{TASKS}; else {remedy}"
    expected = "expected a pair (image, label), or a dict with both"
    return f"item {index} of the {part} data is {_described(item)}: {expected}; {remedy}"


def _described(item: Any) -> str:
    """The type of an item, and what is in it."""
    inside = [repr(key) for key in item] if isinstance(item, Mapping) else []
    if isinstance(item, (tuple, list)):
        inside = [type(value).__name__ for value in item]
    shown = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "")
    return f"a {type(item).__name__}" + (f" of {len(inside)} ({shown})" if inside else "")


def _dimensions(value: Any) -> int:
    """Dimensions of an image or vector, 2 or more for pictures of PIL; 0 for what is neither."""
    if isinstance(value, (str, bytes, Mapping)):
        return 0
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        return 0
    return array.ndim if array.dtype.kind in "biuf" and array.size > 1 else 0


def _is_label(value: Any) -> bool:
    return isinstance(value, str) or (
        (isinstance(value, (int, np.integer)) and not isinstance(value, bool))
        or (is_array(value) and np.size(value) == 1 and np.asarray(value).dtype.kind in "iu")
    )
