"""Exercises of chapter 7, *Energy-based GAN*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.exercises.exercise import Cases, Exercise, Mistake, call, choice, gradients_by

TITLE = "Energy-based GAN"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


def energy(x: Tensor, reconstruction: Tensor) -> Tensor:
    """(B,) the energy of each sample: Euclidean distance of x (B, P) from its reconstruction (B, P)."""
    ### BEGIN SOLUTION
    return (reconstruction - x).square().sum(1).sqrt()
    ### END SOLUTION


def hinge(fake: Tensor, real: Tensor, m: float) -> Tensor:
    """() the discriminator's loss: D(x) + [m - D(G(z))]⁺ per sample, then the mean; energies fake, real (B,)."""
    ### BEGIN SOLUTION
    return (real + F.relu(m - fake)).mean()
    ### END SOLUTION


def generator_loss(fake: Tensor, autoencoder: Callable[[Tensor], Tensor]) -> Tensor:
    """() the generator's loss: the mean energy of its samples fake (B, P) under the discriminator `autoencoder`."""
    ### BEGIN SOLUTION
    return (autoencoder(fake) - fake).square().sum(1).sqrt().mean()
    ### END SOLUTION


def pull_away(S: Tensor) -> Tensor:
    """() the pull-away term of the embeddings S (N, d): mean squared cosine over all pairs i ≠ j. A row may be zero."""
    ### BEGIN SOLUTION
    direction = S / S.norm(dim=1, keepdim=True).clamp_min(1e-8)
    squares = (direction @ direction.T).square()
    n = len(S)
    return (squares.sum() - squares.diagonal().sum()) / (n * (n - 1))
    ### END SOLUTION


def value(p_data: Tensor, p_g: Tensor, m: float) -> float:
    """The discriminator's loss at its best response: D = m where p_data < p_g and 0 elsewhere; p_data, p_g (K,) sum to 1."""
    ### BEGIN SOLUTION
    D = m * (p_data < p_g)
    return float((p_data * D + p_g * F.relu(m - D)).sum())
    ### END SOLUTION


def halve(x: Tensor) -> Tensor:
    """An auto-encoder for the cases: it draws everything half as bright."""
    return 0.5 * x


def squash(x: Tensor) -> Tensor:
    """Another auto-encoder for the cases."""
    return torch.tanh(x).roll(1, 1)


def _pictures(rng: torch.Generator) -> Cases:
    return {
        "a 3-4-5 triangle": (torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)),
        "a large and a small error": (torch.tensor([[0.0, 2.0], [0.0, 0.1]]), torch.zeros(2, 2)),
        "6 samples, 10 pixels": (torch.rand(6, 10, generator=rng), torch.rand(6, 10, generator=rng)),
    }


def _energies(rng: torch.Generator) -> Cases:
    return {
        "one fake below, one above the margin": (torch.tensor([0.0, 20.0]), torch.tensor([1.0, 3.0]), 10.0),
        "all fakes above the margin": (torch.tensor([11.0, 12.0, 13.0]), torch.tensor([1.0, 1.0, 2.0]), 10.0),
        "16 samples, m = 2": (4 * torch.rand(16, generator=rng), torch.rand(16, generator=rng), 2.0),
    }


def _fakes(rng: torch.Generator) -> Cases:
    return {
        "an auto-encoder that halves": (torch.tensor([[3.0, 4.0]]), halve),
        "an auto-encoder that squashes": (torch.randn(5, 4, generator=rng), squash),
    }


def _embeddings(rng: torch.Generator) -> Cases:
    v = torch.tensor([0.6, 0.8])
    return {
        "orthogonal: as different as can be": (2 * torch.eye(3),),
        "four times the same: total collapse": (v.repeat(4, 1),),
        "an antipodal pair": (torch.stack([v, -v]),),
        "different lengths": (torch.tensor([[1.0, 0.0], [5.0, 5.0]]),),
        "short embeddings": (torch.tensor([[0.3, 0.0], [0.1, 0.1], [0.0, 0.2]]),),
        "a zero embedding": (torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]),),
        "8 random embeddings": (torch.randn(8, 3, generator=rng),),
    }


