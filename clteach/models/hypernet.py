r"""Hypernetworks: a network whose output is the weights of another one, the target (von Oswald et al. 2020).

A small body turns the embedding $e_t$ of task t into features $\tilde h = [h; 1]$, and one large linear layer M turns these
into the target's weights, $w_t = \tilde h(e_t)\, M$. For a compact hypernetwork the weights are cut into C chunks of equal
size: the same body and M make them one by one, and a learned embedding $c_i$ tells which chunk is wanted,

$$w_{t,i} = \tilde h(e_t, c_i)\, M, \qquad i = 1 \dots C,$$

the last one truncated. To learn a task without changing what past embeddings generate, the *drift* from the snapshot
(marked by a star) that was taken when the task began is penalised, summed over past tasks k and all weights:

$$D = \sum_{k} \sum_i \big\| \tilde h_{k,i} M - \tilde h^*_{k,i} M^* \big\|^2 .$$

`direct_drift` computes it as it stands, by generating all weights of all past tasks. `Hypernet.drift` does not generate
one: with $\Delta = M - M^*$ and $E = \tilde h - \tilde h^*$ each term is $\|\tilde h \Delta + E M^*\|^2$, so

$$D = \big\langle \Delta\Delta^\top,\ \textstyle\sum \tilde h^\top \tilde h \big\rangle
  + 2 \big\langle \Delta M^{*\top},\ \sum \tilde h^\top E \big\rangle
  + \big\langle M^* M^{*\top},\ \sum E^\top E \big\rangle,$$

inner products of matrices no larger than the features. What is large, M, enters once however many tasks there are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from clteach.errors import ConfigError
from clteach.settings import MOST_UNITS, within

MOST_WEIGHTS = 10**12
"""The largest chunk; one that is larger than the target is the whole target."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU}


class Target:
    """A network without weights of its own: they are handed in as one flat vector with every call.

    Any module works whose forward pass writes nothing. Batch normalisation does: its running statistics would be shared by
    all tasks' networks, though each task has other activations. Use group or layer norm. Of a norm's gain, which starts at
    1 and not around 0, the difference from 1 is handed in.

    Args:
        module: gives the architecture; its weights only set the scale at which a hypernetwork starts.

    Raises:
        ConfigError: a module with buffers, which all tasks' networks would share.
    """

    def __init__(self, module: nn.Module) -> None:
        buffers = [name for name, _ in module.named_buffers()]
        if buffers:
            raise ConfigError(
                f"a target network cannot have buffers, and this one has {', '.join(buffers[:3])}: all tasks' networks "
                "would share them. Use group or layer norm in place of batch norm, or make the buffer a parameter."
            )
        self.shapes = {name: p.shape for name, p in module.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.n_weights = sum(self.sizes)
        norms = (nn.GroupNorm, nn.LayerNorm)
        self.gains = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, norms)}
        free = [p.detach().double() for name, p in module.named_parameters() if name not in self.gains]
        squares = sum(float(p.square().sum()) for p in free)
        self.rms = math.sqrt(squares / self.n_weights)  # root mean square of the usual initial weights
        self.module = module.to("meta")  # shapes without memory

    def named(self, weights: Tensor) -> dict[str, Tensor]:
        """A flat vector (P,) as the parameters of the module."""
        parts = weights.split(self.sizes)
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        return {name: part + 1 if name in self.gains else part for name, part in named.items()}

    def __call__(self, weights: Tensor, x: Tensor) -> Tensor:
        """Outputs (B, ...) for inputs x (B, ...), with weights (P,)."""
        return functional_call(self.module, self.named(weights), (x,))

    def each(self, weights: Tensor, x: Tensor, same_x: bool = False) -> Tensor:
        """(N, B, ...) outputs of N networks, weights (N, P), for x (N, B, ...) or one x (B, ...) for all (`same_x`)."""
        outputs: Tensor = vmap(self, in_dims=(0, None if same_x else 0))(weights, x)
        return outputs


