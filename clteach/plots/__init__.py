"""One function per picture: plain data in, a Figure out. `look` colours and files; `matrices`, `curves`, `scores`, `images`,
`runs`.

Every function returns a `Picture`, which a notebook displays and `save` writes to a file. A function that takes `ax` draws
there and returns its Figure. Accuracies go in as shares of 1 and are shown in percent; another measure is shown as it is.
Intervals are the mean ± the standard error over seeds (SEM).
"""

from __future__ import annotations

from clteach.plots.curves import accuracy_over_training, accuracy_per_task, losses
from clteach.plots.images import energy_map, latent_scatter, samples
from clteach.plots.look import (
    BLUE,
    BROWN,
    COLORS,
    GREEN,
    GREY,
    LABELS,
    ORANGE,
    PALETTE,
    PURPLE,
    RED,
    SKY,
    STYLES,
    Picture,
    Style,
    color,
    described,
    label,
    save,
    style,
    theme,
    to_png,
)
from clteach.plots.matrices import accuracy_matrices, accuracy_matrix
from clteach.plots.runs import run
from clteach.plots.scores import (
    accuracy_against,
    accuracy_against_cost,
    accuracy_bars,
    comparison,
    comparison_by_scenario,
    measures_by_row,
    score_histogram,
)

__all__ = [
    "BLUE",
    "BROWN",
    "COLORS",
    "GREEN",
    "GREY",
    "LABELS",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "RED",
    "SKY",
    "STYLES",
    "Picture",
    "Style",
    "accuracy_against",
    "accuracy_against_cost",
    "accuracy_bars",
    "accuracy_matrices",
    "accuracy_matrix",
    "accuracy_over_training",
    "accuracy_per_task",
    "color",
    "comparison",
    "comparison_by_scenario",
    "described",
    "energy_map",
    "label",
    "latent_scatter",
    "losses",
    "measures_by_row",
    "run",
    "samples",
    "save",
    "score_histogram",
    "style",
    "theme",
    "to_png",
]
