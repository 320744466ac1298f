"""Everything side by side: the recorded rows of one stream in one table, whichever records they stand in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from clteach.data.catalogue import outline
from clteach.data.streams import make_stream
from clteach.data.tasks import SCENARIOS, Stream
from clteach.errors import ConfigError, unknown
from clteach.experiments import agreement, papers, provenance
from clteach.learners.learner import Learner
from clteach.methods import METHODS, build, configure, method
from clteach.metrics.accuracy import average_accuracy, forgetting, mean_sem
from clteach.plots import look
from clteach.results import records, tables
from clteach.results.footprint import (
    fine_tuned,
    footprint,
    size,
)
from clteach.training.run import Run


def collected(stream: str) -> pd.DataFrame:
    """All recorded accuracies on one stream, whichever records they stand in: one line per row, scenario and preset.

    Where records overlap, the longer run counts: a full one before a shortened one, then the one with more seeds. Left out
    are sweeps over one setting, variants of one method, recipes that train for fewer steps than their preset's on purpose,
    and cells with another number of tasks than their preset's.

    Args:
        stream: its name, as in "split-digits"; of a data set in `clteach.data.catalogue.NAMES`.

    Returns:
        The columns of `live`. Accuracies, their SEM, forgetting and published numbers in percent, memory in kB (1000 bytes).

    Raises:
        ConfigError: nothing is recorded on this stream.
    """
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name in records.names():
        record = records.load(name)
        if record.get("stream", {}).get("name") != stream or record.get("axis"):
            continue
        column = papers.column(record["preset"], stream)
        if not record["shortened"] and record["steps"] != column.steps:
            continue
        for cell in record["cells"]:
            if cell.get("measure", "accuracy") != "accuracy" or "diverged" in cell:
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
    every = [records.load(name) for name in records.names()]
    return sorted(
        {
            record["stream"]["name"]
            for record in every
            if "stream" in record and any("average_accuracy" in cell for cell in record["cells"])
        }
    )


def _weight(line: Mapping[str, Any]) -> tuple[bool, int]:
    return not line["shortened"], len(line["scores"])


def _line(name: str, record: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    # Sizes do not depend on what an extractor has learned: its file of weights is not needed.
    without = ("name", "fingerprint", "validation", "weights")
    arguments = {k: v for k, v in {**record["stream"], **cell.get("stream", {})}.items() if k not in without}
    stand_in, samples = outline(record["stream"]["name"].partition("-")[2])
    if "classes" in arguments:  # the other classes are not in the stream, and these say how many tasks there are
        arguments.pop("tasks", None)
        samples = samples * sum(map(len, arguments["classes"])) // stand_in.n_classes
    spec = make_stream(record["stream"]["name"], cell["scenario"], stand_in, **arguments).spec
    if record["stream"]["name"].startswith("permuted-"):  # every task has all the samples, in an order of its own
        samples *= spec.n_tasks
    settings = {k: v for k, v in cell["settings"].items() if k != "weights"}
    learner = build(cell["method"], spec, configure(method(cell["method"]), settings))
    ours, paper, verdict = cell["average_accuracy"], cell["published"], cell["verdict"]
    if paper is None and "stream" not in cell:  # a row on a stream of its own is another experiment
        paper = agreement.published(
            record["stream"]["name"], record["preset"], cell["row"], cell["scenario"], recalled=True
        )
        verdict = verdict if paper is None else "recalled"
    paper = paper or {"mean": None, "sem": None}
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
        "verdict": verdict,
        "preset": record["preset"],
        "shortened": record["shortened"],
        "record": name,
    }


def _kilobytes(learner: Learner, samples: int) -> dict[str, float]:
    found = footprint(learner, samples)
    return {
        "network": size([fine_tuned(learner)]) / 1000,
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


MARKS = {"agrees": " ✓", "differs": " ✗", "recalled": "?"}


def side_by_side(table: pd.DataFrame, costs: bool = True) -> str:
    """The lines of `collected` and `live` as a Markdown table: a row per method, a column per scenario, then the costs.

    Published numbers stand in brackets, with ✓ or ✗ where a verdict was given and ? where they are recalled. Memory is that
    of the largest scenario, seconds are the mean over the scenarios; ``costs=False`` leaves both out, and has room for the
    published errors.
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
    return look.label(str(line["method"])) if line["row"] == line["method"] else str(line["row"])


def _cell(line: Any, published_sem: bool) -> str:
    text = tables.percent(line["mean"], line["sem"])
    if pd.isna(line["published"]):
        return text
    published = tables.percent(line["published"], line["published sem"] if published_sem else None)
    return f"{text} ({published}{MARKS.get(line['verdict'], '')})"


def sources(table: pd.DataFrame) -> str:
    """How the lines of a table came about, folded: command, seeds, steps and machine of every record, as a Markdown list."""
    items = []
    for name in dict.fromkeys(table["record"]):
        if name == "live":
            items.append("* live: computed on this page\n")
            continue
        record = records.load(name)
        n = len(record["seeds"])
        items.append(
            f"* `{record['command']}`, clteach {record['version']}, {n} seed{'s'[: n > 1]}, "
            f"{record['steps']} steps per task, on {provenance.named(record['device'])}. "
            f"Settings: {record['preset_source']}."
            f"{' **A shortened run**, so no verdict is given.' * record['shortened']}\n"
        )
    return f"<details>\n<summary>How it was recorded</summary>\n\n{''.join(items)}\n</details>\n"


def beside_paper(stream: str, preset: str) -> str:
    """The recorded rows of one preset beside the published numbers, as Markdown: the table, the rule, the sources."""
    lines = collected(stream)
    lines = lines[lines["preset"] == preset]
    verdicts = lines["verdict"].value_counts()
    agreeing, judged = verdicts.get("agrees", 0), verdicts.get("agrees", 0) + verdicts.get("differs", 0)
    recalled = " ?: recalled, not looked up in the paper, so no verdict is given." * ("recalled" in verdicts)
    return (
        f"{side_by_side(lines, costs=False)}\n"
        "Average accuracy over all tasks after the last one, in percent, mean ± SEM; in brackets the published number. "
        f"✓: {agreement.RULE}. {agreeing} of {judged} published cells agree.{recalled}\n\n{sources(lines)}"
    )


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
    """Those rows of `choose` that do not clearly differ from the best, by the rule of `experiments.agreement`.

    Raises:
        ConfigError: there are no rows.
    """
    from clteach.experiments.agreement import compare

    if rows.empty:
        raise ConfigError("no method fits: allow more memory, more time or stored data.")
    best = rows.iloc[0]
    reference = {"mean": best["mean"], "sem": 0.0 if pd.isna(best["sem"]) else best["sem"]}
    same = []
    for mean, sem in zip(rows["mean"], rows["sem"], strict=True):
        ours = {"mean": mean / 100, "sem": None if pd.isna(sem) else sem / 100}
        same.append(compare(ours, reference)["verdict"] == "agrees")
    return rows[same]