class Body(nn.Module):
    """Embeddings in, features out, for all chunks at once.

    Args:
        embedding: numbers in a task embedding.
        chunks: number of chunks C.
        chunk_embedding: numbers in a chunk embedding (0: none).
        hidden: units of the hidden layers; empty: the hypernetwork is linear in its embeddings.
        activation: one of `ACTIVATIONS`.
    """

    def __init__(
        self, embedding: int, chunks: int, chunk_embedding: int, hidden: Sequence[int], activation: str
    ) -> None:
        super().__init__()
        self.chunk_embeddings = nn.Parameter(torch.randn(chunks, chunk_embedding))
        sizes = [embedding + chunk_embedding, *hidden]
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers)
        self.n_features = sizes[-1] + 1

    def forward(self, e: Tensor) -> Tensor:
        """Task embeddings (N, d) -> features h̃ = [h; 1] (N, C, n_features); the 1 is for the bias of the last layer."""
        c = self.chunk_embeddings
        if len(self.layers):
            first = self.layers[0]
            assert isinstance(first, nn.Linear)
            by_task, by_chunk = first.weight.split([e.shape[1], c.shape[1]], 1)
            # W [e, c] + b = W_e e + (W_c c + b), for every task with every chunk without writing down the pairs
            h = F.linear(e, by_task)[:, None] + F.linear(c, by_chunk, first.bias)
            h = self.layers[1:](h)
        else:
            h = torch.cat([e[:, None].expand(-1, len(c), -1), c.expand(len(e), -1, -1)], 2)
        return torch.cat([h, h.new_ones(*h.shape[:2], 1)], 2)


