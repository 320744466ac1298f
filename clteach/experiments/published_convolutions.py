"""How were the published convolutions trained? Their files tell more than the papers do.

    python -m clteach.experiments.published_convolutions C3-5x16-bn C3-5x16-bn-e100

reads the two files of weights that the papers of 2020 and of 2022 published (`PUBLISHED`), and this package's own, and
writes `FILE` into the package, where `table` finds it. A network in training leaves three traces in its weights:

* **batches**: a batch norm counts the batches that it has seen. There are 50,000 training images, so 100 epochs in batches
  of 256 are 19,500, without the incomplete ones.
* **step**: how long Adam's steps were. In front of a batch norm the size of a weight means nothing to the network and
  nothing pulls it back, so noisy steps are a random walk: after k steps of about lr the mean square of a weight has grown
  by about k lr². Solved for lr, in layers 3 and 4, which have weights enough for a mean.
* **gain**: the mean gain of the batch norms. Gains begin at 1, in PyTorch before 1.2 at random in [0, 1).

What they lead to is the **variance** of the features of CIFAR-100: over images, averaged over features.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from clteach import storage
from clteach.data.catalogue import load as load_dataset
from clteach.data.dataset import Dataset, as_floats
from clteach.data.extractors import make_extractor
from clteach.errors import CheckpointError
from clteach.experiments.papers import baselines, brain_inspired_replay
from clteach.experiments.provenance import checkout
from clteach.models.nets import ChannelNormalisation, normalised_conv_features

FILE = Path(__file__).with_suffix(".json")


class Published(NamedTuple):
    """A file of weights that was published."""

    source: str
    sha256: str


PUBLISHED = {
    "published 2020": Published(
        "store/models/C3-5x16-bn of github.com/GMvandeVen/brain-inspired-replay at 1a030f7",
        "02e44cf21681d2d1ece1b683bae9a1525cf794f73865a69e32af330bcb4741e9",
    ),
    "published 2022": Published(
        "store/models/C3-5x16-bn-e100 of github.com/GMvandeVen/continual-learning at e6d795a",
        "020a3d512d2c4cf4ab54dd3811e8dfe36f6e5ed29bb00c32015eaec472faf8ac",
    ),
}
"""The file of 2020 also stands, byte for byte, beside the code of the table of 2021 by the same protocol, as ``-s100N``."""
OURS = {
    "ours, as published": brain_inspired_replay.CIFAR10_AS_PUBLISHED["weights"],
    "ours, as described": baselines.CIFAR10["weights"],
}
IMAGES = 4000
"""The first training images of CIFAR-100, of which the features are made."""


def published(file: str | Path, dataset: Dataset) -> nn.Sequential:
    """The convolutions in a published file, behind a normalisation by the images that they are shown, as in its code.

    Raises:
        CheckpointError: the file cannot be read, or holds something else.
    """
    module = normalised_conv_features(dataset.shape)
    convolutions = [layer for layer in module if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module if isinstance(layer, nn.BatchNorm2d)]
    named: dict[str, nn.Module] = {f"convLayer{i}.conv": layer for i, layer in enumerate(convolutions, 1)}
    named |= {f"convLayer{i}.bn": layer for i, layer in enumerate(norms, 1)}  # the last convolution has none behind it
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["state"]
        nn.ModuleDict({name.replace(".", "_"): layer for name, layer in named.items()}).load_state_dict(
            {key.replace(".", "_", 1): value for key, value in state.items()}
        )
    except Exception as error:  # of a file that somebody else wrote, torch.load raises what its bytes happen to mean
        raise CheckpointError(
            f"{file} holds no convolutions as they were published ({type(error).__name__}). Expected one of "
            f"{'; '.join(each.source for each in PUBLISHED.values())}."
        ) from error
    assert isinstance(module[0], ChannelNormalisation)
    module[0].measure(dataset.x_train)
    return module.eval()


@torch.no_grad()
def measured(module: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The traces of training in convolutions, and the variance of their features (see the top of this file)."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    batches = norms[0].num_batches_tracked
    assert batches is not None
    grown, weights = 0.0, 0
    for layer in convolutions[2:4]:
        # w² - 1/(3n): PyTorch draws weights from U(-1/√n, 1/√n), with n inputs of a unit, of mean square 1/(3n)
        grown += float((layer.weight.double().square() - 1 / (3 * layer.weight[0].numel())).sum())
        weights += layer.weight.numel()
    features = torch.cat([module(as_floats(part)) for part in dataset.x_train[:IMAGES].split(500)])
    return {
        "batches": int(batches),
        # lr ≈ √((w² - w₀²) / k), of k steps
        "step": (max(grown, 0.0) / weights / max(int(batches), 1)) ** 0.5,
        "gain": float(torch.cat([layer.weight for layer in norms]).mean()),
        "variance": float(features.var(0).mean()),
    }


def make(files: Sequence[Path], out: str | Path = FILE) -> Path:
    """Measure the published files, in the order of `PUBLISHED`, and our own, and write what was found.

    Raises:
        CheckpointError: a file cannot be read, or is another one.
    """
    dataset = load_dataset("cifar100")
    rows: dict[str, Any] = {}
    for (name, (source, sha256)), file in zip(PUBLISHED.items(), files, strict=True):
        rows[name] = {"source": source, **measured(published(file, dataset), dataset)}
        if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != sha256:
            raise CheckpointError(f"{file} is another file than {source}: its SHA-256 is {found}, expected {sha256}.")
    for name, weights in OURS.items():
        module = make_extractor("conv-normalised", dataset.shape, weights)
        rows[name] = {"source": weights, **measured(module, dataset)}
    command = "python -m clteach.experiments.published_convolutions C3-5x16-bn C3-5x16-bn-e100"
    return storage.write_json(Path(out), {"command": command, "commit": checkout(), "convolutions": rows})


def table(path: str | Path = FILE) -> pd.DataFrame:
    """What was found: a row for each set of convolutions, with the columns of `measured`."""
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    return pd.DataFrame(document["convolutions"]).T[["batches", "step", "gain", "variance"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m clteach.experiments.published_convolutions", description=make.__doc__
    )
    parser.add_argument("files", type=Path, nargs=len(PUBLISHED), help="the published files, the one of 2020 first")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default: in the package)")
    given = parser.parse_args()
    print(make(given.files, given.out))
