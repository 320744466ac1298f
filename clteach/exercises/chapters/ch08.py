"""Exercises of chapter 8, *Comparison*."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice

TITLE = "Comparison"


def predict() -> str:
    """Your choice, one letter."""
    ### BEGIN SOLUTION
    return "c"
    ### END SOLUTION


def choose(accuracy: Tensor, extra: Tensor, keeps_data: Tensor, budget: float, data_allowed: bool) -> int:
    """The number of the most accurate method that is allowed; -1 if none is.

    accuracy, extra (M,): average accuracy and extra bytes of each of M methods. keeps_data (M,) bool: does it store real
    samples? `budget`: the most bytes a method may take. `data_allowed`: may real samples be stored?
    """
    ### BEGIN SOLUTION
    allowed = extra <= budget
    if not data_allowed:
        allowed = allowed & ~keeps_data
    if not allowed.any():
        return -1
    return int(accuracy.masked_fill(~allowed, -torch.inf).argmax())
    ### END SOLUTION


def gap(a: Tensor, b: Tensor) -> tuple[float, float]:
    """(difference of the means, what its size must exceed to count as a difference), both in percentage points.

    a, b (n,), (m,): average accuracies in percent of two methods, one per seed. The bound is
    max(0.5, 2.5 √(SEM_a² + SEM_b²)).
    """

    ### BEGIN SOLUTION
    def sem(x: Tensor) -> float:
        return float(x.std()) / math.sqrt(len(x))

    return float(a.mean() - b.mean()), max(0.5, 2.5 * math.hypot(sem(a), sem(b)))
    ### END SOLUTION


def extra_bytes(state: dict[str, Tensor], plain: dict[str, Tensor]) -> int:
    """Bytes that a method holds beyond fine-tuning. Copies, whose names begin with "old_", are not counted.

    state, plain: all tensors of the method and of fine-tuning, by name.
    """
    ### BEGIN SOLUTION
    kept = sum(v.numel() * v.element_size() for name, v in state.items() if not name.startswith("old_"))
    return kept - sum(v.numel() * v.element_size() for v in plain.values())
    ### END SOLUTION


def average_accuracy(correct: Tensor, total: Tensor) -> float:
    """Average accuracy over T tasks, in [0, 1]; correct, total (T,): right answers and test images of each task."""
    ### BEGIN SOLUTION
    return float((correct / total).mean())
    ### END SOLUTION


def report(valid: Tensor, test: Tensor) -> float:
    """The accuracy to report, from those of S settings with K seeds each.

    valid, test (S, K): accuracies on held-out training data and on test data.
    """
    ### BEGIN SOLUTION
    chosen = valid.mean(1).argmax()
    return float(test[chosen].mean())
    ### END SOLUTION


def _situations(rng: torch.Generator) -> Cases:
    accuracy = torch.tensor([0.97, 0.20, 0.90, 0.60, 0.85])
    extra = torch.tensor([80_000.0, 0.0, 250_000.0, 80_000.0, 5_000.0])
    data = torch.tensor([True, False, False, True, False])
    accuracies, extras = torch.rand(12, generator=rng), 1000 * torch.randint(1, 100, (12,), generator=rng)
    stores = torch.arange(12) % 3 == 0
    accuracies[3] = 1.5 - accuracies.min()  # the best stores data
    return {
        "five methods, everything allowed": (accuracy, extra, data, 1e9, True),
        "data may be stored, but the best stores none": (
            accuracy[[1, 3, 2]],
            extra[[1, 3, 2]],
            data[[1, 3, 2]],
            1e9,
            True,
        ),
        "no data may be stored": (accuracy, extra, data, 1e9, False),
        "exactly 80,000 bytes": (accuracy, extra, data, 80_000.0, True),
        "no data, 80,000 bytes": (accuracy, extra, data, 80_000.0, False),
        "nothing is small enough": (accuracy[2:], extra[2:], data[2:], 1000.0, True),
        "twelve methods, no data": (accuracies, extras, stores, 90_000.0, False),
    }


def _seeds(rng: torch.Generator) -> Cases:
    def method(mean: float, spread: float, n: int) -> Tensor:
        return mean + spread * torch.randn(n, generator=rng, dtype=torch.float64)

    close = torch.tensor([90.0, 90.1, 90.2], dtype=torch.float64)
    return {
        "seeds that hardly differ": (close, close - 0.3),
        "three seeds each": (method(88, 3, 3), method(85, 2, 3)),
        "twenty seeds and three": (method(60, 8, 20), method(70, 5, 3)),
        "five seeds each": (method(97, 0.5, 5), method(95, 4, 5)),
    }


def _states(rng: torch.Generator) -> Cases:
    net = {"net.weight": torch.zeros(10, 64), "net.bias": torch.zeros(10)}
    images = {"memory.x": torch.zeros(50, 1, 8, 8, dtype=torch.uint8), "memory.y": torch.zeros(50, dtype=torch.int64)}
    springs = {"penalty.curvature": torch.zeros(650), "penalty.centre": torch.zeros(650)}
    copies = {f"old_{name}": value for name, value in net.items()}
    vae = torch.zeros(int(torch.randint(5, 50, (), generator=rng)), 64)
    return {
        "fine-tuning itself": (dict(net), dict(net)),
        "a memory of images": ({**net, **images}, dict(net)),
        "importance of weights": ({**net, **springs}, dict(net)),
        "a generator, and copies of both": (
            {**net, "vae": vae, **copies, "old_vae": vae.clone()},
            dict(net),
        ),
    }


def _counts(rng: torch.Generator) -> Cases:
    def case(tasks: int) -> tuple[Tensor, Tensor]:
        total = torch.randint(20, 500, (tasks,), generator=rng)
        return (total * torch.rand(tasks, generator=rng, dtype=torch.float64)).long(), total

    return {
        "a large task known, a small one forgotten": (torch.tensor([900, 0]), torch.tensor([900, 100])),
        "three tasks": case(3),
        "five tasks": case(5),
    }


def _sweeps(rng: torch.Generator) -> Cases:
    def sweep(settings: int, seeds: int) -> tuple[Tensor, Tensor]:
        valid = torch.rand(settings, seeds, generator=rng, dtype=torch.float64)
        return valid, torch.rand(settings, seeds, generator=rng, dtype=torch.float64)

    misled = (
        torch.tensor([[0.80, 0.82, 0.81], [0.85, 0.70, 0.70]]),
        torch.tensor([[0.78, 0.80, 0.82], [0.90, 0.95, 0.88]]),
    )
    return {
        "two settings that disagree": misled,
        "three settings, four seeds": sweep(3, 4),
        "eight settings": sweep(8, 3),
    }


EXERCISES = (
    choice(
        "08.predict",
        "Which method for this situation?",
        "A camera in a clinic learns two new findings every month. It must name any finding it has ever learned, "
        "nobody tells "
        "it the month an image is from, and the law forbids keeping any image. Memory and time are plentiful. Which "
        "one do you "
        "take? Decide, check, then compare with the table of this chapter.",
        {
            "a": (
                "EWC or SI: they need no images, and little memory.",
                "They hold the weights. Look at their column for the scenario in which all classes compete: what do "
                "they "
                "lack there?",
            ),
            "b": (
                "Experience replay: nothing beats it in the table.",
                "In accuracy, hardly anything does. But what does its memory hold?",
            ),
            "c": ("Replay from a generator that learned the past.", ""),
            "d": (
                "XdG, or a hypernetwork with one embedding per month: they forget the least.",
                "Both choose a part of the network (or its weights) by the task. Who tells them the task here?",
            ),
            "e": (
                "LwF: it uses the new images in place of the old ones.",
                "It works as far as new images look like old ones. Is its number in Class-IL anywhere near the best?",
            ),
        },
        predict,
        "All findings compete (Class-IL), so some step of training must contrast old with new, and as no image may "
        "be kept, the "
        "old must be made up. Whether a generator's samples of patients are harmless is a question of its own: a "
        "generator can "
        "learn an image by heart.",
        "Which scenario is it, and which methods keep real images? Cross those out that the situation rules out.",
    ),
    Exercise(
        "08.choose",
        "Accuracy under conditions",
        2,
        "No method is best: one is best *under conditions*. Write the function that finds it. A method that takes "
        "exactly the "
        "budget still fits.",
        choose,
        _situations,
        (
            Mistake(
                "conditions forgotten",
                lambda accuracy, extra, keeps_data, budget, data_allowed: int(accuracy.argmax()),
                "This is the most accurate of all methods, whatever it takes. Which are allowed?",
            ),
            Mistake(
                "budget forgotten",
                lambda accuracy, extra, keeps_data, budget, data_allowed: choose(
                    accuracy, extra, keeps_data, math.inf, data_allowed
                ),
                "The budget is ignored: a method that takes more bytes is out, however accurate.",
            ),
            Mistake(
                "data forgotten",
                lambda accuracy, extra, keeps_data, budget, data_allowed: choose(
                    accuracy, extra, keeps_data, budget, True
                ),
                "Where data_allowed is False, a method that stores real samples is out.",
            ),
            Mistake(
                "only those that keep data",
                lambda accuracy, extra, keeps_data, budget, data_allowed: choose(
                    accuracy, extra, keeps_data != data_allowed, budget, False
                ),
                "If data may be stored, methods that store none are still allowed.",
            ),
            Mistake(
                "strictly below the budget",
                lambda accuracy, extra, keeps_data, budget, data_allowed: choose(
                    accuracy, extra, keeps_data, budget - 0.5, data_allowed
                ),
                "A method that takes exactly the budget fits: less than *or equal*.",
            ),
            Mistake(
                "the smallest",
                lambda accuracy, extra, keeps_data, budget, data_allowed: int(
                    extra.masked_fill(~((extra <= budget) & (data_allowed | ~keeps_data)), torch.inf).argmin()
                ),
                "This is the smallest of the allowed methods; the most accurate is asked for.",
            ),
            Mistake(
                "position among the allowed",
                lambda accuracy, extra, keeps_data, budget, data_allowed: (
                    int(accuracy[(extra <= budget) & (data_allowed | ~keeps_data)].argmax())
                    if bool(((extra <= budget) & (data_allowed | ~keeps_data)).any())
                    else -1
                ),
                "Your number counts within the allowed methods only. Count within all: fill the others with −∞ "
                "before argmax.",
            ),
        ),
        "A mask of the allowed methods, −∞ for the others, then argmax. What if the mask is empty?",
    ),
    Exercise(
        "08.gap",
        "When do two methods differ?",
        2,
        "Two means over a few seeds always differ. The rule of this book asks for more: "
        "$|\\bar a - \\bar b| > \\max\\big(0.5,\\; 2.5 \\sqrt{\\mathrm{SEM}_a^2 + \\mathrm{SEM}_b^2}\\big)$ points, with "
        "$\\mathrm{SEM} = s / \\sqrt n$ and $s^2 = \\frac{1}{n-1} \\sum_k (x_k - \\bar x)^2$. Return the difference and the "
        "bound.",
        gap,
        _seeds,
        (
            Mistake(
                "standard deviation",
                lambda a, b: (float(a.mean() - b.mean()), max(0.5, 2.5 * math.hypot(float(a.std()), float(b.std())))),
                "The standard deviation tells how far *one seed* lies from the mean. How far the *mean* of n seeds "
                "may lie from "
                "the truth is the SEM: divide by √n.",
            ),
            Mistake(
                "divided by n",
                lambda a, b: (
                    float(a.mean() - b.mean()),
                    max(
                        0.5,
                        2.5
                        * math.hypot(
                            float(a.std(correction=0)) / math.sqrt(len(a)),
                            float(b.std(correction=0)) / math.sqrt(len(b)),
                        ),
                    ),
                ),
                "The variance is divided by n. The mean was estimated from the same seeds, so divide by n − 1: with "
                "three seeds "
                "this makes a fifth of the bound.",
            ),
            Mistake(
                "SEMs added",
                lambda a, b: (
                    float(a.mean() - b.mean()),
                    max(0.5, 2.5 * float(a.std() / math.sqrt(len(a)) + b.std() / math.sqrt(len(b)))),
                ),
                "The two errors are independent: their squares add up, not they themselves.",
            ),
            Mistake(
                "no least bound",
                lambda a, b: (
                    float(a.mean() - b.mean()),
                    2.5 * math.hypot(float(a.std()) / math.sqrt(len(a)), float(b.std()) / math.sqrt(len(b))),
                ),
                "Three seeds may agree by chance, and the bound would be nearly zero. It is never less than 0.5 "
                "points.",
            ),
            Mistake(
                "best seeds",
                lambda a, b: (float(a.max() - b.max()), gap(a, b)[1]),
                "You compare the best seed of each. The more seeds, the better the best: compare means.",
            ),
            Mistake(
                "divided by n, not its root",
                lambda a, b: (
                    float(a.mean() - b.mean()),
                    max(0.5, 2.5 * math.hypot(float(a.std()) / len(a), float(b.std()) / len(b))),
                ),
                "The standard deviation is divided by √n, not by n: four times the seeds halve the error.",
            ),
        ),
        "First the SEM of one method as a function of its own; `math.hypot(x, y)` is √(x² + y²).",
    ),
    Exercise(
        "08.extra_bytes",
        "Count the memory",
        2,
        "From the state of a learner (tensors by name) and that of fine-tuning, count the extra bytes. Images are "
        "kept as bytes, "
        "weights as floats of four bytes, labels as integers of eight. What begins with `old_` is a copy that is "
        "made anew "
        "before every task: leave it out.",
        extra_bytes,
        _states,
        (
            Mistake(
                "numbers for bytes",
                lambda state, plain: (
                    sum(v.numel() for k, v in state.items() if not k.startswith("old_"))
                    - sum(v.numel() for v in plain.values())
                ),
                "These are numbers, not bytes: a float takes four, a label eight, a pixel of an image one. See "
                "element_size().",
            ),
            Mistake(
                "four bytes each",
                lambda state, plain: (
                    4
                    * (
                        sum(v.numel() for k, v in state.items() if not k.startswith("old_"))
                        - sum(v.numel() for v in plain.values())
                    )
                ),
                "Four bytes for everything: right for weights. Stored images are bytes, and labels are int64.",
            ),
            Mistake(
                "network included",
                lambda state, plain: extra_bytes(state, {}),
                "The network itself is in it, which every method has: subtract what fine-tuning holds.",
            ),
            Mistake(
                "copies counted",
                lambda state, plain: (
                    sum(v.numel() * v.element_size() for v in state.values())
                    - sum(v.numel() * v.element_size() for v in plain.values())
                ),
                "The copies old_... are counted. They take room during a task, but between two tasks nothing would "
                "be lost "
                "without them.",
            ),
            Mistake(
                "samples for bytes",
                lambda state, plain: (
                    sum(len(v) for k, v in state.items() if not k.startswith("old_"))
                    - sum(len(v) for v in plain.values())
                ),
                "len(tensor) is its first dimension alone. numel() counts all its numbers.",
            ),
        ),
        "Every tensor has `numel()` numbers of `element_size()` bytes each.",
    ),
    Exercise(
        "08.average_accuracy",
        "Bug hunt: which average?",
        1,
        "A program counts, over all test images of all tasks, the right answers, and divides by the number of "
        "images. On streams "
        "with equal tasks nobody notices. Write the *average over tasks*, which this book and the papers report.",
        average_accuracy,
        _counts,
        (
            Mistake(
                "all images pooled",
                lambda correct, total: float(correct.sum() / total.sum()),
                "This is the bug: a large task weighs more than a small one. Take each task's accuracy first, then "
                "the mean.",
            ),
            Mistake(
                "weighted by size",
                lambda correct, total: float((correct / total * total).sum() / len(total)),
                "The sizes are multiplied in again: this is the mean number of right answers.",
            ),
            Mistake(
                "last task",
                lambda correct, total: float(correct[-1] / total[-1]),
                "The accuracy on the last task alone. It is the one that was never in danger.",
            ),
            Mistake(
                "best task",
                lambda correct, total: float((correct / total).max()),
                "The best task. The average is asked for.",
            ),
            Mistake(
                "median",
                lambda correct, total: float((correct / total).median()),
                "The median does not see a task that is forgotten altogether. The mean is asked for.",
            ),
        ),
        "One accuracy per task, then their mean: every task counts alike.",
    ),
    Exercise(
        "08.report",
        "Bug hunt: the number in the paper",
        2,
        "A method was run with S settings and K seeds each. Held-out training data and test data were both "
        "measured. Which one "
        "number is honest? Choose the setting by its mean on the held-out data, report the mean on the test data.",
        report,
        _sweeps,
        (
            Mistake(
                "chosen on the test set",
                lambda valid, test: float(test.mean(1).max()),
                "The setting was chosen on the test set: with enough settings, one of them is good there by luck. "
                "Choose on "
                "`valid`, look at `test` once.",
            ),
            Mistake(
                "best seed",
                lambda valid, test: float(test[valid.mean(1).argmax()].max()),
                "The best seed of the right setting. The more seeds one runs, the better it gets: report their mean.",
            ),
            Mistake(
                "validation reported",
                lambda valid, test: float(valid.mean(1).max()),
                "The setting was chosen because this number is high, so it is too high. Report the test data.",
            ),
            Mistake(
                "best run of all",
                lambda valid, test: float(test.max()),
                "The luckiest of all runs, on the very data it is judged by.",
            ),
            Mistake(
                "a setting per seed",
                lambda valid, test: float(test.gather(0, valid.argmax(0, keepdim=True)).mean()),
                "Every seed has a setting of its own here. A method has one: average over the seeds before you choose.",
            ),
            Mistake(
                "mean over all settings",
                lambda valid, test: float(test.mean()),
                "The mean over all settings, bad ones included. Which setting would you use?",
            ),
        ),
        "Two steps: `valid` picks the row, `test` gives the number.",
    ),
)
