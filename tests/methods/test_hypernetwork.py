"""Hypernetworks: the step with look-ahead against one written out, embeddings that never change, and the inferred task."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.streams import dirichlet, split
from clteach.data.tasks import Batch, Spec, Stream
from clteach.errors import ConfigError
from clteach.experiments.papers import column
from clteach.learners.learner import Learner
from clteach.learners.replay import imitation_loss
from clteach.methods.hypernetwork import Hypernetwork, HypernetworkEnt
from clteach.methods.hypernetwork_replay import REPLAY_MODEL, HypernetworkR
from clteach.methods.hypernetwork_tir import TASK_INFERENCE, HypernetworkTIR
from clteach.models.hypernet import direct_drift
from clteach.seeding import generator
from clteach.training.learner_checks import quick, tiny, toy_data
from clteach.training.loop import train

SMALL: dict[str, Any] = {"hidden": (8,), "embedding": 6, "chunk_embedding": 4, "chunk": 100}


def ready(cls: type[Learner], scenario: str, t: int, phase: int = 0, **settings: Any) -> tuple[Any, Stream, Batch]:
    """A small learner about to take its first step of task t (0-based), after a few steps of each earlier task."""
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    known = cls.Config.__dataclass_fields__
    chosen = {"z": 3, "decoder_hidden": (6,), "decoder_chunk": 200, **SMALL, **settings}
    learner = cls(stream.spec, cls.Config(**{k: v for k, v in chosen.items() if k in known}))
    for k in range(t + 1):
        for p, each in enumerate(learner.phases(k, 3)):
            learner.enter(k, each)
            learner.begin_phase(k, each, stream[k].train, generator(0, k, p))
            if (k, p) == (t, phase):
                break
            for s in range(each.steps):
                learner.step(stream[k].train.batch(torch.arange(8)), learner.draw(8, generator(1, k, p, s)))
    return learner, stream, stream[t].train.batch(torch.arange(8))


# ------------------------------------------------------------------------------------------------- the hypernetwork


@pytest.mark.parametrize(
    ("stream", "shape", "tasks", "classes", "counts"),
    [
        ("split-mnist", (1, 28, 28), 5, 2, (465_672, 478_410)),
        ("permuted-mnist", (1, 32, 32), 10, 10, (2_029_939, 2_126_100)),
    ],
)
def test_weight_counts_of_the_presets(
    stream: str, shape: tuple[int, ...], tasks: int, classes: int, counts: tuple[int, int]
) -> None:
    units = tuple(tuple(range(t * classes, (t + 1) * classes)) for t in range(tasks))
    settings = column("2020-hypernetworks", stream).settings("hypernetwork", "task")
    learner = Hypernetwork(Spec(shape, tasks, tasks * classes, "task", units), Hypernetwork.Config(**settings))
    assert (learner.hypernet.count(), learner.target.n_weights) == counts


def regularised(learner: Hypernetwork, shift: list[Tensor] | None = None) -> list[Tensor]:
    """β times the gradient of the directly computed drift, at Θ_h + shift, right after the snapshot was taken."""
    net = copy.deepcopy(learner.hypernet)
    theta = list(net.shared().values())
    with torch.no_grad():
        before = net(net.first(learner.t))  # nothing has moved since the snapshot was taken
        for p, d in zip(theta, shift or [torch.zeros_like(p) for p in theta], strict=True):
            p += d
    return [learner.cfg.beta * g for g in torch.autograd.grad(direct_drift(net, learner.t, before), theta)]


def test_a_step_with_look_ahead_by_hand_sgd() -> None:
    """Θ ← Θ - η (∇L(Θ) + β ∇D(Θ - η ∇L(Θ)))."""
    learner, _, batch = ready(Hypernetwork, "task", 2, beta=0.5)
    theta, rate = list(learner.hypernet.shared().values()), 0.05
    learner.opts["hypernetwork"] = torch.optim.SGD(learner.hypernet.parameters(), lr=rate)
    gradient = torch.autograd.grad(learner.task_loss(batch, {})["current"], theta)
    ahead = regularised(learner, [-rate * g for g in gradient])
    expected = [(p - rate * (g + d)).detach() for p, g, d in zip(theta, gradient, ahead, strict=True)]
    learner.step(batch, {})
    torch.testing.assert_close([p.detach() for p in theta], expected, rtol=1e-4, atol=1e-6)
    assert max(float(d.abs().max()) for d in ahead) > 1e-4, "a test that looks ahead at nothing shows nothing"


def test_a_step_with_look_ahead_by_hand_adam() -> None:
    """The candidate step is a real one, taken by a copy for the task's loss alone."""
    learner, _, batch = ready(Hypernetwork, "task", 2, beta=0.5)
    for _ in range(2):  # Adam has a state by now
        learner.step(batch, {})
    learner.hypernet.remember(2)
    twin = copy.deepcopy(learner)
    names, theta = list(learner.hypernet.shared()), list(learner.hypernet.shared().values())
    twin.opts["hypernetwork"].zero_grad()
    twin.task_loss(batch, {})["current"].backward()
    gradient = [p.grad.clone() for p in twin.hypernet.shared().values()]
    here = [p.detach().clone() for p in theta]
    candidate = copy.deepcopy(twin)
    for p, g in zip(candidate.hypernet.shared().values(), gradient, strict=True):
        p.grad = g.clone()  # not copied with the parameters
    candidate.opts["hypernetwork"].step()
    shift = [candidate.hypernet.shared()[n].detach() - p for n, p in zip(names, here, strict=True)]
    for p, g, d in zip(twin.hypernet.shared().values(), gradient, regularised(learner, shift), strict=True):
        p.grad = g + d
    twin.opts["hypernetwork"].step()
    learner.step(batch, {})
    for name, p in twin.hypernet.shared().items():
        step, expected = (learner.hypernet.shared()[name] - here[names.index(name)], p - here[names.index(name)])
        torch.testing.assert_close(step, expected, rtol=2e-3, atol=1e-6)


