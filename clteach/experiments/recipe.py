"""What an experiment is, as plain data: a paper's settings (`Preset`), a recorded table (`Recipe`), or a `Study`.

A preset has one `Column` of settings for every stream it knows; a value written ``by(task, domain, class)`` depends on the
scenario, and None there means that the paper has none (the method's default holds). Columns of different papers are never
mixed: their strengths and their rule for the active output units differ, and so do their results. Settings of methods that
are not registered are simply not applied.

The experiments themselves are in `clteach.experiments.papers`, a file for each paper; how they are run and recorded stands
in `clteach.experiments.recording`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from clteach.data.tasks import SCENARIOS


class by(NamedTuple):
    """A setting that depends on the scenario; None: not given."""

    task: Any
    domain: Any
    class_: Any

    def get(self, scenario: str) -> Any:
        """The value for "task", "domain" or "class"."""
        return self.class_ if scenario == "class" else getattr(self, scenario)


def chosen(values: Mapping[str, Any], scenario: str) -> dict[str, Any]:
    """The values that hold in a scenario: `by` resolved, None left out."""
    resolved = {k: v.get(scenario) if isinstance(v, by) else v for k, v in values.items()}
    return {k: v for k, v in resolved.items() if v is not None}


@dataclass(frozen=True)
class Column:
    """The settings of one preset for one stream.

    Args:
        steps: training steps per task.
        batch: samples per step.
        shared: settings of every method that has them.
        stream: arguments of the stream (`clteach.data.streams.make_stream`).
        methods: {method: {setting: value or `by`}}.
    """

    steps: int
    batch: int
    shared: Mapping[str, Any]
    stream: Mapping[str, Any]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def settings(self, method: str, scenario: str) -> dict[str, Any]:
        """The settings of a method in a scenario, as far as this column names them."""
        return chosen({**self.shared, **self.methods.get(method, {})}, scenario)


@dataclass(frozen=True)
class Preset:
    """One line of description, the source, a `Column` per stream, what is known to be missing, and rows the paper lacks."""

    summary: str
    source: str
    columns: Mapping[str, Column]
    notes: tuple[str | tuple[str, tuple[str, ...]], ...] = ()
    """each a text, or (text, the methods that it is about)"""
    without: tuple[str, ...] = ()

    def notes_about(self, methods: Collection[str]) -> list[str]:
        """The notes that concern a table with these methods."""
        pairs = [(note, ()) if isinstance(note, str) else note for note in self.notes]
        return [text for text, about in pairs if not about or set(about) & set(methods)]


class Row(NamedTuple):
    """A row of a recorded table: a method, settings over those of the preset, arguments of the stream likewise.

    A value written `by` depends on the scenario.
    """

    method: str
    settings: Mapping[str, Any] = {}
    stream: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Recipe:
    """A recorded table: rows × scenarios × seeds on one stream.

    Args:
        summary: one line.
        stream: the stream.
        presets: the presets it can be run with, the default first.
        rows: the rows by name; those of methods that are not registered, or that the preset's paper lacks, are left out.
        scenarios: the scenarios, as far as a row's method supports them.
        seeds: number of seeds, and `paper_seeds` those of the published table.
        steps: steps per task; None: the preset's.
        axis: what the rows vary of one method: a setting, their names being its values ("replayed samples per step"), or
            "variant"; None: the rows are methods.
        deviations: where the recipe itself leaves the paper's path.
        evaluate_on: "test", or "valid": the held-out part of the training data, where the paper judges on one.
    """

    summary: str
    stream: str
    presets: tuple[str, ...]
    rows: Mapping[str, Row]
    scenarios: tuple[str, ...] = SCENARIOS
    seeds: int = 3
    paper_seeds: int | None = None
    steps: int | None = None
    axis: str | None = None
    deviations: tuple[str, ...] = ()
    evaluate_on: str = "test"


@dataclass(frozen=True)
class Study:
    """A recorded experiment that is no stream × methods: rows × seeds of a function of its own.

    Args:
        summary: one line.
        run: what is run: ``run(seed, steps=steps, **row)`` gives {measure: value}, the same whenever it is repeated.
        rows: arguments of `run`, by the name of the row.
        measures: the measures by name, in the order of the table's columns, with what a column's head says (and the unit).
        steps: training steps of a run.
        seeds: number of seeds.
        source: where the settings come from.
        deviations: what a reader of the table must know.
    """

    summary: str
    run: Callable[..., dict[str, float]]
    rows: Mapping[str, Mapping[str, Any]]
    measures: Mapping[str, str]
    steps: int
    seeds: int
    source: str
    deviations: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()


QUALITY = {
    "fid": "FID, lower is better",
    "inception_score": "Inception Score",
    "precision": "precision (%)",
    "recall": "recall (%)",
}
"""The measures of a study of samples, and what the heads of its columns say."""
