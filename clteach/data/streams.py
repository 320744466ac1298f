r"""Streams of tasks: one data set cut into the sequence that a continual learner sees.

Four ways to cut: by class (`split`), one permutation of the pixels per task (`permuted`), by random shares (`dirichlet`),
by class without borders (`faded`); and `make_stream`, which makes any of them by name.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.catalogue import NAMES, as_dataset, data_folder, load
from clteach.data.dataset import Dataset
from clteach.data.tasks import SCENARIOS, Data, Spec, Stream, Task
from clteach.errors import ConfigError, DataError, unknown
from clteach.seeding import whole_seed
from clteach.settings import SEED, arguments, converted

EXPECTED = {
    "seed": SEED,
    "classes": "the classes of each task, such as [[0, 1, 2], [7], [3, 4]]",
    "class_order": "'natural', 'random' or a list of classes",
}
"""What an error says of arguments whose annotations do not say enough."""
MOST_TASKS, MOST_PADDING = 10_000, 100
"""Of permuted streams: every task keeps a permutation of all pixels."""


@converted(**EXPECTED)
def split(
    dataset: Dataset,
    scenario: str = "class",
    *,
    tasks: int | None = None,
    classes: Sequence[Sequence[int | str]] | None = None,
    first: int | None = None,
    then: int | None = None,
    class_order: str | Sequence[int | str] = "natural",
    validation: float = 0.0,
    active_units: str = "seen",
    seed: int = 0,
) -> Stream:
    """Cut a data set by class: task 1 holds the first classes, task 2 the next ones, and so on.

    Args:
        dataset: the data.
        scenario: "task", "domain" or "class".
        tasks: number of tasks; the number of classes must divide by it. Default: 5, or as the next three say.
        classes: instead of `tasks`, the classes of each task, e.g. ``[[0, 1, 2], [7], [3, 4]]``. Text is a class's name
            (`Dataset.classes`). A number is its place among the classes, counted from 0; but where all names are whole
            numbers it is the name too, so that of labels 1 to 6 the class 1 is the first one.
        first: instead of `tasks`, the number of classes of task 1 (PyCIL's ``init_cls``); None: as many as `then`.
        then: the number of classes of every later task (PyCIL's ``increment``); the last one gets what is left.
        class_order: "natural", "random" (drawn from `seed`) or a permutation of the classes, written as in `classes`. Not
            with `classes`.
        validation: share of each class's training samples held out in ``task.valid``, in [0, 1).
        active_units: see `Spec`.
        seed: seed of the class order and of the validation split.

    Raises:
        ConfigError: the classes do not divide, a class appears twice or does not exist.
        DataError: a task has no training or test samples.
    """
    dataset = _to_cut(dataset)
    n_classes = dataset.n_classes
    rng = np.random.default_rng(whole_seed(seed))
    if classes is None:
        sizes = class_counts(n_classes, tasks, first, then, dataset.name)
        order = _class_order(class_order, dataset, rng)
        groups = [list(group) for group in np.split(np.asarray(order), np.cumsum(sizes)[:-1])]
        n_tasks = len(groups)
    else:
        if first is not None or then is not None or tasks not in (None, len(classes)):
            others = {"tasks": tasks, "first": first, "then": then}
            given = ", ".join(f"{key}={value}" for key, value in others.items() if value is not None)
            raise ConfigError(
                f"the classes of {len(classes)} tasks beside {given}: expected only one of them to say which classes the "
                "tasks have. Leave the other out."
            )
        place = _places(dataset)
        groups = [[place.get(c, -1) for c in group] for group in classes]
        flat = [c for group in groups for c in group]
        wrong = [c for c, at in zip(chain(*classes), flat, strict=True) if at < 0 or flat.count(at) > 1]
        if wrong or not groups or not all(groups):
            what = f"class {wrong[0]!r} is unknown or named twice" if wrong else "a task without classes"
            raise ConfigError(
                f"classes={[*map(list, classes)]}: {what}. Expected groups of different classes, {_written(dataset)}."
            )
        n_tasks = len(groups)

    units: list[tuple[int, ...]] = []
    for group in groups:
        start = 0 if scenario == "domain" or not units else units[-1][-1] + 1
        units.append(tuple(range(start, start + len(group))))
    n_out = 1 + max(u[-1] for u in units)
    spec = Spec(dataset.shape, n_tasks, n_out, scenario, tuple(units), active_units, dataset.encoded_from)

    def rows_of(labels: Tensor) -> list[list[Tensor]]:
        return [[(labels == c).nonzero().flatten() for c in group] for group in groups]

    train, test = rows_of(dataset.y_train), rows_of(dataset.y_test)
    return stream_of(f"split-{dataset.name}", dataset, spec, groups, train, test, validation, rng)


def class_counts(
    n_classes: int, tasks: int | None = None, first: int | None = None, then: int | None = None, name: str = ""
) -> list[int]:
    """How many classes each task has: as many in each of `tasks`, or `first` and `then` as many as `then` again and again.

    Args:
        n_classes: number of classes.
        tasks, first, then: as in `split`; all None: 5 tasks.
        name: of the data set, for the errors.

    Raises:
        ConfigError: the classes do not divide, or there are too few.
    """
    if first is None and then is None:
        n_tasks = 5 if tasks is None else tasks
        if n_tasks < 1 or n_classes % n_tasks:
            dividing = [n for n in range(1, n_classes + 1) if n_classes % n == 0]
            raise ConfigError(
                f"{n_classes} classes of {name!r} do not divide into {n_tasks} tasks. Choose a number of tasks out of "
                f"{', '.join(map(str, dividing))}, or set the classes of each task (classes), or the number of classes of "
                "the first and of every later task (first, then)."
            )
        return [n_classes // n_tasks] * n_tasks
    start = then if first is None else first
    if start is None or start < 1 or start > n_classes or (then is None and start < n_classes) or (then or 1) < 1:
        raise ConfigError(
            f"first={first}, then={then}: expected numbers of classes, of the first task and of every later one, that "
            f"{name!r} has ({n_classes} classes in all). Set both; without first, all tasks have as many as then."
        )
    sizes = [start]
    while (left := n_classes - sum(sizes)) > 0:
        sizes.append(min(then or left, left))
    if tasks not in (None, len(sizes)):
        raise ConfigError(
            f"tasks={tasks}, but first={first} and then={then} make {len(sizes)} tasks of {n_classes} classes. Leave tasks "
            "out."
        )
    return sizes


@converted(**EXPECTED)
def permuted(
    dataset: Dataset,
    scenario: str = "domain",
    *,
    tasks: int = 10,
    pad: int = 2,
    test_samples: int | None = None,
    validation: float = 0.0,
    active_units: str = "seen",
    seed: int = 0,
) -> Stream:
    """The same classes in every task, seen through another fixed random permutation of the pixels.

    Args:
        dataset: images; feature vectors work with ``pad=0``.
        scenario: "task" (a head per permutation), "domain" (one head) or "class" (n_classes * tasks units).
        tasks: number of permutations.
        pad: zero pixels added on every side first (the papers: 2, so 28 x 28 becomes 32 x 32 = 1024 pixels).
        test_samples: random test samples for each permutation; None: all of them. Every task is tested after every task, so
            of a long stream the tests take longer than the training.
        validation, active_units, seed: as in `split`; `seed` draws the permutations.

    Raises:
        ConfigError: fewer than one task or test sample, padding of feature vectors, or features that an extractor made.
    """
    dataset = _to_cut(dataset)
    if dataset.encoded_from is not None:
        raise ConfigError(
            f"permuted {dataset.name!r}: the inputs are features, and to permute them is not to permute the pixels. "
            "Use split or dirichlet, or a method that has an extractor of its own (brain-inspired-replay)."
        )
    if not 1 <= tasks <= MOST_TASKS or not 0 <= pad <= MOST_PADDING:
        raise ConfigError(
            f"tasks={tasks}, pad={pad}: expected at least one task and at most {MOST_TASKS:,}, and a padding of 0 to "
            f"{MOST_PADDING} pixels."
        )
    if test_samples is not None and test_samples < 1:
        raise ConfigError(
            f"test_samples={test_samples}: expected at least one per permutation, or None for all of them."
        )
    if pad and len(dataset.shape) != 3:
        raise ConfigError(f"cannot pad inputs of shape {dataset.shape}: only images have borders. Use pad=0.")
    if pad:
        padding = (pad, pad, pad, pad)
        dataset = replace(dataset, x_train=F.pad(dataset.x_train, padding), x_test=F.pad(dataset.x_test, padding))
    rng = np.random.default_rng(whole_seed(seed))
    n_pixels = int(np.prod(dataset.shape))
    pixels = torch.from_numpy(np.stack([rng.permutation(n_pixels) for _ in range(tasks)]))
    n = dataset.n_classes
    units = tuple(tuple(range(n)) if scenario == "domain" else tuple(range(t * n, (t + 1) * n)) for t in range(tasks))
    spec = Spec(dataset.shape, tasks, units[-1][-1] + 1, scenario, units, active_units)
    groups = [list(range(n))] * tasks
    train = [[(dataset.y_train == c).nonzero().flatten() for c in range(n)]] * tasks
    test = [[(dataset.y_test == c).nonzero().flatten() for c in range(n)]] * tasks
    return stream_of(
        f"permuted-{dataset.name}", dataset, spec, groups, train, test, validation, rng, pixels, test_samples
    )


@converted(**EXPECTED)
def dirichlet(
    dataset: Dataset,
    scenario: str = "class",
    *,
    tasks: int = 10,
    alpha: float = 1.0,
    validation: float = 0.0,
    active_units: str = "seen",
    seed: int = 0,
) -> Stream:
    r"""Spread every class over the tasks with random shares (Deja et al. 2022): no clean borders between tasks.

    For every class c the shares of the tasks are drawn once, p_c ~ Dir(alpha / T, ..., alpha / T), and its training and
    test samples are dealt out by them; every sample is used exactly once. Draws that leave a task without training, test or
    (if asked for) validation samples are repeated. Small alpha: almost a class split; large alpha: almost equal tasks.

    Args:
        dataset: the data.
        scenario: "task" (a head of all classes per task), "domain" (one head) or "class" (one unit per class; a class is
            active once a task has shown it).
        tasks: number of tasks T.
        alpha: concentration, > 0.
        validation, active_units, seed: as in `split`.

    Raises:
        ConfigError: alpha or tasks out of range, fewer samples than tasks, or no draw gave every task samples.
    """
    if tasks < 1 or not alpha > 0:
        raise ConfigError(f"tasks={tasks}, alpha={alpha}: expected at least one task and alpha > 0.")
    dataset = _to_cut(dataset)
    rng = np.random.default_rng(whole_seed(seed))
    n = dataset.n_classes
    holds_out = 0 < validation < 1  # otherwise nothing is held out, or `stream_of` refuses
    least = 2 if holds_out else 1  # training samples of a task
    most = min(len(dataset.y_train) // least, len(dataset.y_test))
    if tasks > most:
        raise ConfigError(
            f"tasks={tasks}: {dataset.name!r} has {len(dataset.y_train)} training and {len(dataset.y_test)} test samples, "
            f"and every task needs at least {least} and 1 of them. Choose at most {most} tasks."
        )

    def cuts(labels: Tensor, shares: np.ndarray) -> np.ndarray:
        """(n, tasks + 1): the samples of class c that task t gets are those from [c, t] to [c, t + 1]."""
        sizes = torch.bincount(labels, minlength=n).numpy()[:, None]
        inner = np.round(np.cumsum(shares, 1)[:, :-1] * sizes).astype(int)
        return np.hstack([np.zeros_like(sizes), inner, sizes])

    def enough(train: np.ndarray, test: np.ndarray) -> bool:
        """Has every task training and test samples, and held-out ones if any are asked for? Counts (n, tasks) of each."""
        total, held = train.sum(0), np.round(validation * train).sum(0) if holds_out else None
        fits = total > 0 if held is None else (held > 0) & (held < total)
        return bool(fits.all() and test.sum(0).all())

    def deal(labels: Tensor, cuts: np.ndarray) -> list[list[Tensor]]:
        of_class = [(labels == c).nonzero().flatten() for c in range(n)]
        return [[rows[cuts[c, t] : cuts[c, t + 1]] for c, rows in enumerate(of_class)] for t in range(tasks)]

    # A draw is only counted, and many tasks have fewer draws: a search that cannot succeed must not take minutes.
    draws = max(1, min(1000, 10**7 // (n * tasks)))
    for _ in range(draws):
        shares = rng.dirichlet(np.full(tasks, alpha / tasks), size=n)  # (classes, tasks)
        train_cuts, test_cuts = cuts(dataset.y_train, shares), cuts(dataset.y_test, shares)
        if enough(np.diff(train_cuts), np.diff(test_cuts)):
            break
    else:
        raise ConfigError(
            f"alpha={alpha} with {tasks} tasks leaves a task of {dataset.name!r} without training, test or validation "
            f"samples in each of {draws} draws. Choose a larger alpha or fewer tasks."
        )
    train, test = deal(dataset.y_train, train_cuts), deal(dataset.y_test, test_cuts)
    present = [[c for c in range(n) if len(train[t][c]) or len(test[t][c])] for t in range(tasks)]
    if scenario == "class":
        groups, units = present, tuple(tuple(group) for group in present)
    else:
        groups = [list(range(n))] * tasks
        units = tuple(tuple(range(t * n, (t + 1) * n) if scenario == "task" else range(n)) for t in range(tasks))
    n_out = n * tasks if scenario == "task" else n
    spec = Spec(dataset.shape, tasks, n_out, scenario, units, active_units, dataset.encoded_from)
    train = [[train[t][c] for c in groups[t]] for t in range(tasks)]
    test = [[test[t][c] for c in groups[t]] for t in range(tasks)]
    return stream_of(f"dirichlet-{dataset.name}", dataset, spec, groups, train, test, validation, rng)


@converted(**EXPECTED)
def faded(
    dataset: Dataset,
    scenario: str = "class",
    *,
    fade: float = 0.5,
    tasks: int | None = None,
    classes: Sequence[Sequence[int | str]] | None = None,
    first: int | None = None,
    then: int | None = None,
    class_order: str | Sequence[int | str] = "natural",
    validation: float = 0.0,
    seed: int = 0,
) -> Stream:
    """Cut a data set by class, each task fading into the next: no border is announced.

    Where two tasks meet, each gives half of the samples, and a little before and after the other one's share falls to 0
    linearly. Which classes have been seen is not announced either: in Class-IL all classes compete from the start.
    Only methods that need no border can be trained on it, those whose `needs_borders` is False.

    Args:
        dataset: the data.
        scenario: "task" (of every sample its task is known), "domain" or "class".
        fade: share of a task's training in which it is mixed with a neighbour, in (0, 1]: 1 is a change without rest.
        tasks, classes, first, then, class_order, validation, seed: as in `split`.

    Raises:
        ConfigError: as `split`, or a fade out of range.
        DataError: as `split`.
    """
    if not 0 < fade <= 1:
        raise ConfigError(f"fade={fade}: expected a share in (0, 1]. Clean borders are those of split.")
    cut = split(
        dataset,
        scenario,
        tasks=tasks,
        classes=classes,
        first=first,
        then=then,
        class_order=class_order,
        validation=validation,
        active_units="all" if scenario == "class" else "seen",
        seed=seed,
    )
    return replace(cut, name=f"faded-{dataset.name}", fade=fade, fingerprint=f"{cut.fingerprint}~{fade:g}")


MAKERS: dict[str, Callable[..., Stream]] = {
    "split": split,
    "permuted": permuted,
    "dirichlet": dirichlet,
    "faded": faded,
}


@converted()
def make_stream(
    name: str,
    scenario: str = "class",
    dataset: Dataset | None = None,
    *,
    extractor: str | None = None,
    weights: str | Path | None = None,
    **settings: Any,
) -> Stream:
    """A stream by name: ``make_stream("split-mnist", "task", tasks=5)``.

    Args:
        name: "split-NAME", "permuted-NAME", "dirichlet-NAME" or "faded-NAME"; NAME is a data set that `data.load` knows.
        scenario: "task", "domain" or "class".
        dataset: the data, when they are loaded already.
        extractor: put every method behind this frozen feature extractor (`clteach.data.EXTRACTORS`): the images are
            encoded once, and the stream is one of features.
        weights: file with the extractor's pre-trained weights; None: those it is made with, drawn from the stream's seed.
        **settings: arguments of `split`, `permuted`, `dirichlet` or `faded`. Feature vectors are permuted without padding.

    Raises:
        ConfigError: an unknown stream or scenario, or settings that cannot work.
        DataError: the data are missing or damaged.
    """
    how, _, data_name = name.partition("-")
    settings = stream_settings(name, settings)
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    if dataset is None:
        try:
            dataset = load(data_name)
        except ConfigError as error:
            own = f"For data of your own, put {data_name}.npz into {data_folder()} (or set CLTEACH_DATA)."
            raise ConfigError(f"{unknown('stream', name, _known_streams())} {own}") from error
    if weights is not None and extractor is None:
        raise ConfigError(f"weights={str(weights)!r} belong to an extractor; name it as well (extractor='conv', say).")
    if extractor is not None:
        from clteach.data.extractors import encode  # it builds on this module

        dataset = encode(dataset, extractor, weights, settings.get("seed", 0))
    if how == "permuted" and len(dataset.shape) == 1:
        settings = {"pad": 0, **settings}
    return MAKERS[how](dataset, scenario, **settings)


def stream_settings(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the stream of this name, converted as `make_stream` does it, for a file or to compare them.

    Raises:
        ConfigError: an unknown stream, an argument it does not have, or a value of the wrong kind.
    """
    how = name.partition("-")[0]
    if how not in MAKERS:
        raise unknown("stream", name, _known_streams())
    found = {**arguments(make_stream, settings), **arguments(MAKERS[how], settings, EXPECTED)}
    for key in ("name", "scenario", "dataset"):
        found.pop(key, None)
    for key in settings:
        if key not in found:
            known = [*inspect.signature(MAKERS[how]).parameters, "extractor", "weights"][2:]
            raise unknown(f"setting of {how}-streams", str(key), known)
    return {key: found[key] for key in settings}


def _known_streams() -> list[str]:
    return [f"{maker}-{data_name}" for maker in MAKERS for data_name in NAMES]


def _to_cut(dataset: Any) -> Dataset:
    """The data set on the CPU, where rows are counted and shuffled; training takes the tasks to its own device."""
    dataset = as_dataset(dataset)
    return dataset if dataset.y_train.device.type == "cpu" else dataset.to("cpu")


def _places(dataset: Dataset) -> dict[int | str, int]:
    """{a way to write a class: its place among the classes, from 0}, as `split` tells of its argument `classes`."""
    names = dataset.classes
    labels = [int(name) for name in names if re.fullmatch(r"-?[0-9]{1,18}", name)]
    numbers = labels if len(set(labels)) == len(names) else range(len(names))
    return {name: place for place, name in enumerate(names)} | {number: place for place, number in enumerate(numbers)}


def _written(dataset: Dataset) -> str:
    """How the classes of a data set can be written, for the errors."""
    numbers = reprlib.repr([way for way in _places(dataset) if isinstance(way, int)])
    return f"by number, {numbers}, or by name, {reprlib.repr(list(dataset.classes))}"


def _class_order(order: str | Sequence[int | str], dataset: Dataset, rng: np.random.Generator) -> list[int]:
    """The places of all classes in the order in which the tasks take them."""
    every = list(range(dataset.n_classes))
    if isinstance(order, str):
        if order not in ("natural", "random"):
            raise ConfigError(f"unknown class_order {order!r}. Expected 'natural', 'random' or a list of classes.")
        return every if order == "natural" else rng.permutation(len(every)).tolist()
    place = _places(dataset)
    places = [place.get(c, -1) for c in order]
    if sorted(places) != every:
        raise ConfigError(
            f"class_order={list(order)} is not a permutation of the classes. Expected each of the {len(every)} once, "
            f"{_written(dataset)}."
        )
    return places


def stream_of(
    name: str,
    dataset: Dataset,
    spec: Spec,
    groups: list[list[int]],
    train: list[list[Tensor]],
    test: list[list[Tensor]],
    validation: float,
    rng: np.random.Generator,
    pixels: Tensor | None = None,
    test_samples: int | None = None,
) -> Stream:
    """Rows per (task, class of the task) -> a stream; sample labels are the task's output units."""
    if not 0 <= validation < 1:
        raise ConfigError(f"validation={validation}: expected a share of the training data in [0, 1).")

    def data(x: Tensor, task: int, parts: list[Tensor], what: str, most: int | None = None) -> Data:
        rows = torch.cat(parts)
        if not len(rows):
            names = ", ".join(dataset.classes[c] for c in groups[task])
            raise DataError(
                f"task {task + 1} of {name} (classes {names}) has no {what} samples. "
                "Expected at least one per task; leave these classes out or add data."
            )
        y = torch.cat([torch.full_like(part, unit) for part, unit in zip(parts, spec.units[task], strict=True)])
        # Classes are mixed (once, fixed) so that a prefix of the data is a fair sample of the task.
        order = torch.from_numpy(rng.permutation(len(rows)))[:most]
        return Data(x, rows[order], y[order], torch.full_like(order, task), pixels)

    tasks = []
    for t, group in enumerate(groups):
        held: list[Tensor] = []
        kept: list[Tensor] = []
        for rows in train[t]:
            order = torch.from_numpy(rng.permutation(len(rows)))
            n_held = round(validation * len(rows))
            held.append(rows[order[:n_held]])
            kept.append(rows[order[n_held:]])
        tasks.append(
            Task(
                t,
                tuple(dataset.classes[c] for c in group),
                data(dataset.x_train, t, kept, "training"),
                data(dataset.x_test, t, test[t], "test", test_samples),
                data(dataset.x_train, t, held, "validation") if validation else None,
            )
        )
    key = hashlib.sha256(repr((dataset.fingerprint, spec)).encode())
    for task in tasks:
        for part in (task.train, task.test):
            key.update(part.rows.numpy().tobytes())
    if pixels is not None:
        key.update(pixels.numpy().tobytes())
    # A permuted image is no raw image any more: what such a network is asked must have its pixels in the task's order.
    encoding = None if pixels is not None else dataset.encoding
    spec = replace(spec, classes=tuple(task.classes for task in tasks), encoding=encoding)
    return Stream(name, spec, tuple(tasks), key.hexdigest()[:16])
