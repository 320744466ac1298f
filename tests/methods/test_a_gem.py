"""A-GEM: the projection on hand-made gradients, and that a step uses it."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clteach.data.streams import split
from clteach.learners.learner import Phase
from clteach.methods.a_gem import AGEM, project
from clteach.seeding import generator
from clteach.training.learner_checks import quick, toy_data


def vectors(*values: list[float]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.tensor(v) for v in values)


def test_hand_made_gradients() -> None:
    g = vectors([1.0, -2.0], [0.5])
    assert all(torch.equal(a, b) for a, b in zip(project(g, vectors([1.0, 0.0], [0.0])), g, strict=True))  # gᵀr = 1
    assert all(torch.equal(a, b) for a, b in zip(project(g, vectors([2.0, 1.0], [0.0])), g, strict=True))  # gᵀr = 0
    # r = (0, 1 | 0): gᵀr = -2, so the second component goes
    torch.testing.assert_close(project(g, vectors([0.0, 1.0], [0.0])), list(vectors([1.0, 0.0], [0.5])))
    # r = -2 g: only the opposite direction is allowed, nothing is left
    torch.testing.assert_close(project(g, tuple(-2 * v for v in g)), list(vectors([0.0, 0.0], [0.0])))
    # an empty reference forbids nothing and gives no NaN
    torch.testing.assert_close(project(g, vectors([0.0, 0.0], [0.0])), list(g))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000))
def test_the_result_never_harms_and_is_the_closest_that_does_not(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    g, r, other = (torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(3))
    (p,) = project((g,), (r,))
    assert float(p @ r) >= -1e-9
    other = other if float(other @ r) >= 0 else other - (other @ r) / (r @ r) * r  # any other harmless direction
    assert float((g - p).norm()) <= float((g - other).norm()) + 1e-9


def test_a_step_uses_the_projected_gradient() -> None:
    stream = split(toy_data(), "domain", tasks=2)
    learner = quick(AGEM, stream, per_class=5).learner
    assert isinstance(learner, AGEM)
    learner.enter(1, Phase("train", 1))
    batch = stream[1].train.batch(torch.arange(6))
    noise = learner.draw(6, generator(0))
    memory = learner.memory.batch(noise["memory"])
    parameters = list(learner.net.parameters())
    g = torch.autograd.grad(learner.cross_entropy(learner.net(batch.x), batch), parameters)
    r = torch.autograd.grad(learner.cross_entropy(learner.net(memory.x), memory), parameters)
    learner.opts = {"sgd": torch.optim.SGD(parameters, lr=0.5)}
    expected = [p.detach() - 0.5 * d for p, d in zip(parameters, project(g, r), strict=True)]
    learner.step(batch, noise)
    torch.testing.assert_close([p.detach() for p in parameters], expected)
