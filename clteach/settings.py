"""Settings as they are meant: every value is checked and converted once, by the annotation that the command line reads.

In Python people hand over what they have: ``1e3`` for a number of steps, NumPy's numbers, lists out of a JSON file, text.
What can mean only one thing is taken as that; anything else is refused with its name, before anything is computed. So the
code behind need not ask what kind of number it got, and what is written to a file is always plain.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from clteach.errors import ConfigError, unknown

P = ParamSpec("P")
R = TypeVar("R")

LARGEST = 3.4e38
"""The largest size of a number that float32 holds: weights and losses are float32."""
MOST_SAMPLES, MOST_UNITS, MOST_STEPS = 1_000_000, 100_000, 1_000_000_000
"""The most samples to keep or to take at once, units or dimensions of a layer, and steps: more is a slip of the pen."""
SEED = "a whole number of 0 or more"
"""What the error about a seed says."""


class _Misfit(Exception):
    """The value is none of this kind."""


def convert(name: str, value: Any, kind: Any, expected: str | None = None) -> Any:
    """A setting's value as its annotation says.

    Text is read as the command line reads it, a float that is whole is a whole number, numbers of NumPy and tensors of one
    number are Python's, lists are tuples where those are asked for. A value that is right already comes back as the same
    object, and so does any value of a kind that is not known here (a device, a data set).

    Args:
        name: the setting's name, for the error.
        value: what was handed over.
        kind: int, float, bool, str, None, Literal, tuple[X, ...], tuple[X, Y], Sequence[X] or list[X] of these, or a union.
        expected: what the error says was expected; None: said by `kind`.

    Returns:
        The converted value.

    Raises:
        ConfigError: the value is not of this kind, or a number is NaN, infinite or beyond float32.
    """
    try:
        return _fitted(value, kind)
    except (_Misfit, TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor without data
        if (names := _names(kind)) and isinstance(value, str) and expected is None:
            raise unknown(f"value of {name}", str(value), names) from None
        raise ConfigError(f"{name}={_shown(value)}: expected {expected or _described(kind)}.") from None


def convert_fields(settings: Any, expected: Mapping[str, str] | None = None) -> None:
    """Convert all fields of a dataclass in place, also of a frozen one: the first line of its ``__post_init__``.

    Args:
        settings: the dataclass.
        expected: {field: what an error says was expected}, where its annotation does not say enough.

    Raises:
        ConfigError: as `convert`.
    """
    kinds = get_type_hints(type(settings))
    for field in fields(settings):
        before = getattr(settings, field.name)
        after = convert(field.name, before, kinds[field.name], (expected or {}).get(field.name))
        if after is not before:
            object.__setattr__(settings, field.name, after)


def converted(**expected: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: convert the arguments of a function by its annotations.

    Args:
        **expected: what an error says was expected of these arguments, where their annotations do not say enough.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own error names the function
            values = arguments(function, given.arguments, expected)
            given.arguments.update(values)
            return function(*given.args, **given.kwargs)

        return call

    return decorate


def arguments(
    function: Callable[..., Any], given: Mapping[str, Any], expected: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Those of the given arguments that a function names, converted by its annotations.

    Args:
        function: whose annotations count.
        given: {argument: value}; what goes into ``*args`` and ``**kwargs`` is left out.
        expected: as in `convert_fields`.

    Raises:
        ConfigError: as `convert`.
    """
    kinds = get_type_hints(function)
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [name for name, p in inspect.signature(function).parameters.items() if p.kind not in open_ended]
    return {
        name: convert(name, given[name], kinds.get(name, Any), (expected or {}).get(name))
        for name in named
        if name in given
    }


