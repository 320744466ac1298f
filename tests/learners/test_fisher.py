"""The Fisher information: closed form against vmap(grad), a loop over single samples, and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clteach.data.tasks import Data
from clteach.errors import ConfigError
from clteach.learners.fisher import LABELS, fisher_diagonal, fisher_linear, fisher_vmap
from clteach.models.nets import mlp


def problem(n: int = 13, net: nn.Module | None = None) -> tuple[nn.Module, Data, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(n, 1, 4, 4)
    net = mlp((1, 4, 4), (7, 5), 6) if net is None else net
    data = Data(x, torch.arange(n), torch.randint(1, 4, (n,)), torch.zeros(n, dtype=torch.int64))
    active = torch.tensor([False, True, True, True, False, False])
    return net, data, active


def loop(net: nn.Module, data: Data, active: Tensor, labels: str) -> list[Tensor]:
    """One sample, one label, one backward pass at a time."""
    total = [torch.zeros_like(p) for p in net.parameters()]
    for i in range(len(data)):
        batch = data.batch(torch.tensor([i]))
        log_p = torch.log_softmax(net(batch.x).masked_fill(~active, -torch.inf), 1)[0]
        if labels == "all":
            weights = {c: float(log_p[c].detach().exp()) for c in active.nonzero().flatten().tolist()}
        else:
            weights = {int(batch.y if labels == "true" else log_p.argmax()): 1.0}
        for label, weight in weights.items():
            gradient = torch.autograd.grad(log_p[label], list(net.parameters()), retain_graph=True)
            for t, g in zip(total, gradient, strict=True):
                t += weight * g**2 / len(data)
    return total


@pytest.mark.parametrize("labels", LABELS)
def test_three_ways_agree(labels: str) -> None:
    net, data, active = problem()
    expected = loop(net, data, active, labels)
    for way in (fisher_linear, fisher_vmap):
        for got, want in zip(way(net, data, active, labels), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)
    assert max(float(f.max()) for f in expected) > 0


def test_units_outside_the_softmax_carry_no_information() -> None:
    net, data, active = problem()
    weight, bias = fisher_diagonal(net, data, active)[-2:]
    assert bool((weight[~active] == 0).all()) and bool((bias[~active] == 0).all())
    assert bool((bias[active] > 0).all())


def test_linear_model_against_the_textbook() -> None:
    """For logits = W x the Fisher information of W_cj is E[p_c (1 - p_c) x_j²]."""
    net, data, _ = problem(net=nn.Sequential(nn.Flatten(), nn.Linear(16, 6, bias=False)))
    p = torch.softmax(net(data.x), 1).detach()
    expected = (p * (1 - p)).T @ data.x.flatten(1).square() / len(data)
    torch.testing.assert_close(fisher_diagonal(net, data, torch.ones(6, dtype=torch.bool))[0], expected)


def test_not_the_square_of_the_mean_gradient() -> None:
    net, data, active = problem()
    batch = data.batch(torch.arange(len(data)))
    log_p = torch.log_softmax(net(batch.x).masked_fill(~active, -torch.inf), 1)
    mean = torch.autograd.grad(log_p.gather(1, batch.y[:, None]).mean(), list(net.parameters()))
    right = fisher_diagonal(net, data, active, "true")
    assert float(sum(f.sum() for f in right)) > 1.5 * float(sum((g**2).sum() for g in mean))


def test_general_path_for_convolutions() -> None:
    torch.manual_seed(1)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 6))
    net, data, active = problem(5, conv)
    for got, want in zip(fisher_diagonal(net, data, active), loop(net, data, active, "all"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-9)


def test_subset_and_bad_arguments() -> None:
    net, data, active = problem()
    first = data.subset(torch.arange(4))
    for got, want in zip(
        fisher_diagonal(net, data, active, n_samples=4), fisher_diagonal(net, first, active), strict=True
    ):
        torch.testing.assert_close(got, want)
    with pytest.raises(ConfigError, match="guessed"):
        fisher_diagonal(net, data, active, labels="guessed")
    with pytest.raises(ConfigError, match="at least 1"):
        fisher_diagonal(net, data, active, n_samples=0)
