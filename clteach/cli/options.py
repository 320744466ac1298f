"""What the commands accept, and what an option is worth: given on the command line, else the preset's, else the default.

The options of a command are a typed dataclass, and tyro reads it: fields are options, the strings below them the help. The
options of the methods are their `Config` classes, taken from the registry.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

from clteach.errors import ConfigError, unknown

# The top-level help must not wait for torch: everything that needs it is imported inside the functions.
if TYPE_CHECKING:
    from clteach.experiments.jobs import Job
    from clteach.experiments.recipe import Column

DEFAULT_METHODS = ("finetune", "ewc", "generative-replay", "joint")
"""What `clteach run` trains when no method is named."""
Names = Annotated[Positional[tuple[str, ...]], arg(metavar="METHOD...", help_behavior_hint="")]


@dataclass
class Processes:
    """Where the runs take place."""

    device: str = "auto"
    """auto (a GPU where there is one), cpu or cuda"""
    jobs: int | None = None
    """processes; None: one per core (or per --threads cores), at most 4 on a GPU"""
    threads: int = 1
    """threads of each process: with fewer runs than cores more than one is faster, and rounds differently"""
    fresh: bool = False
    """start every run anew: read nothing back and resume nothing"""


@dataclass
class Training:
    """What to train."""

    stream: str = "split-digits"
    """split-NAME, permuted-NAME, dirichlet-NAME or faded-NAME of a data set, see `clteach list`"""
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
    classes: tuple[str, ...] | None = None
    """the classes of each task of a split stream, by number, a word for each task: 0,1,2 7 3-6"""
    first: int | None = None
    """number of classes of task 1 of a split stream, e.g. 50 (init_cls in PyCIL); None: as many as --then"""
    then: int | None = None
    """number of classes of every later task, e.g. 5 (increment in PyCIL); the last one gets what is left"""
    class_order: Literal["natural", "random"] | None = None
    """order in which the tasks of a split stream take the classes: by number, or shuffled anew for each seed"""
    fade: float | None = None
    """of a faded stream, the share of a task's training in which it is mixed with a neighbour, in (0, 1]"""
    extractor: str | None = None
    """put every method behind this frozen feature extractor ("conv", for images): the data are encoded once"""
    weights: str | None = None
    """file with the extractor's weights, here or in the data folder (`clteach pretrain` writes it), or
    `cifar10.safetensors` or `cifar10-2020.safetensors`, which come with the package"""
    hidden: tuple[int, ...] | None = None
    """units of each hidden layer, for every method (a method's own option goes first)"""
    lr: float | None = None
    """learning rate, for every method (a method's own option goes first)"""
    replay_model: Literal["vae", "multiband-vae", "ebgan", "hypernetwork", "diffusion"] | None = None
    """what dreams of the past, for the methods with a choice: generative-replay and dream-replay"""


@dataclass
class Run(Processes, Training):
    """Train methods on a stream of tasks and compare them. Without a method: finetune, ewc, generative-replay, joint.

    `clteach run METHOD... --help` shows the settings of these methods.
    """

    methods: Names = ()
    """methods to train (see `clteach list`); name them first"""
    out: Path = Path("out")
    """folder for results, pictures, checkpoints and models"""
    json: bool = False
    """print one JSON document on stdout and nothing else there"""
    csv: bool = False
    """also write every score as a tidy table, STREAM-SCENARIO.csv: a row for each task after each task"""
    log: Literal["tensorboard"] | None = None
    """tensorboard: also write losses and scores for TensorBoard, where it is installed, into OUT/tensorboard"""


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
    """number of seeds; None: the recipe's. Fewer than these and than 3 make a shortened run"""
    iters: int | None = None
    """training steps per task; None: the preset's. Fewer make a shortened run"""
    tasks: int | None = None
    """permutations, of a recipe on permuted data; None: the recipe's. Fewer make a shortened run"""
    rows: tuple[str, ...] = ()
    """run only these rows of the table; the others stay as they are in the record in --out. None named: all"""
    together: bool = False
    """train the seeds of a row at once where that is faster; the numbers are those of single runs within rounding. Runs that
    were begun one by one are begun anew"""
    keep: bool = False
    """also keep the trained models, one folder per run, for `Run.load`"""
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
    by: str | None = None
    """also draw a histogram of the candidates' scores: one for each value of this setting (or for each "method")"""
    backend: Literal["loky", "dask", "ray"] = "loky"
    """loky: processes of this machine; dask, ray: a cluster through joblib"""
    address: str | None = None
    """address of the cluster's scheduler; None: a cluster on this machine"""
    out: Path = Path("out/sweep")
    """folder for the table, checkpoints and runs"""


