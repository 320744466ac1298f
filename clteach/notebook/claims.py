"""What a chapter claims, with the numbers that each claim rests on."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from clteach.errors import ConfigError, unknown

RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Claim:
    """One claim: its words, what was measured, what was expected of it, and whether it holds."""

    text: str
    measured: str
    expected: str
    holds: bool


class Claims:
    """The claims of one cell, two ways: with their numbers for the reader, as True or False for the tests.

    As the last value of a cell it is a table of what was measured and what was expected; the numbers differ a little
    between machines. What must be the same on every machine is printed by `check`.
    """

    def __init__(self) -> None:
        self.all: list[Claim] = []

    def add(self, text: str, value: Any, *bounds: Any, shown: str | None = None) -> None:
        """Claim something of a value.

        Args:
            text: the claim in words.
            value: a number, or many of them (a list, an array, a tensor, a Series): then all must hold, and the table
                shows from where to where they reach. Without bounds, a truth.
            bounds: pairs of a relation (< <= > >= ==) and a number, or as many numbers as there are values: ``">", 0.5``.
            shown: what the table shows as measured, instead of the value.

        Raises:
            ConfigError: an unknown relation, no value at all, bounds that are no pairs or as many as the values are not,
                several truths without bounds.
        """
        if len(bounds) % 2:
            raise ConfigError(
                f"{text!r}: the bounds {bounds!r} are no pairs; expected a relation and a number: '>', 0.5."
            )
        values, holds, expected = _array(value), True, []
        if not values.size or (not bounds and values.size > 1):
            raise ConfigError(
                f"{text!r}: {values.size} values{'' if bounds else ' without bounds'}; "
                "expected a truth, or at least one number and its bounds."
            )
        for relation, bound in zip(bounds[::2], bounds[1::2], strict=True):
            if relation not in RELATIONS:
                raise unknown("relation", str(relation), RELATIONS)
            limits = _array(bound)
            if limits.size not in (1, values.size):
                raise ConfigError(
                    f"{text!r}: {values.size} values and {limits.size} bounds; expected one bound, or one for each value."
                )
            holds = holds and bool(RELATIONS[relation](values.ravel(), limits.ravel()).all())
            sign = "" if relation == "==" else relation.replace("<=", "≤").replace(">=", "≥") + " "
            expected.append(sign + _range(limits))
        if not bounds:
            holds, expected = bool(values.item()), ["yes"]
        self.all.append(Claim(text.strip(), shown or _range(values), " and ".join(expected), holds))

    def check(self) -> None:
        """Print each claim and whether it holds: what tests compare.

        Raises:
            ConfigError: there are no claims.
        """
        if not self.all:
            raise ConfigError("No claims to check: add them first.")
        for claim in self.all:
            print(f"{claim.text}: {claim.holds}")

    def __repr__(self) -> str:
        return "\n".join(
            f"{each.text}: {each.measured} (expected: {each.expected}){'' if each.holds else ', which does not hold'}"
            for each in self.all
        )

    def _repr_markdown_(self) -> str:
        rows = [("claim", "measured", "expected", "holds"), ("---",) * 4]
        rows += [(each.text, each.measured, each.expected, "yes" if each.holds else "**no**") for each in self.all]
        return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if hasattr(value, "to_numpy"):  # of pandas
        return np.asarray(value.to_numpy())
    items = [each.item() if isinstance(each, Tensor) else each for each in value] if _is_many(value) else value
    return np.asarray(items)


def _is_many(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, (str, np.ndarray))


def _range(values: np.ndarray[Any, Any]) -> str:
    """One number as it is, several from the smallest to the largest."""
    if values.size == 1 or values.dtype.kind not in "iuf":
        return ", ".join(dict.fromkeys(map(_number, values.ravel().tolist())))
    low, high = _number(values.min().item()), _number(values.max().item())
    return low if low == high else f"{low} to {high}"


def _number(value: Any) -> str:
    """Three digits that count: 0.0312, 28.3, 1,234."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or (abs(value) >= 1000 and abs(value) < 1e6):
        return f"{value:,.0f}"
    return f"{value:.3g}"
