"""The look of all pictures: a colour, line and marker for every method, one theme, PNG files.

A picture is a `Picture`: a matplotlib Figure that pyplot does not know. Nothing stays open and nothing is shown twice. One
that is the last value of a notebook cell is displayed whichever backend is active, because it brings its own PNG; a script
writes it to a file with `save`. A method has the same colour, line and marker in every picture, and related methods share a
hue. The colours are the colour-blind safe ones of seaborn's "colorblind" palette.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from clteach.errors import ConfigError
from clteach.storage import write_atomic

Numbers = Tensor | np.ndarray | Sequence[Any]
PALETTE: list[str] = sns.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, _, GREY, _, SKY = PALETTE  # pink and yellow are too pale for lines on white


class Style(NamedTuple):
    """How a method is drawn."""

    label: str
    color: str
    linestyle: str
    marker: str


STYLES: dict[str, Style] = {
    "finetune": Style("fine-tuning", GREY, "-", "o"),
    "joint": Style("joint training", "#222222", "--", "s"),
    "ewc": Style("EWC", BLUE, "-", "o"),
    "online-ewc": Style("online EWC", BLUE, "--", "s"),
    "lwf": Style("LwF", BLUE, ":", "D"),
    "fromp": Style("FROMP", BLUE, "-.", "^"),
    "si": Style("SI", SKY, "-", "o"),
    "xdg": Style("XdG", SKY, "--", "s"),
    "si-xdg": Style("SI + XdG", SKY, ":", "D"),
    "separate-networks": Style("separate networks", SKY, "-.", "^"),
    "er": Style("experience replay", ORANGE, "-", "o"),
    "a-gem": Style("A-GEM", ORANGE, "--", "s"),
    "icarl": Style("iCaRL", ORANGE, "-.", "^"),
    "generative-classifier": Style("generative classifier", BROWN, ":", "D"),
    "generative-replay": Style("generative replay", GREEN, "-", "o"),
    "brain-inspired-replay": Style("brain-inspired replay", RED, "-", "o"),
    "brain-inspired-replay-si": Style("brain-inspired replay + SI", RED, "--", "s"),
    "hypernetwork": Style("hypernetwork", PURPLE, "-", "o"),
    "hypernetwork-ent": Style("hypernetwork + ENT", PURPLE, "--", "s"),
    "hypernetwork-r": Style("hypernetwork + R", PURPLE, ":", "D"),
    "hypernetwork-tir": Style("hypernetwork + TIR", PURPLE, "-.", "^"),
    "vae-finetune": Style("VAE, fine-tuned", GREY, "--", "s"),
    "vae-joint": Style("VAE, joint training", "#222222", ":", "D"),
    "vae-replay": Style("VAE with replay", GREEN, "--", "s"),
    "latent-partition": Style("hard latent partition", PURPLE, "-.", "D"),
    "multiband-vae": Style("Multiband VAE", BROWN, "-", "o"),
    "ebgan": Style("EBGAN", BROWN, "--", "s"),
    "hypernetwork-vae": Style("hypernetwork VAE", PURPLE, ":", "o"),
    "dream-replay": Style("replay of dreams", GREEN, ":", "D"),
    "diffusion-finetune": Style("diffusion, fine-tuned", GREY, ":", "D"),
    "diffusion-joint": Style("diffusion, joint training", "#222222", "-.", "^"),
    "diffusion-replay": Style("diffusion with replay", ORANGE, ":", "D"),
    "diffusion-distill": Style("generative distillation", RED, ":", "D"),
}
COLORS: dict[str, str] = {name: style.color for name, style in STYLES.items()}
LABELS: dict[str, str] = {name: style.label for name, style in STYLES.items()}
_BY_LABEL: dict[str, Style] = {style.label: style for style in STYLES.values()}


def style(name: str) -> Style:
    """The style of a method, by its name or label; one of the user's own gets a fixed one that depends on its name alone."""
    if known := STYLES.get(name) or _BY_LABEL.get(name):
        return known
    number = zlib.crc32(name.encode())  # unlike hash(), the same in every process
    colors, markers = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, SKY), "vPX*<>"  # markers that no known method uses
    return Style(name, colors[number % 7], ("-", "--", ":", "-.")[number // 7 % 4], markers[number // 28 % 6])


def color(name: str) -> str:
    """The colour of a method, as "#rrggbb"."""
    return style(name).color


def label(name: str) -> str:
    """The display name of a method."""
    return style(name).label


class Picture(Figure):
    """A Figure outside pyplot that a notebook displays, with a text for readers who do not see it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, str]]:
        return to_png(self), {"alt": described(self)}


def to_png(fig: Figure, dpi: float | None = None) -> bytes:
    """Render a figure as PNG bytes; `dpi` is in pixels per inch (default: the figure's own, 100)."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi or fig.dpi)
    return buffer.getvalue()


def described(fig: Figure) -> str:
    """What a figure shows, in words: titles, axes, names of curves and rows, one sentence for each plot in it."""
    parts = [fig.get_suptitle()] if fig.get_suptitle() else []
    names = [text.get_text() for legend in fig.legends for text in legend.get_texts()]
    for ax in fig.axes:
        if (not ax.axison and not ax.get_title()) or ax.get_label() == "<colorbar>":
            continue
        said = [ax.get_title()] if ax.get_title() else []
        x, y = ax.get_xlabel(), ax.get_ylabel()
        said += [f"{y} against {x}" if x and y else x or y] if x or y else []
        for place, axis in (("rows", ax.yaxis), ("columns", ax.xaxis)):
            named = _list([tick.get_text() for tick in axis.get_ticklabels()])
            said.append(f"{place} of pictures: {named}" if named and ax.images else named)
        said.append(_list([*ax.get_legend_handles_labels()[1], *names]))
        names = []  # a legend of the whole figure is read once
        parts.append("; ".join(filter(None, said)))
    text = ". ".join(dict.fromkeys(filter(None, parts))) or "Pictures without labels"
    return " ".join(text.replace("$", "").replace("\\,", " ").replace("\\", "").split())


def _list(labels: list[str]) -> str:
    """Names one after the other; numbers say nothing by themselves, and of many only the first ones are read."""
    number = re.compile(r"\$.*|[−\d.,/%]*( ?[kMG]?B)?")
    named = [each for each in dict.fromkeys(labels) if not number.fullmatch(each)]
    return ", ".join(named[:12]) + (" …" if len(named) > 12 else "")


def save(fig: Figure, path: str | Path) -> Path:
    """Write a figure as PNG: complete or not at all. Missing folders are made.

    Returns:
        The path written.

    Raises:
        ClteachError: the place cannot be written.
    """
    png = to_png(fig)
    return write_atomic(path, lambda file: file.write(png))


@contextmanager
def theme() -> Iterator[None]:
    """The look of every picture; the global settings are as before when it ends. Also usable as a decorator."""
    look: Any = sns.axes_style("whitegrid") | sns.plotting_context("paper", font_scale=1.1)
    look |= {"axes.spines.top": False, "axes.spines.right": False, "lines.markersize": 5, "legend.frameon": False}
    with mpl.rc_context(look):
        yield


def new_figure(width: float, height: float) -> Picture:
    """A new figure of that size in inches, 100 pixels each: 8 inches fill the column of a web page."""
    return Picture(figsize=(width, height), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def axes_of(ax: Axes | None, width: float, height: float) -> Axes:
    return new_figure(width, height).subplots() if ax is None else ax


def finish(ax: Axes, title: str | None) -> Figure:
    if title:
        ax.set_title(title)
    figure = ax.figure.figure  # also through a subfigure
    assert figure is not None
    return figure


def as_array(values: Numbers) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float)


def in_percent(name: str, shares: Numbers) -> np.ndarray:
    values = as_array(shares)
    if (bad := values[(values < 0) | (values > 1)]).size:
        raise ConfigError(f"{name} has the accuracy {bad[0]:g}; expected shares in [0, 1] (divide percentages by 100).")
    return 100 * values


def not_empty(what: str, values: Sized, expected: str) -> None:
    """Nothing, where there is something to draw.

    Raises:
        ConfigError: there is not.
    """
    if len(values) == 0:
        raise ConfigError(f"No {what} to draw; expected {expected} with at least one.")


def legend(ax: Axes, title: str | None = None) -> None:
    # Outside, so that it covers no data however many entries it has.
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), borderaxespad=0, title=title, alignment="left")


def legend_height(methods: Mapping[str, object]) -> float:
    """Height in inches of a picture with one line per method: the legend must fit beside it."""
    return max(4, 0.5 + 0.23 * len(methods))


def curve(ax: Axes, name: str, x: np.ndarray, y: np.ndarray, markers: bool) -> None:
    """Draw a method's mean over seeds, y (seeds, K), with a band of ± SEM where there are two seeds or more."""
    look = style(name)
    mean = y.mean(0)
    marker = look.marker if markers else ""
    ax.plot(x, mean, label=look.label, color=look.color, linestyle=look.linestyle, marker=marker)
    if len(y) > 1:
        sem = y.std(0, ddof=1) / np.sqrt(len(y))
        ax.fill_between(x, mean - sem, mean + sem, color=look.color, alpha=0.2, linewidth=0)
