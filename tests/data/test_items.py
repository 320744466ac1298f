"""Data sets of other libraries, told by their behaviour: light stand-ins here, the libraries themselves in tests/peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import torchvision.datasets
from PIL import Image

import clteach
from clteach.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 6, 6), dtype=np.uint8)
Y = np.arange(20) % 2
NAMES = ("cat", "dog")


class Rows:
    """Anything with len and positions."""

    def __init__(self, *columns: Any, **attributes: Any) -> None:
        self.columns = columns
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: int) -> Any:
        return tuple(column[index] for column in self.columns)


class Dicts(Rows):
    """Items as those of Hugging Face; `features` tells which column has names."""

    def __init__(self, named: Mapping[str, Any] | None = None, **columns: Any) -> None:
        features = {key: SimpleNamespace(names=(named or {}).get(key)) for key in columns}
        super().__init__(*columns.values(), features=features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(zip(self.features, super().__getitem__(index), strict=True))


class Column(Rows):
    """A lazy column: a sequence that is no array, whose comparison is one False."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


def check(data: Any, names: tuple[str, ...] = NAMES, **settings: Any) -> None:
    got = clteach.from_arrays(data, x_test=data, **settings)
    assert np.array_equal(got.x_train[:, 0].numpy(), X) and np.array_equal(got.x_test[:, 0].numpy(), X)
    assert got.y_train.tolist() == got.y_test.tolist() == Y.tolist() and got.classes == names


PICTURES = [Image.fromarray(image) for image in X]


def test_medmnist() -> None:
    """Labels are arrays of one; the names stand in a table of the labels."""
    table = {"0": "cat", "1": "dog"}
    check(Rows(PICTURES, Y[:, None].astype(np.uint8), info={"label": table, "task": "binary-class"}))
    with pytest.raises(DataError, match="multi-label"):
        clteach.from_arrays(Rows(PICTURES, np.ones((20, 14), np.uint8), info={"label": table}))


@pytest.mark.parametrize("images", [PICTURES, X, torch.from_numpy(X)[:, None], X.tolist()])
@pytest.mark.parametrize("keys", [("image", "label"), ("img", "fine_label"), ("pixels", "kind")])
def test_hugging_face(images: Any, keys: tuple[str, str]) -> None:
    image, label = keys
    check(Dicts({label: NAMES}, **{"id": range(20), image: images, label: Y}))
    check(Dicts(**{image: images, label: [NAMES[unit] for unit in Y]}))
    check([{image: picture, label: int(unit)} for picture, unit in zip(images, Y, strict=True)], ("0", "1"))


def test_columns_are_told_apart_or_named() -> None:
    check(Dicts(image=X, id=range(20), label=Y), ("0", "1"))
    check(Dicts(embedding=X[:, 0], image=X, label=Y), ("0", "1"))
    two = Dicts({"fine": NAMES, "coarse": NAMES}, image=X, mask=X, fine=Y, coarse=1 - Y)
    with pytest.raises(DataError, match=r"'image', 'mask', 'fine', 'coarse', of which image, mask can be the image"):
        clteach.from_arrays(two)
    check(two, columns=("image", "fine"))
    for columns in (("image", "nothing"), "image", ("image",)):
        with pytest.raises(DataError, match=r"columns=.*'coarse': expected two of these"):
            clteach.from_arrays(two, columns=columns)
    with pytest.raises(DataError, match="fine, coarse can be the label"):
        clteach.from_arrays(Dicts({"fine": NAMES, "coarse": NAMES}, image=X, fine=Y, coarse=Y))
    with pytest.raises(DataError, match="none can be the label"):
        clteach.from_arrays(Dicts(image=X))
    vectors = clteach.from_arrays(Dicts(features=X[:, 0].astype(float), label=Y))
    assert vectors.shape == (6,)


def test_labels_given_apart() -> None:
    for data in (Column(PICTURES), Rows(PICTURES, 1 - Y), Dicts(image=X, label=1 - Y), Dicts(image=X, a=Y, b=Y)):
        for y in (Y, Column(Y)):
            got = clteach.from_arrays(data, y, data, y)
            assert np.array_equal(got.x_train[:, 0].numpy(), X) and got.y_train.tolist() == Y.tolist()
    pairs = [(1.0, 2.0), (3.0, 4.0)] * 2  # vectors of two features are no pairs where labels are given
    assert clteach.from_arrays(pairs, [0, 1, 0, 1], pairs, [0, 1, 0, 1]).shape == (2,)


def test_what_has_two_parts_is_not_always_a_pair() -> None:
    for item in (np.zeros((2, 3)), torch.zeros(2, 3), "ab"):
        with pytest.raises(DataError, match=r"item 0 .* expected a pair \(image, label\)"):
            clteach.from_arrays([item] * 4)


def test_items_that_are_not_like_the_first_are_named() -> None:
    good = {"image": X[0], "label": 1}
    for bad, words in (({"image": X[0]}, "a dict of 1 .'image'."), ((X[0], 1), r"a tuple of 2 \(ndarray, int\)")):
        with pytest.raises(DataError, match=rf"item 2 of the training data is {words}.*'image' and 'label'"):
            clteach.from_arrays([good, good, bad])
    with pytest.raises(DataError, match=r"item 1 .* a list of 6 \(int, int, int, int, int, \.\.\.\)"):
        clteach.from_arrays([(X[0], 1), list(range(6))])


