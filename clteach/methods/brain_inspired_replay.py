r"""Brain-inspired replay (BI-R): generative replay with five changes, each of which can be switched off by itself.

van de Ven, Siegelmann & Tolias 2020. Generative replay dreams of past tasks, but its dreams fade, and the more so the harder
the images are. The brain also replays, and it differs in five ways:

1. **Feedback** (`feedback`). There is no second network that dreams: the decoder grows on the classifier's own hidden
   layers, which therefore learn to classify and to describe. One network, one loss:
   $\mathcal{L} = \mathcal{L}_{\text{class}} + \mathcal{L}_{\text{reconstruction}} + \mathcal{L}_{\text{KL}}$.
2. **Conditional replay** (`conditional`). It can choose what to dream of: the prior has one Gaussian per class, learned with
   everything else, $p(z) = \sum_c p_c\, \mathcal{N}(z; \mu_c, \sigma_c^2)$.
3. **Gating by internal context** (`gating`). A share X of the decoder's hidden units is off, another random share for every
   class: $h = g \odot \mathrm{ReLU}(W h' + b)$ with $g = \sum_c p_c\, m_c$, $m_c \in \{0, 1\}^n$ fixed. In Domain-IL, where
   all tasks share their classes, the context is the task.
4. **Internal replay** (`extractor`, `internal`; or a stream that is encoded already, see `clteach.data.extractors`). What is
   dreamed is not an image but what a frozen feature extractor would say of it.
5. **Distillation** (`targets`): dreams are labelled with the old model's probabilities p, not with its choice.

Here p is one-hot for real data (the true class) and the old model's softmax at temperature T for replayed data. The VAE with
prior (2) and gates (3) is in `clteach.models.context_vae`; this file is about how classifier and dreams work together. The
classes to replay are drawn uniformly from those of past tasks; which class was *meant* does not become the label. In Task-IL
the class drawn tells which head the sample belongs to, and only this head learns from it. With all five off, every number
is that of `generative-replay`.

Where this leaves the published code: replayed labels give no probability to classes that no task has shown yet; in Task-IL
the head is drawn for each sample, not the same number of samples for each head; SI holds the classifier, not the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.extractors import fingerprint, make_extractor
from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Losses, NetMaker, Noise, Phase
from clteach.learners.optim import adam
from clteach.learners.replay import imitation_loss
from clteach.methods.generative_replay import GenerativeReplay
from clteach.methods.si import SI
from clteach.models.context_vae import ContextVAE
from clteach.models.nets import deconv_pixels, one_hot
from clteach.models.vae import reparameterise
from clteach.seeding import derive


class BrainInspiredReplay(GenerativeReplay):
    """Brain-inspired replay (van de Ven, Siegelmann & Tolias 2020): five switches on top of generative replay."""

    name = "brain-inspired-replay"
    summary = "replay through the classifier's own feedback, by class (van de Ven 2020)"

    @dataclass(frozen=True)
    class Config(GenerativeReplay.Config):
        """Settings of brain-inspired replay; `vae_hidden` is about the decoder alone where there is feedback."""

        feedback: bool = True
        """the decoder grows on the classifier's hidden layers, instead of a network of its own"""
        conditional: bool = True
        """a prior with one Gaussian per class, instead of the standard normal"""
        gating: float = 0.1
        """share X of the decoder's hidden units that a context switches off, in [0, 1) (0: no gates)"""
        extractor: str | None = None
        """frozen feature extractor before the network, a name in clteach.data.extractors ("conv" or your own); None: none"""
        weights: str | None = None
        """file with the extractor's pre-trained weights (`clteach pretrain` writes it)"""
        internal: bool = True
        """replay features instead of pixels, where there is an extractor"""
        reinit: bool = False
        """forget all weights before every task, so that only replay carries the past"""

        def __post_init__(self) -> None:
            if isinstance(self.replay_model, str) and self.replay_model != "vae":
                raise ConfigError(
                    f"brain-inspired-replay: replay_model={self.replay_model!r} is not possible, its generator is a part "
                    "of the classifier. Use generative-replay for another generator."
                )
            super().__post_init__()
            if self.keep != "model":
                raise ConfigError(
                    f"brain-inspired-replay: keep={self.keep!r} is not possible, samples are drawn anew in every step. "
                    "Use keep='model'."
                )
            if not 0 <= self.gating < 1:
                raise ConfigError(f"brain-inspired-replay: gating={self.gating}, expected a share in [0, 1).")
            if self.weights is not None and self.extractor is None:
                raise ConfigError(
                    f"brain-inspired-replay: weights={self.weights!r} belong to an extractor; "
                    "name it as well (extractor='conv', say)."
                )

    task_units: Tensor  # (n_tasks, n_out) bool: the output units of each task's classes
    order: Tensor  # (classes,) the output units in the order in which the tasks show them
    vae: ContextVAE
    old_vae: ContextVAE

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        cfg = self.checked(spec, cfg)
        encoded = spec.encoded_from is not None
        if encoded and (cfg.extractor is not None or not cfg.internal):
            raise ConfigError(
                f"{self.name}: extractor={cfg.extractor!r}, internal={cfg.internal} on a stream that is encoded already, "
                "so features are replayed in any case. Leave both out, or take the stream of images."
            )
        # 1. The extractor, and what the network reads.
        extractor = None if cfg.extractor is None else make_extractor(cfg.extractor, spec.shape, cfg.weights, seed)
        read = spec.shape if extractor is None else tuple(extractor(torch.zeros(1, *spec.shape)).shape[1:])
        replays_features = encoded or (extractor is not None and cfg.internal)
        decodes_pixels = extractor is not None and not cfg.internal  # reads features, but dreams in pixels

        # 2. The classifier reads it. 3. The VAE, which with feedback grows on the classifier's last hidden layer.
        def make_vae(classifier: nn.Module) -> ContextVAE:
            hidden = cfg.hidden if cfg.vae_hidden is None else cfg.vae_hidden
            classes = spec.n_out if cfg.conditional else 0
            contexts = spec.n_tasks if spec.scenario == "domain" else spec.n_out
            vae = ContextVAE(read, hidden, cfg.z, classes, contexts, cfg.gating, replays_features)
            if cfg.feedback:  # of its own the encoder only needs the step from the last hidden layer to z
                if (
                    not isinstance(classifier, nn.Sequential)
                    or type(classifier).forward is not nn.Sequential.forward  # layers are called one by one in `both`
                    or not isinstance(classifier[-1], nn.Linear)
                ):
                    raise ConfigError(
                        f"{self.name}: with feedback the decoder grows on the classifier's last hidden layer. Expected a "
                        "network that is an nn.Sequential and ends with an nn.Linear, without a forward of its own; give "
                        "such a one, or feedback=False."
                    )
                vae.encoder = nn.Sequential(nn.Linear(classifier[-1].in_features, 2 * cfg.z))
            if decodes_pixels:  # and the decoder the way from features to pixels
                vae.to_pixels = deconv_pixels(spec.shape, read[0])
                vae.shape = spec.shape
            return vae

        super().__init__(spec, cfg, seed, net, read, make_vae)
        self.extractor, self.replays_features, self.decodes_pixels = extractor, replays_features, decodes_pixels
        if cfg.feedback:  # one network, one optimiser
            self.opts = {"network": adam([*self.net.parameters(), *self.vae.parameters()], cfg.lr)}
        self.register_buffer("task_units", spec.task_units())
        self.register_buffer("order", torch.tensor(list(dict.fromkeys(unit for row in spec.units for unit in row))))
        # Does a dream depend on the task drawn, or on the class?
        self.by_task = cfg.gating > 0 and spec.scenario == "domain"
        self.by_class = cfg.conditional or (cfg.gating > 0 and not self.by_task)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        super().begin_phase(t, phase, data, rng)  # keeps the old models
        if self.cfg.reinit and t > 0:
            fresh = type(self)(self.spec, self.cfg, derive(self.seed, "reinit", t), self.own_net)
            self.net.load_state_dict(fresh.net.state_dict())
            gates = {name: self.vae.get_buffer(name) for name in self.vae.gates}  # they are no weights, and stay
            self.vae.load_state_dict({**fresh.vae.state_dict(), **gates})
            for opt in self.opts.values():
                opt.state.clear()

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        noise = super().draw(n, rng)
        return noise | self.choose(len(noise["z"]), self.t, rng)

    def choose(self, n: int, t: int, rng: torch.Generator) -> dict[str, Tensor]:
        """What to dream of: classes (n,) and tasks (n,), both uniform over those of the first t tasks."""
        shown = len({unit for row in self.spec.units[:t] for unit in row})
        classes = torch.randint(max(shown, 1), (n,), generator=rng, device=rng.device)
        tasks = torch.randint(max(t, 1), (n,), generator=rng, device=rng.device)
        return {"class": self.order[classes], "task": tasks}

    def read(self, x: Tensor) -> Tensor:
        """Images (B, *shape) -> what the network reads: the extractor's features (B, n), or the images themselves."""
        with torch.no_grad():
            return x if self.extractor is None else self.extractor(x)

    def context(self, label: Tensor, task: Tensor) -> Tensor:
        """(B, contexts) probabilities of the decoder's contexts: those of the classes, or in Domain-IL the task."""
        return one_hot(task, self.spec.n_tasks) if self.spec.scenario == "domain" else label

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        n, n_replay = len(batch.x), len(noise["z"])
        read = self.read(batch.x)
        target = batch.x if self.decodes_pixels else read  # what the decoder is to give
        label = one_hot(batch.y, self.spec.n_out)
        context = self.context(label, batch.task)
        if n_replay == 0:
            logits, vae = self.both(read, target, label, context, noise["eps"])
            return {"current": self.cross_entropy(logits, batch), "vae": vae.mean()}

        with torch.no_grad():
            meant = one_hot(noise["class"], self.spec.n_out)
            dreamed = self.old_vae.dream(noise["z"], meant, self.context(meant, noise["task"]))
            dreamed_read = dreamed if self.replays_features else self.read(dreamed)
            old_logits = self.old_net(dreamed_read)
            # The label is not what was meant, but what the old model takes it for.
            old_label = self.label(old_logits, noise["class"])
            old_context = self.context(old_label, noise["task"])
        # Real and replayed samples go through the network together: one large matrix product instead of two.
        read = torch.cat([read, dreamed_read])
        target = torch.cat([target, dreamed]) if self.decodes_pixels else read
        label, context = torch.cat([label, old_label]), torch.cat([context, old_context])
        logits, vae = self.both(read, target, label, context, noise["eps"])
        (logits, logits_replayed), (vae, vae_replayed) = logits.split([n, n_replay]), vae.split([n, n_replay])

        # L = 1/n L_current + (1 - 1/n) L_replay
        share = 1 / (self.t + 1)
        return {
            "current": share * self.cross_entropy(logits, batch),
            "replay": (1 - share) * self.imitate_as(logits_replayed, old_logits, noise["class"]),
            "vae": share * vae.mean() + (1 - share) * vae_replayed.mean(),
        }

    def both(self, read: Tensor, target: Tensor, label: Tensor, context: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """One pass of classifier and VAE, with feedback through the same hidden layers.

        Args:
            read: (B, ...) what the network reads.
            target: (B, ...) what the decoder is to give.
            label: (B, n_out) probabilities of the classes, for the prior.
            context: (B, contexts) probabilities of the contexts, for the gates.
            eps: (B, z) noise from N(0, I).

        Returns:
            logits (B, n_out), and (B,) the negative ELBO, each of its terms per value in nats.
        """
        if self.cfg.feedback:
            *shared, last = self.net.children()
            hidden = read
            for layer in shared:
                hidden = layer(hidden)  # (B, units) in the end, of the last layer that classifier and encoder share
            logits, (mean, logvar) = last(hidden), self.vae.encode(hidden)
        else:
            logits, (mean, logvar) = self.net(read), self.vae.encode(read)
        z = reparameterise(mean, logvar, eps)
        decoded = self.vae.decode(z, context)
        pixels = self.spec.pixels
        # L_VAE = -log p(x|z) / R + KL(q(z|x) ‖ p(z)) / P, with R values reconstructed (P, or the features) and P pixels
        nll = self.vae.nll(decoded, target) * (pixels / decoded.shape[1])
        return logits, (nll + self.vae.kl(mean, logvar, z, eps, label)) / pixels

    def heads(self, meant: Tensor) -> Tensor:
        """(R, n_out) bool, the units of the head that replayed samples of classes (R,) belong to; (1, n_out): all alike."""
        if self.spec.scenario == "task":
            return self.task_units[self.task_units[:, meant].float().argmax(0)]
        return self.task_units[: self.t].any(0, keepdim=True)

    def label(self, old_logits: Tensor, meant: Tensor) -> Tensor:
        """(R, n_out) probabilities of the classes of replayed samples, in the eyes of the old model."""
        old_logits = old_logits.masked_fill(~self.heads(meant), -torch.inf)
        if self.cfg.targets == "hard":
            return one_hot(old_logits.argmax(1), self.spec.n_out)
        return F.softmax(old_logits / self.cfg.temperature, 1)

    def imitate_as(self, logits: Tensor, old_logits: Tensor, meant: Tensor) -> Tensor:
        """() as `imitate`; in Task-IL, where classes (R,) were chosen, on the head of each sample's class alone."""
        if self.spec.scenario != "task" or not self.by_class:
            return self.imitate(logits, old_logits)
        heads = self.heads(meant)[None]  # (1, R, n_out)
        cfg = self.cfg
        return imitation_loss(logits, old_logits, heads, heads, cfg.targets, cfg.temperature, cfg.squared)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.net(self.read(x))

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) images in [0, 1], or (n, features) where features are replayed.

        Of the output units `classes` (n,) and, in Domain-IL with gates, of `tasks` (n,); None: uniformly those so far.

        Raises:
            ConfigError: classes or tasks are asked for that this generator cannot choose.
        """
        if (classes is not None and not self.by_class) or (tasks is not None and not self.by_task):
            raise ConfigError(
                f"{self.name} chooses {'classes' if self.by_class else 'no classes'} and "
                f"{'tasks' if self.by_task else 'no tasks'} here. Classes need conditional=True "
                "(or gates outside Domain-IL), tasks need gates and Domain-IL."
            )
        eps = torch.randn(n, self.cfg.z, generator=rng, device=rng.device)
        drawn = self.choose(n, self.t + 1, rng)
        label = one_hot(drawn["class"] if classes is None else classes, self.spec.n_out)
        return self.vae.dream(eps, label, self.context(label, drawn["task"] if tasks is None else tasks))

    def describe(self) -> dict[str, Any]:
        about = super().describe()
        if self.extractor is not None:
            # The weights are saved with the learner: their file is not needed again, but which they were is worth knowing.
            about["extractor"] = fingerprint(self.extractor)
            about["cfg"]["weights"] = None
        return about


class BrainInspiredReplaySI(SI, BrainInspiredReplay):
    """BI-R with SI, whose penalty holds the classifier: with feedback also the layers that it shares with the encoder."""

    name = "brain-inspired-replay-si"
    summary = "BI-R and SI together (van de Ven 2020)"

    @dataclass(frozen=True)
    class Config(SI.Config, BrainInspiredReplay.Config):
        """Settings of SI and of BI-R."""
