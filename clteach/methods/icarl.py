r"""Keep the samples that stand for a class (iCaRL), and take an image for the class whose mean it is nearest to.

Incremental classifier and representation learning, Rebuffi et al. 2017. Three ideas against forgetting in Class-IL:

**Exemplars by herding.** As in experience replay a few real samples of every class are kept, but not random ones. With the
features φ(x) of a sample, its last hidden layer at length 1, and their mean μ over the class, samples are chosen one by one
so that the mean of the chosen stays as close to μ as it can:

$$p_k = \arg\min_x \Big\| \mu - \tfrac1k \big(\phi(x) + \textstyle\sum_{j<k} \phi(p_j)\big) \Big\|.$$

**Binary losses with distillation.** Every class has a sigmoid of its own, so new classes do not push old ones down as in a
softmax. The data of a step are new samples and exemplars alike. The target of a new class is the label, that of an old class
is what the network said before the task, softened by a temperature T where T > 1 (the paper has T = 1):

$$\mathcal{L} = \sum_{c\ \text{new}} \mathrm{BCE}\big(\sigma(z_c), [y = c]\big) +
  \sum_{c\ \text{old}} \mathrm{BCE}\big(\sigma(z_c), \sigma(z^{\text{old}}_c / T)\big).$$

**The nearest mean of exemplars.** The output layer sees many new samples and few old ones, so it favours the new classes.
It is not used to classify: an image goes to the class c with the smallest $\|\phi(x) - \mu_c\|$, where $\mu_c$ is the mean
of the class's exemplars under the features as they are now, at length 1 again. Exemplars are prototypes, not only data.

Here as in van de Ven et al. 2022: each class keeps its number of exemplars, where the paper divides a fixed room among the
classes so far; their code has T = 2, in the targets alone. The classes so far have a loss, also where `Spec.active_units` is
"all". A class can be an answer from the end of its task on, when it has exemplars.

Are herded exemplars better than random ones? As prototypes yes, their mean is the class's. As data no: herding takes what is
near the mean and leaves out what is rare. `exemplars="random"` is for comparing, and for the table of 2022, whose code reads
the features of a class in a shuffled order and takes images in the order of the data: what it keeps is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Losses, NetMaker, Noise, Phase
from clteach.learners.replay import TEMPERATURES, read_samples
from clteach.methods.er import ER
from clteach.models.frozen import frozen_copy, in_eval_mode, refresh
from clteach.models.nets import in_call_order, one_hot
from clteach.settings import within

FARTHEST = 4.0
"""The largest squared distance of two vectors of length 1: a class without exemplars is farther than that."""


class ICaRL(ER):
    """iCaRL (Rebuffi et al. 2017): herded exemplars, binary distillation, nearest mean of exemplars."""

    name = "icarl"
    summary = "herded exemplars, binary distillation, nearest class mean (Rebuffi 2017)"
    scenarios = ("class",)
    takes_reservoir = False
    needs = (
        "it compares an image with a mean for every class, and in the other scenarios classes share their output units"
    )

    @dataclass(frozen=True)
    class Config(ER.Config):
        """iCaRL's settings."""

        temperature: float = 1.0
        """temperature T > 0 of the sigmoids that are the targets of old classes"""
        exemplars: Literal["herding", "random"] = "herding"
        """how the samples that are kept of a class are chosen"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("icarl", *TEMPERATURES, temperature=self.temperature)

    units: Tensor  # (n_tasks, n_out) bool, the classes of each task
    stored: Tensor  # (capacity,) bool, the places of the memory that are filled
    share: Tensor  # () the share of the exemplars in all that this task learns from

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.old_net = frozen_copy(self.net)
        self.last = last_layer(self.net, self.reads, spec.n_out)
        self.register_buffer("units", spec.task_units())
        self.register_buffer("stored", torch.zeros(len(self.memory.y), dtype=torch.bool))
        self.register_buffer("share", torch.zeros(()))

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        refresh(self.old_net, self.net)
        exemplars = self.memory.filled(t)
        self.share.fill_(exemplars / (exemplars + len(data)))

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {**super().draw(n, rng), "mix": torch.rand(n, generator=rng, device=rng.device)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        new, old = self.units[self.t], self.units[: self.t].any(0) & ~self.units[self.t]  # (n_out,)
        if self.t > 0:
            batch = self.mixed(batch, noise)
        logits = self.net(batch.x)
        # L_new = Σ_c BCE(σ(z_c), [y = c])
        label = one_hot(batch.y, self.spec.n_out)
        losses = {"current": binary_loss(logits, label, new)}
        if self.t > 0:
            with torch.no_grad():
                target = (self.old_net(batch.x) / self.cfg.temperature).sigmoid()
            # L_old = Σ_c BCE(σ(z_c), σ(z_c^old / T))
            losses["distillation"] = binary_loss(logits, target, old)
        return losses

    def mixed(self, batch: Batch, noise: Noise) -> Batch:
        """The batch with some samples replaced by exemplars, as a batch of the task's data and the exemplars would have."""
        kept = self.memory.batch(noise["memory"])
        swap = noise["mix"] < self.share  # (B,)
        x = torch.where(swap.view(-1, *(1,) * (batch.x.ndim - 1)), kept.x, batch.x)
        return Batch(x, torch.where(swap, kept.y, batch.y), torch.where(swap, kept.task, batch.task))

    @torch.no_grad()
    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        if self.cfg.exemplars == "herding":
            with in_eval_mode(self.net):
                phi = torch.cat([self.features(batch.x) for batch in data.batches()])
            of_class = [(data.y == c).nonzero().flatten() for c in self.spec.units[t]]
            data = data.subset(torch.cat([place[herd(phi[place], self.memory.per_class)] for place in of_class]))
        self.memory.add(t, data, rng)  # of more samples than places: random ones
        self.stored[: self.memory.filled(t + 1)] = True

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        means, known = self.class_means()
        # -‖φ(x) - μ_c‖² = 2 φ(x)·μ_c - ‖φ(x)‖² - ‖μ_c‖²
        phi = self.features(x)
        near = 2 * phi @ means.T - phi.square().sum(1, keepdim=True) - means.square().sum(1)
        return torch.where(known, near, -FARTHEST - 1)

    def class_means(self) -> tuple[Tensor, Tensor]:
        """(n_out, F) the mean of each class's exemplars at length 1, and (n_out,) bool, which classes have exemplars."""
        everything = torch.arange(len(self.stored), device=self.device)
        phi = self.features(read_samples(self.memory.x, everything))
        member = one_hot(self.memory.y, self.spec.n_out) * self.stored[:, None]  # (capacity, n_out)
        # μ_c = Σ_{p in P_c} φ(p), at length 1 (so the number of exemplars does not matter)
        return F.normalize(member.T @ phi), member.any(0)

    def features(self, x: Tensor) -> Tensor:
        """φ(x): inputs (B, *shape) -> what the network's last layer reads, at length 1, (B, F)."""
        found: list[Tensor] = []
        hook = self.net.get_submodule(self.last).register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        try:
            self.net(x)
        finally:
            hook.remove()
        return F.normalize(found[0])


