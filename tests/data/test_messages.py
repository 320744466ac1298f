"""What people hand over by mistake: one error that names it and the call that mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

import clteach
from clteach.data.own_data import from_arrays
from clteach.errors import ClteachError

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 5, 5), dtype=np.uint8)
Y = np.arange(20) % 4
V = RNG.normal(size=(20, 3))
GREY, COLOUR = Image.fromarray(X[0]), Image.fromarray(RNG.integers(0, 256, (5, 5, 3), dtype=np.uint8))
FRAME = pd.DataFrame(V, columns=list("abc"))


class NoLength(TorchDataset[Any]):
    def __getitem__(self, index: int) -> Any:
        return X[index], int(Y[index])


def pair(label: int) -> Any:
    return (X[label == Y], Y[label == Y]), None


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "the name of a data set": (
        lambda: clteach.split("digits"),  # type: ignore[arg-type]
        r"got 'digits'.*clteach\.load\('digits'\).*make_stream\('split-digits'\)",
    ),
    "the name of a data set to encode": (
        lambda: clteach.encode("digits", "conv"),  # type: ignore[arg-type]
        r"expected a Dataset, got 'digits'.*clteach\.load\('digits'\)",
    ),
    "a data set to train on": (
        lambda: clteach.train("ewc", clteach.load("digits")),  # type: ignore[arg-type]
        r"expected a Stream to train on, got a Dataset\..*split\(dataset\)",
    ),
    "one stream for many seeds": (
        lambda: clteach.train_seeds("ewc", "split-digits", [0, 1]),  # type: ignore[arg-type]
        r"expected the stream of each seed as a function, got a str.*lambda seed: stream",
    ),
    "arrays to cut": (lambda: clteach.permuted(X), r"got a ndarray.*from_arrays\(x, y\)"),  # type: ignore[arg-type]
    "a stream to cut": (lambda: clteach.dirichlet(None), r"got a NoneType"),  # type: ignore[arg-type]
    "files": (
        lambda: from_arrays(["a.png", "b.PNG"] * 10, Y),
        r"'a\.png' at index \(0,\).*PIL\.Image\.open.*from_folder",
    ),
    "files in a frame": (lambda: from_arrays(pd.DataFrame({"at": ["a.jpg"] * 20}), Y), r"'a\.jpg'.*PIL\.Image\.open"),
    "pairs": (lambda: from_arrays((X, Y), (X, Y)), r"pairs.*from_arrays\(\*train, \*test\)"),
    "exchanged": (lambda: from_arrays(Y, X), r"shape \(20,\).*exchange the two"),
    "grey and colour": (
        lambda: from_arrays([GREY, COLOUR] * 10, Y),
        r"input 1 .*\[image\.convert\('RGB'\) for image in x\]",
    ),
    "sizes": (lambda: from_arrays([GREY, GREY.resize((6, 5))] * 10, Y), r"input 1 .*\[image\.resize\(\(32, 32\)\) for"),
    "masked": (lambda: from_arrays(np.ma.masked_array(V, V > 2), Y), r"masked values.*x\.filled\(0\)"),
    "-1 to 1": (lambda: from_arrays(X / 127.5 - 1, Y), r"\(x \+ 1\) / 2 where they lie in \[-1, 1\]"),
    "channels": (
        lambda: from_arrays(X[:, :, :, None], Y, channels="first"),
        r"channels='first' does not fit, so leave it out",
    ),
    "a frame with its labels": (
        lambda: from_arrays(FRAME.assign(label=Y)),
        r"x\.drop\(columns='label'\) and x\['label'\]",
    ),
    "no length": (lambda: from_arrays(NoLength()), r"a NoLength.*__len__.*\[x\[i\] for i in range\(n\)\]"),
    "columns of arrays": (
        lambda: from_arrays(X, Y, columns=("img", "label")),
        r"columns=.*of an array.*leave columns out",
    ),
    "columns of pairs": (
        lambda: from_arrays([(x, int(y)) for x, y in zip(X, Y, strict=True)], columns=("img", "label")),
        r"columns=.*a tuple of 2 \(ndarray, int\).*leave columns out",
    ),
    "labels from a generator": (lambda: from_arrays(X, (y for y in Y)), r"labels are a generator.*pass list\(y\)"),
    "shares of classes": (lambda: from_arrays(X, np.full((20, 4), 0.25)), r"shares of classes.*numpy\.argmax\(y, 1\)"),
    "masks as labels": (lambda: from_arrays(X, X), r"\(20, 5, 5\).*the class of each, not masks"),
    "too few labels": (lambda: from_arrays(X, Y[:7]), r"20 training inputs but 7 labels.*the labels of just these"),
    "share": (lambda: from_arrays(X, Y, test_share="half"), r"test_share='half': expected a share between 0 and 1"),
    "seed": (lambda: from_arrays(X, Y, seed=-1), r"seed=-1: expected a whole number of 0 or more"),
    "white": (lambda: from_arrays(X, Y, largest="white"), r"largest='white': expected a number above 0"),
    "names by number": (
        lambda: from_arrays(X, Y, classes=dict(enumerate("abcd"))),
        r"dict.*list\(classes\.values\(\)\)",
    ),
    "names as one text": (lambda: from_arrays(X, Y, classes="abcd"), r"classes is a str: expected a list of names"),
    "a name twice": (lambda: from_arrays(X, Y, classes=["a", "b", "a", "c"]), r"names 'a' twice"),
    "no tasks": (
        lambda: clteach.from_tasks(3),
        r"the tasks are a int: expected a list of pairs; pass \[\(train, test\)",
    ),
    "arrays for pairs": (
        lambda: clteach.from_tasks([(X, Y)]),
        r"a tuple of 2 \(ndarray, ndarray\).*\(\(x, y\), None\)",
    ),
    "classes to come": (
        lambda: clteach.from_tasks([pair(0)], later=[2, 3]),
        r"later has 2 for a task.*later=\[\[4, 5\]",
    ),
    "none to come": (lambda: clteach.from_tasks([pair(0)], later=[[]]), r"later has \[\] for a task"),
    "dark tasks": (
        lambda: clteach.from_tasks([((X // 100, Y), None), ((X // 100, Y), None)]),
        r"integers of at most 2.*largest=2",
    ),
    "no scenario": (
        lambda: clteach.from_continuum(3),
        r"int and NoneType.*from_continuum\(train_scenario, test_scenario\)",
    ),
    "its name": (lambda: clteach.from_continuum([pair(0)], "task"), r"list and str.*scenario='class'"),
    "size": (lambda: clteach.from_folder(".", size="big"), r"size='big': expected a number of pixels"),
    "no path": (lambda: clteach.from_folder(None), r"the path is a NoneType: expected the folder"),
}


@pytest.mark.parametrize("kind", BAD)
def test_one_error_that_names_it_and_the_call_that_mends_it(kind: str) -> None:
    call, words = BAD[kind]
    with pytest.raises(ClteachError, match=words):
        call()


def test_the_calls_mend_it() -> None:
    from_arrays([image.convert("RGB") for image in [GREY, COLOUR] * 10], Y)
    from_arrays([image.resize((32, 32)) for image in [GREY, GREY.resize((6, 5))] * 10], Y)
    frame = FRAME.assign(label=Y)
    assert from_arrays(frame.drop(columns="label"), frame["label"]).shape == (3,)
    assert from_arrays(*(X, Y), *(X, Y)).fingerprint == from_arrays(X, Y, X, Y).fingerprint
    assert from_arrays(X, np.argmax(np.eye(4)[Y] * 0.8 + 0.05, 1), X, Y).y_train.tolist() == Y.tolist()


def test_minus_one_beside_numbered_classes_is_said() -> None:
    with pytest.warns(UserWarning, match=r"the label -1 beside 0\.\.2 .*x\[y >= 0\]"):
        assert from_arrays(X, Y - 1).n_classes == 4


def folder(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(X[i]).save(root / name / f"{i}.png")
    return root


def test_folders_without_pictures(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "empty" / name).mkdir(parents=True)
    with pytest.raises(ClteachError, match=r"the training folders a, b hold no pictures: expected files such as"):
        clteach.from_folder(tmp_path / "empty")
    folder(tmp_path / "other", "train/a", "train/b", "test/c")
    with pytest.raises(ClteachError, match=r"test folder 'c'.*no training pictures of 'c'.*rename or drop it"):
        clteach.from_folder(tmp_path / "other")


def test_the_data_folder_takes_class_folders_and_sets_without_a_test_set(tmp_path: Path) -> None:
    folder(tmp_path / "pets", "cat", "dog")
    assert clteach.load("pets", tmp_path).fingerprint == clteach.from_folder(tmp_path / "pets").fingerprint
    np.savez(tmp_path / "mine.npz", x_train=X, y_train=Y, test_share=0.4)
    assert clteach.load("mine", tmp_path).fingerprint == from_arrays(X, Y, test_share=0.4).fingerprint
    np.savez(tmp_path / "half.npz", x_train=X, y_train=Y)
    with pytest.raises(ClteachError, match=r"lacks x_test, y_test.*without a test set beside test_share=0\.2"):
        clteach.load("half", tmp_path)
