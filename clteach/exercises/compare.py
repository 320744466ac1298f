"""Compare an answer with what was expected, whatever it is, and say in words how the two differ."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 1000  # items of a list that are looked at
LARGEST = 1_000_000  # values of a tensor that is looked at
SHOWN = 12  # numbers of a tensor that are shown


@dataclass(frozen=True)
class Foreign:
    """Stands for a value of a type that no exercise expects."""

    kind: str


@dataclass(frozen=True)
class Learnable:
    """A value together with its gradients, {what by: gradient}."""

    value: Any
    gradient: Any


@dataclass(frozen=True)
class Difference:
    """`kind` (type, shape, nan or wrong), both values in words, and a hint if the difference itself tells something."""

    kind: str
    expected: str
    got: str
    hint: str = ""


def plain(value: Any) -> Any:
    """A value as plain data that can be compared: tensors detached, dense, on the CPU and in double precision."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, Tensor):
        if value.numel() > LARGEST:  # its shape is wrong anyway
            return torch.empty(value.shape, dtype=value.dtype, device="meta")
        value = value.detach().cpu()
        value = value.to_dense() if value.layout != torch.strided else value
        return value.double() if value.is_floating_point() else value.clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return plain(torch.as_tensor(value))
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in itertools.islice(value, LONGEST))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in itertools.islice(value.items(), LONGEST)}
    if isinstance(value, Learnable):
        return Learnable(plain(value.value), plain(value.gradient))
    return Foreign(type(value).__name__)


def difference(expected: Any, got: Any, tolerance: float) -> Difference | None:
    """None if `got` agrees with `expected` (both made `plain`), else how they differ."""
    if isinstance(expected, Learnable):
        if not isinstance(got, Learnable):
            return difference(expected.value, got, tolerance)
        value = difference(expected.value, got.value, tolerance)
        return value or _each({"gradient: ": (expected.gradient, got.gradient)}, tolerance)
    if isinstance(expected, dict):
        if not isinstance(got, dict):
            return Difference("type", kind(expected), kind(got), _type_hint(got))
        if missing := expected.keys() - got.keys():
            missing_keys = f"Missing: {', '.join(sorted(missing))}."
            return Difference("type", f"the keys {sorted(expected)}", f"the keys {sorted(got)}", missing_keys)
        return _each({f"{key}: ": (expected[key], got[key]) for key in expected}, tolerance)
    if isinstance(expected, tuple):
        if isinstance(got, Tensor) and got.ndim:
            got = tuple(got)
        if not isinstance(got, tuple):
            return Difference("type", kind(expected), kind(got), _type_hint(got))
        if len(got) != len(expected):
            return Difference("shape", f"{len(expected)} items", f"{len(got)} items")
        return _each({f"item {i}: ": pair for i, pair in enumerate(zip(expected, got, strict=True))}, tolerance)
    if isinstance(expected, str):
        if not isinstance(got, str):
            return Difference("type", kind(expected), kind(got), _type_hint(got))
        same = got.strip(" .()").lower() == expected.lower()
        return None if same else Difference("wrong", show(expected), show(got))
    return _numbers(expected, got, tolerance)


def _each(pairs: dict[str, tuple[Any, Any]], tolerance: float) -> Difference | None:
    for where, (expected, got) in pairs.items():
        if found := difference(expected, got, tolerance):
            return Difference(found.kind, where + found.expected, where + found.got, found.hint)
    return None


def _numbers(expected: Any, got: Any, tolerance: float) -> Difference | None:
    mine = expected if isinstance(expected, Tensor) else torch.tensor(expected, dtype=_dtype(expected))
    theirs = _tensor(got)
    if theirs is None:
        return Difference("type", kind(expected), kind(got), _type_hint(got))
    if (mine.dtype == torch.bool) != (theirs.dtype == torch.bool):
        hint = "A mask holds True and False, so that it can be used as an index." if mine.dtype == torch.bool else ""
        return Difference("type", kind(expected), kind(got), hint)
    if mine.shape != theirs.shape:
        return Difference("shape", kind(expected), kind(got), _shape_hint(mine, theirs))
    if mine.dtype == torch.bool:
        return None if torch.equal(mine, theirs) else Difference("wrong", *_both(mine, theirs))
    if theirs.is_complex():
        return Difference("type", kind(expected), kind(got))
    mine, theirs = mine.double(), theirs.double()
    if not bool(theirs.isfinite().all()) and bool(mine.isfinite().all()):
        return Difference("nan", *_both(mine, theirs))
    if torch.allclose(theirs, mine, rtol=tolerance, atol=tolerance / 10, equal_nan=True):
        return None
    return Difference("wrong", *_both(mine, theirs), _factor_hint(mine, theirs))