def test_without_look_ahead_the_first_step_is_unprotected() -> None:
    learner, _, batch = ready(Hypernetwork, "task", 1, lookahead=False, beta=100.0)
    other, _, _ = ready(Hypernetwork, "task", 1, lookahead=False, beta=0.0)
    assert float(learner.loss(batch, {})["drift"].detach()) == 0
    for each in (learner, other):
        each.step(batch, {})
    assert torch.equal(learner.hypernet.last, other.hypernet.last)
    assert float(learner.loss(batch, {})["drift"].detach()) > 0
    ahead, _, _ = ready(Hypernetwork, "task", 1, beta=100.0)
    assert float(ahead.step(batch, {})["drift"]) > 0


def test_past_and_future_embeddings_never_change() -> None:
    _, stream, _ = ready(Hypernetwork, "task", 0)
    learner = Hypernetwork(stream.spec, Hypernetwork.Config(**SMALL, fresh_optimizer=False))
    for t in range(3):
        before = [e.detach().clone() for e in learner.hypernet.embeddings]
        (phase,) = learner.phases(t, 6)
        learner.enter(t, phase)
        learner.begin_phase(t, phase, stream[t].train, generator(0))
        for s in range(6):
            learner.step(stream[t].train.batch(torch.arange(8)), learner.draw(8, generator(s)))
        same = [torch.equal(a, b) for a, b in zip(before, learner.hypernet.embeddings, strict=True)]
        assert same == [k != t for k in range(3)], "the current one learns, and it alone"


def test_with_the_shared_weights_held_still_nothing_is_forgotten() -> None:
    """β → ∞: only the new embedding learns, and predictions for old tasks stay the same to the last bit."""
    learner, stream, _ = ready(Hypernetwork, "task", 1, lookahead=False)
    x, first = stream[0].test.batch(torch.arange(9)).x, torch.zeros(9, dtype=torch.long)
    for p in learner.hypernet.shared().values():
        p.requires_grad_(False)
    with torch.no_grad():
        before = learner.predict(x, first), learner.predict(x, first + 1)
    for s in range(5):
        learner.step(stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(s)))
    with torch.no_grad():
        after = learner.predict(x, first), learner.predict(x, first + 1)
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])


