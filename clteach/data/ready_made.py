"""Sequences of tasks that somebody else cut, as a `Stream`: pairs of data sets, benchmarks of avalanche and continuum.

As in `items`, everything is told by its behaviour; no library is imported.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from clteach.data.dataset import Encoding
from clteach.data.inputs import check_bright
from clteach.data.items import class_names, is_array
from clteach.data.labels import distinct, encode_labels, shown, unseen_label
from clteach.data.own_data import as_numbers, assembled, hold_out, inputs_and_labels, random_states_kept
from clteach.data.streams import stream_of
from clteach.data.tasks import Spec, Stream
from clteach.errors import ConfigError, DataError
from clteach.seeding import whole_seed


class _Part(NamedTuple):
    """Inputs of a task's training or test part, and their labels."""

    x: np.ndarray
    labels: list[Hashable]


@random_states_kept()
def from_tasks(
    tasks: Iterable[tuple[Any, Any]],
    scenario: str = "class",
    *,
    name: str = "own tasks",
    classes: Sequence[str] | None = None,
    later: Sequence[Sequence[Any]] = (),
    test_share: float = 0.2,
    validation: float = 0.0,
    active_units: str = "seen",
    seed: int = 0,
    channels: str | None = None,
    largest: float | None = None,
    columns: Sequence[str] | None = None,
    standardised: bool = False,
) -> Stream:
    """Make a stream of tasks that are cut already.

    A label means one class wherever it appears. In Domain-IL the k-th class of every task shares output unit k; where
    a class comes in several tasks (the same classes in another guise), every class has its own unit instead.

    Args:
        tasks: For each task the pair (train, test). Each of the two is a data set as `from_arrays` takes it, whose items
            may have the task in third place, or a tuple (inputs, labels). A test of None holds out a ``test_share`` of the
            task.
        scenario: "task", "domain" or "class".
        name: Name of the stream.
        classes: Class names; labels are then names among them, or integers in 0..len(classes)-1. None: those that the
            first data set brings, or else the labels themselves.
        later: The classes of each task whose data come later, as they will be labelled: a learner built for this stream
            can go on with the whole stream, ``train(run, whole, first=len(tasks))``, bit-equal to having had all tasks from
            the start.
        test_share: Share held out where a task has no test data, between 0 and 1.
        validation, active_units: as in `split`.
        seed: Seed of what is held out and of the order of the samples.
        channels, largest, columns: as in `from_arrays`.
        standardised: Images may have any finite values, such as those minus mean by standard deviation: each channel is
            scaled to [0, 1] by its least and greatest training value, where one lies outside (test values are clipped). What
            `Learner.classify` is asked must lie in [0, 1] already.

    Returns:
        The stream; its tasks share one array of inputs, which are copied.

    Raises:
        DataError: Data that cannot be used; the message names the task.
        ConfigError: No tasks, or settings that cannot work.
    """
    seed, test_share, largest = as_numbers(seed, test_share, largest)
    train: list[_Part] = []
    test: list[_Part] = []
    names: Sequence[str] | None = classes
    if not hasattr(tasks, "__iter__") or isinstance(tasks, (str, Mapping)):
        raise DataError(
            f"the tasks are a {type(tasks).__name__}: expected a list of pairs; pass [(train, test), ...], and where there "
            "is no test data [(train, None), ...]"
        )
    if wrong := [task for task in later if isinstance(task, str) or not hasattr(task, "__len__") or not len(task)]:
        raise ConfigError(
            f"later has {wrong[0]!r} for a task: expected the classes of each task to come, such as later=[[4, 5], [6]]."
        )
    for t, task in enumerate(tasks):
        if not isinstance(task, (tuple, list)) or len(task) != 2 or is_array(task[0]):
            inside = ", ".join(type(part).__name__ for part in task) if isinstance(task, (tuple, list)) else ""
            raise DataError(
                f"task {t + 1} is a {type(task).__name__}{f' of {len(task)} ({inside})' if inside else ''}: expected a pair "
                "(train, test); pass ((x, y), (x_test, y_test)), or ((x, y), None) where a task has no test data"
            )
        if t == 0 and names is None and not _is_apart(task[0]):
            names = class_names(task[0], columns)
        kept = _read(task[0], f"task {t + 1} training", channels, largest, columns, standardised)
        if task[1] is None:
            kept, held = _held_out(kept, test_share, seed)
        else:
            held = _read(task[1], f"task {t + 1} test", channels, largest, columns, standardised)
        for part, of in ((kept, "training"), (held, "test")):
            first = train[0] if train else kept
            if part.x.shape[1:] != first.x.shape[1:] or part.x.dtype != first.x.dtype:
                raise DataError(
                    f"task {t + 1} {of} inputs are {part.x.shape[1:]} {part.x.dtype}, those of task 1 {first.x.shape[1:]} "
                    f"{first.x.dtype}: expected one shape and one type for all tasks; convert or resize them"
                )
        train.append(kept)
        test.append(held)
    if not train:
        raise ConfigError("from_tasks got no tasks: expected at least one pair (train, test).")
    scaled = train[0].x.ndim == 2 or (standardised and _bring_back(train, test))
    if later and scaled:
        raise ConfigError(
            "later= with feature vectors or standardised images: their scale is the range of all training data, those to "
            "come among them. Expected images in [0, 1]; vectors in [0, 1] can be passed as images (N, 1, 1, D)."
        )
    labels = [label for part in train for label in part.labels]
    if names is None:
        values: Sequence[Any] = distinct([*labels, *(label for task in later for label in task)])
    else:
        values = list(names) if all(isinstance(label, str) for label in labels) else range(len(names))
    y_train, y_test = (
        [
            encode_labels(part.labels, values, f"task {t + 1} {of}", given=names is not None)
            for t, part in enumerate(parts)
        ]
        for parts, of in ((train, "training"), (test, "test"))
    )
    announced = [sorted({*encode_labels(list(task), values, "later", names is not None).tolist()}) for task in later]
    groups = [sorted({*a.tolist(), *b.tolist()}) for a, b in zip(y_train, y_test, strict=True)]
    titles = [shown(value) for value in (values if names is None else names)]
    x_parts = [np.concatenate([part.x for part in parts]) for parts in (train, test)]
    del train, test, kept, held, first, part, task  # no third copy of the inputs
    if largest is None and x_parts[0].ndim == 4 and not scaled:
        check_bright(x_parts[0])
    # Classes that are only announced have no samples yet, so the data set does not know them.
    known = np.unique(np.concatenate(y_train))
    dataset = assembled(
        name,
        x_parts,
        [_positions(np.concatenate(y_train), known, values), _positions(np.concatenate(y_test), known, values)],
        [values[k] for k in known],
        [titles[k] for k in known],
        Encoding(channels, largest),
        stacklevel=4,
    )
    units = _units([*groups, *announced], scenario)
    n_out = 1 + max(unit for row in units for unit in row)
    spec = Spec(dataset.shape, len(units), n_out, scenario, units, active_units)
    rows_train, rows_test = (_rows(y, groups) for y in (y_train, y_test))
    of_dataset = [np.searchsorted(known, group).tolist() for group in groups]
    rng = np.random.default_rng(whole_seed(seed))
    stream = stream_of(name, dataset, spec, of_dataset, rows_train, rows_test, validation, rng)
    promised = tuple(tuple(titles[c] for c in group) for group in announced)
    return replace(stream, spec=replace(stream.spec, classes=(*stream.spec.classes, *promised)))


