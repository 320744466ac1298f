"""medmnist itself: its data set objects, their arrays, and its files in the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clteach

medmnist = pytest.importorskip("medmnist", reason="needs medmnist (make peers)")
RNG = np.random.default_rng(0)
SIZES = {"train": 30, "val": 10, "test": 20}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a data set as medmnist publishes it, but small: medmnist itself insists on the published numbers."""

    def write(flag: str, shape: tuple[int, ...] = (28, 28), labels: int = 1, classes: int = 2) -> dict[str, Any]:
        monkeypatch.setitem(medmnist.INFO[flag], "n_samples", SIZES)
        arrays: dict[str, Any] = {}
        for part, n in SIZES.items():
            arrays[f"{part}_images"] = RNG.integers(0, 256, (n, *shape), dtype=np.uint8)
            column = np.arange(n * labels).reshape(n, labels) % classes
            arrays[f"{part}_labels"] = column.astype(np.uint8)
        np.savez(tmp_path / f"{flag}.npz", **arrays)
        return arrays

    return write


def parts(name: str, folder: Path) -> list[Any]:
    return [getattr(medmnist, name)(split=part, root=str(folder)) for part in ("train", "test")]


@pytest.mark.parametrize("flag, name, shape", [("breastmnist", "BreastMNIST", ()), ("pathmnist", "PathMNIST", (3,))])
def test_data_sets(flag: str, name: str, shape: tuple[int, ...], write: Any, tmp_path: Path) -> None:
    classes = len(medmnist.INFO[flag]["label"])
    arrays = write(flag, (28, 28, *shape), classes=classes)
    train, test = parts(name, tmp_path)
    data = clteach.from_arrays(train, x_test=test)
    expected = np.moveaxis(arrays["train_images"].reshape(30, 28, 28, -1), 3, 1)
    assert np.array_equal(data.x_train.numpy(), expected)
    assert data.y_train.tolist() == (np.arange(30) % classes).tolist()
    assert data.classes == tuple(medmnist.INFO[flag]["label"].values())
    apart = clteach.from_arrays(train.imgs, train.labels, test.imgs, test.labels, classes=data.classes)
    assert apart.fingerprint == data.fingerprint


def test_several_labels(write: Any, tmp_path: Path) -> None:
    write("chestmnist", labels=14)
    train, _ = parts("ChestMNIST", tmp_path)
    for args in ((train,), (train.imgs, train.labels)):
        with pytest.raises(clteach.errors.DataError, match=r"\(30, 14\).*multi-label"):
            clteach.from_arrays(*args)


def test_volumes_are_named_by_their_shape(write: Any, tmp_path: Path) -> None:
    write("organmnist3d", (28, 28, 28), classes=11)
    with pytest.raises(clteach.errors.DataError, match=r"\(30, 1, 28, 28, 28\): expected images"):
        clteach.from_arrays(parts("OrganMNIST3D", tmp_path)[0])


def test_its_file_in_the_data_folder(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = write("breastmnist")
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    data = clteach.load("breastmnist")
    both = np.concatenate([arrays["train_images"], arrays["val_images"]])
    assert np.array_equal(data.x_train[:, 0].numpy(), both) and len(data.x_test) == 20
    assert data.y_train[30:].tolist() == arrays["val_labels"][:, 0].tolist()
    assert len(clteach.make_stream("split-breastmnist", tasks=2)) == 2
