"""Continual-learning metrics: plain functions of the accuracy matrix, or of a matrix of another score.

The accuracy matrix `R` has shape (T, T) and holds shares of 1: `R[t, i]` is the accuracy on the test data of task i
after learning task t, both counted from 0. Entries above the diagonal (i > t, tasks not learned yet) may be NaN: only
`forward_transfer` reads them, and of them only `R[i - 1, i]`. Every other entry must lie in [0, 1].

A generator has no accuracy. Its matrices hold other scores, such as FID, precision and recall; the functions that make
sense for them take the `measure`, one of `MEASURES`, which knows its range and whether higher or lower is better.

Sources: Lopez-Paz & Ranzato (2017), "Gradient episodic memory for continual learning"; Chaudhry et al. (2018),
"Riemannian walk for incremental learning"; Diaz-Rodriguez et al. (2018), "Don't forget, there is more than forgetting";
Riemer et al. (2019), "Learning to learn without forgetting by maximizing transfer and minimizing interference"; Rebuffi
et al. (2017), "iCaRL: Incremental classifier and representation learning".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clteach.errors import ConfigError


class Measure(NamedTuple):
    """What the entries of a score matrix are: name and unit, factor from value to what is shown, sign, greatest value."""

    label: str
    unit: str
    factor: float
    sign: int  # 1: higher is better, -1: lower is better
    upper: float


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("accuracy", " (%)", 100, 1, 1.0),
    "fid": Measure("FID", "", 1, -1, math.inf),
    "inception_score": Measure("Inception Score", "", 1, 1, math.inf),
    "precision": Measure("precision", " (%)", 100, 1, 1.0),
    "recall": Measure("recall", " (%)", 100, 1, 1.0),
}


def _float64(values: Tensor | Sequence[float]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device="cpu").detach()


def check_matrix(R: Tensor, name: str = "R", measure: str = "accuracy") -> Tensor:
    """Return the accuracy matrix as float64 on the CPU, or say why it is none.

    Args:
        R: (T, T) accuracies as shares of 1, or another measure's scores ≥ 0; entries above the diagonal may be NaN.
        name: how to call the matrix in an error message.
        measure: one of `MEASURES`.

    Returns:
        (T, T) float64 copy or view.

    Raises:
        ConfigError: not square, empty, a value outside the measure's range, or NaN on or below the diagonal.
    """
    R = _float64(R)
    if R.ndim != 2 or R.shape[0] != R.shape[1] or len(R) == 0:
        raise ConfigError(f"{name} has shape {tuple(R.shape)}; expected (T, T), one row and one column per task.")
    if len(bad := (R.isnan() & torch.ones_like(R).tril().bool()).nonzero()):
        t, i = bad[0].tolist()
        raise ConfigError(f"{name}[{t}, {i}] is NaN; expected a value for every task learned so far (i <= t).")
    if len(bad := ((R < 0) | R.gt(MEASURES[measure].upper)).nonzero()):
        t, i = bad[0].tolist()
        expected = "a share in [0, 1] (divide percentages by 100)" if MEASURES[measure].upper == 1 else "a score ≥ 0"
        raise ConfigError(f"{name}[{t}, {i}] is {R[t, i]:g}; expected {expected}.")
    return R


def average_score(R: Tensor, measure: str = "accuracy") -> float:
    """Average of a measure over all tasks after the last one."""
    return float(check_matrix(R, measure=measure)[-1].mean())


def average_accuracy(R: Tensor) -> float:
    """Average accuracy over all tasks after the last one (ACC; Lopez-Paz & Ranzato 2017). Range [0, 1]."""
    # ACC = 1/T Σ_i R[T-1, i]
    return average_score(R)


def average_accuracy_over_time(R: Tensor, measure: str = "accuracy") -> Tensor:
    """Average accuracy (or another measure) over the tasks seen so far, after each task (A_k; Chaudhry et al. 2018).

    Returns:
        (T,) float64 in [0, 1]; the last entry is `average_accuracy(R)`.
    """
    R = check_matrix(R, measure=measure)
    # A_t = 1/(t+1) Σ_{i≤t} R[t, i]
    return torch.stack([row[: t + 1].mean() for t, row in enumerate(R)])


def average_incremental_accuracy(R: Tensor, samples: Sequence[int] | Tensor | None = None) -> float:
    """Average over time of the accuracy on everything seen so far (Rebuffi et al. 2017). Range [0, 1].

    iCaRL's paper, and PyCIL as "average accuracy" of a curve, take the accuracy on the test samples of all classes seen so
    far after each task, the first one included, where every sample counts alike: give the numbers of test samples for that.
    Without them every task counts alike, and it is the mean of `average_accuracy_over_time`. Where tasks are of different
    size, such as 50 classes and then 5 again and again, the two differ.

    Args:
        R: (T, T) accuracy matrix.
        samples: (T,) the number of test samples of every task; None: all tasks count alike.

    Raises:
        ConfigError: as `check_matrix`; or `samples` is not one number above 0 for each task.
    """
    R = check_matrix(R)
    n = torch.ones(len(R), dtype=torch.float64) if samples is None else _float64(samples)
    if n.shape != R.shape[:1] or not bool(((n > 0) & n.isfinite()).all()):
        raise ConfigError(f"samples is {n.tolist()}; expected {len(R)} numbers of test samples above 0, one per task.")
    # A_t = Σ_{i≤t} n_i R[t, i] / Σ_{i≤t} n_i,  averaged over t = 0..T-1
    seen = [row[: t + 1] @ n[: t + 1] / n[: t + 1].sum() for t, row in enumerate(R)]
    return float(torch.stack(seen).mean())


def learning_accuracy(R: Tensor) -> float:
    """Average accuracy on each task right after learning it (LA; Riemer et al. 2019). Range [0, 1]."""
    # LA = 1/T Σ_i R[i, i]
    return float(check_matrix(R).diagonal().mean())


def forgetting_per_task(R: Tensor, measure: str = "accuracy") -> Tensor:
    """Forgetting of every task but the last: its best accuracy so far minus its final one (Chaudhry et al. 2018).

    The best is taken over the times from learning the task (t >= i) to the last task but one. The paper also allows
    earlier times; here accuracies on tasks not learned yet may be NaN. Of a measure for which lower is better, it is the
    final score minus the best: positive is worse in any case.

    Returns:
        (T - 1,) float64, for accuracies in [-1, 1]; negative where later tasks improved it. Empty for T = 1.
    """
    R = MEASURES[measure].sign * check_matrix(R, measure=measure)
    last = len(R) - 1
    # f_i = max_{i≤t<T-1} R[t, i] - R[T-1, i]
    return torch.tensor([float(R[i:last, i].max() - R[last, i]) for i in range(last)], dtype=torch.float64)


def forgetting(R: Tensor, measure: str = "accuracy") -> float:
    """Average forgetting (F; Chaudhry et al. 2018), of accuracies in [-1, 1]; lower is better. NaN for T = 1."""
    # F = 1/(T-1) Σ_{i<T-1} f_i
    return float(forgetting_per_task(R, measure).mean())


def backward_transfer(R: Tensor) -> float:
    """What learning later tasks did to earlier ones (BWT; Lopez-Paz & Ranzato 2017).

    Diaz-Rodriguez et al. (2018) average the same differences over all rows t instead of the last one alone.

    Returns:
        A value in [-1, 1]; negative means forgetting. NaN for T = 1: there is no earlier task.
    """
    R = check_matrix(R)
    # BWT = 1/(T-1) Σ_{i<T-1} R[T-1, i] - R[i, i]
    return float((R[-1] - R.diagonal())[:-1].mean())


def forward_transfer(R: Tensor, initial: Tensor) -> float:
    """What learning earlier tasks did for a task before it is learned (FWT; Lopez-Paz & Ranzato 2017).

    Args:
        R: (T, T) accuracy matrix; the entries just above the diagonal, R[i - 1, i], are needed.
        initial: (T,) accuracies of the untrained model in [0, 1].

    Returns:
        A value in [-1, 1]; NaN for T = 1: no task has a predecessor.

    Raises:
        ConfigError: as `check_matrix`; or R[i - 1, i] is NaN; or `initial` is not (T,) in [0, 1].
    """
    R, initial = check_matrix(R), _float64(initial)
    if initial.shape != R.shape[:1] or not bool(((initial >= 0) & (initial <= 1)).all()):
        raise ConfigError(f"initial is {initial.tolist()}; expected {len(R)} accuracies in [0, 1], one per task.")
    before = R.diagonal(1)  # (T - 1,): task i, after task i - 1
    if bool(before.isnan().any()):
        raise ConfigError("R[i - 1, i] is NaN for some task i; evaluate each task also before it is learned.")
    # FWT = 1/(T-1) Σ_{i≥1} R[i-1, i] - b_i
    return float((before - initial[1:]).mean())


def intransigence(R: Tensor, joint: Tensor) -> float:
    """How much worse new tasks are learned than by joint training (I; Chaudhry et al. 2018), averaged over tasks.

    Args:
        R: (T, T) accuracy matrix of the learner.
        joint: (T, T) accuracy matrix of the reference: row t from a model trained on the data of tasks 0..t together.

    Returns:
        A value in [-1, 1]; negative where learning one task after the other helped.

    Raises:
        ConfigError: as `check_matrix`, for either matrix; or their shapes differ.
    """
    R, joint = check_matrix(R), check_matrix(joint, "joint")
    if R.shape != joint.shape:
        raise ConfigError(f"joint has {len(joint)} tasks but R has {len(R)}; expected matrices of the same stream.")
    # I = 1/T Σ_t joint[t, t] - R[t, t]
    return float((joint - R).diagonal().mean())


def mean_sem(values: Sequence[float] | Tensor) -> tuple[float, float]:
    """Mean and standard error of the mean over seeds.

    The variance is the unbiased one, divided by n - 1. Published tables that divide the variance by n and then take
    sqrt(var / (n - 1)) show the same number.

    Args:
        values: n numbers, one per seed, in any unit.

    Returns:
        (mean, SEM) in the same unit; SEM is NaN for one seed (it has no spread to measure: print a dash).

    Raises:
        ConfigError: no values, or not a flat list.
    """
    x = _float64(values)
    if x.ndim != 1 or len(x) == 0:
        raise ConfigError(f"values has shape {tuple(x.shape)}; expected (n,) with one number per seed, n >= 1.")
    # SEM = sqrt(var / n),  var = 1/(n-1) Σ (x - mean)²
    return float(x.mean()), math.sqrt(float(x.var()) / len(x)) if len(x) > 1 else math.nan
