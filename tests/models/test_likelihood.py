"""Sums of the likelihood; its whole is tested where it classifies, tests/methods/test_generative_classifier.py."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from clteach.models.likelihood import sum_softplus_
from clteach.seeding import generator


def test_sum_of_softplus() -> None:
    for p in (1, 7, 64, 784, 3072):
        logits = 20 * torch.randn(11, p, generator=generator(p))
        expected = F.softplus(logits.double()).sum(1)
        torch.testing.assert_close(sum_softplus_(logits.clone()).double(), expected, rtol=1e-5, atol=1e-5)
    extreme = torch.tensor([[1e30, -1e30, 0.0, 200.0]])
    assert float(sum_softplus_(extreme)) == pytest.approx(1e30)
