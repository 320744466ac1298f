"""Presets: every setting they name exists, and the published tables are whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clteach import results
from clteach.data.tasks import SCENARIOS
from clteach.errors import ConfigError
from clteach.experiments import papers
from clteach.experiments.agreement import _published, published
from clteach.experiments.papers import PRESETS, column, default_preset
from clteach.experiments.papers.baselines import ROWS
from clteach.experiments.recipe import Row, by
from clteach.methods import METHODS, configure

COLUMNS = [(name, stream) for name, preset in PRESETS.items() for stream in preset.columns]


@pytest.mark.parametrize(("name", "stream"), COLUMNS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_settings_of_registered_methods_are_real(name: str, stream: str, scenario: str) -> None:
    chosen = column(name, stream)
    for method, cls in METHODS.items():
        settings = chosen.settings(method, scenario)
        config = configure(cls, settings)  # an unknown field or a bad value raises
        assert {key: getattr(config, key) for key in settings} == settings


def test_a_setting_depends_on_the_scenario() -> None:
    chosen = column("2022", "split-mnist")
    assert [chosen.settings("ewc", scenario)["lam"] for scenario in SCENARIOS] == [1e5, 1e10, 1e9]
    assert chosen.settings("ewc", "task")["hidden"] == (400, 400)
    # None: the paper has no value, so the method's default holds
    assert "lam" not in column("2020", "split-mnist").settings("ewc", "domain")
    assert by(1, 2, 3).get("class") == 3


def test_active_units_differ_between_the_papers() -> None:
    rule = {
        name: preset.columns["split-mnist"].stream["active_units"]
        for name, preset in PRESETS.items()
        if "split-mnist" in preset.columns and name not in ("multiband", "ebgan")  # generators have no output units
    }
    assert rule == {
        **{"2018": "seen", "2019": "seen", "2020": "seen", "2022": "all"},
        **{"2020-hypernetworks": "seen", "hypernetworks-later": "seen"},
    }


@pytest.mark.parametrize(("name", "stream"), [c for c in COLUMNS if c[0] in ("2018", "2019", "2020", "2022")])
def test_the_papers_presets_name_sis_gradient_and_adams_reset(name: str, stream: str) -> None:
    chosen = column(name, stream)
    for method in ("finetune", "ewc", "si", "si-xdg", "generative-replay", "brain-inspired-replay-si"):
        settings = chosen.settings(method, "task")
        assert settings["fresh_optimizer"] is False
        assert settings.get("gradient") == ("total" if "si" in method.split("-") else None)
    # the others keep their own authors' rule
    assert "fresh_optimizer" not in chosen.settings("multiband-vae", "class")


def test_brain_inspired_replay_has_no_temperature_squared_in_2022() -> None:
    for stream in ("split-mnist", "permuted-mnist"):
        assert column("2022", stream).settings("brain-inspired-replay", "class")["squared"] is False


def test_default_presets() -> None:
    assert default_preset("split-digits") == default_preset("dirichlet-digits") == "digits"
    assert default_preset("split-mnist") == default_preset("permuted-mnist") == "2022"
    assert default_preset("split-cifar10") is None
    assert column(None, "split-cifar10").settings("ewc", "task") == {}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean '2022'"):
        column("2O22", "split-mnist")
    with pytest.raises(ConfigError, match=r"no settings for the stream 'split-digits'.*split-mnist"):
        column("2018", "split-digits")


def test_every_preset_says_what_it_is_and_whose() -> None:
    for preset in PRESETS.values():
        assert preset.summary and "\n" not in preset.summary
        assert preset.source and preset.columns


def test_notes_are_about_the_methods_of_a_table() -> None:
    for preset in PRESETS.values():
        for note in preset.notes:
            assert isinstance(note, str) or set(note[1]) <= set(METHODS)
    preset = PRESETS["2020-hypernetworks"]
    assert len(preset.notes_about(["hypernetwork", "hypernetwork-tir"])) == 2
    assert preset.notes_about(["hypernetwork"]) == []
    general = replace(preset, notes=("of all", ("of one", ("ewc",))))
    assert general.notes_about(["si"]) == ["of all"] and general.notes_about({"si", "ewc"}) == ["of all", "of one"]


def test_published_tables_fit_the_presets() -> None:
    tables = {stream: table for stream, table in _published().items() if isinstance(table, dict)}
    assert {"split-mnist", "permuted-mnist", "dirichlet-mnist"} == set(tables)
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


def test_what_the_paper_has_is_not_called_unpublished() -> None:
    table = results.table("split_mnist_2022").set_index(["row", "scenario"])["verdict"]
    assert table["SI", "class"] == "not known here"  # null in published.json
    assert table["SI + XdG", "task"] == "not published"
    assert table["A-GEM", "class"] in ("agrees", "differs")


def test_rows_are_methods_with_real_settings() -> None:
    for row in ROWS.values():
        if row.method in METHODS:
            configure(METHODS[row.method], dict(row.settings))
    assert ROWS["DGR"] == Row("generative-replay", {"targets": "hard"})
    assert ROWS["DGR + distillation"] == Row("generative-replay", {"targets": "soft"})
    assert all(name in ROWS for preset in PRESETS.values() for name in preset.without)
    assert papers.column("2018", "split-mnist").settings("generative-replay", "class")["targets"] == "hard"


def test_multiband_has_the_papers_number_of_steps() -> None:
    """210 epochs of 0.7 · 12,000 images per task on average in batches of 64, half of it with twice the tasks."""
    split, dirichlet = (column("multiband", stream) for stream in ("split-mnist", "dirichlet-mnist"))
    assert split.steps == pytest.approx(210 * 0.7 * 12_000 / 64, abs=1) and split.batch == 64
    assert dirichlet.steps == pytest.approx(split.steps / 2, abs=1)
    assert split.settings("multiband-vae", "class") == {"lr": 1e-3}  # the rest are the method's defaults
    assert dirichlet.settings("multiband-vae", "class")["gamma"] == 0.95
