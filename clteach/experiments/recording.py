"""Recorded numbers: a recipe is run, and written down beside the published numbers.

`reproduce` runs a recipe and writes one record with everything its numbers depend on. `clteach.results` reads records back
and makes the tables of the book from them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import torch

from clteach.data.extractors import trained
from clteach.errors import ConfigError, unknown
from clteach.experiments import papers
from clteach.experiments.agreement import compare, published
from clteach.experiments.jobs import Job, check_place, read_back, run_jobs
from clteach.experiments.provenance import as_one, checkout, in_turn, machine
from clteach.experiments.recipe import Recipe, Study, chosen
from clteach.experiments.summary import statistics, summarise
from clteach.methods import METHODS, fitting
from clteach.storage import load_sealed, sealed, write_json
from clteach.training.code import code
from clteach.version import __version__


def reproduce(
    name: str,
    out: str | Path = "results",
    *,
    preset: str | None = None,
    seeds: int | None = None,
    iters: int | None = None,
    tasks: int | None = None,
    rows: Sequence[str] | None = None,
    device: str = "auto",
    threads: int = 1,
    together: bool = False,
    keep: bool = False,
    **how: Any,
) -> Path:
    """Run a recipe and write its record, ``out/NAME.json``; an interrupted one continues.

    Fewer steps or permutations than the recipe has, or fewer seeds than its own or 3, make a shortened run: its record is
    named so, and its numbers are not judged against the published ones.

    Args:
        name: one of `clteach.experiments.papers.RECIPES`, or its short form ("bir-permuted").
        out: folder of the record; the runs are under ``out/runs``.
        preset: one of the recipe's presets.
        seeds: number of seeds.
        iters: steps per task.
        tasks: permutations, of a recipe on permuted data.
        rows: only these rows of the table are run; the others stay as they are in the record in `out`, if there is one.
        device: "auto", "cpu" or "cuda".
        threads: of each process; more than one only pays where there are fewer runs than cores.
        together: train the seeds of a row at once where that is faster, see `run_jobs`; the record says so. Such runs and
            single ones are not taken for each other: neither goes on with the other's.
        keep: also keep the trained models, see `run_jobs`.
        **how: passed on to `run_jobs`.

    Raises:
        ClteachError: an unknown name, a number of tasks that the recipe cannot have, a record in `out` that was made
            with other settings than the new rows would be, or as `run_jobs`.
    """
    name = papers.full_name(name)
    recipe = papers.RECIPES[name]
    if tasks is not None and (isinstance(recipe, Study) or not recipe.stream.startswith("permuted-")):
        raise ConfigError(f"tasks={tasks}: the tasks of {name} are fixed. Expected only with recipes on permuted data.")
    if isinstance(recipe, Study):
        if preset is not None or device not in ("auto", "cpu") or rows is not None or threads != 1 or together or keep:
            raise ConfigError(
                f"preset={preset!r}, device={device!r}, rows={rows!r}, threads={threads}, together={together}, keep={keep}: "
                f"{name} has no presets, runs on the CPU, as a whole, seed by seed and with one thread, and keeps no "
                "models. Leave them out."
            )
        return _reproduce_study(name, recipe, Path(out), seeds, iters, **how)
    if preset not in (None, *recipe.presets):
        raise unknown(f"preset of {name}", str(preset), recipe.presets)
    for wanted in rows or ():
        if wanted not in recipe.rows:
            raise unknown(f"row of {name}", wanted, recipe.rows)
    preset = preset or recipe.presets[0]
    column = papers.column(preset, recipe.stream)
    n_seeds = recipe.seeds if seeds is None else seeds
    full = column.steps if recipe.steps is None else recipe.steps
    steps = full if iters is None else iters
    if n_seeds < 1:
        raise ConfigError(f"{n_seeds} seeds: expected at least one.")
    shortened = steps < full or n_seeds < min(3, recipe.seeds)

    cells, all_tasks = [], 0
    for name_of_row, row in recipe.rows.items():
        if row.method not in METHODS or name_of_row in papers.PRESETS[preset].without:
            continue
        for scenario in recipe.scenarios:
            if scenario in METHODS[row.method].scenarios:
                own = chosen(row.settings, scenario)
                settings = fitting(row.method, {**column.settings(row.method, scenario), **own})
                of_stream = {**column.stream, **chosen(row.stream, scenario)}
                if tasks is not None:
                    all_tasks = max(all_tasks, of_stream["tasks"])
                    of_stream["tasks"] = tasks
                job = Job(row.method, recipe.stream, scenario, 0, steps, column.batch, settings, of_stream, device)
                cells.append((name_of_row, replace(job, evaluate_on=recipe.evaluate_on, threads=threads)))
    if tasks is not None and not 1 <= tasks <= all_tasks:
        raise ConfigError(f"tasks={tasks}: expected between 1 and {all_tasks}, as many as {name} has.")
    shortened = shortened or (tasks is not None and tasks < all_tasks)
    used = [
        {**job.settings, **job.stream_settings}.get("weights") for row, job in cells if rows is None or row in rows
    ]
    extractors = [f"{file}: {trained(file)}" for file in dict.fromkeys(used) if file]
    file = name + (f"-{preset}" if len(recipe.presets) > 1 else "") + ("-shortened" if shortened else "")
    path = Path(out) / f"{file.replace('-', '_')}.json"
    alike = {"preset": preset, "seeds": list(range(n_seeds)), "steps": steps, "batch": column.batch}
    stream: dict[str, Any] = {"name": recipe.stream, **column.stream}
    before = None
    if rows is not None:
        stream["fingerprint"] = cells[0][1].make_stream(seed=0).fingerprint  # as of a record of all rows
        before = _standing(path, {**alike, "stream": json.loads(json.dumps(stream))}, extractors, recipe)
    cells = [(row, job) for row, job in cells if rows is None or row in rows]
    if not cells:
        raise ConfigError(
            f"rows={rows!r}: the preset {preset!r} has none of them. Leave them out, or choose another preset."
        )
    started = time.perf_counter()
    jobs = [replace(job, seed=seed) for _, job in cells for seed in range(n_seeds)]
    results = run_jobs(jobs, out, together=together, keep=keep, **how)
    wall = time.perf_counter() - started

    notes = papers.PRESETS[preset].notes_about({job.method for _, job in cells})
    deviations = [*notes, *recipe.deviations, *extractors]
    if recipe.paper_seeds and n_seeds != recipe.paper_seeds:
        deviations.append(f"{n_seeds} seed{'s' * (n_seeds > 1)} instead of {recipe.paper_seeds}")
    if steps != full:
        deviations.append(f"{steps} steps per task instead of {full}")
    if tasks not in (None, all_tasks):
        deviations.append(f"{tasks} permutations instead of {all_tasks}")
    if any("together" in result for result in results):
        deviations.append("the seeds of a row were trained at once: the numbers of single runs within rounding")
    table = []
    for i, (name_of_row, job) in enumerate(cells):
        summary = summarise(results[i * n_seeds : (i + 1) * n_seeds])
        cell = {"row": name_of_row, "method": job.method, "scenario": job.scenario, **summary}
        cell["commit"] = in_turn([result["commit"] for result in results[i * n_seeds : (i + 1) * n_seeds]])
        own = {k: v for k, v in job.stream_settings.items() if column.stream.get(k) != v}
        if own:
            cell["stream"] = {**own, "fingerprint": results[i * n_seeds]["fingerprint"]}
        paper = published(recipe.stream, preset, name_of_row, job.scenario)
        measure = METHODS[job.method].measure
        table.append({**cell, **compare(summary[f"average_{measure}"], paper, shortened, measure)})
    given: dict[str, Any] = {"seeds": seeds, "iters": iters, "tasks": tasks, "rows": rows}
    given = {"preset": preset if len(recipe.presets) > 1 else None, **given, "together": together or None}
    given["threads"] = threads if threads != 1 else None
    record = {
        **_head(name, recipe, shortened, given),
        "commit": in_turn([result["commit"] for result in results]),
        "preset_source": papers.PRESETS[preset].source,
        **alike,
        "axis": recipe.axis,
        "stream": {**stream, "fingerprint": stream.get("fingerprint", results[0]["fingerprint"])},
        **({} if recipe.evaluate_on == "test" else {"evaluate_on": recipe.evaluate_on}),
        "training_seconds": sum(result["seconds"] or 0.0 for result in results),
        # A command that was interrupted and repeated has no wall-clock time of its own.
        "wall_seconds": None if any(result["read_back"] for result in results) else wall,
        "device": as_one([result["device"] for result in results]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "deviations": deviations,
        "cells": table,
    }
    if before is not None:
        record = _with_rows_of(before, record, list(recipe.rows))
    return write_json(path, record)


def _standing(
    path: Path, alike: Mapping[str, Any], extractors: Sequence[str], recipe: Recipe
) -> dict[str, Any] | None:
    """The record of which only some rows are made again; None: there is none."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for key, value in alike.items():
        if record.get(key) != value:
            raise ConfigError(
                f"{path} was made with {key} = {record.get(key)}, the rows would be with {value}. Run all rows, choose "
                "the same settings, or another --out."
            )
    if gone := [cell["row"] for cell in record["cells"] if cell["row"] not in recipe.rows]:
        raise ConfigError(
            f"{path} has the row {gone[0]!r}, which the recipe has not (any more). Run all rows, or choose another --out."
        )
    for weights in extractors:  # those within a learner are not a part of the stream
        others = [said for said in record["deviations"] if said.startswith(weights.partition(": ")[0] + ": ")]
        if others and weights not in others:
            raise ConfigError(
                f"{path} was not made behind {weights!r}, as the rows would be. Run all rows, or choose another --out."
            )
    return record


