"""Presets: every setting they name exists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clteach.data.tasks import SCENARIOS
from clteach.errors import ConfigError
from clteach.experiments.papers import PRESETS, column, default_preset
from clteach.experiments.recipe import by
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
        if "split-mnist" in preset.columns
        and name not in ("multiband", "ebgan", "diffusion")  # generators have no output units
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
