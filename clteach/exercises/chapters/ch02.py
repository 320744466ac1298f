"""Exercises of chapter 2, *Latent space*."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Latent space"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "a"
    ### END SOLUTION


def reparameterise(mean: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """(B, z) a sample of N(mean, exp(logvar)) as a differentiable function; eps (B, z) is drawn from N(0, 1)."""
    ### BEGIN SOLUTION
    return mean + torch.exp(0.5 * logvar) * eps
    ### END SOLUTION


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """(B,) KL divergence of N(mean, exp(logvar)) from N(0, I), in nats; mean and logvar are (B, z)."""
    ### BEGIN SOLUTION
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)
    ### END SOLUTION


def loss(reconstruction: Tensor, x: Tensor, mean: Tensor, logvar: Tensor) -> Tensor:
    """() VAE loss: squared error plus KL, each summed over its own dimensions; the mean over the batch.

    reconstruction, x (B, P); mean, logvar (B, z).
    """
    ### BEGIN SOLUTION
    error = (reconstruction - x).square().sum(1)
    price = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1)
    return (error + price).mean()
    ### END SOLUTION


def kl_is_right(candidate: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Is `candidate`(mean, logvar), each (B, z), the KL divergence from N(0, I)? Decide by its values, not by its code."""
    ### BEGIN SOLUTION
    rng = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(8, 3, generator=rng), torch.randn(8, 3, generator=rng)
    cloud = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    truth = torch.distributions.kl_divergence(cloud, torch.distributions.Normal(0.0, 1.0)).sum(1)
    found = candidate(mean, logvar)
    return found.shape == truth.shape and torch.allclose(found, truth, rtol=1e-3)
    ### END SOLUTION


def traverse(z: Tensor, dimension: int, values: Tensor) -> Tensor:
    """(V, n) copies of one latent z (n,): in copy k, the number at `dimension` is values[k], the others are as in z."""
    ### BEGIN SOLUTION
    rows = z.repeat(len(values), 1)
    rows[:, dimension] = values
    return rows
    ### END SOLUTION


def log_likelihood(log_joint: Tensor, log_q: Tensor) -> Tensor:
    """(B,) the estimate of log p(x) from S samples z_s ~ q(z|x) of each image, in nats.

    log_joint (S, B): log p(x|z_s) + log p(z_s). log_q (S, B): log q(z_s|x).
    """
    ### BEGIN SOLUTION
    return torch.logsumexp(log_joint - log_q, 0) - math.log(len(log_q))
    ### END SOLUTION


def posterior(log_p: Tensor, counts: Tensor) -> Tensor:
    """(B, K) the probability p(c|x) of every class, by Bayes' rule.

    log_p (B, K): log p(x|c) of each image. counts (K,): how many training images of each class there were so far, 0 for a
    class that is still to come.
    """
    ### BEGIN SOLUTION
    return (log_p + counts.log()).softmax(1)
    ### END SOLUTION


def _clouds(rng: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        "a cloud that is the prior": (torch.zeros(1, 2), torch.zeros(1, 2)),
        "a narrow cloud far out": (torch.tensor([[10.0]]), torch.tensor([[-10.0]])),
        "a wide cloud": (torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])),
        "16 clouds in 3 dimensions": (torch.randn(16, 3, generator=rng), torch.randn(16, 3, generator=rng)),
    }


def _kl_cases(rng: torch.Generator) -> Cases:
    return _clouds(rng)


def _samples(rng: torch.Generator) -> Cases:
    return {
        name: (mean, logvar, torch.randn(mean.shape, generator=rng)) for name, (mean, logvar) in _clouds(rng).items()
    }


def _images(rng: torch.Generator) -> Cases:
    cases = {}
    for name, (mean, logvar) in _clouds(rng).items():
        x = torch.rand(len(mean), 12, generator=rng)
        cases[name] = (torch.rand(len(mean), 12, generator=rng), x, mean, logvar)
    perfect = torch.rand(4, 12, generator=rng)
    return {
        **cases,
        "perfect pictures, clouds at the prior": (perfect, perfect.clone(), torch.zeros(4, 2), torch.zeros(4, 2)),
    }


