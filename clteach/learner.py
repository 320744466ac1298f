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

import copy
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer

from clteach.errors import ConfigError, unknown
from clteach.generation import feature_classifier, features, frechet_distance, precision_recall, quality
from clteach.nets import LeNet, mlp
from clteach.seeding import generator, seeded, whole_seed
from clteach.streams import Batch, Data, Spec, Stream

Noise = Mapping[str, Tensor]
Losses = dict[str, Tensor]


def constant(progress: float) -> float:
    """The learning-rate scale 1 at every progress in [0, 1)."""
    return 1.0


class Phase(NamedTuple):
    """A stretch of training: `steps` steps, learning rates times `lr_scale(step / steps)`, moments kept or forgotten."""

    name: str
    steps: int
    lr_scale: Callable[[float], float] = constant
    fresh_optimizer: bool = False


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
        for name, names in choices(type(self)).items():
            if getattr(self, name) not in names:
                raise unknown(f"value of {name}", str(getattr(self, name)), names)
        for name, units in vars(self).items():
            layers = name.endswith("hidden") and units is not None
            if layers and (not isinstance(units, (tuple, list)) or any(n < 1 for n in units)):
                raise ConfigError(f"{name}={units!r}: expected a tuple of layers, each of at least one unit.")
        if not self.lr > 0:
            raise ConfigError(f"lr={self.lr}: expected lr > 0.")


def choices(config: type[Config]) -> dict[str, tuple[str, ...]]:
    """The settings that choose between names, and the names: what is annotated `Literal`."""
    return {name: get_args(hint) for name, hint in get_type_hints(config).items() if get_origin(hint) is Literal}


class Quadratic(nn.Module):
    r"""A sum of quadratic penalties, ½ Σ_k Σ_i a_ki (θ_i - θ*_ki)², folded into one.

    Completing the square, with A = Σ_k a_k and C = Σ_k a_k θ*_k / A, the sum is ½ Σ_i A_i (θ_i - C_i)² + const. So memory
    and time do not grow with the number of tasks, and the gradient A (θ - C) is added in closed form: sending the penalty
    through autograd would cost half the speed.

    Args:
        parameters: the penalised parameters θ, in a fixed order.
    """

    curvature: Tensor  # A, (P,)
    centre: Tensor  # C, (P,)
    constant: Tensor  # ()

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._theta = list(parameters)  # a plain list: the parameters belong to the learner, not to its penalty
        size = sum(p.numel() for p in self._theta)
        self.register_buffer("curvature", torch.zeros(size))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("constant", torch.zeros(()))

    def flat(self, tensors: Iterable[Tensor] | None = None) -> Tensor:
        """(P,) the tensors (default: the parameters) one after the other, detached."""
        return torch.cat([t.detach().flatten() for t in (self._theta if tensors is None else tensors)])

    def add(self, curvature: Tensor, centre: Tensor) -> None:
        """Add one more penalty ½ Σ a (θ - c)²; `curvature` a ≥ 0 and `centre` c are (P,)."""
        total = self.curvature + curvature
        # A C² + a c² - (A + a) C'² = A a (C - c)² / (A + a)
        safe = torch.where(total > 0, total, 1)
        self.constant += 0.5 * (self.curvature * curvature / safe * (self.centre - centre).square()).sum()
        self.centre.copy_(torch.where(total > 0, self.centre + curvature / safe * (centre - self.centre), centre))
        self.curvature.copy_(total)

    def replace(self, curvature: Tensor, centre: Tensor) -> None:
        """Forget the penalties so far and hold this one alone (SI and online EWC move their centre)."""
        self.curvature.copy_(curvature)
        self.centre.copy_(centre)
        self.constant.zero_()

    def value(self) -> Tensor:
        """() the penalty, ½ Σ A (θ - C)² + const."""
        return 0.5 * (self.curvature * (self.flat() - self.centre).square()).sum() + self.constant

    def add_grad_(self) -> None:
        """Add the penalty's gradient A (θ - C) to every parameter's `.grad`, in place."""
        sizes = [p.numel() for p in self._theta]
        for p, a, c in zip(self._theta, self.curvature.split(sizes), self.centre.split(sizes), strict=True):
            assert p.grad is not None
            p.grad.addcmul_(a.view_as(p), p.detach() - c.view_as(p))


