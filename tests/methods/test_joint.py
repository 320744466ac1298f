"""Joint training: every task so far is in its data, and nothing is forgotten."""

from __future__ import annotations

import torch

from clteach.data.streams import split
from clteach.methods import build
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train


def test_data_of_all_tasks_so_far() -> None:
    stream = split(toy_data(n_classes=6), "task", tasks=3)
    learner = build("joint", stream.spec, hidden=(8,))
    for t in range(3):
        data = learner.training_data(stream, t)
        assert sorted(data.rows.tolist()) == sorted(torch.cat([stream[i].train.rows for i in range(t + 1)]).tolist())
        assert set(data.task.tolist()) == set(range(t + 1))


def test_nothing_is_forgotten() -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = train("joint", stream, steps=150, batch_size=16, hidden=(16,), lr=1e-2, device="cpu")
    assert float(run.accuracy[1].min()) > 0.9
