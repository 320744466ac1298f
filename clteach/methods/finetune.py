r"""Fine-tuning: train on each task as it comes, and do nothing about forgetting.

$$\mathcal{L}_t(\theta) = \mathbb{E}_{(x, y) \sim \text{task } t}\big[-\log p_\theta(y \,|\, x)\big]$$

The lower bound that every method is compared with ("None" in the papers' tables). Nothing in this loss mentions the past,
so wherever old and new tasks disagree about a weight, the new task wins: catastrophic forgetting
(McCloskey & Cohen 1989; French 1999).
"""

from __future__ import annotations

from clteach.learners.learner import Classifier


class FineTune(Classifier):
    """Train on the current task only (lower bound). The loss is `Classifier`'s cross-entropy, unchanged."""

    name = "finetune"
    summary = "train on each task as it comes (lower bound)"
    needs_borders = False