def test_sequences_of_tasks_are_pointed_to_what_takes_them() -> None:
    triples = Rows(X, Y, np.zeros(20))
    lists = [list(item) for item in zip(X, Y, Y, strict=True)]
    experience = SimpleNamespace(dataset=lists, current_experience=0)
    for given in (triples, lists, [triples, triples], experience, [experience], SimpleNamespace(train_stream=[])):
        with pytest.raises(DataError, match=r"clteach\.from_tasks.*from_avalanche.*from_continuum"):
            clteach.from_arrays(given)


class Iterable:
    def __iter__(self) -> Iterator[Any]:
        return zip(X, Y, strict=True)


def test_what_only_holds_a_data_set_names_what_to_pass(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=X, train_labels=Y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)))
    for given, words in (
        (np.load(tmp_path / "a.npz"), r"NpzFile with the entries 'train_images', 'train_labels'.*x\['train_images'\]"),
        ({"train": Rows(X, Y)}, r"dict with the entries 'train'.*x\['train'\]"),
        (loader, r"DataLoader: .*x\.dataset"),
        (Iterable(), r"list\(x\)"),
        (SimpleNamespace(get_data=lambda: (X, Y, None)), r"x, y, _ = data\.get_data\(\)"),
        (str(tmp_path), r"clteach\.from_folder"),
        (tmp_path, r"clteach\.from_folder"),
        ((X, Y), r"item 0 .* is a ndarray.*from_arrays\(x, y\)"),
        (3, "are a int: expected an array"),
    ):
        with pytest.raises(DataError, match=words):
            clteach.from_arrays(given)
    check(loader.dataset, ("0", "1"))
    check(list(Iterable()), ("0", "1"))


def test_torchvision_sets_with_more_or_fewer_labels(tmp_path: Path) -> None:
    qmnist = torchvision.datasets.QMNIST.__new__(torchvision.datasets.QMNIST)
    qmnist.data, qmnist.targets = torch.from_numpy(X), torch.stack([torch.from_numpy(Y)] * 8, 1)
    qmnist.transform, qmnist.target_transform, qmnist.compat = None, None, False
    with pytest.raises(DataError, match=r"\(20, 8\).*y\[:, 0\]"):
        clteach.from_arrays(qmnist)
    assert clteach.from_arrays(qmnist.data, qmnist.targets[:, 0]).n_classes == 2
    stl10 = torchvision.datasets.STL10.__new__(torchvision.datasets.STL10)
    stl10.data, stl10.labels, stl10.classes = np.stack([X] * 3, 1), np.full(20, -1), list(NAMES)
    stl10.transform, stl10.target_transform = None, None
    with pytest.raises(DataError, match="all training labels are -1"):
        clteach.from_arrays(stl10)


# ---------------------------------------------------------------------------------------- data frames and sparse


def test_sparse_inputs_name_the_call_that_mends_them() -> None:
    dense = RNG.random((20, 5))
    for sparse, call in (
        (scipy.sparse.csr_matrix(dense), "toarray"),
        (torch.from_numpy(dense).to_sparse(), "to_dense"),
    ):
        with pytest.raises(DataError, match=rf"sparse .*pass x\.{call}\(\)"):
            clteach.from_arrays(sparse, Y)
        got = clteach.from_arrays(getattr(sparse, call)(), Y)
        assert got.fingerprint == clteach.from_arrays(dense, Y).fingerprint


def test_columns_of_several_types_are_numbers() -> None:
    frame = pd.DataFrame({"size": RNG.random(20), "old": Y == 1, "count": np.arange(20)})
    plain = clteach.from_arrays(frame.to_numpy(float), Y)
    for x in (frame, frame.astype(object), frame.convert_dtypes(), frame.astype(object).to_numpy().tolist()):
        assert clteach.from_arrays(x, pd.Series(Y)).fingerprint == plain.fingerprint
    with pytest.raises(DataError, match=r"'red' at index \(0, 3\).*get_dummies"):
        clteach.from_arrays(frame.assign(colour="red"), Y)
    with pytest.raises(DataError, match=r"<NA> at index \(4, 2\)"):
        clteach.from_arrays(frame.convert_dtypes().mask(lambda values: values == 4), Y)
    images = pd.DataFrame({"image": list(X), "label": Y})
    assert np.array_equal(clteach.from_arrays(images["image"], images["label"]).shape, (1, 6, 6))


# --------------------------------------------------------------------------------------------- medmnist's own file


@pytest.mark.parametrize("validation", [True, False])
def test_medmnists_file(validation: bool, tmp_path: Path) -> None:
    column = Y[:, None].astype(np.uint8)
    arrays = {"train_images": X[:10], "train_labels": column[:10], "test_images": X[15:], "test_labels": column[15:]}
    if validation:
        arrays |= {"val_images": X[10:15], "val_labels": column[10:15]}
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    data = clteach.load("breastmnist", tmp_path)
    n = 15 if validation else 10
    assert np.array_equal(data.x_train[:, 0].numpy(), X[:n]) and np.array_equal(data.x_test[:, 0].numpy(), X[15:])
    assert data.y_train.tolist() == Y[:n].tolist() and data.y_test.tolist() == Y[15:].tolist()
    del arrays["test_labels"]
    np.savez(tmp_path / "breastmnist.npz", **arrays)
    with pytest.raises(DataError, match="lacks test_labels"):
        clteach.load("breastmnist", tmp_path)