def test_the_regulariser_keeps_what_would_be_forgotten() -> None:
    stream = split(toy_data(n=60), "task", tasks=2)
    options: dict[str, Any] = {"steps": 150, "batch_size": 32, "hidden": (32,), "lr": 5e-3, "device": "cpu"}
    free = train("hypernetwork", stream, beta=0.0, lookahead=False, **options)
    kept = train("hypernetwork", stream, beta=1.0, **options)
    assert float(kept.accuracy[1].min()) > 0.95
    drift = {}
    for name, run in (("free", free), ("kept", kept)):
        assert isinstance(run.learner, Hypernetwork)
        drift[name] = float(run.learner.hypernet.drift(1).detach())
    assert drift["kept"] < 0.1 * drift["free"]


def test_past_tasks_are_drawn_without_replacement() -> None:
    learner, _, batch = ready(Hypernetwork, "task", 2, past_tasks=1)
    drawn = {int(learner.draw(8, generator(s))["tasks"]) for s in range(20)}
    assert drawn == {0, 1}
    assert math.isfinite(float(learner.step(batch, learner.draw(8, generator(0)))["drift"]))
    learner.t = 1
    assert learner.draw(8, generator(0)) == {}, "as many as there are: none is left out, none is drawn"
    many, *_ = ready(Hypernetwork, "task", 2, past_tasks=2)
    assert many.draw(8, generator(0)) == {}


def test_a_task_is_learned_by_its_own_units_alone() -> None:
    for cls, scenario in ((Hypernetwork, "task"), (HypernetworkEnt, "class"), (HypernetworkEnt, "domain")):
        learner, stream, batch = ready(cls, scenario, 1)
        logits = learner.target(learner.hypernet.weights(1), batch.x)
        own = list(stream.spec.units[1])
        expected = F.cross_entropy(logits[:, own], batch.y - own[0])
        torch.testing.assert_close(learner.loss(batch, {})["current"], expected)


@pytest.mark.parametrize("target", ["conv", "resnet32"])
def test_any_network_can_be_a_target(target: str) -> None:
    learner, stream, _ = ready(Hypernetwork, "task", 0, target=target, chunk=9000)
    assert learner.target.n_weights > 100_000
    batch = stream[0].train.batch(torch.arange(32))
    losses = [float(learner.step(batch, {})["current"]) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]
    assert learner.predict(batch.x, batch.task).shape == (32, 6)


def test_predict_needs_the_task() -> None:
    learner, _, batch = ready(Hypernetwork, "task", 1)
    with pytest.raises(ConfigError, match="task of every sample"):
        learner.predict(batch.x)


@pytest.mark.parametrize("bad", [{"beta": -1.0}, {"chunk": 0}, {"embedding": 0}, {"past_tasks": 0}])
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hypernetwork"):
        Hypernetwork.Config(**bad)


# ------------------------------------------------------------------------------------------------ HNET+ENT, +R, +TIR


@pytest.mark.parametrize("scenario", ["domain", "class"])
def test_entropy_picks_the_surest_network(scenario: str) -> None:
    learner, stream, batch = ready(HypernetworkEnt, scenario, 1)
    with torch.no_grad():
        logits = learner.logits(batch.x)
        entropy, got = learner.entropy(logits), learner.predict(batch.x)
    for i in range(len(batch.x)):
        by_hand = []
        for k in range(2):  # the two tasks seen, not the third
            p = torch.softmax(
                learner.target(learner.hypernet.weights(k), batch.x[i : i + 1])[0, list(stream.spec.units[k])], 0
            )
            by_hand.append(-float((p * p.log()).sum().detach()))
        assert entropy[:, i].tolist() == pytest.approx(by_hand, rel=1e-3, abs=1e-6)
        surest = int(torch.tensor(by_hand).argmin())
        assert int(got[i].argmax()) in stream.spec.units[surest]
        assert int(learner.infer_task(batch.x[i : i + 1])) == surest
    assert got.isfinite().all()


