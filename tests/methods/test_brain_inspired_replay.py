"""Brain-inspired replay: its prior against integrals, its gates against loops, each switch against the simpler method."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from clteach.data.extractors import EXTRACTORS, register_extractor, trained
from clteach.data.streams import split
from clteach.data.tasks import SCENARIOS, Stream
from clteach.errors import ConfigError
from clteach.experiments.papers import RECIPES, column
from clteach.experiments.recipe import chosen
from clteach.learners.learner import Phase, total
from clteach.methods import METHODS, configure, fitting
from clteach.methods.brain_inspired_replay import BrainInspiredReplay, BrainInspiredReplaySI
from clteach.methods.generative_replay import GenerativeReplay
from clteach.models.context_vae import ContextVAE
from clteach.models.nets import conv_features, deconv_pixels, one_hot
from clteach.seeding import generator, seeded
from clteach.training.learner_checks import quick, same_state, toy_data
from clteach.training.loop import train
from clteach.training.pretraining import augmented, pretrain
from clteach.training.run import load_learner

ALL_OFF = {"feedback": False, "conditional": False, "gating": 0.0}


def ready(scenario: str, t: int, active_units: str = "seen", **settings: Any) -> tuple[BrainInspiredReplay, Stream]:
    """A tiny learner about to learn task t (0-based), with an old model that differs from the new one."""
    stream = split(toy_data(n_classes=6), scenario, tasks=3, active_units=active_units)
    learner = BrainInspiredReplay(stream.spec, BrainInspiredReplay.Config(**{"hidden": (8, 7), "z": 3, **settings}))
    phase = Phase("train", 1)
    learner.enter(t, phase)
    learner.begin_phase(t, phase, stream[t].train, generator(0))
    with torch.no_grad():
        for p in [*learner.net.parameters(), *learner.vae.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator(1, p.numel()))
    return learner, stream


def new_vae(*shape: Any, **settings: Any) -> ContextVAE:
    with seeded(0, "vae"):
        return ContextVAE(*shape, **settings)


def mixture(vae: ContextVAE, weights: Tensor) -> Any:
    """The same prior from torch.distributions (whose mixtures do not know a weight of exactly 0)."""
    components = Independent(Normal(vae.prior_mean, torch.exp(0.5 * vae.prior_logvar)), 1)
    if float(weights.max()) < 1:
        return MixtureSameFamily(Categorical(weights), components)
    c = weights.argmax()
    return Independent(Normal(vae.prior_mean[c], torch.exp(0.5 * vae.prior_logvar[c])), 1)


# --- conditional replay ---


def test_the_prior_is_the_mixture_of_the_labels() -> None:
    vae = new_vae((4,), (5,), 6, classes=3)
    z = torch.randn(7, 6, generator=generator(0)) * 2
    label = F.softmax(torch.randn(7, 3, generator=generator(1)), 1)
    label[:3] = torch.eye(3)  # sure of one class: -∞ in the logarithm must do no harm
    got = vae.log_prior(z, label)
    for i in range(7):
        expected = mixture(vae, label[i]).log_prob(z[i]) + 6 / 2 * np.log(2 * np.pi)
        torch.testing.assert_close(got[i], expected, rtol=1e-4, atol=1e-4)
    got.sum().backward()
    assert bool(vae.prior_mean.grad.isfinite().all())  # type: ignore[union-attr]


@pytest.mark.parametrize("label", [[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]])
def test_kl_of_the_mixture_prior_by_integration(label: list[float]) -> None:
    """Its mean over the noise, by Gauss-Hermite quadrature, against ∫ q log(q / p) dz on a grid."""
    vae = new_vae((4,), (5,), 1, classes=3)
    mean, logvar = torch.tensor([[0.7]]), torch.tensor([[-1.1]])
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    eps = torch.tensor(nodes, dtype=torch.float32)[:, None]
    with torch.no_grad():
        z = mean + torch.exp(0.5 * logvar) * eps
        each = vae.kl(mean.expand_as(z), logvar.expand_as(z), z, eps, torch.tensor([label]).expand(100, 3))
        estimate = float((each.double() * torch.tensor(weights / np.sqrt(2 * np.pi))).sum())
        grid = torch.linspace(-8, 8, 20001)[:, None]
        q = Normal(mean, torch.exp(0.5 * logvar)).log_prob(grid)[:, 0]
        p = mixture(vae, torch.tensor(label)).log_prob(grid)
        integral = float(torch.trapezoid(q.exp() * (q - p), grid[:, 0]))
    assert integral > 0.01
    assert estimate == pytest.approx(integral, rel=1e-3)


def test_kl_without_classes_is_the_closed_form() -> None:
    """Unconditional: exactly. With one standard Gaussian per class the estimate has the closed form as its mean."""
    plain, vae = new_vae((4,), (5,), 3), new_vae((4,), (5,), 3, classes=2)
    mean, logvar = torch.randn(2, 1, 3, generator=generator(0)).expand(2, 40000, 3)
    eps = torch.randn(40000, 3, generator=generator(1))
    label = torch.tensor([[0.3, 0.7]]).expand(40000, 2)
    with torch.no_grad():
        vae.prior_mean.zero_(), vae.prior_logvar.zero_()
        z = mean + torch.exp(0.5 * logvar) * eps
        closed = plain.kl(mean, logvar, z, eps, label)
        torch.testing.assert_close(closed[0], 0.5 * (mean**2 + logvar.exp() - 1 - logvar)[0].sum())
        torch.testing.assert_close(vae.kl(mean, logvar, z, eps, label).mean(), closed[0], rtol=0, atol=0.03)
        assert torch.equal(vae.latent(eps, label), eps) and torch.equal(plain.latent(eps, label), eps)


def test_a_class_is_dreamed_from_its_own_gaussian() -> None:
    vae = new_vae((4,), (5,), 2, classes=3)
    with torch.no_grad():
        z = vae.latent(torch.randn(20000, 2, generator=generator(0)), one_hot(torch.full((20000,), 1), 3))
        torch.testing.assert_close(z.mean(0), vae.prior_mean[1], atol=0.05, rtol=0)
        torch.testing.assert_close(z.var(0), vae.prior_logvar[1].exp(), atol=0, rtol=0.05)


# --- gates ---


def test_gates_are_mixed_by_the_labels() -> None:
    """Decoding in a context against a loop over samples and layers."""
    vae = new_vae((4,), (9, 6), 3, contexts=3, gating=0.5)
    z = torch.randn(4, 3, generator=generator(0))
    context = torch.cat([torch.eye(3), torch.tensor([[0.2, 0.5, 0.3]])])
    first, second, last = (layer for layer in vae.decoder if isinstance(layer, nn.Linear))
    masks = [vae.get_buffer("gates_0"), vae.get_buffer("gates_1")]
    assert masks[0].shape == (3, 6) and masks[1].shape == (3, 9)  # the decoder mirrors the encoder
    got = vae.decode(z, context)
    for i in range(4):
        gates = [sum(float(context[i, c]) * mask[c] for c in range(3)) for mask in masks]
        h = gates[0] * torch.relu(first(z[i]))
        h = gates[1] * torch.relu(second(h))
        torch.testing.assert_close(got[i], last(h))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_masks_are_fixed_saved_and_one_per_context(scenario: str, tmp_path: Path) -> None:
    learner, stream = ready(scenario, 1, gating=0.4, hidden=(400,))
    masks = learner.vae.get_buffer("gates_0").clone()
    assert len(masks) == (3 if scenario == "domain" else 6)  # a mask per task where the tasks share their classes
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < float((masks == 0).float().mean()) < 0.5
    assert len(masks.unique(dim=0)) == len(masks)
    for s in range(2):
        learner.step(stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(s)))
    learner.end_task(1, stream[1].train, generator(0))
    learner.begin_phase(2, Phase("train", 1), stream[2].train, generator(0))
    loaded = load_learner(learner.save(tmp_path / "learner.safetensors"))
    for vae in (learner.vae, learner.old_vae, loaded.vae):  # type: ignore[attr-defined]
        assert torch.equal(vae.get_buffer("gates_0"), masks)
    assert isinstance(loaded, BrainInspiredReplay)
    classes = torch.arange(5) % 2 if by_class(scenario) else None
    assert torch.equal(loaded.sample(5, generator(3), classes), learner.sample(5, generator(3), classes))
    other = BrainInspiredReplay(stream.spec, learner.cfg, seed=1)
    assert not torch.equal(other.vae.get_buffer("gates_0"), masks)


def by_class(scenario: str) -> bool:
    return scenario != "domain"


# --- each switch ---


@pytest.mark.parametrize("targets", ["soft", "hard"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_all_off_is_generative_replay_to_the_bit(scenario: str, targets: str) -> None:
    stream = split(toy_data(), scenario, tasks=2)
    plain = quick(GenerativeReplay, stream, targets=targets)
    off = quick(BrainInspiredReplay, stream, targets=targets, **ALL_OFF)
    assert plain.losses == off.losses
    for name, value in plain.learner.named_parameters():
        assert torch.equal(value, off.learner.get_parameter(name))


@pytest.mark.parametrize("switch", [{"feedback": True}, {"conditional": True}, {"gating": 0.5}])
def test_each_switch_alone_makes_a_difference(switch: dict[str, Any]) -> None:
    stream = split(toy_data(), "class", tasks=2)
    off, on = (quick(BrainInspiredReplay, stream, **settings).losses for settings in (ALL_OFF, ALL_OFF | switch))
    assert off != on


def test_gates_that_are_all_open_change_nothing() -> None:
    stream = split(toy_data(), "class", tasks=2)
    run, without = [], None
    for gating in (0.0, 0.5):
        learner = BrainInspiredReplay(stream.spec, BrainInspiredReplay.Config(hidden=(8,), z=3, gating=gating))
        without = without or copy.deepcopy(learner)
        learner.load_state_dict(without.state_dict(), strict=False)
        for name, buffer in learner.named_buffers():
            if "gates" in name:
                buffer.fill_(1)
        run.append(train(learner, stream, steps=4, batch_size=5, device="cpu"))
    assert run[0].losses == run[1].losses


def test_feedback_is_one_network_that_learns_everything() -> None:
    learner, stream = ready("class", 1)
    batch, noise = stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(0))
    losses = learner.loss(batch, noise)
    losses["vae"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in learner.net[:-1].parameters())
    assert all(p.grad is None for p in learner.net[-1].parameters())
    learned = {p for group in learner.opts["network"].param_groups for p in group["params"]}
    assert set(learner.opts) == {"network"} and learned == {p for p in learner.parameters() if p.requires_grad}

    apart, _ = ready("class", 1, feedback=False)
    apart.loss(batch, apart.draw(5, generator(0)))["vae"].backward()
    assert all(p.grad is None for p in apart.net.parameters())
    assert set(apart.opts) == {"classifier", "generator"}


def test_the_old_model_labels_what_was_dreamed() -> None:
    """Distillation: its probabilities at temperature T; without: its choice. Not the class that was meant."""
    old = torch.randn(4, 6, generator=generator(0)) * 3
    meant = torch.tensor([0, 1, 2, 3])
    soft, _ = ready("class", 2)
    torch.testing.assert_close(soft.label(old, meant)[:, :4], F.softmax(old[:, :4] / 2, 1))
    hard, _ = ready("class", 2, targets="hard")
    assert torch.equal(hard.label(old, meant).argmax(1), old[:, :4].argmax(1))
    assert bool((soft.label(old, meant)[:, 4:] == 0).all() and (hard.label(old, meant).sum(1) == 1).all())
    task, _ = ready("task", 2)  # the class that was meant tells the head, no more
    label = task.label(old, meant)
    for i, units in enumerate(([0, 1], [0, 1], [2, 3], [2, 3])):
        expected = torch.zeros(6)
        expected[units] = F.softmax(old[i, units] / 2, 0)
        torch.testing.assert_close(label[i], expected)


# --- replay ---


@pytest.mark.parametrize("active_units", ["seen", "all"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_replay_never_touches_a_class_not_yet_seen(scenario: str, active_units: str) -> None:
    learner, stream = ready(scenario, 1, active_units, gating=0.5)
    noise = learner.draw(20, generator(0))
    past = {0, 1}
    assert set(noise["class"].tolist()) == past and set(noise["task"].tolist()) == {0}
    batch = stream[1].train.batch(torch.arange(20))
    losses = learner.loss(batch, noise)
    total(losses).backward()
    shown = [0, 1] if scenario == "domain" else [0, 1, 2, 3]
    hidden = [c for c in range(stream.spec.n_out) if c not in shown]
    for p in (learner.vae.prior_mean, learner.vae.prior_logvar):
        assert p.grad is not None and bool(p.grad[shown].any(1).all()) and not bool(p.grad[hidden].any())
    before = {k: float(v.detach()) for k, v in losses.items()}
    with torch.no_grad():  # nor does anything depend on such a class's Gaussian or gates
        for vae in (learner.vae, learner.old_vae):
            vae.prior_mean[hidden] += 5
            unseen_contexts = [2] if scenario == "domain" else hidden
            vae.get_buffer("gates_0")[unseen_contexts] = 7.0
    after = {k: float(v.detach()) for k, v in learner.loss(batch, noise).items()}
    assert before == after


def test_classes_are_drawn_uniformly() -> None:
    learner, _ = ready("class", 2)
    counts = torch.bincount(learner.draw(8000, generator(0))["class"], minlength=6)
    assert bool((counts[:4] > 1850).all() and (counts[:4] < 2150).all()) and int(counts[4:].sum()) == 0
    learner, _ = ready("domain", 2)
    assert 0.45 < float(learner.draw(8000, generator(0))["task"].float().mean()) < 0.55


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_total_loss_in_two_separate_passes(scenario: str) -> None:
    """L = 1/n current + (1 - 1/n) replay; prior and gates see the true class, or the old model's (or the task)."""
    learner, stream = ready(scenario, 2, gating=0.5)
    n_out, n_tasks = stream.spec.n_out, stream.spec.n_tasks
    batch, noise = stream[2].train.batch(torch.arange(5)), learner.draw(5, generator(3))
    losses = learner.loss(batch, noise)
    with torch.no_grad():
        meant = F.one_hot(noise["class"], n_out).float()
        task = F.one_hot(noise["task"], n_tasks).float()
        old = learner.old_vae
        z = meant @ old.prior_mean + torch.exp(0.5 * meant @ old.prior_logvar) * noise["z"]
        replayed = old.decode(z, task if scenario == "domain" else meant).sigmoid().view(-1, *stream.spec.shape)
        old_logits = learner.old_net(replayed)
        label, true = learner.label(old_logits, noise["class"]), F.one_hot(batch.y, n_out).float()
        contexts = (F.one_hot(batch.task, n_tasks).float(), task) if scenario == "domain" else (true, label)
        logits, vae = learner.both(batch.x, batch.x, true, contexts[0], noise["eps"][:5])
        new, vae_replayed = learner.both(replayed, replayed, label, contexts[1], noise["eps"][5:])
        imitation = torch.stack(
            [
                -4 * (F.softmax(o[k] / 2, 0) * F.log_softmax(v[a] / 2, 0)[: len(k)]).sum()
                for o, v, k, a in (
                    (o, v, heads(scenario, int(c))[0], heads(scenario, int(c))[1])
                    for o, v, c in zip(old_logits, new, noise["class"], strict=True)
                )
            ]
        ).mean()
    torch.testing.assert_close(losses["current"].detach(), learner.cross_entropy(logits, batch) / 3)
    torch.testing.assert_close(losses["replay"].detach(), imitation * 2 / 3)
    torch.testing.assert_close(losses["vae"].detach(), vae.mean() / 3 + vae_replayed.mean() * 2 / 3)


