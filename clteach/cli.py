"""The command line: ``clteach run | list | reproduce | sweep``, also as ``python -m clteach``.

The options of a command are a typed dataclass, and tyro reads it: fields are options, the strings below them the help. The
options of the methods are their `Config` classes, taken from the registry. What an option is worth is settled in this
order: given on the command line, else the preset's, else the default.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from tyro.conf import FlagConversionOff, FlagCreatePairsOff, Positional, UseAppendAction, arg

import clteach
from clteach.errors import ClteachError, ConfigError, unknown

# The top-level help must not wait for torch: everything that needs it is imported inside the commands.
if TYPE_CHECKING:
    from clteach.experiments import Job

Names = Annotated[Positional[tuple[str, ...]], arg(metavar="METHOD...", help_behavior_hint="")]


@dataclass
class Processes:
    """Where the runs take place."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu or cuda"""
    jobs: int | None = None
    """processes, one thread each; None: one per core, at most 4 on a GPU"""
    fresh: bool = False
    """repeat runs that are finished, instead of reading them back"""


@dataclass
class Training:
    """What to train."""

    stream: str = "split-digits"
    """split-NAME, permuted-NAME or dirichlet-NAME of a data set, see `clteach list`"""
    scenario: Literal["task", "domain", "class"] = "class"
    """what is known of the task, and which output units compete"""
    preset: str | None = None
    """a paper's settings by name, see `clteach list`; None: the stream's own preset, if it has one"""
    seeds: int = 1
    """number of seeds, 0, 1, ...: the table shows mean and standard error over them"""
    iters: int | None = None
    """training steps per task; None: the preset's (2000 without one)"""
    batch: int | None = None
    """samples per step; None: the preset's (128 without one)"""
    tasks: int | None = None
    """number of tasks; None: the preset's, or the stream's default"""
    hidden: tuple[int, ...] | None = None
    """units of each hidden layer, for every method (a method's own option goes first)"""
    lr: float | None = None
    """learning rate, for every method (a method's own option goes first)"""


@dataclass
class Run(Processes, Training):
    """Train methods on a stream of tasks and compare them. Without a method: finetune, ewc, generative-replay, joint."""

    methods: Names = ()
    """methods to train (see `clteach list`); name them first"""
    out: Path = Path("out")
    """folder for results, pictures, checkpoints and models"""
    json: bool = False
    """print one JSON document on stdout and nothing else there"""


@dataclass
class List:
    """Show the methods, streams, presets and recipes there are."""


@dataclass
class Reproduce(Processes):
    """Run a recorded table again and write its numbers, with all that they depend on, beside the paper's."""

    name: Positional[str] = ""
    """the recipe, see `clteach list`"""
    preset: str | None = None
    """whose settings and published numbers; None: the recipe's first"""
    seeds: int | None = None
    """number of seeds; None: the recipe's. Fewer than 3 make a shortened run"""
    iters: int | None = None
    """training steps per task; None: the preset's. Fewer make a shortened run"""
    out: Path = Path("results")
    """folder for the record, checkpoints and runs"""


@dataclass
class Sweep(Processes, Training):
    """Try a grid of methods × settings × seeds, and show which setting is best."""

    methods: Names = ()
    """methods to try (see `clteach list`); name them first"""
    set: UseAppendAction[tuple[str, ...]] = ()
    """values to try, as METHOD.SETTING=A,B,... or SETTING=A,B,... for every method that has it; may be repeated"""
    on: Literal["valid", "test"] = "valid"
    """what decides: a held-out part of the training data, or the test set (then its numbers are no fair estimate)"""
    validation: float = 0.2
    """share of the training data held out with --on valid"""
    backend: Literal["loky", "dask", "ray"] = "loky"
    """loky: processes of this machine; dask, ray: a cluster through joblib"""
    address: str | None = None
    """address of the cluster's scheduler; None: a cluster on this machine"""
    out: Path = Path("out/sweep")
    """folder for the table, checkpoints and runs"""


COMMANDS: dict[str, type] = {"run": Run, "list": List, "reproduce": Reproduce, "sweep": Sweep}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for an error of the user's to mend, 130 for Ctrl-C, 1 for anything else."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        return _main(args)
    except SystemExit as stop:  # tyro printed its help, or what is wrong with an option
        return stop.code if isinstance(stop.code, int) else 2
    except ClteachError as error:
        print(f"clteach: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("clteach: stopped. The same command resumes from the checkpoints.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("CLTEACH_DEBUG"):
            raise
        print(
            f"clteach: unexpected {type(error).__name__}: {error} (set CLTEACH_DEBUG=1 for the traceback)",
            file=sys.stderr,
        )
        return 1


def _main(args: list[str]) -> int:
    if args and args[0] == "--version":
        print(f"clteach {clteach.__version__}")
        return 0
    if not args or args[0].startswith("-"):
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS, args=args or ["--help"], prog="clteach", description=clteach.__doc__
        )
        return 0
    command, rest = args[0], args[1:]
    if command == "run":
        return run(*_parse_run(rest))
    if command == "list":
        _parse(List, command, rest)
        return show_lists()
    if command == "reproduce":
        return reproduce(_parse(Reproduce, command, rest))
    if command == "sweep":
        return sweep(_parse(Sweep, command, rest))
    raise unknown("command", command, COMMANDS)