def test_samples_of_all_past_tasks_in_equal_numbers() -> None:
    learner, stream, batch = ready(HypernetworkR, "class", 2, phase=1)
    noise = learner.draw(7, generator(0))
    assert noise["z"].shape == (2, 4, 3) and noise["units"].shape == (2, 4)  # 4 + 4: at least 7, as many of each
    for k in range(2):
        assert set(noise["units"][k].tolist()) <= set(stream.spec.units[k])
    replayed = learner.replayed(noise)
    assert replayed.task.tolist() == [0] * 4 + [1] * 4
    # each by the decoder of its own task
    for i in range(8):
        k = int(replayed.task[i])
        told = F.one_hot(replayed.y[i], 6).float()
        weights = learner.vae.hypernet.weights(k)
        image = learner.vae.target(weights, torch.cat([noise["z"].flatten(0, 1)[i], told])[None]).sigmoid()
        torch.testing.assert_close(replayed.x[i].flatten(), image[0].detach())
    assert math.isfinite(float(learner.step(batch, noise)["replay"]))


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_real_and_replayed_weigh_half_each(scenario: str) -> None:
    learner, _, batch = ready(HypernetworkR, scenario, 2, phase=1)
    with torch.no_grad():  # so that the two classifiers differ
        learner.net[1].weight += 0.1 * torch.randn(learner.net[1].weight.shape, generator=generator(5))
    noise = learner.draw(8, generator(0))
    losses = learner.loss(batch, noise)
    replayed = learner.replayed(noise)
    with torch.no_grad():
        new, old = learner.net(replayed.x), learner.old_net(replayed.x)
        expected = 0.5 * learner.cross_entropy(learner.net(batch.x), batch)
        if scenario == "task":  # the head of the task that the sample was made for, and no other
            parts = [
                imitation_loss(new[i : i + 1], old[i : i + 1], learner.active_now[[k]], learner.active_now[[k]])
                for i, k in enumerate(replayed.task.tolist())
            ]
            imitation = torch.stack(parts).mean()
        else:
            imitation = imitation_loss(new, old, learner.old_active, learner.new_active)
    torch.testing.assert_close(losses["current"].detach(), expected)
    torch.testing.assert_close(losses["replay"].detach(), 0.5 * imitation)


def test_the_encoder_has_the_layers_asked_for_or_the_decoders_reversed() -> None:
    spec = split(toy_data(n_classes=6), "class", tasks=3).spec
    for asked, expected in ((), [3, 2]), ((7,), [7]):
        cfg = HypernetworkR.Config(hidden=(4,), decoder_hidden=(2, 3), encoder_hidden=asked, z=5)
        layers = [m for m in HypernetworkR(spec, cfg).vae.encoder.modules() if isinstance(m, torch.nn.Linear)]
        assert [layer.out_features for layer in layers] == [*expected, 2 * 5]
    with pytest.raises(ConfigError, match="encoder_hidden"):
        HypernetworkR.Config(encoder_hidden=(0,))


def test_the_replay_models_loss_is_the_negative_elbo() -> None:
    learner, _, batch = ready(HypernetworkR, "class", 1)
    assert learner.phase.name == REPLAY_MODEL
    noise = learner.draw(8, generator(0))
    total = 0.0
    with torch.no_grad():
        got = float(learner.loss(batch, noise)["vae"])
        for i in range(8):
            x, told = batch.x[i].flatten(), F.one_hot(batch.y[i], 6).float()
            mean, logvar = learner.vae.encoder(torch.cat([x, told])[None])[0].split(3)
            z = mean + (0.5 * logvar).exp() * noise["eps"][i]
            p = learner.vae.target(learner.vae.hypernet.weights(1), torch.cat([z, told])[None])[0].sigmoid()
            total -= float((x * p.log() + (1 - x) * (1 - p).log()).sum())
            total += float(0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum())
    assert got == pytest.approx(total / 8, rel=1e-4)


@pytest.mark.parametrize("cls", [HypernetworkR, HypernetworkTIR])
def test_each_phase_trains_its_own_networks(cls: type[Learner]) -> None:
    parts = {REPLAY_MODEL: "vae.", "classifier": "net.", "train": "hypernet.", TASK_INFERENCE: "task_net."}
    learner, stream, _ = ready(cls, "class", 1)
    for phase in learner.phases(1, 2):
        learner.enter(1, phase)
        learner.begin_phase(1, phase, stream[1].train, generator(0))
        before = {k: p.clone() for k, p in learner.named_parameters()}
        for s in range(2):
            learner.step(stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(s)))
        moved = {k for k, p in learner.named_parameters() if not torch.equal(p, before[k])}
        assert moved and all(k.startswith(parts[phase.name]) for k in moved), (phase.name, moved)


