"""The seeds of one experiment together: means, standard errors, matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from clteach.experiments.jobs import Result
from clteach.metrics.accuracy import average_incremental_accuracy, mean_sem
from clteach.training.run import tidy


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """The seeds of one experiment together, as shares of 1.

    Returns:
        ``average_accuracy`` and ``forgetting`` (mean, SEM or None for one seed, values of the seeds), ``accuracy_matrix``
        (T, T) mean over seeds, of several seeds also ``accuracy_matrices`` (seeds, T, T) for the tasks learned so far,
        ``seconds`` and ``iterations_per_second`` of a run (mean over seeds), ``settings``. A method with another measure has
        its name instead (``average_fid``, ``fid_matrix``) and says so in ``measure``. Of pure generators also the average
        and the matrices of every further measure, such as ``average_precision`` and ``precision_matrix``. Where the training
        of a seed diverged there is no average (None), since that of the other seeds would be a choice of the lucky ones, and
        ``diverged`` says which seeds and why.
    """
    measure = results[0].get("measure", "accuracy")
    diverged = [result["diverged"] for result in results if result.get("diverged")]
    if diverged:
        return {
            **({} if measure == "accuracy" else {"measure": measure}),
            **dict.fromkeys((f"average_{measure}", "forgetting", "seconds", "iterations_per_second")),
            "diverged": diverged,
            "settings": results[0]["job"]["settings"],
        }
    lost = [result["forgetting"] for result in results]
    further = {
        name: [result["quality"][name] for result in results]
        for name in results[0].get("quality", {})
        if name != measure
    }
    return {
        **({} if measure == "accuracy" else {"measure": measure}),
        f"average_{measure}": statistics([result[f"average_{measure}"] for result in results]),
        "forgetting": None if None in lost else statistics(lost),
        **_matrices(measure, [result[measure] for result in results]),
        **{f"average_{name}": statistics([sum(R[-1]) / len(R) for R in each]) for name, each in further.items()},
        **{key: value for name, each in further.items() for key, value in _matrices(name, each).items()},
        "seconds": mean_sem([result["seconds"] for result in results])[0],
        "iterations_per_second": mean_sem([result["iterations_per_second"] for result in results])[0],
        "settings": results[0]["job"]["settings"],
    }


def incremental(results: Sequence[Result]) -> dict[str, Any]:
    """The average incremental accuracy of the seeds of one experiment, for those who compare with class-incremental papers.

    Returns:
        ``average_incremental_accuracy``, in which every task counts alike, and ``average_incremental_accuracy_by_samples``,
        in which every test sample does, each with mean, SEM and the values of the seeds. Nothing for methods with another
        measure, for runs that diverged, and for results of an earlier version, which do not say how many samples there were.
    """
    if any(result.get("accuracy") is None or "samples" not in result for result in results):
        return {}
    matrices = [_matrix(result["accuracy"]) for result in results]
    by_samples = [
        average_incremental_accuracy(R, result["samples"]) for R, result in zip(matrices, results, strict=True)
    ]
    return {
        "average_incremental_accuracy": statistics([average_incremental_accuracy(R) for R in matrices]),
        "average_incremental_accuracy_by_samples": statistics(by_samples),
    }


def scores(results: Sequence[Result]) -> list[dict[str, Any]]:
    """All scores of all runs as tidy rows, as those of `clteach.training.run.Run.frame`; none of runs that diverged."""
    return [
        row
        for result in results
        if not result.get("diverged")
        for measure in [result.get("measure", "accuracy")]
        for row in tidy(
            {key: result["job"][key] for key in ("method", "stream", "scenario", "seed")}, measure, result, measure
        )
    ]


def _matrix(rows: list[list[float | None]]) -> torch.Tensor:
    return torch.tensor([[math.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)


def _matrices(measure: str, seeds: Sequence[list[list[float | None]]]) -> dict[str, Any]:
    """The mean over seeds (T, T), and of several seeds each one's matrix, without the tasks not learned yet."""
    matrices = torch.stack([_matrix(R) for R in seeds])
    found: dict[str, Any] = {f"{measure}_matrix": _rounded(matrices.mean(0))}
    if len(seeds) > 1:
        learned = torch.ones(matrices.shape[1:], dtype=torch.bool).tril()
        found[f"{measure}_matrices"] = [_rounded(one) for one in matrices.where(learned, torch.nan)]
    return found


def _rounded(matrix: torch.Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 6) for v in row] for row in matrix.tolist()]


def statistics(values: list[float]) -> dict[str, Any]:
    mean, sem = mean_sem(values)
    return {"mean": mean, "sem": None if math.isnan(sem) else sem, "seeds": values}
