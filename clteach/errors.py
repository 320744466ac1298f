"""The errors clteach raises on purpose: one sentence each for what was wrong, what was expected and what to do.

The command line prints them as one message without a traceback; in Python they are ordinary exceptions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ClteachError(Exception):
    """Base of every error that clteach raises for a cause the user can mend."""


class DataError(ClteachError, ValueError):
    """Data that cannot be used: a damaged file, labels out of range, NaN pixels, an empty task."""


class ConfigError(ClteachError, ValueError):
    """A setting that cannot work: an unknown name, a scenario the method does not support, a bad value."""


class DivergedError(ConfigError):
    """A training whose losses, weights or answers are no finite numbers any more: its scores would mean nothing."""


class CheckpointError(ClteachError):
    """A checkpoint or saved run that is damaged or belongs to another experiment."""


def unknown(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that does not exist: it names the closest one and lists all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown {what} {name!r}.{hint} Expected one of {', '.join(names)}.")
