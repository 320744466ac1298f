"""Recorded numbers: what `clteach reproduce` wrote, and the published numbers beside them.

Every table of the book and of the README is made here from these records; none is typed by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from math import isnan, nan
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from clteach.errors import ConfigError, DataError, unknown
from clteach.metrics import MEASURES

FOLDER = Path(__file__).parent
RULE = (
    "the two differ by at most 2.5 standard errors of their difference, or by half a point (where the paper gives no "
    "error, by 2.5 of ours or by 1.5 points)"
)
"""When a recorded number agrees with the published one, in words; `clteach.experiments.compare` decides it."""


def names() -> list[str]:
    """The records that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "published")


def load(name: str) -> dict[str, Any]:
    """A record: a name that `names` lists ("split-digits" means the same as "split_digits"), or a file's path.

    Raises:
        ConfigError: no such record.
        DataError: the file is missing or damaged.
    """
    path = Path(name)
    if path.suffix != ".json":
        stem = name.replace("-", "_")
        if stem not in names():
            raise unknown("record", name, names())
        path = FOLDER / f"{stem}.json"
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        record["cells"], record["command"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a record ({type(error).__name__}: {error}). "
            "Expected a file that `clteach reproduce` wrote; run it again."
        ) from error
    return record


def of_recipe(recipe: str) -> str | None:
    """The record of a recipe: at full length where there is one, else of a shortened run; None: not recorded yet.

    Raises:
        ConfigError: no such recipe.
    """
    from clteach.recipes import RECIPES  # which knows all methods and studies: too much for one table

    if recipe not in RECIPES:
        raise unknown("recipe", recipe, RECIPES)
    found = [name for name in names() if load(name).get("name") == recipe]
    return min(found, key=lambda name: load(name)["shortened"], default=None)


def published(stream: str, preset: str, row: str, scenario: str, recalled: bool = False) -> dict[str, Any] | None:
    """A published average accuracy in percent (or FID): mean, sem (None: not given), source; None: not known here.

    With `recalled`, one that nobody has looked up in the paper: shown with a question mark, never judged by.
    """
    column = _published().get(stream, {}).get(preset, {})
    numbers = column.get("recalled" if recalled else "rows", {}).get(row, {}).get(scenario)
    if numbers is None:
        return None
    return {"mean": numbers[0], "sem": numbers[1], "source": column["source"] + "; recalled, not verified" * recalled}


def _in_the_paper(record: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """Whether the paper has a number for the cell, known here or not."""
    column = _published().get(record["stream"]["name"], {}).get(record["preset"], {})
    return cell["scenario"] in column.get("rows", {}).get(cell["row"], {})


@cache
def _published() -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))
    return numbers


def table(name: str) -> pd.DataFrame:
    """A record as a table, one line per row and scenario; accuracies and differences in percent (points), FID as it is.

    Returns:
        Columns: row, scenario, mean, sem, published, published_sem, difference, verdict ("recalled": see `published`; "not
        known here": the paper has a number that the package has not). Of a study: row, and for each measure its mean and
        its SEM ("NAME sem").
    """
    record, lines = load(name), []
    if "measures" in record:
        for cell in record["cells"]:
            line = {"row": cell["row"]}
            for measure in record["measures"]:
                line |= {measure: cell["measures"][measure]["mean"], f"{measure} sem": cell["measures"][measure]["sem"]}
            lines.append(line)
        return pd.DataFrame(lines)
    for cell in record["cells"]:
        measure = cell.get("measure", "accuracy")
        ours, paper = cell[f"average_{measure}"], cell["published"] or {"mean": None, "sem": None}
        difference, verdict, factor = cell["difference"], cell["verdict"], MEASURES[measure].factor
        guess = published(record["stream"]["name"], record["preset"], cell["row"], cell["scenario"], recalled=True)
        if guess is not None and "stream" not in cell:  # a row on a stream of its own is another experiment
            paper, difference, verdict = guess, factor * ours["mean"] - guess["mean"], "recalled"
        elif verdict == "not published" and "stream" not in cell and _in_the_paper(record, cell):
            verdict = "not known here"
        lines.append(
            {
                "row": cell["row"],
                "scenario": cell["scenario"],
                "mean": factor * ours["mean"],
                "sem": None if ours["sem"] is None else factor * ours["sem"],
                "published": paper["mean"],
                "published_sem": paper["sem"],
                "difference": difference,
                "verdict": verdict,
            }
        )
    numeric = ["mean", "sem", "published", "published_sem", "difference"]
    return pd.DataFrame(lines).astype(dict.fromkeys(numeric, float))


