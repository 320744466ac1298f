"""The study of the line between two embeddings."""

from __future__ import annotations

import pytest

from clteach.data.streams import make_stream
from clteach.experiments.papers import RECIPES, column, hypernetwork
from clteach.training.loop import train


def test_the_ends_of_the_line_are_the_tasks_own_networks() -> None:
    found = hypernetwork.embedding_line(0, 60, 1, 3, "split-digits", column("digits", "split-digits"))
    assert set(found) == set(RECIPES["hypernetwork-line"].measures)  # type: ignore[union-attr]
    base = column("digits", "split-digits")
    stream = make_stream("split-digits", "task", **base.stream)
    settings = base.settings("hypernetwork", "task")
    run = train("hypernetwork", stream, steps=60, batch_size=base.batch, seed=0, **settings)
    last = 100 * run.accuracy[-1]
    assert found["first_0"] == pytest.approx(float(last[0]), abs=1e-3)
    assert found["second_1"] == pytest.approx(float(last[2]), abs=1e-3)
    assert found["first_0"] > 90 > found["first_1"]  # another task's network does not do