def from_avalanche(benchmark: Any, scenario: str = "class", **settings: Any) -> Stream:
    """Make a stream of an avalanche benchmark: what has a ``train_stream`` and a ``test_stream`` of experiences.

    The images are what the benchmark's transforms make of them; standardised ones are brought back to [0, 1].

    Args:
        benchmark: The benchmark.
        scenario: "task", "domain" or "class".
        **settings: As in `from_tasks`.

    Raises:
        DataError, ConfigError: As `from_tasks`; or something else than a benchmark.
    """
    train, test = (_experiences(benchmark, part) for part in ("train_stream", "test_stream"))
    tasks = [(one.dataset, other.dataset) for one, other in zip(train, test, strict=True)]
    return from_tasks(tasks, scenario, **{"name": "avalanche benchmark", "standardised": True, **settings})


def from_continuum(scenarios: Any, test: Any = None, scenario: str = "class", **settings: Any) -> Stream:
    """Make a stream of a continuum scenario: what gives its tasks one after the other.

    The images are what the scenario's transforms make of them; standardised ones are brought back to [0, 1].

    Args:
        scenarios: The scenario with the training data.
        test: The same scenario of the test data (``train=False``); None holds out a share of every task.
        scenario: "task", "domain" or "class".
        **settings: As in `from_tasks`.

    Raises:
        DataError, ConfigError: As `from_tasks`; or scenarios of different length.
    """
    if any(
        isinstance(each, str) or not hasattr(each, "__iter__") for each in (scenarios, () if test is None else test)
    ):
        given = f"{type(scenarios).__name__} and {type(test).__name__}"
        raise DataError(
            f"the scenarios are {given}: expected continuum's of the training and the test data; pass "
            "from_continuum(train_scenario, test_scenario), and what to learn by name, scenario='class'"
        )
    train = list(scenarios)
    held = [None] * len(train) if test is None else list(test)
    if len(held) != len(train):
        raise ConfigError(
            f"{len(train)} tasks of training data but {len(held)} of test data: expected the same number."
        )
    tasks = list(zip(train, held, strict=True))
    return from_tasks(tasks, scenario, **{"name": "continuum scenario", "standardised": True, **settings})


