"""What the commands do; what they accept stands in `clteach.cli.options`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from clteach.cli import options
from clteach.cli.options import Assign, Grade, New, Pretrain, Reproduce, Run, Sweep
from clteach.errors import ConfigError
from clteach.version import __version__

# The top-level help must not wait for torch: everything that needs it is imported inside the commands.
if TYPE_CHECKING:
    from clteach.experiments.jobs import Job


def _settings_line(args: Run | Sweep, job: Job) -> str:
    from clteach.experiments import papers

    name = args.preset or papers.default_preset(args.stream)
    used = f"preset {name} ({papers.PRESETS[name].source})" if name else "no preset, the methods' defaults"
    return (
        f"{args.stream}{f' behind {args.extractor}' if args.extractor else ''}, {args.scenario}-incremental, "
        f"{job.steps} steps per task, batch {job.batch}, "
        f"{args.seeds} seed{'s'[: args.seeds > 1]}; {used}"
    )


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # `clteach.cli.main` ends the program, and not with rich's exit code


def _console(stderr: bool = False) -> Console:
    console = _Console(stderr=stderr, highlight=False, soft_wrap=True)
    return console if console.is_terminal else _Console(stderr=stderr, highlight=False, soft_wrap=True, width=120)


# ------------------------------------------------------------------------------------------------------------- run


def run(args: Run, settings: Mapping[str, Mapping[str, Any]]) -> int:
    """``clteach run``."""
    from clteach.experiments.jobs import run_jobs
    from clteach.experiments.papers import default_preset
    from clteach.experiments.summary import incremental, scores, summarise
    from clteach.metrics.accuracy import MEASURES

    console = _console(args.json)
    measure = _measure(settings)
    # A method that was named and cannot do the scenario is an error; one of the default four is left out.
    unfit = {} if args.methods else _unfit(args, settings)
    methods = [name for name in settings if name not in unfit]
    notes = [f"{name} is left out: it {why}" for name, why in unfit.items()]
    jobs = [job for name in methods for job in options.jobs(args, name, settings[name])]
    console.print(_settings_line(args, jobs[0]))
    results = run_jobs(jobs, args.out, n_jobs=args.jobs, keep=True, fresh=args.fresh, log=args.log, together=True)
    finished = sum(result["read_back"] for result in results)
    if finished:
        notes.append(f"{finished} of {len(results)} runs were finished before and are read back (--fresh repeats them)")
    at_once = sorted({result["job"]["method"] for result in results if "together" in result})
    if at_once:
        notes.append(
            f"the seeds of {', '.join(at_once)} were trained at once: numbers of single runs differ by rounding"
        )
    n = args.seeds
    of_method = {name: results[i * n : (i + 1) * n] for i, name in enumerate(methods)}
    summaries = {name: {**summarise(seeds), **incremental(seeds)} for name, seeds in of_method.items()}
    notes += [message for summary in summaries.values() for message in summary.get("diverged", [])]
    notes += dict.fromkeys(note for result in results for note in result.get("notes", []))
    stem = f"{args.stream}-{args.scenario}"
    picture = _picture(args, summaries, args.out / f"{stem}.png", measure)
    document = {
        "command": "run",
        "version": __version__,
        "stream": args.stream,
        "scenario": args.scenario,
        "preset": args.preset or default_preset(args.stream),
        "stream_settings": results[0]["job"]["stream_settings"],
        "steps": jobs[0].steps,
        "batch": jobs[0].batch,
        "seeds": list(range(n)),
        "device": results[0]["job"]["device"],
        "results": summaries,
        "picture": None if picture is None else str(picture),
        "notes": notes,
    }
    files = [_write(args.out / f"{stem}.json", json.dumps(document, indent=1, allow_nan=False))]
    if args.csv:
        import pandas as pd

        files.append(_write(args.out / f"{stem}.csv", pd.DataFrame(scores(results)).to_csv(index=False)))
    _print_summaries(console, summaries, measure)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    matrices = f"{MEASURES[measure].label} matrices"
    console.print(
        f"{matrices}: {picture or 'none, every training diverged'}\nnumbers: {', '.join(map(str, files))}\n"
        f"trained models: {args.out / 'runs'}",
        markup=False,
    )
    if args.log:
        console.print(f"curves: tensorboard --logdir {args.out / args.log}", markup=False)
    if args.json:
        print(json.dumps(document, allow_nan=False))
    return 0


def _unfit(args: Run, methods: Iterable[str]) -> dict[str, str]:
    """{method: why it cannot be trained on this stream}."""
    from clteach.methods import method

    unfit = {}
    for name in methods:
        if args.scenario not in method(name).scenarios:
            unfit[name] = f"does not support the scenario {args.scenario!r} ({method(name).needs})"
        elif args.stream.startswith("faded-") and method(name).needs_borders:
            unfit[name] = "needs to know when a task ends"
    return unfit


def _measure(methods: Iterable[str]) -> str:
    """What these methods are measured by: one table and one picture can show only one measure.

    Raises:
        ConfigError: classifiers and pure generators together.
    """
    from clteach.methods import method

    by_measure = {method(name).measure: name for name in methods}
    if len(by_measure) > 1:
        pairs = " and ".join(f"{name} ({measure})" for measure, name in by_measure.items())
        raise ConfigError(f"{pairs} are measured differently: expected methods with one measure; use two commands.")
    return next(iter(by_measure))


def _print_summaries(console: Console, summaries: Mapping[str, Mapping[str, Any]], measure: str) -> None:
    from clteach.metrics.accuracy import MEASURES

    key = f"average_{measure}"
    table = Table("method", box=box.SIMPLE_HEAD)
    # Of generators also how good their samples are in other respects.
    further = [name for name in ("precision", "recall") if all(f"average_{name}" in one for one in summaries.values())]
    heads = [f"average {MEASURES[name].label}{MEASURES[name].unit}" for name in (measure, *further)]
    seen = "average_incremental_accuracy_by_samples"
    if any(seen in one for one in summaries.values()):
        heads.append("incremental (%)")
    for head in (*heads, "forgetting", "seconds", "steps/s"):
        table.add_column(head, justify="right")
    for name, summary in sorted(summaries.items(), key=lambda item: _rank(item[1], measure)):
        table.add_row(
            name,
            _shown(summary[key], measure),
            *(_shown(summary[f"average_{name}"], name) for name in further),
            *([_shown(summary.get(seen), measure)] if "incremental (%)" in heads else []),
            _shown(summary["forgetting"], measure),
            "–" if summary["seconds"] is None else f"{summary['seconds']:.1f}",
            "–" if summary["seconds"] is None else f"{summary['iterations_per_second']:.0f}",
        )
    console.print(table)


def _rank(summary: Mapping[str, Any], measure: str) -> float:
    """The best first; what diverged comes last."""
    from clteach.metrics.accuracy import MEASURES

    score = summary[f"average_{measure}"]
    return math.inf if score is None else -MEASURES[measure].sign * score["mean"]


def _shown(score: Mapping[str, Any] | None, measure: str) -> str:
    from clteach.metrics.accuracy import MEASURES
    from clteach.results.tables import percent

    if score is None:
        return "–"
    factor = MEASURES[measure].factor
    return percent(factor * score["mean"], None if score["sem"] is None else factor * score["sem"])


def _picture(args: Run, summaries: Mapping[str, Mapping[str, Any]], path: Path, measure: str) -> Path | None:
    from clteach.plots.look import save
    from clteach.plots.matrices import accuracy_matrices

    matrices = {
        name: _tensor(summary[f"{measure}_matrix"]) for name, summary in summaries.items() if "diverged" not in summary
    }
    if not matrices:
        return None
    title = f"{args.stream}, {args.scenario}-incremental"
    return save(accuracy_matrices(matrices, title, measure=measure), path)


def _tensor(matrix: list[list[float | None]]) -> Any:
    import torch

    return torch.tensor([[float("nan") if value is None else value for value in row] for row in matrix])


# ------------------------------------------------------------------------------------------------------------ list


def show_lists() -> int:
    """``clteach list``."""
    from clteach.data.catalogue import NAMES
    from clteach.data.streams import MAKERS
    from clteach.data.tasks import SCENARIOS
    from clteach.experiments.papers import PRESETS, RECIPES
    from clteach.methods import METHODS

    scenarios = {
        name: "" if len(cls.scenarios) == len(SCENARIOS) else f" [{', '.join(cls.scenarios)} only]"
        for name, cls in METHODS.items()
    }
    sections = {
        "methods": {name: cls.summary + scenarios[name] for name, cls in METHODS.items()},
        "streams": {f"{how}-NAME": (maker.__doc__ or "").split("\n")[0] for how, maker in MAKERS.items()},
        "data sets (NAME)": {
            **NAMES,
            "NAME": "your own NAME.npz in the folder CLTEACH_DATA",
            "NAME+NAME": "two or more as one, the classes of the first, then those of the next: mnist+fashion-mnist",
        },
        "presets": {name: f"{p.summary}: {p.source} [{', '.join(p.columns)}]" for name, p in PRESETS.items()},
        "recipes (clteach reproduce)": {
            name: recipe.summary + (f" [{', '.join(recipe.presets)}]" if recipe.presets else "")
            for name, recipe in RECIPES.items()
        },
    }
    for title, entries in sections.items():
        width = max(map(len, entries))
        print(f"{title}:")
        for name, line in entries.items():
            print(f"  {name:<{width}} {line}")
    return 0


# ------------------------------------------------------------------------------------------------------- reproduce


def reproduce(args: Reproduce) -> int:
    """``clteach reproduce NAME``."""
    from clteach.experiments import recording
    from clteach.experiments.papers import RECIPES
    from clteach.results.records import load
    from clteach.results.tables import shown

    if not args.name:
        raise ConfigError(f"name a recipe: {', '.join(RECIPES)}.")
    path = recording.reproduce(
        args.name,
        args.out,
        preset=args.preset,
        seeds=args.seeds,
        iters=args.iters,
        tasks=args.tasks,
        rows=args.rows or None,
        device=args.device,
        threads=args.threads,
        together=args.together,
        keep=args.keep,
        n_jobs=args.jobs,
        fresh=args.fresh,
    )
    record = load(str(path))
    console = _console()
    console.print(f"{args.name}: {record['summary']}{' (shortened run)' if record['shortened'] else ''}", markup=False)
    head, body = shown(str(path))
    table = Table(*head, box=box.SIMPLE_HEAD)
    for line in body:
        table.add_row(*line)
    console.print(table)
    for deviation in record["deviations"]:
        console.print(f"deviation: {deviation}", markup=False)
    console.print(f"record: {path}", markup=False)
    return 0


# ----------------------------------------------------------------------------------------------------------- sweep


def sweep(args: Sweep) -> int:
    """``clteach sweep``."""
    from clteach.experiments.jobs import run_jobs
    from clteach.experiments.summary import summarise
    from clteach.methods import method

    if not args.methods:
        raise ConfigError("name the methods to try, e.g. clteach sweep ewc --set ewc.lam=1e2,1e4.")
    if args.on == "valid" and not 0 < args.validation < 1:
        raise ConfigError(f"--validation {args.validation}: expected a share between 0 and 1.")
    methods = list(dict.fromkeys(args.methods))
    tried: dict[str, dict[str, list[Any]]] = {name: {} for name in methods if method(name)}
    measure = _measure(methods)
    options.check_replay_model(args, methods)
    for word in args.set:
        options.add_values(word, tried)
    stream = {"validation": args.validation} if args.on == "valid" else {}
    jobs, candidates = [], []
    for name in methods:
        base = dataclasses.asdict(options.config(name, args))
        for choice in grid(tried[name]):
            candidates.append((name, choice))
            jobs += options.jobs(args, name, {**base, **choice}, stream=stream, evaluate_on=args.on)
    _check_by(args.by, tried)
    where = "held-out training data" if args.on == "valid" else "the test set"
    console = _console()
    console.print(f"{_settings_line(args, jobs[0])}; {len(candidates)} candidates, judged on {where}")
    results = run_jobs(
        jobs,
        args.out,
        n_jobs=args.jobs,
        backend=args.backend,
        address=args.address,
        fresh=args.fresh,
    )
    n, lines = args.seeds, []
    for i, (name, choice) in enumerate(candidates):
        lines.append({"method": name, "tried": choice, **summarise(results[i * n : (i + 1) * n])})
    lines.sort(key=lambda line: _rank(line, measure))
    _print_sweep(console, lines, methods, where, measure)
    document = {"stream": args.stream, "scenario": args.scenario, "judged_on": args.on, "candidates": lines}
    text = json.dumps(document, indent=1, allow_nan=False)
    files = [_write(args.out / "sweep.json", text), _write(args.out / "sweep.csv", _csv(lines, measure))]
    console.print(f"numbers: {files[0]}, {files[1]}", markup=False)
    if args.by is not None:
        console.print(f"histogram: {_histogram(lines, args.by, args.out / 'sweep.png', measure)}", markup=False)
    return 0


def grid(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination: ``{"lam": [1, 2], "lr": [3]}`` -> ``[{"lam": 1, "lr": 3}, {"lam": 2, "lr": 3}]``."""
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def _check_by(by: str | None, tried: Mapping[str, Mapping[str, Any]]) -> None:
    settings = sorted({setting for values in tried.values() for setting in values})
    if by is not None and by not in ("method", *settings):
        raise ConfigError(
            f"--by {by}: expected a setting that is tried ({', '.join(settings) or 'none is'}), or method."
        )


