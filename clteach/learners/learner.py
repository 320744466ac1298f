r"""The contract between a method and the training loop.

A learner is an `nn.Module` that owns its networks, its optimisers and everything it remembers of past tasks. The loop in
`clteach.training` drives it, flat and without callbacks::

    for t in tasks:
        for phase in learner.phases(t, steps):
            learner.enter(t, phase)                     # cheap, idempotent: also called on resume
            learner.begin_phase(t, phase, data, rng)    # once: snapshots, freezing
            for s in range(phase.steps):
                learner.step(batch, learner.draw(len(batch.y), rng))
        learner.end_task(t, data, rng)                  # once: Fisher information, memories

Two properties carry everything else. `loss` is *pure*: it reads the module and the noise it is given and draws, writes
and synchronises nothing, so a step can be compiled, replayed and run for many seeds at once. And all state has its final
shape from the start, as parameters or buffers, so a checkpoint is a state dict.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from clteach.data.raw import as_read
from clteach.data.tasks import Batch, Data, Spec, Stream
from clteach.errors import ConfigError, DivergedError
from clteach.learners.optim import adam, constant
from clteach.learners.penalty import Quadratic
from clteach.models.frozen import in_eval_mode
from clteach.models.nets import mlp
from clteach.seeding import seeded, whole_seed
from clteach.settings import MOST_UNITS, convert_fields

Noise = Mapping[str, Tensor]
Losses = dict[str, Tensor]
NetMaker = Callable[[tuple[int, ...], int], nn.Module]
"""Makes a network with new weights: (shape of one input, output units K) -> module, inputs (B, *shape) -> logits (B, K)."""
AnyStep = TypeVar("AnyStep", bound=Callable[..., Losses])
LAYERS = "a tuple of layers, each of at least one unit"
MOST_WEIGHTS = 1_000_000_000


class Phase(NamedTuple):
    """A stretch of training: `steps` steps, learning rates times `lr_scale(step / steps)`, moments kept or forgotten."""

    name: str
    steps: int
    lr_scale: Callable[[float], float] = constant
    fresh_optimizer: bool = False


class Answers(NamedTuple):
    """What a learner takes inputs for, see `Learner.classify`."""

    names: np.ndarray
    """(N,) class names"""
    probabilities: Tensor
    """(N, K) float32 on the CPU, rows sum to 1"""
    units: tuple[str, ...]
    """(K,) what the columns stand for"""


def uniform(step: AnyStep) -> AnyStep:
    """Mark a learner's step that is the same operations every time, and treats every weight by itself.

    Such steps can be done for many seeds at once (`clteach.training.seeds`) and be replayed on a GPU
    (`clteach.training.graphs`).
    """
    step.uniform = True  # type: ignore[attr-defined]
    return step


class Learner(nn.Module):
    """Base of all methods. See the module's docstring for the order of the calls.

    A method sets the class attributes, builds its networks and `opts` in `__init__`, and overrides what differs.

    Args:
        spec: the stream's specification.
        cfg: the method's settings; None: the defaults.
        seed: seed of the initial weights.
        net: makes a network of one's own (see `NetMaker`), for methods that take one; None: the method's.

    Raises:
        ConfigError: the method does not support the scenario, or features as inputs, or takes no network, or `net` is none.
    """

    @dataclass(frozen=True)
    class Config:
        """Settings every method has."""

        hidden: tuple[int, ...] = (400, 400)
        """units of each hidden layer (ReLU)"""
        lr: float = 1e-3
        """Adam's learning rate"""
        fresh_optimizer: bool = False
        """forget Adam's moments at the start of every task"""

        def __post_init__(self) -> None:
            layers = [field.name for field in dataclasses.fields(self) if field.name.endswith("hidden")]
            convert_fields(self, dict.fromkeys(layers, LAYERS))
            for name in layers:
                units = getattr(self, name)
                if isinstance(units, tuple):
                    _check_layers(name, units)
            if not self.lr > 0:
                raise ConfigError(f"lr={self.lr}: expected lr > 0.")

    name: ClassVar[str]
    summary: ClassVar[str]
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    needs: ClassVar[str] = ""  # why a scenario is missing from `scenarios`, for the error message
    takes_features: ClassVar[bool] = True  # does it work on an encoded stream, whose inputs are not in [0, 1]?
    needs_borders: bool = True  # must it be told when a task ends, so that no stream can fade from one into the next?
    takes_net: ClassVar[bool] = False  # can it be given a network of one's own?
    measure: ClassVar[str] = "accuracy"  # what `evaluate` returns, one of `clteach.metrics.accuracy.MEASURES`
    active_now: Tensor  # (n_tasks, n_out) bool: active units of a sample of each task, now
    log_active_now: Tensor  # (n_tasks, n_out) the same as 0 and -inf, to be added to logits: cheaper than filling
    active_past: Tensor  # (n_tasks or 1, n_out) bool: units that replayed data competes over, a row per past head
    opts: dict[str, Optimizer]
    penalty: Quadratic | None

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__()
        if net is not None:
            check_maker(net)
        self.spec, self.seed, self.own_net = spec, whole_seed(seed), net
        self.cfg: Any = self.checked(spec, cfg)
        self.t = -1  # the task being learned; -1: none yet
        self.phase: Phase | None = None
        if net is not None and not self.takes_net:
            raise ConfigError(
                f"{self.name} makes its networks itself. Leave net= out, or choose a method that takes one."
            )
        self.opts = {}
        self.penalty = None
        self.register_buffer("active_now", spec.active_table(1))
        self.register_buffer("log_active_now", _log(self.active_now))
        self.register_buffer("active_past", torch.zeros_like(spec.replay_masks(spec.n_tasks)))

    @classmethod
    def checked(cls, spec: Spec, cfg: Any = None) -> Any:
        """The settings, or the defaults.

        Raises:
            ConfigError: as the constructor.
        """
        if spec.scenario not in cls.scenarios:
            raise ConfigError(
                f"{cls.name} does not support the scenario {spec.scenario!r}: {cls.needs}. "
                f"Choose {' or '.join(repr(s) for s in cls.scenarios)}, or another method."
            )
        if spec.encoded_from is not None and not cls.takes_features:
            raise ConfigError(
                f"{cls.name} generates inputs in [0, 1], and those of this stream are features, any numbers: leave the "
                "extractor out, or choose a method that replays features (generative-replay, brain-inspired-replay)."
            )
        cfg = cls.Config() if cfg is None else cfg
        if not isinstance(cfg, cls.Config):
            raise ConfigError(f"{cls.name} got settings of type {type(cfg).__name__}, expected {cls.name}'s Config.")
        return cfg

    @classmethod
    def make(cls, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> Learner:
        """The learner that these settings ask for: one of this class, unless a setting chooses between several."""
        return cls(spec, cfg, seed) if net is None else cls(spec, cfg, seed, net)

    @property
    def device(self) -> torch.device:
        """Where the learner lives."""
        return self.active_now.device

    @property
    def old_active(self) -> Tensor:
        """(H, n_out) bool, the units the model of the past tasks knows: a row per past head in Task-IL, else one row."""
        return self.active_past[: self.t] if self.spec.scenario == "task" else self.active_past

    @property
    def new_active(self) -> Tensor:
        """(H, n_out) bool, the units the model competes over now on samples of the past: rows as in `old_active`."""
        return self.old_active if self.spec.scenario == "task" else self.active_now[:1]

    # --- training, in the order of the calls ---

    def prepare(self, stream: Stream) -> None:
        """Once before training begins: what evaluation needs to know of the stream."""

    def training_data(self, stream: Stream, t: int) -> Data:
        """What this learner may train on in task t: that task's training data."""
        return stream[t].train

    def phases(self, t: int, steps: int) -> list[Phase]:
        """The phases of task t when `steps` steps are asked for."""
        return [Phase("train", steps, fresh_optimizer=self.cfg.fresh_optimizer)]

    def enter(self, t: int, phase: Phase) -> None:
        """Set what follows from (t, phase) alone. Called before every phase and again on resume."""
        self.t, self.phase = t, phase
        self.active_now.copy_(self.spec.active_table(t + 1))
        self.log_active_now.copy_(_log(self.active_now))
        if t > 0:
            rows = self.spec.replay_masks(t)
            self.active_past[: len(rows)] = rows.to(self.active_past.device)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        """Once before a phase's first step: copy the old model into buffers, freeze, compute targets."""

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        """All random numbers of one step with a batch of n."""
        return {}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        """The named terms of the loss, scalars; their sum is minimised. Pure."""
        raise NotImplementedError(f"{type(self).__name__} must define loss()")

    def forward(self, batch: Batch, noise: Noise) -> Losses:
        """`loss`, so that `torch.func.functional_call` can evaluate it at other parameters (e.g. many seeds at once)."""
        return self.loss(batch, noise)

    @uniform
    def step(self, batch: Batch, noise: Noise) -> Losses:
        """One optimisation step; returns the loss terms, detached and still on the device."""
        for opt in self.opts.values():
            opt.zero_grad(set_to_none=True)
        losses = self.loss(batch, noise)
        total(losses).backward()
        if self.penalty is not None:
            self.penalty.add_grad_()
        self.clip_grad_()
        for opt in self.opts.values():
            opt.step()
        return {name: value.detach() for name, value in losses.items()}

    def clip_grad_(self) -> None:
        """Limit the gradients in place before the optimisers use them; by default they stay as they are."""

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        """Once after the last phase of a task: Fisher information, path integrals, memories."""

    # --- use ---

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) logits, unmasked, of inputs x (B, *shape); `task` (B,) only where the method needs it."""
        raise NotImplementedError(f"{type(self).__name__} must define predict()")

    def answers(self, data: Data) -> Iterable[Tensor]:
        """`predict` of each of `data.batches()`. A method may keep what it will be asked again after the next task."""
        return (self.predict(batch.x, batch.task) for batch in data.batches())

    @torch.no_grad()
    def evaluate(self, t: int, data: Data) -> float:
        """Accuracy in [0, 1] on data of task t, among the units active now.

        Raises:
            DivergedError: logits that are no finite numbers. Their largest is the first one, so the score would be that of
                chance and look like a result.
        """
        if not self.active_now[data.task, data.y].any():
            return 0.0  # a task to come in Class-IL: none of its classes can be the answer yet
        correct = torch.zeros((), dtype=torch.int64, device=data.device)
        finite = torch.ones((), dtype=torch.bool, device=data.device)
        for batch, logits in zip(data.batches(), self.answers(data), strict=True):
            finite &= logits.isfinite().all()
            logits = logits.masked_fill(~self.active_now[batch.task], -torch.inf)
            correct += (logits.argmax(1) == batch.y).sum()
        if not bool(finite):
            raise self.diverged(f"its answers on task {t + 1} are not finite")
        return float(correct) / len(data)

    def diverged(self, what: str) -> DivergedError:
        """The error for a training that blew up; `what` says how it shows."""
        given = {
            each.name: getattr(self.cfg, each.name) for each in dataclasses.fields(self.cfg) if each.name.endswith("lr")
        }
        rates = " and ".join(f"{name}={rate:g}" for name, rate in given.items() if rate is not None)
        return DivergedError(
            f"{self.name}, seed {self.seed}: training diverged, {what}. Expected numbers: choose a smaller learning rate "
            f"than {rates}, or a weaker penalty where the method has one."
        )

    @torch.no_grad()
    def classify(self, x: Any, task: int | Sequence[int] | None = None) -> Answers:
        """What the learner takes raw inputs for, in the user's own class names.

        Args:
            x: N inputs as `clteach.from_arrays` takes them (arrays, tensors, a data frame, a list of pictures), as raw as
                the training data were: they are scaled and encoded in the same way. Of a permuted stream: images (N, *shape)
                with the pixels in the task's order.
            task: the task of the inputs, from 0, one or (N,). Needed in Task-IL; in Domain-IL it names the answer (which
                class of the task) without helping to find it; in Class-IL it is not known and must be left out.

        Returns:
            Names (N,), and probabilities (N, K) of all K output units, 0 for those that do not compete.

        Raises:
            ConfigError: a generator, an untrained learner, or a task that is missing, unknown or not to be known.
            DataError: inputs that cannot be used.
        """
        if self.measure != "accuracy":
            raise ConfigError(f"{self.name} classifies nothing: it generates. Expected a classifier; use sample().")
        if self.t < 0:
            raise ConfigError(f"this {self.name} has not been trained: train it first, or load one that was.")
        inputs = as_read(x, self.spec)
        tasks = self._tasks(task, len(inputs))
        known = torch.zeros(len(inputs), dtype=torch.int64) if tasks is None else tasks
        parts = []
        with in_eval_mode(self):
            for read, of in zip(inputs.split(1000), known.split(1000), strict=True):
                of = of.to(self.device)
                logits = self.predict(read.to(self.device), of if self.spec.scenario == "task" else None)
                parts.append(logits.masked_fill(~self.active_now[of], -torch.inf).softmax(1).cpu())
        probabilities = torch.cat(parts)
        if not bool(probabilities.isfinite().all()):
            raise self.diverged("its answers are not finite")
        each = [None] * len(inputs) if tasks is None else tasks.tolist()
        tables = {of: self.spec.unit_names(of) for of in set(each)}
        units = probabilities.argmax(1).tolist()
        names = np.array([tables[of][unit] for of, unit in zip(each, units, strict=True)], dtype=str)
        return Answers(names, probabilities, self.spec.unit_names())

    def _tasks(self, task: int | Sequence[int] | None, n: int) -> Tensor | None:
        """(n,) the task of each input, or None where it is not known."""
        if task is None:
            if self.spec.scenario == "task":
                raise ConfigError(
                    f"in Task-IL the task is known: expected task=0..{self.spec.n_tasks - 1}, one or (N,)."
                )
            return None
        if self.spec.scenario == "class":
            raise ConfigError("in Class-IL the task is not known: leave task= out.")
        tasks = torch.as_tensor(task)
        if tasks.is_floating_point() or tasks.ndim > 1 or (tasks.ndim == 1 and len(tasks) != n):
            raise ConfigError(f"task={task!r}: expected a whole number, or one for each of the {n} inputs.")
        if bool(((tasks < 0) | (tasks > self.t)).any()):
            raise ConfigError(f"task={task!r}: expected tasks learned so far, 0..{self.t}, counted from 0.")
        return tasks.long().expand(n) if tasks.ndim == 0 else tasks.long()

    # --- state ---

    def train(self, mode: bool = True) -> Self:
        """As `nn.Module.train`, but frozen copies of old models stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if module is not self and getattr(module, "stays_in_eval_mode", False):
                module.eval()
        return self

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.t)

    def set_extra_state(self, state: Tensor) -> None:
        self.t = int(state)

    def save(self, path: str | Path) -> Path:
        """Write weights, buffers, settings and specification to one safetensors file (no pickle), atomically."""
        from clteach.storage import save_tensors

        probe = self.probe()
        about = {"learner": self.describe(), **({} if probe is None else {"probe": probe})}
        return save_tensors(path, dict(self.state_dict()), about)

    @torch.no_grad()
    def probe(self) -> list[list[float]] | None:
        """(2, n_out) logits of two inputs that are always the same: a file knows the weights of a network of one's own, and
        not what it does with them. None: there is none, or it gives no numbers."""
        if self.own_net is None or self.measure != "accuracy":
            return None
        numbers = torch.arange(2 * math.prod(self.spec.shape), dtype=torch.float64) * 0.618034 % 1
        x = numbers.float().view(2, *self.spec.shape).to(self.device)
        task = torch.zeros(2, dtype=torch.int64, device=self.device) if self.spec.scenario == "task" else None
        try:
            with in_eval_mode(self), seeded(0, "probe", device=self.device):
                logits = self.predict(x, task).float()
        except Exception:  # the user's code: what it cannot do here must not keep what was learned out of a file
            return None
        return logits.tolist() if bool(logits.isfinite().all()) else None

    def describe(self) -> dict[str, Any]:
        """What is needed to build this learner again, as plain JSON values."""
        about = {
            "name": self.name,
            "spec": dataclasses.asdict(self.spec),
            "cfg": dataclasses.asdict(self.cfg),
            "seed": self.seed,
            **({} if self.own_net is None else {"net": net_name(self.own_net)}),
        }
        plain: dict[str, Any] = json.loads(json.dumps(about))  # tuples become lists, as they would in a file
        return plain