def heads(scenario: str, c: int) -> tuple[list[int], list[int]]:
    """Units the old and the new model compete over on a replayed sample of class c, in the third task."""
    if scenario == "task":
        return [[0, 1], [2, 3]][c // 2], [[0, 1], [2, 3]][c // 2]
    return ([0, 1], [0, 1]) if scenario == "domain" else ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])


def test_the_old_model_is_that_of_the_previous_task_and_never_learns() -> None:
    learner, stream = ready("class", 1)
    learner.begin_phase(1, Phase("train", 3), stream[1].train, generator(0))
    before = copy.deepcopy((learner.net, learner.vae))
    for s in range(3):
        learner.step(stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(s)))
    for then, now in zip(before, (learner.old_net, learner.old_vae), strict=True):
        for p, q in zip(then.parameters(), now.parameters(), strict=True):
            assert torch.equal(p, q) and not q.requires_grad
    assert not torch.equal(learner.vae.prior_mean, learner.old_vae.prior_mean)


def test_reinit_forgets_everything_but_what_is_replayed() -> None:
    learner, stream = ready("class", 1, reinit=True)
    batch = stream[1].train.batch(torch.arange(5))
    learner.step(batch, learner.draw(5, generator(0)))
    trained, masks = copy.deepcopy(learner.net), learner.vae.get_buffer("gates_0").clone()
    learner.begin_phase(1, Phase("train", 1), stream[1].train, generator(0))
    assert torch.equal(learner.old_net[1].weight, trained[1].weight)  # type: ignore[arg-type]
    assert not torch.equal(learner.net[1].weight, trained[1].weight)  # type: ignore[arg-type]
    assert float(learner.net[1].weight.detach().abs().max()) <= 1 / 8  # a fresh layer with 64 inputs
    assert not learner.opts["network"].state
    assert torch.equal(learner.vae.get_buffer("gates_0"), masks)