@dataclass
class Pretrain:
    """Train a feature extractor on a data set, to be frozen with `--extractor NAME --weights FILE`. Killed, it goes on."""

    data: str = "cifar10"
    """data set"""
    classes: int | None = None
    """how many classes, the first ones; None: all"""
    extractor: str = "conv-normalised"
    """the network to train"""
    epochs: int = 100
    """passes over the data"""
    batch_size: int = 256
    """images per step"""
    lr: float = 1e-4
    """learning rate"""
    uniform_gains: bool = False
    """batch norm's gains begin at random in [0, 1), as in PyTorch before 1.2, instead of at 1"""
    seed: int = 0
    """of weights, batches and augmentation"""
    out: Path | None = None
    """file; None: DATA.safetensors (or DATA-firstCLASSES.safetensors) in the data folder"""
    device: str = "auto"
    """auto (a GPU where there is one), cpu or cuda"""


@dataclass
class Assign:
    """Write a chapter's exercises as an assignment: for nbgrader, Gradescope or otter-grader, and plain for Colab."""

    chapter: Annotated[Positional[str], arg(metavar="CHAPTER", help_behavior_hint="")] = ""
    """the chapter's number, e.g. 02"""
    to: Path = Path("course")
    """folder of the course: source/NAME/NAME.ipynb is the instructor's, colab/NAME.ipynb the students' without nbgrader"""
    system: Annotated[Literal["nbgrader", "gradescope", "otter"], arg(name="for")] = "nbgrader"
    """what grades it; gradescope: gradescope/NAME.zip is the autograder, colab/NAME.ipynb the students'; otter:
    otter/NAME.ipynb is what otter assign reads"""
    seed: int | None = None
    """the hidden tests use the numbers of this seed; None: a random one"""
    overwrite: bool = False
    """replace files that are there"""


@dataclass
class Grade:
    """Grade a folder of submitted notebooks, each in a process with limits, and write one CSV."""

    folder: Annotated[Positional[Path | None], arg(metavar="FOLDER", help_behavior_hint="")] = None
    """folder with the notebooks, searched with all its subfolders"""
    csv: Path = Path("grades.csv")
    """the table to write: one line per notebook"""
    table: Literal["all", "canvas", "moodle", "blackboard"] = "all"
    """its columns: all that is known, or those that a learning management system imports"""
    chapter: str | None = None
    """whose exercises; None: the chapter that most of the notebooks mention"""
    seed: int = 1
    """the functions are tried on the numbers that students see and on those of this seed"""
    seconds: float = 300.0
    """time limit of one notebook"""
    memory: float = 4.0
    """memory limit of one notebook in GB (where the system enforces it)"""
    jobs: int = 1
    """notebooks at a time"""


@dataclass
class New:
    """Write a method of your own that runs as it is, with its test, to start from."""

    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")] = ""
    """what the method is called, in small letters, words joined by hyphens: my-method"""
    to: Path = Path(".")
    """folder for my_method.py and test_my_method.py"""
    overwrite: bool = False
    """replace files that are there"""


COMMANDS: dict[str, type] = {
    "run": Run,
    "list": List,
    "reproduce": Reproduce,
    "sweep": Sweep,
    "pretrain": Pretrain,
    "new": New,
    "assign": Assign,
    "grade": Grade,
}


def parse(cls: type, command: str, args: list[str]) -> Any:
    """The options of a command; prints the help or what is wrong, and raises SystemExit."""
    return tyro.cli(cls, prog=f"clteach {command}", args=args, config=(FlagCreatePairsOff,))


def parse_run(args: list[str]) -> tuple[Run, dict[str, dict[str, Any]]]:
    """The options, and {method to train: its complete settings}, in the order they are named (or the default four).

    Parsed twice. First with the options of all methods, to learn which methods, stream, preset and common settings are
    asked for; then with the options of these methods alone, whose defaults are the values that those imply. So the help
    shows what would be used, and an option of a method that is not trained is an error.
    """
    from clteach.methods import METHODS, method

    def run_options(configs: Mapping[str, Any]) -> type[Run]:
        """`Run` with a group of options for every method."""
        fields = [(_field(name), type(default), field(default=default)) for name, default in configs.items()]
        return dataclasses.make_dataclass("Run", fields, bases=(Run,), namespace={"__doc__": Run.__doc__})

    everything = run_options({name: cls.Config() for name, cls in METHODS.items()})
    first = parse(everything, "run", [word for word in args if word not in ("-h", "--help")])
    methods = {name: method(name) for name in first.methods or DEFAULT_METHODS}
    check_replay_model(first, methods)
    final = parse(run_options({name: config(name, first) for name in methods}), "run", args)
    return final, {name: dataclasses.asdict(getattr(final, _field(name))) for name in methods}


