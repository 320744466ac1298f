r"""Continual learning with hypernetworks: do not protect the weights, protect how they are generated.

von Oswald, Henning, Grewe & Sacramento 2020. A hypernetwork $f_h$ with weights $\Theta_h$ turns a small vector, the task's
embedding $e_t$, into all weights of the network that solves the task (the target). To remember a task is to still generate
its weights from its embedding: one point in weight space per past task, instead of data or a penalty on every weight.
During task T, $\Theta_h$ and $e_T$ learn; the embeddings of tasks t < T are frozen:

$$\mathcal{L} = \mathcal{L}_{\text{task}}(\Theta_h, e_T) + \frac{\beta}{T-1} \sum_{t<T}
  \big\| f_h(e_t, \Theta_h^*) - f_h(e_t, \Theta_h + \Delta\Theta_h) \big\|^2 ,$$

with $\Theta_h^*$ from before task T. $\Delta\Theta_h$ is the step that the optimiser would take for the task's loss alone, a
constant for the gradient: the regulariser looks at the place where the task wants to go, not where it is (at
$\Theta_h = \Theta_h^*$ its gradient would be zero, and the first steps would go unprotected). The sum over past tasks is
computed in a form whose cost hardly grows with their number, see `clteach.models.hypernet`.

Which embedding to use for an image of unknown task? **HNET+ENT** tries all and takes the one whose network is surest, by the
entropy of its prediction. (HNET+R: `clteach.methods.hypernetwork_replay`, HNET+TIR: `clteach.methods.hypernetwork_tir`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Learner, Losses, NetMaker, Noise, Phase, made, total
from clteach.learners.optim import adam, step_preview
from clteach.models.hypernet import Hypernet, Target, check_sizes
from clteach.models.nets import conv_net, mlp, resnet32
from clteach.seeding import seeded


class ProtectsPast(Learner):
    """Base of the four: a step with the regulariser, for the hypernetwork that learns in this phase (if one does)."""

    def guarded(self) -> tuple[Hypernet, str, float] | None:
        """The hypernetwork that learns now, the name of its optimiser, and β; None: no hypernetwork learns."""
        raise NotImplementedError(f"{type(self).__name__} must define guarded()")

    def task_loss(self, batch: Batch, noise: Noise) -> Losses:
        """The loss of the current task alone, by terms."""
        raise NotImplementedError(f"{type(self).__name__} must define task_loss()")

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        if (guarded := self.guarded()) is not None:
            guarded[0].learn(t)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if (guarded := self.guarded()) is not None:
            guarded[0].remember(t)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        if self.cfg.past_tasks is None or self.t <= self.cfg.past_tasks:
            return {}
        # Stochastic regulariser: some of the past tasks, without replacement.
        return {"tasks": torch.randperm(self.t, generator=rng, device=rng.device)[: self.cfg.past_tasks]}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        losses, guarded = self.task_loss(batch, noise), self.guarded()
        if guarded is None or self.t == 0:
            return losses
        hypernet, _, beta = guarded
        return {**losses, "drift": beta * hypernet.drift(self.t, tasks=noise.get("tasks"))}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        guarded = self.guarded()
        if guarded is None or self.t == 0 or not self.cfg.lookahead:
            return super().step(batch, noise)
        hypernet, name, beta = guarded
        for opt in self.opts.values():
            opt.zero_grad(set_to_none=True)
        losses = self.task_loss(batch, noise)
        total(losses).backward()
        # ΔΘ_h, where the optimiser would go for the task alone
        theta = hypernet.shared()
        gradients = [p.grad for p in theta.values() if p.grad is not None]
        ahead = dict(zip(theta, step_preview(self.opts[name], list(theta.values()), gradients), strict=True))
        # β/(T-1) Σ_{t<T} ‖f_h(e_t, Θ_h*) - f_h(e_t, Θ_h + ΔΘ_h)‖², its gradient on top of the task's
        drift = beta * hypernet.drift(self.t, ahead, noise.get("tasks"))
        drift.backward()
        for opt in self.opts.values():
            opt.step()
        return {name: value.detach() for name, value in {**losses, "drift": drift}.items()}


class Hypernetwork(ProtectsPast):
    """Task-conditioned hypernetwork, full or chunked (von Oswald et al. 2020). The task picks the embedding."""

    name = "hypernetwork"
    summary = "generate each task's weights from an embedding (von Oswald 2020)"
    scenarios: ClassVar[tuple[str, ...]] = ("task",)
    needs = "it must know the task to choose the embedding; hypernetwork-ent, -r and -tir infer it"

    @dataclass(frozen=True)
    class Config(Learner.Config):
        """The hypernetwork's settings; `hidden` are the layers of the target."""

        fresh_optimizer: bool = True
        """forget Adam's moments at the start of every task"""
        target: Literal["mlp", "conv", "resnet32"] = "mlp"
        """the target network; `hidden` counts for "mlp" alone, the others need images (`net=` gives one of your own)"""
        beta: float = 0.01
        """strength β of the regulariser, ≥ 0 (0: nothing is protected)"""
        lookahead: bool = True
        """measure the drift where the task's own step would lead, instead of where the weights are"""
        past_tasks: int | None = None
        """past tasks in the regulariser per step, drawn at random; None: all"""
        embedding: int = 96
        """numbers in a task embedding"""
        chunk: int | None = 42000
        """weights generated at a time; None: all at once (a full hypernetwork)"""
        chunk_embedding: int = 96
        """numbers in a chunk embedding"""
        hyper_hidden: tuple[int, ...] = (10, 10)
        """units of the hypernetwork's hidden layers; empty: it is linear"""
        activation: Literal["relu", "elu"] = "relu"
        """activation of the hypernetwork's hidden layers"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.beta >= 0:
                raise ConfigError(f"hypernetwork: beta={self.beta}, expected a strength ≥ 0.")
            sizes = {"embedding": self.embedding, "chunk": self.chunk, "chunk_embedding": self.chunk_embedding}
            check_sizes("hypernetwork", **sizes, past_tasks=self.past_tasks)

    task_units: Tensor  # (n_tasks, n_out) bool: the output units of every task's network
    log_task_units: Tensor  # (n_tasks, n_out) the same as 0 and -inf

    takes_net = True  # the target

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        cfg = self.cfg
        with seeded(seed, "classifier"):
            if net is not None:
                self.target = Target(made(net, spec.shape, spec.n_out))
            elif cfg.target == "mlp":
                self.target = Target(mlp(spec.shape, cfg.hidden, spec.n_out))
            else:
                self.target = Target({"conv": conv_net, "resnet32": resnet32}[cfg.target](spec.shape, spec.n_out))
        with seeded(seed, "hypernetwork"):
            self.hypernet = Hypernet(
                self.target,
                spec.n_tasks,
                embedding=cfg.embedding,
                chunk=cfg.chunk,
                chunk_embedding=cfg.chunk_embedding,
                hidden=cfg.hyper_hidden,
                activation=cfg.activation,
            )
        self.opts["hypernetwork"] = adam(self.hypernet.parameters(), cfg.lr)
        self.register_buffer("task_units", spec.task_units())
        self.register_buffer(
            "log_task_units", torch.zeros(self.task_units.shape).masked_fill_(~self.task_units, -torch.inf)
        )

    def guarded(self) -> tuple[Hypernet, str, float] | None:
        return self.hypernet, "hypernetwork", self.cfg.beta

    def task_loss(self, batch: Batch, noise: Noise) -> Losses:
        logits = self.target(self.hypernet.weights(self.t), batch.x)
        # In every scenario the softmax runs over the task's own units: this task's network knows no others.
        return {"current": F.cross_entropy(logits + self.log_task_units[self.t], batch.y)}

    def logits(self, x: Tensor) -> Tensor:
        """(S, B, n_out) logits of x (B, *shape), by the networks of the S tasks seen so far."""
        return self.target.each(self.hypernet(self.hypernet.first(max(self.t, 0) + 1)), x, same_x=True)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) logits of inputs x (B, *shape) of the tasks `task` (B,), each by its own task's network.

        Raises:
            ConfigError: `task` is missing.
        """
        if task is None:
            raise ConfigError(f"{self.name}: predict needs the task of every sample (B,), got None: {self.needs}.")
        logits = x.new_zeros(len(x), self.spec.n_out)
        for t in task.unique().tolist():
            rows = task == t
            logits[rows] = self.target(self.hypernet.weights(t), x[rows])
        return logits

    def choose(self, logits: Tensor, task: Tensor) -> Tensor:
        """(B, n_out) log-probabilities by the network of each sample's task (B,), of the S networks' logits (S, B, n_out).

        Units that do not belong to the task get one far below all others, so that they can never win.
        """
        chosen = logits[task, torch.arange(len(task), device=task.device)] + self.log_task_units[task]
        return F.log_softmax(chosen, 1).clamp_min(-1e4)


class HypernetworkEnt(Hypernetwork):
    """HNET+ENT: the task is inferred, as the one whose network predicts with the lowest entropy (von Oswald et al. 2020)."""

    name = "hypernetwork-ent"
    summary = "hypernetwork, task inferred by lowest predictive entropy (von Oswald 2020)"
    scenarios = ("domain", "class")
    needs = "where the task is known there is nothing to infer; use the method hypernetwork"

    def entropy(self, logits: Tensor) -> Tensor:
        """(S, B) entropies in nats of the S networks' predictions, from their logits (S, B, n_out)."""
        log_p = F.log_softmax(logits + self.log_task_units[: len(logits), None], 2)
        # H = -Σ_c p_c log p_c, over the units of each task's own head
        return -(log_p.exp() * log_p.masked_fill(~self.task_units[: len(logits), None], 0)).sum(2)

    def infer_task(self, x: Tensor) -> Tensor:
        """(B,) the task, among those seen so far, whose network is surest about each of the inputs x (B, *shape)."""
        return self.entropy(self.logits(x)).argmin(0)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) log-probabilities of inputs x (B, *shape), by the network of the inferred task; `task` is ignored."""
        logits = self.logits(x)
        return self.choose(logits, self.entropy(logits).argmin(0))
