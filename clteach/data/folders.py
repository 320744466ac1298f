"""Folders of pictures, one for each class, as a `Dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clteach.data.dataset import Dataset, reason
from clteach.data.inputs import GREY_OR_RGB
from clteach.data.own_data import from_arrays
from clteach.errors import ConfigError, DataError
from clteach.settings import convert

_PARTS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def from_folder(
    path: str | Path,
    size: int | tuple[int, int] | None = None,
    *,
    name: str | None = None,
    test_share: float = 0.2,
    seed: int = 0,
    largest: float | None = None,
) -> Dataset:
    """Make a data set of a folder that holds one folder of pictures for each class.

    Either ``path/CLASS/picture.png``; or ``path/train/CLASS/picture.png`` and ``path/test/CLASS/picture.png``. A part
    ``val`` joins the training pictures, or is the test set where there is no other. Pictures are grey where all of them
    are, else RGB; hidden files and folders are passed over.

    Args:
        path: The folder.
        size: Height and width, or one number for both, to which every picture is stretched. None: they have one size.
        name: Name of the result; that of the folder by default.
        test_share: Share held out where the folder has no test part, as in `from_arrays`.
        seed: Seed of the hold-out.
        largest: As in `from_arrays`: the value of white, of masks with 0 and 1 for instance.

    Raises:
        DataError: No such folder, no class folders, a picture that cannot be read or has another size.
        ConfigError: ``size``, ``test_share`` or ``largest`` out of range.
    """
    sides: tuple[int, int] | None = None
    if size is not None:
        what = "a number of pixels, or (height, width), such as size=32"
        both = convert("size", size, int | tuple[int, int], what)
        sides = (both, both) if isinstance(both, int) else both
        if min(sides) < 1:
            raise ConfigError(f"size={size!r}: expected {what}.")
    if not isinstance(path, (str, Path)):
        raise DataError(f"the path is a {type(path).__name__}: expected the folder of the class folders, 'pets' say")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected one with a folder of pictures for each class; mend the path")
    parts: dict[str, list[Path]] = {}
    for below in _folders(folder):
        # Where it holds pictures themselves, a folder of that name is a class.
        if below.name.lower() in _PARTS and _folders(below):
            parts.setdefault(_PARTS[below.name.lower()], []).append(below)
    if "train" not in parts:
        parts = {"train": [folder]}
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    train, test = _files([*parts["train"], *parts.get("val", [])]), _files(parts.get("test", []))
    if len(train) < 2:
        problem = f"{parts['train'][0]} holds {len(train)} class folders{''.join(f' ({only})' for only in train)}"
        raise DataError(f"{problem}: expected two or more, with pictures in each; pass the folder that holds them")
    for part, files in (("training", train), ("test", test)):
        if files and not any(files.values()):
            problem = (
                f"the {part} folders {', '.join([*files][:3])}{', ...' if len(files) > 3 else ''} hold no pictures"
            )
            raise DataError(f"{problem}: expected files such as picture.png or picture.jpg in them; convert others")
    if unknown := [label for label in test if test[label] and not train.get(label)]:
        problem = f"the test folder {unknown[0]!r} has pictures, but there are no training pictures of {unknown[0]!r}"
        raise DataError(f"{problem}: expected folders among {', '.join(train)}; rename or drop it")
    x, y = _read(train, sides)
    x_test, y_test = _read(test, sides) if test else (None, None)
    if x_test and {picture.ndim for picture in x} != {picture.ndim for picture in x_test}:
        x, x_test = _coloured(x), _coloured(x_test)
    return from_arrays(
        x,
        y,
        x_test,
        y_test,
        name=name or folder.resolve().name,
        classes=list(train),
        test_share=test_share,
        seed=seed,
        largest=largest,
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(below for below in folder.iterdir() if below.is_dir() and not below.name.startswith("."))


def _files(parts: list[Path]) -> dict[str, list[Path]]:
    """The pictures of every class, in the order of the classes' names."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    files: dict[str, list[Path]] = {}
    for part in parts:
        for folder in _folders(part):
            files.setdefault(folder.name, []).extend(
                file
                for file in sorted(folder.rglob("*"))
                if file.suffix.lower() in IMG_EXTENSIONS
                and not any(step.startswith(".") for step in file.relative_to(part).parts)
            )
    return dict(sorted(files.items()))


def _read(files: dict[str, list[Path]], sides: tuple[int, int] | None) -> tuple[list[np.ndarray], list[str]]:
    """Pictures (H, W), or (H, W, 3) where one of them has colours, and the class of each."""
    pictures, labels = [], []
    for label, paths in files.items():
        for path in paths:
            pictures.append(_open(path, sides))
            labels.append(label)
            if (found := pictures[-1].shape[:2]) != (first := pictures[0].shape[:2]):
                problem = f"{path} has {found[0]} x {found[1]} pixels but the first picture {first[0]} x {first[1]}"
                raise DataError(f"{problem}: expected one size for all; from_folder(..., size=32) resizes them")
    return (_coloured(pictures) if len({picture.ndim for picture in pictures}) > 1 else pictures), labels


def _open(path: Path, sides: tuple[int, int] | None) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            # 16 and 32 bits keep their values (`largest` says what is white); transparency is dropped.
            mode = image.mode if image.mode[0] in "IF" else GREY_OR_RGB.get(image.mode, image.mode)
            picture: Any = image.convert(mode if mode == "L" or mode[0] in "IF" else "RGB")
            return np.asarray(picture if sides is None else picture.resize(sides[::-1]))
    except Exception as error:  # damaged pictures raise almost anything
        problem = f"{path} cannot be read ({reason(error)})"
        raise DataError(f"{problem}: expected a picture; repair or delete it") from None


def _coloured(pictures: list[np.ndarray]) -> list[np.ndarray]:
    return [np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture for picture in pictures]
