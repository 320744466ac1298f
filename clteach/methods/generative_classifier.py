r"""Generative classifier: one generator per class, and an image belongs to the class that explains it best.

Van de Ven, Li & Tolias 2021. Every other method here learns p(y|x) with one network, so each new class moves the weights
that the old ones need. This one learns p(x|y), a variational auto-encoder for each class, and classifies by Bayes' rule
with equal priors,

$$\hat y(x) = \arg\max_c\, \log p(x \,|\, y = c).$$

The VAE of a class is trained on samples of that class alone, and never again. Nothing is forgotten because nothing is
shared, and no class has to be told from another while it is learned: in Class-IL, where they never meet, that is what the
others lack. It costs a network per class, and a prediction asks them all.

The likelihood has no closed form. It is estimated by importance sampling with S samples of the encoder, whose noise is drawn
once, with the weights, and is the same for all images and classes (`clteach.models.likelihood`).

The paper trains one class after the other, 1000 steps with a batch of that class each. Here every batch of a task is
divided among the task's classes. An update of a task of two that gathers the gradients of two batches (`batches`) gives each
class about a whole one again, and 2000 steps are 1000 updates. On an encoded stream
(`clteach.data.extractors`) the decoder gives the mean of a Gaussian with variance 1 instead of probabilities of pixels.
The published code trains with probabilities of pixels and yet classifies with a Gaussian of variance 1 around the decoded
image, another model than the one that was learned; `observation` chooses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from clteach.data.tasks import Batch, Data, Spec
from clteach.learners.learner import Generator, Losses, NetMaker, Noise, Phase, total
from clteach.learners.optim import adam
from clteach.models.likelihood import Observation, log_likelihood, stacked
from clteach.models.vae import VAE, FeatureVAE, bernoulli_nll, gaussian_nll, kl_standard_normal
from clteach.seeding import generator, seeded
from clteach.settings import MOST_SAMPLES, MOST_UNITS, within

AT_ONCE = 1_600_000
"""Values of a decoder's widest layer that a prediction holds at a time: what a processor's cache holds."""


class _Known:
    """What is known of some data: `columns`, {class: (N,) log-likelihoods under its VAE}."""

    def __init__(self, data: Data, observation: str) -> None:
        self.columns: dict[int, Tensor] = {}
        self.of = observation, self.versions(data)

    @staticmethod
    def versions(data: Data) -> list[tuple[Tensor, int]]:
        tensors = [tensor for tensor in (data.x, data.rows, data.pixels) if tensor is not None]
        return [(tensor, 0 if tensor.is_inference() else tensor._version) for tensor in tensors]

    def still_of(self, data: Data, observation: str) -> bool:
        """Are these the inputs that were asked about, not written over since, and asked about in this way?"""
        asked_for, before = self.of
        pairs = zip_longest(before, self.versions(data), fillvalue=(None, 0))
        return asked_for == observation and all(x is y and v == w for (x, v), (y, w) in pairs)


class _Answered(WeakKeyDictionary[Data, _Known]):
    """What is known of data, kept as long as they are; it is not pickled with the learner."""

    def __reduce__(self) -> tuple[type[_Answered], tuple[()]]:
        return type(self), ()


class GenerativeClassifier(Generator):
    """A VAE per class, and classification by likelihood (van de Ven, Li & Tolias 2021)."""

    name = "generative-classifier"
    summary = "a VAE per class; classify by the largest likelihood (van de Ven 2021)"
    scenarios = ("class",)
    needs = "it has a generator for every class, and in the other scenarios classes share their output units"

    @dataclass(frozen=True)
    class Config(Generator.Config):
        """The generative classifier's settings."""

        hidden: tuple[int, ...] = (85, 85)
        """units of the hidden layers of each class's encoder (ReLU), mirrored in its decoder"""
        z: int = 5
        """latent dimensions of each class's VAE"""
        samples: int = 100
        """importance samples S that a likelihood is estimated with"""
        batches: int = 1
        """batches that an update gathers; as many as a task has classes give each class a whole one (2022)"""
        observation: Literal["trained", "gaussian"] = "trained"
        """p(x|z) in the likelihood that classifies: as in training, or a Gaussian of variance 1 around the image (2022)"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("generative-classifier", 1, MOST_UNITS, z=self.z)
            within("generative-classifier", 1, MOST_SAMPLES, samples=self.samples, batches=self.batches)

    eps: Tensor  # (S, z) the noise of the importance samples
    units: Tensor  # (n_tasks, n_out) bool, the classes of each task
    old_gradient: Tensor  # (W,) the part of an update's gradient that earlier batches gave, for all weights of a task
    old_batches: Tensor  # () how many batches gave it

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.of_features = spec.encoded_from is not None
        kind = FeatureVAE if self.of_features else VAE
        with seeded(seed, "vaes"):
            self.vaes = nn.ModuleList(kind(spec.shape, self.cfg.hidden, self.cfg.z) for _ in range(spec.n_out))
        self.opts["vaes"] = adam(self.vaes.parameters(), self.cfg.lr)
        self.register_buffer("eps", torch.randn(self.cfg.samples, self.cfg.z, generator=generator(seed, "importance")))
        self.register_buffer("units", spec.task_units())
        weights = sum(p.numel() for p in self.vae(0).parameters()) * max(map(len, spec.units))
        self.register_buffer("old_gradient", torch.zeros(weights if self.cfg.batches > 1 else 0))
        self.register_buffer("old_batches", torch.zeros((), dtype=torch.int64))
        self.asked: dict[int, Tensor] = {}  # weights and noise that each class's answers in `answered` are of
        self.answered = _Answered()
        self.waiting = 0  # the same as `old_batches`, for which a step would have to wait for the device

    def observation(self) -> Observation:
        """p(x|z) in the likelihood that classifies."""
        if self.of_features:
            return "gaussian"
        return "bernoulli" if self.cfg.observation == "trained" else "gaussian image"

    def vae(self, c: int) -> VAE:
        """The generator of class c."""
        found = self.vaes[c]
        assert isinstance(found, VAE)
        return found

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        self.waiting = int(self.old_batches)

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        self.waiting = 0
        self.old_batches.zero_()
        self.old_gradient.zero_()

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {"eps": torch.randn(n, self.cfg.z, generator=rng, device=rng.device)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        # The VAEs of other tasks are not asked, so they get no gradient and Adam leaves them as they are.
        losses = [self.class_loss(c, batch, noise["eps"]) for c in self.spec.units[self.t]]
        return {"elbo": torch.stack(losses).sum()}

    def class_loss(self, c: int, batch: Batch, eps: Tensor) -> Tensor:
        """() mean negative ELBO of the VAE of class c over the batch's samples of that class, in nats; 0 without any."""
        decoded, mean, logvar = self.vae(c)(batch.x, eps)
        nll = (gaussian_nll if self.of_features else bernoulli_nll)(decoded, batch.x)
        # L_c = -log p(x|z) + KL(q(z|x) ‖ p(z)), z ~ q(z|x), over the x with y = c; a mask keeps the shapes fixed
        mine = (batch.y == c).float()
        return ((nll + kl_standard_normal(mean, logvar)) * mine).sum() / mine.sum().clamp_min(1)

    def step(self, batch: Batch, noise: Noise) -> Losses:
        if self.cfg.batches == 1:
            return super().step(batch, noise)
        losses = self.loss(batch, noise)
        parameters = [p for c in self.spec.units[self.t] for p in self.vae(c).parameters()]
        sizes = [p.numel() for p in parameters]
        gathered = self.old_gradient[: sum(sizes)]
        # ∇L = 1/n Σ_i ∇L_i over the n batches of an update
        gradients = torch.autograd.grad(total(losses), parameters)
        gathered += torch.cat([g.flatten() for g in gradients]) / self.cfg.batches
        self.waiting = (self.waiting + 1) % self.cfg.batches
        self.old_batches.fill_(self.waiting)
        if self.waiting == 0:
            (opt,) = self.opts.values()
            for p, g in zip(parameters, gathered.split(sizes), strict=True):
                p.grad = g.view_as(p)
            opt.step()
            opt.zero_grad(set_to_none=True)  # the VAEs of this task get none in the next
            gathered.zero_()
        return {name: value.detach() for name, value in losses.items()}

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        # log p(y = c | x) = log p(x | y = c) + const with equal priors, so likelihoods are logits
        return self.log_likelihood(x)

    def answers(self, data: Data) -> Iterable[Tensor]:
        # The same test data are asked about after every task, and most VAEs are what they were: only the others are asked,
        # and of those only the ones whose class may be the answer.
        units = self.active_now.any(0).nonzero().flatten().tolist()
        for c in units:
            used = torch.cat([parameters_to_vector(self.vae(c).parameters()).detach(), self.eps.flatten()])
            before = self.asked.get(c)
            if before is None or before.device != used.device or not torch.equal(before, used):
                self.asked[c] = used
                for of_data in self.answered.values():
                    of_data.columns.pop(c, None)
        known = self.answered.get(data)
        if known is None or not known.still_of(data, self.cfg.observation):
            known = self.answered[data] = _Known(data, self.cfg.observation)
        if new := [c for c in units if c not in known.columns]:
            found = torch.cat([self.log_likelihood(batch.x, new) for batch in data.batches()])
            known.columns.update(zip(new, found.unbind(1), strict=True))
        logits = torch.zeros(len(data), self.spec.n_out, device=data.device)
        logits[:, units] = torch.stack([known.columns[c] for c in units], 1)
        return logits.split([len(batch.y) for batch in data.batches()])

    @torch.no_grad()
    def log_likelihood(self, x: Tensor, classes: Sequence[int] | None = None) -> Tensor:
        """(B, K) log p(x|c) of inputs x (B, *shape) under the VAEs of K classes, in nats, estimated with S samples.

        Args:
            x: the inputs.
            classes: which classes; None: all of them.
        """
        asked = range(self.spec.n_out) if classes is None else classes
        x = x.flatten(1)
        # of features three layers are held at a time: the latents, the hidden units, and what these are multiplied with
        width = 3 * max((self.cfg.z, *self.cfg.hidden)) if self.of_features else x.shape[1]
        k = max(1, min(len(asked), AT_ONCE // (len(self.eps) * width)))  # classes at a time
        n = max(1, AT_ONCE // (k * len(self.eps) * width))  # and images
        found = []
        for i in range(0, len(asked), k):
            vaes = [self.vae(c) for c in asked[i : i + k]]
            encoders, decoders = stacked([vae.encoder for vae in vaes]), stacked([vae.decoder for vae in vaes])
            last, _ = decoders[-1]
            gram = last @ last.mT if self.of_features else None  # W Wᵀ (K, H, H)
            parts = [log_likelihood(part, encoders, decoders, self.eps, self.observation(), gram) for part in x.split(n)]
            found.append(torch.cat(parts))
        return torch.cat(found, 1)

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples, in [0, 1] where they are images, of given classes (n,), or of random ones.

        Args:
            n: how many.
            rng: random numbers.
            classes: (n,) output units; None: random ones.
            tasks: (n,) tasks, of whose classes a random one is taken; None: of all tasks learned so far.
        """
        if classes is None:
            seen = self.units[: max(self.t, 0) + 1].any(0).expand(n, -1)
            candidates = seen if tasks is None else self.units[tasks]
            classes = torch.multinomial(candidates.float(), 1, generator=rng).squeeze(1)
        z = torch.randn(n, self.cfg.z, generator=rng, device=rng.device)
        x = torch.empty(n, *self.spec.shape, device=rng.device)
        for c in range(self.spec.n_out):
            x[classes == c] = self.vae(c).sample(z[classes == c])
        return x