def adam(parameters: Iterable[nn.Parameter], lr: float, **settings: Any) -> Adam:
    """Adam in one fused kernel (one pass over the parameters instead of about ten)."""
    return Adam(parameters, lr=lr, fused=True, **settings)


IDLE_EVERY = 100
"""Steps between two calls of `drop_idle_moments` in the training loop; at β₁ = 0.9 a moment needs 170 to become denormal."""


@torch.no_grad()
def drop_idle_moments(optimizer: Optimizer) -> None:
    r"""Set Adam's moments to 0 where they are too small to move a weight: on a CPU they make every later step slow.

    A weight that no sample reaches any more (a pixel that is black in this task, the output unit of an old one) gets the
    gradient 0, and its moment m shrinks by β₁ in every step. Below 1e-38 float32 numbers are *denormal*, and a CPU takes
    many times longer for those. Nor do they go away: 0.9 times the smallest number above 0 is rounded to that number
    again. On split MNIST three quarters of a network's moments end there, and its steps take twice the time.

    The weights do not notice. Adam's step is :math:`-lr\, \hat m / (\sqrt{\hat v} + ε)`: with :math:`|m| < 10^{-22} ε` it
    is below :math:`10^{-21} lr`, and :math:`\sqrt v < 10^{-9} ε` is lost when ε is added. Optimisers without such moments
    are left alone.
    """
    for group in optimizer.param_groups:
        eps = group.get("eps", 0.0)
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "exp_avg" in state and "exp_avg_sq" in state:
                state["exp_avg"].masked_fill_(state["exp_avg"].abs() < 1e-22 * eps, 0)
                state["exp_avg_sq"].masked_fill_(state["exp_avg_sq"] < (1e-9 * eps) ** 2, 0)