def overview(name: str) -> pd.DataFrame:
    """A record as rows × scenarios, each cell "mean ± SEM" in percent."""
    long = table(name)
    long["cell"] = [percent(mean, sem) for mean, sem in zip(long["mean"], long["sem"], strict=True)]
    wide = long.pivot(index="row", columns="scenario", values="cell")
    present = [scenario for scenario in ("task", "domain", "class") if scenario in wide]
    return wide.loc[long["row"].unique(), present].fillna("–")


def percent(mean: float, sem: float | None) -> str:
    """ "93.3 ± 0.4", or "93.3" where there is no SEM."""
    return f"{mean:.1f}" if sem is None or isnan(sem) else f"{mean:.1f} ± {sem:.1f}"


def shown(name: str) -> tuple[list[str], list[list[str]]]:
    """A record as head and lines of text: beside the published numbers where there are any, else rows × scenarios.

    Of a study: rows × measures. The rows of a sweep are headed by the setting that they vary.
    """
    record, long = load(name), table(name)
    measures, rows = record.get("measures"), record.get("axis") or "method"
    if measures is not None:
        lines = long.to_dict("records")
        body = [[line["row"], *(percent(line[m], line[f"{m} sem"]) for m in measures)] for line in lines]
        return ["", *measures.values()], body
    if long["published"].isna().all():
        wide = overview(name)
        body = [[row, *cells] for row, cells in zip(wide.index, wide.to_numpy().tolist(), strict=True)]
        return [rows, *(f"{scenario}-incremental" for scenario in wide)], body
    body = []
    for line in long.to_dict("records"):
        paper = "–" if isnan(line["published"]) else percent(line["published"], line["published_sem"])
        paper += "?" * (line["verdict"] == "recalled")
        difference = "–" if isnan(line["difference"]) else f"{round(line['difference'], 1) + 0.0:+.1f}"  # no "-0.0"
        ours = percent(line["mean"], line["sem"])
        body.append([line["row"], line["scenario"], ours, paper, difference, line["verdict"]])
    return [rows, "scenario", "ours", "published", "difference", "verdict"], body


def markdown(name: str) -> str:
    """`shown` as a Markdown table."""
    head, body = shown(name)
    return "".join("| " + " | ".join(row) + " |\n" for row in [head, ["---"] * len(head), *body])


def readme_table(name: str = "split-digits") -> str:
    """The README's table with the line that says how it came about, all from the record."""
    record = load(name)
    caption = (
        f"Average accuracy over all tasks after the last one, in percent, mean ± SEM over {len(record['seeds'])} seeds: "
        f"`{record['command']}`, clteach {record['version']}, {record['steps']} steps per task."
    )
    return f"{markdown(name)}\n{caption}\n"


def report(name: str) -> str:
    """A record as Markdown for a chapter: the table, how it came about, and where it leaves the paper's path."""
    record = load(name)
    verdicts = [cell["verdict"] for cell in record["cells"]]
    judged = [verdict for verdict in verdicts if verdict in ("agrees", "differs")]
    n, device = len(record["seeds"]), record["device"]
    competing = ""
    if any(cell.get("scenario") == "class" and "average_accuracy" in cell for cell in record["cells"]):
        every = record["stream"].get("active_units") == "all"
        competing = f" In Class-IL {'the units of all classes' if every else 'the classes seen so far'} compete."
    if "measures" in record:
        what, each = "Measured at the end of training:", "steps"
    else:
        measure = MEASURES[record["cells"][0].get("measure", "accuracy")]
        lower = ", lower is better," * (measure.sign < 0)
        what, each = (
            f"Average {measure.label}{measure.unit}{lower} over all tasks after the last one,",
            "steps per task",
        )
    parts = [
        markdown(name),
        f"*{record['summary'][0].upper()}{record['summary'][1:]}.* {what} "
        f"mean{' ± SEM' if n > 1 else ''} over {n} seed{'s'[: n > 1]}.{competing} Settings: {record['preset_source']}. "
        f"`{record['command']}`, clteach {record['version']} at {record['commit']}, {record['steps']} {each}, "
        f"on {device['gpu'] or device['cpu'] or 'a CPU'}; {_duration(record['training_seconds'])} of training.",
    ]
    if record["shortened"]:
        parts.append("**A shortened run**: fewer steps, seeds or tasks than the paper's, so no verdict is given.")
    elif judged:
        alone = " With one seed the spread is not known and counts as 0, so a verdict is weak evidence." * (n == 1)
        parts.append(f"{judged.count('agrees')} of {len(judged)} published cells agree: {RULE}.{alone}")
    if "measures" not in record and (table(name)["verdict"] == "recalled").any():
        parts.append("Published numbers with a question mark were recalled, not looked up: they give no verdict.")
    if record["deviations"]:
        parts.append("Deviations:\n" + "".join(f"\n* {deviation}" for deviation in record["deviations"]))
    return "\n\n".join(parts) + "\n"


