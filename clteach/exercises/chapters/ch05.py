"""Exercises of chapter 5, *Brain-inspired replay*."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Brain-inspired replay"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "d"
    ### END SOLUTION


def gates(u: Tensor, share: float) -> Tensor:
    """(C, H) the masks of C classes, 1.0 or 0.0 for each of H units; u (C, H) is drawn uniformly from [0, 1).

    A unit is *inhibited* (0) with probability `share`: where its u is smaller.
    """
    ### BEGIN SOLUTION
    return (u >= share).float()
    ### END SOLUTION


def gating(h: Tensor, p: Tensor, masks: Tensor) -> Tensor:
    """(B, H) gated activities: h (B, H) times the mixture of the masks (C, H), weighed by the soft labels p (B, C)."""
    ### BEGIN SOLUTION
    return h * (p @ masks)
    ### END SOLUTION


def log_normal(z: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """log density of a diagonal Gaussian at z, summed over the last dimension."""
    return -0.5 * (math.log(2 * math.pi) + logvar + (z - mean).square() / logvar.exp()).sum(-1)


def mixture_prior(z: Tensor, means: Tensor, logvars: Tensor, p: Tensor) -> Tensor:
    """(B,) log Σ_c p_c N(z; μ_c, σ_c²): z (B, d), means and logvars (C, d), soft labels p (B, C)."""
    ### BEGIN SOLUTION
    difference = z[:, None] - means  # (B, C, d)
    each = -0.5 * (math.log(2 * math.pi) + logvars + difference.square() / logvars.exp()).sum(2)
    return torch.logsumexp(p.log() + each, 1)
    ### END SOLUTION


def kl_sample(z: Tensor, mean: Tensor, logvar: Tensor, prior_mean: Tensor, prior_logvar: Tensor) -> Tensor:
    """(B,) one-sample estimate of the KL divergence, log q(z|x) - log p(z|y), at z drawn from q = N(mean, exp(logvar)).

    All (B, d); prior_mean and prior_logvar are those of each sample's class.
    """
    ### BEGIN SOLUTION
    log_q = -0.5 * (logvar + (z - mean).square() / logvar.exp()).sum(1)
    log_p = -0.5 * (prior_logvar + (z - prior_mean).square() / prior_logvar.exp()).sum(1)
    return log_q - log_p  # the constants ½ log 2π cancel
    ### END SOLUTION


def _shares(rng: torch.Generator) -> Cases:
    return {
        "share 0.8, 3 classes, 4 units": (torch.rand(3, 4, generator=rng), 0.8),
        "share 0.3, 5 classes, 20 units": (torch.rand(5, 20, generator=rng), 0.3),
        "share 0: no gating": (torch.rand(2, 6, generator=rng), 0.0),
        "share 0, and units that drew 0": (torch.tensor([[0.0, 0.5], [0.75, 0.0]]), 0.0),
    }


def _activities(rng: torch.Generator) -> Cases:
    masks = (torch.rand(4, 6, generator=rng) > 0.6).float()
    soft = torch.softmax(torch.randn(3, 4, generator=rng), 1)
    two = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    return {
        "a sure label": (torch.ones(1, 3), torch.tensor([[0.0, 1.0]]), two),
        "half of each class": (torch.tensor([[2.0, 4.0, 6.0]]), torch.tensor([[0.6, 0.4]]), two),
        "3 samples, 4 classes, 6 units": (torch.rand(3, 6, generator=rng), soft, masks),
    }


def _mixtures(rng: torch.Generator) -> Cases:
    def case(n: int, c: int, d: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = torch.softmax(torch.randn(n, c, generator=rng), 1)
        z, means, logvars = (torch.randn(rows, d, generator=rng) for rows in (n, c, c))
        return z, means, logvars, p

    one = torch.zeros(1, 1)
    far = (torch.full((1, 1), 40.0), torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[0.5, 0.5]]))
    return {
        "one class, the standard normal": (one, one.clone(), one.clone(), torch.ones(1, 1)),
        "two classes that are far away": far,
        "a sure label": (torch.ones(1, 1), torch.tensor([[0.0], [9.0]]), torch.zeros(2, 1), torch.tensor([[1.0, 0.0]])),
        "6 samples, 4 classes, 3 dimensions": case(6, 4, 3),
    }


def _estimates(rng: torch.Generator) -> Cases:
    def case(n: int, d: int) -> tuple[Tensor, ...]:
        mean, logvar, prior_mean, prior_logvar = (torch.randn(n, d, generator=rng) for _ in range(4))
        return mean + torch.exp(0.5 * logvar) * torch.randn(n, d, generator=rng), mean, logvar, prior_mean, prior_logvar

    zero = torch.zeros(1, 2)
    return {
        "cloud and prior are the same": (torch.ones(1, 2), zero, zero.clone(), zero.clone(), zero.clone()),
        "4 samples, 3 dimensions": case(4, 3),
        "16 samples, 10 dimensions": case(16, 10),
    }


EXERCISES = (
    choice(
        "05.predict",
        "Predict, then run: a hundred tasks",
        "Brain-inspired replay has learned five tasks of two classes; now let it be a hundred tasks. What of it "
        "grows with the number of tasks, apart from the output layer? Guess, check, then compare `sum(b.numel() for "
        "b in learner.state_dict().values())` for two streams.",
        {
            "a": (
                "The number of samples it replays in each step.",
                "Every step replays one batch, whatever the number of tasks; only their share in the loss changes.",
            ),
            "b": (
                "The number of generators it keeps.",
                "There is one generator. Before each task a frozen copy of it is made, in the place of the copy "
                "before.",
            ),
            "c": (
                "The number of samples it stores.",
                "It stores no sample at all. That is what the generator is for.",
            ),
            "d": ("Only what it keeps for each class: a Gaussian of the prior, and masks for the decoder's units.", ""),
            "e": (
                "Nothing at all.",
                "Nearly nothing. But which of the five changes has something for every single class?",
            ),
        },
        predict,
        "A mean and a width for each latent dimension, and one bit for each hidden unit of the decoder, per class.",
        "Go through the method's parts, and ask of each whether there is one for all, or one for every class.",
    ),
    Exercise(
        "05.gates",
        "Bug hunt: on or off?",
        1,
        "Notes on brain-inspired replay say that X % of a layer's units are *activated* for each class. It is the "
        "other way round: "
        "each unit is **inhibited** with probability X, independently for every class. Make the masks from uniform "
        "random numbers.",
        gates,
        _shares,
        (
            Mistake(
                "activated",
                lambda u, share: (u < share).float(),
                "Here a share X of the units is switched *on*. X is the share that is inhibited: 0.",
            ),
            Mistake(
                "same for all classes",
                lambda u, share: (u[:1] >= share).float().expand_as(u),
                "All classes have one mask. Then it is a smaller network, not a context: each class needs its own.",
            ),
            Mistake(
                "scaled like dropout",
                lambda u, share: (u >= share).float() / (1 - share),
                "Divided by the share that is left, as dropout does. The gates are fixed and also there when the "
                "network "
                "is used, so nothing is to be made up for: 0 or 1.",
            ),
            Mistake(
                "bool",
                lambda u, share: u >= share,
                "A mask of True and False: as a factor it should be 1.0 and 0.0 (.float()).",
            ),
            Mistake(
                "one unit mask, many classes",
                lambda u, share: (u[:, :1] >= share).float().expand_as(u),
                "All units of a class have the same gate: the class is on or off as a whole. Each unit has its own "
                "number.",
            ),
        ),
        "u is smaller than X with probability X. Those units are 0.",
    ),
    Exercise(
        "05.gating",
        "A mixture of masks",
        2,
        "The label of a replayed sample is soft, and each class has its own mask. Gate the activities by the "
        "probability-weighted "
        "mixture of the masks.",
        gating,
        _activities,
        (
            Mistake(
                "most probable class",
                lambda h, p, masks: h * masks[p.argmax(1)],
                "Only the most probable class's mask is used. With soft labels every mask takes part, by its "
                "probability.",
            ),
            Mistake(
                "inverted",
                lambda h, p, masks: h * (1 - p @ masks),
                "Inverted: a mask of 1 lets the unit through.",
            ),
            Mistake(
                "labels ignored",
                lambda h, p, masks: h * masks.mean(0),
                "All masks count alike, whatever the label.",
            ),
            Mistake(
                "union",
                lambda h, p, masks: h * ((p @ masks) > 0),
                "Every unit that any class uses is fully on. With soft labels nearly all are: nothing is gated.",
            ),
            Mistake("mask alone", lambda h, p, masks: p @ masks, "This is the mask. Multiply the activities by it."),
        ),
        "p @ masks is (B, H): one mixed mask per sample.",
        observe=gradients_by(gating, "h"),
    ),
    Exercise(
        "05.mixture_prior",
        "A prior with a place for every class",
        3,
        "With soft labels the conditional prior is a mixture: write $\\log \\sum_c p_c\\, \\mathcal{N}(z; \\mu_c, "
        "\\sigma_c^2)$, all constants "
        "included. It must be finite for a $z$ far from every class. A probability may be exactly 0.",
        mixture_prior,
        _mixtures,
        (
            Mistake(
                "sum of logs",
                lambda z, means, logvars, p: (p * log_normal(z[:, None], means, logvars)).sum(1),
                "The sum of p log N instead of the log of the sum: the logarithm stands outside.",
            ),
            Mistake(
                "underflow",
                lambda z, means, logvars, p: (p * log_normal(z[:, None], means, logvars).exp()).sum(1).log(),
                "The densities are computed first and then their logarithm. Far from all classes they round to 0 "
                "and the "
                "log is −∞. Stay in logarithms: torch.logsumexp.",
            ),
            Mistake(
                "labels ignored",
                lambda z, means, logvars, p: (
                    torch.logsumexp(log_normal(z[:, None], means, logvars), 1) - math.log(len(means))
                ),
                "All classes have the same weight: the soft labels p are not used.",
            ),
            Mistake(
                "no constant",
                lambda z, means, logvars, p: (
                    mixture_prior(z, means, logvars, p) + 0.5 * z.shape[1] * math.log(2 * math.pi)
                ),
                "The constant ½ log 2π per dimension is missing.",
            ),
            Mistake(
                "no width in front",
                lambda z, means, logvars, p: torch.logsumexp(
                    p.log() + log_normal(z[:, None], means, logvars) + 0.5 * logvars.sum(1), 1
                ),
                "The factor 1/σ in front of the exponential is missing: ½ logvar has to be subtracted, or a wide "
                "class "
                "is probable everywhere.",
            ),
            Mistake(
                "the places cut off",
                lambda z, means, logvars, p: mixture_prior(z, means.detach(), logvars.detach(), p),
                "The value is right, but means and variances are cut off from their gradients: no class would ever find its "
                "place.",
            ),
            Mistake(
                "average class",
                lambda z, means, logvars, p: log_normal(z, p @ means, p @ logvars),
                "One Gaussian with averaged mean and width: that is a cloud *between* the classes, not a mixture of "
                "them.",
            ),
        ),
        "log N for every sample and class is (B, C). Add log p and use torch.logsumexp over the classes.",
        observe=gradients_by(mixture_prior, "z", "means", "logvars"),
    ),
    Exercise(
        "05.kl_sample",
        "A divergence from one draw",
        2,
        "Between a cloud and a class's prior, write the one-sample estimate $\\log q(z|x) - \\log p(z|y)$ at the "
        "given $z$.",
        kl_sample,
        _estimates,
        (
            Mistake(
                "closed form",
                lambda z, mean, logvar, prior_mean, prior_logvar: (
                    0.5
                    * (
                        prior_logvar - logvar + (logvar.exp() + (mean - prior_mean).square()) / prior_logvar.exp() - 1
                    ).sum(1)
                ),
                "This is the exact KL divergence, which does not use z. It is right on average, but a mixture has "
                "no closed "
                "form: here the estimate at the drawn z is asked for.",
            ),
            Mistake(
                "sign",
                lambda z, mean, logvar, prior_mean, prior_logvar: -kl_sample(z, mean, logvar, prior_mean, prior_logvar),
                "The sign is reversed: log q minus log p.",
            ),
            Mistake(
                "standard prior",
                lambda z, mean, logvar, prior_mean, prior_logvar: kl_sample(
                    z, mean, logvar, torch.zeros_like(z), torch.zeros_like(z)
                ),
                "The prior is that of the sample's class, not N(0, 1).",
            ),
            Mistake(
                "widths forgotten",
                lambda z, mean, logvar, prior_mean, prior_logvar: (
                    0.5 * ((z - prior_mean).square() / prior_logvar.exp() - (z - mean).square() / logvar.exp()).sum(1)
                ),
                "The terms ½ logvar are missing: a density has 1/σ in front.",
            ),
            Mistake(
                "the prior cut off",
                lambda z, mean, logvar, prior_mean, prior_logvar: kl_sample(
                    z, mean, logvar, prior_mean.detach(), prior_logvar.detach()
                ),
                "The value is right, but the prior is cut off from its gradient: its classes learn their places as well.",
            ),
            Mistake(
                "log p alone",
                lambda z, mean, logvar, prior_mean, prior_logvar: -log_normal(z, prior_mean, prior_logvar),
                "This is −log p alone. Without log q the cloud would shrink to a point.",
            ),
        ),
        "Write the log density of a Gaussian twice and subtract.",
        observe=gradients_by(kl_sample, "z", "mean", "logvar", "prior_mean", "prior_logvar"),
    ),
)
