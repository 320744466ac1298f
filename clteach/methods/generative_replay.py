r"""Generative replay: a generative model dreams of past tasks, and the classifier learns from the dreams.

Shin et al. 2017 (deep generative replay, DGR); here in the form of van de Ven & Tolias 2018, with a variational
auto-encoder as the generator. No past data is kept. During task t every step mixes a batch of real data with a batch x̃
drawn from the *previous* generator and labelled by the *previous* classifier. There are two ways to keep the two:

* **model**: before task t both networks are copied, and the copies make and label new samples in every step; or
* **samples**: before task t the two make and label a fixed set of samples, from which every step takes some.

With n tasks seen so far, each task counts alike, although only the newest is real:

$$\mathcal{L} = \tfrac1n\, \mathcal{L}_{\text{current}} + \big(1 - \tfrac1n\big)\, \mathcal{L}_{\text{replay}},$$

for the classifier as for the generator (which replays itself, or it would forget too). Replayed labels are either

* **hard** (DGR): the previous classifier's most probable label, in the cross-entropy; or
* **soft** (DGR + distillation, Hinton et al. 2015): all its probabilities at temperature T = 2,
  $-T^2 \sum_c p^{\text{old}}_c(T) \log p_c(T)$; classes the old model does not know have target 0.

In Task-IL there is no telling which task a replayed image belongs to, so its loss is the mean over all past heads.

The VAE learns beside the classifier, in the same steps. On an encoded stream (`clteach.data.extractors`) it dreams of
features, and its decoder gives the mean of a Gaussian instead of probabilities of pixels. With `replay_model` another
generator dreams, one that learns each task before the classifier does: see `clteach.methods.dream_replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Generator, Learner, Losses, NetMaker, Noise, Phase
from clteach.learners.optim import adam
from clteach.learners.replay import TEMPERATURES, empty_samples, imitation_loss, read_samples, write_samples
from clteach.models.frozen import frozen_copy, in_eval_mode, refresh
from clteach.models.vae import VAE, FeatureVAE, bernoulli_nll, gaussian_nll, kl_standard_normal
from clteach.seeding import seeded
from clteach.settings import MOST_SAMPLES, MOST_UNITS, within


class GenerativeReplay(Classifier, Generator):
    """Generative replay with a VAE (Shin et al. 2017; van de Ven & Tolias 2018), hard or soft targets."""

    name = "generative-replay"
    summary = "learn from samples of a generator that learned the past (Shin 2017)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """Generative replay's settings."""

        replay_model: Literal["vae", "multiband-vae", "ebgan", "hypernetwork", "diffusion"] = "vae"
        """what dreams of the past: a VAE that learns beside the classifier, or a generator that learns each task first"""
        targets: Literal["soft", "hard"] = "soft"
        """labels of replayed samples: the old classifier's probabilities (soft) or its choice (hard)"""
        temperature: float = 2.0
        """softmax temperature T > 0 of soft targets"""
        squared: bool = True
        """multiply the loss on soft targets by T² (2018-2020), or not (the published code of 2022)"""
        z: int = 100
        """latent dimensions of the VAE"""
        vae_hidden: tuple[int, ...] | None = None
        """units of the VAE's hidden layers; None: those of the classifier"""
        replay_batch: int | None = None
        """replayed samples per step; None: as many as in the current batch"""
        keep: Literal["model", "samples"] = "model"
        """what stands for the past: copies of the old networks, or samples they made once before the task"""
        stored_samples: int = 5000
        """number of samples made before each task if those are kept"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("generative-replay", *TEMPERATURES, temperature=self.temperature)
            within("generative-replay", 1, MOST_UNITS, z=self.z)
            within(
                "generative-replay", 1, MOST_SAMPLES, replay_batch=self.replay_batch, stored_samples=self.stored_samples
            )
            of_the_vae = {"squared": True, "z": 100, "vae_hidden": None, "keep": "model", "stored_samples": 5000}
            for name, default in of_the_vae.items():
                if self.replay_model != "vae" and getattr(self, name) != default:
                    raise ConfigError(
                        f"generative-replay: {name}={getattr(self, name)!r} is a setting of its own VAE, not of "
                        f"replay_model={self.replay_model!r}: leave it out. dream-replay has settings for other generators."
                    )

    stored: Tensor  # (S, *shape) samples of the previous generator
    stored_logits: Tensor  # (S, n_out) what the previous classifier says of them

    def __init__(
        self,
        spec: Spec,
        cfg: Any = None,
        seed: int = 0,
        net: NetMaker | None = None,
        reads: tuple[int, ...] | None = None,
        vae: Callable[[nn.Module], VAE] | None = None,
    ) -> None:
        super().__init__(spec, cfg, seed, net, reads)
        if self.cfg.replay_model != "vae":
            raise ConfigError(
                f"{self.name}: replay_model={self.cfg.replay_model!r} is another learner, dream-replay; "
                "clteach.build(...) and clteach.train(...) make it."
            )
        with seeded(seed, "generator"):
            self.vae = self.make_vae() if vae is None else vae(self.net)
        self.opts["generator"] = adam(self.vae.parameters(), self.cfg.lr)
        # The past as it was before the current task, refreshed when a task begins; fixed shapes, so checkpointed.
        if self.cfg.keep == "model":
            self.old_net, self.old_vae = frozen_copy(self.net), frozen_copy(self.vae)
        else:
            self.register_buffer("stored", empty_samples(self.cfg.stored_samples, spec.shape))
            self.register_buffer("stored_logits", torch.zeros(self.cfg.stored_samples, spec.n_out))

    @classmethod
    def make(cls, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> Learner:
        """A learner of this class; with another generator than its own VAE, `clteach.methods.dream_replay.DreamReplay`."""
        if cfg is None or cfg.replay_model == "vae":
            return cls(spec, cfg, seed) if net is None else cls(spec, cfg, seed, net)
        from clteach.methods.dream_replay import DreamReplay

        shared = {k: v for k, v in asdict(cfg).items() if k in DreamReplay.Config.__dataclass_fields__}
        return DreamReplay(spec, DreamReplay.Config(**shared), seed, net)

    def make_vae(self) -> VAE:
        """The generator, with new weights."""
        hidden = self.cfg.hidden if self.cfg.vae_hidden is None else self.cfg.vae_hidden
        return (VAE if self.spec.encoded_from is None else FeatureVAE)(self.spec.shape, hidden, self.cfg.z)

    @torch.no_grad()
    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if self.cfg.keep == "model":
            refresh(self.old_net, self.net)
            refresh(self.old_vae, self.vae)
        elif t > 0:
            # Now, before the first step, the networks still are the previous ones.
            write_samples(self.stored, slice(None), self.sample(len(self.stored), rng))
            everything = torch.arange(len(self.stored), device=rng.device)
            with in_eval_mode(self.net):
                self.stored_logits.copy_(self.net(read_samples(self.stored, everything)))

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        n_replay = 0 if self.t == 0 else self.cfg.replay_batch or n
        eps = torch.randn(n + n_replay, self.cfg.z, generator=rng, device=rng.device)  # for the encoder
        if self.cfg.keep == "samples":
            stored = torch.randint(self.cfg.stored_samples, (n_replay,), generator=rng, device=rng.device)
            return {"eps": eps, "stored": stored}
        return {"eps": eps, "z": torch.randn(n_replay, self.cfg.z, generator=rng, device=rng.device)}

    @torch.no_grad()
    def replayed(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Inputs x̃ (R, *shape) of the past and the old classifier's logits (R, n_out) for them."""
        if self.cfg.keep == "samples":
            return read_samples(self.stored, noise["stored"]), self.stored_logits.index_select(0, noise["stored"])
        x = self.old_vae.sample(noise["z"])
        return x, self.old_net(x)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        n = len(batch.x)
        n_replay = len(noise["eps"]) - n
        if n_replay == 0:
            return {
                "current": self.cross_entropy(self.net(batch.x), batch),
                "vae": self.elbo_loss(batch.x, noise["eps"]).mean(),
            }

        replayed, old_logits = self.replayed(noise)  # (R, *shape), (R, n_out)
        # Real and replayed samples go through the networks together: one large matrix product instead of two.
        x = torch.cat([batch.x, replayed])
        logits, logits_replayed = self.net(x).split([n, n_replay])
        vae, vae_replayed = self.elbo_loss(x, noise["eps"]).split([n, n_replay])

        # L = 1/n L_current + (1 - 1/n) L_replay
        share = 1 / (self.t + 1)
        return {
            "current": share * self.cross_entropy(logits, batch),
            "replay": (1 - share) * self.imitate(logits_replayed, old_logits),
            "vae": share * vae.mean() + (1 - share) * vae_replayed.mean(),
        }

    def elbo_loss(self, x: Tensor, eps: Tensor) -> Tensor:
        """(B,) the negative ELBO per value of x (B, *shape): each of its terms divided by a number of values."""
        decoded, mean, logvar = self.vae(x, eps)
        nll = (bernoulli_nll if self.spec.encoded_from is None else gaussian_nll)(decoded, x)
        pixels = self.spec.pixels
        # L_VAE = -log p(x|z) / R + KL(q(z|x) ‖ p(z)) / P, with R values reconstructed (P, or the features) and P pixels
        return (nll * (pixels / decoded.shape[1]) + kl_standard_normal(mean, logvar)) / pixels

    def imitate(self, logits: Tensor, old_logits: Tensor) -> Tensor:
        """() loss of logits (R, n_out) on replayed samples, whose targets are the old model's logits (R, n_out)."""
        cfg = self.cfg
        return imitation_loss(
            logits, old_logits, self.old_active, self.new_active, cfg.targets, cfg.temperature, cfg.squared
        )

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples of the generator as it is now, in [0, 1] where they are images.

        Raises:
            ConfigError: classes or tasks are asked for, which this unconditional generator cannot choose.
        """
        if classes is not None or tasks is not None:
            raise ConfigError(
                "generative-replay has an unconditional generator: it cannot sample chosen classes or tasks."
            )
        return self.vae.sample(torch.randn(n, self.cfg.z, generator=rng, device=rng.device))
