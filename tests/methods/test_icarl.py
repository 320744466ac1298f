"""iCaRL: herding against every choice, its loss by hand, the nearest mean against a loop."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.learners.replay import Memory
from clteach.methods import build
from clteach.methods.icarl import FARTHEST, ICaRL, herd
from clteach.models.frozen import refresh
from clteach.seeding import generator
from clteach.training.learner_checks import quick, toy_data

STREAM = split(toy_data(n_classes=6), "class", tasks=3)


def learned(steps: int = 4, temperature: float = 1.0) -> ICaRL:
    """An iCaRL that has been through all tasks of `STREAM`, with 3 exemplars per class."""
    learner = quick(ICaRL, STREAM, steps=steps, per_class=3, temperature=temperature).learner
    assert isinstance(learner, ICaRL)
    return learner.eval()


def unit_vectors(n: int, d: int, seed: int) -> Tensor:
    return F.normalize(torch.rand(n, d, generator=generator(seed), dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
def test_herding_against_brute_force(seed: int) -> None:
    """Each choice is the best of all that are left, found by trying every one."""
    features = unit_vectors(30, 6, seed)
    mean = F.normalize(features.mean(0), dim=0)
    chosen: list[int] = []
    for k in range(1, 13):
        distance = {i: float((mean - features[[*chosen, i]].sum(0) / k).norm()) for i in range(30) if i not in chosen}
        chosen.append(min(distance, key=distance.__getitem__))
    assert herd(features, 12).tolist() == chosen


def test_the_first_exemplar_is_the_nearest_and_two_are_a_good_pair() -> None:
    # Three directions: the one in the middle is the mean's; the pair that balances comes next.
    angles = torch.tensor([-0.5, 0.02, 0.6, -0.3])
    features = torch.stack([angles.cos(), angles.sin()], 1)
    order = herd(features, 4).tolist()
    mean = F.normalize(features.mean(0), dim=0)
    assert order[0] == int((features @ mean).argmax()) and sorted(order) == [0, 1, 2, 3]
    best = min(itertools.combinations(range(4), 1), key=lambda pick: float((features[[*pick]].mean(0) - mean).norm()))
    assert order[:1] == list(best)


def test_herded_samples_stand_better_for_the_mean_than_random_ones() -> None:
    features = unit_vectors(200, 20, 0)
    mean = F.normalize(features.mean(0), dim=0)
    herded = (features[herd(features, 10)].mean(0) - mean).norm()
    random = [
        float((features[torch.randperm(200, generator=generator(s))[:10]].mean(0) - mean).norm()) for s in range(20)
    ]
    assert float(herded) < min(random)


def test_fewer_samples_than_places() -> None:
    assert sorted(herd(unit_vectors(4, 3, 0), 10).tolist()) == [0, 1, 2, 3]
    assert herd(unit_vectors(4, 3, 0)[:0], 10).tolist() == []


def test_the_memory_holds_the_herded_samples_of_every_class() -> None:
    learner = learned()
    everything = learner.memory.batch(torch.arange(18))
    assert everything.y.bincount().tolist() == [3] * 6 and bool(learner.stored.all())
    for c in STREAM.spec.units[2]:  # of the last task, whose features are still those of the network
        data = STREAM[2].train
        x = data.batch((data.y == c).nonzero().flatten()).x
        expected = x[herd(learner.features(x), 3)].flatten(1)
        kept = everything.x[everything.y == c].flatten(1)
        assert sorted(map(tuple, expected.tolist())) == sorted(map(tuple, kept.tolist()))


def test_random_exemplars_are_those_that_a_memory_of_replay_would_keep() -> None:
    """No features are asked: whatever the network has learned, the same samples are kept."""
    kept = []
    for seed in (0, 1):
        learner = build("icarl", STREAM.spec, seed=seed, hidden=(8,), per_class=3, exemplars="random")
        learner.end_task(0, STREAM[0].train, generator(7))
        kept.append(learner.memory.x[: learner.memory.filled(1)])
    memory = Memory(STREAM.spec, 3)
    memory.add(0, STREAM[0].train, generator(7))
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], memory.x[: memory.filled(1)])
    herded = build("icarl", STREAM.spec, hidden=(8,), per_class=3)
    herded.end_task(0, STREAM[0].train, generator(7))
    assert not torch.equal(herded.memory.x[: herded.memory.filled(1)], kept[0])


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_by_hand(temperature: float) -> None:
    """New classes: the label. Old ones: what the old network says. Later ones: nothing. A sum over classes."""
    learner = learned(temperature=temperature)
    learner.enter(1, Phase("train", 1))
    refresh(learner.old_net, build("icarl", STREAM.spec, hidden=(8,), seed=5).get_submodule("net"))
    batch = STREAM[1].train.batch(torch.tensor([0, 30, 7]))
    noise = {"memory": torch.tensor([0, 1, 2]), "mix": torch.tensor([0.9, 0.0, 0.9])}
    learner.share.fill_(0.5)  # so the second sample is an exemplar
    losses = {name: float(value.detach()) for name, value in learner.loss(batch, noise).items()}

    exemplar = learner.memory.batch(torch.tensor([1]))
    x = torch.stack([batch.x[0], exemplar.x[0], batch.x[2]])
    y = [int(batch.y[0]), int(exemplar.y[0]), int(batch.y[2])]
    z, z_old = learner.net(x).detach(), learner.old_net(x)
    old, new = STREAM.spec.units[0], STREAM.spec.units[1]
    expected = {"current": 0.0, "distillation": 0.0}
    for i in range(3):
        for c in range(6):
            p = 1 / (1 + math.exp(-float(z[i, c])))
            if c in new:
                expected["current"] -= math.log(p if y[i] == c else 1 - p) / 3
            elif c in old:
                q = 1 / (1 + math.exp(-float(z_old[i, c]) / temperature))
                expected["distillation"] -= (q * math.log(p) + (1 - q) * math.log(1 - p)) / 3
    assert y[1] in old and set(losses) == set(expected)
    for name, value in expected.items():
        assert losses[name] == pytest.approx(value, rel=1e-5)


def test_units_of_later_classes_learn_nothing() -> None:
    learner = learned()
    learner.enter(1, Phase("train", 1))
    losses = learner.loss(STREAM[1].train.batch(torch.arange(5)), learner.draw(5, generator(0)))
    weight = learner.net.get_submodule(learner.last).get_parameter("weight")
    (gradient,) = torch.autograd.grad(torch.stack([*losses.values()]).sum(), [weight])
    moved = {c for c in range(6) if bool(gradient[c].any())}
    assert moved == {*STREAM.spec.units[0], *STREAM.spec.units[1]}


def test_exemplars_have_their_share_in_the_batches() -> None:
    learner = learned()
    learner.enter(2, Phase("train", 1))
    learner.begin_phase(2, Phase("train", 1), STREAM[2].train, generator(0))
    assert float(learner.share) == pytest.approx(12 / (12 + 48))  # 4 past classes of 3, and 2 new ones of 24
    batch = STREAM[2].train.batch(torch.arange(48).repeat(50))
    mixed = learner.mixed(batch, learner.draw(len(batch.y), generator(0)))
    from_memory = mixed.task < 2
    assert float(from_memory.float().mean()) == pytest.approx(0.2, abs=0.03)
    real = learner.memory.batch(torch.arange(12))
    for x, y in zip(mixed.x[from_memory][:20], mixed.y[from_memory][:20], strict=True):
        assert bool(((real.x == x).flatten(1).all(1) & (real.y == y)).any())
    assert torch.equal(mixed.x[~from_memory], batch.x[~from_memory])


def test_the_answer_is_the_nearest_mean_of_exemplars() -> None:
    learner = learned(steps=30)
    batch = STREAM[0].test.batch(torch.arange(10))
    with torch.no_grad():
        logits = learner.predict(batch.x)
        hidden = learner.net[:-1]
        assert isinstance(hidden, nn.Sequential)
        for x, row in zip(batch.x, logits, strict=True):
            phi = hidden(x[None])[0]
            phi = phi / phi.norm()
            for c in range(6):
                exemplars = hidden(learner.memory.batch((learner.memory.y == c).nonzero().flatten()).x)
                mean = (exemplars / exemplars.norm(dim=1, keepdim=True)).mean(0)
                assert float(row[c]) == pytest.approx(-float((phi - mean / mean.norm()).square().sum()), abs=1e-5)


def test_the_output_layer_does_not_answer() -> None:
    learner = learned()
    x = STREAM[0].test.batch(torch.arange(10)).x
    before = learner.predict(x)
    nn.init.normal_(learner.net.get_submodule(learner.last).get_parameter("bias"))
    assert torch.equal(before, learner.predict(x))


def test_a_class_without_exemplars_is_no_answer() -> None:
    learner = ICaRL(STREAM.spec, ICaRL.Config(hidden=(8,), per_class=3))
    x = STREAM[0].test.batch(torch.arange(10)).x
    assert bool((learner.predict(x) == -FARTHEST - 1).all())
    learner.enter(0, Phase("train", 1))
    learner.end_task(0, STREAM[0].train, generator(0))
    known = learner.predict(x) >= -FARTHEST
    assert known.all(0).nonzero().flatten().tolist() == list(STREAM.spec.units[0])
    assert bool((known.any(0) == known.all(0)).all())


def test_the_network_must_end_in_a_linear_layer() -> None:
    class Ends(nn.Module):
        def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(shape[0], n_out, shape[1:])

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).flatten(1)

    with pytest.raises(ConfigError, match=r"nn\.Linear with 6 outputs.*Expected one that ends with such a layer"):
        build("icarl", STREAM.spec, net=Ends)
    with pytest.raises(ConfigError, match="temperature=0"):
        ICaRL.Config(temperature=0.0)
    for scenario in ("task", "domain"):
        with pytest.raises(ConfigError, match=f"icarl does not support the scenario '{scenario}'"):
            build("icarl", split(toy_data(), scenario, tasks=2).spec)