def _units(groups: Sequence[Sequence[int]], scenario: str) -> tuple[tuple[int, ...], ...]:
    """The output units of every task's classes: in the order in which the classes appear, a head per task, or shared."""
    if scenario == "task":
        starts = [0, *accumulate(len(group) for group in groups)]
        return tuple(tuple(range(a, b)) for a, b in pairwise(starts))
    classes = [c for group in groups for c in group]
    if scenario == "domain" and len(set(classes)) == len(classes):
        return tuple(tuple(range(len(group))) for group in groups)
    unit = {c: k for k, c in enumerate(dict.fromkeys(classes))}
    return tuple(tuple(unit[c] for c in group) for group in groups)


def _rows(y: Sequence[np.ndarray], groups: Sequence[Sequence[int]]) -> list[list[Tensor]]:
    """For every task and each of its classes the rows in the arrays of all tasks one after the other."""
    starts = accumulate((len(labels) for labels in y), initial=0)
    return [
        [torch.from_numpy(np.flatnonzero(labels == c) + start) for c in group]
        for labels, start, group in zip(y, starts, groups, strict=False)
    ]


def _is_apart(part: Any) -> bool:
    """Is it a tuple (inputs, labels), and not a data set of two pairs?"""
    return isinstance(part, tuple) and len(part) == 2 and not isinstance(part[0], tuple)


def _read(part: Any, of: str, channels: str | None, largest: float | None, columns: Any, standardised: bool) -> _Part:
    """Inputs and labels of a data set, of one whose items name the task in third place, or of a tuple (inputs, labels)."""
    if not _is_apart(part) and not is_array(part) and hasattr(part, "__len__") and len(part) and _is_triple(part[0]):
        items = [part[index] for index in range(len(part))]
        part = [item[0] for item in items], [item[1] for item in items]
    x, y = part if _is_apart(part) else (part, None)
    return _Part(*inputs_and_labels(x, y, of, channels, largest, columns, bounded=not standardised))


def _is_triple(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 3


def _held_out(part: _Part, share: float, seed: int) -> tuple[_Part, _Part]:
    values = distinct(part.labels)
    kept, held = hold_out(encode_labels(part.labels, values, "training", given=False), share, seed, values)
    first, second = (_Part(part.x[rows], [part.labels[i] for i in rows]) for rows in (kept, held))
    return first, second


def _bring_back(train: list[_Part], test: list[_Part]) -> bool:
    """Scale float images to [0, 1], each channel by its least and greatest training value, if one lies outside: does it?"""
    if train[0].x.dtype != np.float32 or train[0].x.ndim != 4:
        return False
    low, high = (
        getattr(np, end)([getattr(part.x, end)(axis=(0, 2, 3)) for part in train], axis=0) for end in ("min", "max")
    )
    if low.min() >= 0 and high.max() <= 1:
        return False
    low, span = low[:, None, None], np.where(high > low, high - low, 1)[:, None, None]
    for parts in (train, test):
        parts[:] = [part._replace(x=((part.x - low) / span).clip(0, 1)) for part in parts]
    return True


def _positions(y: np.ndarray, known: np.ndarray, values: Sequence[Any]) -> np.ndarray:
    """Positions among all values as positions among the known ones.

    Raises:
        DataError: A class without a training sample.
    """
    at = np.isin(y, known).argmin()
    if y[at] not in known:
        raise DataError(unseen_label(values[y[at]], int(at)))
    return np.searchsorted(known, y)


def _experiences(benchmark: Any, part: str) -> list[Any]:
    found = list(getattr(benchmark, part, ()))
    if not found or not all(hasattr(experience, "dataset") for experience in found):
        raise DataError(
            f"a {type(benchmark).__name__} without experiences in its {part}: expected a benchmark with train_stream and "
            "test_stream; else pass pairs (train, test) to clteach.from_tasks"
        )
    return found