def _walks(rng: torch.Generator) -> Cases:
    return {
        "three values of the first number": (torch.tensor([5.0, 6.0, 7.0]), 0, torch.tensor([-1.0, 0.0, 1.0])),
        "two values of the last number": (torch.tensor([0.5, -0.5]), 1, torch.tensor([2.0, 3.0])),
        "eleven values in ten dimensions": (torch.randn(10, generator=rng), 4, torch.linspace(-2.5, 2.5, 11)),
    }


def _weights(rng: torch.Generator) -> Cases:
    def drawn(s: int, b: int, level: float) -> tuple[Tensor, Tensor]:
        return level + 3 * torch.randn(s, b, generator=rng), -4 + torch.randn(s, b, generator=rng)

    return {
        "two samples of one image": (torch.tensor([[-7.0], [-9.0]]), torch.tensor([[-2.0], [-5.0]])),
        "one sample of three images": drawn(1, 3, -8.0),
        "five samples of four images": drawn(5, 4, -8.0),
        "100 samples of three images of many pixels": drawn(100, 3, -550.0),
    }


def _bayes(rng: torch.Generator) -> Cases:
    return {
        "two classes, seen equally often": (torch.tensor([[-3.0, -4.0]]), torch.tensor([50.0, 50.0])),
        "two classes, one of them rare": (torch.tensor([[-3.0, -4.0], [-5.0, -3.5]]), torch.tensor([10.0, 90.0])),
        "a class that is still to come": (torch.tensor([[-6.0, -5.0, -4.0]]), torch.tensor([20.0, 20.0, 0.0])),
        "images of many pixels, five classes": (
            -550 + 3 * torch.randn(4, 5, generator=rng),
            torch.tensor([30.0, 60.0, 10.0, 0.0, 0.0]),
        ),
    }


def wild_kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """The KL term of a loss that circulates on the net: unbounded below."""
    return 0.5 * (logvar - mean.square()).sum(1)


def _candidates(rng: torch.Generator) -> Cases:
    def right(mean: Tensor, logvar: Tensor) -> Tensor:
        return -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1)

    def twice(mean: Tensor, logvar: Tensor) -> Tensor:
        return 2 * right(mean, logvar)

    def linear_variance(mean: Tensor, logvar: Tensor) -> Tensor:  # exp(logvar) ≈ 1 + logvar: 0 at the prior, ≥ 0
        return 0.5 * mean.square().sum(1)

    def shifted(mean: Tensor, logvar: Tensor) -> Tensor:
        return right(mean, logvar) + 0.5

    def one_number(mean: Tensor, logvar: Tensor) -> Tensor:
        return right(mean, logvar).mean()

    def image_by_image(mean: Tensor, logvar: Tensor) -> Tensor:
        return torch.stack([right(m[None], v[None])[0] for m, v in zip(mean, logvar, strict=True)])

    def one_row(mean: Tensor, logvar: Tensor) -> Tensor:
        return right(mean, logvar)[None]

    def table(mean: Tensor, logvar: Tensor) -> Tensor:
        return right(mean, logvar).expand(len(mean), -1)

    candidates = {
        "the right formula": right,
        "the loss from the wild": wild_kl,
        "twice the right one": twice,
        "a formula that ignores the variance": linear_variance,
        "half a nat too much": shifted,
        "one number for the whole batch": one_number,
        "the right formula, image by image": image_by_image,
        "the right numbers, in a table of one row": one_row,
        "the right numbers, over again for each image": table,
    }
    return {name: (function,) for name, function in candidates.items()}


_ZERO = torch.zeros(1, 2)

