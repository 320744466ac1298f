"""Data sets by name, as tensors in memory.

A data set is loaded once, whole, and stays in memory: images as uint8, a quarter of the room that floats take,
converted batch by batch in the training loop. Files are searched in one folder (``data_folder``). A ``NAME.npz`` is
never unpickled, and a download appears there only when it is complete.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from clteach.data.dataset import ARRAYS, Dataset, join, reason
from clteach.data.folders import from_folder
from clteach.data.own_data import from_arrays, random_states_kept
from clteach.errors import ClteachError, ConfigError, DataError, unknown
from clteach.storage import write_atomic

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
_MEDMNIST = dict(zip(ARRAYS, ("train_images", "train_labels", "test_images", "test_labels"), strict=True))


# ---------------------------------------------------------------------------------------------- data sets by name


def data_folder() -> Path:
    """The one folder of local data: ``CLTEACH_DATA`` where it is set, else ``clteach`` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("CLTEACH_DATA") or Path(cache, "clteach")).expanduser()


def as_dataset(value: Any) -> Dataset:
    """The value, which must be a `Dataset`.

    Raises:
        ConfigError: it is something else; the message names the call that makes one.
    """
    if isinstance(value, Dataset):
        return value
    if isinstance(value, str) and value in NAMES:
        how = f"Load it first: clteach.load({value!r}), or make a stream by name: clteach.make_stream('split-{value}')."
    else:
        how = "clteach.load(NAME) reads one, clteach.from_arrays(x, y) makes one of your own data."
    shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
    raise ConfigError(f"expected a Dataset, got {shown}. {how}")


@random_states_kept()
def load(name: str, folder: Path | str | None = None, download: bool = True) -> Dataset:
    """Load a data set by name.

    ``digits`` comes with scikit-learn; a fifth of it, stratified, is the test set. Every other name is searched in
    ``folder``: first ``NAME.npz`` (arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` and, optionally, the class
    names ``classes``, the value of white ``largest``, and ``test_share`` instead of a test set), then a folder ``NAME`` of
    class folders (see ``from_folder``), then the files of torchvision's data set; last comes the download through
    torchvision, which checks its md5 sums. One's own ``NAME.npz`` is read like the arguments of ``from_arrays``. So are
    the files of medmnist (``train_images``, ...), whose validation images join the training images: hold out a share of
    them with ``validation`` of `clteach.split`, as of any data set.

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
    elif source is None and name and Path(name).name == name and os.path.isdir(folder / name):
        return from_folder(folder / name, name=name)
    elif source is None:
        expected = f"expected one of {', '.join(NAMES)}, or {name}.npz or a folder {name} of class folders in {folder}"
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
        more = {key: arrays.pop(key) for key in ("largest", "test_share") if key in arrays}
        data = from_arrays(*(arrays.get(key) for key in ARRAYS), name=name, classes=classes, **more)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    if source and (data.shape != source.shape or data.n_classes != len(source.classes)):
        expected = f"expected those of {name}, {source.shape} and {len(source.classes)}; rename or delete it"
        raise DataError(f"{file} has images {data.shape} and {data.n_classes} classes: {expected}")
    return data


@cache
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
    fetched = "delete it so that it is fetched anew, or " if file.stem in _SOURCES else ""
    remedy = f"expected an npz file of arrays; {fetched}write it again with numpy.savez"
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
                names = _MEDMNIST if "train_images" in found else {key: key for key in ARRAYS}
                if "test_share" in found and names is not _MEDMNIST and "x_test" not in found and "y_test" not in found:
                    names = {key: key for key in ("x_train", "y_train")}
                missing = [name for name in names.values() if name not in found]
                if missing:
                    problem = f"{file} lacks {', '.join(missing)} (it has {', '.join(found.files) or 'nothing'})"
                    ways = "write it again with numpy.savez, without a test set beside test_share=0.2"
                    raise DataError(f"{problem}: expected {', '.join(names.values())}; {ways}")
                arrays: dict[str, Any] = {key: _plain(found, name, file) for key, name in names.items()}
                if names is _MEDMNIST and "val_images" in found:
                    for key, name in (("x_train", "val_images"), ("y_train", "val_labels")):
                        arrays[key] = np.concatenate([arrays[key], _plain(found, name, file)])
                if "classes" in found:
                    arrays["classes"] = _plain(found, "classes", file)
                for key in ("largest", "test_share"):
                    if key in found:
                        arrays[key] = float(found[key].item())
                return arrays
    except DataError:
        raise
    except Exception as error:  # damaged bytes surface as almost any type: zip, zlib, value, syntax, memory errors
        raise DataError(f"{file} is damaged ({reason(error)}): {remedy}") from None


def _plain(found: Any, name: str, file: Path) -> np.ndarray:
    """An array of an npz file; DataError that says how to save it where it holds Python objects."""
    try:
        return found[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        problem = f"{name} in {file} holds Python objects, which are never loaded: expected plain numbers or text"
        kind = "float" if name.startswith("x_") or name.endswith("_images") else "str"
        raise DataError(f"{problem}; save it as {name}.astype({kind})") from None


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
