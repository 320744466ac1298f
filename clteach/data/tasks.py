r"""What a continual learner sees: a `Stream` of tasks, their `Data` and batches, and the `Spec` that knows the scenario.

Three scenarios (van de Ven, Tuytelaars & Tolias 2022):

* **task**: the task is known, only its own output units compete;
* **domain**: every task uses the same output units, the task is unknown;
* **class**: every class has its own output unit, and all classes seen so far compete.

`Spec` is the one place that knows the scenario: everything else asks it which output units are active. How a data set is cut
into tasks stands in `clteach.data.streams`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from clteach.data.dataset import Encoding, as_floats
from clteach.errors import ConfigError
from clteach.seeding import derive, generator

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
            (`clteach.data.extractors.encode`). None: they are the data themselves, in [0, 1].
        classes: for every task the names of its classes, in the order of `units`; empty: not known.
        encoding: how raw inputs become such as these; None: they are so already.
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

    # What the user calls things; it changes nothing that is learned, so it tells no stream from another.
    classes: tuple[tuple[str, ...], ...] = field(default=(), repr=False, compare=False)
    encoding: Encoding | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise ConfigError(f"unknown scenario {self.scenario!r}. Expected one of {', '.join(SCENARIOS)}.")
        if self.active_units not in ("seen", "all"):
            raise ConfigError(f"unknown active_units {self.active_units!r}. Expected 'seen' or 'all'.")
        if self.scenario != "class":
            alone = (self.active_table(1).sum(1) == 1).nonzero().flatten().tolist()
            if alone:
                raise ConfigError(
                    f"task {alone[0] + 1} has one class, and in {self.scenario.capitalize()}-IL nothing competes with it: "
                    "every answer is right, whatever was learned. Expected at least two classes per task, or the scenario "
                    "'class', where one is fine."
                )

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

    def unit_names(self, task: int | None = None) -> tuple[str, ...]:
        """(n_out,) what the output units stand for, in the user's own names; for a task, or for all of them together.

        In Domain-IL a unit is a class of every task: without a task its names are joined, "cat or dog".
        """
        names: list[list[str]] = [[] for _ in range(self.n_out)]
        for t, (units, classes) in enumerate(zip(self.units, self.classes, strict=False)):
            for unit, name in zip(units, classes, strict=True):
                if task in (None, t) and name not in names[unit]:
                    names[unit].append(name)
        return tuple(" or ".join(found) or str(unit) for unit, found in enumerate(names))

    def task_units(self) -> Tensor:
        """(n_tasks, n_out) bool: row i holds the output units that the labels of task i use."""
        table = torch.zeros(self.n_tasks, self.n_out, dtype=torch.bool)
        for task, units in enumerate(self.units):
            table[task, list(units)] = True
        return table

    def active_table(self, seen: int) -> Tensor:
        """(n_tasks, n_out) bool: row i holds the active units of a sample of task i."""
        table = self.task_units()
        if self.scenario == "task":
            return table
        # In Domain-IL the task is unknown, so a sample competes over all units also where its own task has fewer.
        known = table[:seen] if self.scenario == "class" and self.active_units == "seen" else table
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
    """A sequence of tasks over one data set. Index it, iterate over it, move it with `to(device)`.

    Its specification may know of more tasks than it has yet.
    """

    name: str
    spec: Spec
    tasks: tuple[Task, ...]
    fingerprint: str
    fade: float = 0.0
    """share of its training in which a task is mixed with the one before or after it; 0: clean borders"""
    following: Data | None = None
    """what the last task fades into, where the stream is the beginning of a longer one"""

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What to know before reading scores on this stream: where one cannot be wrong, whatever was learned."""
        found = []
        if len(self) > 1 and int(self.spec.active_table(1)[0].sum()) == 1:
            found.append(
                "task 1 has one class, which competes with no other until task 2: its accuracy after task 1 is 100 % "
                "whatever was learned, and so is its learning accuracy (with active_units='all' all classes compete)"
            )
        for task in self:
            tested = task.test.y.unique().numel()
            if tested == 1 and len(task.classes) > 1:
                found.append(f"task {task.index + 1} is tested on one of its {len(task.classes)} classes alone")
        return tuple(found)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, index: int) -> Task:
        return self.tasks[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def upto(self, n: int) -> Stream:
        """The first n tasks, for a learner that is built for all and goes on later (``train(run, stream, first=n)``).

        Raises:
            ConfigError: there are not so many.
        """
        if not 1 <= n <= len(self):
            raise ConfigError(f"upto({n}): expected a number of tasks in 1..{len(self)}.")
        following = self[n].train if self.fade and n < len(self) else self.following
        return replace(self, tasks=self.tasks[:n], fingerprint=f"{self.fingerprint}:{n}", following=following)

    def around(self, t: int) -> list[Data]:
        """The training data of the task before, of task t and of the task after: what `Fade` draws from."""
        nothing = self[t].train.subset(torch.arange(0, device=self[t].train.device))
        before = self[t - 1].train if t else nothing
        after = self[t + 1].train if t + 1 < len(self) else self.following
        return [before, self[t].train, nothing if after is None else after]

    def to(self, device: torch.device | str, moved: dict[int, Tensor] | None = None) -> Stream:
        """The same stream on another device; tensors shared between tasks stay shared.

        Args:
            device: where to.
            moved: {id: moved tensor}, filled here: streams that are moved with the same one stay shared as well.
        """
        moved = {} if moved is None else moved

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
        return replace(self, tasks=tasks, following=None if self.following is None else move(self.following))


class Shuffle:
    """An endless stream of random orders of 0..n-1, cut into batches of equal size.

    Batch s depends only on (seed, s). Every batch is full, also where one order ends and the next begins and where n is
    smaller than a batch, so that no step has another shape.
    """

    def __init__(self, n: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.n, self.batch_size, self.seed, self.device = n, batch_size, seed, device
        self._orders: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """(batch_size,) int64 positions of the samples of batch `step`."""
        epoch, start = divmod(step * self.batch_size, self.n)
        parts, missing = [], self.batch_size
        while missing:
            parts.append(self._order(epoch)[start : start + missing])
            missing -= len(parts[-1])
            epoch, start = epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 8:
                self._orders.clear()
            rng = generator(self.seed, epoch, device=self.device)
            self._orders[epoch] = torch.randperm(self.n, generator=rng, device=self.device)
        return self._orders[epoch]


class Fade:
    r"""Batches of a task that the one before fades into, and that fades into the next one: no step is a border.

    At the share u of a task's steps, a sample is of the task before or after with the probabilities

    $$p_{\text{before}}(u) = \max\!\big(0, \tfrac12 - \tfrac{u}{f}\big), \qquad
      p_{\text{after}}(u) = \max\!\big(0, \tfrac12 - \tfrac{1 - u}{f}\big):$$

    half and half where two tasks meet, and mixed for a share f of a task's steps. Batch s depends only on (seed, s).

    Args:
        parts: the training data of the task before, of the task and of the one after (`Stream.around`); the first and the
            last may be empty.
        batch_size: samples per batch.
        steps: steps of the task.
        fade: f, in (0, 1].
        seed: seed of the draws.
        device: where the data are.
    """

    def __init__(
        self, parts: Sequence[Data], batch_size: int, steps: int, fade: float, seed: int, device: torch.device
    ) -> None:
        self.batch_size, self.steps, self.fade, self.seed, self.device = batch_size, steps, fade, seed, device
        self.starts = [0, len(parts[0]), len(parts[0]) + len(parts[1])]
        self.orders = [
            Shuffle(len(part), batch_size, derive(seed, place), device) if len(part) else None
            for place, part in enumerate(parts)
        ]

    def shares(self, step: int) -> tuple[float, float]:
        """The probabilities of the task before and of the one after."""
        u = (step + 0.5) / self.steps
        before, after = (max(0.0, 0.5 - distance / self.fade) for distance in (u, 1 - u))
        return before if self.orders[0] else 0.0, after if self.orders[2] else 0.0

    def __call__(self, step: int) -> Tensor:
        """(batch_size,) int64 positions, in the three parts one after the other, of the samples of batch `step`."""
        before, after = self.shares(step)
        u = torch.rand(
            self.batch_size, generator=generator(self.seed, "mix", step, device=self.device), device=self.device
        )
        earlier, here, later = (
            None if order is None else start + order(step)
            for start, order in zip(self.starts, self.orders, strict=True)
        )
        assert here is not None
        if before and earlier is not None:
            here = torch.where(u < before, earlier, here)
        if after and later is not None:
            here = torch.where(u >= 1 - after, later, here)
        return here