class Classifier(Learner):
    """A learner with one classifier `net`, one Adam, and cross-entropy over the active units.

    Args:
        spec, cfg, seed: as in `Learner`.
        net: makes the network; None: an MLP with the layers of `Config.hidden`.
        reads: shape of what the network reads, where that is not the input itself; None: `spec.shape`.
    """

    takes_net = True

    def __init__(
        self,
        spec: Spec,
        cfg: Any = None,
        seed: int = 0,
        net: NetMaker | None = None,
        reads: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(spec, cfg, seed, net)
        self.reads = spec.shape if reads is None else reads
        with seeded(seed, "classifier"):
            self.net = self.make_net() if net is None else made(net, self.reads, spec.n_out)
        self.opts["classifier"] = adam([p for p in self.net.parameters() if p.requires_grad], self.cfg.lr)

    def make_net(self) -> nn.Module:
        """The network, with new weights."""
        return mlp(self.reads, self.cfg.hidden, self.spec.n_out)

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """() mean cross-entropy of logits (B, n_out), normalised over each sample's active units."""
        return F.cross_entropy(logits + self.log_active_now.index_select(0, batch.task), batch.y)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return {"current": self.cross_entropy(self.predict(batch.x, batch.task), batch)}

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.net(x)


class Generator(Learner):
    """A learner that can generate: anything with `sample` can feed generative replay."""

    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1], optionally of given classes (n,) or tasks (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define sample()")

    def sample_evenly(self, n: int, tasks: int, rng: torch.Generator) -> Tensor:
        """(n, *shape) samples in [0, 1] of the first `tasks` tasks in turn: what a step replays of the past."""
        return self.sample(n, rng, tasks=torch.arange(n, device=rng.device) % tasks)


def _check_layers(name: str, units: tuple[int, ...]) -> None:
    if any(not 1 <= n <= MOST_UNITS for n in units):
        raise ConfigError(f"{name}={units!r}: expected {LAYERS} and at most {MOST_UNITS:,}.")
    if sum(a * b for a, b in pairwise(units)) > MOST_WEIGHTS:
        raise ConfigError(
            f"{name}={units!r}: more than {MOST_WEIGHTS:,} weights between the layers, 4 GB. Expected fewer units."
        )


def choices(config: type[Learner.Config]) -> dict[str, tuple[str, ...]]:
    """The settings that choose between names, and the names: what is annotated `Literal`."""
    return {name: get_args(hint) for name, hint in get_type_hints(config).items() if get_origin(hint) is Literal}


def _log(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)


def total(losses: Losses) -> Tensor:
    """() the sum of the loss terms."""
    first, *rest = losses.values()
    return sum(rest, start=first)


def check_maker(net: Any) -> None:
    """ConfigError for what makes no network of (shape, K): a network itself, above all."""
    expected = (
        "Expected a function that makes one with new weights: net(shape of one input, output units K) -> nn.Module"
    )
    if isinstance(net, nn.Module):
        raise ConfigError(
            f"net= got a network, a {type(net).__name__}. {expected}. Put the lines that build it into such a function "
            "and give that: another seed, and a saved run, need new weights."
        )
    if not callable(net):
        raise ConfigError(f"net= got a {type(net).__name__}. {expected}.")
    try:
        inspect.signature(net).bind((1,), 1)
    except TypeError as error:
        raise ConfigError(f"net= {net_name(net)} cannot be called as net(shape, K) ({error}). {expected}.") from error
    except ValueError:
        return  # it does not say what it takes


def made(net: NetMaker, shape: tuple[int, ...], n_out: int) -> nn.Module:
    """The network that a maker of the user's own makes, tried on one input.

    Raises:
        ConfigError: no module, or one that does not make (1, n_out) logits of (1, *shape) inputs.
    """
    module = net(shape, n_out)
    expected = f"expected an nn.Module that makes (B, {n_out}) logits of inputs (B, {', '.join(map(str, shape))})"
    if not isinstance(module, nn.Module):
        raise ConfigError(f"net= {net_name(net)} made a {type(module).__name__}: {expected}.")
    try:
        with torch.no_grad(), in_eval_mode(module):
            found = tuple(module(torch.zeros(1, *shape)).shape)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ConfigError(
            f"the network that {net_name(net)} made failed on one input ({error}): {expected}."
        ) from error
    if found != (1, n_out):
        raise ConfigError(f"the network that {net_name(net)} made gives {found} of one input: {expected}.")
    return module


def net_name(net: NetMaker) -> str:
    """What a maker of networks is called, in files and messages."""
    return f"{getattr(net, '__module__', '?')}.{getattr(net, '__qualname__', type(net).__name__)}"
