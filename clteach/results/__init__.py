"""Recorded numbers: what `clteach reproduce` wrote, and the published numbers beside them.

Every table of the book and of the README is made here from these records; none is typed by hand.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from clteach.errors import DataError, unknown

FOLDER = Path(__file__).parent


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


def published(stream: str, preset: str, row: str, scenario: str) -> dict[str, Any] | None:
    """A published average accuracy: mean and sem (None: not given) in percent, and the source; None: not known here."""
    column = _published().get(stream, {}).get(preset)
    numbers = None if column is None else column["rows"].get(row, {}).get(scenario)
    return None if numbers is None else {"mean": numbers[0], "sem": numbers[1], "source": column["source"]}


@cache
def _published() -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads((FOLDER / "published.json").read_text(encoding="utf-8"))
    return numbers


def table(name: str) -> pd.DataFrame:
    """A record as a table, one line per row and scenario; accuracies and differences in percent (points).

    Returns:
        Columns: row, scenario, mean, sem, published, published_sem, difference, verdict.
    """
    lines = []
    for cell in load(name)["cells"]:
        ours, paper = cell["average_accuracy"], cell["published"] or {"mean": None, "sem": None}
        lines.append(
            {
                "row": cell["row"],
                "scenario": cell["scenario"],
                "mean": 100 * ours["mean"],
                "sem": None if ours["sem"] is None else 100 * ours["sem"],
                "published": paper["mean"],
                "published_sem": paper["sem"],
                "difference": cell["difference"],
                "verdict": cell["verdict"],
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
    return f"{mean:.1f}" if sem is None or sem != sem else f"{mean:.1f} ± {sem:.1f}"


def lines(name: str) -> list[list[str]]:
    """A record's lines as shown: method, scenario, ours, published, difference, verdict ("–" where there is no number)."""
    shown = []
    for line in table(name).itertuples():
        paper = "–" if line.published != line.published else percent(line.published, line.published_sem)
        difference = "–" if line.difference != line.difference else f"{line.difference:+.1f}"
        shown.append([line.row, line.scenario, percent(line.mean, line.sem), paper, difference, line.verdict])
    return shown


def markdown(name: str) -> str:
    """A record as a Markdown table: beside the published numbers where there are any, else methods × scenarios."""
    if not table(name)["published"].isna().all():
        return _markdown(["method", "scenario", "ours", "published", "difference", "verdict"], lines(name))
    wide = overview(name)
    head = ["method", *(f"{scenario}-incremental" for scenario in wide)]
    return _markdown(head, [[row, *cells] for row, cells in zip(wide.index, wide.to_numpy().tolist(), strict=True)])


def readme_table(name: str = "split-digits") -> str:
    """The README's table with the line that says how it came about, all from the record."""
    record = load(name)
    seeds, device = len(record["seeds"]), record["device"]
    caption = (
        f"Average accuracy over all tasks after the last one, in percent, mean ± SEM over {seeds} seeds. "
        f"`{record['command']}`, clteach {record['version']}, {record['steps']} steps per task, "
        f"{record['training_seconds'] / 60:.0f} minutes of training on one thread of {device['gpu'] or device['cpu']}."
    )
    return f"{markdown(name)}\n{caption}\n"


def _markdown(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)
