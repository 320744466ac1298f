"""What the numbers of an image mean: bytes, booleans, floats, or a scale that is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import clteach
from clteach.data.dataset import as_floats
from clteach.errors import ConfigError, DataError

RAW = load_digits()
MASK = RAW.images > 7
RNG = np.random.default_rng(0)
Y = np.arange(20) % 2


def pixels(x: Any, **settings: Any) -> torch.Tensor:
    """The training images (N, H, W) as a learner sees them."""
    return as_floats(clteach.from_arrays(x, RAW.target[: len(x)], x, RAW.target[: len(x)], **settings).x_train)[:, 0]


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64, np.uint16, "list", "tensor", "items", "pictures"])
@pytest.mark.parametrize("top", [1, 16, 127])
def test_integers_that_are_small_are_refused(top: int, kind: Any) -> None:
    images = {1: MASK, 16: RAW.images, 127: RAW.images * 127 / 16}[top][:50].astype(np.uint8)
    y: Any = RAW.target[:50]
    given: Any = {
        "list": images.tolist,
        "tensor": lambda: torch.from_numpy(images),
        "items": lambda: list(zip(images, y, strict=True)),
        "pictures": lambda: [Image.fromarray(image) for image in images],
    }.get(kind, lambda: images.astype(kind))()
    with pytest.raises(DataError, match=rf"at most {top}: expected bytes .*floats in \[0, 1\], x.*largest={top} "):
        clteach.from_arrays(given, None if kind == "items" else y)


def test_the_border_is_the_upper_half_of_the_bytes() -> None:
    images = np.zeros((20, 2, 2), np.uint8)
    images[0] = 128
    assert clteach.from_arrays(images, Y, images, Y).x_train.max() == 128
    images[0] = 127
    with pytest.raises(DataError, match="at most 127"):
        clteach.from_arrays(images, Y)
    # Only the training set is asked: a few test images may be dark.
    bright = np.full((20, 2, 2), 200, np.uint8)
    assert clteach.from_arrays(bright, Y, images, Y).x_test.max() == 127


def test_the_advice_of_the_error_gives_one_result() -> None:
    whole = RAW.images.astype(np.uint8)
    assert torch.equal(pixels(whole / 16), pixels(whole, largest=16))
    assert torch.equal(pixels(MASK.astype(float)), pixels(MASK.astype(np.uint8), largest=1))
    assert torch.equal(pixels(whole, largest=255), torch.from_numpy(whole) / 255)


@pytest.mark.parametrize("largest", [1, 3, 15, 16, 85, 100, 255, 4095, 65535, 10**6])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float64])
def test_named_scales(kind: Any, largest: int) -> None:
    top = min(largest, np.iinfo(kind).max if kind is not np.float64 else largest)
    x = RNG.integers(0, top + 1, (20, 4, 4)).astype(kind)
    data = clteach.from_arrays(x, Y, x, Y, largest=largest)
    assert np.abs(as_floats(data.x_train)[:, 0].double().numpy() - x / largest).max() < 1e-7
    # Bytes, a quarter of the room, exactly where they lose nothing.
    assert (data.x_train.dtype == torch.uint8) == (kind is not np.float64 and largest in (1, 3, 15, 85, 255))


def test_booleans_are_0_and_1() -> None:
    assert torch.equal(pixels(MASK), torch.from_numpy(MASK).float())
    assert torch.equal(pixels(torch.from_numpy(MASK)), pixels(MASK))
    assert clteach.from_arrays(MASK, RAW.target).x_train.dtype == torch.uint8
    pictures = [Image.fromarray(mask) for mask in MASK[:50]]
    assert {picture.mode for picture in pictures} == {"1"} and torch.equal(pixels(pictures), pixels(MASK[:50]))


def test_16_bits() -> None:
    x = RNG.integers(0, 65536, (20, 4, 4)).astype(np.uint16)
    for given in (x, [Image.fromarray(image) for image in x]):
        with pytest.raises(DataError, match=r"expected pixels in 0\.\.255; .*largest=.*65535 for 16 bits"):
            clteach.from_arrays(given, Y)
        assert torch.allclose(pixels(given, largest=65535), torch.from_numpy(x / 65535).float())


def test_floats_up_to_255_and_divided_twice() -> None:
    x = RNG.integers(0, 256, (20, 4, 4)).astype(np.float32)
    with pytest.raises(DataError, match="divide them by 255"):
        clteach.from_arrays(x, Y)
    assert torch.equal(pixels(x, largest=255), torch.from_numpy(x / 255))
    with pytest.raises(DataError, match=r"floats of at most 0\.0039.*divide them by 255 only once.*largest=1 "):
        clteach.from_arrays(x / 255 / 255, Y)
    assert pixels(x / 255 / 255, largest=1).max() < 0.004


@pytest.mark.parametrize("largest", [0, -1, float("nan"), float("inf")])
def test_a_scale_that_cannot_be(largest: float) -> None:
    with pytest.raises(ConfigError, match=r"largest(=| is).*expected a number above 0"):
        clteach.from_arrays(MASK, RAW.target, largest=largest)


def test_the_scale_is_for_images_and_holds_for_both_parts() -> None:
    with pytest.raises(ConfigError, match=r"feature vectors \(20, 4\).*leave it out"):
        clteach.from_arrays(RNG.random((20, 4)), Y, largest=255)
    with pytest.raises(DataError, match=r"test inputs hold 17 at index \(0, 0, 0\): expected pixels in 0\.\.16"):
        clteach.from_arrays(RAW.images.astype(int), RAW.target, np.full((1, 8, 8), 17), [0], largest=16)


def test_in_the_data_folder(tmp_path: Path) -> None:
    whole = RAW.images.astype(np.uint8)
    arrays = {"x_train": whole, "y_train": RAW.target, "x_test": whole[:9], "y_test": RAW.target[:9]}
    np.savez(tmp_path / "dark.npz", **arrays)
    with pytest.raises(DataError, match=r"dark\.npz: training images are integers of at most 16.*largest=16"):
        clteach.load("dark", tmp_path)
    np.savez(tmp_path / "scaled.npz", **arrays, largest=16)
    assert torch.equal(clteach.load("scaled", tmp_path).x_train[:, 0], torch.from_numpy(whole / 16).float())