def within(who: str, low: float, high: float, **values: float | None) -> None:
    """ConfigError unless all values that are given (not None) lie in [low, high]; `who` has these settings."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ConfigError(
                f"{who}: {name}={_shown(value)}, expected at least {_bound(low)} and at most {_bound(high)}."
            )


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# ------------------------------------------------------------------------------------------------- kinds of values


def _fitted(value: Any, kind: Any) -> Any:
    """The value as this kind; raises `_Misfit` (or what its conversion raises) where it is none."""
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fitted(value, of[0])
    if origin in (Union, types.UnionType):
        return _fitted_to_one(value, of)
    if origin is Literal:
        return _choice(value, of)
    if origin in (tuple, list, Sequence):
        return _items(value, origin, of)
    value = _plain(value)
    return _SIMPLE[kind](value) if kind in _SIMPLE else value


def _fitted_to_one(value: Any, kinds: Sequence[Any]) -> Any:
    """The value as one of the kinds of a union: as the one that it has already, else as the first that it fits."""
    plain = _plain(value)
    for kind in sorted(kinds, key=lambda kind: kind is not type(plain)):
        if _known(kind):
            try:
                return _fitted(value, kind)
            except (_Misfit, TypeError, ValueError, OverflowError, RuntimeError):
                continue
    if all(map(_known, kinds)):
        raise _Misfit
    return value


def _known(kind: Any) -> bool:
    origin = get_origin(kind)
    known = (Annotated, Union, types.UnionType, Literal, tuple, list, Sequence)
    return kind in _SIMPLE if origin is None else origin in known


def _plain(value: Any) -> Any:
    """A number of NumPy's, or a tensor of one number, as Python's own."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _whole(value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _Misfit
    if value != (whole := int(value)):
        raise _Misfit
    return value if type(value) is int else whole


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, numbers.Real)):
        raise _Misfit
    number = value if type(value) is float else float(value)
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise _Misfit
    return number


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower())
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise _Misfit


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise _Misfit
    return value if type(value) is str else str(value)


def _nothing(value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value.strip().lower() == "none"):
        raise _Misfit


_SIMPLE: dict[Any, Callable[[Any], Any]] = {
    bool: _truth,
    int: _whole,
    float: _number,
    str: _text,
    type(None): _nothing,
}


def _choice(value: Any, options: Sequence[Any]) -> Any:
    value = _plain(value)
    for option in options:
        if isinstance(value, type(option)) and value == option:
            return option
    raise _Misfit


def _items(value: Any, origin: Any, kinds: Sequence[Any]) -> Any:
    """Many values as a tuple (or, of any sequence, as a list); one that is right already stays the same object."""
    if isinstance(value, (str, bytes, Mapping, set, frozenset)) or not isinstance(value, Iterable):
        raise _Misfit
    many = list(value.tolist() if hasattr(value, "tolist") else value)  # arrays and tensors
    if origin is tuple and Ellipsis not in kinds:
        if len(many) != len(kinds):
            raise _Misfit
        each = [_fitted(one, kind) for one, kind in zip(many, kinds, strict=True)]
    else:
        each = [_fitted(one, kinds[0]) for one in many]
    right = isinstance(value, (tuple, list) if origin is Sequence else origin)
    if right and all(new is old for new, old in zip(each, value, strict=True)):
        return value
    return tuple(each) if origin is tuple else each


# ---------------------------------------------------------------------------------------------------------- errors


def _names(kind: Any) -> tuple[str, ...]:
    """The names that a kind lets one choose from, or none."""
    if get_origin(kind) is Literal:
        return tuple(map(str, get_args(kind)))
    in_union = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    return next((names for one in in_union if (names := _names(one))), ())


def _described(kind: Any) -> str:
    origin, of = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _described(of[0])
    if origin in (Union, types.UnionType):
        return ", or ".join(_described(one) for one in of if _known(one))
    if origin is Literal:
        return " or ".join(map(repr, of))
    if origin in (tuple, list, Sequence):
        return f"a {'tuple' if origin is tuple else 'list'} of which each is {_described(of[0])}"
    return _WORDS.get(kind, str(kind))


_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: f"a finite number (of at most {LARGEST:g}, which float32 holds)",
    str: "text",
    type(None): "None",
}


def _shown(value: Any) -> str:
    """The value in few words: it may be a large array, or a thing that cannot be shown."""
    short = reprlib.Repr()
    short.maxother = short.maxstring = 60
    try:
        return " ".join(short.repr(value).split())
    except Exception:
        return f"<{type(value).__name__}>"
