"""The recipes behind the recorded tables: rows × scenarios × seeds, and the published numbers beside them.

`reproduce` runs a recipe and writes one record with everything its numbers depend on. `clteach.results` reads records back
and makes the tables of the book from them.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import joblib
import torch

import clteach
from clteach import presets, studies
from clteach.errors import ConfigError, unknown
from clteach.jobs import Job, Result, code, run_jobs, write_json
from clteach.methods import METHODS, method
from clteach.metrics import mean_sem
from clteach.presets import Row
from clteach.results import published
from clteach.streams import SCENARIOS

DEFAULT_METHODS = ("finetune", "ewc", "generative-replay", "joint")


def summarise(results: Sequence[Result]) -> dict[str, Any]:
    """The seeds of one experiment together, as shares of 1.

    Returns:
        ``average_accuracy`` and ``forgetting`` (mean, SEM or None for one seed, values of the seeds), ``accuracy_matrix``
        (T, T) mean over seeds, ``seconds`` and ``iterations_per_second`` of a run (mean over seeds), ``settings``. A method
        with another measure has its name instead (``average_fid``, ``fid_matrix``) and says so in ``measure``.
    """
    measure = results[0].get("measure", "accuracy")
    lost = [result["forgetting"] for result in results]
    matrices = [[[math.nan if v is None else v for v in row] for row in result[measure]] for result in results]
    matrix = torch.tensor(matrices, dtype=torch.float64).mean(0).tolist()
    return {
        **({} if measure == "accuracy" else {"measure": measure}),
        f"average_{measure}": _statistics([result[f"average_{measure}"] for result in results]),
        "forgetting": None if None in lost else _statistics(lost),
        f"{measure}_matrix": [[None if math.isnan(v) else v for v in row] for row in matrix],
        "seconds": mean_sem([result["seconds"] for result in results])[0],
        "iterations_per_second": mean_sem([result["iterations_per_second"] for result in results])[0],
        "settings": results[0]["job"]["settings"],
    }


def _statistics(values: list[float]) -> dict[str, Any]:
    mean, sem = mean_sem(values)
    return {"mean": mean, "sem": None if math.isnan(sem) else sem, "seeds": values}


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination: ``{"lam": [1, 2], "lr": [3]}`` -> ``[{"lam": 1, "lr": 3}, {"lam": 2, "lr": 3}]``."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


@dataclass(frozen=True)
class Recipe:
    """A recorded table: rows × scenarios × seeds on one stream.

    Args:
        summary: one line.
        stream: the stream.
        presets: the presets it can be run with, the default first.
        rows: the rows by name; those of methods that are not registered, or that the preset's paper lacks, are left out.
        scenarios: the scenarios, as far as a row's method supports them.
        seeds: number of seeds, and `paper_seeds` those of the published table.
        steps: steps per task; None: the preset's.
        axis: what the rows vary, where their names are numbers ("replayed samples per step"); None: a plain table.
        deviations: where the recipe itself leaves the paper's path.
        evaluate_on: "test", or "valid": the held-out part of the training data, where the paper judges on one.
    """

    summary: str
    stream: str
    presets: tuple[str, ...]
    rows: Mapping[str, Row]
    scenarios: tuple[str, ...] = SCENARIOS
    seeds: int = 3
    paper_seeds: int | None = None
    steps: int | None = None
    axis: str | None = None
    deviations: tuple[str, ...] = ()
    evaluate_on: str = "test"


@dataclass(frozen=True)
class Study:
    """A recorded experiment that is no stream × methods: rows × seeds of a function of its own.

    Args:
        summary: one line.
        run: what is run: ``run(seed, steps=steps, **row)`` gives {measure: value}, the same whenever it is repeated.
        rows: arguments of `run`, by the name of the row.
        measures: the measures by name, in the order of the table's columns, with what a column's head says (and the unit).
        steps: training steps of a run.
        seeds: number of seeds.
        source: where the settings come from.
        deviations: what a reader of the table must know.
    """

    summary: str
    run: Callable[..., dict[str, float]]
    rows: Mapping[str, Mapping[str, Any]]
    measures: Mapping[str, str]
    steps: int
    seeds: int
    source: str
    deviations: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()


_HNET_ROWS = {
    "HNET": Row("hypernetwork"),
    "HNET+ENT": Row("hypernetwork-ent"),
    "HNET+TIR": Row("hypernetwork-tir"),
    "HNET+R": Row("hypernetwork-r"),
}

RECIPES: dict[str, Recipe | Study] = {
    "split-digits": Recipe(
        "every method in three scenarios on the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        {name: Row(name) for name, cls in METHODS.items() if cls.measure == "accuracy"},
    ),
    "split-mnist": Recipe(
        "split MNIST (5 tasks) in three scenarios, beside a paper's table",
        "split-mnist",
        ("2022", "2019", "2018"),
        presets.ROWS,
        paper_seeds=20,
    ),
    "permuted-mnist": Recipe(
        "permuted MNIST (10 permutations) in three scenarios, beside a paper's table",
        "permuted-mnist",
        ("2019", "2022", "2018"),
        presets.ROWS,
        paper_seeds=20,
    ),
    "multiband-split-digits": Recipe(
        "generators on the bundled digits, in minutes",
        "split-digits",
        ("digits",),
        presets.GENERATORS,
    ),
    "multiband-split-mnist": Recipe(
        "generators on split MNIST (5 tasks), at the settings of Multiband VAE",
        "split-mnist",
        ("multiband",),
        presets.GENERATORS,
        evaluate_on="valid",
    ),
    "multiband-dirichlet-mnist": Recipe(
        "generators on MNIST dealt out to 10 tasks by Dirichlet shares (α = 1), at the settings of Multiband VAE",
        "dirichlet-mnist",
        ("multiband",),
        {**presets.GENERATORS, "Multiband VAE, γ = 1": Row("multiband-vae", {"gamma": 1.0})},
        evaluate_on="valid",
    ),
    "hypernetwork-split-mnist": Recipe(
        "hypernetworks on split MNIST: task known, inferred by entropy, by a task classifier; replay",
        "split-mnist",
        ("2020-hypernetworks",),
        _HNET_ROWS,
    ),
    "hypernetwork-split-mnist-later": Recipe(
        "hypernetworks for a small target on split MNIST, without look-ahead",
        "split-mnist",
        ("hypernetworks-later",),
        {name: _HNET_ROWS[name] for name in ("HNET", "HNET+ENT")},
        scenarios=("task", "class"),
    ),
    "hypernetwork-permuted-mnist": Recipe(
        "hypernetworks on permuted MNIST (10 permutations)",
        "permuted-mnist",
        ("2020-hypernetworks",),
        _HNET_ROWS,
    ),
    "hypernetwork-permuted-mnist-100": Recipe(
        "a hypernetwork on 100 permutations of MNIST, 8 of the past ones in the regulariser per step",
        "permuted-mnist",
        ("2020-hypernetworks",),
        {
            "HNET": Row(
                "hypernetwork",
                {
                    "beta": 0.01,
                    "embedding": 128,
                    "chunk": 7500,
                    "chunk_embedding": 12,
                    "hyper_hidden": (200, 250, 350),
                    "activation": "relu",
                    "past_tasks": 8,
                },
                {"tasks": 100},
            )
        },
        seeds=1,
    ),
    "hypernetwork-split-cifar100": Recipe(
        "a hypernetwork that generates ResNet-32, ten tasks of ten CIFAR-100 classes",
        "split-cifar100",
        ("2020-hypernetworks",),
        {"HNET": Row("hypernetwork")},
        scenarios=("task",),
        seeds=1,
        deviations=(
            "ten tasks of CIFAR-100; the paper has CIFAR-10 as task 1 and then the first fifty classes of CIFAR-100",
            "group norm instead of batch norm; no augmentation of the images",
        ),
    ),
    "hypernetwork-beta": Recipe(
        "strength of a hypernetwork's regulariser, split MNIST, task known",
        "split-mnist",
        ("2020-hypernetworks",),
        {f"{beta:g}": Row("hypernetwork", {"beta": beta}) for beta in (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)},
        scenarios=("task",),
        steps=500,
        axis="strength β of the regulariser",
        deviations=("500 steps per task: the sweep compares strengths, not with the paper",),
    ),
    "hypernetwork-compression": Recipe(
        "weights generated at a time by a hypernetwork, split MNIST, task known",
        "split-mnist",
        ("2020-hypernetworks",),
        {str(chunk): Row("hypernetwork", {"chunk": chunk}) for chunk in (2000, 4000, 8000, 16000, 42000, 478410)},
        scenarios=("task",),
        steps=500,
        axis="weights generated at a time",
        deviations=("500 steps per task: the sweep compares sizes, not with the paper",),
    ),
    "hypernetwork-lookahead": Recipe(
        "a hypernetwork's regulariser with and without look-ahead, split MNIST",
        "split-mnist",
        ("2020-hypernetworks",),
        {
            "HNET": Row("hypernetwork"),
            "HNET, no look-ahead": Row("hypernetwork", {"lookahead": False}),
            "HNET+ENT": Row("hypernetwork-ent"),
            "HNET+ENT, no look-ahead": Row("hypernetwork-ent", {"lookahead": False}),
        },
        scenarios=("task", "class"),
    ),
}

_BIR = "brain-inspired-replay"
_GR = {"feedback": False, "conditional": False, "gating": 0.0, "targets": "hard"}
"""All five changes off: standard generative replay."""
_CHANGES: dict[str, dict[str, Any]] = {
    "feedback": {"feedback": True},
    "conditional replay": {"conditional": True},
    "gating": {"gating": 0.1},
    "distillation": {"targets": "soft"},
}
_20_THEN_80 = {"classes": [list(range(start, start + 8)) for start in range(20, 100, 8)]}
_CIFAR: dict[str, Any] = {"extractor": "conv", "weights": "cifar100-first20.safetensors"}

RECIPES |= {
    "bir-split-mnist": Recipe(
        "brain-inspired replay beside generative replay on split MNIST",
        "split-mnist",
        ("2022", "2020"),
        {name: presets.ROWS[name] for name in ("None", "DGR", "BI-R", "Joint")},
        paper_seeds=20,
    ),
    "bir-replay-number": Recipe(
        "brain-inspired replay on split MNIST with fewer and more replayed samples per step",
        "split-mnist",
        ("2022", "2020"),
        {str(2**k): Row(_BIR, {"replay_batch": 2**k}) for k in range(9)},
        scenarios=("class",),
        axis="replayed samples per step",
    ),
    "bir-generator-size": Recipe(
        "brain-inspired replay on split MNIST with smaller and larger decoders",
        "split-mnist",
        ("2022", "2020"),
        {str(n): Row(_BIR, {"vae_hidden": (n, n)}) for n in (10, 20, 40, 100, 200, 400, 1000)},
        scenarios=("class",),
        axis="units per hidden layer of the decoder",
    ),
    "bir-reinit": Recipe(
        "keep only replay: all weights are forgotten before every task of split MNIST",
        "split-mnist",
        ("2022", "2020"),
        {
            "DGR": Row(_BIR, _GR),
            "DGR, re-initialised": Row(_BIR, {**_GR, "reinit": True}),
            "BI-R": Row(_BIR),
            "BI-R, re-initialised": Row(_BIR, {"reinit": True}),
        },
    ),
    "bir-ablation": Recipe(
        "each change of brain-inspired replay added to generative replay, and taken from the whole, on split MNIST",
        "split-mnist",
        ("2022",),
        {
            "GR": Row(_BIR, _GR),
            **{f"GR + {change}": Row(_BIR, {**_GR, **on}) for change, on in _CHANGES.items()},
            "BI-R": Row(_BIR),
            **{f"BI-R − {change}": Row(_BIR, {key: _GR[key] for key in on}) for change, on in _CHANGES.items()},
        },
        scenarios=("class",),
        deviations=("the paper's Fig. 8 is about permuted MNIST and CIFAR-100, not split MNIST",),
    ),
    "bir-permuted": Recipe(
        "a hundred permutations of MNIST: brain-inspired replay beside SI and online EWC, task after task",
        "permuted-mnist",
        ("2020",),
        {
            "None": Row("finetune"),
            "online EWC": Row("online-ewc"),
            "SI": Row("si"),
            "DGR": Row("generative-replay", {"targets": "hard"}),
            "BI-R": Row(_BIR),
            "BI-R + SI": Row(f"{_BIR}-si"),
        },
        scenarios=("domain",),
        paper_seeds=5,
    ),
    "bir-cifar100": Recipe(
        "split CIFAR-100, 80 classes in 10 tasks behind convolutions that were trained on the other 20",
        "split-cifar100",
        ("2020",),
        {
            "GR of pixels": Row(_BIR, {**_CIFAR, **_GR, "internal": False}, _20_THEN_80),
            "GR of features": Row(_BIR, {**_CIFAR, **_GR}, _20_THEN_80),
            "BI-R of pixels": Row(_BIR, {**_CIFAR, "internal": False}, _20_THEN_80),
            "BI-R": Row(_BIR, _CIFAR, _20_THEN_80),
            "BI-R + SI": Row(f"{_BIR}-si", _CIFAR, _20_THEN_80),
        },
        scenarios=("class",),
        paper_seeds=10,
        deviations=(
            "a variant: the convolutions are trained on 20 of the 100 classes (python -m clteach.pretraining), not on "
            "CIFAR-10, and the other 80 are learned in 10 tasks of 8",
            "pixels are in [0, 1], not normalised, and the decoder of pixels has no batch norm",
        ),
    ),
}

_PLANE = {"z": 2, "hidden": (128, 128), "critic_hidden": (256, 256)}

RECIPES |= {
    "ebgan-modes": Study(
        "modes of 25 Gaussians in the plane that a GAN, EBGAN and EBGAN-PT cover",
        studies.plane_gan,
        {
            "GAN": {**_PLANE, "objective": "gan", "lr": 1e-3},
            "EBGAN": {**_PLANE, "pull_away": 0.0, "lr": 2e-3},
            "EBGAN-PT": {**_PLANE, "pull_away": 0.1, "lr": 2e-3},
        },
        {"modes": "modes covered (of 25)", "quality": "samples within 3σ of a mode (%)"},
        steps=3000,
        seeds=5,
        source=(
            "this package; for each method the better of the learning rates 1e-3 and 2e-3 by modes times quality, on a seed "
            "that is not reported (100)"
        ),
        deviations=(
            "before that, about thirty shorter runs on seed 100 chose the networks' sizes and the batch; nearly all were of "
            "EBGAN-PT and three of the GAN, so the choice favours EBGAN-PT",
            "2,500 generated samples; a mode counts as covered if at least ten of them are within 3σ of it",
            "no published counterpart: the paper has no such experiment",
        ),
    ),
    "domain-transfer": Study(
        "labels of the bundled digits, used on inverted, blurred and coloured ones: an energy as the critic of domains",
        studies.domain_transfer,
        {method: {"method": method} for method in ("source-only", "dann", "energy", "target")},
        {shift: f"{shift} (%)" for shift in ("inverted", "blurred", "coloured")},
        steps=600,
        seeds=3,
        source="this package; nothing was tuned",
        deviations=(
            "small networks on the bundled 8 x 8 digits instead of MNIST",
            "accuracy on the shifted test images at the last step",
        ),
    ),
}


def reproduce(
    name: str,
    out: str | Path = "results",
    *,
    preset: str | None = None,
    seeds: int | None = None,
    iters: int | None = None,
    device: str = "auto",
    **how: Any,
) -> Path:
    """Run a recipe and write its record, ``out/NAME.json``; an interrupted one continues.

    Fewer steps than the preset's, or fewer than 3 seeds, make a shortened run: its record is named so, and its numbers
    are not judged against the published ones.

    Args:
        name: one of `RECIPES`.
        out: folder of the record; the runs are under ``out/runs``.
        preset: one of the recipe's presets.
        seeds: number of seeds.
        iters: steps per task.
        device: "auto", "cpu" or "cuda".
        **how: passed on to `run_jobs`.

    Raises:
        ClteachError: an unknown name, or as `run_jobs`.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if isinstance(recipe, Study):
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

    cells = []
    for name_of_row, row in recipe.rows.items():
        if row.method not in METHODS or name_of_row in presets.PRESETS[preset].without:
            continue
        for scenario in recipe.scenarios:
            if scenario in METHODS[row.method].scenarios:
                own = presets.chosen(row.settings, scenario)
                settings = fitting(row.method, {**column.settings(row.method, scenario), **own})
                stream = {**column.stream, **presets.chosen(row.stream, scenario)}
                job = Job(row.method, recipe.stream, scenario, 0, steps, column.batch, settings, stream, device)
                cells.append((name_of_row, replace(job, evaluate_on=recipe.evaluate_on)))
    started, commit = time.perf_counter(), checkout()  # of the code that runs, not of what is committed meanwhile
    results = run_jobs([replace(job, seed=seed) for _, job in cells for seed in range(n_seeds)], out, **how)
    wall = time.perf_counter() - started

    deviations = [*presets.PRESETS[preset].notes, *recipe.deviations]
    if recipe.paper_seeds and n_seeds != recipe.paper_seeds:
        deviations.append(f"{n_seeds} seeds instead of {recipe.paper_seeds}")
    if steps != full:
        deviations.append(f"{steps} steps per task instead of {full}")
    table = []
    for i, (name_of_row, job) in enumerate(cells):
        summary = summarise(results[i * n_seeds : (i + 1) * n_seeds])
        cell = {"row": name_of_row, "method": job.method, "scenario": job.scenario, **summary}
        paper = published(recipe.stream, preset, name_of_row, job.scenario)
        measure = METHODS[job.method].measure
        table.append({**cell, **compare(summary[f"average_{measure}"], paper, shortened, measure)})
    options = ["--preset", preset] if len(recipe.presets) > 1 else []
    options += [] if seeds is None else ["--seeds", str(seeds)]
    options += [] if iters is None else ["--iters", str(iters)]
    record = {
        "name": name,
        "summary": recipe.summary,
        "shortened": shortened,
        "command": shlex.join(["clteach", "reproduce", name, *options]),
        "version": clteach.__version__,
        "commit": commit,
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
        "device": machine(results[0]["job"]["device"]),
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
        difference = ours["mean"] - paper["mean"]
        return {"published": dict(paper), "difference": difference, "tolerance": None, "verdict": "other features"}
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


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the runs ran on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"type": device, "cpu": model, "cores": joblib.cpu_count(), "gpu": gpu, "threads_per_process": 1}


def checkout() -> str | None:
    """The checkout's state where the package lies in one of its own; None elsewhere."""
    root = Path(clteach.__file__).parents[1]

    def git(*words: str) -> str | None:
        with contextlib.suppress(OSError):
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    top = git("rev-parse", "--show-toplevel")
    return git("describe", "--always", "--dirty") if top and Path(top) == root else None
