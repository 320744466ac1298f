"""Exercises of chapter 1, *Forgetting*."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.exercises.exercise import Cases, Exercise, Mistake, choice, gradients_by

TITLE = "Forgetting"


def predict() -> str:
    """Your guess, one letter."""
    ### BEGIN SOLUTION
    return "d"
    ### END SOLUTION


def active(scenario: str, task: int, seen: int, n_tasks: int) -> Tensor:
    """(n_out,) bool: the output units that a sample of `task` competes over, when every task has two classes.

    scenario "task", "domain" or "class"; `seen` tasks so far, the current one included. There are 2 * n_tasks output
    units, in Domain-IL only 2. In Class-IL the classes seen so far compete.
    """
    ### BEGIN SOLUTION
    if scenario == "domain":
        return torch.ones(2, dtype=torch.bool)
    units = torch.arange(2 * n_tasks)
    return units // 2 == task if scenario == "task" else units < 2 * seen
    ### END SOLUTION


def fisher(gradients: Tensor) -> Tensor:
    """(P,) diagonal Fisher information from the samples' gradients of log p, (N, P): one row per sample."""
    ### BEGIN SOLUTION
    return gradients.square().mean(0)
    ### END SOLUTION


def fisher_linear(a: Tensor, delta: Tensor) -> Tensor:
    """(n_out, n_in) Fisher information of a linear layer's weight, without a gradient per sample.

    a (N, n_in): the layer's input. delta (N, n_out): gradient of each sample's log p at the layer's output. The gradient
    at the weight is the outer product of the two, for each sample.
    """
    ### BEGIN SOLUTION
    return delta.square().T @ a.square() / len(a)
    ### END SOLUTION


def importance(task_gradients: Tensor, penalty_gradients: Tensor, thetas: Tensor, epsilon: float) -> Tensor:
    """(P,) SI's importance of every weight after one task of S steps: ω / (Δ² + ε).

    task_gradients, penalty_gradients (S, P): gradients of the task's loss and of the penalty in every step.
    thetas (S + 1, P): the weights before the first step and after each step.
    """
    ### BEGIN SOLUTION
    omega = -(task_gradients * thetas.diff(dim=0)).sum(0)
    moved = thetas[-1] - thetas[0]
    return omega / (moved.square() + epsilon)
    ### END SOLUTION


def distillation(logits: Tensor, old_logits: Tensor, T: float) -> Tensor:
    """() distillation loss at temperature T: mean over the samples of -T² Σ_c p_old,c log p_c; logits (B, C) each."""
    ### BEGIN SOLUTION
    p_old = F.softmax(old_logits / T, 1)
    log_p = F.log_softmax(logits / T, 1)
    return -(T**2) * (p_old * log_p).sum(1).mean()
    ### END SOLUTION


