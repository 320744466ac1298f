"""The exercises, a file for each chapter; who looks there first has spoiled the fun."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path

from clteach.errors import unknown
from clteach.exercises.exercise import Exercise


@cache
def chapters() -> dict[str, str]:
    """{number: title} of the chapters that have exercises: one module ``chNN.py`` each."""
    numbers = sorted(path.stem[2:] for path in Path(__file__).parent.glob("ch[0-9][0-9].py"))
    return {number: import_module(f"clteach.exercises.chapters.ch{number}").TITLE for number in numbers}


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by id, chapter by chapter."""
    found = [
        each for number in chapters() for each in import_module(f"clteach.exercises.chapters.ch{number}").EXERCISES
    ]
    return {each.id: each for each in found}


def get(id: str) -> Exercise:
    """The exercise of this id.

    Raises:
        ConfigError: there is none; the message names the closest.
    """
    known = exercises()
    if id not in known:
        raise unknown("exercise", str(id), known)
    return known[id]
