r"""Elastic weight consolidation (EWC): hold each weight the tighter, the more past tasks depend on it.

Kirkpatrick et al. 2017. In the view of Bayes, the posterior after task 1 is the prior for task 2:

$$\log p(\theta \,|\, D_1, D_2) = \log p(D_2 \,|\, \theta) + \log p(\theta \,|\, D_1) + \text{const}.$$

Approximating log p(θ|D₁) around its maximum θ* by a Gaussian (Laplace) whose precision is the diagonal of the Fisher
information F gives a quadratic penalty, weighed by a strength λ:

$$\mathcal{L}_t(\theta) = \mathcal{L}_{\text{task } t}(\theta)
  + \frac{\lambda}{2} \sum_{k<t} \sum_i F^{(k)}_i \big(\theta_i - \theta^{*(k)}_i\big)^2 .$$

Units: F is in squared nats per squared weight, so λ makes up for how small squared gradients of a well-fitted model are;
values from 10² to 10¹⁰ are usual, and the best one differs between scenarios by orders of magnitude.

The tasks' penalties are folded into one quadratic (`clteach.learners.penalty.Quadratic`), so a step costs the same in task 2
and in task 100. The Fisher information itself is computed in `clteach.learners.fisher`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn.utils import parameters_to_vector

from clteach.data.tasks import Data, Spec
from clteach.errors import ConfigError
from clteach.learners.fisher import fisher_diagonal
from clteach.learners.learner import Classifier, NetMaker
from clteach.learners.penalty import Quadratic


class EWC(Classifier):
    """Elastic weight consolidation (Kirkpatrick et al. 2017), one penalty per past task."""

    name = "ewc"
    summary = "hold the weights that past tasks depend on (Kirkpatrick 2017)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """EWC's settings."""

        lam: float = 1e4
        """strength λ of the penalty, ≥ 0 (0: fine-tuning)"""
        fisher_labels: Literal["all", "predicted", "true"] = "all"
        """labels in the Fisher information: expectation over all, most probable, or the true one (empirical Fisher)"""
        fisher_samples: int | None = None
        """samples of the task to estimate it from; None: all"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.lam >= 0:
                raise ConfigError(f"ewc: lam={self.lam}, expected a strength ≥ 0.")
            if self.fisher_samples is not None and self.fisher_samples < 1:
                raise ConfigError(f"ewc: fisher_samples={self.fisher_samples}, expected at least 1, or None for all.")

    penalty: Quadratic

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.penalty = Quadratic(self.net.parameters())

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        # The softmax of the Fisher information runs over the same units as in training.
        fisher = fisher_diagonal(self.net, data, self.active_now[t], self.cfg.fisher_labels, self.cfg.fisher_samples)
        # ½ λ Σ_i F_i (θ_i - θ*_i)²  with θ* = the weights at the end of the task
        self.penalty.add(self.cfg.lam * parameters_to_vector(fisher), self.penalty.flat())