def _histogram(lines: list[dict[str, Any]], by: str, path: Path, measure: str) -> Path:
    """One score per candidate and seed, grouped by the method or by the value of a setting."""
    from clteach.plots.look import save
    from clteach.plots.scores import score_histogram

    groups: dict[str, list[float]] = {}
    for line in lines:
        value = line["method"] if by == "method" else line["tried"].get(by, "(not tried)")
        if "diverged" not in line:
            groups.setdefault(str(value), []).extend(line[f"average_{measure}"]["seeds"])
    figure = score_histogram({name: groups[name] for name in sorted(groups)}, measure, f"candidates by {by}")
    return save(figure, path)


def _print_sweep(console: Console, lines: list[dict[str, Any]], methods: list[str], where: str, measure: str) -> None:
    from clteach.metrics.accuracy import MEASURES

    def settings(line: Mapping[str, Any]) -> str:
        return ", ".join(f"{key}={value}" for key, value in line["tried"].items()) or "(as preset)"

    shows = MEASURES[measure]
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("method", "setting", f"average {shows.label}{shows.unit}"):
        table.add_column(head)
    scores: dict[str, str] = {}
    for line in lines:
        shown = _shown(line[f"average_{measure}"], measure)
        table.add_row(line["method"], settings(line), shown)
        scores.setdefault(line["method"], f"{settings(line)} with {shown}{' %' * (measure == 'accuracy')}")
    console.print(table)
    for name in methods:
        console.print(f"best for {name} on {where}: {scores[name]}", markup=False)
    for line in lines:
        for message in line.get("diverged", []):
            console.print(f"note: {line['method']}, {settings(line)}: {message}", markup=False)


