r"""Everything side by side: the recorded rows of one stream in one table, what each method keeps, and method cards.

Accuracies and seconds come from the records (`clteach.results`). What a method keeps is counted on the learner itself. It is
built with the recorded settings and not trained, because all state has its final shape from the start:

$$\text{extra} = \text{bytes of its parameters and buffers} + \text{bytes of the old data it trains on again}
  - \text{bytes of fine-tuning's parameters and buffers.}$$

Optimisers are not counted: Adam keeps two numbers per trained weight, for every method alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import pandas as pd
from torch import Tensor, nn

from clteach import plots, presets, results
from clteach.data import outline
from clteach.errors import ConfigError, unknown
from clteach.learner import Learner
from clteach.methods import METHODS, build, configure, method
from clteach.methods.finetune import FineTune
from clteach.methods.vae_generators import FinetunedVAE
from clteach.metrics import average_accuracy, forgetting, mean_sem
from clteach.replay import Memory, room
from clteach.streams import SCENARIOS, Spec, Stream, make_stream
from clteach.training import Run

LABEL_BYTES = 16
"""A stored sample's label and task, 8 bytes each, as in `clteach.replay.Memory`."""


class Footprint(NamedTuple):
    """Bytes that a method holds after the last task, beyond those of fine-tuning."""

    data: int
    """real samples, with their labels"""
    kept: int
    """everything else that it cannot do without: importance of weights, masks, a generator; negative if it saves room"""
    passing: int
    """copies of the old model: made anew when a task begins, so they take room during a task, but not between two"""

    @property
    def extra(self) -> int:
        """All of it: what a checkpoint during a task holds."""
        return sum(self)


def size(modules: Iterable[nn.Module]) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    tensors = {id(t): t.nbytes for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensors.values())


def keeps_data(learner: Learner | type[Learner]) -> bool:
    """Does it hold real samples of past tasks: in a `Memory`, or because it trains on them again?

    A class is asked by building it for a small stream.
    """
    if isinstance(learner, type):
        learner = learner(_repeated(learner.scenarios[-1], 2))
    again = type(learner).training_data is not Learner.training_data
    return again or any(isinstance(module, Memory) for module in learner.modules())


def footprint(learner: Learner, samples: int) -> Footprint:
    """What a learner keeps, counted.

    Args:
        learner: any learner, trained or not.
        samples: number of training samples of all tasks: what a method holds that trains on all data so far.
    """
    base = _fine_tuned(learner)
    own = size(module for module in learner.modules() if isinstance(module, Memory))
    again = type(learner).training_data is not Learner.training_data
    data = own + (samples * (room(1, learner.spec.shape).nbytes + LABEL_BYTES) if again else 0)
    copies = sum(t.nbytes for t in passing(learner)) - sum(t.nbytes for t in passing(base))
    return Footprint(data, size([learner]) - size([base]) - own - copies, copies)


def passing(learner: Learner) -> list[Tensor]:
    """Its frozen copies, and its buffers called old_...: they are written anew when a task begins."""
    copies = [module for module in learner.modules() if getattr(module, "stays_in_eval_mode", False)]
    old = [buffer for name, buffer in learner.named_buffers() if name.rpartition(".")[2].startswith("old_")]
    within = {id(t): t for copy in copies for t in (*copy.parameters(), *copy.buffers())}
    return [*(within | {id(t): t for t in old}).values()]


def _fine_tuned(learner: Learner) -> Learner:
    """Fine-tuning of the same network: a classifier's, or for a pure generator that of a VAE."""
    cls = FineTune if learner.measure == "accuracy" else FinetunedVAE
    fields = {field.name for field in dataclasses.fields(cls.Config)}
    return cls(learner.spec, configure(cls, {k: v for k, v in vars(learner.cfg).items() if k in fields}))


def _repeated(scenario: str, tasks: int, shape: tuple[int, ...] = (1, 8, 8)) -> Spec:
    """A stream whose tasks share two output units, so that more tasks alone make no larger network."""
    return Spec(shape, tasks, 2, scenario, ((0, 1),) * tasks)


# ------------------------------------------------------------------------------------------------------------ the table