def _distributions(rng: torch.Generator) -> Cases:
    def pair(k: int) -> tuple[Tensor, Tensor]:
        return torch.softmax(torch.randn(k, generator=rng), 0), torch.softmax(torch.randn(k, generator=rng), 0)

    return {
        "equilibrium: both the same": (torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5]), 10.0),
        "total variation 0.3": (torch.tensor([0.5, 0.5]), torch.tensor([0.8, 0.2]), 10.0),
        "nothing in common": (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 4.0),
        "seven outcomes": (*pair(7), 2.0),
    }


def _spread(answer: Callable[[Tensor], Any], S: Tensor) -> Any:
    """The value and its gradient; the value alone where a row is zero, a place where some right formulas have no slope."""
    return (gradients_by(pull_away, "S") if S.any(1).all() else call)(answer, S)


def _cosines(S: Tensor) -> Tensor:
    direction = S / S.norm(dim=1, keepdim=True).clamp_min(1e-8)
    return direction @ direction.T


EXERCISES = (
    choice(
        "07.predict",
        "Predict, then look: 25 hills",
        "25 Gaussians in a 5 × 5 grid, a small GAN and a small EBGAN with the pull-away term, each with the settings "
        "that suited it best in a search of equal length. What does the recorded comparison of this package say? "
        "Guess, check, then look at the recorded results.",
        {
            "a": (
                "EBGAN-PT covers more modes, and a larger share of its samples is close to one.",
                "That is what the paper's idea promises, and one half of it is so. Which one?",
            ),
            "b": (
                "The GAN is better in both.",
                "One half is so. A player who visits few hills can stand well on each of them: which half is that?",
            ),
            "c": ("EBGAN-PT covers more modes, but a smaller share of its samples is close to one.", ""),
            "d": (
                "Both cover all 25 modes; they differ in the share of good samples.",
                "One of the two misses many of them, even with the best settings that the search found.",
            ),
            "e": (
                "Both are good only on some modes: one collapses onto a handful.",
                "Collapse onto a handful is what the pull-away term is for, and here neither falls that low.",
            ),
        },
        predict,
        "Two measures, two winners. A comparison that shows only one of them is not wrong, and misleads all the same.",
        "To reach many modes and to stay close to those reached are two things. Need one method be best at both?",
    ),
    Exercise(
        "07.energy",
        "What an auto-encoder cannot draw",
        1,
        "The discriminator of an energy-based GAN is an auto-encoder. Its energy is the Euclidean norm of the "
        "reconstruction error, "
        "one number per sample.",
        energy,
        _pictures,
        (
            Mistake(
                "mean square",
                lambda x, reconstruction: (reconstruction - x).square().mean(1),
                "A mean square. The margin m is chosen for the Euclidean norm: root of the *sum* of squares.",
            ),
            Mistake(
                "squared norm",
                lambda x, reconstruction: (reconstruction - x).square().sum(1),
                "The root is missing: this is the squared norm.",
            ),
            Mistake(
                "absolute error",
                lambda x, reconstruction: (reconstruction - x).abs().sum(1),
                "The sum of absolute errors (for 3 and 4 that is 7). The Euclidean norm gives 5.",
            ),
            Mistake(
                "the reconstruction cut off",
                lambda x, reconstruction: energy(x, reconstruction.detach()),
                "The value is right, but the reconstruction is cut off from its gradient: the auto-encoder could not learn "
                "to draw better.",
            ),
            Mistake(
                "whole batch",
                lambda x, reconstruction: (reconstruction - x).norm(),
                "One number for the whole batch. The hinge needs the energy of every sample.",
            ),
            Mistake(
                "root mean square",
                lambda x, reconstruction: (reconstruction - x).square().mean(1).sqrt(),
                "The root of the *mean* square: it does not grow with the number of pixels. Sum, then root.",
            ),
        ),
        "Square, sum over the pixels, root.",
        observe=gradients_by(energy, "x", "reconstruction"),
    ),
    Exercise(
        "07.hinge",
        "Bug hunt: the hinge",
        2,
        "Write the discriminator's loss from the energies of a real and a generated batch: $D(x) + [m - "
        "D(G(z))]^+$. In some published "
        "code the hinge acts on the mean of the batch. It acts on every sample; the mean comes last.",
        hinge,
        _energies,
        (
            Mistake(
                "hinge on the batch mean",
                lambda fake, real, m: real.mean() + F.relu(m - fake.mean()),
                "The hinge acts on the batch mean: one sample far above the margin hides others below it. First the "
                "hinge "
                "of every sample, then the mean.",
            ),
            Mistake(
                "no hinge",
                lambda fake, real, m: (real + m - fake).mean(),
                "Without the hinge there is a reward for pushing fakes ever higher. Beyond the margin nothing is "
                "left to gain.",
            ),
            Mistake(
                "hinge reversed",
                lambda fake, real, m: (real + F.relu(fake - m)).mean(),
                "Reversed: this punishes fakes *above* the margin. They shall be pushed up to it.",
            ),
            Mistake(
                "roles swapped",
                lambda fake, real, m: (fake + F.relu(m - real)).mean(),
                "The roles are swapped: real data shall have low energy.",
            ),
            Mistake(
                "the fakes cut off",
                lambda fake, real, m: hinge(fake.detach(), real, m),
                "The value is right, but the energies of the fakes are cut off from their gradient: none would be pushed "
                "up. (Detach the *samples* from the generator, not their energies from the discriminator.)",
            ),
            Mistake(
                "the real data cut off",
                lambda fake, real, m: hinge(fake, real.detach(), m),
                "The value is right, but the energies of the real data are cut off from their gradient: none would be "
                "pushed down.",
            ),
            Mistake(
                "hinge on the difference",
                lambda fake, real, m: F.relu(m + real - fake).mean(),
                "The hinge is around the difference of both. Then real energies stop mattering once fakes are far "
                "away.",
            ),
        ),
        "`F.relu` is the hinge [·]⁺. Sum the two terms per sample, then take the mean.",
        observe=gradients_by(hinge, "fake", "real"),
    ),
    Exercise(
        "07.generator_loss",
        "Bug hunt: a detached target",
        2,
        "The generator wants its samples to have low energy: $L_G = D(G(z)) = \\| "
        "\\mathrm{Dec}(\\mathrm{Enc}(G(z))) - G(z) \\|$. Some code computes it "
        "with a mean squared error whose *target* is detached. Write it whole; the gradient by the samples is "
        "checked.",
        generator_loss,
        _fakes,
        (
            Mistake(
                "target detached",
                lambda fake, autoencoder: (autoencoder(fake) - fake.detach()).square().sum(1).sqrt().mean(),
                "The value is right, but the gradient is not: the target is detached, which drops the part that "
                "moves the "
                "sample towards its reconstruction.",
            ),
            Mistake(
                "reconstruction detached",
                lambda fake, autoencoder: (autoencoder(fake).detach() - fake).square().sum(1).sqrt().mean(),
                "The value is right, but the reconstruction is detached: the gradient must also go through the "
                "auto-encoder.",
            ),
            Mistake(
                "minus energy",
                lambda fake, autoencoder: -generator_loss(fake, autoencoder),
                "The generator wants *low* energy; the discriminator is the one that pushes it up.",
            ),
            Mistake(
                "mean square",
                lambda fake, autoencoder: (autoencoder(fake) - fake).square().mean(),
                "A mean square is not the energy: root of the sum of squares, per sample.",
            ),
            Mistake(
                "everything detached",
                lambda fake, autoencoder: generator_loss(fake.detach(), autoencoder),
                "No gradient reaches the samples: the generator cannot learn. Leave out detach().",
            ),
        ),
        "Energy of each sample as in the first exercise, then the mean, and nothing detached.",
        observe=gradients_by(generator_loss, "fake"),
    ),
    Exercise(
        "07.pull_away",
        "Bug hunt: the missing square",
        2,
        "Notes on energy-based GANs compute the pull-away term as `(similarity.sum() - N) / (N * (N - 1))`. The "
        "cosines must be "
        "**squared**. Write $\\frac{1}{N(N-1)} \\sum_i \\sum_{j \\ne i} \\cos^2(S_i, S_j)$; a zero embedding counts "
        "as at right angles to all others.",
        pull_away,
        _embeddings,
        (
            Mistake(
                "no square",
                lambda S: (_cosines(S).sum() - len(S)) / (len(S) * (len(S) - 1)),
                "The cosines are not squared: an antipodal pair scores −1, and a batch of two +v and two −v is "
                "rewarded "
                "for having collapsed.",
            ),
            Mistake(
                "no square, pairs only",
                lambda S: (_cosines(S).sum() - _cosines(S).diagonal().sum()) / (len(S) * (len(S) - 1)),
                "The cosines are not squared: opposite directions cancel against equal ones.",
            ),
            Mistake(
                "diagonal included",
                lambda S: _cosines(S).square().mean(),
                "The pairs i = j are in it; each is 1, whatever the batch. Take them out and divide by N(N - 1).",
            ),
            Mistake(
                "not normalised",
                lambda S: ((S @ S.T).square().sum() - (S @ S.T).square().diagonal().sum()) / (len(S) * (len(S) - 1)),
                "The embeddings are not normalised: making them short would lower the term without spreading them.",
            ),
            Mistake(
                "NaN at zero",
                lambda S: (
                    (((S / S.norm(dim=1, keepdim=True)) @ (S / S.norm(dim=1, keepdim=True)).T).square().sum() - len(S))
                    / (len(S) * (len(S) - 1))
                ),
                "Right, but for a zero embedding it is 0/0 = NaN, and one NaN ruins all weights. Divide by "
                "norm.clamp_min(eps), and subtract the diagonal as it is.",
            ),
            Mistake(
                "cut off",
                lambda S: pull_away(S.detach()),
                "The value is right, but cut off from its gradient: the embeddings would not be pulled away.",
            ),
            Mistake(
                "N taken off for the diagonal",
                lambda S: (_cosines(S).square().sum() - len(S)) / (len(S) * (len(S) - 1)),
                "You subtract N for the diagonal. A zero embedding has 0 there, not 1: subtract the diagonal itself.",
            ),
        ),
        "Normalise the rows, one matrix product gives all cosines; square, take the diagonal off, divide by N(N - 1).",
        observe=_spread,
    ),
    Exercise(
        "07.value",
        "What the best discriminator can do",
        3,
        "For two distributions over K outcomes, the best response is $D = m$ where $p_\\text{data} < p_G$ and 0 "
        "elsewhere. Write the "
        "discriminator's loss there, $\\sum_k p_\\text{data} D + p_G [m - D]^+$. Then look: it is $m\\,(1 - "
        "\\mathrm{TV}(p_\\text{data}, p_G))$, "
        "and $m$ where both agree.",
        value,
        _distributions,
        (
            Mistake(
                "total variation without half",
                lambda p_data, p_g, m: float(m * (1 - (p_data - p_g).abs().sum())),
                "The total variation is *half* the sum of absolute differences.",
            ),
            Mistake(
                "high everywhere",
                lambda p_data, p_g, m: float((p_data * m + p_g * F.relu(m - m * torch.ones_like(p_g))).sum()),
                "Here D = m everywhere, also where the data are. Then it tells nothing apart. Compare p_data with p_g.",
            ),
            Mistake(
                "response reversed",
                lambda p_data, p_g, m: float((p_data * m * (p_data > p_g) + p_g * m * (p_data <= p_g)).sum()),
                "The response is reversed: high energy belongs where the generator puts more than the data. "
                "The loss must *fall* when the distributions differ, for then they can be told apart.",
            ),
            Mistake(
                "only the data",
                lambda p_data, p_g, m: float((p_data * m * (p_data < p_g)).sum()),
                "The term of the generated samples is missing.",
            ),
            Mistake(
                "total variation itself",
                lambda p_data, p_g, m: float(m * 0.5 * (p_data - p_g).abs().sum()),
                "This is m times the total variation. Where both agree the loss is m, not 0.",
            ),
        ),
        "First D (K,), then the two expectations as sums over k.",
    ),
)
