"""Raw inputs as a network reads them: scaled and encoded as the training data were, whenever a model is asked again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clteach.data.dataset import Encoding, as_floats, scaled
from clteach.data.extractors import fingerprint, make_extractor
from clteach.data.inputs import as_inputs
from clteach.data.tasks import Spec
from clteach.errors import ConfigError, DataError


def as_read(x: Any, spec: Spec) -> Tensor:
    """What a network that was trained on this stream reads of raw inputs.

    Args:
        x: inputs as `clteach.from_arrays` takes them: an array, tensor, data frame or list of images or feature vectors.
        spec: the stream's specification, which knows how its data were encoded.

    Returns:
        (N, *spec.shape) float32: in [0, 1], or features.

    Raises:
        DataError: no numbers, or of another shape than the training data.
        ConfigError: the extractor that the stream is behind is not at hand, or has other weights.
    """
    how = spec.encoding or Encoding()
    found = as_inputs(x, "given", how.channels, how.largest)
    if found.ndim == 2 and how.low is not None and how.high is not None:
        if found.shape[1] != len(how.low):
            raise DataError(f"given inputs have {found.shape[1]} features: expected {len(how.low)}, as in training")
        found = scaled(found, np.array(how.low), np.array(how.high))
    tensor = as_floats(torch.from_numpy(np.ascontiguousarray(found))).float()
    if how.extractor is not None:
        tensor = _features(tensor, how)
    if tensor.shape[1:] != spec.shape:
        raise DataError(
            f"given inputs have shape {tuple(tensor.shape)}: expected (N, {', '.join(map(str, spec.shape))})"
        )
    return tensor


@torch.no_grad()
def _features(x: Tensor, how: Encoding) -> Tensor:
    assert how.extractor is not None
    about = how.extractor
    module = make_extractor(str(about["name"]), x.shape[1:], about["weights"], int(about["seed"]))
    if fingerprint(module) != about["fingerprint"]:
        raise ConfigError(
            f"the extractor {about['name']!r} has other weights ({fingerprint(module)}) than the one behind which this "
            f"model was trained ({about['fingerprint']}). Expected the same: give it the weights of then."
        )
    return torch.cat([module(part) for part in x.split(100)])
