"""Labels as people have them, and the one call that mends those that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import clteach
from clteach.errors import DataError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 4, 4), dtype=np.uint8)
Y = np.arange(20) % 2


def labels(y: Any, **settings: Any) -> list[int]:
    return clteach.from_arrays(X, y, X, y, **settings).y_train.tolist()


@pytest.mark.parametrize(
    "y",
    [
        Y[:, None],
        torch.from_numpy(Y)[:, None],
        Y[:, None].tolist(),
        [np.array([label], np.uint8) for label in Y],
        pd.DataFrame({"class": Y}),
        pd.Series(Y, index=range(100, 120)),
        pd.Series(Y).astype(object),
        pd.Series(Y, dtype="Int64"),
        pd.Series(np.where(Y, "b", "a"), dtype="category"),
    ],
    ids=["array", "tensor", "lists", "arrays", "frame", "series", "objects", "nullable", "categories"],
)
def test_one_column_is_taken(y: Any) -> None:
    assert labels(y) == Y.tolist()


@pytest.mark.parametrize("y", [np.eye(2)[Y], np.eye(2, dtype=bool)[Y], np.eye(2, dtype=int)[Y].tolist()])
def test_one_hot_labels_name_the_call_that_mends_them(y: Any) -> None:
    with pytest.raises(DataError, match=r"\(20, 2\).*one-hot, so pass numpy\.argmax\(y, 1\)"):
        labels(y)
    assert labels(np.argmax(y, 1)) == Y.tolist()


@pytest.mark.parametrize("y", [np.ones((20, 14), int), [torch.tensor([3, 1, 2])] * 20, np.zeros((20, 8))])
def test_several_labels_name_the_call_that_mends_them(y: Any) -> None:
    with pytest.raises(DataError, match=r"multi-label.*y\[:, 0\]"):
        labels(y)


@pytest.mark.parametrize("y", [Y == 1, (Y == 1).tolist(), torch.from_numpy(Y == 1), pd.Series(Y == 1)])
def test_boolean_labels_name_the_call_that_mends_them(y: Any) -> None:
    with pytest.raises(DataError, match=r"False at position 0 is a bool.*numpy\.asarray\(y, int\)"):
        labels(y)
    assert labels(np.asarray(y, int)) == Y.tolist()


@pytest.mark.parametrize(
    "y",
    [
        pd.Series([0, None] * 10, dtype="Int64"),
        pd.Series([0, None] * 10, dtype="Int64").tolist(),
        pd.Series(["a", None] * 10),
        [0, None] * 10,
    ],
    ids=["nullable", "NA", "text", "None"],
)
def test_missing_labels_are_named(y: Any) -> None:
    with pytest.raises(DataError, match=r"position 1 is a .*convert or drop it"):
        labels(y)


@pytest.mark.parametrize("y", [7, "cat", {"label": 1}])
def test_no_labels_at_all(y: Any) -> None:
    with pytest.raises(DataError, match=r"labels are (7|'cat'|a dict): expected \(N,\).*pass a list"):
        labels(y)


def test_minus_one_alone_is_no_class() -> None:
    with pytest.raises(DataError, match=r"all training labels are -1.*pass another part"):
        labels(np.full(20, -1))
    assert labels(np.where(Y, 1, -1)) == Y.tolist()  # as support vector machines write them


def test_names_in_an_order_of_ones_own() -> None:
    assert labels(np.where(Y, "ant", "bee"), classes=["bee", "ant"]) == Y.tolist()
    with pytest.raises(DataError, match="'cow' at position 0 is not among the classes: expected one of bee, ant"):
        labels(["cow"] * 20, classes=["bee", "ant"])


@pytest.mark.parametrize("y", [np.where(Y, b"bee", b"ant"), [b"bee" if label else b"ant" for label in Y]])
def test_names_as_bytes_have_no_quotes(y: Any) -> None:
    """As Python 2 pickled them and HDF5 keeps them."""
    assert clteach.from_arrays(X, y, X, y).classes == ("ant", "bee")
    assert clteach.from_arrays(X, Y, X, Y, classes=[b"ant", b"bee"]).classes == ("ant", "bee")
    assert clteach.from_tasks([((X, y), (X, y))])[0].classes == ("ant", "bee")


# -------------------------------------------------------------------------------- class names without a sample


def test_a_name_without_a_training_sample_is_left_out_and_said() -> None:
    """EMNIST's letters begin with "N/A": 27 names, 26 classes."""
    letters = ["N/A", *"abcd"]
    with pytest.warns(
        UserWarning, match=r"own: no training sample of 'N/A'; 4 classes are left.*'a', 'b', 'c', \.\.\."
    ):
        data = clteach.from_arrays(X, np.arange(20) % 4 + 1, X[:4], [4, 3, 2, 1], classes=letters, name="own")
    assert data.classes == tuple("abcd") and data.y_train.tolist() == (np.arange(20) % 4).tolist()
    assert data.y_test.tolist() == [3, 2, 1, 0]
    assert [task.classes for task in clteach.split(data, tasks=2)] == [("a", "b"), ("c", "d")]


