"""The kernel of probabilities, beside an explicit Jacobian, one input and one class at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.learners.kernel import kernel_linear, kernel_vmap, probability_kernel
from clteach.models.nets import mlp

UNITS = torch.tensor([3, 0, 1])
X = torch.rand(6, 1, 3, 3, generator=torch.Generator().manual_seed(0))


def by_hand(net: nn.Module, x: Tensor, units: Tensor, variance: list[Tensor]) -> Tensor:
    """J diag(σ²) Jᵀ with every entry of J from a backward pass of its own."""
    parameters = [*net.parameters()]
    kernels = []
    for c in range(len(units)):
        rows = []
        for one in x:
            p = net(one[None])[0, units].softmax(0)[c]
            gradients = torch.autograd.grad(p, [q for q in parameters if q.requires_grad], allow_unused=True)
            found = iter(gradients)
            each = [g for q in parameters for g in [next(found) if q.requires_grad else None]]
            rows.append(
                torch.cat(
                    [(torch.zeros_like(q) if g is None else g).flatten() for q, g in zip(parameters, each, strict=True)]
                )
            )
        jacobian = torch.stack(rows).double()
        kernels.append(jacobian @ torch.diag(torch.cat([v.flatten() for v in variance]).double()) @ jacobian.T)
    return torch.stack(kernels)


def spread(net: nn.Module) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    return [torch.rand(p.shape, generator=rng) + 0.1 for p in net.parameters()]


def with_seed(make: type[nn.Module] | None = None, **settings: object) -> nn.Sequential:
    torch.manual_seed(0)
    return mlp((1, 3, 3), (5, 4), 4, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_both_ways_equal_the_explicit_jacobian(activation: type[nn.Module]) -> None:
    net = with_seed(activation=activation)
    expected = by_hand(net, X, UNITS, spread(net))
    for way in (kernel_linear, kernel_vmap, probability_kernel):
        torch.testing.assert_close(way(net, X, UNITS, spread(net)), expected, rtol=1e-5, atol=1e-9)
    assert expected.shape == (3, 6, 6) and bool((torch.linalg.eigvalsh(expected) > -1e-9).all())
    assert all(p.grad is None for p in net.parameters())


def test_layers_without_bias_and_no_hidden_layer() -> None:
    torch.manual_seed(0)
    for net in (nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False)), mlp((1, 3, 3), (), 4)):
        expected = by_hand(net, X, UNITS, spread(net))
        torch.testing.assert_close(probability_kernel(net, X, UNITS, spread(net)), expected, rtol=1e-5, atol=1e-9)


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.out = nn.Linear(9, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inner(self.inner(x.flatten(1)).tanh()).tanh())


def tied() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 9), nn.Tanh(), nn.Linear(9, 4))
    net[3].weight = net[1].weight
    return net


def frozen() -> nn.Module:
    net = mlp((1, 3, 3), (5,), 4)
    net[1].requires_grad_(False)
    return net


def rows_first() -> nn.Module:
    """Its first linear layer sees three vectors per input."""
    return nn.Sequential(nn.Flatten(1, 2), nn.Linear(3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 4))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4))


class Transposed(nn.Module):
    """A layer whose weight is used a second time, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(9, 5), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.linear(self.first(x).relu(), self.first.weight.T))


class Pieces(nn.Module):
    """Every three pixels as a row of their own; back again with the mean over the rows of each input."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 3) if x.ndim == 4 else x.view(-1, 3, x.shape[1]).mean(1)


class Masked(nn.Linear):
    """A linear layer without every other connection."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * (torch.arange(self.in_features) % 2), self.bias)


def sequential_of_other_layers() -> list[Callable[[], nn.Module]]:
    return [
        lambda: nn.Sequential(nn.Flatten(), Transposed()),
        lambda: nn.Sequential(Pieces(), nn.Linear(3, 5), nn.ReLU(), Pieces(), nn.Linear(5, 4)),
        lambda: nn.Sequential(nn.Flatten(), Masked(9, 5), nn.ReLU(), nn.Linear(5, 4)),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(inplace=True), nn.Linear(5, 4)),
        lambda: nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(9, 5)), nn.Dropout(), nn.Linear(5, 4)),
    ]


@pytest.mark.parametrize("make", [Twice, tied, frozen, rows_first, convolution, *sequential_of_other_layers()])
def test_other_networks(make: Callable[[], nn.Module]) -> None:
    """Where the fast way would be wrong, the general one is taken; the network's mode stays as it was."""
    torch.manual_seed(0)
    net = make().eval()
    expected = by_hand(net, X, UNITS, spread(net))
    net.train()
    torch.testing.assert_close(probability_kernel(net, X, UNITS, spread(net)), expected, rtol=1e-5, atol=1e-9)
    assert all(part.training for part in net.modules())