def memorable(logits: Tensor, y: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(C, n) positions of each class's n memorable points, the most memorable first, and (C, n) their scores.

    logits (N, C), labels y (N,): every class has at least n samples. The score is Σ_c p_c (1 - p_c).
    """
    ### BEGIN SOLUTION
    p = F.softmax(logits, 1)
    score = (p * (1 - p)).sum(1)
    of_class = torch.arange(logits.shape[1])[:, None] == y
    best, positions = score.where(of_class, -torch.inf).topk(n)
    return positions, best
    ### END SOLUTION


def functional_prior(
    m: Tensor, m_old: Tensor, jacobian: Tensor, variance: Tensor, tau: float, epsilon: float
) -> Tensor:
    """() the functional prior ½ τ Σ_c (m_c - m_old,c)ᵀ (K_c + ε I)⁻¹ (m_c - m_old,c) with K_c = J_c diag(σ²) J_cᵀ.

    m, m_old (N, C): probabilities at N memorable points. jacobian (C, N, P): row i of J_c is the gradient of the old p_c at
    point i. variance (P,): σ² of every weight.
    """
    ### BEGIN SOLUTION
    kernel = (jacobian * variance) @ jacobian.mT + epsilon * torch.eye(len(m))
    change = (m - m_old).T
    return 0.5 * tau * (change * torch.linalg.solve(kernel, change)).sum()
    ### END SOLUTION


def _situations(rng: torch.Generator) -> Cases:
    return {
        "Task-IL, an image of task 0 after three of five tasks": ("task", 0, 3, 5),
        "Task-IL, an image of task 2 after three of five tasks": ("task", 2, 3, 5),
        "Domain-IL, an image of task 1 after three of five tasks": ("domain", 1, 3, 5),
        "Class-IL, an image of task 0 after three of five tasks": ("class", 0, 3, 5),
        "Class-IL, an image of task 1 after two of four tasks": ("class", 1, 2, 4),
        "Class-IL, after the last task": ("class", 2, 3, 3),
    }


def _gradients(rng: torch.Generator) -> Cases:
    return {
        "two samples that pull in opposite directions": (torch.tensor([[1.0, 2.0, 0.0], [-1.0, 2.0, 0.0]]),),
        "one sample": (torch.randn(1, 4, generator=rng),),
        "64 samples, 3 weights": (torch.randn(64, 3, generator=rng) * torch.tensor([0.1, 1.0, 10.0]) + 0.3,),
    }


def _layers(rng: torch.Generator) -> Cases:
    def layer(n: int, n_in: int, n_out: int) -> tuple[Tensor, Tensor]:
        return torch.randn(n, n_in, generator=rng), torch.randn(n, n_out, generator=rng)

    return {
        "two samples that cancel": (torch.ones(2, 1), torch.tensor([[1.0], [-1.0]])),
        "8 samples, 3 inputs, 2 outputs": layer(8, 3, 2),
        "50 samples, 4 inputs, 4 outputs": layer(50, 4, 4),
    }


def _paths(rng: torch.Generator) -> Cases:
    def path(steps: int, weights: int) -> tuple[Tensor, Tensor, Tensor, float]:
        task = torch.randn(steps, weights, generator=rng)
        penalty = 0.5 * torch.randn(steps, weights, generator=rng)
        moves = -0.1 * (task + penalty)
        return task, penalty, torch.cat([torch.zeros(1, weights), moves.cumsum(0)]) + 1, 0.1

    back = torch.tensor([[0.0], [1.0], [0.0]])  # out and back: the distance is 0
    return {
        "a weight that goes out and comes back": (torch.tensor([[-2.0], [1.0]]), torch.zeros(2, 1), back, 0.5),
        "5 steps, 2 weights": path(5, 2),
        "40 steps, 3 weights": path(40, 3),
    }


def _logits(rng: torch.Generator) -> Cases:
    def pair(n: int, c: int) -> tuple[Tensor, Tensor]:
        return 3 * torch.randn(n, c, generator=rng), 3 * torch.randn(n, c, generator=rng)

    same = torch.tensor([[2.0, 0.0]])
    return {
        "both models agree, T = 2": (same, same.clone(), 2.0),
        "16 samples, 4 classes, T = 2": (*pair(16, 4), 2.0),
        "8 samples, 10 classes, T = 1": (*pair(8, 10), 1.0),
        "very sure models, T = 4": (2000 * torch.eye(3), -2000 * torch.eye(3), 4.0),
    }


def _uncertain(rng: torch.Generator) -> Cases:
    def samples(n: int, c: int, most: int) -> tuple[Tensor, Tensor, int]:
        y = torch.arange(n) % c
        return 3 * torch.randn(n, c, generator=rng), y[torch.randperm(n, generator=rng)], most

    sure = torch.tensor([[4.0, 0.0], [0.1, 0.0], [0.0, 3.0], [0.0, 0.5], [9.0, 0.0], [2.0, 0.0]])
    return {
        "two classes of three, n = 1": (sure, torch.tensor([0, 0, 1, 1, 0, 1]), 1),
        "40 samples, 4 classes, n = 3": samples(40, 4, 3),
        "9 samples, 3 classes, n = 3": samples(9, 3, 3),
    }


def _beliefs(rng: torch.Generator) -> Cases:
    def belief(
        n: int, c: int, weights: int, tau: float, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
        now, before = (torch.randn(n, c, generator=rng).softmax(1) for _ in range(2))
        jacobian = torch.randn(c, n, weights, generator=rng)
        return now, before, jacobian, torch.rand(weights, generator=rng) + 0.2, tau, epsilon

    one = torch.tensor([[0.9, 0.1]])
    same = torch.ones(2, 2, 3)  # two points that no weight tells apart: without ε there is no inverse
    return {
        "nothing has changed": (one, one.clone(), torch.ones(2, 1, 3), torch.ones(3), 3.0, 0.1),
        "one point, one weight": (one, one.flip(1), torch.full((2, 1, 1), 0.5), torch.full((1,), 8.0), 3.0, 0.1),
        "two points that answer alike": (
            torch.tensor([[0.6, 0.4], [0.5, 0.5]]),
            torch.tensor([[0.8, 0.2], [0.4, 0.6]]),
            same,
            torch.tensor([0.5, 1.0, 2.0]),
            0.7,
            0.2,
        ),
        "4 points, 3 classes, 9 weights": belief(4, 3, 9, 0.7, 0.05),
        "6 points, 2 classes, 4 weights": belief(6, 2, 4, 5.0, 0.3),
    }


def _score(logits: Tensor) -> Tensor:
    p = logits.softmax(1)
    return (p * (1 - p)).sum(1)


def _label_score(logits: Tensor, y: Tensor) -> Tensor:
    p = logits.softmax(1).gather(1, y[:, None])[:, 0]
    return p * (1 - p)


def _chosen(score: Tensor, y: Tensor, n: int, sign: int = 1) -> tuple[Tensor, Tensor]:
    best, positions = score.where(torch.arange(int(y.max()) + 1)[:, None] == y, -torch.inf).topk(n)
    return positions, sign * best


def _kernel(m: Tensor, jacobian: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    return (jacobian * variance) @ jacobian.mT + epsilon * torch.eye(len(m))


def _prior(m: Tensor, m_old: Tensor, precision: Tensor, tau: float) -> Tensor:
    change = (m - m_old).T
    return 0.5 * tau * torch.einsum("ci,cij,cj->", change, precision, change)


EXERCISES = (
    choice(
        "01.predict",
        "Predict, then run: hold tighter",
        "EWC in Class-IL ends like fine-tuning: the newest task is known, the others are at zero. Now raise its "
        "strength "
        "$\\lambda$, step by step, to ten thousand times the value in the preset. What happens to the average "
        "accuracy over "
        "all tasks? Guess, check, then move the slider of the explorer and watch its right panel.",
        {
            "a": (
                "It rises and ends near joint training: at last the old tasks are held.",
                "The springs can hold the old answers. Which comparison would still be missing between old and new "
                "classes?",
            ),
            "b": (
                "It rises to about that of experience replay.",
                "Experience replay shows old and new classes in one batch. Do the springs bring in such a contrast?",
            ),
            "c": (
                "Nothing happens: the Fisher information is zero everywhere.",
                "It is zero for the *new* units only. The springs on all the other weights do pull.",
            ),
            "d": ("It stays far below joint training: at best a part of the old tasks is kept.", ""),
            "e": (
                "It falls to zero: the network knows nothing any more.",
                "A network whose weights cannot move keeps what it knew: it still answers for the first task.",
            ),
        },
        predict,
        "No strength brings in a contrast that the loss does not contain: to tell an old class from a new one, some "
        "step of "
        "training must compare them.",
        "Holding the weights tighter, does any step of training show an old class beside a new one?",
    ),
    Exercise(
        "01.active",
        "Who competes with whom",
        2,
        "The three scenarios in one function: write `spec.active` for one sample. Every task has two classes; in "
        "Class-IL the "
        "classes of the tasks *seen so far* compete.",
        active,
        _situations,
        (
            Mistake(
                "all classes in Class-IL",
                lambda scenario, task, seen, n_tasks: (
                    torch.ones(2 * n_tasks, dtype=torch.bool)
                    if scenario == "class"
                    else active(scenario, task, seen, n_tasks)
                ),
                "In Class-IL you let all units compete, also those of tasks not seen yet. That is the other flavour "
                '(`active_units="all"`), and it moves the numbers. Here: seen so far.',
            ),
            Mistake(
                "task's own units in Class-IL",
                lambda scenario, task, seen, n_tasks: active(
                    "task" if scenario == "class" else scenario, task, seen, n_tasks
                ),
                "In Class-IL nobody says which task the image is from, so its own two units are not enough.",
            ),
            Mistake(
                "all seen units in Task-IL",
                lambda scenario, task, seen, n_tasks: active(
                    "class" if scenario == "task" else scenario, task, seen, n_tasks
                ),
                "In Task-IL the task is known: units of other tasks must not compete, seen or not.",
            ),
            Mistake(
                "current task left out",
                lambda scenario, task, seen, n_tasks: active(
                    scenario, task, seen - 1 if scenario == "class" else seen, n_tasks
                ),
                "`seen` includes the current task: its units must compete too, or it could never be learned.",
            ),
            Mistake(
                "Domain-IL with many units",
                lambda scenario, task, seen, n_tasks: active(
                    "task" if scenario == "domain" else scenario, task, seen, n_tasks
                ),
                "Domain-IL has two output units in all, shared by every task.",
            ),
        ),
        "Take the scenarios one by one. How many units are there, and what does the sample's task say about them?",
    ),
    Exercise(
        "01.fisher",
        "Bug hunt: the square and the mean",
        2,
        "You have the gradient of every sample's log-probability. Write the diagonal of the Fisher information, "
        "$F_i = \\frac1N \\sum_n g_{n,i}^2$. (The common bug squares the gradient of the batch: you met it in this "
        "chapter.)",
        fisher,
        _gradients,
        (
            Mistake(
                "batch-mean gradient",
                lambda gradients: gradients.mean(0).square(),
                "First mean, then square: this is the bug. Gradients of opposite sign cancel in the mean, and the "
                "springs "
                "become too weak. Square each sample's gradient, then average.",
            ),
            Mistake(
                "sum",
                lambda gradients: gradients.square().sum(0),
                "A sum over the samples grows with N: take the mean.",
            ),
            Mistake(
                "no square",
                lambda gradients: gradients.abs().mean(0),
                "The mean absolute gradient. The Fisher information is made of squares.",
            ),
            Mistake(
                "variance",
                lambda gradients: gradients.var(0, unbiased=False),
                "This is the variance: it takes the squared mean away, which F keeps.",
            ),
            Mistake(
                "wrong dimension",
                lambda gradients: gradients.square().mean(1),
                "Averaged over the weights. One number per weight is asked for: average over the samples (dimension "
                "0).",
            ),
        ),
        "The square stands inside the sum over samples.",
    ),
    Exercise(
        "01.fisher_linear",
        "Fast and exact: one matrix product",
        3,
        "For one sample the gradient of a linear layer's weight is $\\delta a^\\top$. Write the Fisher information "
        "$\\frac1N \\sum_n (\\delta_n a_n^\\top)^2$ (the square is element by element) as *one* matrix product, "
        "with no loop and "
        "no tensor of shape (N, n_out, n_in).",
        fisher_linear,
        _layers,
        (
            Mistake(
                "squared product",
                lambda a, delta: (delta.T @ a / len(a)).square(),
                "This squares the gradient of the batch mean. Each sample's outer product must be squared before "
                "the sum: "
                "$(\\delta_i a_j)^2 = \\delta_i^2 a_j^2$.",
            ),
            Mistake(
                "sum squared, divided once",
                lambda a, delta: (delta.T @ a).square() / len(a),
                "The square stands outside the sum over samples. Use $(\\delta_i a_j)^2 = \\delta_i^2 a_j^2$ before "
                "you sum.",
            ),
            Mistake(
                "transposed",
                lambda a, delta: a.square().T @ delta.square() / len(a),
                "Transposed: `nn.Linear` keeps its weight as (n_out, n_in).",
            ),
            Mistake(
                "no mean",
                lambda a, delta: delta.square().T @ a.square(),
                "The sum over the samples is right; divide it by their number.",
            ),
            Mistake(
                "one factor not squared",
                lambda a, delta: delta.square().T @ a / len(a),
                "The input a must be squared as well: the square of a product is the product of the squares.",
            ),
        ),
        "$(\\delta_i a_j)^2 = \\delta_i^2 a_j^2$, and a sum over samples of products is a matrix product.",
    ),
    Exercise(
        "01.importance",
        "The path integral of SI",
        2,
        "From a recorded run of one task compute SI's importance: $\\omega = -\\sum_s g_s \\Delta\\theta_s$ with "
        "$g$ the gradient of the **task's loss alone** (the choice of the original paper), divided by "
        "$(\\theta^\\text{end} - \\theta^\\text{start})^2 + \\varepsilon$.",
        importance,
        _paths,
        (
            Mistake(
                "gradient with the penalty",
                lambda task_gradients, penalty_gradients, thetas, epsilon: importance(
                    task_gradients + penalty_gradients, penalty_gradients, thetas, epsilon
                ),
                "Your gradient has the penalty in it. Then a weight also earns importance for obeying the springs, "
                "though the task's loss did not fall by it. (Some published code does this; it changes the numbers.)",
            ),
            Mistake(
                "sign",
                lambda task_gradients, penalty_gradients, thetas, epsilon: (
                    -importance(task_gradients, penalty_gradients, thetas, epsilon)
                ),
                "The sign is reversed: a step against the gradient lowers the loss, so it must count as positive.",
            ),
            Mistake(
                "no epsilon",
                lambda task_gradients, penalty_gradients, thetas, epsilon: importance(
                    task_gradients, penalty_gradients, thetas, 0.0
                ),
                "Without ε a weight that came back to where it started is divided by zero.",
            ),
            Mistake(
                "distance not squared",
                lambda task_gradients, penalty_gradients, thetas, epsilon: (
                    -(task_gradients * thetas.diff(dim=0)).sum(0) / ((thetas[-1] - thetas[0]).abs() + epsilon)
                ),
                "The distance is squared: the penalty is quadratic, and with c = 1 undoing the move shall cost just ω.",
            ),
            Mistake(
                "length of the path",
                lambda task_gradients, penalty_gradients, thetas, epsilon: (
                    -(task_gradients * thetas.diff(dim=0)).sum(0) / (thetas.diff(dim=0).square().sum(0) + epsilon)
                ),
                "You sum the squared *steps*. Δ is the distance from the first to the last weights, "
                "however long the way between was.",
            ),
            Mistake(
                "endpoints only",
                lambda task_gradients, penalty_gradients, thetas, epsilon: (
                    -task_gradients.sum(0) * (thetas[-1] - thetas[0]) / ((thetas[-1] - thetas[0]).square() + epsilon)
                ),
                "A path integral multiplies gradient and move in every single step, then sums: "
                "the sum of the products is not the product of the sums.",
            ),
        ),
        "`thetas.diff(dim=0)` holds the move of every step. Multiply with the gradient of that step, sum, change "
        "the sign.",
    ),
    Exercise(
        "01.distillation",
        "Keep the answers",
        2,
        "Write LwF's distillation loss, $-T^2 \\sum_c p^\\text{old}_c(T) \\log p_c(T)$, averaged over the samples. Very "
        "sure models "
        "must not give infinity or NaN.",
        distillation,
        _logits,
        (
            Mistake(
                "no T squared",
                lambda logits, old_logits, T: distillation(logits, old_logits, T) / T**2,
                "The factor T² is missing. Softened gradients shrink with 1/T²; the factor keeps the loss in balance.",
            ),
            Mistake(
                "mean over the classes",
                lambda logits, old_logits, T: distillation(logits, old_logits, T) / logits.shape[1],
                "The mean runs over the classes too, where the formula sums: the loss is too small by their number, the "
                "more so the more classes there are. (This bug stood behind published tables once.)",
            ),
            Mistake(
                "only targets softened",
                lambda logits, old_logits, T: (
                    -(T**2) * (F.softmax(old_logits / T, 1) * F.log_softmax(logits, 1)).sum(1).mean()
                ),
                "Only the old answers are softened. Both models run at temperature T, or their best match would be "
                "no match.",
            ),
            Mistake(
                "roles swapped",
                lambda logits, old_logits, T: distillation(old_logits, logits, T),
                "The roles are swapped: the old model gives the probabilities, the learning one the logarithm.",
            ),
            Mistake(
                "hard targets",
                lambda logits, old_logits, T: F.cross_entropy(logits, old_logits.argmax(1)),
                "These are hard targets: only the old model's first choice. The soft ones also say what else it "
                "might be.",
            ),
            Mistake(
                "KL divergence",
                lambda logits, old_logits, T: (
                    T**2 * F.kl_div(F.log_softmax(logits / T, 1), F.softmax(old_logits / T, 1), reduction="batchmean")
                ),
                "This is the KL divergence: the cross-entropy minus the old model's own entropy. It has the same "
                "gradient, "
                "but another value; the formula asks for the cross-entropy.",
            ),
            Mistake(
                "log of softmax",
                lambda logits, old_logits, T: (
                    -(T**2) * (F.softmax(old_logits / T, 1) * F.softmax(logits / T, 1).log()).sum(1).mean()
                ),
                "log(softmax(x)) is -∞ where the probability rounds to 0. `F.log_softmax` computes both together, "
                "safely.",
            ),
        ),
        "Soften both sets of logits by T, then cross-entropy with the old probabilities, times T².",
        observe=gradients_by(distillation, "logits"),
    ),
    Exercise(
        "01.memorable",
        "Which points are memorable",
        2,
        "FROMP keeps those points of which the network is least sure: of every class the $n$ with the largest "
        "$\\sum_c p_c (1 - p_c)$, the sum over the diagonal of the softmax's Hessian. Find them, and their scores.",
        memorable,
        _uncertain,
        (
            Mistake(
                "most certain",
                lambda logits, y, n: _chosen(-_score(logits), y, n, sign=-1),
                "You keep the points of which the network is *surest*. They are far from the border between classes, and "
                "hardly any change of the network shows there.",
            ),
            Mistake(
                "over all classes",
                lambda logits, y, n: tuple(
                    found.view(logits.shape[1], n) for found in _score(logits).topk(logits.shape[1] * n)[::-1]
                ),
                "These are the best of all samples together. A class that is easy to tell would keep no point: choose "
                "$n$ of every class.",
            ),
            Mistake(
                "predicted class",
                lambda logits, y, n: memorable(logits, logits.argmax(1), n),
                "You sort the samples by the class that the network *predicts*. A point of which it is not sure may well be "
                "predicted wrongly: use the labels `y`.",
            ),
            Mistake(
                "only the label's probability",
                lambda logits, y, n: _chosen(_label_score(logits, y), y, n),
                "You score with the probability of the label alone. The Hessian has an entry for every class: sum them.",
            ),
            Mistake(
                "entropy",
                lambda logits, y, n: _chosen(-(logits.softmax(1) * logits.log_softmax(1)).sum(1), y, n),
                "This is the entropy. It measures doubt as well, but the score asked for is $\\sum_c p_c (1 - p_c)$.",
            ),
            Mistake(
                "no softmax",
                lambda logits, y, n: _chosen((logits * (1 - logits)).sum(1), y, n),
                "These are logits, no probabilities: the softmax is missing.",
            ),
            Mistake(
                "sigmoid",
                lambda logits, y, n: _chosen((logits.sigmoid() * (1 - logits.sigmoid())).sum(1), y, n),
                "The sigmoid looks at each logit by itself. The classes compete, so their probabilities are a softmax.",
            ),
            Mistake(
                "least memorable first",
                lambda logits, y, n: tuple(found.flip(1) for found in memorable(logits, y, n)),
                "The right points and scores, but the most memorable one shall come first.",
            ),
        ),
        "Scores first: one per sample. Then, class by class, the `topk` among the samples with that label.",
    ),
    Exercise(
        "01.functional_prior",
        "A belief about functions",
        3,
        "Write FROMP's penalty, $\\frac{\\tau}{2} \\sum_c (m_c - m_c^\\text{old})^\\top (K_c + \\epsilon I)^{-1} "
        "(m_c - m_c^\\text{old})$, with the kernels $K_c = J_c\\, \\mathrm{diag}(\\sigma^2)\\, J_c^\\top$.",
        functional_prior,
        _beliefs,
        (
            Mistake(
                "kernel not inverted",
                lambda m, m_old, jacobian, variance, tau, epsilon: _prior(
                    m, m_old, _kernel(m, jacobian, variance, epsilon), tau
                ),
                "The kernel stands where its inverse belongs. K is a *variance*: where it is large the function may change, "
                "so a change must be cheap there.",
            ),
            Mistake(
                "all points alike",
                lambda m, m_old, jacobian, variance, tau, epsilon: 0.5 * tau * (m - m_old).square().sum(),
                "Without the kernel every point and every change counts alike. The kernel says which changes the posterior "
                "of the weights allows.",
            ),
            Mistake(
                "diagonal only",
                lambda m, m_old, jacobian, variance, tau, epsilon: (
                    0.5
                    * tau
                    * ((m - m_old).T.square() / _kernel(m, jacobian, variance, epsilon).diagonal(dim1=1, dim2=2)).sum()
                ),
                "You divide by the kernel's diagonal. The entries beside it say which points change together, and the "
                "inverse of a matrix is not the matrix of the inverses.",
            ),
            Mistake(
                "precision for variance",
                lambda m, m_old, jacobian, variance, tau, epsilon: functional_prior(
                    m, m_old, jacobian, 1 / variance, tau, epsilon
                ),
                "You divided by the variance of the weights. A weight that is uncertain makes the function uncertain: it "
                "multiplies.",
            ),
            Mistake(
                "standard deviation",
                lambda m, m_old, jacobian, variance, tau, epsilon: functional_prior(
                    m, m_old, jacobian, variance.sqrt(), tau, epsilon
                ),
                "$\\Sigma$ holds variances: no square root is needed, since J stands on both sides of it.",
            ),
            Mistake(
                "weights alike",
                lambda m, m_old, jacobian, variance, tau, epsilon: functional_prior(
                    m, m_old, jacobian, torch.ones_like(variance), tau, epsilon
                ),
                "$J J^\\top$ treats all weights as equally uncertain. Their variances stand between the two.",
            ),
            Mistake(
                "one kernel for all classes",
                lambda m, m_old, jacobian, variance, tau, epsilon: functional_prior(
                    m, m_old, jacobian.mean(0).expand_as(jacobian), variance, tau, epsilon
                ),
                "Every class has a kernel of its own, from the gradients of its own probability.",
            ),
            Mistake(
                "no epsilon",
                lambda m, m_old, jacobian, variance, tau, epsilon: functional_prior(
                    m, m_old, jacobian, variance, tau, 0.0
                ),
                "Without ε on the diagonal two points that answer alike, or more points than weights, have a kernel with no "
                "inverse.",
            ),
            Mistake(
                "no half",
                lambda m, m_old, jacobian, variance, tau, epsilon: (
                    2 * functional_prior(m, m_old, jacobian, variance, tau, epsilon)
                ),
                "Twice too large: a Gaussian's negative logarithm has a factor ½.",
            ),
            Mistake(
                "tau inside",
                lambda m, m_old, jacobian, variance, tau, epsilon: (
                    functional_prior(m, m_old, jacobian, variance, 1.0, epsilon) / tau
                ),
                "τ multiplies the penalty here. (In the paper's own code it divides the loss of the current task instead.)",
            ),
        ),
        "Three steps: the kernels (C, N, N), the change (C, N), and `torch.linalg.solve` in place of an inverse.",
        observe=gradients_by(functional_prior, "m"),
    ),
)