def check_replay_model(options: Training, methods: Iterable[str]) -> None:
    """Is there a method that has the choice?

    Raises:
        ConfigError: no.
    """
    from clteach.methods import METHODS

    if options.replay_model and not any("replay_model" in METHODS[m].Config.__dataclass_fields__ for m in methods):
        raise ConfigError(
            f"--replay-model {options.replay_model}: none of {', '.join(methods)} chooses what it replays from. "
            "Train generative-replay (or dream-replay) with it."
        )


def _field(method: str) -> str:
    return method.replace("-", "_")


def config(method: str, options: Training) -> Any:
    """The method's settings: its defaults, over them the preset's, over them the common options."""
    from clteach.methods import METHODS, configure, fitting

    common = {key: value for key in ("hidden", "lr", "replay_model") if (value := getattr(options, key)) is not None}
    return configure(METHODS[method], fitting(method, {**column(options).settings(method, options.scenario), **common}))


def column(options: Training) -> Column:
    from clteach.experiments import papers

    return papers.column(options.preset or papers.default_preset(options.stream), options.stream)


def jobs(options: Run | Sweep, method: str, settings: Mapping[str, Any], **more: Any) -> list[Job]:
    """One job per seed."""
    from clteach.experiments.jobs import Job

    chosen = column(options)
    if options.seeds < 1:
        raise ConfigError(f"--seeds {options.seeds}: expected at least one.")
    stream = {**stream_settings(options, chosen.stream), **more.pop("stream", {})}
    return [
        Job(
            method,
            options.stream,
            options.scenario,
            seed,
            chosen.steps if options.iters is None else options.iters,
            chosen.batch if options.batch is None else options.batch,
            settings,
            stream,
            options.device,
            threads=options.threads,
            **more,
        )
        for seed in range(options.seeds)
    ]


def stream_settings(options: Training, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's arguments of the stream, and over them those that are given.

    Raises:
        ConfigError: classes of tasks for a stream that has none of its own, or not written as expected.
    """
    names = ("tasks", "classes", "first", "then", "class_order", "fade", "extractor", "weights")
    given = {key: value for key in names if (value := getattr(options, key)) is not None}
    of_split = [key for key in ("classes", "first", "then", "class_order") if key in given]
    if of_split and not options.stream.startswith(("split-", "faded-")):
        raise ConfigError(
            f"--{of_split[0].replace('_', '-')} with --stream {options.stream}: its tasks are not made of classes. Expected "
            "a split stream, such as split-digits."
        )
    if "classes" in given:
        given["classes"] = [_classes(word) for word in given["classes"]]
        if "class_order" in given:
            raise ConfigError("--classes says in which order the classes come: leave --class-order out.")
    sized = of_split and set(of_split) != {"class_order"} and "tasks" not in given
    return {**{key: value for key, value in preset.items() if not (sized and key == "tasks")}, **given}


def _classes(word: str) -> list[int]:
    """The classes of one task: "0,1,5-7" -> [0, 1, 5, 6, 7]."""
    found: list[int] = []
    for part in word.split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(
                f"--classes {word}: expected the numbers of the classes of one task, separated by commas, without blanks, "
                "such as 0,1,2 or 0-4. A blank begins the next task."
            )
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return found


def add_values(word: str, tried: dict[str, dict[str, list[Any]]]) -> None:
    """Enter ``METHOD.SETTING=A,B`` or ``SETTING=A,B`` into {method: {setting: values}}."""
    from clteach.methods import METHODS

    key, equals, values = word.partition("=")
    name, dot, setting = key.rpartition(".")
    setting = setting.replace("-", "_")
    if not equals:
        raise ConfigError(f"--set {word}: expected METHOD.SETTING=A,B,... or SETTING=A,B,...")
    if dot and name not in tried:
        raise unknown("method", name, tried)
    having = [m for m in ([name] if dot else tried) if setting in METHODS[m].Config.__dataclass_fields__]
    if not having:
        raise unknown("setting", key, [f"{m}.{f}" for m in tried for f in METHODS[m].Config.__dataclass_fields__])
    for m in having:
        tried[m][setting] = [_value(m, setting, text, word) for text in values.split(",")]


def _value(name: str, setting: str, text: str, word: str) -> Any:
    """One value of a method's setting, of the setting's type and accepted by its Config."""
    from clteach.methods import METHODS, configure

    kind = get_type_hints(METHODS[name].Config)[setting]
    words = [{"true": "True", "false": "False", "none": "None"}.get(part.lower(), part) for part in text.split()]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            value = tyro.cli(kind, args=words)
    except SystemExit:
        kind = METHODS[name].Config.__dataclass_fields__[setting].type
        raise ConfigError(f"--set {word}: {text!r} is no value of {name}.{setting}; expected {kind}.") from None
    configure(METHODS[name], {setting: value})
    return value