@torch.no_grad()
def step_preview(optimizer: Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> list[Tensor]:
    r"""The step Δθ that an optimiser would take with these gradients, without taking it: nothing is written.

    Args:
        optimizer: Adam or SGD, without weight decay, momentum of SGD or other extras.
        parameters: some of the optimiser's parameters.
        gradients: one per parameter, of the same shape.

    Returns:
        Δθ, one per parameter.

    Raises:
        ConfigError: another optimiser, an extra, or a parameter that the optimiser does not have.
    """
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    extras = ("weight_decay", "momentum", "amsgrad", "maximize")
    if type(optimizer) not in (Adam, SGD) or any(group.get(key) for group in optimizer.param_groups for key in extras):
        kind = type(optimizer).__name__
        raise ConfigError(f"no preview of a step of {kind} with these settings: expected plain Adam or SGD.")
    steps = []
    for p, g in zip(parameters, gradients, strict=True):
        if p not in groups:
            raise ConfigError("a parameter does not belong to this optimiser: preview with the one that trains it.")
        group, state = groups[p], optimizer.state.get(p)
        if isinstance(optimizer, SGD):
            steps.append(-group["lr"] * g)
            continue
        beta1, beta2 = group["betas"]
        k = state["step"].double() + 1 if state else 1.0  # stays on the device
        # m = β₁ m + (1 - β₁) g,  v = β₂ v + (1 - β₂) g²
        m = state["exp_avg"].lerp(g, 1 - beta1) if state else (1 - beta1) * g
        v = (state["exp_avg_sq"] * beta2).addcmul_(g, g, value=1 - beta2) if state else (1 - beta2) * g.square()
        # Δθ = -lr · m / (1 - β₁ᵏ) / (√(v / (1 - β₂ᵏ)) + ε)
        scale = v.sqrt_().mul_((1 - beta2**k) ** -0.5).add_(group["eps"])
        steps.append(m.div_(scale).mul_(-group["lr"] / (1 - beta1**k)))
    return steps


def _log(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)


def total(losses: Losses) -> Tensor:
    """() the sum of the loss terms."""
    first, *rest = losses.values()
    return sum(rest, start=first)


class Learner(nn.Module):
    """Base of all methods. See the module's docstring for the order of the calls.

    A method sets the class attributes, builds its networks and `opts` in `__init__`, and overrides what differs.

    Args:
        spec: the stream's specification.
        cfg: the method's settings; None: the defaults.
        seed: seed of the initial weights.

    Raises:
        ConfigError: the method does not support the scenario, or features as inputs.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    scenarios: ClassVar[tuple[str, ...]] = ("task", "domain", "class")
    needs: ClassVar[str] = ""  # why a scenario is missing from `scenarios`, for the error message
    takes_features: ClassVar[bool] = True  # does it work on an encoded stream, whose inputs are not in [0, 1]?
    measure: ClassVar[str] = "accuracy"  # what `evaluate` returns, one of `clteach.metrics.MEASURES`
    Config: ClassVar[type[Config]] = Config

    mask: Tensor  # (n_tasks, n_out) bool: active units of a sample of each task, now
    log_mask: Tensor  # (n_tasks, n_out) the same as 0 and -inf, to be added to logits: cheaper than filling by `mask`
    past_mask: Tensor  # (n_tasks or 1, n_out) bool: units that replayed data competes over, a row per past head
    opts: dict[str, Optimizer]
    penalty: Quadratic | None

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__()
        if spec.scenario not in self.scenarios:
            raise ConfigError(
                f"{self.name} does not support the scenario {spec.scenario!r}: {self.needs}. "
                f"Choose {' or '.join(repr(s) for s in self.scenarios)}, or another method."
            )
        if spec.encoded_from is not None and not self.takes_features:
            raise ConfigError(
                f"{self.name} generates inputs in [0, 1], and those of this stream are features, any numbers: leave the "
                "extractor out, or choose a method that replays features (generative-replay, brain-inspired-replay)."
            )
        cfg = self.Config() if cfg is None else cfg
        if not isinstance(cfg, self.Config):
            raise ConfigError(f"{self.name} got settings of type {type(cfg).__name__}, expected {self.name}'s Config.")
        self.spec, self.seed = spec, whole_seed(seed)
        self.cfg: Any = cfg
        self.t = -1  # the task being learned; -1: none yet
        self.phase: Phase | None = None
        self.opts = {}
        self.penalty = None
        self.register_buffer("mask", spec.active_table(1))
        self.register_buffer("log_mask", _log(self.mask))
        self.register_buffer("past_mask", torch.zeros_like(spec.replay_masks(spec.n_tasks)))

    @classmethod
    def make(cls, spec: Spec, cfg: Any = None, seed: int = 0) -> Learner:
        """The learner that these settings ask for: one of this class, unless a setting chooses between several."""
        return cls(spec, cfg, seed)

    @property
    def known(self) -> Tensor:
        """(H, n_out) bool, the units the model of the past tasks knows: a row per past head in Task-IL, else one row."""
        return self.past_mask[: self.t] if self.spec.scenario == "task" else self.past_mask

    @property
    def active(self) -> Tensor:
        """(H, n_out) bool, the units the model competes over now on samples of the past: rows as in `known`."""
        return self.known if self.spec.scenario == "task" else self.mask[:1]

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
        self.mask.copy_(self.spec.active_table(t + 1))
        self.log_mask.copy_(_log(self.mask))
        if t > 0:
            rows = self.spec.replay_masks(t)
            self.past_mask[: len(rows)] = rows.to(self.past_mask.device)

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

    @torch.no_grad()
    def evaluate(self, t: int, data: Data) -> float:
        """Accuracy in [0, 1] on data of task t, among the units active now."""
        correct = torch.zeros((), dtype=torch.int64, device=data.device)
        for batch in data.batches():
            logits = self.predict(batch.x, batch.task).masked_fill(~self.mask[batch.task], -torch.inf)
            correct += (logits.argmax(1) == batch.y).sum()
        return float(correct) / len(data)

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

        return save_tensors(path, dict(self.state_dict()), {"learner": self.describe()})

    def describe(self) -> dict[str, Any]:
        """What is needed to build this learner again, as plain JSON values."""
        about = {
            "name": self.name,
            "spec": dataclasses.asdict(self.spec),
            "cfg": dataclasses.asdict(self.cfg),
            "seed": self.seed,
        }
        plain: dict[str, Any] = json.loads(json.dumps(about))  # tuples become lists, as they would in a file
        return plain


class Classifier(Learner):
    """A learner with one classifier `net` (an MLP), one Adam, and cross-entropy over the active units."""

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        with seeded(seed, "classifier"):
            self.net = self.make_net()
        self.opts["classifier"] = adam(self.net.parameters(), self.cfg.lr)

    def make_net(self) -> nn.Sequential:
        """The network, with new weights."""
        return mlp(self.spec.shape, self.cfg.hidden, self.spec.n_out)

    def cross_entropy(self, logits: Tensor, batch: Batch) -> Tensor:
        """() mean cross-entropy of logits (B, n_out), normalised over each sample's active units."""
        return F.cross_entropy(logits + self.log_mask.index_select(0, batch.task), batch.y)

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


@dataclass(frozen=True)
class GeneratorConfig(Config):
    """Settings of every pure generator."""

    features: Literal["lenet", "inputs"] = "lenet"
    """space in which FID is measured: a LeNet's 84 features (trained on the data set), or the inputs as they are"""


class PureGenerator(Generator):
    """A generator that classifies nothing: it is judged by its samples of each task, by their FID."""

    scenarios = ("class",)
    needs = "the scenarios differ only in labels, which a generator does not see"
    takes_features = False
    measure = "fid"
    Config = GeneratorConfig

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        # The judge's weights are part of the learner: one that is loaded from a file is judged in the same space.
        if self.cfg.features == "lenet":
            if len(spec.shape) != 3:
                raise ConfigError(
                    f"{self.name}: a LeNet needs images, the inputs are of shape {spec.shape}; set features='inputs'."
                )
            with seeded(seed, "judge"):
                self.judge = frozen_copy(LeNet(spec.shape[0], spec.n_out))

    def prepare(self, stream: Stream) -> None:
        if self.cfg.features == "lenet":
            refresh(self.judge, feature_classifier(stream))

    def features(self, x: Tensor) -> Tensor:
        """Inputs (N, *shape) -> what FID compares (N, d), on the CPU."""
        return features(self.judge, x) if self.cfg.features == "lenet" else x.flatten(1).cpu()

    @torch.no_grad()
    def evaluate(self, t: int, data: Data) -> float:
        """FID ≥ 0 between the data of task t and as many samples of that task; always from the same random numbers."""
        real = torch.cat([self.features(batch.x) for batch in data.batches()])
        return frechet_distance(real, self.features(self.judged(t, data)))

    @torch.no_grad()
    def quality(self, t: int, data: Data) -> dict[str, float]:
        """All measures of `clteach.generation.quality` on data of task t, of the same samples as in `evaluate`.

        In the space of the inputs there is no classifier, and so no Inception Score.
        """
        real, sampled = torch.cat([batch.x for batch in data.batches()]), self.judged(t, data)
        if self.cfg.features == "lenet":
            return quality(self.judge, real, sampled)
        x, y = self.features(real), self.features(sampled)
        return {"fid": frechet_distance(x, y), **precision_recall(x, y)._asdict()}

    def judged(self, t: int, data: Data) -> Tensor:
        """(N, *shape) samples of task t, as many as there are data.

        Raises:
            ConfigError: samples that are no numbers: training diverged.
        """
        rng = generator(self.seed, "evaluate", t, device=data.device)
        samples = self.sample(len(data), rng, tasks=torch.full((len(data),), t, device=data.device))
        if not bool(samples.isfinite().all()):
            raise ConfigError(
                f"{self.name}, seed {self.seed}: training diverged, the samples of task {t + 1} are not finite. Expected "
                f"numbers: choose a smaller learning rate than lr={self.cfg.lr}."
            )
        return samples

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of tasks (n,); without them, of all tasks learned so far, equally often.

        Raises:
            ConfigError: classes are asked for, which a generator without labels cannot choose.
        """
        if classes is not None:
            raise ConfigError(f"{self.name} has seen no labels: it can sample chosen tasks, but not chosen classes.")
        if tasks is None:
            tasks = torch.randint(max(self.t, 0) + 1, (n,), generator=rng, device=rng.device)
        return self.dream(tasks, rng)

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        """(n, *shape) samples in [0, 1], one of each of the tasks (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define dream()")


M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy that never learns: the old model's place, refreshed with `refresh` when a task begins."""
    frozen = copy.deepcopy(module).requires_grad_(False).eval()
    frozen.stays_in_eval_mode = True  # type: ignore[assignment]  # see Learner.train
    return frozen


@torch.no_grad()
def refresh(snapshot: nn.Module, module: nn.Module) -> None:
    """Copy the parameters and buffers of `module` into its frozen copy, in place."""
    for old, new in zip(_tensors(snapshot), _tensors(module), strict=True):
        old.copy_(new)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
