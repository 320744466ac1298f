"""Exercises of chapter 9, *Diffusion replay*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice

TITLE = "Diffusion replay"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


def noised(x: Tensor, eps: Tensor, beta: Tensor, t: int) -> Tensor:
    """x_t (B, P) of images x (B, P) with noise eps (B, P), at level t = 1..T; beta (T,) holds β_1, ..., β_T."""
    ### BEGIN SOLUTION
    left = (1 - beta[:t]).prod()
    return left.sqrt() * x + (1 - left).sqrt() * eps
    ### END SOLUTION


def ddim_step(x: Tensor, eps: Tensor, now: float, then: float) -> Tensor:
    """x_t' (B, P) after one step of DDIM from x (B, P) at a level with ᾱ_t = now to one with ᾱ_t' = then; eps is ε_θ."""
    ### BEGIN SOLUTION
    clean = (x - (1 - now) ** 0.5 * eps) / now**0.5
    return then**0.5 * clean + (1 - then) ** 0.5 * eps
    ### END SOLUTION


def variances(alpha_bar: Tensor) -> Tensor:
    """(T,) variance σ_t² of the noise that ancestral sampling adds in the step t -> t - 1, for t = 1..T.

    alpha_bar (T + 1,) holds ᾱ_0 = 1, ᾱ_1, ..., ᾱ_T.
    """
    ### BEGIN SOLUTION
    now, then = alpha_bar[1:], alpha_bar[:-1]
    return (1 - then) / (1 - now) * (1 - now / then)
    ### END SOLUTION


def distil(student: nn.Module, teacher: nn.Module, dream: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """() generative distillation on dreams (B, P), noised with eps (B, P) to a level with this ᾱ: a mean over all numbers.

    Both modules guess the noise, (B, P) -> (B, P). Only the student may learn.
    """
    ### BEGIN SOLUTION
    x_t = alpha_bar**0.5 * dream + (1 - alpha_bar) ** 0.5 * eps
    with torch.no_grad():
        target = teacher(x_t)
    return (target - student(x_t)).square().mean()
    ### END SOLUTION


def steer(
    x: Tensor,
    epsilon: Callable[[Tensor], Tensor],
    log_p: Callable[[Tensor], Tensor],
    s: float,
    alpha_bar: float,
) -> Tensor:
    """(B, P) the guess of the noise in x (B, P), steered: ε_θ - s √(1 - ᾱ) ∇_x log p(y|x̂_0), x̂_0 the guess of the image.

    epsilon: (B, P) -> (B, P) guesses the noise; log_p: (B, P) -> (B,) is log p(y|·).
    """
    ### BEGIN SOLUTION
    x = x.detach().requires_grad_()
    eps = epsilon(x)
    clean = (x - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    (gradient,) = torch.autograd.grad(log_p(clean).sum(), x)
    return eps - s * (1 - alpha_bar) ** 0.5 * gradient
    ### END SOLUTION


def bent(x: Tensor) -> Tensor:
    """A guess of the noise for the cases."""
    return torch.tanh(x).roll(1, 1) + 0.3 * x


def preference(x: Tensor) -> Tensor:
    """log p(y|x) for the cases: of the first of as many classes as there are numbers."""
    return x.log_softmax(1)[:, 0]


def slope(x: Tensor) -> Tensor:
    """Another log p(y|x) for the cases, up to a constant."""
    return -(x - 2).square().sum(1)


def _schedules(rng: torch.Generator) -> Cases:
    x, eps = torch.rand(3, 4, generator=rng), torch.randn(3, 4, generator=rng)
    beta = torch.tensor([0.1, 0.2, 0.5, 0.9])
    return {
        "the first level": (x, eps, beta, 1),
        "the third level": (x, eps, beta, 3),
        "the last level": (x, eps, beta, 4),
        "no noise at all": (x, eps, torch.zeros(5), 5),
    }


def _steps(rng: torch.Generator) -> Cases:
    x, eps = torch.randn(3, 4, generator=rng), torch.randn(3, 4, generator=rng)
    return {
        "one number": (torch.tensor([[1.0]]), torch.tensor([[0.5]]), 0.36, 0.64),
        "a small step": (x, eps, 0.5, 0.55),
        "a large step": (x, eps, 0.1, 0.9),
        "the last step": (x, eps, 0.7, 1.0),
    }


def _levels(rng: torch.Generator) -> Cases:
    beta = 0.02 + 0.5 * torch.rand(6, generator=rng)
    return {
        "three levels": (torch.tensor([1.0, 0.8, 0.5, 0.1]),),
        "one level": (torch.tensor([1.0, 0.3]),),
        "six levels": (torch.cat([torch.ones(1), (1 - beta).cumprod(0)]),),
    }


def _models(rng: torch.Generator) -> Cases:
    def linear() -> nn.Linear:
        layer = nn.utils.skip_init(nn.Linear, 4, 4)
        with torch.no_grad():
            for p in layer.parameters():
                p.copy_(torch.randn(p.shape, generator=rng))
        return layer

    student, teacher = linear(), linear()
    dream, eps = torch.rand(5, 4, generator=rng), torch.randn(5, 4, generator=rng)
    return {
        "little noise": (student, teacher, dream, eps, 0.9),
        "much noise": (student, teacher, dream, eps, 0.2),
        "the student is the teacher": (teacher, teacher, dream, eps, 0.5),
        "as at a task's first step": (student, linear(), dream, torch.randn(5, 4, generator=rng), 0.64),
    }


def _who_learns(answer: Callable[..., Any], *args: Any) -> Any:
    """Looks at the value, and at the gradients of student and teacher."""
    student, teacher = args[:2]
    value = answer(*args)
    if not isinstance(value, Tensor) or value.ndim:
        return value
    if value.requires_grad:
        value.backward()
    gradients = [
        torch.zeros_like(p) if p.grad is None else p.grad for module in (student, teacher) for p in module.parameters()
    ]
    return (value, *gradients)


def _fields(rng: torch.Generator) -> Cases:
    x = torch.randn(3, 4, generator=rng)
    return {
        "towards the first class": (x, bent, preference, 1.5, 0.4),
        "towards brightness, little noise": (x, bent, slope, 0.3, 0.9),
        "strength 0": (x, bent, slope, 0.0, 0.5),
    }


def _guided(
    x: Tensor, epsilon: Callable[[Tensor], Tensor], log_p: Callable[[Tensor], Tensor], a: float, through: bool
) -> tuple[Tensor, Tensor]:
    """ε_θ and ∇_x log p(y|x̂_0), with or without the gradient through ε_θ."""
    x = x.detach().requires_grad_()
    eps = epsilon(x)
    clean = (x - (1 - a) ** 0.5 * (eps if through else eps.detach())) / a**0.5
    return eps.detach(), torch.autograd.grad(log_p(clean).sum(), x)[0]


EXERCISES = (
    choice(
        "09.predict",
        "Predict, then run: one step",
        "A diffusion model guesses the noise perfectly: its $\\varepsilon_\\theta(x_t, t)$ is the mean of all noises that "
        "could have led to $x_t$. Now DDIM jumps from pure noise to level 0 in a *single* step. What do you get? Guess, "
        "check, then look at the pictures with 1000, 50, 10 and 4 steps again.",
        {
            "a": (
                "A picture as good as after 1000 steps: the guess is perfect.",
                "The guess is perfect as a *mean*. How much does pure noise tell about the picture it came from?",
            ),
            "b": ("Nearly the same picture for every noise: the mean of all pictures of the class.", ""),
            "c": (
                "Noise: one step cannot take away what a thousand steps added.",
                "It takes away all that it takes for noise. What is the best guess of a picture of which you see nothing?",
            ),
            "d": (
                "One of the training images, a different one for each noise.",
                "The guess is a mean over all images that could be meant, and from pure noise all are possible.",
            ),
            "e": (
                "A sharp picture of a random class, whatever class was asked for.",
                "The class is an input of the network at every level, also at the last.",
            ),
        },
        predict,
        "At level T the input says nothing, so the best guess of the image is the mean of the class. Few steps are means of "
        "means: smooth, and too alike. As *data* such dreams are poison, and that is what standard replay takes them for.",
        "What is the mean of all images that could have been drowned in this much noise?",
    ),
    Exercise(
        "09.noised",
        "Bug hunt: how much is left",
        1,
        "Some code noises an image with $\\alpha_t = 1 - \\beta_t$ where $\\bar\\alpha_t$ is meant: it hardly ever sees "
        "much noise, and samples from it stay noise. Write $x_t = \\sqrt{\\bar\\alpha_t}\\, x + "
        "\\sqrt{1 - \\bar\\alpha_t}\\, \\varepsilon$ with $\\bar\\alpha_t = \\prod_{s \\le t} (1 - \\beta_s)$. Levels are "
        "counted from 1, tensors from 0.",
        noised,
        _schedules,
        (
            Mistake(
                "α for ᾱ",
                lambda x, eps, beta, t: (1 - beta[t - 1]).sqrt() * x + beta[t - 1].sqrt() * eps,
                "This is one step of noise, α_t. What is left after t steps is the product of all α up to t.",
            ),
            Mistake(
                "a level short",
                lambda x, eps, beta, t: (
                    (1 - beta[: t - 1]).prod().sqrt() * x + (1 - (1 - beta[: t - 1]).prod()).sqrt() * eps
                ),
                "A level is missing: β_t belongs to it, and it stands at position t - 1. The slice is beta[:t].",
            ),
            Mistake(
                "no roots",
                lambda x, eps, beta, t: (1 - beta[:t]).prod() * x + (1 - (1 - beta[:t]).prod()) * eps,
                "The roots are missing: ᾱ and 1 - ᾱ are shares of the *variance*.",
            ),
            Mistake(
                "a sum",
                lambda x, eps, beta, t: (1 - beta[:t].sum()).sqrt() * x + beta[:t].sum().sqrt() * eps,
                "The shares multiply: each step takes its part of what was left. A sum of β may exceed 1.",
            ),
            Mistake(
                "product of β",
                lambda x, eps, beta, t: (1 - beta[:t].prod()).sqrt() * x + beta[:t].prod().sqrt() * eps,
                "The product runs over α = 1 - β, not over β.",
            ),
            Mistake(
                "swapped",
                lambda x, eps, beta, t: (1 - (1 - beta[:t]).prod()).sqrt() * x + (1 - beta[:t]).prod().sqrt() * eps,
                "Image and noise have each other's share: at the first level nearly all should be image.",
            ),
        ),
        "First ᾱ_t as a product over a slice, then two roots.",
    ),
    Exercise(
        "09.ddim_step",
        "Bug hunt: ε for x̂₀",
        2,
        "Code that mixes up the two guesses still draws *something*. Write a step of DDIM: first the guess of the image, "
        "$\\hat x_0 = (x_t - \\sqrt{1 - \\bar\\alpha_t}\\, \\varepsilon_\\theta) / \\sqrt{\\bar\\alpha_t}$, then "
        "$x_{t'} = \\sqrt{\\bar\\alpha_{t'}}\\, \\hat x_0 + \\sqrt{1 - \\bar\\alpha_{t'}}\\, \\varepsilon_\\theta$.",
        ddim_step,
        _steps,
        (
            Mistake(
                "ε for x̂₀",
                lambda x, eps, now, then: then**0.5 * eps + (1 - then) ** 0.5 * eps,
                "The guess of the noise stands where the guess of the image belongs.",
            ),
            Mistake(
                "x̂_0 for ε",
                lambda x, eps, now, then: (then**0.5 + (1 - then) ** 0.5) * (x - (1 - now) ** 0.5 * eps) / now**0.5,
                "The guess of the image stands in both terms; the second is what is left of the noise.",
            ),
            Mistake(
                "x_t for x̂_0",
                lambda x, eps, now, then: then**0.5 * x + (1 - then) ** 0.5 * eps,
                "x_t itself stands where x̂_0 belongs: the noise in it is never taken away.",
            ),
            Mistake(
                "not divided",
                lambda x, eps, now, then: then**0.5 * (x - (1 - now) ** 0.5 * eps) + (1 - then) ** 0.5 * eps,
                "What is left after the noise is taken away is √ᾱ_t x̂_0: divide by √ᾱ_t.",
            ),
            Mistake(
                "levels exchanged",
                lambda x, eps, now, then: ddim_step(x, eps, then, now),
                "The two levels are exchanged: x is at the level `now`.",
            ),
            Mistake(
                "the old noise",
                lambda x, eps, now, then: then**0.5 * (x - (1 - now) ** 0.5 * eps) / now**0.5 + (1 - now) ** 0.5 * eps,
                "The noise that is put back is that of the level x comes from: then it is never less.",
            ),
            Mistake(
                "no roots",
                lambda x, eps, now, then: then * (x - (1 - now) * eps) / now + (1 - then) * eps,
                "The roots are missing.",
            ),
        ),
        "x̂_0 needs only the level `now`, mixing only the level `then`.",
    ),
    Exercise(
        "09.variances",
        "Bug hunt: the last step",
        2,
        "Ancestral sampling adds noise in every step but the last. Code that adds $\\beta_t$ in each leaves a grain on "
        "every picture. Write the variance of $q(x_{t-1} \\mid x_t, x_0)$, $\\sigma_t^2 = \\frac{1 - "
        "\\bar\\alpha_{t-1}}{1 - \\bar\\alpha_t} \\big(1 - \\frac{\\bar\\alpha_t}{\\bar\\alpha_{t-1}}\\big)$, for "
        "all t at once. What is it at t = 1?",
        variances,
        _levels,
        (
            Mistake(
                "β in every step",
                lambda alpha_bar: 1 - alpha_bar[1:] / alpha_bar[:-1],
                "This is β_t. At t = 1 it is not 0, so the finished picture gets noise once more.",
            ),
            Mistake(
                "standard deviation",
                lambda alpha_bar: variances(alpha_bar).sqrt(),
                "This is the standard deviation; the variance was asked for.",
            ),
            Mistake(
                "upside down",
                lambda alpha_bar: (1 - alpha_bar[1:]) / (1 - alpha_bar[:-1]) * (1 - alpha_bar[1:] / alpha_bar[:-1]),
                "The first fraction is upside down: it divides by 1 - ᾱ_0 = 0.",
            ),
            Mistake(
                "all noise of the lower level",
                lambda alpha_bar: 1 - alpha_bar[:-1],
                "This is all the noise that level t - 1 has. Some of it is known already: it is in x_t.",
            ),
            Mistake(
                "one level on",
                lambda alpha_bar: torch.cat([variances(alpha_bar)[1:], variances(alpha_bar)[-1:]]),
                "The values stand one place too early: the first of them is that of the *last* step, t = 1.",
            ),
        ),
        "Two slices: ᾱ_t for t = 1..T, and ᾱ_{t-1} for the same t.",
    ),
    Exercise(
        "09.distil",
        "Bug hunt: a teacher that learns along",
        2,
        "Generative distillation noises a dream and asks the *old* model about it: "
        "$\\| \\varepsilon_{\\text{old}}(\\tilde x_t) - \\varepsilon_\\theta(\\tilde x_t) \\|^2$. If the gradient also "
        "reaches the teacher, the two meet half-way, and the past is gone. Write the loss for one level; the gradients of "
        "both models are checked.",
        distil,
        _models,
        (
            Mistake(
                "the teacher learns along",
                lambda student, teacher, dream, eps, alpha_bar: (
                    (teacher(x_t := alpha_bar**0.5 * dream + (1 - alpha_bar) ** 0.5 * eps) - student(x_t))
                    .square()
                    .mean()
                ),
                "The value is right, but the teacher gets a gradient: it would learn along and forget what it should pass "
                "on. Ask it under torch.no_grad().",
            ),
            Mistake(
                "standard replay",
                lambda student, teacher, dream, eps, alpha_bar: (
                    (eps - student(alpha_bar**0.5 * dream + (1 - alpha_bar) ** 0.5 * eps)).square().mean()
                ),
                "The target is the noise itself: that is standard replay, which takes dreams for real.",
            ),
            Mistake(
                "asked about the clean dream",
                lambda student, teacher, dream, eps, alpha_bar: (
                    (teacher(dream).detach() - student(dream)).square().mean()
                ),
                "Both are asked about the clean dream. What is to be handed on is what the old model does at *every* level.",
            ),
            Mistake(
                "the student is detached",
                lambda student, teacher, dream, eps, alpha_bar: (
                    (teacher(x_t := alpha_bar**0.5 * dream + (1 - alpha_bar) ** 0.5 * eps) - student(x_t).detach())
                    .square()
                    .mean()
                ),
                "The wrong one is detached: here the teacher learns from the student.",
            ),
            Mistake(
                "a sum",
                lambda student, teacher, dream, eps, alpha_bar: (
                    dream.numel() * distil(student, teacher, dream, eps, alpha_bar)
                ),
                "This is the sum over all numbers; the mean was asked for.",
            ),
            Mistake(
                "different inputs",
                lambda student, teacher, dream, eps, alpha_bar: (
                    (teacher(dream).detach() - student(alpha_bar**0.5 * dream + (1 - alpha_bar) ** 0.5 * eps))
                    .square()
                    .mean()
                ),
                "Teacher and student are asked about different pictures: the teacher too must see the noisy dream.",
            ),
        ),
        "Noise the dream once; the same x_t goes to both, to the teacher without a gradient.",
        observe=_who_learns,
    ),
    Exercise(
        "09.steer",
        "Steer a dream",
        3,
        "Guidance changes the guess of the noise so that the picture moves to where a classifier says y: "
        "$\\hat\\varepsilon = \\varepsilon_\\theta - s \\sqrt{1 - \\bar\\alpha_t}\\, \\nabla_{x_t} \\log p(y \\mid "
        "\\hat x_0)$. The gradient is by "
        "$x_t$, and $\\hat x_0$ depends on it in two ways.",
        steer,
        _fields,
        (
            Mistake(
                "away from it",
                lambda x, epsilon, log_p, s, alpha_bar: (
                    (e := _guided(x, epsilon, log_p, alpha_bar, True))[0] + s * (1 - alpha_bar) ** 0.5 * e[1]
                ),
                "The sign: less of this noise is to be taken for noise, so that more of the direction stays. As it is, the "
                "picture moves away from y.",
            ),
            Mistake(
                "the model is skipped",
                lambda x, epsilon, log_p, s, alpha_bar: (
                    (e := _guided(x, epsilon, log_p, alpha_bar, False))[0] - s * (1 - alpha_bar) ** 0.5 * e[1]
                ),
                "The gradient does not go through ε_θ: x̂_0 depends on x_t directly *and* through the guess of the noise.",
            ),
            Mistake(
                "no factor",
                lambda x, epsilon, log_p, s, alpha_bar: (
                    (e := _guided(x, epsilon, log_p, alpha_bar, True))[0] - s * e[1]
                ),
                "The factor √(1 - ᾱ_t) is missing: a noise is the score times it.",
            ),
            Mistake(
                "the wrong factor",
                lambda x, epsilon, log_p, s, alpha_bar: (
                    (e := _guided(x, epsilon, log_p, alpha_bar, True))[0] - s * alpha_bar**0.5 * e[1]
                ),
                "√ᾱ_t is the share of the image; the noise has √(1 - ᾱ_t).",
            ),
            Mistake(
                "x_t is judged",
                lambda x, epsilon, log_p, s, alpha_bar: (
                    epsilon(x)
                    - s
                    * (1 - alpha_bar) ** 0.5
                    * torch.autograd.grad(log_p(y := x.detach().requires_grad_()).sum(), y)[0]
                ),
                "The classifier is asked about x_t. It knows clean pictures only: ask it about x̂_0.",
            ),
        ),
        "Make x require a gradient, guess the noise, then the image, and ask autograd for the gradient of the sum of log p.",
    ),
)
