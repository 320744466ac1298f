"""Recorded numbers: a recipe is run, and written down beside the published numbers.

`reproduce` runs a recipe and writes one record with everything its numbers depend on. `clteach.results` reads records back
and makes the tables of the book from them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import torch

import clteach
from clteach import presets
from clteach.errors import ConfigError, unknown
from clteach.features import trained
from clteach.jobs import Job, Result, check_place, code, run_jobs, write_json
from clteach.methods import METHODS, method
from clteach.metrics import mean_sem
from clteach.provenance import checkout, in_turn, machine, together
from clteach.recipes import RECIPES, Study
from clteach.results import published

DEFAULT_METHODS = ("finetune", "ewc", "generative-replay", "joint")


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """The seeds of one experiment together, as shares of 1.

    Returns:
        ``average_accuracy`` and ``forgetting`` (mean, SEM or None for one seed, values of the seeds), ``accuracy_matrix``
        (T, T) mean over seeds, of several seeds also ``accuracy_matrices`` (seeds, T, T) for the tasks learned so far,
        ``seconds`` and ``iterations_per_second`` of a run (mean over seeds), ``settings``. A method with another measure has
        its name instead (``average_fid``, ``fid_matrix``) and says so in ``measure``. Of pure generators also the average
        and the matrices of every further measure, such as ``average_precision`` and ``precision_matrix``.
    """
    measure = results[0].get("measure", "accuracy")
    lost = [result["forgetting"] for result in results]
    further = {
        name: [result["quality"][name] for result in results]
        for name in results[0].get("quality", {})
        if name != measure
    }
    return {
        **({} if measure == "accuracy" else {"measure": measure}),
        f"average_{measure}": _statistics([result[f"average_{measure}"] for result in results]),
        "forgetting": None if None in lost else _statistics(lost),
        **_matrices(measure, [result[measure] for result in results]),
        **{f"average_{name}": _statistics([sum(R[-1]) / len(R) for R in each]) for name, each in further.items()},
        **{key: value for name, each in further.items() for key, value in _matrices(name, each).items()},
        "seconds": mean_sem([result["seconds"] for result in results])[0],
        "iterations_per_second": mean_sem([result["iterations_per_second"] for result in results])[0],
        "settings": results[0]["job"]["settings"],
    }


def _matrices(measure: str, seeds: Sequence[list[list[float | None]]]) -> dict[str, Any]:
    """The mean over seeds (T, T), and of several seeds each one's matrix, without the tasks not learned yet."""
    matrices = torch.tensor(
        [[[math.nan if v is None else v for v in row] for row in R] for R in seeds], dtype=torch.float64
    )
    found: dict[str, Any] = {f"{measure}_matrix": _rounded(matrices.mean(0))}
    if len(seeds) > 1:
        learned = torch.ones(matrices.shape[1:], dtype=torch.bool).tril()
        found[f"{measure}_matrices"] = [_rounded(one) for one in matrices.where(learned, torch.nan)]
    return found


def _rounded(matrix: torch.Tensor) -> list[list[float | None]]:
    return [[None if math.isnan(v) else round(v, 6) for v in row] for row in matrix.tolist()]