def _csv(lines: list[dict[str, Any]], measure: str) -> str:
    import pandas as pd

    rows = []
    for line in lines:
        score = line[f"average_{measure}"] or {"mean": None, "sem": None, "seeds": []}
        seeds = " ".join(map(str, score["seeds"]))
        rows.append(
            {"method": line["method"], **line["tried"], "mean": score["mean"], "sem": score["sem"], "seeds": seeds}
        )
    return pd.DataFrame(rows).to_csv(index=False)


# -------------------------------------------------------------------------------------------------------- pretrain


def pretrain(args: Pretrain) -> int:
    """``clteach pretrain``."""
    from clteach.data.catalogue import data_folder, load
    from clteach.data.extractors import trained
    from clteach.progress import bar
    from clteach.training import pretraining

    some = "" if args.classes is None else f"-first{args.classes}"
    out = args.out or data_folder() / f"{args.data}{some}.safetensors"
    with bar(f"{args.extractor} on {args.data}{some}") as progress:
        pretraining.pretrain(
            load(args.data),
            out,
            classes=None if args.classes is None else range(args.classes),
            extractor=args.extractor,
            epochs=args.epochs,
            batch_size=args.batch_size,
            lr=args.lr,
            uniform_gains=args.uniform_gains,
            seed=args.seed,
            device=args.device,
            progress=progress,
        )
    print(f"{out}: {trained(out)}")
    return 0


