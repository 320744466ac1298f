"""Records: what `clteach reproduce` wrote and the package brings along, read back."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clteach.errors import ConfigError, DataError, unknown

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The records that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


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
    # A row whose training diverged has no scores.
    return [cell for cell in cells if cell["scenario"] == scenario and "diverged" not in cell]


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