def last_layer(net: nn.Module, shape: tuple[int, ...], n_out: int) -> str:
    """The name of the linear layer that makes a network's logits: what it reads are the features.

    Raises:
        ConfigError: it is another kind of layer.
    """
    called = in_call_order(net, shape, nn.Linear)
    if not called or called[-1][1].shape[1:] != (n_out,):
        raise ConfigError(
            f"icarl compares what the last layer of a network reads, an nn.Linear with {n_out} outputs, and this network "
            "ends otherwise. Expected one that ends with such a layer."
        )
    return called[-1][0]


def binary_loss(logits: Tensor, target: Tensor, classes: Tensor) -> Tensor:
    """() binary cross-entropy, summed over some of the classes and averaged over the samples, in nats.

    Args:
        logits: (B, n_out), one sigmoid for each class.
        target: (B, n_out) in [0, 1].
        classes: (n_out,) bool, the classes that count.
    """
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (each * classes).sum(1).mean()


def herd(features: Tensor, n: int) -> Tensor:
    r"""The samples of a class whose mean follows the mean of all of them most closely, chosen one by one.

    Args:
        features: (N, F) of all samples of the class, of length 1.
        n: how many to choose.

    Returns:
        (min(n, N),) positions, in the order in which they were chosen; none twice.
    """
    n = min(n, len(features))
    mean = F.normalize(features.mean(0), dim=0)
    to_mean, squares = features @ mean, features.square().sum(1)
    total, taken = torch.zeros_like(mean), torch.zeros_like(squares)
    order = torch.empty(n, dtype=torch.int64, device=features.device)
    for k in range(1, n + 1):
        # k ‖μ - (s + φ)/k‖² = ‖φ‖²/k + 2 φ·(s/k - μ) + what is the same for all φ; s is the sum of those chosen before
        order[k - 1] = chosen = (squares / k + 2 * (features @ total / k - to_mean) + taken).argmin()
        total = total + features[chosen]
        taken[chosen] = torch.inf
    return order
