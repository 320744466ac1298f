"""Measures of generated images against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.metrics.generation import frechet_distance, inception_score, precision_recall, precision_recall_curve
from clteach.metrics.judge import feature_classifier
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


def whitened(n: int, d: int) -> torch.Tensor:
    """(n, d) samples whose mean is exactly 0 and whose covariance is exactly the unit matrix."""
    x = torch.randn(n, d, generator=generator(0, n, d), dtype=torch.float64)
    return torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(n - 1)


def test_fid_of_two_gaussians_in_closed_form() -> None:
    x = whitened(200, 3)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    # Diagonal covariances a², b²: ‖μ‖² + Σ (a - b)²
    a, b, mean = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.5]), torch.tensor([1.0, -2.0, 0.0])
    assert frechet_distance(x * a, x * b + mean) == pytest.approx(5 + 1 + 0 + 6.25)


def test_fid_with_covariances_that_do_not_commute() -> None:
    """Against the matrix square root written out."""
    a, b = (torch.randn(4, 4, generator=generator(1, k), dtype=torch.float64) for k in range(2))
    x, y = whitened(50, 4) @ a, whitened(60, 4) @ b
    cov_x, cov_y = a.T @ a, b.T @ b
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp_min(0).sqrt().sum()
    assert frechet_distance(x, y) == pytest.approx(float(cov_x.trace() + cov_y.trace() - 2 * cross), rel=1e-9)


def test_fid_with_more_features_than_samples() -> None:
    x = torch.randn(5, 40, generator=generator(2))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 2) == pytest.approx(160, rel=1e-6)
    assert frechet_distance(x, 3 * x) == pytest.approx(frechet_distance(3 * x, x))


def test_inception_score_of_uniform_and_certain_predictions() -> None:
    assert inception_score(torch.full((30, 10), 0.1)) == pytest.approx(1)
    assert inception_score(torch.eye(10).repeat(3, 1)) == pytest.approx(10)
    assert inception_score(torch.eye(10)[torch.zeros(30, dtype=torch.int64)]) == pytest.approx(1)
    # Two certain classes, one three times as frequent: the exponential of the marginal's entropy
    p = torch.eye(2)[torch.tensor([0, 0, 0, 1])]
    assert inception_score(p) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_precision_and_recall_of_identical_and_disjoint_sets() -> None:
    x = torch.randn(300, 2, generator=generator(3))
    same = precision_recall(x, x)
    assert same.precision == pytest.approx(1, abs=1e-3) and same.recall == pytest.approx(1, abs=1e-3)
    apart = precision_recall(x, x + 100)
    assert apart.precision == pytest.approx(0, abs=1e-6) and apart.recall == pytest.approx(0, abs=1e-6)


def test_precision_is_of_the_samples_and_recall_of_the_data() -> None:
    """Two far groups; a generator that makes only one of them is precise, but covers half of the data."""
    group = torch.randn(200, 2, generator=generator(4)) * 0.01
    both = torch.cat([group, group + 100])
    one = precision_recall(both, torch.cat([group, group]), clusters=2)
    # α = min(λ/2, 1), β = min(½, 1/λ): F_⅛ is best at λ = 2 (α = 1, β = ½), F_8 too
    f8, f18 = (1 + 64) * 0.5 / (64 + 0.5), (1 + 1 / 64) * 0.5 / (1 / 64 + 0.5)
    assert one.precision == pytest.approx(f18, abs=2e-3) and one.recall == pytest.approx(f8, abs=2e-3)
    assert one.precision > 0.9 > 0.6 > one.recall
    turned = precision_recall(torch.cat([group, group]), both, clusters=2)
    assert turned.precision == pytest.approx(one.recall, abs=1e-3)


def test_precision_recall_curve_written_out() -> None:
    x, y = torch.tensor([[0.0], [0.0], [0.0], [9.0]]), torch.tensor([[0.0], [9.0]])
    alpha, beta = precision_recall_curve(x, y, clusters=2, angles=5, runs=2)
    assert alpha.shape == beta.shape == (5,)
    for k, theta in enumerate((math.pi / 8, math.pi / 4, 3 * math.pi / 8), start=1):
        lam = math.tan(theta)
        expected = min(0.75 * lam, 0.5) + min(0.25 * lam, 0.5)
        assert float(alpha[k]) == pytest.approx(expected, rel=1e-4)
        assert float(beta[k]) == pytest.approx(expected / lam, rel=1e-4)
    assert torch.equal(alpha, precision_recall_curve(x, y, clusters=2, angles=5, runs=2)[0])


def test_measures_leave_the_global_random_states_alone() -> None:
    x = torch.rand(30, 2)
    states = torch.get_rng_state(), str(np.random.get_state())
    precision_recall(x, x, runs=1)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == str(np.random.get_state())


def test_errors_say_what_is_wrong() -> None:
    x = torch.randn(5, 3)
    with pytest.raises(ConfigError, match=r"shape \(1, 3\)"):
        frechet_distance(x, x[:1])
    with pytest.raises(ConfigError, match="3 features, generated 2"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(ConfigError, match="finite"):
        frechet_distance(x, x / 0)
    with pytest.raises(ConfigError, match="sum to 1"):
        inception_score(x)
    with pytest.raises(ConfigError, match="images"):
        feature_classifier(split(toy_data((12,)), "class", tasks=2))
    with pytest.raises(ConfigError, match="scenario"):
        feature_classifier(split(toy_data(), "domain", tasks=2))