# ------------------------------------------------------------------------------------------------------------- new


def new(args: New) -> int:
    """``clteach new NAME``."""
    from clteach.cli import new_method

    if not args.name:
        raise ConfigError("name the method, e.g. clteach new my-method.")
    method, test = new_method.write(args.name, args.to, args.overwrite)
    print(f"written: {method}, {test}")
    print(f"next: python {method.name} trains it beside fine-tuning, pytest {test.name} runs its checks (in {args.to})")
    return 0


# ---------------------------------------------------------------------------------------------------- assign, grade


def assign(args: Assign) -> int:
    """``clteach assign CHAPTER``."""
    from clteach.exercises import course, gradescope, otter
    from clteach.exercises.chapters import chapters

    if not args.chapter:
        raise ConfigError(f"name a chapter: {', '.join(f'{n} ({title})' for n, title in chapters().items())}.")
    write = {"nbgrader": course.assign, "gradescope": gradescope.assign, "otter": otter.assign}
    for path in write[args.system](args.chapter, args.to, args.seed, args.overwrite):
        print(f"written: {path}")
    if args.system == "gradescope":
        print("next: upload the zip under Configure Autograder, and give the students the notebook in colab/")
    elif args.system == "otter":
        print("next: otter assign NAME.ipynb dist")
    else:
        print(f"next: nbgrader generate_assignment NAME (in {args.to}), or give the students the notebook in colab/")
    return 0


