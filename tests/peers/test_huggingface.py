"""Data sets of Hugging Face itself: columns found by type, in every format, with the names of their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image as Pictures

import clteach

datasets = pytest.importorskip("datasets", reason="needs datasets of Hugging Face (make peers)")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
LABELS = [2, 0, 1] * 4
NAMES = ["cat", "cow", "dog"]


def pictures(x: np.ndarray, **columns: Any) -> Any:
    """A data set with the pictures x, and columns of class labels."""
    features = {"img": datasets.Image(), "id": datasets.Value("int64")}
    features |= {name: datasets.ClassLabel(names=NAMES) for name in columns}
    rows = {"img": [Pictures.fromarray(image) for image in x], "id": list(range(len(x))), **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.mark.parametrize("form", [None, "numpy", "torch"])
@pytest.mark.parametrize("x", [GREY, COLOUR], ids=["grey", "colour"])
def test_pictures_in_every_format(x: np.ndarray, form: str | None) -> None:
    rows = pictures(x, label=LABELS).with_format(form)
    data = clteach.from_arrays(rows, x_test=rows.select(range(6)))
    expected = np.moveaxis(x.reshape(*x.shape[:3], -1), 3, 1)
    assert np.array_equal(data.x_train.numpy(), expected) and np.array_equal(data.x_test.numpy(), expected[:6])
    assert data.classes == tuple(NAMES) and data.y_train.tolist() == LABELS
    columns = clteach.from_arrays(rows["img"], rows["label"], rows["img"][:6], rows["label"][:6], classes=NAMES)
    assert columns.fingerprint == data.fingerprint


def test_arrays_and_text_labels() -> None:
    features = {"pixels": datasets.Array2D((28, 28), "uint8"), "target": datasets.Value("string")}
    columns = {"pixels": GREY, "target": [NAMES[label] for label in LABELS]}
    rows = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    data = clteach.from_arrays(rows, x_test=rows)
    assert np.array_equal(data.x_train[:, 0].numpy(), GREY) and data.y_train.tolist() == LABELS


def test_two_label_columns_are_named() -> None:
    rows = pictures(GREY, fine=LABELS, coarse=[0, 0, 1] * 4)
    with pytest.raises(clteach.errors.DataError, match=r"fine, coarse can be the label.*columns="):
        clteach.from_arrays(rows)
    data = clteach.from_arrays(rows, x_test=rows, columns=("img", "fine"))
    assert data.y_train.tolist() == LABELS
    with pytest.warns(UserWarning, match="no training sample of 'dog'"):
        assert clteach.from_arrays(rows, columns=("img", "coarse")).classes == ("cat", "cow")


def test_what_only_holds_a_data_set() -> None:
    rows = pictures(GREY, label=LABELS)
    for given, words in (
        (datasets.DatasetDict(train=rows), r"DatasetDict with the entries 'train'.*x\['train'\]"),
        (rows.to_iterable_dataset(), r"pass list\(x\)"),
        (rows[:], r"entries 'img', 'id', 'label'.*x\['img'\]"),
        (rows.with_format("pandas"), r"DataFrame.*from_arrays\(x, y\)"),
        (rows.cast_column("img", datasets.Image(decode=False)), "none can be the image"),
    ):
        with pytest.raises(clteach.errors.DataError, match=words):
            clteach.from_arrays(given)
    assert len(clteach.from_arrays(list(rows.to_iterable_dataset()), columns=("img", "label")).x_test) == 3
