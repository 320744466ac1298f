"""Data sets by name, and anyone's own data, as tensors in memory.

A data set is loaded once, whole, and stays in memory: images as uint8, a quarter of the room that floats take,
converted batch by batch in the training loop. Files are searched in one folder (``data_folder``). A ``NAME.npz`` is
never unpickled, and a download appears there only when it is complete.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clteach.arrays import (
    check_finite,
    check_lengths,
    check_unit_range,
    distinct,
    encode,
    first_true,
    inputs_and_labels,
    out_of_range,
    random_states_kept,
    reason,
    unseen_label,
)
from clteach.errors import ClteachError, ConfigError, DataError, unknown
from clteach.files import write_atomic

NAMES: dict[str, str] = {
    "digits": "1,797 handwritten digits, 8 x 8 grey, 10 classes (bundled with scikit-learn)",
    "mnist": "70,000 handwritten digits, 28 x 28 grey, 10 classes",
    "fashion-mnist": "70,000 articles of clothing, 28 x 28 grey, 10 classes",
    "cifar10": "60,000 photographs, 32 x 32 colour, 10 classes",
    "cifar100": "60,000 photographs, 32 x 32 colour, 100 classes",
}


class _Source(NamedTuple):
    dataset: str  # class in torchvision.datasets
    layout: str  # the folder in which torchvision keeps its files
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    train: int  # number of training images


_FASHION = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
""".split()
_SOURCES = {
    "mnist": _Source("MNIST", "MNIST", (1, 28, 28), tuple("0123456789"), 60_000),
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST", (1, 28, 28), tuple(_FASHION), 60_000),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", (3, 32, 32), tuple(_CIFAR10), 50_000),
    "cifar100": _Source("CIFAR100", "cifar-100-python", (3, 32, 32), tuple(_CIFAR100), 50_000),
}
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


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
        classes: One name per class; label k belongs to ``classes[k]``.
        encoded_from: Of features that `clteach.features.encode` made: the number of values of one image. Else None.

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
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in _ARRAYS})


def as_floats(x: Tensor) -> Tensor:
    """Bytes 0..255 -> float32 in [0, 1]; floats stay as they are."""
    return torch.div(x, 255) if x.dtype == torch.uint8 else x


# ---------------------------------------------------------------------------------------------- data sets by name