def grade(args: Grade) -> int:
    """``clteach grade FOLDER``."""
    from clteach.exercises import grading
    from clteach.progress import bar

    if args.folder is None:
        raise ConfigError(
            "name the folder with the submitted notebooks, e.g. clteach grade submitted --csv grades.csv."
        )
    if args.jobs < 1 or not args.seconds > 0 or not args.memory > 0:
        raise ConfigError(
            f"--jobs {args.jobs}, --seconds {args.seconds:g}, --memory {args.memory:g}: expected at least one job "
            "and limits above 0."
        )
    kept = args.csv.with_name(f"{args.csv.name}.partial")
    out, done = sys.stdout, itertools.count(1)
    with bar("grading") as shown:

        def report(one: grading.Graded, total: int) -> None:
            # Beside the bar, which takes the place of sys.stdout; but not into it where the lines go to a file.
            line = f"{one.file}: {one.status}, {sum(one.points.values())} points"
            print(line, file=sys.stdout if out.isatty() else out, flush=True)
            shown(next(done), total, one.file.name)

        limits = grading.Limits(args.seconds, args.memory)
        results, points = grading.grade(args.folder, args.chapter, args.seed, limits, args.jobs, report, kept)
    print(f"{len(results)} notebooks, at most {sum(points.values())} points each: {', '.join(points)}")
    print(f"table: {grading.to_csv(results, points, args.folder, args.csv, args.table)}")
    kept.unlink(missing_ok=True)
    return 0


def _write(path: Path, text: str) -> Path:
    from clteach.storage import write_atomic

    return write_atomic(path, lambda file: file.write(text.encode()))