@pytest.mark.parametrize("feedback", [True, False])
def test_reinit_forgets_a_network_of_one_s_own(feedback: bool) -> None:
    """Named layers, a hidden layer of another size, and batch norm's running statistics too."""

    def net(shape: tuple[int, ...], n_out: int) -> nn.Module:
        layers = {"flat": nn.Flatten(), "below": nn.Linear(64, 9), "norm": nn.BatchNorm1d(9), "above": nn.Linear(9, n_out)}
        return nn.Sequential(OrderedDict(layers))

    stream = split(toy_data(n_classes=6), "class", tasks=3)
    cfg = BrainInspiredReplay.Config(hidden=(8, 7), z=3, reinit=True, feedback=feedback)
    learner = BrainInspiredReplay(stream.spec, cfg, 0, net)
    with torch.no_grad():
        for value in learner.net.state_dict().values():
            value.add_(1)
    learned = {name: value.clone() for name, value in learner.net.state_dict().items()}
    learner.enter(1, Phase("train", 1))
    learner.begin_phase(1, Phase("train", 1), stream[1].train, generator(0))
    for name, value in learner.net.state_dict().items():
        assert not torch.equal(value, learned[name]), name
        assert torch.equal(learner.old_net.state_dict()[name], learned[name]), name


def test_with_feedback_a_forward_of_one_s_own_is_not_passed_over() -> None:
    class Doubled(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(2 * x)

    def net(shape: tuple[int, ...], n_out: int) -> nn.Module:
        return Doubled(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, n_out))

    spec = split(toy_data(n_classes=6), "class", tasks=3).spec
    with pytest.raises(ConfigError, match="without a forward of its own"):
        BrainInspiredReplay(spec, BrainInspiredReplay.Config(hidden=(8,), z=3), 0, net)
    BrainInspiredReplay(spec, BrainInspiredReplay.Config(hidden=(8,), z=3, feedback=False), 0, net)


