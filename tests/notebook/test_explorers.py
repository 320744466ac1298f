"""Explorers: what a page without a kernel needs is all there (that they move is tested in a browser, with the book)."""

from __future__ import annotations

import io
import json
import re
from base64 import b64decode
from collections.abc import Iterator

import ipywidgets as ipw
import pytest
import torch
from ipywidgets.embed import embed_data
from matplotlib.figure import Figure
from PIL import Image

from clteach import plots
from clteach.errors import ConfigError, DataError
from clteach.notebook.explorers import explorer, explorer_grid


@pytest.fixture(autouse=True)
def closed_widgets() -> Iterator[None]:
    yield
    ipw.Widget.close_all()


def frames(n: int = 3) -> list[Figure]:
    return [plots.comparison({"finetune": [0.2, 0.1 * k], "joint": [0.9, 0.95]}) for k in range(n)]


def png_of(page: ipw.HTML) -> Image.Image:
    source = re.search(r'src="data:image/png;base64,([^"]+)"', page.value)
    assert source
    return Image.open(io.BytesIO(b64decode(source[1])))


def test_pictures_captions_and_alternative_texts() -> None:
    box = explorer(frames(), ["a", "b & c", "d"], description="task", alt="Methods compared")
    bar, stack = box.children
    (slider,) = bar.children
    assert (slider.min, slider.max, slider.value, slider.description) == (0, 2, 0, "task")
    assert stack.selected_index == 0 and len(stack.children) == 3
    pages = [page.value for page in stack.children]
    assert ['alt="Methods compared: a"' in page for page in pages] == [True, False, False]
    assert 'alt="Methods compared: b &amp; c"' in pages[1] and ">b &amp; c</figcaption>" in pages[1]
    sizes = {png_of(page).size for page in stack.children}
    assert sizes == {(630, 129)}  # 7 x 1.44 inches at 90 dpi
    assert png_of(stack.children[0]).tobytes() != png_of(stack.children[1]).tobytes()


@pytest.mark.parametrize("drop_defaults", [True, False])
def test_links_live_in_the_page(drop_defaults: bool) -> None:
    box = explorer(frames(), ["a", "b", "c"], interval=500)
    (play, slider), stack = box.children[0].children, box.children[1]
    state = embed_data(views=[box], drop_defaults=drop_defaults)["manager_state"]["state"]
    links = [model["state"] for model in state.values() if model["model_name"] == "LinkModel"]
    reference = "IPY_MODEL_{}".format
    assert [(link["source"], link["target"]) for link in links] == [
        ([reference(slider.model_id), "value"], [reference(stack.model_id), "selected_index"]),
        ([reference(play.model_id), "value"], [reference(slider.model_id), "value"]),
    ]
    assert state[stack.model_id]["state"]["selected_index"] == 0
    assert (play.max, play.interval) == (2, 500)
    assert len(json.dumps(state)) < 60_000


def test_png_bytes_are_kept_and_one_frame_is_enough() -> None:
    png = plots.to_png(frames(1)[0])
    stack = explorer([png], ["only"], alt=["One picture"]).children[1]
    assert len(stack.children) == 1 and 'alt="One picture"' in stack.children[0].value
    source = re.search(r"base64,([^\"]+)", stack.children[0].value)
    assert source and b64decode(source[1]) == png


def test_pictures_are_lean() -> None:
    z, y = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)), torch.arange(1000) % 10
    figure = plots.latent_scatter(z, y)
    page = explorer([figure], ["scatter"]).children[1].children[0]
    assert len(page.value) < 60_000 < len(plots.to_png(figure))


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c", "d"]])
def test_numbers_must_agree(labels: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"3 frames, {len(labels)} labels"):
        explorer(frames(), labels)
    with pytest.raises(ConfigError, match="3 labels and 1 alt texts"):
        explorer(frames(), ["a", "b", "c"], alt=["one"])


def test_bad_frames() -> None:
    with pytest.raises(ConfigError, match="at least one frame"):
        explorer([], [])
    with pytest.raises(DataError, match=r'The frame "b" is no PNG: it starts with b.\\xff'):
        explorer([frames(1)[0], b"\xff\xd8 a JPEG"], ["a", "b"])


def test_two_sliders_over_a_grid_of_frames() -> None:
    rows = [frames(3), frames(3)]
    labels = [["a", "b", "c"], ["d", "e", "f"]]
    box = explorer_grid(rows, labels, ("margin", "weight"), alt="Maps")
    bar, outer = box.children
    first, second = bar.children
    assert (first.max, second.max) == (1, 2) and (first.description, second.description) == ("margin", "weight")
    assert len(outer.children) == 2 and all(len(stack.children) == 3 for stack in outer.children)
    assert 'alt="Maps: e"' in outer.children[1].children[1].value
    state = embed_data([box])["manager_state"]["state"].values()
    links = [each["state"] for each in state if each["model_name"] == "LinkModel"]
    targets = [link["target"][0].removeprefix("IPY_MODEL_") for link in links]
    assert sorted(targets) == sorted(stack.model_id for stack in (outer, *outer.children))
    assert {link["source"][0].removeprefix("IPY_MODEL_") for link in links} == {first.model_id, second.model_id}


def test_a_grid_must_be_rectangular() -> None:
    with pytest.raises(ConfigError, match=r"rows of \[2, 1\] frames"):
        explorer_grid([frames(2), frames(1)], [["a", "b"], ["c", "d"]], ("x", "y"))
