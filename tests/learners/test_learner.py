"""A learner's loss is pure."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

from clteach.data.streams import split
from clteach.methods import METHODS, build
from clteach.seeding import generator
from clteach.training.learner_checks import tiny, toy_data


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


def test_a_task_to_come_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Class-IL with the classes so far no answer of a later task can be right; elsewhere it can."""
    for scenario, competing, expected in (("class", "seen", [0]), ("class", "all", [0, 1]), ("task", "seen", [0, 1])):
        stream = split(toy_data(), scenario, tasks=2, active_units=competing)
        learner = build("finetune", stream.spec, hidden=(8,))
        learner.enter(0, learner.phases(0, 1)[0])
        asked: list[int] = []

        def predict(x: torch.Tensor, task: torch.Tensor, asked: list[int] = asked, net: Any = learner.net) -> Any:
            asked.append(int(task[0]))
            return net(x)

        monkeypatch.setattr(learner, "predict", predict)
        scores = [learner.evaluate(t, task.test) for t, task in enumerate(stream)]
        assert asked == expected
        assert expected == [0, 1] or scores[1] == 0


@pytest.mark.parametrize("name", METHODS)
def test_a_used_learner_can_be_pickled_and_copied(name: str) -> None:
    """For other processes, and for whoever saves whole objects: copies answer as the original does."""
    cls = METHODS[name]
    stream = split(toy_data(), cls.scenarios[0], tasks=2)
    learner = cls(stream.spec, tiny(cls))
    learner.prepare(stream)
    learner.enter(0, learner.phases(0, 1)[0])
    before = learner.evaluate(0, stream[0].test)
    for again in (copy.deepcopy(learner), pickle.loads(pickle.dumps(learner))):
        assert again.evaluate(0, stream[0].test) == before