def _parse(cls: type, command: str, args: list[str], default: Any = None) -> Any:
    options = {} if default is None else {"default": default}
    return tyro.cli(cls, prog=f"clteach {command}", args=args, config=(FlagCreatePairsOff,), **options)


def _parse_run(args: list[str]) -> tuple[Run, dict[str, Any]]:
    """The options, and {method: its complete settings}.

    Parsed twice: which preset, stream and common settings are asked for decides the defaults of the methods' own options,
    so that the help shows the values that would be used.
    """
    from clteach.methods import METHODS

    fields = [(name.replace("-", "_"), cls.Config, field(default_factory=cls.Config)) for name, cls in METHODS.items()]
    options = dataclasses.make_dataclass("Run", fields, bases=(Run,))
    options.__doc__ = Run.__doc__
    first = _parse(options, "run", [word for word in args if word not in ("-h", "--help")])
    configs = {name.replace("-", "_"): _config(name, first) for name in METHODS}
    final = _parse(options, "run", args, options(**configs))
    return final, {name: dataclasses.asdict(getattr(final, name.replace("-", "_"))) for name in METHODS}


def _config(method: str, options: Training) -> Any:
    """The method's settings: its defaults, over them the preset's, over them the common options."""
    from clteach.experiments import fitting
    from clteach.methods import METHODS, configure

    common = {key: value for key in ("hidden", "lr") if (value := getattr(options, key)) is not None}
    return configure(
        METHODS[method], fitting(method, {**_column(options).settings(method, options.scenario), **common})
    )


def _column(options: Training) -> Any:
    from clteach import presets

    return presets.column(options.preset or presets.default_preset(options.stream), options.stream)


def _jobs(options: Run | Sweep, method: str, settings: Mapping[str, Any], **more: Any) -> list[Job]:
    """One job per seed."""
    from clteach.experiments import Job

    column = _column(options)
    if options.seeds < 1:
        raise ConfigError(f"--seeds {options.seeds}: expected at least one.")
    stream = {**column.stream, **({} if options.tasks is None else {"tasks": options.tasks}), **more.pop("stream", {})}
    return [
        Job(
            method,
            options.stream,
            options.scenario,
            seed,
            column.steps if options.iters is None else options.iters,
            column.batch if options.batch is None else options.batch,
            settings,
            stream,
            options.device,
            **more,
        )
        for seed in range(options.seeds)
    ]


def _settings_line(options: Run | Sweep, job: Job) -> str:
    from clteach import presets

    name = options.preset or presets.default_preset(options.stream)
    used = f"preset {name} ({presets.PRESETS[name].source})" if name else "no preset, the methods' defaults"
    return (
        f"{options.stream}, {options.scenario}-incremental, {job.steps} steps per task, batch {job.batch}, "
        f"{options.seeds} seed{'s'[: options.seeds > 1]}; {used}"
    )


# ------------------------------------------------------------------------------------------------------------- run


def run(options: Run, settings: Mapping[str, Mapping[str, Any]]) -> int:
    """``clteach run``."""
    from clteach.experiments import DEFAULT_METHODS, run_jobs, summarise
    from clteach.methods import method

    console = Console(stderr=options.json, highlight=False, soft_wrap=True)
    supported = [name for name in DEFAULT_METHODS if options.scenario in method(name).scenarios]
    methods = list(dict.fromkeys(options.methods)) or supported
    notes = [
        f"{name} is left out: it does not support the scenario {options.scenario!r} ({method(name).needs})"
        for name in DEFAULT_METHODS
        if not options.methods and name not in supported
    ]
    for name in methods:
        method(name)  # an unknown one is an error before anything starts
    jobs = [job for name in methods for job in _jobs(options, name, settings[name])]
    console.print(_settings_line(options, jobs[0]))
    results = run_jobs(jobs, options.out, n_jobs=options.jobs, keep=True, fresh=options.fresh)
    finished = sum(result["read_back"] for result in results)
    if finished:
        notes.append(f"{finished} of {len(results)} runs were finished before and are read back (--fresh repeats them)")
    n = options.seeds
    summaries = {name: summarise(results[i * n : (i + 1) * n]) for i, name in enumerate(methods)}
    stem = f"{options.stream}-{options.scenario}"
    picture = _picture(options, summaries, options.out / f"{stem}.png")
    document = {
        "command": "run",
        "version": clteach.__version__,
        "stream": options.stream,
        "scenario": options.scenario,
        "steps": jobs[0].steps,
        "batch": jobs[0].batch,
        "seeds": list(range(n)),
        "device": results[0]["job"]["device"],
        "results": summaries,
        "picture": str(picture),
        "notes": notes,
    }
    file = _write(options.out / f"{stem}.json", json.dumps(document, indent=1, allow_nan=False))
    _print_summaries(console, summaries)
    for note in notes:
        console.print(f"note: {note}", markup=False)
    console.print(
        f"accuracy matrices: {picture}\nnumbers: {file}\ntrained models: {options.out / 'runs'}", markup=False
    )
    if options.json:
        print(json.dumps(document, allow_nan=False))
    return 0


