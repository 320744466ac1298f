"""Exercises of chapter 3, *Multiband VAE*."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Multiband VAE"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


def task_code(task: int) -> Tensor:
    """(4,) the translator's code of a task: the lowest four bits of (9 task mod 16) + 1, the lowest first, as ±1.

    Tasks are counted from 0.
    """
    ### BEGIN SOLUTION
    number = (9 * task) % 16 + 1
    bits = torch.tensor([(number >> place) & 1 for place in range(4)])
    return 2.0 * bits - 1
    ### END SOLUTION


def place(z_new: Tensor, task: int, n_tasks: int) -> Tensor:
    """(B, n_tasks * k) latents for the decoder: z_new (B, k) in the band of `task`, the other bands at the prior's mean.

    The prior is N(0, I). Task 0 owns the first k numbers, task 1 the next k, and so on.
    """
    ### BEGIN SOLUTION
    k = z_new.shape[1]
    z = z_new.new_zeros(len(z_new), n_tasks * k)
    z[:, task * k : (task + 1) * k] = z_new
    return z
    ### END SOLUTION


def targets(replayed_z: Tensor, current_z: Tensor, replayed: Tensor, current: Tensor, gamma: float) -> Tensor:
    """(R, P) what the decoder shall draw for replayed samples under controlled forgetting.

    replayed_z (R, d), current_z (C, d): translated latents. replayed (R, P), current (C, P): the images. Where the cosine
    similarity to the closest current latent exceeds gamma, the target is that real image, else the replayed one.
    """
    ### BEGIN SOLUTION
    similarity = F.normalize(replayed_z, dim=1) @ F.normalize(current_z, dim=1).T
    best, closest = similarity.max(1)
    return torch.where(best[:, None] > gamma, current[closest], replayed)
    ### END SOLUTION


def frechet(real: Tensor, generated: Tensor) -> Tensor:
    """() Fréchet distance of two sets of features (N, d) and (M, d), as if the features were independent of each other.

    Each set is summed up by the mean μ and the variance σ² of every feature (`var` with its default divisor N - 1).
    """
    ### BEGIN SOLUTION
    mean_gap = real.mean(0) - generated.mean(0)
    spread_gap = real.std(0) - generated.std(0)
    return (mean_gap.square() + spread_gap.square()).sum()
    ### END SOLUTION


def _tasks(rng: torch.Generator) -> Cases:
    return {f"task {task}": (task,) for task in (0, 1, 2, 5, 7)}


def _bands(rng: torch.Generator) -> Cases:
    return {
        "band 1 of 2, one number each": (torch.tensor([[5.0]]), 1, 2),
        "band 0 of 3": (torch.randn(2, 2, generator=rng), 0, 3),
        "band 1 of 2, ten numbers each": (torch.randn(4, 10, generator=rng), 1, 2),
        "band 2 of 4": (torch.randn(3, 2, generator=rng), 2, 4),
    }


def _clouds(rng: torch.Generator) -> Cases:
    def case(n: int, m: int, d: int, shift: float, spread: float) -> tuple[Tensor, Tensor]:
        return torch.randn(n, d, generator=rng), shift + spread * torch.randn(m, d, generator=rng)

    points = torch.tensor([[0.0], [2.0]])
    return {
        "the same points": (points, points.clone()),
        "the same points, moved by 3": (points, points + 3),
        "same mean, wider": (points, torch.tensor([[-3.0], [5.0]])),
        "9 real, 7 generated, 4 features": case(9, 7, 4, 0.5, 2.0),
    }


def _pairs(rng: torch.Generator) -> Cases:
    def case(r: int, c: int, d: int, gamma: float) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
        z = torch.randn(c, d, generator=rng)
        mixed = z[torch.arange(r) % c] + torch.linspace(0.1, 2, r)[:, None] * torch.randn(r, d, generator=rng)
        lengths = torch.linspace(0.2, 5, c)[:, None]
        return mixed, z * lengths, torch.rand(r, 3, generator=rng), torch.rand(c, 3, generator=rng), gamma

    one = torch.tensor([[0.0, 1.0]])
    return {
        "same direction, other length": (one, 9 * one, torch.zeros(1, 2), torch.ones(1, 2), 0.95),
        "nothing alike": (one, one.flip(1), torch.zeros(1, 2), torch.ones(1, 2), 0.95),
        "the same latent, which does not exceed 1": (one, one.clone(), torch.zeros(1, 2), torch.ones(1, 2), 1.0),
        "8 replayed, 5 current": case(8, 5, 4, 0.9),
        "12 replayed, 6 current": case(12, 6, 3, 0.8),
    }


EXERCISES = (
    choice(
        "03.predict",
        "Predict, then run: forget everything",
        "Controlled forgetting replaces the target of a replayed sample where its similarity to a real image of the "
        "current task exceeds $\\gamma$. What does Multiband VAE become with $\\gamma = -1$? Guess, check, then "
        "move the slider of the explorer to the right, where γ is low.",
        {
            "a": (
                "The same as with γ = 1: the cosine of a latent with itself is 1.",
                "With γ = 1 no similarity exceeds γ, and nothing is replaced. Which similarities exceed −1?",
            ),
            "b": (
                "The hard partition: the bands no longer touch.",
                "The translator still brings all bands into one space. What is drawn at the place of an old band?",
            ),
            "c": ("It forgets: whatever an old band says, the decoder learns to draw the current task.", ""),
            "d": (
                "Joint training: real images are better than replayed ones.",
                "They are real, but of which task? Joint training would still see the old ones.",
            ),
            "e": (
                "It stops learning: the targets are always what the decoder draws already.",
                "The replayed sample is the target where nothing was similar enough. Is there still such a case?",
            ),
        },
        predict,
        "A cosine is never below −1, so every old target is replaced by an image of the current task.",
        "Between which two numbers does a cosine lie, and what is the target of a sample that is replaced?",
    ),
    Exercise(
        "03.task_code",
        "A code for every task",
        1,
        "The translator is told the task as four numbers, each −1 or +1: the lowest four bits of $(9t \\bmod 16) + "
        "1$, "
        "the lowest bit first. Tasks are counted from 0 here.",
        task_code,
        _tasks,
        (
            Mistake(
                "zeros and ones",
                lambda task: (task_code(task) + 1) / 2,
                "The bits are 0 and 1 here. As ±1 both values speak: 2 · bit − 1.",
            ),
            Mistake(
                "highest bit first",
                lambda task: task_code(task).flip(0),
                "The order is reversed: the lowest bit first.",
            ),
            Mistake(
                "bits of the task",
                lambda task: torch.tensor([2.0 * ((task >> p) & 1) - 1 for p in range(4)]),
                "These are the bits of t itself. The factor 9 sets neighbouring tasks further apart.",
            ),
            Mistake(
                "one forgotten",
                lambda task: torch.tensor([2.0 * (((9 * task) % 16 >> p) & 1) - 1 for p in range(4)]),
                "The 1 is added after the modulo.",
            ),
            Mistake(
                "one hot",
                lambda task: F.one_hot(torch.tensor(task % 4), 4).float() * 2 - 1,
                "One number per task: write it in binary.",
            ),
        ),
        "Compute the number first. Bit p of a number n is `(n >> p) & 1`.",
    ),
    Exercise(
        "03.place",
        "Bug hunt: a band of one's own",
        2,
        "Notes on latent partitioning put the data of a new task into `z[:, :10]` and decode that. Two things are "
        "wrong: the first ten "
        "numbers are the *old* band, and the decoder wants all bands. Write it right: hold the other bands at the "
        "prior's mean, so that the decoder can tell whose band speaks.",
        place,
        _bands,
        (
            Mistake(
                "the old band",
                lambda z_new, task, n_tasks: place(z_new, 0, n_tasks),
                "The new numbers lie in the first band, whatever the task: this overwrites what another task owns. "
                "Band t begins at t · k.",
            ),
            Mistake(
                "only the band",
                lambda z_new, task, n_tasks: z_new,
                "Only the task's own numbers come back. The decoder was trained on all bands together.",
            ),
            Mistake(
                "ones elsewhere",
                lambda z_new, task, n_tasks: place(z_new - 1, task, n_tasks) + 1,
                "The other bands are 1. That is the prior's standard deviation; its mean is 0.",
            ),
            Mistake(
                "interleaved",
                lambda z_new, task, n_tasks: (z_new[:, :, None] * F.one_hot(torch.tensor(task), n_tasks)).flatten(1),
                "The bands are interleaved like the teeth of a comb. A band is one stretch of k neighbouring numbers.",
            ),
            Mistake(
                "cut off",
                lambda z_new, task, n_tasks: place(z_new.detach(), task, n_tasks),
                "The numbers are right, but cut off from their gradient: the encoder that made them could not learn.",
            ),
            Mistake(
                "appended",
                lambda z_new, task, n_tasks: place(z_new, n_tasks - 1, n_tasks),
                "The new numbers are always at the end. The bands have fixed places.",
            ),
        ),
        "Begin with zeros, then write `z_new` into the columns from `task * k` to `(task + 1) * k`.",
        observe=gradients_by(place, "z_new"),
    ),
    Exercise(
        "03.targets",
        "Controlled forgetting",
        3,
        "In the global phase a replayed image may be replaced by a real one that means the same: where the **cosine "
        "similarity** of "
        "its translated latent with the closest current latent exceeds $\\gamma$. Write the targets of the "
        "reconstruction.",
        targets,
        _pairs,
        (
            Mistake(
                "not normalised",
                lambda replayed_z, current_z, replayed, current, gamma: torch.where(
                    (replayed_z @ current_z.T).max(1).values[:, None] > gamma,
                    current[(replayed_z @ current_z.T).argmax(1)],
                    replayed,
                ),
                "This is the dot product: long vectors win. The cosine divides by both lengths (F.normalize).",
            ),
            Mistake(
                "wrong side of gamma",
                lambda replayed_z, current_z, replayed, current, gamma: torch.where(
                    F.cosine_similarity(replayed_z[:, None], current_z[None], dim=2).max(1).values[:, None] < gamma,
                    current[F.cosine_similarity(replayed_z[:, None], current_z[None], dim=2).argmax(1)],
                    replayed,
                ),
                "Replaced are those that are *un*like the current data: similarity is large for what is close.",
            ),
            Mistake(
                "always",
                lambda replayed_z, current_z, replayed, current, gamma: targets(
                    replayed_z, current_z, replayed, current, -2.0
                ),
                "Every replayed image is replaced, so nothing old is left. Only where the similarity exceeds gamma.",
            ),
            Mistake(
                "never",
                lambda replayed_z, current_z, replayed, current, gamma: replayed,
                "Nothing is replaced: that is γ = 1, controlled forgetting switched off.",
            ),
            Mistake(
                "farthest",
                lambda replayed_z, current_z, replayed, current, gamma: torch.where(
                    F.cosine_similarity(replayed_z[:, None], current_z[None], dim=2).max(1).values[:, None] > gamma,
                    current[F.cosine_similarity(replayed_z[:, None], current_z[None], dim=2).argmin(1)],
                    replayed,
                ),
                "The replacement is the current image that is *least* alike: argmax instead of argmin.",
            ),
        ),
        "Normalise both, one matrix product gives all similarities (R, C); take maximum and argmaximum over C.",
    ),
    Exercise(
        "03.frechet",
        "One number for a generator",
        2,
        "FID compares two Gaussians: $\\|\\mu_r - \\mu_g\\|^2 + \\mathrm{tr}(\\Sigma_r + \\Sigma_g - 2 (\\Sigma_r "
        "\\Sigma_g)^{1/2})$. Write it for diagonal covariances, where the trace is a sum over the features: what is "
        "$\\sigma_r^2 + \\sigma_g^2 - 2 \\sigma_r \\sigma_g$?",
        frechet,
        _clouds,
        (
            Mistake(
                "distance not squared",
                lambda real, generated: (
                    (real.mean(0) - generated.mean(0)).norm() + (real.std(0) - generated.std(0)).square().sum()
                ),
                "The distance of the means enters as its square.",
            ),
            Mistake(
                "variances compared",
                lambda real, generated: (
                    (real.mean(0) - generated.mean(0)).square() + (real.var(0) - generated.var(0)).square()
                ).sum(),
                "This compares variances, which have the unit of a square already. Compare standard deviations.",
            ),
            Mistake(
                "no root",
                lambda real, generated: (
                    (real.mean(0) - generated.mean(0)).square()
                    + real.var(0)
                    + generated.var(0)
                    - 2 * real.var(0) * generated.var(0)
                ).sum(),
                "The root is missing in the last term: (σ_r² σ_g²)^½ = σ_r σ_g.",
            ),
            Mistake(
                "means only",
                lambda real, generated: (real.mean(0) - generated.mean(0)).square().sum(),
                "Only the means are compared: a generator that always draws the mean image would be perfect.",
            ),
            Mistake(
                "mean over features",
                lambda real, generated: frechet(real, generated) / real.shape[1],
                "A mean over the features: norm and trace are sums.",
            ),
            Mistake(
                "divisor N",
                lambda real, generated: (
                    (real.mean(0) - generated.mean(0)).square()
                    + (real.std(0, correction=0) - generated.std(0, correction=0)).square()
                ).sum(),
                "The variances have the divisor N here; the default of `var` and `std` is N − 1.",
            ),
        ),
        "For every feature: (difference of the means)² + (difference of the standard deviations)². Then sum.",
        why="With full covariances it is the same idea, but the root of a matrix product takes the place of "
        "$\\sigma_r \\sigma_g$.",
    ),
)
