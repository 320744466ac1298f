r"""Streams of tasks: one data set cut into the sequence that a continual learner sees.

Three ways to cut (`split`, `permuted`, `dirichlet`) and three scenarios (van de Ven, Tuytelaars & Tolias 2022):

* **task**: the task is known, only its own output units compete;
* **domain**: every task uses the same output units, the task is unknown;
* **class**: every class has its own output unit, and all classes seen so far compete.

`Spec` is the one place that knows the scenario: everything else asks it which output units are active.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data import NAMES, Dataset, as_floats, data_folder, load
from clteach.errors import ConfigError, DataError, unknown
from clteach.seeding import whole_seed

SCENARIOS = ("task", "domain", "class")


class Batch(NamedTuple):
    """What a learner sees in one step: `x` (B, *shape) in [0, 1] or encoded, `y` (B,) output unit, `task` (B,) task id."""

    x: Tensor
    y: Tensor
    task: Tensor


@dataclass(frozen=True)
class Spec:
    """What a learner must know of a stream before it sees data.

    Args:
        shape: shape of one input, e.g. (1, 28, 28) or (64,).
        n_tasks: number of tasks T.
        n_out: number of output units K.
        scenario: "task", "domain" or "class".
        units: for every task the output units its labels use.
        active_units: only for "class": do the classes "seen" so far compete in the softmax, or "all" of the stream's?
            (2018-2020 papers: seen; 2022 paper: all. It moves the numbers.)
        encoded_from: the inputs are features, any numbers, that an extractor made of images with so many values each
            (`clteach.features.encode`). None: they are the data themselves, in [0, 1].
    """

    shape: tuple[int, ...]
    n_tasks: int
    n_out: int
    scenario: str
    units: tuple[tuple[int, ...], ...]
    active_units: str = "seen"
    encoded_from: int | None = field(
        default=None, repr=False
    )  # a stream's fingerprint is of the repr and of the features

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ConfigError(f"unknown scenario {self.scenario!r}. Expected one of {', '.join(SCENARIOS)}.")
        if self.active_units not in ("seen", "all"):
            raise ConfigError(f"unknown active_units {self.active_units!r}. Expected 'seen' or 'all'.")

    @property
    def pixels(self) -> int:
        """Values of one input, or of the image that it was encoded from."""
        return math.prod(self.shape) if self.encoded_from is None else self.encoded_from

    def active(self, task: Tensor, seen: int) -> Tensor:
        """The output units each sample competes over.

        Args:
            task: (B,) task id of each sample.
            seen: number of tasks seen so far, the current one included.

        Returns:
            (B, n_out) bool.
        """
        return self.active_table(seen).to(task.device)[task]

    def unit_table(self) -> Tensor:
        """(n_tasks, n_out) bool: row i holds the output units that the labels of task i use."""
        table = torch.zeros(self.n_tasks, self.n_out, dtype=torch.bool)
        for task, units in enumerate(self.units):
            table[task, list(units)] = True
        return table

    def active_table(self, seen: int) -> Tensor:
        """(n_tasks, n_out) bool: row i holds the active units of a sample of task i."""
        table = self.unit_table()
        if self.scenario != "class":
            return table
        known = table if self.active_units == "all" else table[:seen]
        return known.any(0, keepdim=True).repeat(self.n_tasks, 1)

    def replay_masks(self, seen: int) -> Tensor:
        """(H, n_out) bool, the units that replayed data competes over: one row per past head in Task-IL, else one row.

        Args:
            seen: number of past tasks (the tasks that are replayed), at least 1.
        """
        table = self.active_table(seen)
        return table[:seen] if self.scenario == "task" else table[:1]


class Data:
    """Samples of one or several tasks, as row numbers into arrays that all tasks of the stream share.

    Args:
        x: (M, *shape) uint8 (0..255) or float32 (in [0, 1], or encoded): the shared inputs.
        rows: (N,) int64 rows of `x` that belong to this data.
        y: (N,) int64 output units.
        task: (N,) int64 task ids.
        pixels: (n_tasks, P) int64 pixel permutations, one per task, or None.
    """

    def __init__(self, x: Tensor, rows: Tensor, y: Tensor, task: Tensor, pixels: Tensor | None = None) -> None:
        self.x, self.rows, self.y, self.task, self.pixels = x, rows, y, task, pixels
        # Known without looking at the device in every step: does one permutation serve the whole batch?
        self._one_task = int(task[0]) if len(task) and bool((task == task[0]).all()) else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def device(self) -> torch.device:
        return self.x.device

    def batch(self, index: Tensor) -> Batch:
        """The samples at positions `index` (B,); bytes become float32 in [0, 1] only here."""
        x = self.x.index_select(0, self.rows.index_select(0, index))
        task = self.task.index_select(0, index)
        if self.pixels is not None:
            flat = x.flatten(1)
            if self._one_task is not None:
                flat = flat.index_select(1, self.pixels[self._one_task])
            else:
                flat = flat.gather(1, self.pixels[task])
            x = flat.view_as(x)
        return Batch(as_floats(x), self.y.index_select(0, index), task)

    def batches(self, size: int = 1000) -> Iterator[Batch]:
        """All samples once, in order, at most `size` at a time (the last batch may hold one)."""
        for index in torch.arange(len(self), device=self.device).split(size):
            yield self.batch(index)

    def subset(self, index: Tensor) -> Data:
        """The samples at positions `index` (n,), sharing the same inputs."""
        return Data(self.x, self.rows[index], self.y[index], self.task[index], self.pixels)

    @staticmethod
    def concat(parts: Sequence[Data]) -> Data:
        """The samples of several tasks together; all parts must share their inputs."""
        first = parts[0]
        return Data(
            first.x,
            torch.cat([part.rows for part in parts]),
            torch.cat([part.y for part in parts]),
            torch.cat([part.task for part in parts]),
            first.pixels,
        )


@dataclass(frozen=True)
class Task:
    """One task: its position, the names of its classes in the order of its output units, and its data."""

    index: int
    classes: tuple[str, ...]
    train: Data
    test: Data
    valid: Data | None


@dataclass(frozen=True)
class Stream:
    """A sequence of tasks over one data set. Index it, iterate over it, move it with `to(device)`."""

    name: str
    spec: Spec
    tasks: tuple[Task, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def to(self, device: torch.device | str) -> Stream:
        """The same stream on another device; tensors shared between tasks stay shared."""
        moved: dict[int, Tensor] = {}

        def move(data: Data) -> Data:
            x = moved.setdefault(id(data.x), data.x.to(device))
            pixels = None
            if data.pixels is not None:
                pixels = moved.setdefault(id(data.pixels), data.pixels.to(device))
            return Data(x, data.rows.to(device), data.y.to(device), data.task.to(device), pixels)

        tasks = tuple(
            replace(
                task,
                train=move(task.train),
                test=move(task.test),
                valid=None if task.valid is None else move(task.valid),
            )
            for task in self.tasks
        )
        return replace(self, tasks=tasks)


def split(
    dataset: Dataset,
    scenario: str = "class",
    *,
    tasks: int | None = None,
    classes: Sequence[Sequence[int]] | None = None,
    class_order: str | Sequence[int] = "natural",
    validation: float = 0.0,
    active_units: str = "seen",
    seed: int = 0,
) -> Stream:
    """Cut a data set by class: task 1 holds the first classes, task 2 the next ones, and so on.

    Args:
        dataset: the data.
        scenario: "task", "domain" or "class".
        tasks: number of tasks; the number of classes must divide by it. Default: 5, or as `classes` says.
        classes: instead of `tasks`, the classes of each task, e.g. ``[[0, 1, 2], [7], [3, 4]]``.
        class_order: "natural", "random" (drawn from `seed`) or a permutation of the classes.
        validation: share of each class's training samples held out in ``task.valid``, in [0, 1).
        active_units: see `Spec`.
        seed: seed of the class order and of the validation split.

    Raises:
        ConfigError: the classes do not divide, a class appears twice or does not exist.
        DataError: a task has no training or test samples.
    """
    n_classes = dataset.n_classes
    rng = np.random.default_rng(whole_seed(seed))
    if classes is None:
        order = _class_order(class_order, n_classes, rng)
        n_tasks = 5 if tasks is None else tasks
        if n_tasks < 1 or n_classes % n_tasks:
            raise ConfigError(
                f"{n_classes} classes of {dataset.name!r} do not divide into {n_tasks} tasks. Choose a number of tasks "
                f"that divides {n_classes}, or name the classes of each task: classes=[[0, 1], [2], ...]."
            )
        groups = [list(group) for group in np.split(np.asarray(order), n_tasks)]
    else:
        groups = [list(group) for group in classes]
        flat = [c for group in groups for c in group]
        wrong = [c for c in flat if not 0 <= c < n_classes] or [c for c in flat if flat.count(c) > 1]
        if wrong or not groups or not all(groups):
            what = f"class {wrong[0]} is unknown or named twice" if wrong else "a task without classes"
            raise ConfigError(f"classes={groups}: {what}. Expected groups of different classes in 0..{n_classes - 1}.")
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
    return _build(f"split-{dataset.name}", dataset, spec, groups, train, test, validation, rng)


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
    if dataset.encoded_from is not None:
        raise ConfigError(
            f"permuted {dataset.name!r}: the inputs are features, and to permute them is not to permute the pixels. "
            "Use split or dirichlet, or a method that has an extractor of its own (brain-inspired-replay)."
        )
    if tasks < 1 or pad < 0:
        raise ConfigError(f"tasks={tasks}, pad={pad}: expected at least one task and a padding of 0 or more pixels.")
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
    return _build(f"permuted-{dataset.name}", dataset, spec, groups, train, test, validation, rng, pixels, test_samples)


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
        ConfigError: alpha or tasks out of range, or no draw in 1000 gave every task samples.
    """
    if tasks < 1 or not alpha > 0:
        raise ConfigError(f"tasks={tasks}, alpha={alpha}: expected at least one task and alpha > 0.")
    rng = np.random.default_rng(whole_seed(seed))
    n = dataset.n_classes

    def enough(parts: list[Tensor]) -> bool:
        """Are there training samples in a task of these classes, and held-out ones if any are asked for?"""
        total = sum(map(len, parts))
        if not 0 < validation < 1:  # nothing is held out, or `_build` refuses
            return total > 0
        return 0 < sum(round(validation * len(rows)) for rows in parts) < total

    def deal(labels: Tensor, shares: np.ndarray) -> list[list[Tensor]]:
        groups: list[list[Tensor]] = [[] for _ in range(tasks)]
        for c in range(n):
            rows = (labels == c).nonzero().flatten()
            cuts = np.round(np.cumsum(shares[c])[:-1] * len(rows)).astype(int)
            for t, part in enumerate(np.split(np.arange(len(rows)), cuts)):
                groups[t].append(rows[torch.from_numpy(part)])
        return groups

    for _ in range(1000):
        shares = rng.dirichlet(np.full(tasks, alpha / tasks), size=n)  # (classes, tasks)
        train, test = deal(dataset.y_train, shares), deal(dataset.y_test, shares)
        if all(enough(parts) for parts in train) and all(sum(map(len, parts)) for parts in test):
            break
    else:
        raise ConfigError(
            f"alpha={alpha} with {tasks} tasks leaves a task of {dataset.name!r} without training, test or validation "
            "samples in each of 1000 draws. Choose a larger alpha or fewer tasks."
        )
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
    return _build(f"dirichlet-{dataset.name}", dataset, spec, groups, train, test, validation, rng)


