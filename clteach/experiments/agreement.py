"""Published numbers, and the rule by which a recorded number agrees with one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

RULE = (
    "the two differ by at most 2.5 standard errors of their difference, or by half a point (where the paper gives no "
    "error, by 2.5 of ours or by 1.5 points)"
)
"""When a recorded number agrees with the published one, in words; `compare` decides it."""


def published(stream: str, preset: str, row: str, scenario: str, recalled: bool = False) -> dict[str, Any] | None:
    """A published average accuracy in percent (or FID): mean, sem (None: not given), source; None: not known here.

    With `recalled`, one that nobody has looked up in the paper: shown with a question mark, never judged by.
    """
    column = _published().get(stream, {}).get(preset, {})
    numbers = column.get("recalled" if recalled else "rows", {}).get(row, {}).get(scenario)
    if numbers is None:
        return None
    return {"mean": numbers[0], "sem": numbers[1], "source": column["source"] + "; recalled, not verified" * recalled}


def in_the_paper(record: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    """Whether the paper has a number for the cell, known here or not."""
    column = _published().get(record["stream"]["name"], {}).get(record["preset"], {})
    return cell["scenario"] in column.get("rows", {}).get(cell["row"], {})


@cache
def _published() -> dict[str, Any]:
    numbers: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return numbers


def compare(
    ours: Mapping[str, Any] | None, paper: Mapping[str, Any] | None, withheld: bool = False, measure: str = "accuracy"
) -> dict[str, Any]:
    """Does our number agree with the published one? In percentage points.

    It agrees when |ours - published| ≤ max(0.5, 2.5 √(SEM² + SEM_published²)), or, where no SEM is published, when it is
    within max(1.5, 2.5 SEM). FIDs are shown, not judged: they were taken in the features of another network.

    Args:
        ours: mean and sem as shares of 1 (sem None: one seed, counted as 0); None: the training diverged.
        paper: mean and sem (or None) in percent; None: not published.
        withheld: give no verdict (a shortened run).
        measure: what is compared, one of `metrics.MEASURES`.
    """
    if ours is None:
        shown = None if paper is None else dict(paper)
        return {"published": shown, "difference": None, "tolerance": None, "verdict": "diverged"}
    if paper is None:
        return {"published": None, "difference": None, "tolerance": None, "verdict": "not published"}
    if measure == "fid":
        # Two networks, two scales: a difference would mean nothing.
        return {"published": dict(paper), "difference": None, "tolerance": None, "verdict": "other features"}
    difference = 100 * ours["mean"] - paper["mean"]
    sem = 100 * (ours["sem"] or 0.0)
    tolerance = max(1.5, 2.5 * sem) if paper["sem"] is None else max(0.5, 2.5 * math.hypot(sem, paper["sem"]))
    verdict = "agrees" if abs(difference) <= tolerance else "differs"
    return {
        "published": dict(paper),
        "difference": difference,
        "tolerance": tolerance,
        "verdict": "withheld" if withheld else verdict,
    }