def data_folder() -> Path:
    """The one folder of local data: ``CLTEACH_DATA`` where it is set, else ``clteach`` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLTEACH_DATA") or Path(cache, "clteach")).expanduser()


@random_states_kept()
def load(name: str, folder: Path | str | None = None, download: bool = True) -> Dataset:
    """Load a data set by name.

    ``digits`` comes with scikit-learn; a fifth of it, stratified, is the test set. Every other name is searched in
    ``folder``: first ``NAME.npz`` (arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, optionally, the class
    names ``classes``), then the files of torchvision's data set; last comes the download through torchvision, which
    checks its md5 sums. One's own ``NAME.npz`` is read like the arguments of ``from_arrays``.

    Args:
        name: A name in ``NAMES``, or the name of one's own ``NAME.npz``; or several of them with + between, see ``join``.
        folder: Where to search and to keep downloads; ``data_folder()`` by default.
        download: Whether the network may be used.

    Raises:
        ConfigError: Neither a known name nor a file of that name.
        DataError: A missing, damaged or unsuitable file, a failed download, or a folder that cannot be written.
    """
    if "+" in name:
        return join(*(load(part, folder, download) for part in name.split("+")))
    if name == "digits":
        return _digits()
    folder = data_folder() if folder is None else Path(folder).expanduser()
    source, file = _SOURCES.get(name), folder / f"{name}.npz"
    # os.path answers False where Path raises for want of permission.
    if os.path.isfile(folder):
        raise DataError(f"the data folder {folder} is a file: expected a folder; set CLTEACH_DATA to one")
    if os.path.isfile(file) and Path(name).name == name:
        arrays = _read_npz(file)
    elif source is None:
        expected = f"expected one of {', '.join(NAMES)}, or a file {name}.npz in {folder}"
        raise ConfigError(f"unknown data set {name!r}: {expected}; set CLTEACH_DATA to the folder that holds it")
    elif os.path.isdir(folder / source.layout):
        file = folder / source.layout
        try:
            arrays = _read_torchvision(source, folder, download=False)
        except Exception as error:  # torchvision lets many types through: asserts, pickle and value errors
            problem = f"{file} cannot be read ({reason(error)}): expected torchvision's complete {name} files"
            raise DataError(f"{problem}; delete this folder so that they are downloaded anew") from None
    else:
        arrays = _read_npz(_download(name, source, folder, download))
    try:
        classes = arrays.pop("classes", None if source is None else source.classes)
        data = from_arrays(*(arrays[key] for key in _ARRAYS), name=name, classes=classes)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    if source and (data.shape != source.shape or data.n_classes != len(source.classes)):
        expected = f"expected those of {name}, {source.shape} and {len(source.classes)}; rename or delete it"
        raise DataError(f"{file} has images {data.shape} and {data.n_classes} classes: {expected}")
    return data


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
    )


def outline(name: str) -> tuple[Dataset, int]:
    """What is known of a data set without its files: for sizes, where the pixels do not matter.

    Args:
        name: A name in ``NAMES``.

    Returns:
        A stand-in with one black image per class, and the number of training images that the data set really has.

    Raises:
        ConfigError: The name is not one of ``NAMES``.
    """
    if name == "digits":
        digits = _digits()
        shape, classes, train = digits.shape, digits.classes, len(digits.x_train)
    elif name in _SOURCES:
        _, _, shape, classes, train = _SOURCES[name]
    else:
        raise unknown("data set", name, NAMES)
    x, y = torch.zeros(len(classes), *shape, dtype=torch.uint8), torch.arange(len(classes))
    return Dataset(name, x, y, x, y, classes), train


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)  # 17 grey levels, 0..16
    return from_arrays(images, raw.target, name="digits", test_share=0.2, seed=0)


def _read_npz(file: Path) -> dict[str, Any]:
    remedy = "expected an npz file of arrays; delete it so that it is fetched anew, or write it again with numpy.savez"
    try:
        with file.open("rb") as stream:
            start = stream.read(1024)
            if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:5].lower() in (b"<!doc", b"<html", b"<head", b"<?xml"):
                raise DataError(f"{file} is an HTML page: {remedy}")
            if not zipfile.is_zipfile(stream):
                what = "is truncated or not an npz file" if start else "is empty"
                raise DataError(f"{file} {what}: {remedy}")
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as found:
                missing = [key for key in _ARRAYS if key not in found]
                if missing:
                    problem = f"{file} lacks {', '.join(missing)} (it has {', '.join(found.files) or 'nothing'})"
                    raise DataError(f"{problem}: expected {', '.join(_ARRAYS)}; write it again with numpy.savez")
                return {key: found[key] for key in (*_ARRAYS, "classes") if key in found}
    except DataError:
        raise
    except Exception as error:  # damaged bytes surface as almost any type: zip, zlib, value, syntax, memory errors
        what = f"is damaged ({reason(error)})"
        if "allow_pickle" in str(error):
            what = "holds Python objects, which are never loaded, instead of plain numbers"
        raise DataError(f"{file} {what}: {remedy}") from None


def _read_torchvision(source: _Source, root: Path, download: bool) -> dict[str, Any]:
    import torchvision.datasets

    arrays: dict[str, Any] = {}
    with contextlib.redirect_stdout(sys.stderr):  # some versions print while they download; stdout is for results
        for part in ("train", "test"):
            data = getattr(torchvision.datasets, source.dataset)(str(root), train=part == "train", download=download)
            arrays[f"x_{part}"], arrays[f"y_{part}"] = np.asarray(data.data), np.asarray(data.targets)
    return arrays


def _download(name: str, source: _Source, folder: Path, allowed: bool) -> Path:
    file = folder / f"{name}.npz"
    remedy = f"expected {file} or a network; fetch it on a connected machine and set CLTEACH_DATA to its folder"
    if not allowed:
        raise DataError(f"{name} is not in {folder} and downloads are off: {remedy}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder, ignore_cleanup_errors=True) as temporary:
            try:
                arrays = _read_torchvision(source, Path(temporary), download=True)
            except Exception as error:  # network, server, md5 and archive errors have no common type
                raise DataError(f"{name} could not be downloaded to {folder} ({reason(error)}): {remedy}") from None
        arrays["classes"] = np.array(source.classes)
        return write_atomic(file, lambda stream: np.savez(stream, **arrays))
    except DataError:
        raise
    except (OSError, ClteachError) as error:
        problem = f"{file} cannot be written ({reason(error.__cause__ or error)})"
        raise DataError(f"{problem}: expected a writable folder with room; set CLTEACH_DATA to one") from None


# -------------------------------------------------------------------------------------------------- one's own data


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
    targets = encode(labels, values, "training", given=classes is not None)
    if x_test is None:
        train, test = _hold_out(targets, test_share, seed, values)
        x_parts, y_parts = [images[train], images[test]], [targets[train], targets[test]]
    else:
        test_images, test_labels = inputs_and_labels(x_test, y_test, "test", channels)
        x_parts, y_parts = [images, test_images], [targets, encode(test_labels, values, "test", classes is not None)]
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
