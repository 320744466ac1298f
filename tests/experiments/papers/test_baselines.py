"""The rows of the tables of the baselines."""

from __future__ import annotations

from clteach.experiments import papers
from clteach.experiments.papers import PRESETS
from clteach.experiments.papers.baselines import ROWS
from clteach.experiments.recipe import Row
from clteach.methods import METHODS, configure


def test_rows_are_methods_with_real_settings() -> None:
    for row in ROWS.values():
        if row.method in METHODS:
            configure(METHODS[row.method], dict(row.settings))
    assert ROWS["DGR"] == Row("generative-replay", {"targets": "hard"})
    assert ROWS["DGR + distillation"] == Row("generative-replay", {"targets": "soft"})
    assert all(name in ROWS for preset in PRESETS.values() for name in preset.without)
    assert papers.column("2018", "split-mnist").settings("generative-replay", "class")["targets"] == "hard"