def _with_rows_of(before: Mapping[str, Any], new: dict[str, Any], order: Sequence[str]) -> dict[str, Any]:
    """The new record with the rows of the standing one that were not run again; each cell names its commit."""
    run = {cell["row"] for cell in new["cells"]}
    kept = [{"commit": before["commit"], **cell} for cell in before["cells"] if cell["row"] not in run]
    if not kept:
        return new
    replaced = sum((cell["seconds"] or 0.0) * len(new["seeds"]) for cell in before["cells"] if cell["row"] in run)
    command = before["command"]
    # it does not make the whole table, or not to the last digit, so the new rows' command belongs to it
    if "--rows" in command or any(option in new["command"] for option in ("--threads", "--together")):
        command = " && ".join(dict.fromkeys([*command.split(" && "), new["command"]]))
    return {
        **new,
        "command": command,
        "version": in_turn([before["version"], new["version"]]),
        "commit": in_turn([cell["commit"] for cell in (*kept, *new["cells"])]),
        "training_seconds": before["training_seconds"] - replaced + new["training_seconds"],
        "wall_seconds": None,
        "device": as_one([before["device"], new["device"]]),
        "torch": in_turn([before["torch"], new["torch"]]),
        "python": in_turn([before["python"], new["python"]]),
        "deviations": list(dict.fromkeys([*before["deviations"], *new["deviations"]])),
        "cells": sorted((*kept, *new["cells"]), key=lambda cell: order.index(cell["row"])),
    }


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
        identity = json.dumps([code(study.run) or uuid.uuid4().hex, dict(row), steps, seed], sort_keys=True)
        file = out / "runs" / name / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.json"
        files.append(file)
        if fresh or read_back(file) is None:
            todo.append(joblib.delayed(_run_study)(study.run, file, {**row, "seed": seed, "steps": steps}))
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        joblib.Parallel(n_jobs or joblib.cpu_count(), batch_size=1)(todo)
    results = [load_sealed(file) for file in files]
    cells = []
    for i, (name_of_row, row) in enumerate(study.rows.items()):
        runs = results[i * n_seeds : (i + 1) * n_seeds]
        scores = {measure: statistics([run["measures"][measure] for run in runs]) for measure in study.measures}
        cells.append({"row": name_of_row, "settings": dict(row), "measures": scores, "verdict": "not published"})
    shortened = steps < study.steps or n_seeds < min(3, study.seeds)
    record = {
        **_head(name, study, shortened, {"seeds": seeds, "iters": iters}),
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


def _head(name: str, recipe: Recipe | Study, shortened: bool, given: Mapping[str, Any]) -> dict[str, Any]:
    """What every record begins with: what it is of, and the command that makes it again."""
    named = {option: value for option, value in given.items() if value is not None}
    options = [
        word
        for option, value in named.items()
        for word in (
            f"--{option}",
            *(value if isinstance(value, (list, tuple)) else [] if value is True else [str(value)]),
        )
    ]
    return {
        "name": name,
        "summary": recipe.summary,
        "shortened": shortened,
        "command": shlex.join(["clteach", "reproduce", name, *options]),
        "version": __version__,
    }


def _run_study(run: Callable[..., dict[str, float]], file: Path, arguments: Mapping[str, Any]) -> None:
    threads, started = torch.get_num_threads(), time.perf_counter()
    torch.set_num_threads(1)
    try:
        measures = run(**arguments)
    finally:
        torch.set_num_threads(threads)
    write_json(file, sealed({**arguments, "measures": measures, "seconds": time.perf_counter() - started}))
