"""Metrics against matrices worked out by hand, and against the identities that tie them together."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clteach import metrics
from clteach.errors import ConfigError

NAN = math.nan
R3 = torch.tensor([[0.9, 0.3, 0.2], [0.95, 0.8, 0.4], [0.5, 0.6, 0.7]])
SCALARS = [metrics.average_accuracy, metrics.learning_accuracy, metrics.forgetting, metrics.backward_transfer]


@st.composite
def matrices(draw: st.DrawFn, min_tasks: int = 1) -> Tensor:
    n = draw(st.integers(min_tasks, 6))
    rows = st.lists(st.floats(0, 1), min_size=n, max_size=n)
    return torch.tensor(draw(st.lists(rows, min_size=n, max_size=n)), dtype=torch.float64)


def hide_future(R: Tensor) -> Tensor:
    return R.masked_fill(torch.ones_like(R).triu(1).bool(), NAN)


@pytest.mark.parametrize("R", [R3, hide_future(R3), R3.double()])
def test_by_hand(R: Tensor) -> None:
    assert metrics.average_accuracy(R) == pytest.approx((0.5 + 0.6 + 0.7) / 3)
    assert metrics.average_accuracy_over_time(R).tolist() == pytest.approx([0.9, (0.95 + 0.8) / 2, 0.6])
    assert metrics.learning_accuracy(R) == pytest.approx(0.8)
    assert metrics.forgetting_per_task(R).tolist() == pytest.approx([0.95 - 0.5, 0.8 - 0.6])
    assert metrics.forgetting(R) == pytest.approx((0.45 + 0.2) / 2)
    assert metrics.backward_transfer(R) == pytest.approx((0.5 - 0.9 + 0.6 - 0.8) / 2)


def test_forward_transfer_and_intransigence_by_hand() -> None:
    # Only R[0, 1] = 0.3 and R[1, 2] = 0.4 count; R[0, 2] is free to be unknown.
    R = R3.clone()
    R[0, 2] = NAN
    assert metrics.forward_transfer(R, torch.tensor([0.7, 0.1, 0.5])) == pytest.approx((0.3 - 0.1 + 0.4 - 0.5) / 2)
    joint = torch.tensor([[0.95, NAN, NAN], [0.9, 0.9, NAN], [0.9, 0.9, 0.6]])
    assert metrics.intransigence(R, joint) == pytest.approx((0.05 + 0.1 - 0.1) / 3)


def test_forgetting_ignores_the_time_before_a_task_is_learned() -> None:
    R = torch.tensor([[0.5, 1.0, 1.0], [0.5, 0.4, 1.0], [0.5, 0.4, 0.3]])
    assert metrics.forgetting(R) == pytest.approx(0, abs=1e-7)


def test_one_task() -> None:
    R = torch.tensor([[0.75]])
    assert metrics.average_accuracy(R) == metrics.learning_accuracy(R) == 0.75
    assert metrics.average_accuracy_over_time(R).tolist() == [0.75]
    assert metrics.forgetting_per_task(R).shape == (0,)
    assert math.isnan(metrics.forgetting(R)) and math.isnan(metrics.backward_transfer(R))
    assert math.isnan(metrics.forward_transfer(R, torch.tensor([0.5])))
    assert metrics.intransigence(R, torch.tensor([[1.0]])) == 0.25


@given(matrices())
def test_bounds_and_the_future_does_not_matter(R: Tensor) -> None:
    assert 0 <= metrics.average_accuracy(R) <= 1
    assert bool(((metrics.average_accuracy_over_time(R) >= 0) & (metrics.average_accuracy_over_time(R) <= 1)).all())
    assert bool((metrics.forgetting_per_task(R).abs() <= 1).all())
    for metric in SCALARS:
        assert metric(hide_future(R)) == pytest.approx(metric(R), nan_ok=True)
    assert metrics.average_accuracy_over_time(R)[-1] == pytest.approx(metrics.average_accuracy(R))
    assert metrics.intransigence(R, R) == 0


@given(matrices(min_tasks=2))
def test_forgetting_and_backward_transfer(R: Tensor) -> None:
    n = len(R)
    # The best accuracy is at least the one on the diagonal ...
    assert metrics.forgetting(R) >= -metrics.backward_transfer(R) - 1e-12
    # ... and equal to it when every task is best right after learning it.
    best = torch.minimum(R, R.diagonal().expand(n, n))
    assert metrics.forgetting(best) == pytest.approx(-metrics.backward_transfer(best), abs=1e-12)
    # BWT (T - 1) / T = ACC - LA
    gap = metrics.average_accuracy(R) - metrics.learning_accuracy(R)
    assert metrics.backward_transfer(R) * (n - 1) / n == pytest.approx(gap, abs=1e-12)


@given(matrices(min_tasks=3), st.integers(0, 999))
def test_order_of_old_tasks(R: Tensor, seed: int) -> None:
    # The last row alone decides the average accuracy: its order does not matter, nor do the rows above it.
    order = torch.randperm(len(R), generator=torch.Generator().manual_seed(seed))
    assert metrics.average_accuracy(R[:, order]) == pytest.approx(metrics.average_accuracy(R))
    other = R.clone()
    other[:-1] = 0.5
    assert metrics.average_accuracy(other) == metrics.average_accuracy(R)
    # Relabelling tasks (rows and columns alike) keeps the diagonal as a set.
    assert metrics.learning_accuracy(R[order][:, order]) == pytest.approx(metrics.learning_accuracy(R))


@pytest.mark.parametrize(
    ("R", "message"),
    [
        (torch.zeros(2, 3), r"shape \(2, 3\)"),
        (torch.zeros(3), r"shape \(3,\)"),
        (torch.zeros(0, 0), r"shape \(0, 0\)"),
        (torch.tensor([[0.9, 0.1], [NAN, 0.9]]), r"R\[1, 0\] is NaN"),
        (torch.tensor([[90.0, NAN], [0.5, 0.9]]), r"R\[0, 0\] is 90; .*divide percentages"),
        (torch.tensor([[0.9, -0.1], [0.5, 0.9]]), r"R\[0, 1\] is -0\.1"),
        (torch.tensor([[0.9, NAN], [0.5, math.inf]]), r"R\[1, 1\] is inf"),
    ],
)
def test_bad_matrix(R: Tensor, message: str) -> None:
    functions: list[Callable[[Tensor], object]] = [*SCALARS, metrics.average_accuracy_over_time]
    for metric in functions:
        with pytest.raises(ConfigError, match=message):
            metric(R)


def test_bad_references() -> None:
    with pytest.raises(ConfigError, match="before it is learned"):
        metrics.forward_transfer(hide_future(R3), torch.zeros(3))
    for initial in (torch.zeros(2), torch.tensor([0, 0, NAN]), torch.tensor([0, 0, 10.0])):
        with pytest.raises(ConfigError, match="expected 3 accuracies"):
            metrics.forward_transfer(R3, initial)
    with pytest.raises(ConfigError, match="joint has 2 tasks but R has 3"):
        metrics.intransigence(R3, torch.eye(2))
    with pytest.raises(ConfigError, match=r"joint\[1, 0\] is NaN"):
        metrics.intransigence(torch.eye(2), torch.tensor([[1, 0], [NAN, 1]]))


def test_input_is_not_changed() -> None:
    before = R3.clone()
    for metric in SCALARS:
        metric(R3)
    assert torch.equal(R3, before)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_mean_sem_equals_the_tables_formula(values: list[float]) -> None:
    mean, sem = metrics.mean_sem(values)
    assert mean == pytest.approx(sum(values) / len(values))
    biased = sum((v - mean) ** 2 for v in values) / len(values)
    assert sem == pytest.approx(math.sqrt(biased / (len(values) - 1)), abs=1e-12)


def test_mean_sem_edges() -> None:
    assert metrics.mean_sem([1.0, 2.0, 3.0]) == pytest.approx((2.0, math.sqrt(1 / 3)))
    mean, sem = metrics.mean_sem([0.5])
    assert mean == 0.5 and math.isnan(sem)
    for values in (torch.zeros(0), torch.zeros(2, 2), torch.tensor(1.0)):
        with pytest.raises(ConfigError, match="one number per seed"):
            metrics.mean_sem(values)


def test_of_a_score_for_which_lower_is_better() -> None:
    fid = torch.tensor([[10.0, NAN, NAN], [30.0, 20.0, NAN], [25.0, 15.0, 40.0]])
    assert metrics.average_score(fid, "fid") == pytest.approx(80 / 3)
    assert metrics.average_accuracy_over_time(fid, "fid").tolist() == pytest.approx([10, 25, 80 / 3])
    # The final score minus the best before: 25 - 10, and 15 - 20 (it got better)
    assert metrics.forgetting_per_task(fid, "fid").tolist() == pytest.approx([15, -5])
    assert metrics.forgetting(fid, "fid") == pytest.approx(5)
    with pytest.raises(ConfigError, match="score ≥ 0"):
        metrics.average_score(-fid, "fid")
    with pytest.raises(ConfigError, match="share in"):
        metrics.average_score(fid)
