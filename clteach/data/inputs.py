"""Inputs of any kind as one array: images (N, C, H, W) of bytes or floats, or feature vectors (N, D).

The one place that says what the numbers of an image mean. Every check names the first offending value, what was expected
and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clteach.data.dataset import check_finite, check_unit_range, first_true, reason
from clteach.errors import ConfigError, DataError

DARK = 128
"""Bytes that never reach this leave the upper half of 0..255 empty, which the photographs of a whole data set do not: their
numbers are on another scale (masks 0/1, digits 0..16, percentages, 7 bits)."""

PICTURE_FILES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm")

GREY_OR_RGB = {"1": "L", "LA": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
"""Modes of PIL images whose raw values are not grey or RGB, and what they are converted to."""

_WHOLE_BYTES = [white for white in range(1, 256) if 255 % white == 0]


def as_inputs(
    x: Any, part: str, channels: str | None = None, largest: float | None = None, bounded: bool = True
) -> np.ndarray:
    """Images (N, C, H, W) as uint8 or float32 in [0, 1], or unscaled feature vectors (N, D) as float64.

    Args:
        x: Array, tensor, data frame, or a list of arrays, tensors or PIL images.
        part: "training" or "test", for the messages.
        channels: "first", "last", or None where the shape tells.
        largest: The value of images that means white; None: 255 for integers, 1 for floats and booleans.
        bounded: Whether float images must lie in the range that this says.

    Raises:
        DataError: Anything that is not finite numbers in the range that they should have.
        ConfigError: `largest` for feature vectors.
    """
    if largest is not None and not 0 < largest < np.inf:
        raise ConfigError(f"largest is {largest}: expected a number above 0, the value that means white, such as 65535")
    array = _numbers(stack(x, part) if isinstance(x, (list, tuple)) else as_array(x, part), part)
    if 0 in array.shape or not array.shape:
        raise DataError(f"{part} inputs are empty, shape {array.shape}: expected at least one input of a size above 0")
    if array.dtype.kind not in "biuf":
        raise DataError(_not_numbers(array, part))
    if array.ndim == 2:
        if largest is not None:
            problem = f"largest={largest} with feature vectors {array.shape}"
            raise ConfigError(f"{problem}: expected images, as vectors are scaled by their own range; leave it out")
        array = array.astype(np.float64)
        check_finite(torch.from_numpy(array), part)
        return array
    if array.ndim not in (3, 4):
        expected = "expected images (N, H, W), (N, C, H, W) or (N, H, W, C), or feature vectors (N, D)"
        remedy = "reshape them"
        if array.ndim == 1:
            remedy = "if each is one number, pass x.reshape(-1, 1); if these are the labels, exchange the two arguments"
        raise DataError(f"{part} inputs have shape {array.shape}: {expected}; {remedy}")
    return _channels_first(_pixels(array, part, largest, bounded), part, channels)


def check_bright(images: np.ndarray) -> None:
    """DataError where training images, read as bytes 0..255 or floats in [0, 1], would be next to black."""
    brightest = images.max()
    if images.dtype == np.uint8 and brightest < DARK:
        white = max(1, brightest)
        floats = "x.astype(float)" if white == 1 else f"x / {white}"
        problem = f"training images are integers of at most {brightest}"
        expected = f"expected bytes 0..255, some of them {DARK} or more"
        ways = f"pass floats in [0, 1], {floats}, or say largest={white} (largest=255 keeps them as dark as they are)"
        raise DataError(f"{problem}: {expected}; {ways}")
    if images.dtype == np.float32 and brightest < 1 / DARK:
        problem = f"training images are floats of at most {brightest:g}"
        ways = "divide them by 255 only once, or say largest= (largest=1 keeps them as dark as they are)"
        raise DataError(f"{problem}: expected floats that fill [0, 1]; {ways}")


def as_array(x: Any, part: str) -> np.ndarray:
    """Anything that numpy can read, as an array.

    Raises:
        DataError: Sparse data, ragged rows, what is no array at all.
    """
    if hasattr(x, "toarray") or (isinstance(x, Tensor) and x.layout != torch.strided):
        remedy = "to_dense()" if isinstance(x, Tensor) else "toarray()"
        raise DataError(f"{part} data are sparse ({type(x).__name__}): expected a dense array; pass x.{remedy}")
    if np.ma.is_masked(x):
        problem = f"{part} data are a masked array with {int(np.ma.getmaskarray(x).sum())} masked values"
        raise DataError(f"{problem}: expected every value; fill them, x.filled(0) say, or drop these rows")
    try:
        if isinstance(x, Tensor):
            x = x.detach().cpu()
            x = x.float() if x.is_floating_point() and x.dtype != torch.float64 else x  # numpy knows no bfloat16
            return np.asarray(x.numpy())
        if (mode := getattr(x, "mode", None)) in GREY_OR_RGB:
            x = x.convert(GREY_OR_RGB[mode])
        return np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        problem = f"{part} data cannot be read as an array ({reason(error)})"
        raise DataError(f"{problem}: expected numbers in rows of equal length; convert them first") from None


def stack(items: Sequence[Any], part: str) -> np.ndarray:
    """Inputs of one shape as one array; DataError names the first of another shape."""
    arrays = [as_array(item, part) for item in items]
    for index, array in enumerate(arrays):
        if array.shape != arrays[0].shape:
            problem = f"{part} input {index} has shape {array.shape} but input 0 has {arrays[0].shape}"
            remedy = "resize or convert them"
            if hasattr(items[index], "convert") and hasattr(items[index], "resize"):  # pictures of PIL
                one_size = array.shape[:2] == arrays[0].shape[:2]
                call = "image.convert('RGB')" if one_size else "image.resize((32, 32))"
                remedy = f"pass [{call} for image in x]"
            raise DataError(f"{problem}: expected one shape for all; {remedy}")
    return np.stack(arrays) if arrays else np.empty(0)


def _numbers(array: np.ndarray, part: str) -> np.ndarray:
    """Objects as numbers where they are numbers: arrays in a column, or numbers of several types in a data frame."""
    if array.dtype != object:
        return array
    if array.ndim == 1 and len(array) and np.ndim(array[0]):
        return stack(array.tolist(), part)
    try:
        return array.astype(float)
    except (TypeError, ValueError):
        return array


def _not_numbers(array: np.ndarray, part: str) -> str:
    """The message for inputs that are no real numbers: it names the first that is none."""
    for at, value in np.ndenumerate(array) if array.dtype.kind in "OSU" else ():
        try:
            float(value)
        except (TypeError, ValueError):
            value = value.item() if isinstance(value, np.generic) else value
            if str(value).lower().endswith(PICTURE_FILES):
                problem = f"{part} inputs are names of files, {str(value)!r} at index {at}"
                ways = "[PIL.Image.open(name) for name in x], or have class folders read by clteach.from_folder"
                return f"{problem}: expected the pictures themselves; open them, {ways}"
            problem = f"{part} inputs hold {value!r} at index {at}"
            return f"{problem}: expected real numbers; drop such columns, or encode them (pandas.get_dummies)"
    return f"{part} inputs are of type {array.dtype}: expected real numbers; convert them, x.astype(float)"


def _pixels(array: np.ndarray, part: str, largest: float | None, bounded: bool) -> np.ndarray:
    """Images as uint8, or as float32 in [0, 1] where bytes would round the quotients by `largest`."""
    if array.dtype.kind == "b":
        array, largest = array.astype(np.uint8), 1 if largest is None else largest
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is reported as inf just below
            array = array.astype(np.float32, copy=False)
    if largest is None and array.dtype.kind == "f":
        (check_unit_range if bounded else check_finite)(torch.from_numpy(array), part)
        return array
    if array.dtype.kind == "f":
        check_finite(torch.from_numpy(array), part)
    white = 255 if largest is None else largest
    if array.dtype == np.uint8 and white == 255:
        return array
    wrong = (array < 0) | (array > white)
    if wrong.any():
        at = first_true(torch.from_numpy(wrong))
        expected = f"expected pixels in 0..{white:g}"
        remedy = "rescale them to floats in [0, 1], or say largest= (the value that means white, 65535 for 16 bits)"
        raise DataError(f"{part} inputs hold {array[at]} at index {at}: {expected}; {remedy}")
    if array.dtype.kind == "f" or white not in _WHOLE_BYTES:
        return (array / float(white)).astype(np.float32)
    return array.astype(np.uint8) * np.uint8(255 // white)


def _channels_first(images: np.ndarray, part: str, channels: str | None) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in (1, 3, 4), images.shape[3] in (1, 3, 4)
    if channels is not None:
        first, last = first and channels == "first", last and channels == "last"
    if first == last:
        remedy = "ambiguous, so say channels='first' or 'last'" if first else "no such C here, so convert the images"
        if channels is not None and not first:
            remedy = f"channels={channels!r} does not fit, so leave it out or convert the images"
        expected = "expected (N, C, H, W) or (N, H, W, C) with C = 1, 3 or 4"
        raise DataError(f"{part} images have shape {images.shape}: {expected}; {remedy}")
    return images if first else np.moveaxis(images, 3, 1)