def _statistics(values: list[float]) -> dict[str, Any]:
    mean, sem = mean_sem(values)
    return {"mean": mean, "sem": None if math.isnan(sem) else sem, "seeds": values}


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination: ``{"lam": [1, 2], "lr": [3]}`` -> ``[{"lam": 1, "lr": 3}, {"lam": 2, "lr": 3}]``."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def reproduce(
    name: str,
    out: str | Path = "results",
    *,
    preset: str | None = None,
    seeds: int | None = None,
    iters: int | None = None,
    tasks: int | None = None,
    device: str = "auto",
    **how: Any,
) -> Path:
    """Run a recipe and write its record, ``out/NAME.json``; an interrupted one continues.

    Fewer steps or permutations than the recipe has, or fewer seeds than its own or 3, make a shortened run: its record is
    named so, and its numbers are not judged against the published ones.

    Args:
        name: one of `RECIPES`.
        out: folder of the record; the runs are under ``out/runs``.
        preset: one of the recipe's presets.
        seeds: number of seeds.
        iters: steps per task.
        tasks: permutations, of a recipe on permuted data.
        device: "auto", "cpu" or "cuda".
        **how: passed on to `run_jobs`.

    Raises:
        ClteachError: an unknown name, a number of tasks that the recipe cannot have, or as `run_jobs`.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if tasks is not None and (isinstance(recipe, Study) or not recipe.stream.startswith("permuted-")):
        raise ConfigError(f"tasks={tasks}: the tasks of {name} are fixed. Expected only with recipes on permuted data.")
    if isinstance(recipe, Study):
        if preset is not None or device not in ("auto", "cpu"):
            raise ConfigError(
                f"preset={preset!r}, device={device!r}: {name} has no presets and runs on the CPU. Leave both out."
            )
        return _reproduce_study(name, recipe, Path(out), seeds, iters, **how)
    if preset not in (None, *recipe.presets):
        raise unknown(f"preset of {name}", str(preset), recipe.presets)
    preset = preset or recipe.presets[0]
    column = presets.column(preset, recipe.stream)
    n_seeds = recipe.seeds if seeds is None else seeds
    full = column.steps if recipe.steps is None else recipe.steps
    steps = full if iters is None else iters
    if n_seeds < 1:
        raise ConfigError(f"{n_seeds} seeds: expected at least one.")
    shortened = steps < full or n_seeds < min(3, recipe.seeds)

    cells, all_tasks = [], 0
    for name_of_row, row in recipe.rows.items():
        if row.method not in METHODS or name_of_row in presets.PRESETS[preset].without:
            continue
        for scenario in recipe.scenarios:
            if scenario in METHODS[row.method].scenarios:
                own = presets.chosen(row.settings, scenario)
                settings = fitting(row.method, {**column.settings(row.method, scenario), **own})
                stream = {**column.stream, **presets.chosen(row.stream, scenario)}
                if tasks is not None:
                    all_tasks = max(all_tasks, stream["tasks"])
                    stream["tasks"] = tasks
                job = Job(row.method, recipe.stream, scenario, 0, steps, column.batch, settings, stream, device)
                cells.append((name_of_row, replace(job, evaluate_on=recipe.evaluate_on)))
    if tasks is not None and not 1 <= tasks <= all_tasks:
        raise ConfigError(f"tasks={tasks}: expected between 1 and {all_tasks}, as many as {name} has.")
    shortened = shortened or (tasks is not None and tasks < all_tasks)
    used = [{**job.settings, **job.stream_settings}.get("weights") for _, job in cells]
    extractors = [f"{file}: {trained(file)}" for file in dict.fromkeys(used) if file]
    started = time.perf_counter()
    results = run_jobs([replace(job, seed=seed) for _, job in cells for seed in range(n_seeds)], out, **how)
    wall = time.perf_counter() - started

    notes = presets.PRESETS[preset].notes_about({job.method for _, job in cells})
    deviations = [*notes, *recipe.deviations, *extractors]
    if recipe.paper_seeds and n_seeds != recipe.paper_seeds:
        deviations.append(f"{n_seeds} seed{'s' * (n_seeds > 1)} instead of {recipe.paper_seeds}")
    if steps != full:
        deviations.append(f"{steps} steps per task instead of {full}")
    if tasks not in (None, all_tasks):
        deviations.append(f"{tasks} permutations instead of {all_tasks}")
    table = []
    for i, (name_of_row, job) in enumerate(cells):
        summary = summarise(results[i * n_seeds : (i + 1) * n_seeds])
        cell = {"row": name_of_row, "method": job.method, "scenario": job.scenario, **summary}
        own = {k: v for k, v in job.stream_settings.items() if column.stream.get(k) != v}
        if own:
            cell["stream"] = {**own, "fingerprint": results[i * n_seeds]["fingerprint"]}
        paper = published(recipe.stream, preset, name_of_row, job.scenario)
        measure = METHODS[job.method].measure
        table.append({**cell, **compare(summary[f"average_{measure}"], paper, shortened, measure)})
    options = ["--preset", preset] if len(recipe.presets) > 1 else []
    options += [] if seeds is None else ["--seeds", str(seeds)]
    options += [] if iters is None else ["--iters", str(iters)]
    options += [] if tasks is None else ["--tasks", str(tasks)]
    record = {
        "name": name,
        "summary": recipe.summary,
        "shortened": shortened,
        "command": shlex.join(["clteach", "reproduce", name, *options]),
        "version": clteach.__version__,
        "commit": in_turn([result["commit"] for result in results]),
        "preset": preset,
        "preset_source": presets.PRESETS[preset].source,
        "seeds": list(range(n_seeds)),
        "steps": steps,
        "batch": column.batch,
        "axis": recipe.axis,
        "stream": {"name": recipe.stream, **column.stream, "fingerprint": results[0]["fingerprint"]},
        **({} if recipe.evaluate_on == "test" else {"evaluate_on": recipe.evaluate_on}),
        "training_seconds": sum(result["seconds"] for result in results),
        # A command that was interrupted and repeated has no wall-clock time of its own.
        "wall_seconds": None if any(result["read_back"] for result in results) else wall,
        "device": together([result["device"] for result in results]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deviations": deviations,
        "cells": table,
    }
    file = name + (f"-{preset}" if len(recipe.presets) > 1 else "") + ("-shortened" if shortened else "")
    return write_json(Path(out) / f"{file.replace('-', '_')}.json", record)


def _reproduce_study(
    name: str,
    study: Study,
    out: Path,
    seeds: int | None,
    iters: int | None,
    n_jobs: int | None = None,
    fresh: bool = False,
) -> Path:
    """`reproduce` for a `Study`: one file per row and seed, so that an interrupted one continues; always on the CPU."""
    n_seeds = study.seeds if seeds is None else seeds
    steps = study.steps if iters is None else iters
    if n_seeds < 1 or steps < 1:
        raise ConfigError(f"{n_seeds} seeds, {steps} steps: expected at least one of each.")
    check_place(out, n_jobs)
    started, commit = time.perf_counter(), checkout()
    files, todo = [], []
    for row, seed in itertools.product(study.rows.values(), range(n_seeds)):
        identity = json.dumps([code(study.run.__module__), dict(row), steps, seed], sort_keys=True)
        file = out / "runs" / name / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        files.append(file)
        if fresh or not file.exists():
            todo.append(joblib.delayed(_run_study)(study.run, file, {**row, "seed": seed, "steps": steps}))
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        joblib.Parallel(n_jobs or joblib.cpu_count(), batch_size=1)(todo)
    results = [json.loads(file.read_text()) for file in files]
    cells = []
    for i, (name_of_row, row) in enumerate(study.rows.items()):
        runs = results[i * n_seeds : (i + 1) * n_seeds]
        scores = {measure: _statistics([run["measures"][measure] for run in runs]) for measure in study.measures}
        cells.append({"row": name_of_row, "settings": dict(row), "measures": scores, "verdict": "not published"})
    shortened = steps < study.steps or n_seeds < min(3, study.seeds)
    options = [] if seeds is None else ["--seeds", str(seeds)]
    options += [] if iters is None else ["--iters", str(iters)]
    record = {
        "name": name,
        "summary": study.summary,
        "shortened": shortened,
        "command": shlex.join(["clteach", "reproduce", name, *options]),
        "version": clteach.__version__,
        "commit": commit,
        "preset_source": study.source,
        "seeds": list(range(n_seeds)),
        "steps": steps,
        "measures": dict(study.measures),
        "training_seconds": sum(run["seconds"] for run in results),
        "wall_seconds": time.perf_counter() - started if len(todo) == len(files) else None,
        "device": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deviations": [
            *study.deviations,
            *([f"{steps} steps instead of {study.steps}"] if steps != study.steps else []),
        ],
        "cells": cells,
    }
    return write_json(out / f"{(name + '-shortened' * shortened).replace('-', '_')}.json", record)


def _run_study(run: Callable[..., dict[str, float]], file: Path, arguments: Mapping[str, Any]) -> None:
    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        measures = run(**arguments)
    finally:
        torch.set_num_threads(threads)
    write_json(file, {**arguments, "measures": measures, "seconds": time.perf_counter() - started})


def compare(
    ours: Mapping[str, Any], paper: Mapping[str, Any] | None, withheld: bool = False, measure: str = "accuracy"
) -> dict[str, Any]:
    """Does our number agree with the published one? In percentage points.

    It agrees when |ours - published| ≤ max(0.5, 2.5 √(SEM² + SEM_published²)), or, where no SEM is published, when it is
    within max(1.5, 2.5 SEM). FIDs are shown, not judged: they were taken in the features of another network.

    Args:
        ours: mean and sem as shares of 1 (sem None: one seed, counted as 0).
        paper: mean and sem (or None) in percent; None: not published.
        withheld: give no verdict (a shortened run).
        measure: what is compared, one of `metrics.MEASURES`.
    """
    if paper is None:
        return {"published": None, "difference": None, "tolerance": None, "verdict": "not published"}
    if measure == "fid":
        # Two networks, two scales: a difference would mean nothing.
        return {"published": dict(paper), "difference": None, "tolerance": None, "verdict": "other features"}
    difference = 100 * ours["mean"] - paper["mean"]
    sem = 100 * (ours["sem"] or 0.0)
    tolerance = max(1.5, 2.5 * sem) if paper["sem"] is None else max(0.5, 2.5 * math.hypot(sem, paper["sem"]))
    verdict = "agrees" if abs(difference) <= tolerance else "differs"
    return {
        "published": dict(paper),
        "difference": difference,
        "tolerance": tolerance,
        "verdict": "withheld" if withheld else verdict,
    }


def fitting(method_name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that the method has (a preset's common ones are for the methods that know them)."""
    return {k: v for k, v in settings.items() if k in method(method_name).Config.__dataclass_fields__}
