"""Replay from any generator: whose turn it is, what is dreamt and by whom, and that it keeps what fine-tuning forgets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from clteach.data.streams import split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError, DivergedError
from clteach.learners.learner import Phase, choices
from clteach.learners.replay import imitation_loss
from clteach.methods import METHODS, build
from clteach.methods.brain_inspired_replay import BrainInspiredReplay
from clteach.methods.dream_replay import DREAMS, GENERATORS, DreamReplay
from clteach.methods.ebgan import EBGAN
from clteach.methods.generative_replay import GenerativeReplay
from clteach.methods.hypernetwork_vae import HypernetworkVAE
from clteach.methods.multiband_vae import MultibandVAE
from clteach.seeding import generator
from clteach.training.learner_checks import check_pure, check_resumes, check_saves, same_state, tiny, toy_data
from clteach.training.loop import train


def changed(before: dict[str, Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(value, before[name]) for name, value in module.named_parameters())


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def ready(t: int, **settings: object) -> tuple[DreamReplay, Stream]:
    """A learner at the start of task t (0-based), whose old models differ from the new ones."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = DreamReplay(stream.spec, DreamReplay.Config(hidden=(8,), replay_model="ebgan", **settings))  # type: ignore[arg-type]
    first = learner.phases(t, 3)[0]
    learner.enter(t, first)
    learner.begin_phase(t, first, stream[t].train, generator(0))
    with torch.no_grad():
        for p in [*learner.net.parameters(), *learner.generator.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator(1, p.numel()))
    return learner, stream


def test_the_generators_phases_come_first() -> None:
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = DreamReplay(stream.spec, DreamReplay.Config(replay_model="multiband-vae", generator_steps=210))
    assert isinstance(learner.generator, MultibandVAE)
    own = learner.generator.phases(1, 210)
    got = learner.phases(1, 50)
    assert [phase.name for phase in got] == [*(DREAMS + phase.name for phase in own), "classifier"]
    assert [phase.steps for phase in got] == [*(phase.steps for phase in own), 50]
    learner.enter(1, got[2])
    assert learner.generator.phase is not None and learner.generator.phase.name == own[2].name == "translator"


def test_each_trains_in_its_own_turn() -> None:
    learner, stream = ready(1)
    batch = stream[1].train.batch(torch.arange(5))
    old = weights(learner.old_generator), weights(learner.old_net)
    for phase in learner.phases(1, 3):
        learner.enter(1, phase)
        net, dreams = weights(learner.net), weights(learner.generator)
        for s in range(3):
            learner.step(batch, learner.draw(5, generator(s)))
        assert changed(dreams, learner.generator) == learner.dreaming == (phase.name != "classifier")
        assert changed(net, learner.net) == (phase.name == "classifier")
    assert not changed(old[0], learner.old_generator) and not changed(old[1], learner.old_net)


def test_a_generator_forgets_its_moments_whenever_it_would_alone_and_the_classifier_keeps_its_own() -> None:
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = DreamReplay(stream.spec, DreamReplay.Config(hidden=(8,), replay_model="multiband-vae"))
    batch = stream[1].train.batch(torch.arange(5))
    classifier = learner.opts["classifier"]
    for p in classifier.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    classifier.step()
    alone = learner.generator.phases(1, 210)
    assert len(alone) > 1 and all(phase.fresh_optimizer for phase in alone)
    for phase in learner.phases(1, 210)[:-1]:
        learner.enter(1, phase)
        learner.begin_phase(1, phase, stream[1].train, generator(0))
        assert not any(opt.state for opt in learner.generator.opts.values()), phase.name
        learner.step(batch, learner.draw(5, generator(1)))
        assert any(opt.state for opt in learner.generator.opts.values()), phase.name
    assert classifier.state


def test_the_past_is_dreamt_by_the_old_generator_and_every_task_counts_alike() -> None:
    learner, stream = ready(2)
    learner.enter(2, Phase("classifier", 3))
    batch, noise = stream[2].train.batch(torch.arange(5)), learner.draw(6, generator(4))
    past = torch.tensor([0, 1] * 3)
    assert torch.equal(noise["dreams"], learner.old_generator.sample(6, generator(4), tasks=past))
    losses = learner.loss(batch, noise)
    with torch.no_grad():
        current = learner.cross_entropy(learner.net(batch.x), batch)
        old = learner.old_net(noise["dreams"])
        replay = imitation_loss(learner.net(noise["dreams"]), old, learner.old_active, learner.new_active)
    torch.testing.assert_close(losses["current"].detach(), current / 3)
    torch.testing.assert_close(losses["replay"].detach(), replay * 2 / 3)


def test_the_old_models_are_copied_once_per_task() -> None:
    learner, stream = ready(1)
    before = copy.deepcopy(weights(learner.old_generator))
    learner.begin_phase(1, learner.phases(1, 3)[-1], stream[1].train, generator(0))  # the classifier's phase
    assert not changed(before, learner.old_generator)
    learner.begin_phase(2, learner.phases(2, 3)[0], stream[2].train, generator(0))
    assert all(torch.equal(v, learner.old_generator.get_parameter(k)) for k, v in learner.generator.named_parameters())


