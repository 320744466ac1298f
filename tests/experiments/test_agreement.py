"""When our number agrees with the published one, and that the published tables are whole."""

from __future__ import annotations

import pytest

from clteach.data.tasks import SCENARIOS
from clteach.experiments.agreement import _published, compare, published
from clteach.experiments.papers import PRESETS


@pytest.mark.parametrize(
    ("mean", "sem", "paper", "paper_sem", "verdict"),
    [
        (0.904, 0.0, 90.0, 0.1, "agrees"),  # within 0.5 points
        (0.906, 0.0, 90.0, 0.1, "differs"),
        (0.96, 0.02, 90.0, 1.5, "agrees"),  # 2.5 √(2² + 1.5²) = 6.25
        (0.963, 0.02, 90.0, 1.5, "differs"),
        (0.914, 0.0, 90.0, None, "agrees"),  # no SEM published: 1.5 points
        (0.916, 0.0, 90.0, None, "differs"),
        (0.92, 0.01, 90.0, None, "agrees"),  # or 2.5 SEM of ours
        (0.904, None, 90.0, 0.1, "agrees"),  # one seed
    ],
)
def test_agreement_rule(mean: float, sem: float | None, paper: float, paper_sem: float | None, verdict: str) -> None:
    result = compare({"mean": mean, "sem": sem}, {"mean": paper, "sem": paper_sem})
    assert result["verdict"] == verdict
    assert result["difference"] == pytest.approx(100 * mean - paper)
    assert (
        compare({"mean": mean, "sem": sem}, {"mean": paper, "sem": paper_sem}, withheld=True)["verdict"] == "withheld"
    )
    assert compare({"mean": mean, "sem": sem}, None)["verdict"] == "not published"


def test_published_tables_fit_the_presets() -> None:
    tables = {stream: table for stream, table in _published().items() if isinstance(table, dict)}
    assert {"split-mnist", "split-cifar100", "permuted-mnist", "dirichlet-mnist"} == set(tables)
    for stream, columns in tables.items():
        for name, table in columns.items():
            assert stream in PRESETS[name].columns
            assert table["source"]
            recalled = table.get("recalled", {})
            for row, cells in [*table["rows"].items(), *recalled.items()]:
                assert cells and set(cells) <= set(SCENARIOS), row
                for numbers in cells.values():
                    assert numbers is None or (0 < numbers[0] <= 100 and (numbers[1] is None or 0 < numbers[1] < 5))
            for row, cells in recalled.items():  # a number is looked up or recalled, not both
                assert None not in cells.values() and not set(cells) & set(table["rows"].get(row, {}))


def test_published_numbers() -> None:
    number = published("split-mnist", "2018", "DGR", "class")
    assert number is not None
    assert (number["mean"], number["sem"]) == (91.24, 0.33)
    assert "1809.10635" in number["source"]
    assert published("split-mnist", "2022", "SI", "task") is None  # in the paper, but not known here
    assert published("split-mnist", "2018", "XdG", "class") is None  # not in the paper
    assert published("split-digits", "digits", "DGR", "class") is None


def test_recalled_numbers_are_asked_for_by_name() -> None:
    where = ("split-mnist", "2020-hypernetworks", "HNET+TIR", "class")
    assert published(*where) is None  # so nothing is judged by it
    number = published(*where, recalled=True)
    assert number is not None and number["mean"] == 89.59 and "not verified" in number["source"]
    assert published("split-mnist", "2018", "DGR", "class", recalled=True) is None  # that one is known
    known, not_known = ("permuted-mnist", "2019", "None", "class"), ("permuted-mnist", "2019", "SI", "class")
    assert published(*known) and published(*known, recalled=True) is None
    assert published(*not_known, recalled=True) and published(*not_known) is None
