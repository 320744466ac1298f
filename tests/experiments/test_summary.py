"""The mean over seeds, by hand."""

from __future__ import annotations

import pytest

from clteach.experiments.summary import summarise


def test_summary_over_seeds() -> None:
    job = {"settings": {"lr": 1}}
    first = {"job": job, "average_accuracy": 0.5, "accuracy": [[1.0, None], [0.0, 1.0]], "forgetting": 1.0}
    second = {"job": job, "average_accuracy": 0.9, "accuracy": [[1.0, None], [0.8, 1.0]], "forgetting": 0.2}
    speed = {"seconds": 2.0, "iterations_per_second": 100.0}
    summary = summarise([{**first, **speed}, {**second, **speed, "seconds": 4.0}])
    assert summary["average_accuracy"]["mean"] == pytest.approx(0.7)
    assert summary["average_accuracy"]["sem"] == pytest.approx(0.2)  # √(0.08 / 2)
    assert summary["average_accuracy"]["seeds"] == [0.5, 0.9]
    assert summary["forgetting"]["mean"] == pytest.approx(0.6)
    assert summary["accuracy_matrix"] == [[1.0, None], [pytest.approx(0.4), 1.0]]
    assert summary["accuracy_matrices"] == [[[1.0, None], [0.0, 1.0]], [[1.0, None], [0.8, 1.0]]]
    assert (summary["seconds"], summary["iterations_per_second"]) == (3.0, 100.0)
    alone = summarise([{**first, **speed}])
    assert alone["average_accuracy"]["sem"] is None and "accuracy_matrices" not in alone
    # What no task has taught yet is only kept in the mean.
    ahead = summarise([{**first, **speed, "accuracy": [[1.0, 0.5], [0.0, 1.0]]}] * 2)
    assert ahead["accuracy_matrix"][0] == [1.0, 0.5] and ahead["accuracy_matrices"][0][0] == [1.0, None]
