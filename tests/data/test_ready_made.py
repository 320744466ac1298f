"""Streams of tasks that somebody else cut; stand-ins for other libraries here, the libraries themselves in tests/peers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import clteach
from clteach.data.tasks import Data, Stream
from clteach.errors import ConfigError, DataError
from clteach.training.learner_checks import toy_data

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 6, 6), dtype=np.uint8)
Y = np.arange(40) % 4
CUT = [[0, 2], [1, 3]]


def cut(x: Any = X, y: np.ndarray = Y, groups: Any = CUT) -> list[tuple[Any, Any]]:
    """Pairs (train, test) of (inputs, labels); every fifth sample is a test sample."""
    test = np.arange(len(y)) % 5 == 0
    parts = [[np.isin(y, group) & part for part in (~test, test)] for group in groups]
    return [((x[a], y[a]), (x[b], y[b])) for a, b in parts]


def samples(data: Data) -> tuple[list[Any], list[int], list[int]]:
    batch = data.batch(torch.arange(len(data)))
    return batch.x.tolist(), batch.y.tolist(), batch.task.tolist()


def same(one: Stream, other: Stream) -> bool:
    parts = [
        (getattr(a, part), getattr(b, part)) for a, b in zip(one, other, strict=True) for part in ("train", "test")
    ]
    return one.spec == other.spec and all(samples(a) == samples(b) for a, b in parts)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_what_split_would_have_cut_is_the_same_stream(scenario: str) -> None:
    test = np.arange(40) % 5 == 0
    whole = clteach.from_arrays(X[~test], Y[~test], X[test], Y[test])
    expected = clteach.split(whole, scenario, classes=CUT, validation=0.25)
    found = clteach.from_tasks(cut(), scenario, validation=0.25)
    assert same(found, expected)
    assert [samples(task.valid) for task in found] == [samples(task.valid) for task in expected]
    assert found.spec.classes == expected.spec.classes == (("0", "2"), ("1", "3"))


@pytest.mark.parametrize(
    ("scenario", "units"), [("class", ((0, 1), (0, 1))), ("domain", ((0, 1), (0, 1))), ("task", ((0, 1), (2, 3)))]
)
def test_the_same_classes_in_another_guise(scenario: str, units: tuple[Any, ...]) -> None:
    y = np.arange(40) % 2
    tasks = [((X[:20], y[:20]), (X[:4], y[:4])), ((255 - X[20:], y[20:]), (X[:4], y[:4]))]
    assert clteach.from_tasks(tasks, scenario).spec.units == units


def test_a_class_that_comes_back_keeps_its_unit_in_domain_il() -> None:
    y = np.array([0, 2] * 10 + [1, 2] * 10)
    tasks = [((X[a], y[a]), (X[a], y[a])) for a in (slice(20), slice(20, 40))]
    assert clteach.from_tasks(tasks, "domain").spec.units == ((0, 1), (2, 1))


def test_data_sets_of_pairs_and_of_triples_and_no_test_set() -> None:
    class Rows:
        classes = tuple("abcd")

        def __init__(self, rows: np.ndarray, triples: bool) -> None:
            self.rows, self.triples = rows, triples

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> Any:
            row = self.rows[index]
            return (X[row], Y[row], 7.0)[: 2 + self.triples]

    rows = [np.flatnonzero(np.isin(Y, group)) for group in CUT]
    for triples in (False, True):
        whole = [Rows(each, triples) for each in rows]
        stream = clteach.from_tasks(zip(whole, whole, strict=True))
        assert stream.spec.classes == (("a", "c"), ("b", "d"))
        assert sorted(samples(stream[0].test)[0]) == sorted((X[rows[0], None] / np.float32(255)).tolist())
        held = clteach.from_tasks([(each, None) for each in whole], test_share=0.2)
        assert [len(task.test) for task in held] == [4, 4] and [len(task.train) for task in held] == [16, 16]


def test_standardised_images_are_brought_back_channel_by_channel() -> None:
    x = RNG.random((40, 3, 5, 5), dtype=np.float32)
    x[0], x[2] = 0, 1  # both in the training part, so that the least and the greatest are known
    mean, deviation = np.array([0.1, 0.5, 0.9])[:, None, None], np.array([0.2, 0.3, 2.0])[:, None, None]
    made = ((x - mean) / deviation).astype(np.float32)
    tasks = [((made[Y == k], Y[Y == k]), (made[Y == k][:5], Y[Y == k][:5])) for k in (0, 2)]  # noqa: SIM300
    stream = clteach.from_tasks(tasks, standardised=True)
    found = stream[0].train.x[: len(made[Y == 0])].numpy()
    np.testing.assert_allclose(found, x[Y == 0], atol=1e-6)
    with pytest.raises(DataError, match="task 1 training inputs range from"):
        clteach.from_tasks(tasks)
    inside = clteach.from_tasks([((x, Y), (x, Y))], standardised=True)
    assert np.array_equal(inside[0].train.x[:40].numpy(), x)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_tasks_whose_data_come_later_change_nothing_of_the_first(scenario: str) -> None:
    groups = [[4, 1], [0, 3], [2, 5]]
    y = np.arange(40) % 6
    whole = clteach.from_tasks(cut(y=y, groups=groups), scenario)
    begun = clteach.from_tasks(cut(y=y, groups=groups)[:2], scenario, later=[[5, 2]])
    assert len(begun) == 2 and begun.spec == whole.spec and begun.spec.classes == whole.spec.classes
    assert all(samples(a.train) == samples(b.train) for a, b in zip(begun, whole.tasks[:2], strict=True))


def test_errors_name_the_task_and_what_to_do() -> None:
    good, other = cut()
    (x, y), test = other
    cases: list[tuple[Any, dict[str, Any], str]] = [
        ([], {}, "no tasks"),
        ([good, x], {}, r"task 2 is a ndarray: expected a pair \(train, test\)"),
        ([good, ((x, y[:-1]), test)], {}, "task 2 training inputs but"),
        (
            [good, ((x[:, :5], y), test)],
            {},
            r"task 2 training inputs are \(1, 5, 6\) uint8, those of task 1 \(1, 6, 6\)",
        ),
        ([good, ((x / 255, y), test)], {}, "task 2 training inputs are .* float32"),
        (
            [good, ((x, y), (X, Y + 1))],
            {},
            "test label 4 at position 3 has no training",
        ),
        (cut(X.reshape(40, -1)), {"later": [[4]]}, "later= with feature vectors"),
        ([good], {"classes": ["a", "b"]}, r"task 1 training label 2 at position 0 is out of range"),
    ]
    for tasks, settings, words in cases:
        with pytest.raises((DataError, ConfigError), match=words):
            clteach.from_tasks(tasks, **settings)
    with pytest.raises(ConfigError, match="unknown scenario"):
        clteach.from_tasks([good], "blurred")


def test_the_caller_may_go_on_writing() -> None:
    x = X.copy()
    stream = clteach.from_tasks([((x, Y), (x, Y))])
    before = stream[0].train.x.clone()
    x[:] = 0
    assert torch.equal(stream[0].train.x, before)


def test_stand_ins_of_avalanche_and_continuum() -> None:
    sets = [
        torch.utils.data.TensorDataset(torch.from_numpy(x)[:, None] / 255, torch.from_numpy(y)) for (x, y), _ in cut()
    ]
    experiences = [SimpleNamespace(dataset=each) for each in sets]
    benchmark = SimpleNamespace(train_stream=experiences, test_stream=experiences)
    stream = clteach.from_avalanche(benchmark, "task")
    assert stream.spec.units == ((0, 1), (2, 3)) and stream.name == "avalanche benchmark"
    assert same(stream, clteach.from_continuum(sets, sets, "task")) and len(clteach.from_continuum(sets)[0].test) == 4
    with pytest.raises(DataError, match="SimpleNamespace without experiences in its test_stream"):
        clteach.from_avalanche(SimpleNamespace(train_stream=experiences))
    with pytest.raises(ConfigError, match="3 tasks of training data but 2"):
        clteach.from_continuum([*sets, sets[0]], sets)
    with pytest.raises(DataError, match=r"clteach\.from_avalanche\(benchmark\)"):
        clteach.from_arrays(benchmark)


def test_a_learner_trains_on_it() -> None:
    data = toy_data()
    tasks = [((data.x_train[data.y_train // 2 == t], data.y_train[data.y_train // 2 == t]), None) for t in range(2)]
    run = clteach.train("er", clteach.from_tasks(tasks), steps=20, batch_size=8, hidden=(8,), device="cpu")
    assert run.learner.classify(data.x_train[:3]).units == ("0", "1", "2", "3")