def reports(*recipes: str) -> str:
    """The reports on the records of some recipes, one below the other, and which of the recipes have no record yet.

    Raises:
        ConfigError: no such recipe.
    """
    recorded = {recipe: of_recipe(recipe) for recipe in recipes}
    parts = [report(name) for name in recorded.values() if name]
    missing = ", ".join(f"`clteach reproduce {recipe}`" for recipe, name in recorded.items() if name is None)
    if missing:
        parts.append(f"Not recorded yet with this version: {missing}.\n")
    return "\n\n".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(seconds / 60, 1):.0f} minutes"


def scores(name: str, scenario: str | None = None) -> dict[str, list[float]]:
    """{row: average accuracies in [0, 1], or FIDs, one per seed} of a record, in one scenario (default: its only one).

    Raises:
        ConfigError: the record has several scenarios and none is named, or has not the one that is.
    """
    return {cell["row"]: cell[f"average_{cell.get('measure', 'accuracy')}"]["seeds"] for cell in _cells(name, scenario)}


def matrices(name: str, scenario: str | None = None, measure: str | None = None) -> dict[str, list[Tensor]]:
    """{row: accuracy matrices (T, T) in [0, 1], or FIDs, one per seed} of a record, in one scenario (default: its only one).

    With `measure`, the matrices of another one: of generators "precision", "recall" or "inception_score".

    Entry [t, i] belongs to task i after learning task t; NaN where it was not measured, and, of several seeds, where i > t.

    Raises:
        ConfigError: as `scores`.
        DataError: the record lacks them: of this measure, or of its several seeds all but the mean.
    """
    found = {}
    for cell in _cells(name, scenario):
        own = cell.get("measure", "accuracy")
        several = len(cell[f"average_{own}"]["seeds"]) > 1
        key = f"{measure or own}_{'matrices' if several else 'matrix'}"
        if key not in cell:
            raise DataError(
                f"{name} holds no {key}: it is older than them, or its methods are not measured so. "
                f"To record it again: `{load(name)['command']}`."
            )
        seeds = cell[key] if several else [cell[key]]
        found[cell["row"]] = [_tensor(R) for R in seeds]
    return found


def _tensor(R: list[list[float | None]]) -> Tensor:
    return torch.tensor([[nan if v is None else v for v in row] for row in R], dtype=torch.float64)


def _cells(name: str, scenario: str | None) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = load(name)["cells"]
    present = list(dict.fromkeys(cell["scenario"] for cell in cells))
    if scenario is None and len(present) == 1:
        scenario = present[0]
    if scenario not in present:
        raise unknown("scenario", str(scenario), present)
    return [cell for cell in cells if cell["scenario"] == scenario]


def measured(name: str) -> dict[str, dict[str, list[float]]]:
    """{head of the column: {row: values, one per seed}} of a study's record.

    Raises:
        ConfigError: the record is a table of methods × scenarios, see `scores`.
    """
    record = load(name)
    if "measures" not in record:
        raise ConfigError(f"{name} is no study: its rows are methods, and results.scores reads them.")
    return {
        head: {cell["row"]: cell["measures"][measure]["seeds"] for cell in record["cells"]}
        for measure, head in record["measures"].items()
    }


def stamp(text: str) -> str:
    """`text` with its tables filled from the records.

    ``<!-- table: NAME -->`` ... ``<!-- end of table -->`` holds one record, ``<!-- papers: STREAM PRESET -->`` ... all
    records of a stream and preset beside the published numbers.
    """
    from clteach.comparison import beside_paper  # which reads records itself

    pattern = r"(<!-- (table|papers): ([\w-]+)(?: ([\w-]+))? -->\n).*?(<!-- end of table -->)"

    def filled(match: re.Match[str]) -> str:
        content = readme_table(match[3]) if match[2] == "table" else beside_paper(match[3], match[4])
        return f"{match[1]}{content}{match[5]}"

    return re.sub(pattern, filled, text, flags=re.DOTALL)
