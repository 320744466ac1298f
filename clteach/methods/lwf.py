r"""Learning without forgetting (LwF): let the new task's images stand in for the old ones.

Li & Hoiem 2017. No generator and no memory: the *current* inputs are also given to the model as it was before the task,
and its answers, softened by a temperature T, are to be kept:

$$\mathcal{L} = w_1\, \mathcal{L}_{\text{current}} + w_2 \cdot \Big({-T^2} \sum_c p^{\text{old}}_c(T)\, \log p_c(T)\Big).$$

It works as far as the new inputs look like the old ones to the network. The weights differ between papers: with n tasks so
far, $w_1 = 1/n,\ w_2 = 1 - 1/n$ (van de Ven & Tolias 2018-2020), or $w_1 = 1,\ w_2 = (n - 1) / T^2$, and $w_2 = 1 / T^2$ in
Class-IL (van de Ven et al. 2022, whose published code has no factor $T^2$). And the code behind the tables of 2018 and 2019
averaged over the classes c instead of summing, which its authors mended in May 2019: another factor, 1 over the number of
classes that compete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from clteach.data.tasks import Batch, Data, Spec
from clteach.learners.learner import Classifier, Losses, NetMaker, Noise, Phase
from clteach.learners.replay import TEMPERATURES, imitation_loss
from clteach.models.frozen import frozen_copy, refresh
from clteach.settings import within


class LwF(Classifier):
    """Learning without forgetting (Li & Hoiem 2017)."""

    name = "lwf"
    summary = "keep the old model's answers on the new inputs (Li & Hoiem 2017)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """LwF's settings."""

        temperature: float = 2.0
        """softmax temperature T > 0 of the targets"""
        weighting: Literal["share", "sum"] = "share"
        """share: 1/n current + (1 - 1/n) distillation (2018-2020); sum: current + (n - 1) / T² distillation (2022)"""
        averaged: bool = False
        """average the distillation over the classes, where it should be summed (the tables of 2018 and 2019)"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("lwf", *TEMPERATURES, temperature=self.temperature)

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.old_net = frozen_copy(self.net)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        refresh(self.old_net, self.net)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        logits = self.net(batch.x)
        current = self.cross_entropy(logits, batch)
        if self.t == 0:
            return {"current": current}
        with torch.no_grad():
            old_logits = self.old_net(batch.x)
        distillation = imitation_loss(
            logits, old_logits, self.old_active, self.new_active, "soft", self.cfg.temperature
        )
        if self.cfg.averaged:
            # (-T² Σ_c ...) / C with C units competing; heads of different sizes count with their mean
            distillation = distillation / self.new_active.sum(1).float().mean()
        n = self.t + 1
        if self.cfg.weighting == "share":
            w1, w2 = 1 / n, 1 - 1 / n
        else:
            w1, w2 = 1.0, (1.0 if self.spec.scenario == "class" else n - 1.0) / self.cfg.temperature**2
        return {"current": w1 * current, "distillation": w2 * distillation}
