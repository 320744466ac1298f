"""Explorers: move a slider, see another picture.

The pictures are rendered beforehand and the slider is tied to them in the browser (`jslink`), with no Python callback.
So an explorer also works in the built page, where no kernel runs.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from html import escape

import ipywidgets as ipw
from matplotlib.figure import Figure
from PIL import Image

from clteach.errors import ConfigError, DataError
from clteach.plots.look import to_png

PNG_HEADER = b"\x89PNG\r\n\x1a\n"


def explorer(
    frames: Sequence[Figure | bytes],
    labels: Sequence[str],
    description: str = "",
    alt: str | Sequence[str] | None = None,
    dpi: float = 90,
    interval: int | None = None,
) -> ipw.VBox:
    """A slider (mouse or arrow keys) over precomputed pictures, each with its caption.

    A page holds every frame: 10 to 40 kB for a plot of 7 x 4 inches, so tens of frames are fine and hundreds are not.
    Give all frames one size, or the page jumps.

    Args:
        frames: one figure, or the bytes of a PNG file, per position of the slider.
        labels: one label per frame, shown as its caption.
        description: what the slider changes, shown before it.
        alt: what the pictures show, for readers who do not see them: one text to which the frame's label is added, or
            one text per frame (default: the description).
        dpi: resolution of the rendered figures in pixels per inch.
        interval: time per frame in milliseconds for a play button (default: no button). Its icons come from the Font
            Awesome files of the widget library, which a page without a kernel must have.

    Returns:
        VBox of [HBox of the controls, the slider last; Stack of one HTML widget per frame].

    Raises:
        ConfigError: no frames, or the numbers of frames, labels and alt texts differ.
        DataError: the bytes of a frame are no PNG.
    """
    alts = [f"{alt or description}: {name}" for name in labels] if alt is None or isinstance(alt, str) else alt
    if not frames or not len(frames) == len(labels) == len(alts):
        raise ConfigError(
            f"{len(frames)} frames, {len(labels)} labels and {len(alts)} alt texts; "
            "expected at least one frame, and one label and one alt text for each."
        )
    stack = _stack(frames, labels, alts, dpi)
    slider = _slider(description, len(frames))
    ipw.jslink((slider, "value"), (stack, "selected_index"))
    controls: list[ipw.Widget] = [slider]
    if interval is not None:
        play = ipw.Play(min=0, max=len(frames) - 1, interval=interval, show_repeat=False)
        ipw.jslink((play, "value"), (slider, "value"))
        controls.insert(0, play)
    bar = ipw.HBox(controls, layout=ipw.Layout(flex_flow="row wrap"))
    return ipw.VBox([bar, stack], layout=ipw.Layout(max_width="800px"))


def explorer_grid(
    frames: Sequence[Sequence[Figure | bytes]],
    labels: Sequence[Sequence[str]],
    descriptions: tuple[str, str],
    alt: str = "",
    dpi: float = 90,
) -> ipw.VBox:
    """Two sliders over precomputed pictures: the first chooses the row of `frames`, the second the picture in the row.

    Args:
        frames: rows of equal length; one figure, or the bytes of a PNG file, per position of the two sliders.
        labels: one label per frame, shown as its caption.
        descriptions: what the two sliders change, shown before them.
        alt: what the pictures show; the frame's label is added (default: the descriptions).
        dpi: resolution of the rendered figures in pixels per inch.

    Returns:
        VBox of [HBox of the two sliders; Stack of one Stack per row].

    Raises:
        ConfigError: no frames, or rows of different lengths, or the numbers of frames and labels differ.
        DataError: the bytes of a frame are no PNG.
    """
    lengths = {len(row) for row in [*frames, *labels]}
    if not frames or len(frames) != len(labels) or len(lengths) != 1:
        raise ConfigError(
            f"rows of {[len(row) for row in frames]} frames and {[len(row) for row in labels]} labels; "
            "expected at least one row, all of one length, and one label for each frame."
        )
    about = alt or " and ".join(descriptions)
    alts = [[f"{about}: {name}" for name in row] for row in labels]
    stacks = [_stack(*row, dpi) for row in zip(frames, labels, alts, strict=True)]
    outer = ipw.Stack(stacks, selected_index=0)
    first, second = _slider(descriptions[0], len(frames)), _slider(descriptions[1], len(frames[0]))
    ipw.jslink((first, "value"), (outer, "selected_index"))
    for stack in stacks:
        ipw.jslink((second, "value"), (stack, "selected_index"))
    bar = ipw.HBox([first, second], layout=ipw.Layout(flex_flow="row wrap"))
    return ipw.VBox([bar, outer], layout=ipw.Layout(max_width="800px"))


def _stack(frames: Sequence[Figure | bytes], labels: Sequence[str], alts: Sequence[str], dpi: float) -> ipw.Stack:
    # An HTML figure rather than an Image widget, which has no alternative text.
    pages = [ipw.HTML(_page(*each, dpi)) for each in zip(frames, labels, alts, strict=True)]
    return ipw.Stack(pages, selected_index=0)


def _slider(description: str, n: int) -> ipw.IntSlider:
    # Not a SelectionSlider: embedding drops its index where it is 0, and the page would show an error.
    return ipw.IntSlider(
        min=0,
        max=n - 1,
        description=description,
        readout=False,  # the caption names the frame
        style={"description_width": "initial"},
        layout=ipw.Layout(flex="1 1 280px", width="auto"),
    )


def _page(frame: Figure | bytes, label: str, alt: str, dpi: float) -> str:
    png = _lean(to_png(frame, dpi)) if isinstance(frame, Figure) else bytes(frame)
    if not png.startswith(PNG_HEADER):
        raise DataError(
            f'The frame "{label}" is no PNG: it starts with {png[:8]!r}. Give a Figure or the bytes of a PNG file.'
        )
    source = f"data:image/png;base64,{b64encode(png).decode()}"
    return (
        f'<figure style="margin:0"><img src="{source}" alt="{escape(alt)}" style="max-width:100%;height:auto">'
        f'<figcaption style="text-align:center">{escape(label)}</figcaption></figure>'
    )


def _lean(png: bytes) -> bytes:
    """The same picture in 256 colours: a third of the size."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