def _print_summaries(console: Console, summaries: Mapping[str, Mapping[str, Any]]) -> None:
    from clteach.metrics import forgetting
    from clteach.results import percent

    table = Table("method", box=box.SIMPLE_HEAD)
    for head in ("average accuracy (%)", "forgetting", "seconds", "steps/s"):
        table.add_column(head, justify="right")
    for name, summary in sorted(summaries.items(), key=lambda item: -item[1]["average_accuracy"]["mean"]):
        score, lost = summary["average_accuracy"], 100 * forgetting(_tensor(summary["accuracy_matrix"]))
        table.add_row(
            name,
            percent(100 * score["mean"], None if score["sem"] is None else 100 * score["sem"]),
            "–" if lost != lost else f"{lost:.1f}",
            f"{summary['seconds']:.1f}",
            f"{summary['iterations_per_second']:.0f}",
        )
    console.print(table)


def _picture(options: Run, summaries: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    from clteach import plots

    matrices = {name: _tensor(summary["accuracy_matrix"]) for name, summary in summaries.items()}
    title = f"{options.stream}, {options.scenario}-incremental"
    return plots.save(plots.accuracy_matrices(matrices, title), path)


def _tensor(matrix: list[list[float | None]]) -> Any:
    import torch

    return torch.tensor([[float("nan") if value is None else value for value in row] for row in matrix])


# ------------------------------------------------------------------------------------------------------------ list


def show_lists() -> int:
    """``clteach list``."""
    from clteach.data import NAMES
    from clteach.experiments import RECIPES
    from clteach.methods import METHODS
    from clteach.presets import PRESETS
    from clteach.streams import MAKERS, SCENARIOS

    scenarios = {
        name: "" if len(cls.scenarios) == len(SCENARIOS) else f" [{', '.join(cls.scenarios)} only]"
        for name, cls in METHODS.items()
    }
    sections = {
        "methods": {name: cls.summary + scenarios[name] for name, cls in METHODS.items()},
        "streams": {f"{how}-NAME": (maker.__doc__ or "").split("\n")[0] for how, maker in MAKERS.items()},
        "data sets (NAME)": {**NAMES, "NAME": "your own NAME.npz in the folder CLTEACH_DATA"},
        "presets": {name: f"{p.summary}: {p.source} [{', '.join(p.columns)}]" for name, p in PRESETS.items()},
        "recipes (clteach reproduce)": {
            name: f"{recipe.summary} [{', '.join(recipe.presets)}]" for name, recipe in RECIPES.items()
        },
    }
    for title, entries in sections.items():
        print(f"{title}:")
        for name, line in entries.items():
            print(f"  {name:<18} {line}")
    return 0


# ------------------------------------------------------------------------------------------------------- reproduce


def reproduce(options: Reproduce) -> int:
    """``clteach reproduce NAME``."""
    from clteach import experiments, results

    if not options.name:
        raise ConfigError(f"name a recipe: {', '.join(experiments.RECIPES)}.")
    path = experiments.reproduce(
        options.name,
        options.out,
        preset=options.preset,
        seeds=options.seeds,
        iters=options.iters,
        device=options.device,
        n_jobs=options.jobs,
        fresh=options.fresh,
    )
    record = results.load(str(path))
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{options.name}: {record['summary']}{' (shortened run)' if record['shortened'] else ''}", markup=False
    )
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("method", "scenario", "ours (%)", "published (%)", "difference", "verdict"):
        table.add_column(head)
    for line in results.lines(str(path)):
        table.add_row(*line)
    console.print(table)
    for deviation in record["deviations"]:
        console.print(f"deviation: {deviation}", markup=False)
    console.print(f"record: {path}", markup=False)
    return 0


# ----------------------------------------------------------------------------------------------------------- sweep