def test_the_warning_points_at_the_callers_line() -> None:
    with pytest.warns(UserWarning) as caught:
        clteach.from_arrays(X, Y * 2, classes=["a", "b", "c"])
    assert [warning.filename for warning in caught] == [__file__]


def test_names_that_a_data_set_brings(tmp_path: Path) -> None:
    class Letters(list):
        classes = ("N/A", "a", "b")

    with pytest.warns(UserWarning, match="'N/A'"):
        assert clteach.from_arrays(Letters(zip(X, Y + 1, strict=True))).classes == ("a", "b")
    np.savez(tmp_path / "letters.npz", x_train=X, y_train=Y + 1, x_test=X, y_test=Y + 1, classes=Letters.classes)
    with pytest.warns(UserWarning, match="letters: no training sample of 'N/A'"):
        assert clteach.load("letters", tmp_path).classes == ("a", "b")
    np.savez(tmp_path / "mnist.npz", x_train=X, y_train=Y, x_test=X, y_test=Y)
    with (
        pytest.warns(UserWarning, match="no training sample of '2'"),
        pytest.raises(DataError, match="2 classes: expected those of mnist"),
    ):
        clteach.load("mnist", tmp_path)


def test_a_test_sample_of_a_class_without_training_is_an_error() -> None:
    with pytest.raises(DataError, match="test label 0 at position 3 has no training sample"):
        clteach.from_arrays(X, Y + 1, X[:4], [1, 2, 1, 0], classes=["N/A", "a", "b"])


def test_a_dataset_made_by_hand_has_samples_of_every_class() -> None:
    x, y = torch.zeros(4, 1, 2, 2), torch.tensor([0, 2, 0, 2])
    with pytest.raises(DataError, match="class 'b' has no training sample: expected at least one"):
        clteach.Dataset("own", x, y, x, y, ("a", "b", "c"))


# ------------------------------------------------------------------------------------------- in the data folder


@pytest.mark.parametrize(
    ("keys", "kind"), [(("y_train", "y_test"), str), (("classes",), str), (("x_train", "x_test"), float)]
)
def test_objects_in_a_file_name_the_call_that_mends_them(keys: tuple[str, ...], kind: type, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"x_train": X / 255, "y_train": Y, "x_test": X / 255, "y_test": Y}
    arrays["classes"] = np.array(["0", "1"])
    np.savez(tmp_path / "good.npz", **arrays)
    np.savez(tmp_path / "own.npz", **arrays | {key: arrays[key].astype(object) for key in keys})
    words = rf"{keys[0]} in .*own\.npz holds Python objects.*save it as {keys[0]}\.astype\({kind.__name__}\)"
    with pytest.raises(DataError, match=words) as caught:
        clteach.load("own", tmp_path)
    assert "delete" not in str(caught.value)
    np.savez(tmp_path / "own.npz", **arrays | {key: arrays[key].astype(object).astype(kind) for key in keys})
    assert clteach.load("own", tmp_path).fingerprint == clteach.load("good", tmp_path).fingerprint


def test_only_what_can_be_fetched_is_to_be_deleted(tmp_path: Path) -> None:
    for name, deleted in (("mnist", True), ("own", False)):
        (tmp_path / f"{name}.npz").write_bytes(b"not a zip file")
        with pytest.raises(DataError, match=r"write it again with numpy\.savez") as caught:
            clteach.load(name, tmp_path)
        assert ("delete it so that it is fetched anew" in str(caught.value)) == deleted
