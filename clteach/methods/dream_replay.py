r"""Replay from any generator: whoever can sample can feed a classifier that must not forget.

Generative replay (Shin et al. 2017) needs a generator, but not a particular one. Here the classifier's past comes from one
of several generators that learn continually in their own way: a VAE with replay, Multiband VAE, an energy-based GAN, a VAE
whose decoders a hypernetwork protects, a diffusion model that its former self teaches (these two are told the classes). Each
task has two parts. First the generator
learns it, in its own phases; then the classifier learns from the task's data and from dreams x̃ of the past tasks. The dreams
come from the generator as it was *before* the task, their labels from the classifier as it was then:

$$\mathcal{L} = \tfrac1n\, \mathcal{L}_{\text{current}} + \big(1 - \tfrac1n\big)\, \mathcal{L}_{\text{replay}},$$

as in generative replay, with the same soft or hard targets. Every past task is dreamt of equally often. This is also what
`generative-replay` does with another `replay_model` than its own VAE; here the generator's training can be set as well.

The dreams of a diffusion model can be steered on the way (GUIDE; Cywiński et al. 2024): `guidance` pulls dreams of old
classes towards what the classifier, as it is *now*, takes for a class of the current task. So what it is about to confuse,
and to forget, is rehearsed most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Classifier, Generator, Losses, NetMaker, Noise, Phase
from clteach.learners.replay import TEMPERATURES, imitation_loss
from clteach.methods.diffusion_replay import DiffusionGenerator, DistilledDiffusion
from clteach.methods.ebgan import EBGAN
from clteach.methods.hypernetwork_vae import HypernetworkVAE
from clteach.methods.multiband_vae import MultibandVAE
from clteach.methods.vae_generators import ReplayVAE
from clteach.models.diffusion import Guide
from clteach.models.frozen import frozen_copy, in_eval_mode, refresh
from clteach.settings import MOST_SAMPLES, MOST_STEPS, within

GENERATORS: dict[str, type[PureGenerator]] = {
    "vae": ReplayVAE,
    "multiband-vae": MultibandVAE,
    "ebgan": EBGAN,
    "hypernetwork": HypernetworkVAE,
    "diffusion": DistilledDiffusion,
}
DREAMS = "generator: "  # begins the name of every phase in which the generator learns


class DreamReplay(Classifier, Generator):
    """Generative replay from a generator of your choice, which learns each task before the classifier does."""

    name = "dream-replay"
    summary = "learn from the dreams of any generator (--replay-model)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """Settings of replay from any generator, which has those of its own method, but for `make_generator`'s."""

        replay_model: Literal["vae", "multiband-vae", "ebgan", "hypernetwork", "diffusion"] = "vae"
        """what dreams of the past"""
        targets: Literal["soft", "hard"] = "soft"
        """labels of the dreams: the old classifier's probabilities (soft) or its choice (hard)"""
        temperature: float = 2.0
        """softmax temperature T > 0 of soft targets"""
        replay_batch: int | None = None
        """dreams per step; None: as many as in the current batch"""
        generator_steps: int | None = None
        """steps per task in which the generator learns; None: as many as the classifier"""
        generator_lr: float | None = None
        """the generator's learning rate; None: that of its method"""
        guidance: float = 0.0
        """strength s ≥ 0 with which a diffusion model's dreams are steered to classes of the current task (GUIDE); 0: not"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("dream-replay", *TEMPERATURES, temperature=self.temperature)
            within("dream-replay", 1, MOST_SAMPLES, replay_batch=self.replay_batch)
            within("dream-replay", 1, MOST_STEPS, generator_steps=self.generator_steps)
            if self.generator_lr is not None and not self.generator_lr > 0:
                raise ConfigError(f"dream-replay: generator_lr={self.generator_lr}, expected a learning rate > 0.")
            if self.guidance < 0:
                raise ConfigError(f"dream-replay: guidance={self.guidance}, expected a strength of 0 or more.")

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        if self.cfg.guidance and (self.cfg.replay_model != "diffusion" or spec.scenario != "class"):
            raise ConfigError(
                f"dream-replay: guidance={self.cfg.guidance} with replay_model={self.cfg.replay_model!r} in the scenario "
                f"{spec.scenario!r}. It steers the dreams of a diffusion model between old and new classes that compete: "
                "expected replay_model='diffusion' and the scenario 'class', or guidance=0."
            )
        self.generator = self.make_generator(seed)
        self.opts |= {DREAMS + name: opt for name, opt in self.generator.opts.items()}
        # The past as it was before the current task, refreshed when a task begins; fixed shapes, so checkpointed.
        self.old_net, self.old_generator = frozen_copy(self.net), frozen_copy(self.generator)

    def make_generator(self, seed: int) -> PureGenerator:
        """The generator, with its method's own settings; but some have some that suit a memory."""
        cls = GENERATORS[self.cfg.replay_model]
        # Nobody asks for its own score: it needs no judge.
        cfg = cls.Config(features="inputs")
        if isinstance(cfg, EBGAN.Config):
            # What a memory must not do is lose a class, or fray as it is handed on: a deeper decoder and a past that is
            # kept sample by sample (both found on held-out images).
            cfg = replace(cfg, past="alignment", decoder_hidden=(256,))
        if isinstance(cfg, DiffusionGenerator.Config):
            # Dreams are made anew in every step of the classifier, and it needs no better ones than the next generation.
            cfg = replace(cfg, sampling_steps=cfg.replay_steps)
        if self.cfg.generator_lr is not None:
            cfg = replace(cfg, lr=self.cfg.generator_lr)
        # A generator does not see which units compete, so it is the same in all scenarios.
        return cls(replace(self.spec, scenario="class"), cfg, seed)

    def phases(self, t: int, steps: int) -> list[Phase]:
        own = self.generator.phases(t, self.cfg.generator_steps or steps)
        dreams = [phase._replace(name=DREAMS + phase.name, fresh_optimizer=False) for phase in own]
        return [*dreams, Phase("classifier", steps, fresh_optimizer=self.cfg.fresh_optimizer)]

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        self.generator.enter(t, phase._replace(name=phase.name.removeprefix(DREAMS)))

    @property
    def dreaming(self) -> bool:
        """Is it the generator's turn to learn?"""
        return self.phase is not None and self.phase.name.startswith(DREAMS)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if phase.name == self.phases(t, 1)[0].name:  # the first of the task
            refresh(self.old_net, self.net)
            refresh(self.old_generator, self.generator)
        if self.dreaming:
            if self.generator.cfg.fresh_optimizer:
                for opt in self.generator.opts.values():
                    opt.state.clear()
            self.generator.begin_phase(t, phase._replace(name=phase.name.removeprefix(DREAMS)), data, rng)

    @torch.no_grad()
    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        if self.dreaming:
            return self.generator.draw(n, rng)
        n_replay = 0 if self.t == 0 else self.cfg.replay_batch or n
        if n_replay == 0:
            return {}
        if not self.cfg.guidance:
            return {"dreams": self.old_generator.sample_evenly(n_replay, self.t, rng)}  # (R, *shape)
        assert isinstance(self.old_generator, DiffusionGenerator)
        past = torch.arange(n_replay, device=rng.device) % self.t  # an equal share of every past task
        with in_eval_mode(self.net):
            return {"dreams": self.old_generator.dream(past, rng, self.guide(n_replay, rng), self.cfg.guidance)}

    def guide(self, n: int, rng: torch.Generator) -> Guide:
        """Where n dreams are steered to: x̂_0 in [-1, 1] -> (n,) log p(y|x̂_0), each y a random class of the current task."""
        assert isinstance(self.generator, DiffusionGenerator)
        y = self.generator.classes_of(torch.full((n,), self.t, device=rng.device), rng)

        def log_p(clean: Tensor) -> Tensor:
            logits = self.net((clean + 1) / 2) + self.log_active_now[self.t]
            return logits.log_softmax(1).gather(1, y[:, None]).squeeze(1)

        return log_p

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        if self.dreaming:
            return self.generator.loss(batch, noise)
        if "dreams" not in noise:
            return {"current": self.cross_entropy(self.net(batch.x), batch)}
        dreams, cfg = noise["dreams"], self.cfg
        with torch.no_grad():
            old_logits = self.old_net(dreams)  # (R, n_out)
        # Real and replayed samples go through the network together: one large matrix product instead of two.
        logits, dreamt = self.net(torch.cat([batch.x, dreams])).tensor_split([len(batch.x)])
        # L = 1/n L_current + (1 - 1/n) L_replay
        share = 1 / (self.t + 1)
        replay = imitation_loss(dreamt, old_logits, self.old_active, self.new_active, cfg.targets, cfg.temperature)
        return {"current": share * self.cross_entropy(logits, batch), "replay": (1 - share) * replay}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        return self.generator.step(batch, noise) if self.dreaming else super().step(batch, noise)

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        self.generator.end_task(t, data, rng)

    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of the generator as it is now, see its own `sample`."""
        return self.generator.sample(n, rng, classes, tasks)
