"""Hypernetworks: what they generate, and the fast form of the regulariser against its definition, chunk by chunk."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clteach.errors import ConfigError
from clteach.models.hypernet import Hypernet, Target, check_sizes, direct_drift
from clteach.models.nets import mlp

SIZES = {"truncated": 37, "whole chunks": 23, "one chunk": None, "a chunk each": 1}
"""Chunk sizes for a target of 161 = 7 · 23 weights."""


def hypernet(chunk: int | None = 37, n_tasks: int = 4, **settings: Any) -> tuple[Hypernet, Target]:
    torch.manual_seed(0)
    target = Target(mlp((8,), (9,), 8))
    options = {"embedding": 5, "chunk_embedding": 3, "hidden": (6, 7), **settings}
    return Hypernet(target, n_tasks, chunk=chunk, **options), target


def moved(net: Hypernet, t: int, by: float = 0.1) -> Tensor:
    """Take the snapshot before task t, move every shared parameter, and return what was generated before: (t, P)."""
    net.remember(t)
    with torch.no_grad():
        before = net(net.first(t))
        for k, p in enumerate(net.shared().values()):
            p += by * torch.randn(p.shape, generator=torch.Generator().manual_seed(k))
    return before


def gradients(value: Tensor, net: Hypernet) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(net.shared().values()), allow_unused=True, materialize_grads=True))


def test_a_target_is_the_module_with_these_weights() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 4))
    flat = torch.cat([p.detach().flatten() for p in module.parameters()])
    x = torch.rand(5, 1, 8, 8)
    expected = module(x)
    target = Target(module)
    assert target.n_weights == len(flat) == 3 * 9 + 3 + 4 * 108 + 4
    assert target.rms == pytest.approx(float(flat.square().mean().sqrt()), rel=1e-5)
    assert all(p.is_meta for p in target.module.parameters()), "a target holds no weights of its own"
    torch.testing.assert_close(target(flat, x), expected)
    several = torch.stack([flat, -flat])
    torch.testing.assert_close(target.each(several, x, same_x=True), torch.stack([target(w, x) for w in several]))
    xs = torch.rand(2, 5, 1, 8, 8)
    torch.testing.assert_close(
        target.each(several, xs), torch.stack([target(w, x) for w, x in zip(several, xs, strict=True)])
    )


def test_the_gains_of_a_norm_are_generated_around_one() -> None:
    target = Target(nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8)))
    named = target.named(torch.zeros(target.n_weights))
    assert {name: float(p.mean()) for name, p in named.items()} == {
        "0.weight": 0,
        "0.bias": 0,
        "1.weight": 1,
        "1.bias": 0,
    }


@pytest.mark.parametrize("chunk", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("hidden", [(6, 7), ()])
def test_weights_are_generated_chunk_by_chunk(chunk: int | None, hidden: tuple[int, ...]) -> None:
    net, target = hypernet(chunk, hidden=hidden)
    size = chunk or target.n_weights
    e = torch.randn(2, 5)
    got = net(e)
    assert got.shape == (2, target.n_weights)
    for n in range(2):
        parts = []
        for c in net.body.chunk_embeddings:  # the same small network, once per chunk
            h = net.body.layers(torch.cat([e[n], c]))
            parts.append(h @ net.last[:-1] + net.last[-1])
        assert len(parts) == math.ceil(target.n_weights / size)
        torch.testing.assert_close(got[n], torch.cat(parts)[: target.n_weights])
    torch.testing.assert_close(net.weights(1), net(net.embeddings[1][None])[0])


def test_one_chunk_that_covers_all_is_the_full_hypernetwork() -> None:
    (full, target), (chunked, _) = hypernet(None), hypernet(10_000)
    for net in (full, chunked):
        assert net.body.chunk_embeddings.numel() == 0 and net.last.shape == (8, target.n_weights)
    assert torch.equal(full(full.first(4)), chunked(chunked.first(4)))


PAPER = {
    "split MNIST": (
        ((28, 28), (400, 400), 10),
        {"n_tasks": 5, "embedding": 96, "chunk_embedding": 96, "chunk": 42000, "hidden": (10, 10)},
        (465_672, 478_410),
    ),
    "permuted MNIST": (
        ((32, 32), (1000, 1000), 100),
        {"n_tasks": 10, "embedding": 24, "chunk_embedding": 8, "chunk": 78000, "hidden": (25, 25)},
        (2_029_939, 2_126_100),
    ),
}


@pytest.mark.parametrize(("layers", "settings", "counts"), PAPER.values(), ids=PAPER.keys())
def test_weight_counts_of_the_paper(layers: Any, settings: dict[str, Any], counts: tuple[int, int]) -> None:
    """Counted are Θ_h with the chunk embeddings, and the embeddings of all tasks."""
    target = Target(mlp(*layers))
    assert (Hypernet(target, **settings).count(), target.n_weights) == counts


def test_it_starts_with_weights_of_the_usual_size() -> None:
    net, target = hypernet()
    with torch.no_grad():
        rms = float(net(net.first(4)).square().mean().sqrt())
    assert rms == pytest.approx(target.rms, rel=1e-4)


@pytest.mark.parametrize("chunk", SIZES.values(), ids=SIZES.keys())
def test_no_drift_where_nothing_moved(chunk: int | None) -> None:
    net, _ = hypernet(chunk)
    net.remember(3)
    value = net.drift(3)
    assert float(value.detach()) == 0
    assert all(float(g.abs().max()) == 0 for g in gradients(value, net) if g.numel()), "and its gradient is zero"


@pytest.mark.parametrize("by", [1e-3, 0.1])
@pytest.mark.parametrize("chunk", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_both_forms_of_the_drift_agree(chunk: int | None, by: float, activation: str) -> None:
    net, _ = hypernet(chunk, activation=activation)
    before = moved(net, 3, by)
    fast, direct = net.drift(3), direct_drift(net, 3, before)
    assert float(fast.detach()) == pytest.approx(float(direct.detach()), rel=1e-5)
    for a, b in zip(gradients(fast, net), gradients(direct, net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()) if b.numel() else 0)
    # and the plain loop over tasks
    with torch.no_grad():
        loop = sum(float((net.weights(k) - before[k]).square().sum()) for k in range(3)) / 3
    assert float(direct.detach()) == pytest.approx(loop, rel=1e-5)


def test_drift_at_another_place() -> None:
    """At Θ + ΔΘ: the value there, and its gradient as if ΔΘ were constant."""
    net, _ = hypernet()
    before = moved(net, 3)
    step = {name: 0.05 * torch.randn(p.shape) for name, p in net.shared().items()}
    value = net.drift(3, step)
    gradient = gradients(value, net)
    with torch.no_grad():
        for name, p in net.shared().items():
            p += step[name]
    there = direct_drift(net, 3, before)
    assert float(value.detach()) == pytest.approx(float(there.detach()), rel=1e-5)
    for a, b in zip(gradient, gradients(there, net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_drift_of_some_tasks() -> None:
    net, _ = hypernet()
    before = moved(net, 4)
    with torch.no_grad():
        each = (net(net.first(4)) - before).square().sum(1)
    assert float(net.drift(4, tasks=torch.tensor([3, 1])).detach()) == pytest.approx(
        float(each[[3, 1]].mean()), rel=1e-5
    )


def test_drift_asks_nothing_of_the_embeddings() -> None:
    """Past ones are constants, future ones do not enter."""
    net, _ = hypernet()
    moved(net, 3)
    net.drift(3).backward()
    assert all(e.grad is None for e in net.embeddings)


def test_only_the_embedding_of_the_current_task_learns() -> None:
    net, _ = hypernet()
    net.learn(2)
    assert [e.requires_grad for e in net.embeddings] == [False, False, True, False]


def test_bad_sizes() -> None:
    check_sizes("it", chunk=None, embedding=1)
    with pytest.raises(ConfigError, match="it: embedding=0"):
        check_sizes("it", embedding=0)
