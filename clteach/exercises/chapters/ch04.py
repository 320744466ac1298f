"""Exercises of chapter 4, *Generative replay*."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Generative replay"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


def replay_loss(current: Tensor, replay: Tensor, n: int) -> Tensor:
    """() the loss of task n (1 for the first): every task counts alike, though only the newest is real.

    current, replay (): mean loss on the current batch and on the replayed batch.
    """
    ### BEGIN SOLUTION
    return current / n + (1 - 1 / n) * replay
    ### END SOLUTION


def soft_targets(old_logits: Tensor, known: Tensor, T: float) -> Tensor:
    """(B, C) the old model's probabilities at temperature T; a class that it does not know, known (C,) False, gets 0."""
    ### BEGIN SOLUTION
    return F.softmax(old_logits.masked_fill(~known, -torch.inf) / T, 1)
    ### END SOLUTION


def over_heads(logits: Tensor, old_logits: Tensor, heads: Tensor) -> Tensor:
    """() Task-IL: cross-entropy with the old model's probabilities, per past head, averaged over heads and samples.

    logits, old_logits (B, C). heads (H, C) bool: the output units of each past task. Nobody knows which task a replayed
    sample belongs to, so every head is asked; each head has a softmax of its own.
    """
    ### BEGIN SOLUTION
    losses = []
    for head in heads:
        p_old = F.softmax(old_logits[:, head], 1)
        losses.append(-(p_old * F.log_softmax(logits[:, head], 1)).sum(1).mean())
    return torch.stack(losses).mean()
    ### END SOLUTION


def former_self(model: nn.Module) -> nn.Module:
    """The model as it is now, to replay from and to label with: it never learns, whatever becomes of `model`.

    It is in evaluation mode. `model` itself goes on learning.
    """
    ### BEGIN SOLUTION
    return copy.deepcopy(model).requires_grad_(False).eval()
    ### END SOLUTION


def _one_step_later(answer: Callable[[nn.Module], nn.Module], model: nn.Module) -> dict[str, object]:
    """What is to be seen of the old model after the new one has moved."""
    x = torch.linspace(-1, 1, next(model.parameters()).shape[1])[None]
    old = answer(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)
    return {
        "a network of its own": old is not model,
        "what the old model answers": old(x),
        "weights of the old model that learn": sum(p.requires_grad for p in old.parameters()),
        "weights of the new model that learn": sum(p.requires_grad for p in model.parameters()),
        "the old model is in training mode": old.training,
        "the new model is in training mode": model.training,
    }


def _losses(rng: torch.Generator) -> Cases:
    def pair() -> tuple[Tensor, Tensor]:
        return 3 * torch.rand((), generator=rng), 3 * torch.rand((), generator=rng)

    return {f"task {n}": (*pair(), n) for n in (1, 2, 3, 10)}


def _known(rng: torch.Generator) -> Cases:
    def case(n: int, c: int, known: int, T: float) -> tuple[Tensor, Tensor, float]:
        return 3 * torch.randn(n, c, generator=rng), torch.arange(c) < known, T

    return {
        "an unknown class has the largest logit": (
            torch.tensor([[1.0, 0.0, 9.0]]),
            torch.tensor([True, True, False]),
            2.0,
        ),
        "4 of 6 classes known, T = 2": case(5, 6, 4, 2.0),
        "2 of 10 classes known, T = 1": case(3, 10, 2, 1.0),
    }


def _heads(rng: torch.Generator) -> Cases:
    def case(n: int, tasks: int, past: int) -> tuple[Tensor, Tensor, Tensor]:
        heads = torch.arange(2 * tasks)[None] // 2 == torch.arange(past)[:, None]
        return 2 * torch.randn(n, 2 * tasks, generator=rng), 2 * torch.randn(n, 2 * tasks, generator=rng), heads

    return {"one past head": case(4, 3, 1), "two past heads": case(5, 3, 2), "four past heads": case(8, 5, 4)}


def _models(rng: torch.Generator) -> Cases:
    def weights(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape, generator=rng))

    linear, deep = nn.Linear(3, 2), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    for layer in (linear, *(layer for layer in deep if isinstance(layer, nn.Linear))):
        layer.weight, layer.bias = weights(*layer.weight.shape), weights(*layer.bias.shape)
    return {
        "one layer": (linear,),
        "two layers": (deep,),
    }