def _dtype(value: Any) -> torch.dtype:
    return torch.bool if isinstance(value, bool) else torch.float64


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (bool, int, float)):
        return torch.tensor(value, dtype=_dtype(value))
    if isinstance(value, tuple):
        parts = [_tensor(item) for item in value]
        known = [part for part in parts if part is not None]
        if known and len(known) == len(parts) and len({(part.shape, part.dtype) for part in known}) == 1:
            return torch.stack(known)
    return None


def _type_hint(got: Any) -> str:
    if got is None:
        return "The function returned None: is there a `return` on every way through it?"
    if isinstance(got, Foreign) and got.kind == "generator":
        return "Use `return` instead of `yield`."
    if isinstance(got, Foreign) and got.kind in ("function", "method", "builtin_function_or_method"):
        return "The function returned a function. Are there brackets missing, as in `x.sum` for `x.sum()`?"
    return ""


def _shape_hint(mine: Tensor, theirs: Tensor) -> str:
    if theirs.ndim == 0:
        return "One number for everything: over which dimension is the sum or mean to run?"
    if mine.ndim == 0:
        return "One number was expected: sum or average what is left."
    if mine.ndim == theirs.ndim == 2 and mine.shape == theirs.T.shape:
        return "It is transposed."
    return ""


def _factor_hint(mine: Tensor, theirs: Tensor) -> str:
    where = mine.abs() > 1e-8
    if not bool(where.any()) or not bool((theirs[~where].abs() < 1e-6).all()):
        return ""
    ratio = theirs[where] / mine[where]
    if not bool((ratio - ratio[0]).abs().max() < 1e-3 * ratio[0].abs()):
        return ""
    factor = float(ratio[0])
    return "The sign is reversed." if abs(factor + 1) < 1e-3 else f"Here it is {factor:.3g} times what was expected."


def _both(mine: Tensor, theirs: Tensor) -> tuple[str, str]:
    """Both tensors in words; long ones only around the first place where they differ."""
    if mine.numel() <= SHOWN:
        return show(mine), show(theirs)
    wrong = (mine != theirs) if mine.dtype == torch.bool else ~torch.isclose(theirs, mine, rtol=1e-3, equal_nan=True)
    place = tuple(int(i) for i in (wrong.nonzero()[0] if bool(wrong.any()) else torch.zeros(mine.ndim).long()))
    at = f" at [{', '.join(map(str, place))}]"
    return show(mine[place]) + at, show(theirs[place]) + f"{at} ({int(wrong.sum())} of {mine.numel()} values differ)"


def kind(value: Any) -> str:
    """What sort of thing a value is, in words."""
    if isinstance(value, Tensor):
        what = "bool" if value.dtype == torch.bool else "float" if value.is_floating_point() else "integer"
        return f"a {what} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Foreign):
        return f"an object of type {value.kind}"
    if isinstance(value, tuple):
        return f"{len(value)} items in a list or tuple"
    names = {bool: "True or False", int: "a number", float: "a number", str: "a text", dict: "a dict"}
    return names.get(type(value), str(value))


def show(value: Any) -> str:
    """A value in words, short."""
    if isinstance(value, Tensor):
        if value.numel() > SHOWN:
            return kind(value)
        return _rounded(value.tolist())
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    if callable(value):
        return f"the function {getattr(value, '__name__', '?')}"
    if isinstance(value, (list, tuple, float)):
        return _rounded(list(value) if isinstance(value, tuple) else value)
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _rounded(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        shown = [_rounded(item) for item in value[:SHOWN]] + (["..."] if len(value) > SHOWN else [])
        return f"[{', '.join(shown)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return show(value)
