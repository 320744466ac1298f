"""One record as a table: for the terminal, for a chapter, for the README. None of its numbers is typed by hand."""

from __future__ import annotations

from collections.abc import Collection
from math import isnan, nan

import pandas as pd

from clteach.experiments.agreement import RULE, in_the_paper, published
from clteach.experiments.provenance import named
from clteach.metrics.accuracy import MEASURES
from clteach.results.records import load, names


def of_recipe(recipe: str) -> str | None:
    """The record of a recipe: at full length where there is one, else of a shortened run; None: not recorded yet.

    Raises:
        ConfigError: no such recipe.
    """
    from clteach.experiments.papers import full_name  # which knows all methods and studies: too much for one table

    recipe = full_name(recipe)
    found = [name for name in names() if load(name).get("name") == recipe]
    return min(found, key=lambda name: load(name)["shortened"], default=None)


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
        ours = cell[f"average_{measure}"] or {"mean": nan, "sem": None}  # none where training diverged
        paper = cell["published"] or {"mean": None, "sem": None}
        difference, verdict, factor = cell["difference"], cell["verdict"], MEASURES[measure].factor
        guess = published(record["stream"]["name"], record["preset"], cell["row"], cell["scenario"], recalled=True)
        if guess is not None and "stream" not in cell:  # a row on a stream of its own is another experiment
            paper, difference, verdict = guess, factor * ours["mean"] - guess["mean"], "recalled"
        elif verdict == "not published" and "stream" not in cell and in_the_paper(record, cell):
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


def percent(mean: float, sem: float | None, digits: int = 1) -> str:
    """ "93.3 ± 0.4", or "93.3" where there is no SEM; a dash where there is no number."""
    if isnan(mean):
        return "–"
    return f"{mean:.{digits}f}" if sem is None or isnan(sem) else f"{mean:.{digits}f} ± {sem:.{digits}f}"


def shown(name: str) -> tuple[list[str], list[list[str]]]:
    """A record as head and lines of text: beside the published numbers where there are any, else rows × scenarios.

    Of a study: rows × measures. The rows of a sweep are headed by the setting that they vary.
    """
    record, long = load(name), table(name)
    measures, rows = record.get("measures"), record.get("axis") or "method"
    if measures is not None:
        lines = long.to_dict("records")
        digits = {m: 1 if long[m].abs().max() > 2 else 3 for m in measures}  # of shares and cosines one says too little
        body = [[line["row"], *(percent(line[m], line[f"{m} sem"], digits[m]) for m in measures)] for line in lines]
        return ["", *measures.values()], body
    judged = record["cells"][0].get("measure", "accuracy")
    generators = judged != "accuracy"  # which are asked for no class, so they have no scenario
    if long["published"].isna().all():
        wide = overview(name)
        body = [[row, *cells] for row, cells in zip(wide.index, wide.to_numpy().tolist(), strict=True)]
        return [
            rows,
            *([MEASURES[judged].label] if generators else [f"{scenario}-incremental" for scenario in wide]),
        ], body
    body = []
    for line in long.to_dict("records"):
        paper = "–" if isnan(line["published"]) else percent(line["published"], line["published_sem"])
        paper += "?" * (line["verdict"] == "recalled")
        difference = "–" if isnan(line["difference"]) else f"{round(line['difference'], 1) + 0.0:+.1f}"  # no "-0.0"
        ours = percent(line["mean"], line["sem"])
        scenario = [] if generators else [line["scenario"]]
        body.append([line["row"], *scenario, ours, paper, difference, line["verdict"]])
    return [rows, *([] if generators else ["scenario"]), "ours", "published", "difference", "verdict"], body


def markdown(name: str, rows: Collection[str] | None = None) -> str:
    """`shown` as a Markdown table, of these rows alone (None: all)."""
    head, body = shown(name)
    lines = [line for line in body if rows is None or line[0] in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in [head, ["---"] * len(head), *lines])


def readme_table(name: str = "split-digits") -> str:
    """The README's table with the line that says how it came about, all from the record."""
    record = load(name)
    caption = (
        f"Average accuracy over all tasks after the last one, in percent, mean ± SEM over {len(record['seeds'])} seeds: "
        f"`{record['command']}`, clteach {record['version']}, {record['steps']} steps per task."
    )
    return f"{markdown(name)}\n{caption}\n"


def report(name: str, rows: Collection[str] | None = None) -> str:
    """A record as Markdown for a chapter: the table and, folded, how it came about and where it leaves the paper's path.

    Args:
        name: the record.
        rows: show these rows alone; None: all.
    """
    return f"*{_title(name)}.* {_body(name, rows)}"


def reports(*recipes: str) -> str:
    """The reports on the records of some recipes, one below the other, and which of the recipes have no record yet.

    Of more than two, all but the first are folded behind their titles.

    Raises:
        ConfigError: no such recipe.
    """
    recorded = {recipe: of_recipe(recipe) for recipe in recipes}
    found = [name for name in recorded.values() if name]
    parts = [report(name) for name in found[: 1 if len(found) > 2 else 2]]
    parts += [
        f"<details>\n<summary>{_title(name)}</summary>\n\n{_body(name)}\n</details>\n" for name in found[len(parts) :]
    ]
    missing = ", ".join(f"`clteach reproduce {recipe}`" for recipe, name in recorded.items() if name is None)
    if missing:
        parts.append(f"Not recorded yet with this version: {missing}.\n")
    return "\n\n".join(parts)


def _title(name: str) -> str:
    summary: str = load(name)["summary"]
    return summary[0].upper() + summary[1:]


def _body(name: str, rows: Collection[str] | None = None) -> str:
    """What is measured, the table, the verdicts and, folded, all that the numbers depend on."""
    record = load(name)
    verdicts = [cell["verdict"] for cell in record["cells"] if rows is None or cell["row"] in rows]
    judged = [verdict for verdict in verdicts if verdict in ("agrees", "differs")]
    n = len(record["seeds"])
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
    said, how = [], []
    if record["shortened"]:
        said.append("**A shortened run**: fewer steps, seeds or tasks than the paper's, so no verdict is given.")
    elif judged:
        said.append(f"Published cells that agree: {judged.count('agrees')} of {len(judged)}.")
        alone = " With one seed the spread is not known and counts as 0, so a verdict is weak evidence." * (n == 1)
        how.append(f"A cell agrees with the published one where {RULE}.{alone}")
    lines = table(name)
    lines = lines if rows is None else lines[lines["row"].isin(rows)]
    if "measures" not in record and (lines["verdict"] == "recalled").any():
        said.append("Published numbers with a question mark were recalled, not looked up: they give no verdict.")
    if record["deviations"]:
        how.append("Deviations:\n" + "".join(f"\n* {deviation}" for deviation in record["deviations"]))
    parts = [
        f"{what} mean{' ± SEM' if n > 1 else ''} over {n} seed{'s'[: n > 1]}.{competing}",
        markdown(name, rows),
        " ".join(said),
        "<details>\n<summary>How it was recorded</summary>",
        f"Settings: {record['preset_source']}. "
        f"`{record['command']}`, clteach {record['version']} at {record['commit']}, {record['steps']} {each}, "
        f"on {named(record['device'])}; {_duration(record['training_seconds'])} of training.",
        *how,
        "</details>",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{max(seconds / 60, 1):.0f} minutes"
