r"""FROMP: keep what the network says where it matters, not the weights it says it with.

Functional regularisation of memorable past, Pan et al. 2020. EWC ties weights to their old values, which says little about
what they do together. FROMP ties the network's *function*, at a few inputs of the past.

**Memorable points.** An input says much about where the border between classes runs if the network is not sure of it: if the
diagonal of the softmax's Hessian is large. Of every class those are kept for which

$$\sum_c p_c(x)\,\big(1 - p_c(x)\big)$$

is largest at the end of their task.

**The functional prior.** With F the sum over all past samples of the diagonal of the Fisher information and a prior with the
precision δ, Laplace's approximation gives the posterior N(θ*, Σ) over weights with Σ = diag(1 / (F + δ)). To first order a
belief about weights is a belief about functions: the probabilities of class c at the memorable points, a vector m_c, are a
Gaussian (process) around the old ones, with the kernel (`clteach.learners.kernel`)

$$K_c[i, j] = \nabla_\theta p_c(x_i)^\top\, \Sigma\; \nabla_\theta p_c(x_j) .$$

Its negative logarithm is the penalty on the next task, with the strength τ:

$$\mathcal{L} = \mathcal{L}_{\text{current}}
  + \frac{\tau}{2} \sum_c (m_c - m_c^{\text{old}})^\top (K_c + \epsilon I)^{-1} (m_c - m_c^{\text{old}}) .$$

K weighs: what the posterior leaves open may change, what it has pinned down may not, and points that hang together move
together. In Task-IL each past task has its own softmax and its own kernels; elsewhere all memorable points share one kernel
per class.

Everything about the past, m_old and K⁻¹, is computed once, between two tasks. A step needs the probabilities of some
memorable points alone: as many as the batch has samples, drawn anew each time, with the rows and columns of K⁻¹ that belong
to them (van de Ven et al. 2022; Pan et al. take all, and their τ divides the loss of the current task instead). Both clip
the gradient's norm, because K⁻¹ can be as large as 1/ε.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clteach.data.tasks import Batch, Data, Spec
from clteach.learners.fisher import fisher_diagonal
from clteach.learners.kernel import probability_kernel
from clteach.learners.learner import Classifier, Losses, NetMaker, Noise, Phase
from clteach.learners.replay import Memory
from clteach.models.frozen import in_eval_mode
from clteach.settings import MOST_SAMPLES, within


class Block(NamedTuple):
    """Memorable points that share kernels: those of a task in Task-IL, else all of them."""

    points: Tensor
    """(n,) positions in the memory"""
    units: Tensor
    """(U,) output units that compete"""
    columns: Tensor
    """(U,) where these stand in the last dimension of what is stored"""


class FROMP(Classifier):
    """Functional regularisation of memorable past (Pan et al. 2020)."""

    name = "fromp"
    summary = "keep the answers at memorable points (Pan 2020)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """FROMP's settings."""

        tau: float = 1.0
        """strength τ of the functional prior, in [0, 1e12] (0: fine-tuning)"""
        per_class: int = 100
        """memorable points per class of a task"""
        prior_precision: float = 1e-3
        """precision δ of the weights before any data, in [1e-12, 1e12]"""
        jitter: float = 1e-6
        """ε on the diagonal of a kernel before it is inverted, in [1e-10, 1e6]; at least 1e-10 of its largest entry"""
        clip: float = 1.0
        """largest norm of the gradient, in [1e-12, 1e12]"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("fromp", 0.0, 1e12, tau=self.tau)
            within("memory", 1, MOST_SAMPLES, per_class=self.per_class)
            within("fromp", 1e-12, 1e12, prior_precision=self.prior_precision, clip=self.clip)
            within("fromp", 1e-10, 1e6, jitter=self.jitter)

    fisher: Tensor  # (P,) diagonal of the Fisher information, summed over all samples so far
    starts: Tensor  # (blocks,) position in the memory of each block's first point
    columns: Tensor  # (n_tasks, U) the unit behind each column, for the points of a task
    old_probabilities: Tensor  # (N, U) m_old of the memorable points
    old_precision: Tensor  # (blocks, n, n, U) K⁻¹

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.memory = Memory(spec, self.cfg.per_class)
        past = self.memory.sizes[:-1]  # the last task has no successor
        if spec.scenario == "task":
            most = max(map(len, spec.units))
            columns = [[*units, *units[:1] * (most - len(units))] for units in spec.units]
            starts, n = [self.memory.filled(s) for s in range(len(past))], max(past, default=0)
        else:
            columns = [[*range(spec.n_out)]] * spec.n_tasks
            starts, n = [0], sum(past)
        self.register_buffer("fisher", torch.zeros(sum(p.numel() for p in self.net.parameters())))
        self.register_buffer("starts", torch.tensor(starts, dtype=torch.int64))
        self.register_buffer("columns", torch.tensor(columns))
        self.register_buffer("old_probabilities", torch.zeros(sum(past), len(columns[0])))
        self.register_buffer("old_precision", torch.zeros(len(starts), n, n, len(columns[0])))

    def blocks(self) -> list[Block]:
        """The memorable points of the past tasks, and over which units their probabilities are normalised now."""
        if self.spec.scenario != "task":
            units = self.active_now[0].nonzero().flatten()
            return [Block(torch.arange(self.memory.filled(self.t), device=self.device), units, units)]
        parts = []
        for s, units in enumerate(map(self._tensor, self.spec.units[: self.t])):
            points = torch.arange(self.memory.filled(s), self.memory.filled(s + 1), device=self.device)
            parts.append(Block(points, units, torch.arange(len(units), device=self.device)))
        return parts

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if t == 0:
            return
        # Σ = diag(1 / (F + δ))
        variance = 1 / (self.fisher + self.cfg.prior_precision)
        parameters = [*self.net.parameters()]
        each = [v.view_as(p) for p, v in zip(parameters, variance.split([p.numel() for p in parameters]), strict=True)]
        for block, (points, units, columns) in enumerate(self.blocks()):
            x = self.memory.batch(points).x
            with torch.no_grad(), in_eval_mode(self.net):
                self.old_probabilities[points[:, None], columns] = self.net(x).index_select(1, units).softmax(1)
            kernel = probability_kernel(self.net, x, units, each)  # (U, n, n)
            diagonal = kernel.diagonal(dim1=1, dim2=2)
            # Where a kernel is huge, ε would drown in the rounding of its float64 entries.
            diagonal += (1e-10 * diagonal.amax(1, keepdim=True)).clamp_min(self.cfg.jitter)
            factor, failed = torch.linalg.cholesky_ex(kernel)
            if bool(failed.any()) or not bool(factor.isfinite().all()):
                raise self.diverged(f"the kernel of its memorable points before task {t + 1} cannot be inverted")
            # (K_c + ε I)⁻¹
            inverse = torch.cholesky_inverse(factor).permute(1, 2, 0).float()
            self.old_precision[block][: len(points), : len(points), columns] = inverse

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        if self.t == 0:
            return {}
        sizes = self.memory.sizes[: self.t] if self.spec.scenario == "task" else [self.memory.filled(self.t)]
        each = min(math.ceil(n / len(sizes)), *sizes)
        return {"points": torch.stack([torch.randperm(s, generator=rng, device=rng.device)[:each] for s in sizes])}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        if self.t == 0:
            return super().loss(batch, noise)
        index = noise["points"]  # (blocks, m) positions within each block
        points = (index + self.starts[: len(index), None]).flatten()
        old = self.memory.batch(points)
        logits = self.net(torch.cat([batch.x, old.x]))
        active = self.log_active_now.index_select(0, old.task)
        probabilities = (logits[len(batch.y) :] + active).softmax(1).gather(1, self.columns[old.task])
        # m - m_old, (blocks, m, U)
        change = (probabilities - self.old_probabilities.index_select(0, points)).unflatten(0, index.shape)
        block = torch.arange(len(index), device=index.device)[:, None, None]
        precision = self.old_precision[block, index[:, :, None], index[:, None]]  # (blocks, m, m, U)
        # ½ τ Σ_c (m_c - m_c_old)ᵀ K_c⁻¹ (m_c - m_c_old)
        prior = 0.5 * self.cfg.tau * torch.einsum("biu,biju,bju->", change, precision, change)
        return {"current": self.cross_entropy(logits[: len(batch.y)], batch), "prior": prior}

    def clip_grad_(self) -> None:
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        # g ← g · min(1, clip / ‖g‖)
        norm = torch.stack([g.norm() for g in gradients]).norm()
        scale = (self.cfg.clip / (norm + 1e-6)).clamp(max=1.0)
        for g in gradients:
            g.mul_(scale)

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        self.memory.add(t, data.subset(self.memorable(t, data)), rng)
        # F += Σ_n Σ_c p_c (∂ log p_c / ∂θ)², a sum over samples where `fisher_diagonal` gives the mean
        fisher = fisher_diagonal(self.net, data, self.active_now[t])
        self.fisher += len(data) * torch.cat([f.flatten() for f in fisher])

    @torch.no_grad()
    def memorable(self, t: int, data: Data) -> Tensor:
        """Positions of the memorable points in task t's data: of every class those with the largest Σ_c p_c (1 - p_c)."""
        scores = []
        with in_eval_mode(self.net):
            for batch in data.batches():
                p = self.net(batch.x).masked_fill(~self.active_now[t], -torch.inf).softmax(1)
                scores.append((p * (1 - p)).sum(1))
        score = torch.cat(scores)
        chosen = []
        for unit in self.spec.units[t]:
            of_class = (data.y == unit).nonzero().flatten()
            chosen.append(of_class[score[of_class].topk(min(self.cfg.per_class, len(of_class))).indices])
        return torch.cat(chosen)

    def _tensor(self, values: tuple[int, ...]) -> Tensor:
        return torch.tensor(values, device=self.device)
