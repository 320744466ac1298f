"""The Fisher information: closed form against vmap(grad), a loop over single samples, and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

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


class Tied(nn.Module):
    """A layer whose weight is used a second time, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 12), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.linear(self.first(x).relu(), self.first.weight.T))


class Patches(nn.Module):
    """Pieces of 4 pixels, each a row of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 4)


class Pool(nn.Module):
    """The mean over the 4 pieces of each sample."""

    def forward(self, h: Tensor) -> Tensor:
        return h.view(-1, 4, h.shape[1]).mean(1)


class Masked(nn.Linear):
    """A linear layer without every other connection."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (torch.arange(self.in_features) % 2), self.bias)


def sure() -> nn.Sequential:
    """A network with logits of hundreds: what it answers is certain, and its information close to 0."""
    net = nn.Sequential(nn.Flatten(), Tied())
    with torch.no_grad():
        net[1].last.weight.mul_(60)
    return net


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Flatten(), Tied()),
        sure,
        lambda: nn.Sequential(Patches(), nn.Linear(4, 12), nn.ReLU(), Pool(), nn.Linear(12, 6)),
        lambda: nn.Sequential(nn.Flatten(), Masked(16, 12), nn.ReLU(), nn.Linear(12, 6)),
        lambda: nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(16, 12)), nn.ReLU(), nn.Linear(12, 6)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(inplace=True), nn.Linear(12, 6)),
        lambda: nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(16, 12)), nn.Dropout(), nn.Linear(12, 6)),
    ],
    ids=["tied", "sure", "patches", "masked", "weight norm", "in place", "nested"],
)
def test_exact_whatever_a_sequential_is_made_of(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(1)
    net, data, active = problem(5, make().eval())
    for got, want in zip(fisher_diagonal(net, data, active), loop(net, data, active, "all"), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * float(want.max()))


def test_a_plain_stack_goes_the_fast_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clteach.learners.fisher.fisher_vmap", None)
    fisher_diagonal(*problem())
    fisher_diagonal(*problem(net=nn.Sequential(mlp((1, 4, 4), (7,), 5, nn.Tanh), nn.Dropout(), nn.Linear(5, 6))))


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