EXERCISES = (
    choice(
        "02.predict",
        "Predict, then run: a higher price",
        "In $\\mathcal{L}_\\beta$ the KL term has the weight $\\beta$. Train once with $\\beta = 0.3$ and once with "
        "$\\beta = 3$. What changes? "
        "Guess, check, then look at the curve of rate against error.",
        {
            "a": ("With β = 3 the code carries fewer bits and the reconstructions are worse.", ""),
            "b": (
                "With β = 3 the code carries more bits and the reconstructions are better.",
                "β is the price of a bit, not its reward: a loss is minimised.",
            ),
            "c": (
                "With β = 3 the code carries fewer bits, but the reconstructions stay the same.",
                "The decoder sees nothing but the code. Can it draw as well from fewer bits?",
            ),
            "d": (
                "The code carries as many bits either way; only the value of the loss changes.",
                "If both terms had the same weight that would be so. Here one of them becomes dearer against the "
                "other.",
            ),
            "e": (
                "With β = 3 the code carries more bits, but the reconstructions are worse.",
                "The KL term *is* the number of bits (in nats). It has become more expensive: does one then buy "
                "more of it?",
            ),
        },
        predict,
        "β sets the exchange rate of bits against error: what is dearer is bought less.",
        "Read the two terms as a purchase: what is bought, and what is its price?",
    ),
    Exercise(
        "02.traverse",
        "Walk along one axis",
        1,
        "For a latent traversal one takes the code of one image and changes *one* of its numbers. Write the table "
        "of codes that "
        "is decoded: one row per value.",
        traverse,
        _walks,
        (
            Mistake(
                "added",
                lambda z, dimension, values: traverse(z, dimension, z[dimension] + values),
                "The values are added to the number. They are to replace it: column `dimension` of the result is "
                "`values`.",
            ),
            Mistake(
                "all dimensions",
                lambda z, dimension, values: values[:, None].expand(-1, len(z)),
                "All numbers change at once. Only the one at `dimension` may; the others stay as in z.",
            ),
            Mistake(
                "columns",
                lambda z, dimension, values: traverse(z, dimension, values).T,
                "Transposed: the decoder wants one code per *row*, (V, n).",
            ),
            Mistake(
                "zeros",
                lambda z, dimension, values: traverse(torch.zeros_like(z), dimension, values),
                "The other numbers are 0. They should be those of z, or it is no walk from this image.",
            ),
            Mistake(
                "row instead of column",
                lambda z, dimension, values: torch.stack(
                    [values[k] if k == dimension else z for k in range(len(values))]
                ),
                "`rows[dimension]` is a row. The number to change is in a column: `rows[:, dimension]`.",
            ),
        ),
        "`z.repeat(len(values), 1)` makes the copies. Then set one column.",
    ),
    Exercise(
        "02.reparameterise",
        "Move the chance out of the way",
        2,
        "Write the reparameterisation trick: $z = \\mu + \\sigma \\varepsilon$, given the **logarithm of the "
        "variance**. The gradients by "
        "$\\mu$ and $\\log \\sigma^2$ are checked too.",
        reparameterise,
        _samples,
        (
            Mistake(
                "variance for standard deviation",
                lambda mean, logvar, eps: mean + logvar.exp() * eps,
                "exp(logvar) is the variance σ². The noise is stretched by the standard deviation, its square root: "
                "exp(½ logvar).",
            ),
            Mistake(
                "log-variance for standard deviation",
                lambda mean, logvar, eps: mean + logvar * eps,
                "logvar is a logarithm and may be negative; a standard deviation may not. σ = exp(½ log σ²).",
            ),
            Mistake(
                "shifted noise",
                lambda mean, logvar, eps: (mean + eps) * torch.exp(0.5 * logvar),
                "The mean is stretched as well. First stretch the noise, then add the mean.",
            ),
            Mistake(
                "own noise",
                lambda mean, logvar, eps: torch.distributions.Normal(mean, torch.exp(0.5 * logvar)).rsample(),
                "You draw noise of your own. Use the `eps` that is given: then the same call gives the same answer.",
            ),
            Mistake(
                "cut gradient",
                lambda mean, logvar, eps: reparameterise(mean, logvar, eps).detach(),
                "The value is right, but no gradient comes through, so the encoder would hear nothing. Leave out "
                "detach().",
            ),
            Mistake(
                "the width cut off",
                lambda mean, logvar, eps: reparameterise(mean, logvar.detach(), eps),
                "The value is right, but σ is cut off from its gradient: the encoder would never learn how wide its clouds "
                "shall be.",
            ),
            Mistake(
                "no noise",
                lambda mean, logvar, eps: mean + 0 * eps,
                "Without noise it is an auto-encoder: a point instead of a cloud.",
            ),
        ),
        "σ from log σ²: halve it and take the exponential. Then stretch eps and shift it.",
        observe=gradients_by(reparameterise, "mean", "logvar"),
    ),
    Exercise(
        "02.kl",
        "The price of a cloud",
        2,
        "Write the KL divergence of a diagonal Gaussian from the prior, $\\frac12 \\sum_j ( \\mu_j^2 + \\sigma_j^2 "
        "- 1 - \\log \\sigma_j^2 )$: "
        "one number per sample, in nats.",
        kl,
        _kl_cases,
        (
            Mistake(
                "from the wild",
                wild_kl,
                "This is the loss from the wild. The sign of mean² is reversed, and exp(logvar) and 1 are missing: "
                "a cloud "
                "far out gets a reward. A KL divergence is never negative.",
            ),
            Mistake(
                "sign of mean²",
                lambda mean, logvar: 0.5 * (-mean.square() + logvar.exp() - 1 - logvar).sum(1),
                "The sign of mean² is reversed: being far from the prior must cost something.",
            ),
            Mistake(
                "negative",
                lambda mean, logvar: -kl(mean, logvar),
                "The sign is reversed: a divergence is never negative.",
            ),
            Mistake(
                "no exponential",
                lambda mean, logvar: 0.5 * (mean.square() + logvar - 1 - logvar).sum(1),
                "σ² is exp(logvar). Without the exponential the price does not even depend on how wide the cloud is.",
            ),
            Mistake(
                "mean over dimensions",
                lambda mean, logvar: kl(mean, logvar) / mean.shape[1],
                "A mean over the latent dimensions. The divergence of independent dimensions is their sum; a mean "
                "makes "
                "the KL term weaker the more dimensions there are.",
            ),
            Mistake(
                "no half",
                lambda mean, logvar: 2 * kl(mean, logvar),
                "The factor ½ is missing: it comes from the exponent of the Gaussian.",
            ),
            Mistake(
                "standard deviation",
                lambda mean, logvar: 0.5 * (mean.square() + torch.exp(0.5 * logvar) - 1 - logvar).sum(1),
                "exp(½ logvar) is σ. The formula has σ², which is exp(logvar).",
            ),
            Mistake(
                "the variance cut off",
                lambda mean, logvar: kl(mean, logvar.detach()),
                "The value is right, but the variance is cut off from its gradient: no cloud would become wider or "
                "narrower for it.",
            ),
            Mistake(
                "batch mean",
                lambda mean, logvar: kl(mean, logvar).mean(),
                "One number per sample is asked for, so sum over dimension 1 only; the batch comes later.",
            ),
        ),
        "Check yourself: it must be 0 where mean = 0 and logvar = 0, and positive everywhere else.",
        observe=gradients_by(kl, "mean", "logvar"),
    ),
    Exercise(
        "02.loss",
        "Bug hunt: mend the loss from the wild",
        2,
        "Notes on the net train a VAE with `mse_loss(reconstruction, x) + 0.5 * torch.sum(log_var - mean.pow(2))`. "
        "Mend all three "
        "mistakes: squared error plus KL, *each summed over its own dimensions*, and one mean over the batch for "
        "both.",
        loss,
        _images,
        (
            Mistake(
                "unchanged",
                lambda reconstruction, x, mean, logvar: (
                    (reconstruction - x).square().mean() + 0.5 * (logvar - mean.square()).sum()
                ),
                "This is the loss as found: all three mistakes are in it. Begin with the KL term: what is it at "
                "mean = 10?",
            ),
            Mistake(
                "only the KL mended",
                lambda reconstruction, x, mean, logvar: (reconstruction - x).square().mean() + kl(mean, logvar).sum(),
                "The KL term is right, but it is summed over batch and dimensions while the error is averaged over "
                "batch and "
                "pixels: the posterior collapses. Sum the error over the pixels, and take one mean over the batch.",
            ),
            Mistake(
                "mean over pixels",
                lambda reconstruction, x, mean, logvar: (reconstruction - x).square().mean() + kl(mean, logvar).mean(),
                "The error is a mean over the pixels, the KL a sum over the latent numbers. Sum the error over its "
                "pixels.",
            ),
            Mistake(
                "sum over the batch",
                lambda reconstruction, x, mean, logvar: (reconstruction - x).square().sum() + kl(mean, logvar).sum(),
                "Both sums are over the whole batch, so the learning rate would depend on the batch size: divide by B.",
            ),
            Mistake(
                "KL from the wild",
                lambda reconstruction, x, mean, logvar: (
                    (reconstruction - x).square().sum(1) + wild_kl(mean, logvar)
                ).mean(),
                "The sums are right now, but the KL term is still the wild one: unbounded below.",
            ),
            Mistake(
                "the KL term cut off",
                lambda reconstruction, x, mean, logvar: loss(reconstruction, x, mean.detach(), logvar.detach()),
                "The value is right, but the KL term is cut off from its gradient: the encoder never hears of the price. "
                "Leave out .item(), .detach() and torch.no_grad().",
            ),
            Mistake(
                "the error cut off",
                lambda reconstruction, x, mean, logvar: loss(reconstruction.detach(), x, mean, logvar),
                "The value is right, but the squared error is cut off from its gradient: the decoder learns nothing. "
                "Leave out .item(), .detach() and torch.no_grad().",
            ),
            Mistake(
                "KL subtracted",
                lambda reconstruction, x, mean, logvar: (
                    (reconstruction - x).square().sum(1) - kl(mean, logvar)
                ).mean(),
                "The KL term is subtracted. It is a price: add it. (In the ELBO it has a minus, but the loss is its "
                "negative.)",
            ),
        ),
        "Mend one thing at a time: the KL formula; then the sum over pixels; then the mean over the batch.",
        observe=gradients_by(loss, "reconstruction", "mean", "logvar"),
    ),
    Exercise(
        "02.kl_is_right",
        "Write the test",
        3,
        "A loss deserves a test. Write a function that gets a candidate for the KL divergence and says whether it "
        "is right. It is "
        "tried on one right and several wrong candidates. `torch.distributions` knows the true values, and an "
        "average of "
        "$\\log q(z) - \\log p(z)$ over many draws would do too.",
        kl_is_right,
        _candidates,
        (
            Mistake("always yes", lambda candidate: True, "This test passes everything: it cannot fail."),
            Mistake("always no", lambda candidate: False, "This test refuses everything, the right formula too."),
            Mistake(
                "only at the prior",
                lambda candidate: bool((candidate(_ZERO, _ZERO) == 0).all()),
                "It looks at one point only, mean = 0 and logvar = 0, where many wrong formulas are 0 too. Try others.",
            ),
            Mistake(
                "only the sign",
                lambda candidate: bool(
                    (candidate(torch.randn(50, 3), torch.randn(50, 3)) >= -1e-6).all()
                    and (candidate(_ZERO, _ZERO) == 0).all()
                ),
                "It is never negative and 0 at the prior: true of the divergence, but of its double as well. "
                "Compare values.",
            ),
            Mistake(
                "shape not looked at",
                lambda candidate: torch.allclose(
                    candidate(torch.ones(4, 2), -torch.ones(4, 2)), kl(torch.ones(4, 2), -torch.ones(4, 2))
                ),
                "A candidate that returns one number for the whole batch passes, because all your samples are alike "
                "and broadcasting hides it. Compare the shapes as well.",
            ),
        ),
        "Compare with `torch.distributions.kl_divergence` on random clouds, values *and* shape.",
    ),
    Exercise(
        "02.log_likelihood",
        "How probable is this image?",
        2,
        "To classify by likelihood one needs $\\log p(x)$ itself, not its lower bound. Write the estimate from $S$ "
        "samples of "
        "the encoder, $\\log \\frac1S \\sum_s p(x|z_s)\\, p(z_s) / q(z_s|x)$. You are given logarithms, and for "
        "real images they "
        "are so low that their exponentials are 0.",
        log_likelihood,
        _weights,
        (
            Mistake(
                "mean of the logarithms",
                lambda log_joint, log_q: (log_joint - log_q).mean(0),
                "This is the ELBO, the mean of the logarithms. The logarithm of the *mean* is asked for, which is "
                "never less.",
            ),
            Mistake(
                "no division by S",
                lambda log_joint, log_q: torch.logsumexp(log_joint - log_q, 0),
                "A sum over the samples, not their mean: every further sample would make the image more probable. "
                "Subtract "
                "log S.",
            ),
            Mistake(
                "divided after the logarithm",
                lambda log_joint, log_q: torch.logsumexp(log_joint - log_q, 0) / len(log_q),
                "The division by S stands inside the logarithm. Outside it becomes - log S.",
            ),
            Mistake(
                "exponentials of large negative numbers",
                lambda log_joint, log_q: (log_joint - log_q).exp().mean(0).log(),
                "Right on paper, but the exponential of -550 is 0 in a computer, and its logarithm -∞. "
                "`torch.logsumexp` takes "
                "the largest one out first.",
            ),
            Mistake(
                "weights forgotten",
                lambda log_joint, log_q: torch.logsumexp(log_joint, 0) - math.log(len(log_q)),
                "The samples come from q, not from the prior. Each must be divided by q(z|x), or codes that q "
                "likes count "
                "too often.",
            ),
            Mistake(
                "weights upside down",
                lambda log_joint, log_q: torch.logsumexp(log_q - log_joint, 0) - math.log(len(log_q)),
                "The fraction is upside down: what is probable belongs above the line.",
            ),
            Mistake(
                "mean over the images",
                lambda log_joint, log_q: torch.logsumexp(log_joint - log_q, 1) - math.log(log_q.shape[1]),
                "Summed over the images of the batch. The samples s are along dimension 0; one number per image is "
                "asked for.",
            ),
        ),
        "The logarithm of a sum of exponentials is `torch.logsumexp`. A factor 1/S becomes - log S.",
    ),
    Exercise(
        "02.posterior",
        "Turn likelihoods round",
        2,
        "Every class has a model of its own, which says how probable an image is *if* it is of that class. Bayes' "
        "rule turns it "
        "round: $p(c|x) \\propto p(x|c)\\, p(c)$. Take for the prior $p(c)$ the share of the class in the training "
        "images so far. "
        "A class that is still to come cannot be an answer.",
        posterior,
        _bayes,
        (
            Mistake(
                "no prior",
                lambda log_p, counts: log_p.softmax(1),
                "The likelihoods alone. A class that was seen nine times as often is nine times as probable before "
                "one looks, "
                "and one that was never seen is impossible.",
            ),
            Mistake(
                "count instead of its logarithm",
                lambda log_p, counts: (log_p + counts).softmax(1),
                "A likelihood is *multiplied* by the prior. Among logarithms that is a sum with the logarithm of "
                "the count.",
            ),
            Mistake(
                "exponentials of large negative numbers",
                lambda log_p, counts: log_p.exp() * counts / (log_p.exp() * counts).sum(1, keepdim=True),
                "The exponential of -550 is 0 in a computer, and 0 / 0 is not a number. Stay with logarithms; "
                "`softmax` takes "
                "the largest one out first.",
            ),
            Mistake(
                "impossible classes at 0",
                lambda log_p, counts: (log_p * (counts > 0)).softmax(1),
                "A log-likelihood of 0 is p = 1, better than any real one: the classes to come win. Impossible is -∞.",
            ),
            Mistake(
                "over the images",
                lambda log_p, counts: (log_p + counts.log()).softmax(0),
                "The classes compete for an image, not the images for a class: the sum over each row is 1.",
            ),
            Mistake(
                "per pixel",
                lambda log_p, counts: (log_p / 64 + counts.log()).softmax(1),
                "The log-likelihood was divided by the number of pixels. That is a habit of losses; in Bayes' rule "
                "it makes "
                "every image look undecided.",
            ),
            Mistake(
                "one winner",
                lambda log_p, counts: (log_p + counts.log() == (log_p + counts.log()).amax(1, keepdim=True)).float(),
                "This is the answer, the most probable class. Asked for is how probable every class is.",
            ),
        ),
        "In logarithms the rule is a sum, and dividing by the sum over all classes is what `softmax` does. log 0 = "
        "-∞ is welcome.",
    ),
)