def sweep(options: Sweep) -> int:
    """``clteach sweep``."""
    from clteach.experiments import grid, run_jobs, summarise
    from clteach.methods import method

    if not options.methods:
        raise ConfigError("name the methods to try, e.g. clteach sweep ewc --set ewc.lam=1e2,1e4.")
    if options.on == "valid" and not 0 < options.validation < 1:
        raise ConfigError(f"--validation {options.validation}: expected a share between 0 and 1.")
    methods = list(dict.fromkeys(options.methods))
    tried: dict[str, dict[str, list[Any]]] = {name: {} for name in methods if method(name)}
    for word in options.set:
        _add_values(word, tried)
    stream = {"validation": options.validation} if options.on == "valid" else {}
    jobs, candidates = [], []
    for name in methods:
        base = dataclasses.asdict(_config(name, options))
        for choice in grid(tried[name]):
            candidates.append((name, choice))
            jobs += _jobs(options, name, {**base, **choice}, stream=stream, evaluate_on=options.on)
    where = "held-out training data" if options.on == "valid" else "the test set"
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{_settings_line(options, jobs[0])}; {len(candidates)} candidates, judged on {where}")
    results = run_jobs(
        jobs,
        options.out,
        n_jobs=options.jobs,
        backend=options.backend,
        address=options.address,
        fresh=options.fresh,
    )
    n, lines = options.seeds, []
    for i, (name, choice) in enumerate(candidates):
        lines.append({"method": name, "tried": choice, **summarise(results[i * n : (i + 1) * n])})
    lines.sort(key=lambda line: -line["average_accuracy"]["mean"])
    _print_sweep(console, lines, methods, where)
    document = {"stream": options.stream, "scenario": options.scenario, "judged_on": options.on, "candidates": lines}
    text = json.dumps(document, indent=1, allow_nan=False)
    files = [_write(options.out / "sweep.json", text), _write(options.out / "sweep.csv", _csv(lines))]
    console.print(f"numbers: {files[0]}, {files[1]}", markup=False)
    return 0


def _add_values(word: str, tried: dict[str, dict[str, list[Any]]]) -> None:
    """Enter ``METHOD.SETTING=A,B`` or ``SETTING=A,B`` into {method: {setting: values}}."""
    from clteach.methods import METHODS

    key, equals, values = word.partition("=")
    name, dot, setting = key.rpartition(".")
    if dot and name not in tried:
        raise unknown("method", name, tried)
    having = [
        m for m in ([name] if dot else tried) if setting.replace("-", "_") in METHODS[m].Config.__dataclass_fields__
    ]
    if not equals or not having:
        known = [f"{m}.{f}" for m in tried for f in METHODS[m].Config.__dataclass_fields__]
        raise unknown("setting", key, known)
    for m in having:
        tried[m][setting.replace("-", "_")] = [_value(m, setting, text, word) for text in values.split(",")]


def _value(name: str, setting: str, text: str, word: str) -> Any:
    """One value of a method's setting, read and checked as the option --METHOD.SETTING would be."""
    from clteach.methods import METHODS

    option = f"--{setting.replace('_', '-')}"
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parsed = tyro.cli(METHODS[name].Config, args=[option, *text.split()], config=(FlagConversionOff,))
    except SystemExit:
        kind = METHODS[name].Config.__dataclass_fields__[setting.replace("-", "_")].type
        raise ConfigError(f"--set {word}: {text!r} is no value of {name}.{setting}; expected {kind}.") from None
    return getattr(parsed, setting.replace("-", "_"))


def _print_sweep(console: Console, lines: list[dict[str, Any]], methods: list[str], where: str) -> None:
    from clteach.results import percent

    def settings(line: Mapping[str, Any]) -> str:
        return ", ".join(f"{key}={value}" for key, value in line["tried"].items()) or "(as preset)"

    table = Table(box=box.SIMPLE_HEAD)
    for head in ("method", "setting", "average accuracy (%)"):
        table.add_column(head)
    scores = {}
    for line in lines:
        score = line["average_accuracy"]
        shown = percent(100 * score["mean"], None if score["sem"] is None else 100 * score["sem"])
        table.add_row(line["method"], settings(line), shown)
        scores.setdefault(line["method"], f"{settings(line)} with {shown} %")
    console.print(table)
    for name in methods:
        console.print(f"best for {name} on {where}: {scores[name]}", markup=False)


def _csv(lines: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(key for line in lines for key in line["tried"]))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["method", *names, "mean", "sem", "seeds"])
    for line in lines:
        score = line["average_accuracy"]
        values = [line["tried"].get(name, "") for name in names]
        writer.writerow([line["method"], *values, score["mean"], score["sem"], " ".join(map(str, score["seeds"]))])
    return text.getvalue()


def _write(path: Path, text: str) -> Path:
    from clteach.files import write_atomic

    return write_atomic(path, lambda file: file.write(text.encode()))
