"""FROMP: the memorable points by brute force, the functional prior by a dense solve, and what a step may not depend on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from clteach.data.streams import split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError, DivergedError
from clteach.learners.fisher import fisher_vmap
from clteach.learners.learner import Phase
from clteach.methods.fromp import FROMP
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data

PHASE = Phase("train", 1)
UNEQUAL = [[3, 4], [0, 1, 2], [5, 6]]


def unequal(scenario: str, active_units: str = "seen") -> Stream:
    return split(toy_data(n_classes=7), scenario, classes=UNEQUAL, active_units=active_units)


def after_two_tasks(stream: Stream, steps: int = 15, **settings: float) -> FROMP:
    """About to learn task 3, its weights moved a little so that there is something to pull back."""
    cfg = FROMP.Config(hidden=(6,), lr=1e-2, per_class=4, **settings)  # type: ignore[arg-type]
    learner = FROMP(stream.spec, cfg)
    for t in range(3):
        data = stream[t].train
        learner.enter(t, PHASE)
        learner.begin_phase(t, PHASE, data, generator(0, t))
        if t == 2:
            return learner
        for s in range(steps):
            learner.step(data.batch(torch.arange(8) + s), learner.draw(8, generator(0, t, s)))
        learner.end_task(t, data, generator(1, t))
    raise AssertionError


def moved(learner: FROMP) -> FROMP:
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator(2))
    return learner


def dense_prior(learner: FROMP, old: nn.Module, stream: Stream) -> Tensor:
    """½ τ Σ_blocks Σ_c (m - m_old)ᵀ (K_c + ε I)⁻¹ (m - m_old) with an explicit Jacobian and a solve, in float64."""
    cfg, spec = learner.cfg, stream.spec
    old, new = copy.deepcopy(old).double(), copy.deepcopy(learner.net).double()
    variance = 1 / (learner.fisher.double() + cfg.prior_precision)
    if spec.scenario == "task":
        blocks = [(slice(learner.memory.filled(s), learner.memory.filled(s + 1)), spec.units[s]) for s in range(2)]
    else:
        units = tuple(learner.active_now[0].nonzero().flatten().tolist())
        blocks = [(slice(0, learner.memory.filled(2)), units)]
    total = torch.zeros((), dtype=torch.float64)
    for points, units in blocks:
        x = learner.memory.batch(torch.arange(len(learner.memory.y))[points]).x.double()
        for c in range(len(units)):
            rows = []
            for one in x:
                p = old(one[None])[0, list(units)].softmax(0)[c]
                rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(p, [*old.parameters()])]))
            jacobian = torch.stack(rows)
            kernel = jacobian @ (variance[:, None] * jacobian.T) + cfg.jitter * torch.eye(len(x))
            m, m_old = (net(x)[:, list(units)].softmax(1)[:, c].detach() for net in (new, old))
            total += (m - m_old) @ torch.linalg.solve(kernel, m - m_old)
    return 0.5 * cfg.tau * total


@pytest.mark.parametrize(
    ("scenario", "active_units"), [("task", "seen"), ("domain", "seen"), ("class", "seen"), ("class", "all")]
)
def test_the_prior_equals_a_dense_solve(scenario: str, active_units: str) -> None:
    stream = unequal(scenario, active_units)
    learner = after_two_tasks(stream, tau=0.3, jitter=1e-4)
    old = copy.deepcopy(learner.net)
    moved(learner)
    batch = stream[2].train.batch(torch.arange(100) % 40)  # so large that every memorable point takes part
    if scenario == "task":  # tasks of 8 and of 12 points: here as many are drawn of each as the smaller one has
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(learner.memory, "sizes", [8, 12, 8])
            points = [torch.arange(8), torch.arange(12)]
        found = torch.zeros(())
        for s, index in enumerate(points):
            noise = {"points": torch.zeros(2, len(index), dtype=torch.int64)}
            noise["points"][s] = index
            only = copy.deepcopy(learner)
            only.old_precision[1 - s] = 0
            found = found + only.loss(batch, noise)["prior"]
    else:
        noise = learner.draw(100, generator(3))
        assert noise["points"].shape == (1, learner.memory.filled(2))
        found = learner.loss(batch, noise)["prior"]
    expected = dense_prior(learner, old, stream)
    assert float(expected) > 0
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_a_step_takes_a_part_of_the_precision(scenario: str) -> None:
    stream = unequal(scenario)
    learner = moved(after_two_tasks(stream, tau=2.0))
    noise = learner.draw(6, generator(0))
    blocks = learner.blocks()
    assert noise["points"].shape == ((2, 3) if scenario == "task" else (1, 6))
    total = torch.zeros(())
    for b, (points, units, columns) in enumerate(blocks):
        index = noise["points"][b]
        assert len(index.unique()) == len(index), "drawn without replacement"
        x = learner.memory.batch(points[index]).x
        m = learner.net(x)[:, units].softmax(1)
        for c, column in enumerate(columns.tolist()):
            change = m[:, c] - learner.old_probabilities[points[index], column]
            total = total + change @ learner.old_precision[b][index[:, None], index][..., column] @ change
    batch = stream[2].train.batch(torch.arange(6))
    losses = learner.loss(batch, noise)
    torch.testing.assert_close(losses["prior"], total, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses["current"], learner.cross_entropy(learner.net(batch.x), batch))


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_memorable_points_are_those_the_network_is_least_sure_of(scenario: str) -> None:
    stream = unequal(scenario)
    learner = after_two_tasks(stream)
    data = stream[2].train
    chosen = set(learner.memorable(2, data).tolist())
    active = learner.active_now[2]
    for unit in stream.spec.units[2]:
        scores = {}
        for i in range(len(data)):
            sample = data.batch(torch.tensor([i]))
            if int(sample.y) == unit:
                p = learner.net(sample.x)[0, active].softmax(0).detach()
                scores[i] = float((p * (1 - p)).sum())
        best = sorted(scores, key=lambda i: -scores[i])[:4]
        assert set(best) == chosen & set(scores)
    learner.end_task(2, data, generator(0))
    kept = learner.memory.batch(torch.arange(learner.memory.filled(2), learner.memory.filled(3)))
    expected = data.batch(torch.tensor(sorted(chosen))).x
    assert {tuple(x.flatten().tolist()) for x in kept.x} == {tuple(x.flatten().tolist()) for x in expected}


def test_fisher_information_is_summed_over_samples_and_tasks() -> None:
    stream = unequal("class")
    learner = after_two_tasks(stream)
    before, data = learner.fisher.clone(), stream[2].train
    learner.end_task(2, data, generator(0))
    mean = torch.cat([f.flatten() for f in fisher_vmap(learner.net, data, learner.active_now[2])])
    torch.testing.assert_close(learner.fisher - before, len(data) * mean, rtol=1e-3, atol=1e-4)
    assert bool(before.any())


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_nothing_pulls_before_anything_has_changed(scenario: str) -> None:
    stream = unequal(scenario)
    learner = after_two_tasks(stream, jitter=1e-2)
    learner.net.zero_grad()
    learner.loss(stream[2].train.batch(torch.arange(6)), learner.draw(6, generator(0)))["prior"].backward()
    assert all(p.grad is not None and float(p.grad.abs().max()) < 1e-4 for p in learner.net.parameters())


def test_without_strength_it_is_fine_tuning() -> None:
    stream = unequal("domain")
    learner = after_two_tasks(stream, tau=0.0, clip=1e12)
    plain = copy.deepcopy(learner.net)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-2)
    optimizer.load_state_dict(copy.deepcopy(learner.opts["classifier"].state_dict()))
    batch = stream[2].train.batch(torch.arange(8))
    learner.step(batch, learner.draw(8, generator(0)))
    learner.cross_entropy(plain(batch.x), batch).backward()
    optimizer.step()
    for a, b in zip(plain.parameters(), learner.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_clipped() -> None:
    stream = unequal("class")
    learner = moved(after_two_tasks(stream, tau=1e6, clip=0.25))
    learner.opts = {"none": torch.optim.SGD(learner.net.parameters(), lr=0.0)}
    learner.step(stream[2].train.batch(torch.arange(8)), learner.draw(8, generator(0)))
    norm = torch.cat([p.grad.flatten() for p in learner.net.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.25, rel=1e-3)


def test_weights_that_are_no_numbers_are_named() -> None:
    stream = unequal("class")
    learner = after_two_tasks(stream)
    with torch.no_grad():
        learner.net[1].weight.fill_(torch.nan)
    with pytest.raises(DivergedError, match="memorable points before task 3"):
        learner.begin_phase(2, PHASE, stream[2].train, generator(0))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("tau", -1.0), ("per_class", 0), ("prior_precision", 0.0), ("jitter", 0.0), ("clip", 0.0)],
)
def test_settings(setting: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{setting}="):
        FROMP.Config(**{setting: value})  # type: ignore[arg-type]
