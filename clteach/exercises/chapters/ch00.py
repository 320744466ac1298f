"""Exercises of chapter 0, *Start here*."""

from __future__ import annotations

import torch
from torch import Tensor

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice

TITLE = "Start here"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


def predict_dreams() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


def average_accuracy(R: Tensor) -> float:
    """The average accuracy over all tasks after the last one, from the accuracy matrix R (T, T)."""
    ### BEGIN SOLUTION
    return float(R[-1].mean())
    ### END SOLUTION


def forgetting(R: Tensor) -> float:
    """The average forgetting, from the accuracy matrix R (T, T)."""
    ### BEGIN SOLUTION
    best = torch.stack([R[i:-1, i].max() for i in range(len(R) - 1)])  # from learning task i to the last but one
    return float((best - R[-1, :-1]).mean())
    ### END SOLUTION


def split(labels: Tensor, per_task: int) -> list[Tensor]:
    """Cut a data set into tasks: for every task the row numbers of its samples, in increasing order.

    labels (N,): class of every sample, 0 to C - 1. Task 0 holds the first `per_task` classes, task 1 the next ones.
    """
    ### BEGIN SOLUTION
    n_tasks = (int(labels.max()) + 1) // per_task
    return [(labels // per_task == task).nonzero().flatten() for task in range(n_tasks)]
    ### END SOLUTION


def _matrices(rng: torch.Generator) -> Cases:
    def matrix(size: int) -> Tensor:
        R = torch.rand(size, size, generator=rng, dtype=torch.float64)
        return R.masked_fill(torch.ones(size, size).triu(1).bool(), torch.nan)

    nothing_left = torch.tensor([[1.0, torch.nan, torch.nan], [0.0, 1.0, torch.nan], [0.0, 0.0, 1.0]])
    recovered = torch.tensor([[0.9, torch.nan, torch.nan], [0.5, 0.8, torch.nan], [0.95, 0.6, 0.7]])
    return {
        "three tasks, everything forgotten": (nothing_left,),
        "task 1 is better at the end than it ever was": (recovered,),
        "four tasks": (matrix(4),),
        "three tasks, tested also before they were learned": (
            torch.rand(3, 3, generator=rng, dtype=torch.float64).sort(0).values,
        ),
    }


def _labels(rng: torch.Generator) -> Cases:
    def shuffled(classes: int, each: int) -> Tensor:
        return torch.arange(classes).repeat(each)[torch.randperm(classes * each, generator=rng)]

    return {
        "four classes in pairs": (torch.tensor([3, 0, 2, 1, 0, 3]), 2),
        "ten classes in pairs": (shuffled(10, 4), 2),
        "nine classes in threes": (shuffled(9, 3), 3),
        "one class per task": (shuffled(4, 2), 1),
    }


EXERCISES = (
    choice(
        "00.predict",
        "Predict, then run: the task is known",
        "Fine-tuning in Class-IL ended with one task known and the others at zero. Now the same network learns the "
        'same stream in the scenario `"task"`: at test time it is told which pair of digits an image belongs to. What '
        "is its "
        "average accuracy after the last task? Write your guess down, check it, then change one word in the cell that "
        "makes the stream and run it.",
        {
            "a": (
                "About 20 %, as before: what is forgotten is forgotten.",
                "Being told the task removes all other digits from the choice. Which two units compete then? "
                "Nothing pushed them against *each other* while later tasks were learned.",
            ),
            "b": (
                "About 50 %: it has to guess between the two digits of every old task.",
                "Guessing would need all knowledge of the old tasks to be gone. "
                "The hidden layers change while new tasks are learned, but do they lose everything?",
            ),
            "c": ("Clearly above 75 %, but below joint training.", ""),
            "d": (
                "Exactly that of joint training: knowing the task, there is nothing left to forget.",
                "The hidden layers are shared by all tasks, and nobody protects them. Does some of it get lost?",
            ),
            "e": (
                "Below 20 %: choosing the task's units makes it harder.",
                "Fewer units compete, so fewer mistakes are possible. It can only help.",
            ),
        },
        predict,
        "In the recorded table fine-tuning in Task-IL stands far above Class-IL and below joint training. The "
        "output units "
        "of different tasks no longer compete, but the hidden layers still drift.",
        "What is left to choose from once the task is known? And which weights do later tasks still change?",
    ),
    choice(
        "00.predict_dreams",
        "Predict, then run: how few dreams?",
        "Give generative replay a tenth of its training steps, classifier and generator alike. The small digits are "
        "so easy "
        "that the classifier still learns each pair. What becomes worse? Guess, check, then run it with "
        "`steps=by_size(100, 200)` and look at the accuracy matrix.",
        {
            "a": (
                "The diagonal: each new task is learned less well. What is below it stays.",
                "The classifier needs few steps for two digits. Who needs many? Think of what a blurred dream is "
                "worth.",
            ),
            "b": ("What is below the diagonal: old tasks are kept less well.", ""),
            "c": (
                "Both alike.",
                "They depend on different networks: the diagonal on the classifier alone, what is below it on the "
                "generator too.",
            ),
            "d": (
                "Nothing: the dreams need not be sharp.",
                "They need not be sharp, but they must at least show the digits that they stand for. "
                "After a few steps a generator paints the average of everything.",
            ),
            "e": (
                "Only the first row of the matrix: the first task has nothing to replay.",
                "The first task needs no replay, so nothing can be missing there. What do the later ones replay?",
            ),
        },
        predict_dreams,
        "The generator is the part that needs the steps: its dreams are all that is left of the old digits.",
        "Which of the two networks needs the many steps, and which part of the matrix depends on it?",
    ),
    Exercise(
        "00.average_accuracy",
        "One number for a matrix",
        1,
        "Write the average accuracy $A = \\frac1T \\sum_i R_{T,i}$ as a function of the accuracy matrix `R` (T, T), "
        "whose row $t$ "
        "holds the accuracies after task $t$. Accuracies on tasks that were not learned yet are NaN.",
        average_accuracy,
        _matrices,
        (
            Mistake(
                "all entries",
                lambda R: float(R.mean()),
                "The mean of the whole matrix meets the NaN of tasks not learned yet. Which row is the end of the "
                "stream?",
            ),
            Mistake(
                "lower triangle",
                lambda R: float(R[~R.isnan()].mean()),
                "That is the average over the whole history. Only the moment after the last task is asked for: one "
                "row.",
            ),
            Mistake(
                "diagonal",
                lambda R: float(R.diagonal().mean()),
                "The diagonal is each task right after it was learned (the *learning accuracy*): no forgetting is "
                "in it.",
            ),
            Mistake(
                "last column",
                lambda R: float(R[:, -1].mean()),
                "R[t, i] has the time t first and the task i second: this is the last *task*, not the last moment.",
            ),
            Mistake(
                "percent",
                lambda R: 100 * float(R[-1].mean()),
                "Shares of 1, not percent: the formula has no factor 100.",
            ),
        ),
        "Which row of R is the moment after the last task? Average that row.",
    ),
    Exercise(
        "00.forgetting",
        "How far each task has fallen",
        2,
        "Write the forgetting $F = \\frac{1}{T-1} \\sum_{i<T} \\big( \\max_{i \\le t < T} R_{t,i} - R_{T,i} "
        "\\big)$. The best accuracy of task "
        "$i$ is taken over the times from when it was learned to the last task *but one*; the last task is left out.",
        forgetting,
        _matrices,
        (
            Mistake(
                "best over all times",
                lambda R: float(torch.stack([R[i:, i].max() - R[-1, i] for i in range(len(R) - 1)]).mean()),
                "The best is taken over t < T. With the last row in it, forgetting could never be negative, "
                "and a task that got better at the end would count as 0.",
            ),
            Mistake(
                "diagonal for best",
                lambda R: float((R.diagonal() - R[-1])[:-1].mean()),
                "This compares with the accuracy right after learning (it is minus the backward transfer). "
                "A later task may have improved an earlier one: take the best.",
            ),
            Mistake(
                "divides by T",
                lambda R: float(torch.stack([R[i:-1, i].max() - R[-1, i] for i in range(len(R) - 1)]).sum() / len(R)),
                "T - 1 tasks can be forgotten, for the last one has just been learned: divide by T - 1.",
            ),
            Mistake(
                "NaN above the diagonal",
                lambda R: float((R[:-1].amax(0) - R[-1])[:-1].mean()),
                "The column of task i is NaN before the task was learned, and a maximum with NaN is NaN. Start at t "
                "= i.",
            ),
            Mistake(
                "sign",
                lambda R: float(torch.stack([R[-1, i] - R[i:-1, i].max() for i in range(len(R) - 1)]).mean()),
                "The sign is reversed: forgetting is positive when accuracy was lost.",
            ),
        ),
        "Go through the tasks i = 0 … T-2: the best of `R[i : T-1, i]`, minus `R[T-1, i]`. Then average.",
    ),
    Exercise(
        "00.split",
        "Cut a stream by hand",
        2,
        "A stream is nothing but row numbers. Given the class of every sample, return for each task the rows of its "
        "samples: "
        "task 0 has the classes $0, …, k-1$ with $k$ = `per_task`, task 1 the next $k$, and so on.",
        split,
        _labels,
        (
            Mistake(
                "equal chunks",
                lambda labels, per_task: list(torch.arange(len(labels)).chunk((int(labels.max()) + 1) // per_task)),
                "The samples are cut in the order in which they lie, so every task has some of every class. "
                "Cut by *class*: choose the rows whose label belongs to the task.",
            ),
            Mistake(
                "masks",
                lambda labels, per_task: [
                    labels // per_task == task for task in range((int(labels.max()) + 1) // per_task)
                ],
                "These are masks with one True or False per sample. Turn each into row numbers: "
                "mask.nonzero().flatten().",
            ),
            Mistake(
                "labels",
                lambda labels, per_task: [
                    labels[labels // per_task == task] for task in range((int(labels.max()) + 1) // per_task)
                ],
                "These are the labels of the task's samples. Asked for are their row numbers.",
            ),
            Mistake(
                "interleaved classes",
                lambda labels, per_task: [
                    (labels % ((int(labels.max()) + 1) // per_task) == task).nonzero().flatten()
                    for task in range((int(labels.max()) + 1) // per_task)
                ],
                "The classes are dealt out like cards (% instead of //): task 0 must hold neighbouring classes.",
            ),
            Mistake(
                "one task per class",
                lambda labels, per_task: [(labels == c).nonzero().flatten() for c in range(int(labels.max()) + 1)],
                "Here every class is a task of its own. A task has `per_task` classes.",
            ),
        ),
        "The task of a sample is its label divided by `per_task`, rounded down. Which rows have task 0?",
    ),
)
