r"""Generative classifier: one generator per class, and an image belongs to the class that explains it best.

Van de Ven, Li & Tolias 2021. Every other method here learns p(y|x) with one network, so each new class moves the weights
that the old ones need. This one learns p(x|y), a variational auto-encoder for each class, and classifies by Bayes' rule
with equal priors,

$$\hat y(x) = \arg\max_c\, \log p(x \,|\, y = c).$$

The VAE of a class is trained on samples of that class alone, and never again. Nothing is forgotten because nothing is
shared, and no class has to be told from another while it is learned: in Class-IL, where they never meet, that is what the
others lack. It costs a network per class, and a prediction asks them all.

The likelihood $p(x|c) = \int p(x|z)\, p(z)\, dz$ has no closed form. It is estimated with S samples $z_s \sim q(z|x)$ of the
encoder, each weighed by how much rarer it is under the prior (importance sampling; Burda et al. 2016):

$$\log p(x|c) \approx \log \frac1S \sum_s \frac{p(x|z_s)\, p(z_s)}{q(z_s|x)}, \qquad
  z_s = \mu(x) + \sigma(x)\, \varepsilon_s.$$

For any S this is a lower bound in expectation, and it is exact where q(z|x) is the true posterior. The noise $\varepsilon_s$
is drawn once, with the weights, and is the same for all images and classes: so an image's answer does not depend on what is
asked beside it, and the differences between classes are less noisy than the likelihoods.

The paper trains one class after the other, 1000 steps with a batch of that class each. Here every batch of a task is
divided among the task's classes. An update of a task of two that gathers the gradients of two batches (`batches`) gives each
class about a whole one again, and 2000 steps are 1000 updates. On an encoded stream
(`clteach.data.extractors`) the decoder gives the mean of a Gaussian with variance 1 instead of probabilities of pixels. Its
last layer is linear, so the distance of an input to that mean is computed without the mean, from the last hidden layer: on
CIFAR-100 from 85 numbers in place of 1024.
The published code trains with probabilities of pixels and yet classifies with a Gaussian of variance 1 around the decoded
image, another model than the one that was learned; `observation` chooses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from clteach.data.tasks import Batch, Data, Spec
from clteach.learners.learner import Generator, Losses, NetMaker, Noise, Phase, total
from clteach.learners.optim import adam
from clteach.models.vae import VAE, FeatureVAE, bernoulli_nll, gaussian_nll, kl_standard_normal
from clteach.seeding import generator, seeded
from clteach.settings import MOST_SAMPLES, MOST_UNITS, within

Layers = list[tuple[Tensor, Tensor]]
"""The linear layers of K networks: weights (K, n_in, n_out) and biases (K, 1, n_out)."""
AT_ONCE = 1_600_000
"""Values of a decoder's widest layer that a prediction holds at a time: what a processor's cache holds."""


class _Answered(WeakKeyDictionary[Data, dict[int, Tensor]]):
    """Log-likelihoods (N,) of data under the VAE of each class, kept as long as the data; they are not pickled with it."""

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
        self.asked: dict[int, Tensor] = {}  # the weights that each class's answers in `answered` are of
        self.answered = _Answered()
        self.waiting = 0  # the same as `old_batches`, for which a step would have to wait for the device

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
            weights = parameters_to_vector(self.vae(c).parameters()).detach()
            before = self.asked.get(c)
            if before is None or before.device != weights.device or not torch.equal(before, weights):
                self.asked[c] = weights
                for columns in self.answered.values():
                    columns.pop(c, None)
        columns = self.answered.setdefault(data, {})
        if new := [c for c in units if c not in columns]:
            found = torch.cat([self.log_likelihood(batch.x, new) for batch in data.batches()])
            columns.update(zip(new, found.unbind(1), strict=True))
        logits = torch.zeros(len(data), self.spec.n_out, device=data.device)
        logits[:, units] = torch.stack([columns[c] for c in units], 1)
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
            gram = last @ last.mT if self.of_features else None  # W Wᵀ (K, H, H), see `log_gaussian`
            found.append(torch.cat([self._log_likelihood(part, encoders, decoders, gram) for part in x.split(n)]))
        return torch.cat(found, 1)

    def _log_likelihood(self, x: Tensor, encoders: Layers, decoders: Layers, gram: Tensor | None) -> Tensor:
        """(B, K) as `log_likelihood`, for all B inputs (B, P), K classes and samples at once."""
        k, (b, p), (s, d) = len(encoders[0][0]), x.shape, self.eps.shape
        mean, logvar = run(encoders, x.expand(k, b, p)).chunk(2, dim=2)  # (K, B, z)
        # z_s = μ + σ ε_s
        z = torch.addcmul(mean[:, :, None], (0.5 * logvar).exp()[:, :, None], self.eps)  # (K, B, S, z)
        # log p(z) - log q(z|x) = ½ Σ_j (ε_j² + log σ_j² - z_j²): the constants are the same and cancel
        square = torch.linalg.vector_norm(z, dim=3).square()  # ‖z‖², without an array of z²
        log_w = 0.5 * (self.eps.square().sum(1) + logvar.sum(2, keepdim=True) - square)  # (K, B, S)
        if gram is not None:  # log p(x|c) as below
            return ((log_w + log_gaussian(decoders, gram, z, x)).logsumexp(2) - math.log(s)).T
        decoded = run(decoders, z.view(k, b * s, d)).view(k, b, s, p)
        if self.cfg.observation == "gaussian":
            decoded.sigmoid_()  # the decoded image is the mean
        log_w += (decoded @ x[..., None]).squeeze(3)
        if self.cfg.observation == "gaussian":
            # log p(x|z) = x·m - ½ m·m - ½ x·x - (P/2) log 2π, with the mean m
            log_w -= 0.5 * decoded.square_().sum(3)
            log_w -= 0.5 * (x.square().sum(1)[:, None] + p * math.log(2 * math.pi))
        else:
            # log p(x|z) = x·l - Σ_i log(1 + exp l_i), with the logits l
            log_w -= sum_softplus_(decoded)
        # log p(x|c) ≈ log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x)
        return (log_w.logsumexp(2) - math.log(s)).T

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


def stacked(nets: Sequence[nn.Sequential]) -> Layers:
    """The linear layers of K networks that `clteach.models.nets.mlp` made alike, ready for `run`."""
    linear = [[layer for layer in net if isinstance(layer, nn.Linear)] for net in nets]
    return [
        (torch.stack([layer.weight.T for layer in layers]), torch.stack([layer.bias for layer in layers])[:, None])
        for layers in zip(*linear, strict=True)
    ]


def run(layers: Layers, x: Tensor) -> Tensor:
    """K networks at once: inputs (K, N, n_in) -> outputs (K, N, n_out), ReLU between the layers."""
    weight, bias = layers[-1]
    return torch.baddbmm(bias, hidden(layers, x), weight)


def hidden(layers: Layers, x: Tensor) -> Tensor:
    """K networks at once: inputs (K, N, n_in) -> what their last layers read."""
    for weight, bias in layers[:-1]:
        x = torch.baddbmm(bias, x, weight).relu_()
    return x


def log_gaussian(decoders: Layers, gram: Tensor, z: Tensor, x: Tensor) -> Tensor:
    """(K, B, S) log N(x; m(z), I) of inputs x (B, P), each with S latents z (K, B, S, d), in nats; the means are not made.

    `gram` (K, H, H) is W Wᵀ of the decoders' last layers W (K, H, P).
    """
    weight, bias = decoders[-1]  # (K, H, P) and (K, 1, P)
    h = hidden(decoders, z.flatten(1, 2))  # (K, B S, H)
    apart = x - bias  # (K, B, P)
    constant = 0.5 * (apart.square().sum(2) + x.shape[1] * math.log(2 * math.pi))
    # with m = h W + c:  -½ ‖x - m‖² = -½ ‖x - c‖² + h · (W (x - c) - ½ W Wᵀ h)
    towards = (apart @ weight.mT)[:, :, None].repeat(1, 1, z.shape[2], 1).flatten(1, 2)  # (K, B S, H)
    towards.baddbmm_(h, gram, alpha=-0.5)
    return towards.mul_(h).sum(2).view(z.shape[:3]) - constant[:, :, None]


def sum_softplus_(logits: Tensor) -> Tensor:
    r"""(...) the sum of log(1 + exp l) over the last dimension of logits (..., P), which are overwritten.

    With log(1 + eˡ) = max(l, 0) + log(1 + e⁻ˡ) for positive l and its mirror image for negative ones, the sum of the second
    parts is the logarithm of a product: one logarithm for up to 64 pixels, where logarithms would take most of the time.
    """
    # Σ_i log(1 + exp l_i) = Σ_i max(l_i, 0) + log Π_i (1 + exp(-|l_i|))
    positive = logits.clamp_min(0).sum(-1)
    factors = logits.abs_().neg_().exp_().add_(1)  # in (1, 2], so a product of 64 is at most 2⁶⁴
    for _ in range(6):
        if factors.shape[-1] % 2:
            break
        half = factors.shape[-1] // 2
        factors = factors[..., :half] * factors[..., half:]
    return positive + factors.log_().sum(-1)
