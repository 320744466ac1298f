"""Exercises of chapter 6, *Hypernetworks*."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Hypernetworks"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


def regulariser(
    theta: Tensor,
    theta_old: Tensor,
    embeddings: Tensor,
    T: int,
    beta: float,
    hypernet: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """() β/(T-1) Σ_{t<T} ‖f(e_t, Θ*) - f(e_t, Θ)‖², how far the past tasks' weights have drifted while task T is learned.

    hypernet(e, theta) gives the weights for an embedding e (d,). embeddings (n_tasks, d), the past tasks' are the first
    T - 1 rows (T ≥ 2). theta_old: the hypernetwork's own weights before task T.
    """
    ### BEGIN SOLUTION
    drift = [hypernet(e, theta_old.detach()) - hypernet(e, theta) for e in embeddings[: T - 1]]
    return beta * torch.stack([d.square().sum() for d in drift]).mean()
    ### END SOLUTION


def choose_task(logits: Tensor) -> Tensor:
    """(B,) for each sample the task whose prediction is the most certain: lowest entropy; logits (n_tasks, B, C)."""
    ### BEGIN SOLUTION
    log_p = F.log_softmax(logits, 2)
    entropy = -(log_p.exp() * log_p).sum(2)  # (n_tasks, B)
    return entropy.argmin(0)
    ### END SOLUTION


def unflatten(flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """Cut the hypernetwork's output (P,) into the target network's weights, one tensor per shape, in their order."""
    ### BEGIN SOLUTION
    sizes = [math.prod(shape) for shape in shapes]
    return [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
    ### END SOLUTION


def compression(
    hypernet: int, target: int, n_tasks: int, task_embedding: int, chunks: int, chunk_embedding: int
) -> float:
    """Everything a chunked hypernetwork learns, as a multiple of the target network's weights (below 1: compressed).

    hypernet, target: their numbers of weights. One task embedding per task; chunk embeddings are shared by all tasks.
    """
    ### BEGIN SOLUTION
    return (hypernet + n_tasks * task_embedding + chunks * chunk_embedding) / target
    ### END SOLUTION


def tiny(e: Tensor, theta: Tensor) -> Tensor:
    """A hypernetwork of one layer for the cases: weights (6,) from an embedding (2,), theta (12,)."""
    return torch.tanh(theta.view(6, 2) @ e)


def _drifts(rng: torch.Generator) -> Cases:
    def case(T: int, n_tasks: int, beta: float) -> tuple[Tensor, Tensor, Tensor, int, float, Callable[..., Tensor]]:
        theta = torch.randn(12, generator=rng)
        moved = theta + 0.3 * torch.randn(12, generator=rng)
        return moved, theta, torch.randn(n_tasks, 2, generator=rng), T, beta, tiny

    theta, before, *rest = case(3, 4, 0.1)
    return {
        "task 2 of 5": case(2, 5, 1.0),
        "task 4 of 5": case(4, 5, 0.5),
        "task 3 of 3": case(3, 3, 0.01),
        "old weights that could learn": (theta, before.requires_grad_(True), *rest),
    }


def _loss_and_gradients(answer: Callable[..., Any], theta: Tensor, theta_old: Tensor, *rest: Any) -> Any:
    """The loss and its gradient by the weights; where the old weights could learn, also by these."""
    learned = ("theta", "theta_old") if theta_old.requires_grad else ("theta",)
    return gradients_by(regulariser, *learned)(answer, theta, theta_old, *rest)


def _predictions(rng: torch.Generator) -> Cases:
    sure, unsure = [4.0, 0.0, 0.0], [9.0, 9.0, 9.0]
    return {
        "sure against unsure": (torch.tensor([[unsure, sure], [sure, unsure]]),),
        "5 tasks, 8 samples, 4 classes": (3 * torch.randn(5, 8, 4, generator=rng),),
        "very sure": (torch.tensor([[[500.0, 0.0]], [[1.0, 0.0]]]),),
        "10 tasks, 20 samples, 10 classes": (2 * torch.randn(10, 20, 10, generator=rng),),
    }


def _shapes(rng: torch.Generator) -> Cases:
    return {
        "a 2 x 3 matrix and its bias": (torch.arange(8.0), [(2, 3), (2,)]),
        "two layers": (torch.randn(4 * 3 + 4 + 2 * 4 + 2, generator=rng), [(4, 3), (4,), (2, 4), (2,)]),
        "one square layer": (torch.randn(9, generator=rng), [(3, 3)]),
    }


def _sizes(rng: torch.Generator) -> Cases:
    return {
        "split MNIST, 12 chunks": (430_000, 478_410, 5, 96, 12, 96),
        "a hundred tasks": (20_000, 100_000, 100, 128, 50, 12),
        "no chunks": (50_000, 10_000, 10, 8, 0, 0),
    }


def _squared(*parts: Tensor) -> Tensor:
    return torch.stack([part.square().sum() for part in parts])


def _entropy(logits: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, 2)
    return -(log_p.exp() * log_p).sum(2)


EXERCISES = (
    choice(
        "06.predict",
        "Predict, then run: frozen embeddings",
        "The embedding of a past task is frozen: the hypernetwork is asked for its weights with exactly the same "
        "input as before. Now train a new task without the regulariser, $\\beta = 0$. What becomes of the old "
        "task's accuracy? Guess, check, then train with `beta=0`, and look at the forgetting: on a stream as short "
        "as this chapter's it is a matter of a few points.",
        {
            "a": (
                "It stays: the same input gives the same weights.",
                "The same input, but not the same function: which parameters does the new task move?",
            ),
            "b": (
                "It falls: the hypernetwork itself is changed by the new task, and with it what it makes of the old "
                "input.",
                "",
            ),
            "c": (
                "It stays, since every task has an embedding of its own and only that one is learned.",
                "The embedding is learned *together* with the hypernetwork's own weights.",
            ),
            "d": (
                "It rises: the old task profits from the new one.",
                "Nothing here asks for that. What holds the generated weights of the old task in place?",
            ),
            "e": (
                "It falls in Class-IL only, as with the regularisers of chapter 1.",
                "Those fail there because tasks compete. Here the old network itself has changed: does it matter who "
                "competes?",
            ),
        },
        predict,
        "Forgetting has moved up by one floor, from the network to the hypernetwork. The regulariser fights it "
        "there, with one point per task to hold instead of a data set.",
        "The weights are a function of the embedding. Which parameters does this function have, and who changes them?",
    ),
    Exercise(
        "06.compression",
        "How small is it?",
        1,
        "Count what a chunked hypernetwork learns (its own weights and all embeddings) and divide by the number of "
        "the target's "
        "weights.",
        compression,
        _sizes,
        (
            Mistake(
                "no embeddings",
                lambda hypernet, target, n_tasks, task_embedding, chunks, chunk_embedding: hypernet / target,
                "The embeddings are learned and stored too.",
            ),
            Mistake(
                "inverted",
                lambda hypernet, target, n_tasks, task_embedding, chunks, chunk_embedding: (
                    target / (hypernet + n_tasks * task_embedding + chunks * chunk_embedding)
                ),
                "Upside down: below 1 shall mean that the hypernetwork is the smaller one.",
            ),
            Mistake(
                "chunk embeddings per task",
                lambda hypernet, target, n_tasks, task_embedding, chunks, chunk_embedding: (
                    (hypernet + n_tasks * (task_embedding + chunks * chunk_embedding)) / target
                ),
                "The chunk embeddings are shared by all tasks: count them once.",
            ),
            Mistake(
                "one task embedding",
                lambda hypernet, target, n_tasks, task_embedding, chunks, chunk_embedding: (
                    (hypernet + task_embedding + chunks * chunk_embedding) / target
                ),
                "Every task has an embedding of its own.",
            ),
            Mistake(
                "hypernetwork per chunk",
                lambda hypernet, target, n_tasks, task_embedding, chunks, chunk_embedding: (
                    (hypernet * max(chunks, 1) + n_tasks * task_embedding + chunks * chunk_embedding) / target
                ),
                "The same small network makes all chunks: count it once. That is where the compression comes from.",
            ),
        ),
        "Own weights + one embedding per task + one per chunk, over the target's weights.",
    ),
    Exercise(
        "06.unflatten",
        "From a vector to a network",
        2,
        "A hypernetwork puts out one long vector. Cut it into the weights of the target network.",
        unflatten,
        _shapes,
        (
            Mistake(
                "always from the start",
                lambda flat, shapes: [flat[: math.prod(shape)].view(shape) for shape in shapes],
                "Every tensor is cut from the beginning of the vector: all layers share their weights. Move on by "
                "each size.",
            ),
            Mistake(
                "flat pieces",
                lambda flat, shapes: list(flat.split([math.prod(shape) for shape in shapes])),
                "The pieces are right, but still flat: give each its shape (.view).",
            ),
            Mistake(
                "reversed",
                lambda flat, shapes: unflatten(flat, shapes[::-1])[::-1],
                "The vector is read from its end: the first shape takes the first numbers.",
            ),
            Mistake(
                "transposed",
                lambda flat, shapes: [
                    part.reshape(shape[::-1]).T.contiguous() if len(shape) == 2 else part
                    for part, shape in zip(flat.split([math.prod(s) for s in shapes]), shapes, strict=True)
                ],
                "The matrices are filled column by column. A view fills row by row.",
            ),
            Mistake(
                "cut off",
                lambda flat, shapes: unflatten(flat.detach(), shapes),
                "The numbers are right, but cut off from their gradient: the hypernetwork learns through the weights that "
                "it puts out.",
            ),
            Mistake(
                "bias dropped",
                lambda flat, shapes: [part for part in unflatten(flat, shapes) if part.ndim == 2],
                "The one-dimensional tensors, the biases, are missing.",
            ),
        ),
        "`flat.split(sizes)` cuts it; each piece gets its shape by `.view`.",
        observe=gradients_by(unflatten, "flat"),
    ),
    Exercise(
        "06.regulariser",
        "Hold the outputs, not the weights",
        2,
        "Write the output regulariser $\\frac{\\beta}{T-1} \\sum_{t<T} \\| f(e_t, \\Theta^*) - f(e_t, \\Theta) "
        "\\|^2$. Notes on hypernetworks let the "
        "sum run over *all* tasks; it runs over the past ones. The gradient by $\\Theta$ is checked too.",
        regulariser,
        _drifts,
        (
            Mistake(
                "all tasks",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    beta
                    / (T - 1)
                    * _squared(*(hypernet(e, theta_old.detach()) - hypernet(e, theta) for e in embeddings)).sum()
                ),
                "The sum runs over all tasks. The current one must be free to change, and future ones have no "
                "weights yet: "
                "only the first T - 1 embeddings.",
            ),
            Mistake(
                "current task held too",
                lambda theta, theta_old, embeddings, T, beta, hypernet: regulariser(
                    theta, theta_old, embeddings, T + 1, beta, hypernet
                ),
                "The current task is held as well, so it cannot be learned: tasks t < T, the first T - 1 rows.",
            ),
            Mistake(
                "the old weights learn",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    beta
                    / (T - 1)
                    * _squared(*(hypernet(e, theta_old) - hypernet(e, theta) for e in embeddings[: T - 1])).sum()
                ),
                "The old weights get a gradient as well, and an optimiser that held them would move them towards the new "
                "ones. They are what is held on to: theta_old.detach().",
            ),
            Mistake(
                "divided by T",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    regulariser(theta, theta_old, embeddings, T, beta, hypernet) * (T - 1) / T
                ),
                "T - 1 tasks are in the sum: divide by T - 1.",
            ),
            Mistake(
                "norm not squared",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    beta
                    * _squared(*(hypernet(e, theta_old.detach()) - hypernet(e, theta) for e in embeddings[: T - 1]))
                    .sqrt()
                    .mean()
                ),
                "The norm is not squared.",
            ),
            Mistake(
                "weights of the hypernetwork",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    beta * (theta_old.detach() - theta).square().sum()
                ),
                "This holds the hypernetwork's own weights. They may move, as long as what comes *out* for the past "
                "tasks stays.",
            ),
            Mistake(
                "mean over outputs",
                lambda theta, theta_old, embeddings, T, beta, hypernet: (
                    regulariser(theta, theta_old, embeddings, T, beta, hypernet)
                    / hypernet(embeddings[0], theta).numel()
                ),
                "A mean over the generated weights. The squared norm is their sum.",
            ),
        ),
        "For each of the first T - 1 embeddings: output before, output now, squared norm of the difference. Then "
        "mean, times β.",
        observe=_loss_and_gradients,
    ),
    Exercise(
        "06.choose_task",
        "Which task is it?",
        2,
        "HNET+ENT asks the network of every task and believes the one that is the most certain. Choose for each "
        "sample the task "
        "whose prediction has the lowest entropy. Very sure predictions must not give NaN.",
        choose_task,
        _predictions,
        (
            Mistake(
                "highest entropy",
                lambda logits: _entropy(logits).argmax(0),
                "The most *un*certain task is chosen. Certainty is low entropy: argmin.",
            ),
            Mistake(
                "one task for the batch",
                lambda logits: _entropy(logits).mean(1).argmin().expand(logits.shape[1]),
                "One task for the whole batch. The samples of a batch may come from different tasks.",
            ),
            Mistake(
                "largest logit",
                lambda logits: logits.amax(2).argmax(0),
                "The largest logit is not the most certain answer: 9, 9, 9 is a large guess. Softmax first.",
            ),
            Mistake(
                "softmax over tasks",
                lambda logits: -(F.softmax(logits, 0) * F.log_softmax(logits, 0)).sum(2).argmax(0),
                "The softmax runs over the tasks. It runs over the classes, the last dimension.",
            ),
            Mistake(
                "NaN entropy",
                lambda logits: torch.nan_to_num(
                    -(F.softmax(logits, 2) * F.softmax(logits, 2).log()).sum(2), nan=torch.inf
                ).argmin(0),
                "0 · log 0 is NaN for a computer: a very sure prediction loses its entropy. Use F.log_softmax.",
            ),
        ),
        "Take `log_softmax` over the classes; the entropy is -Σ p log p, (n_tasks, B); then `argmin` over the tasks.",
    ),
)
