"""TensorBoard itself reads the curves that a run writes."""

from __future__ import annotations

from pathlib import Path

import pytest

import clteach
from clteach.progress import tensorboard

reading = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard (make peers)"
)


def test_curves(tmp_path: Path) -> None:
    stream = clteach.split(clteach.load("digits"), "class", tasks=2)
    with tensorboard(tmp_path) as log:
        run = clteach.train("finetune", stream, steps=6, log_every=3, hidden=(8,), device="cpu", log=log)
    events = reading.EventAccumulator(str(tmp_path)).Reload()
    curve = events.Scalars("accuracy/task 1")
    assert [event.step for event in curve] == [6, 12]
    assert [event.value for event in curve] == pytest.approx(run.accuracy[:, 0].tolist())
    losses = events.Scalars("loss/current")
    assert [event.value for event in losses] == pytest.approx([row["current"] for row in run.losses])
