"""Streams: what each scenario shows a learner, and that every sample is used as it should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clteach.data.catalogue import load
from clteach.data.dataset import Dataset
from clteach.data.streams import dirichlet, permuted, split
from clteach.data.tasks import Data, Spec, Stream
from clteach.errors import ConfigError, DataError
from clteach.training.learner_checks import toy_data


def labels(stream: Stream) -> list[list[int]]:
    return [sorted(set(task.train.y.tolist())) for task in stream]


def test_split_labels_and_active_units() -> None:
    data = toy_data(n_classes=6)
    by_class = split(data, "class", tasks=3)
    assert labels(by_class) == [[0, 1], [2, 3], [4, 5]]
    assert by_class.spec.n_out == 6
    tasks = torch.tensor([0, 2])
    assert by_class.spec.active(tasks, seen=2).tolist() == [[True] * 4 + [False] * 2] * 2
    domain = split(data, "domain", tasks=3)
    assert labels(domain) == [[0, 1]] * 3 and domain.spec.n_out == 2
    task = split(data, "task", tasks=3)
    assert labels(task) == [[0, 1], [2, 3], [4, 5]]
    assert task.spec.active(tasks, seen=3).int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    everything = split(data, "class", tasks=3, active_units="all")
    assert bool(everything.spec.active(tasks, seen=1).all())


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["task", "domain", "class"]), st.sampled_from([0.0, 0.25]))
def test_split_uses_every_sample_once_with_its_own_label(seed: int, scenario: str, validation: float) -> None:
    data = toy_data(n_classes=6, n=8)
    stream = split(data, scenario, tasks=3, class_order="random", validation=validation, seed=seed)
    rows = []
    for task in stream:
        for part in (task.train, task.valid):
            if part is None:
                continue
            rows += part.rows.tolist()
            unit_of = dict(zip(task.classes, stream.spec.units[task.index], strict=True))
            for row, y in zip(part.rows.tolist(), part.y.tolist(), strict=True):
                assert unit_of[data.classes[int(data.y_train[row])]] == y
        assert (task.valid is None) == (validation == 0)
        if task.valid is not None:
            assert torch.bincount(task.valid.y, minlength=6).max() == 2  # a quarter of every class
    assert sorted(rows) == list(range(len(data.y_train)))


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        ("123456", [[1, 2], [3, 4]], ("1", "2", "3", "4")),  # labels are what `from_tasks(later=)` takes, too
        ("123456", [["1", 2], [6, "3"]], ("1", "2", "6", "3")),
        (("10", "20", "-3", "4", "05"), [[-3, 20], [5]], ("-3", "20", "05")),
        (("cat", "dog", "1", "cow"), [[1, "cat"], [3]], ("dog", "cat", "cow")),
        (("cat", "dog", "1", "cow"), [["1"], ["cat"]], ("1", "cat")),
        (("1", "01", "2"), [[0, 1], [2]], ("1", "01", "2")),  # two names of one number: places
    ],
)
def test_classes_by_number_and_by_name(names: Any, classes: Any, expected: tuple[str, ...]) -> None:
    data = replace(toy_data(n_classes=len(names)), classes=tuple(names))
    stream = split(data, "class", classes=classes)
    assert tuple(name for task in stream for name in task.classes) == expected
    for task in stream:
        assert {data.classes[k] for k in data.y_train[task.train.rows].tolist()} == set(task.classes)


def test_an_order_by_label_or_name() -> None:
    data = replace(toy_data(n_classes=3), classes=("1", "2", "3"))
    for order in ([3, 1, 2], ["3", 1, "2"]):
        assert [task.classes for task in split(data, tasks=3, class_order=order)] == [("3",), ("1",), ("2",)]  # type: ignore[arg-type]


def test_seeds() -> None:
    data = toy_data(n_classes=6)
    orders = [[t.classes for t in split(data, class_order="random", tasks=3, seed=s)] for s in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert split(data, tasks=3).fingerprint == split(data, tasks=3).fingerprint
    assert split(data, tasks=3).fingerprint != split(data, tasks=2).fingerprint
    fixed = split(data, tasks=2, class_order=[5, 0, 1, 2, 3, 4])
    assert fixed[0].classes == ("5", "0", "1")


def test_permuted_pads_and_permutes_each_task_its_own_way() -> None:
    data = toy_data()
    stream = permuted(data, "domain", tasks=3)
    assert stream.spec.shape == (1, 12, 12) and stream.spec.n_out == 4
    index = torch.tensor([0, 1])
    assert len({tuple(t.train.batch(index).x[0].flatten().tolist()) for t in stream}) == 3
    assert stream[0].train.pixels is not None
    for t in range(3):
        part = stream[t].train
        padded = torch.nn.functional.pad(data.x_train[part.rows[index]], (2, 2, 2, 2)).flatten(1).float() / 255
        torch.testing.assert_close(part.batch(index).x.flatten(1), padded[:, stream[0].train.pixels[t]])
    # tasks mixed in one batch (joint training) see their own permutation
    both = Data.concat([stream[0].train, stream[2].train])
    mixed = both.batch(torch.tensor([1, len(stream[0].train) + 1])).x
    torch.testing.assert_close(mixed[0], stream[0].train.batch(torch.tensor([1])).x[0])
    torch.testing.assert_close(mixed[1], stream[2].train.batch(torch.tensor([1])).x[0])
    assert permuted(data, "task", tasks=3).spec.n_out == permuted(data, "class", tasks=3).spec.n_out == 12
    assert permuted(toy_data((12,)), pad=0, tasks=2).spec.shape == (12,)


def test_a_permutation_may_be_tested_on_some_of_the_samples() -> None:
    data = toy_data()
    whole, part = permuted(data, tasks=3, validation=0.2), permuted(data, tasks=3, validation=0.2, test_samples=5)
    assert [len(task.test) for task in part] == [5, 5, 5]
    for task, full in zip(part, whole, strict=True):  # the same permutations, and the first of the same (mixed) samples
        assert task.train.rows.tolist() == full.train.rows.tolist()
        assert task.test.rows.tolist() == full.test.rows[:5].tolist()
        assert torch.equal(task.test.batch(torch.arange(5)).x, full.test.batch(torch.arange(5)).x)
    assert len({tuple(task.test.rows.tolist()) for task in part}) == 3  # others for each permutation
    assert part.fingerprint != whole.fingerprint


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("alpha", [0.5, 100.0])
def test_dirichlet_deals_out_every_sample_once(scenario: str, alpha: float) -> None:
    data = toy_data(n_classes=5, n=20)
    stream = dirichlet(data, scenario, tasks=3, alpha=alpha, seed=1)
    rows = torch.cat([task.train.rows for task in stream])
    assert sorted(rows.tolist()) == list(range(len(data.y_train)))
    for task in stream:
        expected = data.y_train[task.train.rows] + (5 * task.index if scenario == "task" else 0)
        assert torch.equal(task.train.y, expected)
    if alpha == 100:  # almost equal shares
        assert max(len(t.train) for t in stream) < 1.5 * min(len(t.train) for t in stream)


def test_dirichlet_class_units_become_active_when_seen() -> None:
    stream = dirichlet(toy_data(n_classes=5, n=20), "class", tasks=3, alpha=0.3, seed=3)
    for seen in (1, 2, 3):
        active = set(stream.spec.active_table(seen)[0].nonzero().flatten().tolist())
        shown = {y for task in stream.tasks[:seen] for y in task.train.y.tolist()}
        assert shown <= active


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda d: split(d, tasks=3), ConfigError, "4 classes of 'toy' do not divide into 3 tasks"),
        (lambda d: split(d, tasks=0), ConfigError, "do not divide"),
        (lambda d: split(d, "clas", tasks=2), ConfigError, "unknown scenario 'clas'"),
        (lambda d: split(d, classes=[[0], [4]]), ConfigError, "class 4"),
        (lambda d: split(d, classes=[[0], [0, 1]]), ConfigError, "class 0"),
        (lambda d: split(d, classes=[[0], ["0"]]), ConfigError, "class 0 is unknown or named twice"),
        (
            lambda d: split(d, classes=[["cat"]]),
            ConfigError,
            r"class 'cat'.*by number, \[0, 1, 2, 3\], or by name, \['0',",
        ),
        (lambda d: split(replace(d, classes=tuple("1234")), classes=[[0]]), ConfigError, r"class 0 .*\[1, 2, 3, 4\]"),
        (lambda d: split(d, classes=[[0], []]), ConfigError, "without classes"),
        (lambda d: split(d, tasks=2, class_order="sorted"), ConfigError, "sorted"),
        (lambda d: split(d, tasks=2, class_order=[0, 1, 2]), ConfigError, "permutation"),
        (lambda d: split(d, tasks=2, class_order=[0, 1, 2, "2"]), ConfigError, "each of the 4 once, by number"),
        (lambda d: split(d, tasks=2, validation=1.0), ConfigError, "validation=1.0"),
        (lambda d: split(d, tasks=2, active_units="some"), ConfigError, "some"),
        (lambda d: permuted(d, tasks=0), ConfigError, "at least one task"),
        (lambda d: permuted(d, tasks=2, test_samples=0), ConfigError, "test_samples=0"),
        (lambda d: permuted(toy_data((12,))), ConfigError, "pad=0"),
        (lambda d: dirichlet(d, alpha=0), ConfigError, "alpha=0"),
        (lambda d: dirichlet(d, alpha=1e-9, tasks=8), ConfigError, "larger alpha"),
    ],
)
def test_bad_streams_get_one_clear_error(make: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make(toy_data())  # type: ignore[operator]


def test_an_empty_task_is_named() -> None:
    data = toy_data()
    keep = data.y_test != 2
    holed = Dataset("holed", data.x_train, data.y_train, data.x_test[keep], data.y_test[keep], data.classes)
    with pytest.raises(DataError, match=r"task 3 of split-holed \(classes 2\) has no test samples"):
        split(holed, tasks=4)


def test_digits() -> None:
    stream = split(load("digits"))
    assert len(stream) == 5 and stream.spec == Spec(
        (1, 8, 8), 5, 10, "class", ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9)), "seen"
    )
    assert sum(len(t.train) + len(t.test) for t in stream) == 1797


@pytest.mark.parametrize("seed", range(12))
def test_dirichlet_holds_something_out_in_every_task(seed: int) -> None:
    data = toy_data(n_classes=5, n=20)
    stream = dirichlet(data, "class", tasks=6, alpha=0.5, validation=0.2, seed=seed)
    assert all(len(task.train) and len(task.test) and task.valid is not None and len(task.valid) for task in stream)


@pytest.mark.parametrize("make", [split, permuted, dirichlet])
def test_a_seed_is_any_whole_number_of_0_or_more(make: Any) -> None:
    data, settings = toy_data(n_classes=4, n=30), {"tasks": 2}
    plain, numpy = (make(data, "class", seed=seed, **settings) for seed in (3, np.arange(4)[3]))
    assert plain.fingerprint == numpy.fingerprint
    for bad in (-1, 1.5, None):
        with pytest.raises(ConfigError, match=r"seed=.* whole number of 0 or more"):
            make(data, "class", seed=bad, **settings)
