"""Metrics: `accuracy` of an accuracy matrix, handed on here; `generation` of generated images, `judge` in whose features,
`modes` of samples in the plane.
"""

from __future__ import annotations

from clteach.metrics.accuracy import (
    MEASURES,
    Measure,
    average_accuracy,
    average_accuracy_over_time,
    average_incremental_accuracy,
    average_score,
    backward_transfer,
    check_matrix,
    forgetting,
    forgetting_per_task,
    forward_transfer,
    intransigence,
    learning_accuracy,
    mean_sem,
)

__all__ = [
    "MEASURES",
    "Measure",
    "average_accuracy",
    "average_accuracy_over_time",
    "average_incremental_accuracy",
    "average_score",
    "backward_transfer",
    "check_matrix",
    "forgetting",
    "forgetting_per_task",
    "forward_transfer",
    "intransigence",
    "learning_accuracy",
    "mean_sem",
]
