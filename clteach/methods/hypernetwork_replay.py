r"""Replay from a generator that a hypernetwork protects: HNET+R (von Oswald et al. 2020).

The hypernetwork remembers best where the task is known. So let it remember a *generator*, which may be asked for any task:
a class-conditional variational auto-encoder whose decoder's weights are generated from the task's embedding, and kept
from drifting as in `clteach.methods.hypernetwork`. It learns task T from real data alone; what it knows of the past is
not replayed through it again and again, as in generative replay, but stays in the embeddings. Per image x with label y,

$$\mathcal{L}_{\text{VAE}} = -\log p(x \mid z, y) + \mathrm{KL}(q(z \mid x, y) \,\|\, p(z)), \qquad z \sim q(z \mid x, y).$$

After it, an ordinary network learns from real images of task T and as many samples of all past tasks, weighted alike. In
**HNET+R** it is the classifier of all classes, and the samples' targets are the former classifier's probabilities (soft).
In **HNET+TIR** it infers the task, see `clteach.methods.hypernetwork_tir`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Generator, Losses, NetMaker, Noise, Phase
from clteach.learners.optim import adam
from clteach.learners.replay import TEMPERATURES, imitation_loss
from clteach.methods.hypernetwork import ProtectsPast
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.hypernet import Hypernet, Target, check_sizes
from clteach.models.nets import mlp, one_hot
from clteach.models.vae import bernoulli_nll, kl_standard_normal, reparameterise
from clteach.seeding import seeded
from clteach.settings import within

REPLAY_MODEL = "replay model"


class ConditionalVAE(nn.Module):
    """A VAE that is told the class, with an ordinary encoder and a decoder whose weights a hypernetwork generates.

    Args:
        spec: the stream's specification; the class is told as one of its output units.
        cfg: the settings, `ReplayModel.Config`.
    """

    decoders: Tensor  # (n_tasks, P) the past tasks' decoders, generated once before they are sampled from

    def __init__(self, spec: Spec, cfg: Any) -> None:
        super().__init__()
        self.shape, self.n_out = spec.shape, spec.n_out
        n_pixels = math.prod(spec.shape)
        encoder_hidden = cfg.encoder_hidden or tuple(reversed(cfg.decoder_hidden))
        self.encoder = mlp((n_pixels + spec.n_out,), encoder_hidden, 2 * cfg.z)
        self.target = Target(mlp((cfg.z + spec.n_out,), cfg.decoder_hidden, n_pixels))
        self.hypernet = Hypernet(
            self.target,
            spec.n_tasks,
            embedding=cfg.decoder_embedding,
            chunk=cfg.decoder_chunk,
            chunk_embedding=cfg.decoder_chunk_embedding,
            hidden=cfg.decoder_hyper_hidden,
            activation=cfg.decoder_activation,
        )
        self.register_buffer("decoders", torch.zeros(spec.n_tasks, self.target.n_weights))

    def with_class(self, x: Tensor, units: Tensor) -> Tensor:
        """Images or latents x (..., n) with their output units (...) -> (..., n + n_out)."""
        return torch.cat([x, one_hot(units, self.n_out)], -1)

    def loss(self, t: int, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        """() the negative ELBO, in nats per image, of images x (B, *shape) of task t with units y (B,), noise eps (B, z)."""
        mean, logvar = self.encoder(self.with_class(x.flatten(1), y)).chunk(2, 1)
        z = reparameterise(mean, logvar, eps)
        logits = self.target(self.hypernet.weights(t), self.with_class(z, y))
        # L_VAE = -log p(x|z, y) + KL(q(z|x, y) ‖ p(z))
        return (bernoulli_nll(logits, x) + kl_standard_normal(mean, logvar)).mean()

    @torch.no_grad()
    def generate_decoders(self, n: int) -> None:
        """Before the first n tasks are sampled from: generate the weights of their decoders."""
        if n > 0:
            self.decoders[:n] = self.hypernet(self.hypernet.first(n))

    def sample_each(self, z: Tensor, units: Tensor) -> Tensor:
        """(n·m, *shape) mean images in [0, 1] of the first n tasks, from latents z (n, m, z) and their units (n, m)."""
        logits = self.target.each(self.decoders[: len(z)], self.with_class(z, units))
        return logits.sigmoid().view(-1, *self.shape)

    def sample(self, t: int, z: Tensor, units: Tensor) -> Tensor:
        """(B, *shape) mean images in [0, 1] of task t as it is remembered now, from latents z (B, z) and units (B,)."""
        return self.target(self.hypernet.weights(t), self.with_class(z, units)).sigmoid().view(-1, *self.shape)


class ReplayModel(ProtectsPast, Generator):
    """Base of HNET+R and HNET+TIR: the phase in which the replay model learns, and equally many samples of past tasks."""

    takes_features = False

    @dataclass(frozen=True)
    class Config(Generator.Config):
        """The replay model's settings; `hidden` are the layers of the classifiers."""

        fresh_optimizer: bool = True
        """forget Adam's moments at the start of every phase"""
        lookahead: bool = True
        """measure the drift where the task's own step would lead, instead of where the weights are"""
        past_tasks: int | None = None
        """past tasks in the regulariser per step, drawn at random; None: all"""
        z: int = 100
        """latent dimensions of the replay model"""
        encoder_hidden: tuple[int, ...] = ()
        """units of the encoder's hidden layers; empty: the decoder's, in reverse order"""
        decoder_hidden: tuple[int, ...] = (250, 350)
        """units of the decoder's hidden layers"""
        decoder_beta: float = 7.84
        """strength β ≥ 0 of the regulariser of the decoder's hypernetwork, beside a loss in nats per image; the paper's
        β is beside a loss in nats per pixel, so here it is as many times larger as there are pixels: 784 · 0.01"""
        decoder_embedding: int = 96
        """numbers in a task embedding of the decoder"""
        decoder_chunk: int | None = 50000
        """weights of the decoder generated at a time; None: all at once"""
        decoder_chunk_embedding: int = 96
        """numbers in a chunk embedding of the decoder"""
        decoder_hyper_hidden: tuple[int, ...] = (10, 10)
        """units of the hidden layers of the decoder's hypernetwork"""
        decoder_activation: Literal["relu", "elu"] = "elu"
        """activation of the decoder's hypernetwork"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.decoder_beta >= 0:
                raise ConfigError(f"hypernetwork: decoder_beta={self.decoder_beta}, expected a strength ≥ 0.")
            names = ("z", "decoder_embedding", "decoder_chunk", "decoder_chunk_embedding", "past_tasks")
            check_sizes("hypernetwork", **{name: getattr(self, name) for name in names})

    unit_lists: Tensor  # (n_tasks, most classes of a task) output units of every task
    n_units: Tensor  # (n_tasks, 1) how many there are

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        with seeded(seed, "generator"):
            self.vae = ConditionalVAE(spec, self.cfg)
        self.opts["generator"] = adam(self.vae.parameters(), self.cfg.lr)
        most = max(map(len, spec.units))
        self.register_buffer(
            "unit_lists", torch.tensor([[*units, *([0] * (most - len(units)))] for units in spec.units])
        )
        self.register_buffer("n_units", torch.tensor([[len(units)] for units in spec.units]))

    @property
    def dreaming(self) -> bool:
        """Is this the phase in which the replay model learns?"""
        return self.phase is not None and self.phase.name == REPLAY_MODEL

    def guarded(self) -> tuple[Hypernet, str, float] | None:
        return (self.vae.hypernet, "generator", self.cfg.decoder_beta) if self.dreaming else None

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        super().begin_phase(t, phase, data, rng)
        if not self.dreaming:
            self.vae.generate_decoders(t)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        if self.dreaming:
            eps = torch.randn(n, self.cfg.z, generator=rng, device=rng.device)
            return {**super().draw(n, rng), "eps": eps}
        return self.draw_samples(n, self.t, rng)

    def draw_samples(self, n: int, tasks: int, rng: torch.Generator) -> dict[str, Tensor]:
        """What `ConditionalVAE.sample_each` needs for at least n samples, as many of each of the first tasks."""
        m = -(-n // max(tasks, 1))
        z = torch.randn(tasks, m, self.cfg.z, generator=rng, device=rng.device)
        return {"z": z, "units": self.draw_units(torch.arange(tasks, device=rng.device), m, rng)}

    def draw_units(self, tasks: Tensor, m: int, rng: torch.Generator) -> Tensor:
        """(N, m) output units of tasks (N,), drawn uniformly from each task's own."""
        which = torch.rand(len(tasks), m, generator=rng, device=rng.device) * self.n_units[tasks]
        return self.unit_lists[tasks].gather(1, which.long())

    def replayed(self, noise: Noise) -> Batch:
        """Samples of all past tasks with their units and tasks."""
        n, m = noise["units"].shape
        with torch.no_grad():
            x = self.vae.sample_each(noise["z"], noise["units"])
        return Batch(x, noise["units"].flatten(), torch.arange(n, device=x.device).repeat_interleave(m))

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of the tasks (n,) and output units (n,) asked for; default: any of those seen.

        Classes alone do where each belongs to one task; a class that several tasks have needs its task too.

        Raises:
            ConfigError: classes alone, and one belongs to no task learned so far, or to several.
        """
        seen = max(self.t, 0) + 1
        if tasks is None:
            if classes is None:
                tasks = torch.randint(seen, (n,), generator=rng, device=rng.device)
            else:
                # (seen, n) bool: which tasks have the unit that is asked for
                owners = self.spec.task_units()[:seen].to(classes.device)[:, classes]
                if not bool((owners.sum(0) == 1).all()):
                    raise ConfigError(
                        f"{self.name}: of the output units asked for, {classes[owners.sum(0) != 1].unique().tolist()} "
                        f"belong to none or to several of the {seen} tasks learned so far. Expected units of one task "
                        "each; give the tasks as well."
                    )
                tasks = owners.to(torch.int8).argmax(0)
        return self._decoded(tasks, {t: tasks == t for t in tasks.unique().tolist()}, rng, classes)

    @torch.no_grad()
    def sample_evenly(self, n: int, tasks: int, rng: torch.Generator) -> Tensor:
        """As `Generator.sample_evenly`. Which rows are whose is known without asking the device, for which it would wait."""
        in_turn = torch.arange(n, device=rng.device) % tasks
        return self._decoded(in_turn, {t: slice(t, None, tasks) for t in range(min(n, tasks))}, rng)

    def _decoded(
        self, tasks: Tensor, rows: Mapping[int, Tensor | slice], rng: torch.Generator, classes: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples of tasks (n,), `rows` of each; without classes, of units drawn from the task's own."""
        if classes is None:
            classes = self.draw_units(tasks, 1, rng)[:, 0]
        z = torch.randn(len(tasks), self.cfg.z, generator=rng, device=rng.device)
        images = z.new_zeros(len(tasks), *self.spec.shape)
        for t, of_task in rows.items():
            images[of_task] = self.vae.sample(t, z[of_task], classes[of_task])
        return images