MAKERS: dict[str, Callable[..., Stream]] = {"split": split, "permuted": permuted, "dirichlet": dirichlet}


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
        name: "split-NAME", "permuted-NAME" or "dirichlet-NAME"; NAME is a data set that `data.load` knows.
        scenario: "task", "domain" or "class".
        dataset: the data, when they are loaded already.
        extractor: put every method behind this frozen feature extractor (`clteach.features.EXTRACTORS`): the images are
            encoded once, and the stream is one of features.
        weights: file with the extractor's pre-trained weights; None: those it is made with, drawn from the stream's seed.
        **settings: arguments of `split`, `permuted` or `dirichlet`. Feature vectors are permuted without padding.

    Raises:
        ConfigError: an unknown stream or scenario, or settings that cannot work.
        DataError: the data are missing or damaged.
    """
    how, _, data_name = name.partition("-")
    known = [f"{maker}-{data_name}" for maker in MAKERS for data_name in NAMES]
    if how not in MAKERS:
        raise unknown("stream", name, known)
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    if dataset is None:
        try:
            dataset = load(data_name)
        except ConfigError as error:
            own = f"For data of your own, put {data_name}.npz into {data_folder()} (or set CLTEACH_DATA)."
            raise ConfigError(f"{unknown('stream', name, known)} {own}") from error
    if weights is not None and extractor is None:
        raise ConfigError(f"weights={str(weights)!r} belong to an extractor; name it as well (extractor='conv', say).")
    if extractor is not None:
        from clteach.features import encode  # it builds on this module

        dataset = encode(dataset, extractor, weights, settings.get("seed", 0))
    if how == "permuted" and len(dataset.shape) == 1:
        settings = {"pad": 0, **settings}
    return MAKERS[how](dataset, scenario, **settings)


def _class_order(order: str | Sequence[int], n_classes: int, rng: np.random.Generator) -> list[int]:
    if isinstance(order, str):
        if order not in ("natural", "random"):
            raise ConfigError(f"unknown class_order {order!r}. Expected 'natural', 'random' or a list of classes.")
        return list(range(n_classes)) if order == "natural" else rng.permutation(n_classes).tolist()
    if sorted(order) != list(range(n_classes)):
        raise ConfigError(f"class_order={list(order)} is not a permutation of 0..{n_classes - 1}.")
    return list(order)


def _build(
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
    return Stream(name, spec, tuple(tasks), key.hexdigest()[:16])