class Hypernet(nn.Module):
    """A task-conditioned hypernetwork, full or chunked, that knows how far it has drifted since the task began.

    Args:
        target: the network whose weights it generates.
        n_tasks: number of tasks T; all embeddings are made now, those of past tasks never change again.
        embedding: numbers in a task embedding.
        chunk: weights per chunk; None or at least the target's number: one chunk, no chunk embedding (a full hypernetwork).
        chunk_embedding: numbers in a chunk embedding.
        hidden: units of the body's hidden layers.
        activation: "relu" or "elu".
    """

    old_last: Tensor  # (F, chunk) M*
    old_gram: Tensor  # (2, F, F) M* M*ᵀ over the columns that all chunks use, and over those that the last one lacks
    old_features: Tensor  # (T, C, F) h̃*

    def __init__(
        self,
        target: Target,
        n_tasks: int,
        *,
        embedding: int = 96,
        chunk: int | None = 42000,
        chunk_embedding: int = 96,
        hidden: Sequence[int] = (10, 10),
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.n_weights = target.n_weights
        if chunk is None or chunk >= self.n_weights:
            chunk, chunk_embedding = self.n_weights, 0
        chunks = math.ceil(self.n_weights / chunk)
        self.last_size = self.n_weights - (chunks - 1) * chunk  # the last chunk may be shorter
        # One parameter per task: an optimiser passes over those without a gradient, and so never moves a past one.
        self.embeddings = nn.ParameterList([nn.Parameter(torch.randn(embedding)) for _ in range(n_tasks)])
        self.body = Body(embedding, chunks, chunk_embedding, hidden, activation)
        features = self.body.n_features
        self.last = nn.Parameter(torch.randn(features, chunk))  # M, the bias as its last row
        with torch.no_grad():  # start with weights as large as the target's usual ones
            some = self(self.first(min(n_tasks, 5)))
            self.last.mul_(target.rms / some.square().mean().sqrt())
        self.register_buffer("old_last", torch.zeros_like(self.last))
        self.register_buffer("old_gram", torch.zeros(2, features, features))
        self.register_buffer("old_features", torch.zeros(n_tasks, chunks, features))

    def forward(self, e: Tensor) -> Tensor:
        """Task embeddings (N, d) -> the target's weights (N, P)."""
        # w = h̃ M
        return (self.body(e) @ self.last).flatten(1)[:, : self.n_weights]

    def weights(self, t: int) -> Tensor:
        """(P,) the target's weights for task t."""
        return self(self.embeddings[t][None])[0]

    def first(self, n: int) -> Tensor:
        """(n, d) the embeddings of the first n tasks."""
        return torch.stack(list(self.embeddings[:n]))

    def shared(self) -> dict[str, nn.Parameter]:
        """Θ_h: all parameters but the task embeddings."""
        return {"last": self.last, **{f"body.{name}": p for name, p in self.body.named_parameters()}}

    def count(self) -> int:
        """Numbers that the target's weights of all tasks are generated from: Θ_h and the task embeddings."""
        return sum(p.numel() for p in self.parameters())

    def learn(self, t: int) -> None:
        """Of the task embeddings, let that of task t learn, and no other."""
        for k, e in enumerate(self.embeddings):
            e.requires_grad_(k == t)

    @torch.no_grad()
    def remember(self, t: int) -> None:
        """Take the snapshot that `drift` compares with, before task t begins."""
        self.old_last.copy_(self.last)
        for gram, part in zip(self.old_gram, self._parts(self.last), strict=True):
            # M* M*ᵀ, constant within a task
            torch.mm(part, part.T, out=gram)
        if t > 0:
            self.old_features[:t] = self.body(self.first(t))

    def drift(self, t: int, step: Mapping[str, Tensor] | None = None, tasks: Tensor | None = None) -> Tensor:
        """() Σ_k ‖w_k - w*_k‖² / K, how far the weights of past tasks have moved; the time hardly grows with t.

        Args:
            t: number of past tasks, at least 1.
            step: ΔΘ_h by the names of `shared`, to measure the drift at Θ_h + ΔΘ_h; a constant for the gradient.
            tasks: (K,) the past tasks to look at; None: all t.
        """
        e, old_h = self.first(t).detach(), self.old_features[:t]
        if tasks is not None:
            e, old_h = e.index_select(0, tasks), old_h.index_select(0, tasks)
        theta = {name: p if step is None else p + step[name] for name, p in self.shared().items()}
        last = theta.pop("last")
        h = functional_call(self.body, {name.removeprefix("body."): p for name, p in theta.items()}, (e,))  # (K, C, F)
        # Δ = M - M*,  E = h̃ - h̃*
        delta, both = last - self.old_last, torch.cat([h, h - old_h], 2)  # [h̃, E] (K, C, 2F)
        parts = zip(self._parts(delta), self._parts(self.old_last), self.old_gram, strict=True)
        drift = h.new_zeros(())
        # Columns of M that the last chunk lacks meet the features of the other chunks only.
        for (d, m, gram), chunks in zip(parts, (h.shape[1], h.shape[1] - 1), strict=True):
            rows = both[:, :chunks].flatten(0, 1)
            of_h, of_e = (rows.T @ rows).chunk(2)  # Σ [h̃, E]ᵀ[h̃, E], (2F, 2F), in quarters
            (hh, he), (_, ee) = of_h.chunk(2, 1), of_e.chunk(2, 1)
            drift = drift + GramForm.apply(d, m, gram, hh, he, ee)[0]
        return drift / len(e)

    def _parts(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """M (F, chunk) as the columns that every chunk uses, and those that the truncated last one lacks (maybe none)."""
        used, rest = last.split([self.last_size, last.shape[1] - self.last_size], 1)
        return used, rest


class GramForm(torch.autograd.Function):
    r"""The drift as inner products of small matrices, with its gradient in closed form.

    $$\langle \Delta\Delta^\top, HH \rangle + 2 \langle \Delta M^{*\top}, HE \rangle + \langle M^* M^{*\top}, EE \rangle$$

    Automatic differentiation would go through the large matrices twice as often.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        delta: Tensor, m: Tensor, mm: Tensor, hh: Tensor, he: Tensor, ee: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Δ and M* (F, n); M*M*ᵀ, Σh̃ᵀh̃, Σh̃ᵀE, ΣEᵀE (F, F) -> the value (), and ΔΔᵀ and ΔM*ᵀ for the backward pass."""
        dd, dm = delta @ delta.T, delta @ m.T
        return (dd * hh).sum() + 2 * (dm * he).sum() + (mm * ee).sum(), dd, dm

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs."""
        _, dd, dm = output
        ctx.mark_non_differentiable(dd, dm)
        ctx.save_for_backward(*inputs[:5], dd, dm)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of Δ, Σh̃ᵀh̃, Σh̃ᵀE and ΣEᵀE, given that of the value; M* is a constant."""
        delta, m, mm, hh, he, dd, dm = ctx.saved_tensors
        # ∂/∂Δ = 2 (HH Δ + HE M*), HH being symmetric
        by_delta = torch.addmm(hh @ delta, he, m).mul_(2 * grad)
        return by_delta, None, None, grad * dd, 2 * grad * dm, grad * mm


def direct_drift(hypernet: Hypernet, t: int, targets: Tensor) -> Tensor:
    """() the drift as it is defined, at the parameters as they are: every weight of every past task is generated.

    Args:
        hypernet: the hypernetwork.
        t: number of past tasks, at least 1.
        targets: (t, P) the weights that it generated for them when the current task began.
    """
    # 1/t Σ_k ‖f_h(e_k, Θ_h) - f_h(e_k, Θ_h*)‖²
    return (hypernet(hypernet.first(t).detach()) - targets).square().sum(1).mean()


def check_sizes(who: str, **sizes: int | None) -> None:
    """ConfigError unless all sizes that are given are at least 1, and those of embeddings such that memory holds them."""
    for name, value in sizes.items():
        within(who, 1, MOST_WEIGHTS if name.endswith("chunk") else MOST_UNITS, **{name: value})
