"""A learner's loss is pure."""

from __future__ import annotations

import torch

from clteach.data.streams import split
from clteach.methods import build
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


def test_many_seeds_at_once_equal_separate_runs() -> None:
    """Stacked parameters, vmap over the pure loss: gradients equal those of each seed alone."""
    from torch.func import functional_call, grad, stack_module_state, vmap

    stream = split(toy_data(), "class", tasks=2)
    learners = [build("generative-replay", stream.spec, hidden=(8,), z=3, seed=s) for s in range(3)]
    phase = learners[0].phases(1, 1)[0]
    for learner in learners:
        learner.enter(1, phase)
        learner.begin_phase(1, phase, stream[1].train, generator(0))
    batch = stream[1].train.batch(torch.arange(6))
    noise = [learner.draw(6, generator(s)) for s, learner in enumerate(learners)]
    stacked = {k: torch.stack([n[k] for n in noise]) for k in noise[0]}
    params, buffers = stack_module_state(learners)

    def loss(
        theta: dict[str, torch.Tensor], state: dict[str, torch.Tensor], eps: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        terms = functional_call(learners[0], (theta, state), (batch, eps))
        return torch.stack(list(terms.values())).sum()

    gradients = vmap(grad(loss))(params, buffers, stacked)
    for i, learner in enumerate(learners):
        torch.stack(list(learner.loss(batch, noise[i]).values())).sum().backward()
        for name, p in learner.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(gradients[name][i], p.grad, rtol=1e-5, atol=1e-7)
