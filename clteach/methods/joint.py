r"""Joint training: in every task, train on the data of all tasks so far.

$$\mathcal{L}_t(\theta) = \mathbb{E}_{(x, y) \sim \text{tasks } 1 \dots t}\big[-\log p_\theta(y \,|\, x)\big]$$

The upper bound ("offline" in the papers' tables): not continual learning at all, since it keeps everything. The number of
steps per task is the same as for the other methods, so the data seen per class becomes thinner with every task. The
published code of 2022 trains once instead, on the data of all tasks with the steps of a single one: the same as a stream of
one task.
"""

from __future__ import annotations

from clteach.data.tasks import Data, Stream
from clteach.learners.learner import Classifier


class Joint(Classifier):
    """Train on all data so far (upper bound). Only the data differs from fine-tuning."""

    name = "joint"
    summary = "train on the data of all tasks so far (upper bound)"
    needs_borders = False

    def training_data(self, stream: Stream, t: int) -> Data:
        # What a task fades into belongs to what it shows, though only its last steps do.
        into = stream.around(t)[2:] if stream.fade else []
        return Data.concat([*(task.train for task in stream.tasks[: t + 1]), *into])
