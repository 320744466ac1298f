"""Fine-tuning: the loss against plain cross-entropy, and that it forgets."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from clteach.data.streams import split
from clteach.learners.learner import Phase
from clteach.methods import build
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train


def test_loss_is_cross_entropy_over_the_active_units() -> None:
    for scenario, first, last in (("task", 2, 4), ("domain", 0, 2), ("class", 0, 4)):
        stream = split(toy_data(n_classes=6), scenario, tasks=3)
        learner = build("finetune", stream.spec, hidden=(8,))
        learner.enter(1, Phase("train", 1))
        batch = stream[1].train.batch(torch.arange(7))
        logits = learner.predict(batch.x)
        expected = F.cross_entropy(logits[:, first:last], batch.y - first)
        torch.testing.assert_close(learner.loss(batch, {})["current"], expected)


def test_it_learns_the_last_task_and_forgets_the_first() -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = train("finetune", stream, steps=150, batch_size=16, hidden=(16,), lr=1e-2, device="cpu")
    assert float(run.accuracy[0, 0]) > 0.9 and float(run.accuracy[1, 1]) > 0.9
    assert float(run.accuracy[1, 0]) < 0.1