EXERCISES = (
    choice(
        "04.predict",
        "Predict, then run: a very high temperature",
        "Soft targets have a temperature $T$, and their loss is multiplied by $T^2$. Make $T$ very large: the "
        "targets become almost the same for every class. What does the new model still learn from a dream? Guess, "
        "check, then try `temperature=100` in the experiment on hard and soft targets.",
        {
            "a": (
                "Nothing: uniform targets say nothing about the class.",
                "*Almost* uniform: the small differences are of order 1/T, and so is each gradient. What does T² do "
                "to them?",
            ),
            "b": ("To have the old model's logits, up to one constant for all classes.", ""),
            "c": (
                "The old model's first choice, as with hard targets.",
                "That is the other end, T → 0, where the largest logit takes all.",
            ),
            "d": (
                "It diverges: T² grows without bound.",
                "The gradient of the cross-entropy shrinks like 1/T², once for the targets and once for the chain "
                "rule.",
            ),
            "e": (
                "The probabilities of the old model at T = 1: the temperatures on both sides cancel.",
                "Both sides are softened, but the softmax is not linear: the match at T is another one than at 1.",
            ),
        },
        predict,
        "With T² the gradient tends to the difference of the two centred logits, divided by the number of classes: "
        "distillation becomes least squares on logits. Without T² it tends to zero.",
        "Write $e^{z/T} \\approx 1 + z/T$ in both softmaxes, and count the powers of T in the gradient.",
    ),
    Exercise(
        "04.replay_loss",
        "One share for every task",
        1,
        "With $n$ tasks so far, the current one included, write "
        "$\\frac1n \\mathcal{L}_\\text{current} + (1 - \\frac1n)\\,\\mathcal{L}_\\text{replay}$.",
        replay_loss,
        _losses,
        (
            Mistake(
                "half and half",
                lambda current, replay, n: (current + replay) / 2,
                "Half and half gives the newest task as much weight as all others together. Each task shall have 1/n.",
            ),
            Mistake(
                "plain sum",
                lambda current, replay, n: current + replay,
                "A plain sum: the weights do not add up to 1, and the newest task counts as much as all others.",
            ),
            Mistake(
                "weights swapped",
                lambda current, replay, n: replay / n + (1 - 1 / n) * current,
                "The weights are swapped: the current task is one of n, the replay stands for the n - 1 others.",
            ),
            Mistake(
                "n counts past tasks",
                lambda current, replay, n: current / (n + 1) + (1 - 1 / (n + 1)) * replay,
                "n counts the tasks so far *including* the current one: with n = 1 there is nothing to replay.",
            ),
            Mistake(
                "the replayed term cut off",
                lambda current, replay, n: replay_loss(current, replay.detach(), n),
                "The value is right, but the replayed term is cut off from its gradient: nothing is replayed. Leave out "
                ".item(), .detach() and torch.no_grad().",
            ),
            Mistake(
                "the current term cut off",
                lambda current, replay, n: replay_loss(current.detach(), replay, n),
                "The value is right, but the current term is cut off from its gradient: the newest task is not learned.",
            ),
            Mistake(
                "replay once",
                lambda current, replay, n: (current + replay) / n,
                "The replayed batch stands for n - 1 tasks, so its weight is (n - 1)/n.",
            ),
        ),
        "What are the weights for n = 1? For n = 2? They add up to 1.",
        observe=gradients_by(replay_loss, "current", "replay"),
    ),
    Exercise(
        "04.soft_targets",
        "What the old model did not know",
        2,
        "Replayed samples are labelled by the old classifier, softly. It has an output unit for classes that it has "
        "never seen; they "
        "get probability 0, and the others share all of it.",
        soft_targets,
        _known,
        (
            Mistake(
                "all classes",
                lambda old_logits, known, T: F.softmax(old_logits / T, 1),
                "Classes that the old model never learned get a share: whatever an untrained unit says.",
            ),
            Mistake(
                "not normalised again",
                lambda old_logits, known, T: F.softmax(old_logits / T, 1) * known,
                "The unknown classes are 0, but what is left does not sum to 1. Take them out *before* the softmax: "
                "logit −∞.",
            ),
            Mistake(
                "zero for minus infinity",
                lambda old_logits, known, T: F.softmax(old_logits.masked_fill(~known, 0) / T, 1),
                "A logit of 0 is not a probability of 0: exp(0) = 1. Fill with −∞.",
            ),
            Mistake(
                "no temperature",
                lambda old_logits, known, T: soft_targets(old_logits, known, 1.0),
                "The temperature is missing: divide the logits by T.",
            ),
            Mistake(
                "hard",
                lambda old_logits, known, T: F.one_hot(
                    old_logits.masked_fill(~known, -torch.inf).argmax(1), len(known)
                ).float(),
                "These are hard targets. Soft ones also keep what the second choice was.",
            ),
        ),
        "`masked_fill` the logits with `-torch.inf` where a class is not known, then the softmax at temperature T.",
    ),
    Exercise(
        "04.over_heads",
        "Replay when the task is unknown",
        3,
        "In Task-IL a replayed image carries no task. So its loss is the mean over all past heads, each with a "
        "softmax of its own.",
        over_heads,
        _heads,
        (
            Mistake(
                "newest head only",
                lambda logits, old_logits, heads: over_heads(logits, old_logits, heads[-1:]),
                "Only the newest past head is asked, so the earlier tasks are not held.",
            ),
            Mistake(
                "one softmax",
                lambda logits, old_logits, heads: over_heads(logits, old_logits, heads.any(0)[None]),
                "One softmax over all past units makes tasks compete with each other. Each head has its own.",
            ),
            Mistake(
                "sum over heads",
                lambda logits, old_logits, heads: len(heads) * over_heads(logits, old_logits, heads),
                "A sum over the heads grows with the number of tasks: take the mean.",
            ),
            Mistake(
                "hard targets",
                lambda logits, old_logits, heads: torch.stack(
                    [F.cross_entropy(logits[:, head], old_logits[:, head].argmax(1)) for head in heads]
                ).mean(),
                "Hard targets: the old model's probabilities are asked for, not its first choice.",
            ),
            Mistake(
                "all units",
                lambda logits, old_logits, heads: over_heads(logits, old_logits, torch.ones_like(heads[:1])),
                "Units of the current and of future tasks take part. Replayed data belongs to past heads only.",
            ),
        ),
        "Loop over the heads: `logits[:, head]` has that head's units only.",
        observe=gradients_by(over_heads, "logits"),
    ),
    Exercise(
        "04.former_self",
        "Bug hunt: the old model that learned along",
        2,
        "Before a new task, a colleague keeps the old model with `old = model`. Training runs, nothing crashes, and "
        "the past is forgotten. Write what was meant.",
        former_self,
        _models,
        (
            Mistake(
                "another name",
                lambda model: model,
                "`old = model` gives the same network a second name. It learns along, and labels its dreams by what "
                "it believes now.",
            ),
            Mistake(
                "shallow copy",
                lambda model: copy.copy(model).requires_grad_(True),
                "A shallow copy is a new object with the *same* weights in it. Copy the weights too.",
            ),
            Mistake(
                "still learns",
                lambda model: copy.deepcopy(model).eval(),
                "A copy, but its weights still ask for gradients: an optimiser could move it, and every backward "
                "pass pays for it.",
            ),
            Mistake(
                "the new one frozen too",
                lambda model: copy.deepcopy(model.requires_grad_(False)).eval(),
                "The new model does not learn any more either. Freeze the copy, not the original.",
            ),
            Mistake(
                "training mode",
                lambda model: copy.deepcopy(model).requires_grad_(False),
                "The copy is still in training mode: dropout would drop, batch norm would go on counting.",
            ),
            Mistake(
                "the new one in evaluation mode",
                lambda model: copy.deepcopy(model.eval()).requires_grad_(False),
                "The new model was put into evaluation mode too, though it goes on learning. Copy first, then .eval().",
            ),
        ),
        "Three things: a deep copy, no gradients for the copy, and its evaluation mode.",
        why="The package's `frozen_copy` does this once, and `refresh` copies the weights into it before every task.",
        observe=_one_step_later,
    ),
)