@pytest.mark.parametrize("check", [check_resumes, check_saves, check_pure])
@pytest.mark.parametrize("model", [name for name in GENERATORS if name != DreamReplay.Config().replay_model])
def test_any_generator_can_feed_replay(
    model: str, check: Callable[[type[DreamReplay], str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generic suite runs over the default generator; here over the others."""

    @dataclass(frozen=True)
    class Config(DreamReplay.Config):
        replay_model: str = model  # type: ignore[assignment]

    other = type("Other", (DreamReplay,), {"name": f"dreams-of-{model}", "Config": Config})
    monkeypatch.setitem(METHODS, other.name, other)
    check(other, "class")


def test_errors() -> None:
    for bad in ({"temperature": 0.0}, {"replay_batch": 0}, {"generator_steps": 0}):
        with pytest.raises(ConfigError, match="dream-replay"):
            DreamReplay.Config(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [0, 1])
def test_replay_keeps_what_finetuning_forgets(seed: int) -> None:
    """One class per task and three tasks: the first class survives two generations of dreams."""
    stream = split(toy_data(n=60), "class", classes=[[0], [1], [2]])
    options = {"steps": 100, "batch_size": 32, "lr": 1e-2, "hidden": (32,), "seed": seed, "device": "cpu"}
    plain = train("finetune", stream, **options)
    replay = train("dream-replay", stream, replay_model="ebgan", generator_steps=250, generator_lr=3e-3, **options)
    assert isinstance(replay.learner, DreamReplay) and isinstance(replay.learner.generator, EBGAN)
    assert float(plain.accuracy[-1, :2].max()) < 0.2
    assert float(replay.accuracy[-1].min()) > 0.8


def test_replay_keeps_much_of_a_task_with_two_classes() -> None:
    stream = split(toy_data(n=60), "class", tasks=2)
    options = {"steps": 100, "batch_size": 32, "lr": 1e-2, "hidden": (32,), "device": "cpu"}
    plain = train("finetune", stream, **options)
    replay = train("dream-replay", stream, replay_model="ebgan", generator_steps=250, generator_lr=3e-3, **options)
    assert float(plain.accuracy[1, 0]) < 0.2
    # A small GAN on few images often keeps one of the task's two classes, which is half of the task.
    assert float(replay.accuracy[1, 0]) > float(plain.accuracy[1, 0]) + 0.3


# ------------------------------------------------------------------------- the same by the name of generative replay


@pytest.mark.parametrize("model", [name for name in GENERATORS if name != "vae"])
def test_generative_replay_hands_over_to_it(model: str) -> None:
    """Asked for another generator, generative replay *is* this learner, to the last bit, in every scenario."""
    for scenario in ("task", "domain", "class"):
        stream = split(toy_data(), scenario, tasks=2)
        options = {"hidden": (8,), "targets": "hard", "lr": 2e-3, "replay_batch": 3, "replay_model": model}
        runs = [
            train(name, stream, steps=3, batch_size=5, seed=1, device="cpu", **options)
            for name in ("generative-replay", "dream-replay")
        ]
        assert all(isinstance(run.learner, DreamReplay) for run in runs)
        assert same_state(runs[0].learner, runs[1].learner)


def test_generative_replay_with_its_own_vae_is_as_it_was() -> None:
    stream = split(toy_data(), "class", tasks=2)
    learner = build("generative-replay", stream.spec, hidden=(8,))
    assert type(learner) is GenerativeReplay and learner.describe()["name"] == "generative-replay"
    for cls in (GenerativeReplay, DreamReplay):
        assert choices(cls.Config)["replay_model"] == tuple(GENERATORS)


def test_settings_that_do_not_fit_the_replay_model() -> None:
    for setting in ({"z": 20}, {"vae_hidden": (9,)}, {"keep": "samples"}, {"stored_samples": 9}, {"squared": False}):
        (name,) = setting
        with pytest.raises(ConfigError, match=f"{name}=.* is a setting of its own VAE"):
            GenerativeReplay.Config(replay_model="ebgan", **setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"unknown value of replay_model 'ebgam'\. Did you mean 'ebgan'"):
        GenerativeReplay.Config(replay_model="ebgam")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="brain-inspired-replay: replay_model='ebgan' is not possible"):
        BrainInspiredReplay.Config(replay_model="ebgan")
    stream = split(toy_data(), "class", tasks=2)
    with pytest.raises(ConfigError, match=r"another learner, dream-replay; clteach\.build"):
        GenerativeReplay(stream.spec, GenerativeReplay.Config(replay_model="ebgan"))


def test_the_hypernetworks_dreams_are_of_the_task_asked_for() -> None:
    """Each task's decoder is generated from its own embedding: other embeddings, other dreams; the same noise."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    model = HypernetworkVAE(stream.spec, tiny(HypernetworkVAE))
    model.enter(1, model.phases(1, 1)[0])
    tasks = torch.tensor([0, 1, 0])
    before = model.sample(3, generator(0), tasks=tasks)
    with torch.no_grad():
        model.vae.hypernet.embeddings[0] += 1.0
    after = model.sample(3, generator(0), tasks=tasks)
    assert before.shape == (3, *stream.spec.shape)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [False, True, False]


def test_a_training_that_diverges_names_both_learning_rates() -> None:
    stream = split(toy_data(), "class", tasks=2)
    with pytest.raises(DivergedError, match=r"than lr=0\.001 and generator_lr=1e\+06, or"):
        train("dream-replay", stream, steps=30, batch_size=8, hidden=(8,), generator_lr=1e6, device="cpu")
