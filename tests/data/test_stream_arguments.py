"""The arguments of streams: converted once, and refused by name where they cannot work."""

from __future__ import annotations

import dataclasses
import json
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach.data.streams import dirichlet, make_stream, permuted, split, stream_settings
from clteach.errors import ConfigError
from clteach.training.learner_checks import toy_data


@pytest.mark.parametrize(
    ("make", "usual", "odd"),
    [
        (split, {"tasks": 2}, {"tasks": "2"}),
        (split, {"tasks": 2, "validation": 0.25}, {"tasks": 2.0, "validation": np.float64(0.25)}),
        (split, {"classes": [[0, 1], [2]]}, {"classes": (np.array([0, 1]), torch.tensor([2]))}),
        (split, {"tasks": 2, "class_order": [3, 1, 0, 2]}, {"tasks": 2, "class_order": np.array([3, 1, 0, 2])}),
        (permuted, {"tasks": 2, "pad": 1}, {"tasks": np.int8(2), "pad": 1.0}),
        (permuted, {"tasks": 2, "test_samples": 5, "seed": 3}, {"tasks": 2, "test_samples": "5", "seed": 3.0}),
        (dirichlet, {"tasks": 2, "alpha": 2.0}, {"tasks": torch.tensor(2), "alpha": "2"}),
    ],
)
def test_arguments_are_converted(make: Any, usual: dict[str, Any], odd: dict[str, Any]) -> None:
    assert make(toy_data(), "class", **odd).fingerprint == make(toy_data(), "class", **usual).fingerprint


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (
            split,
            {"classes": [0, 1, 2]},
            r"classes=\[0, 1, 2\]: expected the classes of each task, such as \[\[0, 1, 2\], ",
        ),
        (split, {"classes": "0,1"}, "classes='0,1': expected the classes of each task"),
        (split, {"tasks": 2.5}, r"tasks=2\.5: expected a whole number, or None"),
        (split, {"tasks": 2, "class_order": 5}, "class_order=5: expected 'natural', 'random' or a list of classes"),
        (split, {"tasks": 2, "validation": float("nan")}, "validation=nan: expected a finite number"),
        (split, {"tasks": 2, "seed": 0.5}, r"seed=0\.5: expected a whole number of 0 or more"),
        (permuted, {"tasks": 10**9}, "tasks=1000000000.*at least one task and at most 10,000"),
        (permuted, {"tasks": 2, "pad": 10**6}, "pad=1000000.*a padding of 0 to 100"),
        (permuted, {"tasks": 2, "pad": None}, "pad=None: expected a whole number"),
        (dirichlet, {"alpha": float("inf")}, "alpha=inf"),
        (dirichlet, {"tasks": "many"}, "tasks='many'"),
    ],
)
def test_arguments_that_cannot_work_are_named(make: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(toy_data(), "class", **arguments)


def test_a_stream_by_name_knows_its_arguments() -> None:
    odd = {"tasks": np.int64(2), "validation": 0, "weights": Path("some.safetensors")}
    plain = stream_settings("split-digits", odd)
    assert json.dumps(plain) == '{"tasks": 2, "validation": 0.0, "weights": "some.safetensors"}'
    assert list(plain) == list(odd)
    with pytest.raises(ConfigError, match=r"unknown setting of split-streams 'taks'\. Did you mean 'tasks'\?"):
        make_stream("split-digits", taks=2)
    with pytest.raises(ConfigError, match="unknown setting of permuted-streams 'classes'"):
        stream_settings("permuted-digits", {"classes": [[0], [1]]})
    with pytest.raises(ConfigError, match="unknown setting of dirichlet-streams 'dataset'"):
        stream_settings("dirichlet-digits", {"dataset": toy_data()})
    with pytest.raises(ConfigError, match="unknown stream 'cut-digits'"):
        stream_settings("cut-digits", {})
    with pytest.raises(ConfigError, match="tasks='x'"):
        make_stream("split-digits", tasks="x")


@pytest.mark.parametrize(("n", "tasks", "words"), [(60, 100, "each of 1000 draws"), (2000, 3000, "each of 833 draws")])
def test_a_search_that_cannot_succeed_ends_soon(n: int, tasks: int, words: str) -> None:
    """4 classes have enough samples for so many tasks, but hardly ever fall into so many parts."""
    data = toy_data((1,), n=n)
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=f"with {tasks} tasks leaves a task of 'toy' .* in {words}"):
        dirichlet(data, tasks=tasks, alpha=0.5)
    assert time.perf_counter() - started < 20  # about 1 s here


@pytest.mark.parametrize(
    ("tasks", "validation", "words"),
    [
        (17, 0.0, "17 training and 16 test samples, and every task needs at least 1 and 1 .* Choose at most 16 tasks"),
        (16, 0.0, "each of 1000 draws"),  # as many as there are: it tries
        (9, 0.5, "17 training and 16 test samples, and every task needs at least 2 and 1 .* Choose at most 8 tasks"),
        (8, 0.5, "each of 1000 draws"),
    ],
)
def test_more_tasks_than_samples_are_refused_at_once(tasks: int, validation: float, words: str) -> None:
    data = toy_data((4,), n=8)  # 32 training and 16 test samples
    kept = torch.tensor([*range(14), 16, 24, 25])  # of every class at least one
    data = dataclasses.replace(data, x_train=data.x_train[kept], y_train=data.y_train[kept])
    with pytest.raises(ConfigError, match=words):
        dirichlet(data, tasks=tasks, validation=validation)


@pytest.mark.parametrize("seed", range(4))
def test_a_draw_is_dealt_as_it_was_counted(seed: int) -> None:
    """The definition, sample by sample: class c is cut where the tasks' shares of it add up to."""
    data, tasks, alpha, validation = toy_data(n_classes=5, n=20), 6, 0.5, 0.2
    rng = np.random.default_rng(seed)

    def dealt(labels: torch.Tensor, shares: np.ndarray) -> list[list[list[int]]]:
        groups: list[list[list[int]]] = [[] for _ in range(tasks)]
        for c in range(5):
            rows = (labels == c).nonzero().flatten().tolist()
            ends = [round(float(end) * len(rows)) for end in np.cumsum(shares[c])[:-1]]
            for t, (start, end) in enumerate(zip([0, *ends], [*ends, len(rows)], strict=True)):
                groups[t].append(rows[start:end])
        return groups

    while True:
        shares = rng.dirichlet(np.full(tasks, alpha / tasks), size=5)
        train, test = dealt(data.y_train, shares), dealt(data.y_test, shares)
        held = [sum(round(validation * len(rows)) for rows in task) for task in train]
        total = [sum(map(len, task)) for task in train]
        if all(0 < h < n for h, n in zip(held, total, strict=True)) and all(sum(map(len, task)) for task in test):
            break
    stream = dirichlet(data, tasks=tasks, alpha=alpha, validation=validation, seed=seed)
    for t, task in enumerate(stream):
        assert task.valid is not None and len(task.valid) == held[t]
        assert sorted([*task.train.rows.tolist(), *task.valid.rows.tolist()]) == sorted(chain.from_iterable(train[t]))
        assert sorted(task.test.rows.tolist()) == sorted(chain.from_iterable(test[t]))