def test_samples_and_their_errors() -> None:
    learner, stream = ready("class", 1)
    images = learner.sample(6, generator(0), classes=torch.arange(6) % 4)
    assert images.shape == (6, *stream.spec.shape) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(learner.sample(6, generator(0)), learner.sample(6, generator(0)))
    with pytest.raises(ConfigError, match="chooses classes and no tasks"):
        learner.sample(4, generator(0), tasks=torch.zeros(4, dtype=torch.long))
    domain, _ = ready("domain", 1)
    assert domain.sample(4, generator(0), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])).shape[0] == 4
    plain, _ = ready("class", 1, **ALL_OFF)
    assert plain.sample(4, generator(0)).shape[0] == 4
    with pytest.raises(ConfigError, match="chooses no classes"):
        plain.sample(4, generator(0), classes=torch.zeros(4, dtype=torch.long))
    for bad in ({"gating": 1.0}, {"gating": -0.1}, {"weights": "some.safetensors"}, {"keep": "samples"}):
        with pytest.raises(ConfigError, match="brain-inspired-replay"):
            BrainInspiredReplay.Config(**bad)  # type: ignore[arg-type]


# --- internal replay ---


@pytest.fixture
def summary() -> Any:
    """An extractor of the user's own, with batch norm, which frozen must not move."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    register_extractor("summary", lambda shape: module)
    yield module
    del EXTRACTORS["summary"]


def test_internal_replay_behind_any_frozen_module(summary: nn.Module, tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = quick(BrainInspiredReplay, stream, extractor="summary", steps=6)
    learner = run.learner
    assert isinstance(learner, BrainInspiredReplay) and learner.extractor is not None
    for key, value in summary.state_dict().items():
        assert torch.equal(learner.extractor.state_dict()[key], value)
    batch = stream[0].test.batch(torch.arange(4))
    features = learner.extractor(batch.x)
    assert learner.sample(5, generator(0)).shape == (5, 10)  # dreams are features, any numbers
    torch.testing.assert_close(learner.predict(batch.x), learner.net(features))
    # ½ squared error per feature, KL per pixel
    label = one_hot(batch.y, 4)
    eps = torch.randn(4, 3, generator=generator(0))
    hidden = learner.net[:-1](features)
    mean, logvar = learner.vae.encode(hidden)
    z = mean + torch.exp(0.5 * logvar) * eps
    error = 0.5 * (learner.vae.decode(z, label) - features).square().mean(1)
    kl = learner.vae.kl(mean, logvar, z, eps, label) / 64
    torch.testing.assert_close(learner.both(features, features, label, label, eps)[1], error + kl)
    # whoever loads the learner has the weights in it
    with torch.no_grad():
        summary[1].weight.zero_()
    loaded = load_learner(learner.save(tmp_path / "learner.safetensors"))
    assert same_state(loaded, learner)


def test_pretrained_weights(tmp_path: Path) -> None:
    data = toy_data((3, 32, 32), n=40)
    file = pretrain(data, tmp_path / "conv.safetensors", classes=[0, 1], hidden=(16,), epochs=2, batch_size=20, lr=1e-3)
    assert trained(file).startswith("2 classes of toy, 2 epochs in batches of 20, Adam 0.001; ")
    stream = split(data, "class", classes=[[2], [3]])
    settings: dict[str, Any] = {"extractor": "conv", "weights": str(file)}
    learner = quick(BrainInspiredReplay, stream, **settings).learner
    random = quick(BrainInspiredReplay, stream, extractor="conv").learner
    assert isinstance(learner, BrainInspiredReplay) and isinstance(random, BrainInspiredReplay)
    assert learner.extractor is not None and random.extractor is not None
    assert not torch.equal(learner.extractor[0].weight, random.extractor[0].weight)  # type: ignore[index]
    assert learner.describe()["extractor"] != random.describe()["extractor"]
    saved = learner.save(tmp_path / "learner.safetensors")
    file.unlink()
    assert same_state(load_learner(saved), learner)  # the file is not needed again
    painter = quick(BrainInspiredReplay, stream, extractor="conv", internal=False, steps=2).learner
    assert isinstance(painter, BrainInspiredReplay)
    assert painter.sample(2, generator(0)).shape == (2, 3, 32, 32)
    with pytest.raises(ConfigError, match="Did you mean 'conv'"):
        BrainInspiredReplay(stream.spec, BrainInspiredReplay.Config(extractor="cnv"))


def test_pretraining_learns_and_augments(tmp_path: Path) -> None:
    data, path = toy_data((3, 32, 32), n=40), tmp_path / "conv.safetensors"
    pretrain(data, path, classes=[1, 3], hidden=(), epochs=8, batch_size=20, lr=1e-2, augment=False)
    assert trained(path).endswith("100.0 % of the test images of these classes classified correctly")
    x = torch.arange(2 * 8 * 8.0).view(2, 1, 8, 8) + 1
    seen = {tuple(augmented(x, generator(s), pad=1)[0, 0, 3:5, 3:5].flatten().tolist()) for s in range(200)}
    assert len(seen) == 18  # 9 shifts, mirrored or not
    assert augmented(x, generator(0), pad=0)[:, 0].flatten(1).sort().values.equal(x.flatten(1))


def test_features_of_cifar_and_back() -> None:
    assert conv_features((3, 32, 32))(torch.zeros(2, 3, 32, 32)).shape == (2, 1024)
    assert deconv_pixels((3, 32, 32), 1024)(torch.zeros(2, 1024)).shape == (2, 3 * 32 * 32)
    with pytest.raises(ConfigError, match="no images"):
        conv_features((64,))
    with pytest.raises(ConfigError, match="divisible by 16"):
        deconv_pixels((1, 28, 28), 1024)
    with pytest.raises(ConfigError, match="takes 1024"):
        deconv_pixels((3, 32, 32), 10)


# --- the whole ---


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("brain-inspired-replay-")])
def test_settings_of_the_recipes_are_real(name: str) -> None:
    recipe = RECIPES[name]
    for preset in recipe.presets:
        for row in recipe.rows.values():
            for scenario in recipe.scenarios:
                settings = column(preset, recipe.stream).settings(row.method, scenario) | chosen(row.settings, scenario)
                config = configure(METHODS[row.method], fitting(row.method, settings))
                own = chosen(row.settings, scenario)
                assert all(getattr(config, key) == value for key, value in own.items())


def test_with_si_the_springs_hold_the_classifier() -> None:
    stream = split(toy_data(), "class", tasks=2)
    with_si = quick(BrainInspiredReplaySI, stream, c=10.0).learner
    assert isinstance(with_si, BrainInspiredReplaySI)
    assert with_si.penalty.flat().numel() == sum(p.numel() for p in with_si.net.parameters())
    assert bool(with_si.importance.any())


def test_replay_keeps_what_finetuning_forgets() -> None:
    stream = split(toy_data(n=60), "class", tasks=2)
    options = {"steps": 300, "batch_size": 32, "lr": 5e-3, "hidden": (32,), "device": "cpu"}
    replay = train("brain-inspired-replay", stream, z=4, **options)
    assert float(replay.accuracy[1, 0]) > 0.8 and float(replay.accuracy[1, 1]) > 0.8
