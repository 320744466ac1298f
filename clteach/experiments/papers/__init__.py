"""One paper, one file: its settings (`PRESETS`), its recorded tables and studies (`RECIPES`), and what these run.

`clteach reproduce NAME` and ``--preset NAME`` look their names up here.
"""

from __future__ import annotations

from clteach.errors import ConfigError, unknown
from clteach.experiments.papers import (
    baselines,
    brain_inspired_replay,
    diffusion_replay,
    digits,
    domain_transfer,
    ebgan,
    hypernetwork,
    multiband_vae,
)
from clteach.experiments.recipe import Column, Preset, Recipe, Study

PRESETS: dict[str, Preset] = {
    **digits.PRESETS,
    **baselines.PRESETS,
    **brain_inspired_replay.PRESETS,
    **multiband_vae.PRESETS,
    **hypernetwork.PRESETS,
    **ebgan.PRESETS,
    **diffusion_replay.PRESETS,
}
RECIPES: dict[str, Recipe | Study] = {
    **digits.RECIPES,
    **baselines.RECIPES,
    **brain_inspired_replay.RECIPES,
    **multiband_vae.RECIPES,
    **hypernetwork.RECIPES,
    **ebgan.RECIPES,
    **domain_transfer.RECIPES,
    **diffusion_replay.RECIPES,
}
_DEFAULTS = {"split-mnist": "2022", "permuted-mnist": "2022"}


_SHORT = {"bir": "brain-inspired-replay", "multiband": "multiband-vae"}


def full_name(recipe: str) -> str:
    """The name of a recipe, which may begin with a method's short name: "bir-permuted".

    Raises:
        ConfigError: no such recipe.
    """
    short, _, rest = recipe.partition("-")
    for name in (recipe, f"{_SHORT.get(short, short)}-{rest}"):
        if name in RECIPES:
            return name
    raise unknown("recipe", recipe, RECIPES)


def default_preset(stream: str) -> str | None:
    """The preset that a stream gets when none is named; None: the methods' own defaults."""
    return "digits" if stream in PRESETS["digits"].columns else _DEFAULTS.get(stream)


def column(preset: str | None, stream: str) -> Column:
    """The settings of a preset for a stream; without a preset an empty column (2000 steps, batch 128).

    Raises:
        ConfigError: no such preset, or it has no settings for this stream.
    """
    if preset is None:
        return Column(2000, 128, {}, {})
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    columns = PRESETS[preset].columns
    if stream not in columns:
        raise ConfigError(
            f"the preset {preset!r} has no settings for the stream {stream!r}. "
            f"Choose {' or '.join(columns)}, another preset, or none."
        )
    return columns[stream]