class HypernetworkR(ReplayModel, Classifier):
    """HNET+R: an ordinary classifier, fed by a generator that a hypernetwork protects (von Oswald et al. 2020)."""

    name = "hypernetwork-r"
    summary = "replay from a VAE whose decoders a hypernetwork generates (von Oswald 2020)"

    @dataclass(frozen=True)
    class Config(ReplayModel.Config):
        """HNET+R's settings."""

        temperature: float = 2.0
        """softmax temperature T > 0 of the soft targets"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("hypernetwork-r", *TEMPERATURES, temperature=self.temperature)

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.old_net = frozen_copy(self.net)

    def phases(self, t: int, steps: int) -> list[Phase]:
        fresh = self.cfg.fresh_optimizer
        return [Phase(REPLAY_MODEL, steps, fresh_optimizer=fresh), Phase("classifier", steps, fresh_optimizer=fresh)]

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        super().begin_phase(t, phase, data, rng)
        if not self.dreaming:
            refresh(self.old_net, self.net)

    def task_loss(self, batch: Batch, noise: Noise) -> Losses:
        if self.dreaming:
            return {"vae": self.vae.loss(self.t, batch.x, batch.y, noise["eps"])}
        if self.t == 0:
            return {"current": self.cross_entropy(self.net(batch.x), batch)}
        replayed = self.replayed(noise)
        with torch.no_grad():
            old_logits = self.old_net(replayed.x)
        logits, logits_replayed = self.net(torch.cat([batch.x, replayed.x])).split([len(batch.x), len(replayed.x)])
        # The embedding a sample came from tells its task, so its head is known in Task-IL.
        if self.spec.scenario == "task":
            old_active = new_active = self.old_active[None, replayed.task]  # (1, R, n_out)
        else:
            old_active, new_active = self.old_active, self.new_active
        imitation = imitation_loss(logits_replayed, old_logits, old_active, new_active, "soft", self.cfg.temperature)
        # L = ½ L_current + ½ L_replay, however many tasks there were
        return {"current": 0.5 * self.cross_entropy(logits, batch), "replay": 0.5 * imitation}