def test_samples_of_chosen_tasks_and_classes() -> None:
    learner, stream, _ = ready(HypernetworkR, "class", 2, phase=1)
    some = learner.sample(6, generator(0))
    assert some.shape == (6, *stream.spec.shape) and float(some.min()) >= 0 and float(some.max()) <= 1
    classes = torch.tensor([0, 3, 3])
    chosen = learner.sample(3, generator(0), classes=classes)
    assert torch.equal(chosen, learner.sample(3, generator(0), classes=classes, tasks=torch.tensor([0, 1, 1])))
    assert learner.sample(4, generator(0), tasks=torch.tensor([0, 1, 1, 0])).shape == (4, *stream.spec.shape)


def test_classes_alone_belong_to_one_task_that_was_learned() -> None:
    """Tasks of different sizes: the first unit must not be looked for where the table of units is padded."""
    stream = dirichlet(toy_data(n_classes=6, n=40), "class", tasks=3, alpha=0.2, seed=20)
    units = stream.spec.units
    assert len(set(map(len, units))) > 1
    owners = [[t for t in range(3) if unit in units[t]] for unit in range(6)]
    learner = HypernetworkR(stream.spec, tiny(HypernetworkR))
    learner.t = 2
    alone = [unit for unit in range(6) if len(owners[unit]) == 1]
    shared = [unit for unit in range(6) if len(owners[unit]) > 1]
    assert owners[0] in ([1], [2]) and shared
    for unit in alone:
        told = {"classes": torch.tensor([unit]), "tasks": torch.tensor(owners[unit])}
        assert torch.equal(
            learner.sample(1, generator(0), classes=torch.tensor([unit])), learner.sample(1, generator(0), **told)
        )
    with pytest.raises(ConfigError, match=rf"\[{shared[0]}\] belong to none or to several of the 3 tasks"):
        learner.sample(1, generator(0), classes=torch.tensor([shared[0]]))
    learner.t = 0
    with pytest.raises(ConfigError, match="none or to several of the 1 tasks"):
        learner.sample(1, generator(0), classes=torch.tensor([0]))


def test_the_task_classifier_picks_the_network() -> None:
    learner, stream, batch = ready(HypernetworkTIR, "class", 1, phase=2)
    with torch.no_grad():
        for bias, chosen in ((torch.tensor([0.0, 50.0, 99.0]), 1), (torch.tensor([50.0, 0.0, 99.0]), 0)):
            learner.task_net[-1].bias.copy_(bias)  # the third task is not known yet
            assert learner.infer_task(batch.x).tolist() == [chosen] * 8
            logits = learner.predict(batch.x)
            own = learner.target(learner.hypernet.weights(chosen), batch.x)[:, list(stream.spec.units[chosen])]
            assert torch.equal(logits.argmax(1), own.argmax(1) + stream.spec.units[chosen][0])


def test_task_inference_learns_from_labels_it_knows() -> None:
    learner, _, batch = ready(HypernetworkTIR, "domain", 2, phase=2)
    noise = learner.draw(8, generator(0))
    losses, replayed = learner.loss(batch, noise), learner.replayed(noise)
    now, past = learner.task_net(batch.x), learner.task_net(replayed.x)
    torch.testing.assert_close(losses["current"], 0.5 * F.cross_entropy(now, torch.full((8,), 2)))
    torch.testing.assert_close(losses["replay"], 0.5 * F.cross_entropy(past, replayed.task))


@pytest.mark.parametrize("bad", [{"decoder_beta": -1.0}, {"z": 0}, {"temperature": 0.0}])
def test_bad_settings_of_the_replay_model(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="hypernetwork"):
        HypernetworkR.Config(**bad)


def test_one_task_replays_nothing() -> None:
    stream = split(toy_data(), "class", tasks=1)
    for cls in (HypernetworkR, HypernetworkTIR):
        run = quick(cls, stream)
        assert all("replay" not in row and "drift" not in row for row in run.losses)