def collected(stream: str) -> pd.DataFrame:
    """All recorded accuracies on one stream, whichever records they stand in: one line per row, scenario and preset.

    Where records overlap, the longer run counts: a full one before a shortened one, then the one with more seeds. Left out
    are sweeps over one setting, variants of one method, recipes that train for fewer steps than their preset's on purpose,
    and cells with another number of tasks than their preset's.

    Args:
        stream: its name, as in "split-digits"; of a data set in `clteach.data.NAMES`.

    Returns:
        The columns of `live`. Accuracies, their SEM, forgetting and published numbers in percent, memory in kB (1000 bytes).

    Raises:
        ConfigError: nothing is recorded on this stream.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name in results.names():
        record = results.load(name)
        if record.get("stream", {}).get("name") != stream or record.get("axis"):
            continue
        column = presets.column(record["preset"], stream)
        if not record["shortened"] and record["steps"] != column.steps:
            continue
        for cell in record["cells"]:
            if cell.get("measure", "accuracy") != "accuracy":
                continue
            if {**column.stream, **cell.get("stream", {})}.get("tasks") != column.stream.get("tasks"):
                continue
            line = _line(name, record, cell)
            key = (record["preset"], cell["row"], cell["scenario"])
            if key not in found or _weight(found[key]) < _weight(line):
                found[key] = line
    if not found:
        raise unknown("recorded stream", stream, streams())
    return pd.DataFrame([line for name in METHODS for line in found.values() if line["method"] == name])


def streams() -> list[str]:
    """The streams that a record with accuracies exists of."""
    records = [results.load(name) for name in results.names()]
    return sorted(
        {
            record["stream"]["name"]
            for record in records
            if "stream" in record and any("average_accuracy" in cell for cell in record["cells"])
        }
    )


def _weight(line: Mapping[str, Any]) -> tuple[bool, int]:
    return not line["shortened"], len(line["scores"])


def _line(name: str, record: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    # Sizes do not depend on what an extractor has learned: its file of weights is not needed.
    without = ("name", "fingerprint", "validation", "weights")
    arguments = {k: v for k, v in {**record["stream"], **cell.get("stream", {})}.items() if k not in without}
    stand_in, samples = _outline(record["stream"]["name"].partition("-")[2])
    if "classes" in arguments:  # the other classes are not in the stream
        samples = samples * sum(map(len, arguments["classes"])) // stand_in.n_classes
    spec = make_stream(record["stream"]["name"], cell["scenario"], stand_in, **arguments).spec
    if record["stream"]["name"].startswith("permuted-"):  # every task has all the samples, in an order of its own
        samples *= spec.n_tasks
    settings = {k: v for k, v in cell["settings"].items() if k != "weights"}
    learner = build(cell["method"], spec, configure(method(cell["method"]), settings))
    ours, paper = cell["average_accuracy"], cell["published"] or {"mean": None, "sem": None}
    lost = cell["forgetting"]
    return {
        "row": cell["row"],
        "method": cell["method"],
        "scenario": cell["scenario"],
        "mean": 100 * ours["mean"],
        "sem": float("nan") if ours["sem"] is None else 100 * ours["sem"],
        "scores": ours["seeds"],
        "forgetting": float("nan") if lost is None else 100 * lost["mean"],
        "seconds": cell["seconds"],
        **_kilobytes(learner, samples),
        "published": float("nan") if paper["mean"] is None else paper["mean"],
        "published sem": float("nan") if paper["sem"] is None else paper["sem"],
        "verdict": cell["verdict"],
        "preset": record["preset"],
        "shortened": record["shortened"],
        "record": name,
    }


@cache
def _outline(dataset: str) -> Any:
    return outline(dataset)


def _kilobytes(learner: Learner, samples: int) -> dict[str, float]:
    found = footprint(learner, samples)
    return {
        "network": size([_fine_tuned(learner)]) / 1000,
        "extra": found.extra / 1000,
        "between": (found.data + found.kept) / 1000,
        "data": found.data / 1000,
    }


def live(runs: Sequence[Run], stream: Stream, row: str | None = None) -> pd.DataFrame:
    """Runs that were just made, as one line for the same table (put them together with `pandas.concat`).

    Args:
        runs: runs of one method on one stream, one per seed.
        stream: what they were trained on.
        row: the row's name (default: the method's).

    Returns:
        One line with the columns

        * row, method, scenario, preset ("live"), record ("live"), shortened (False);
        * mean, sem: of the average accuracy over seeds, in percent; scores: of each seed, in [0, 1];
        * forgetting: mean over seeds, in percentage points;
        * seconds: training time of a run;
        * network: kB of the network that fine-tuning trains; extra, between, data: kB kept beside it during a task, between
          two tasks, and of these real samples;
        * published, published sem, verdict: none.
    """
    learner = runs[0].learner
    scores = [average_accuracy(run.accuracy) for run in runs]
    mean, sem = mean_sem(scores)
    line = {
        "row": row or learner.name,
        "method": learner.name,
        "scenario": learner.spec.scenario,
        "mean": 100 * mean,
        "sem": 100 * sem,
        "scores": scores,
        "forgetting": 100 * mean_sem([forgetting(run.accuracy) for run in runs])[0],
        "seconds": mean_sem([sum(run.seconds) for run in runs])[0],
        **_kilobytes(learner, sum(len(task.train) for task in stream)),
        "published": float("nan"),
        "published sem": float("nan"),
        "verdict": "not published",
        "preset": "live",
        "shortened": False,
        "record": "live",
    }
    return pd.DataFrame([line])


MARKS = {"agrees": " ✓", "differs": " ✗"}


def side_by_side(table: pd.DataFrame, costs: bool = True) -> str:
    """The lines of `collected` and `live` as a Markdown table: a row per method, a column per scenario, then the costs.

    Published numbers stand in brackets, with ✓ or ✗ where a verdict was given. Memory is that of the largest scenario,
    seconds are the mean over the scenarios; ``costs=False`` leaves both out, and has room for the published errors.
    """
    scenarios = [scenario for scenario in SCENARIOS if scenario in set(table["scenario"])]
    several = table["preset"].nunique() > 1
    head = [
        "method",
        *(["settings"] if several else []),
        *(f"{scenario.capitalize()}-IL (%)" for scenario in scenarios),
    ]
    head += ["extra memory (kB)", "of which data (kB)", "seconds"] * costs
    body = []
    for (preset, _), lines in table.groupby(["preset", "row"], sort=False):
        cells = lines.set_index("scenario")
        shown = [
            _cell(cells.loc[scenario], published_sem=not costs) if scenario in cells.index else "–"
            for scenario in scenarios
        ]
        name = named(lines.iloc[0]) + " (shortened run)" * bool(lines["shortened"].any())
        price = [f"{lines['extra'].max():,.0f}", f"{lines['data'].max():,.0f}", f"{lines['seconds'].mean():,.0f}"]
        if costs:
            # The columns are narrow: a number stays on the line of its error, and a verdict on that of its number.
            shown = [cell.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (") for cell in shown]
        body.append([name, *([str(preset)] if several else []), *shown, *(price if costs else [])])
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, ["---"] * len(head), *body])


def named(line: Mapping[str, Any] | pd.Series) -> str:
    """What a row is called in print: the display name where the row is called as its method is."""
    return plots.label(str(line["method"])) if line["row"] == line["method"] else str(line["row"])


def _cell(line: Any, published_sem: bool) -> str:
    text = results.percent(line["mean"], line["sem"])
    if pd.isna(line["published"]):
        return text
    published = results.percent(line["published"], line["published sem"] if published_sem else None)
    return f"{text} ({published}{MARKS.get(line['verdict'], '')})"


def sources(table: pd.DataFrame) -> str:
    """How the lines of a table came about, as a Markdown list: command, seeds, steps and machine of every record."""
    items = []
    for name in dict.fromkeys(table["record"]):
        if name == "live":
            items.append("* live: computed on this page\n")
            continue
        record = results.load(name)
        n, device = len(record["seeds"]), record["device"]
        items.append(
            f"* `{record['command']}`, clteach {record['version']}, {n} seed{'s'[: n > 1]}, "
            f"{record['steps']} steps per task, on {device['gpu'] or device['cpu'] or 'a CPU'}. "
            f"Settings: {record['preset_source']}."
            f"{' **A shortened run**, so no verdict is given.' * record['shortened']}\n"
        )
    return "".join(items)


def beside_paper(stream: str, preset: str) -> str:
    """The recorded rows of one preset beside the published numbers, as Markdown: the table, the rule, the sources."""
    lines = collected(stream)
    lines = lines[lines["preset"] == preset]
    verdicts = lines["verdict"].value_counts()
    agreeing, judged = verdicts.get("agrees", 0), verdicts.get("agrees", 0) + verdicts.get("differs", 0)
    return (
        f"{side_by_side(lines, costs=False)}\n"
        "Average accuracy over all tasks after the last one, in percent, mean ± SEM; in brackets the published number. "
        f"✓: {results.RULE}. {agreeing} of {judged} published cells agree.\n\n{sources(lines)}"
    )


# ------------------------------------------------------------------------------------------------------------ the cards

CHAPTERS = {
    "vae_generators": "03_multiband_vae",
    "multiband_vae": "03_multiband_vae",
    "generative_replay": "04_generative_replay",
    "brain_inspired_replay": "05_brain_inspired_replay",
    "hypernetwork": "06_hypernetwork",
    "hypernetwork_replay": "06_hypernetwork",
    "hypernetwork_tir": "06_hypernetwork",
    "hypernetwork_vae": "06_hypernetwork",
    "ebgan": "07_ebgan",
    "dream_replay": "07_ebgan",
    "domain_transfer": "07_ebgan",
}
"""The chapter that takes a module of `clteach.methods` apart; the baselines are those of 01_forgetting."""


def cards() -> pd.DataFrame:
    """One line per registered method: what it needs and keeps. All of it is computed from the classes.

    Returns:
        Columns: method, name; what (its summary); scenarios; needs the task (must it be told when it is used?); keeps data;
        extra memory (kB): that of `footprint` on split digits; per task (kB): what each further task adds to it, the network
        staying the same; chapter and API: links, as HTML.

    Methods that are not of this package (a reader's own) have no links.
    """
    return pd.DataFrame([_card(cls) for cls in METHODS.values()])


def _card(cls: type[Learner]) -> dict[str, Any]:
    column, (stand_in, samples) = presets.column("digits", "split-digits"), _outline("digits")
    scenario = cls.scenarios[-1]
    fields = cls.Config.__dataclass_fields__
    cfg = configure(cls, {k: v for k, v in column.settings(cls.name, scenario).items() if k in fields})
    spec = make_stream("split-digits", scenario, stand_in, **column.stream).spec
    n = spec.n_tasks
    more = "domain" if "domain" in cls.scenarios else scenario
    # Twice the tasks, each as large as before.
    grown = [footprint(cls(_repeated(more, k * n), cfg), k * samples).extra for k in (1, 2)]
    module = cls.__module__.rpartition(".")[2]
    own = cls.__module__.startswith("clteach.methods.")
    stem = CHAPTERS.get(module, "01_forgetting")
    return {
        "method": plots.label(cls.name),
        "name": cls.name,
        "what": cls.summary,
        "scenarios": _scenarios(cls),
        "needs the task": "yes" if cls.scenarios == ("task",) else "no",
        "keeps data": "yes" if keeps_data(cls) else "no",
        "extra memory (kB)": footprint(cls(spec, cfg), samples).extra / 1000,
        "per task (kB)": (grown[1] - grown[0]) / n / 1000,
        "chapter": f'<a href="{stem}.ipynb">{int(stem[:2])}</a>' if own else "",
        "API": f'<a href="../book/api.md#{cls.__module__}.{cls.__qualname__}">{cls.__name__}</a>' if own else "",
    }


def _scenarios(cls: type[Learner]) -> str:
    if cls.measure != "accuracy":
        return "generates only"
    return "all three" if len(cls.scenarios) == len(SCENARIOS) else ", ".join(cls.scenarios)


def choose(
    table: pd.DataFrame,
    scenario: str,
    *,
    data: bool = True,
    kilobytes: float | None = None,
    seconds: float | None = None,
) -> pd.DataFrame:
    """The rows of a table that a situation allows, best first. Joint training is left out: it keeps everything.

    Args:
        table: lines of `collected` and `live`.
        scenario: "task" if the task is known when the network is used, else "domain" or "class".
        data: may real samples be kept?
        kilobytes: most that may be kept beside the network during a task; None: no limit.
        seconds: longest training time of a run; None: no limit.

    Raises:
        ConfigError: an unknown scenario.
    """
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    fits = (table["scenario"] == scenario) & (table["method"] != "joint")
    if not data:
        fits &= table["data"] == 0
    if kilobytes is not None:
        fits &= table["extra"] <= kilobytes
    if seconds is not None:
        fits &= table["seconds"] <= seconds
    return table[fits].sort_values("mean", ascending=False, kind="stable")


def as_good(rows: pd.DataFrame) -> pd.DataFrame:
    """Those rows of `choose` that do not clearly differ from the best, by the rule of `clteach.experiments.compare`.

    Raises:
        ConfigError: there are no rows.
    """
    from clteach.experiments import compare

    if rows.empty:
        raise ConfigError("no method fits: allow more memory, more time or stored data.")
    best = rows.iloc[0]
    reference = {"mean": best["mean"], "sem": 0.0 if pd.isna(best["sem"]) else best["sem"]}
    same = []
    for mean, sem in zip(rows["mean"], rows["sem"], strict=True):
        ours = {"mean": mean / 100, "sem": None if pd.isna(sem) else sem / 100}
        same.append(compare(ours, reference)["verdict"] == "agrees")
    return rows[same]
