"""How were the published convolutions trained? Their files tell more than the papers do.

    python -m clteach.experiments.published_convolutions C3-5x16-bn C3-5x16-bn-e100

reads the two files of weights that the papers of 2020 and of 2022 published (`PUBLISHED`), and this package's own, and
writes `FILE` into the package, where `table` finds it. A network in training leaves three traces in its weights:

* **batches**: a batch norm counts the batches that it has seen. There are 50,000 training images, so 100 epochs in batches
  of 256 are 19,500, without the incomplete ones.
* **growth**: how large the convolutions' weights have become, as a multiple of their size at the start (the geometric mean
  over the five layers). Behind a batch norm the size of the weights means nothing to the network, and every step, at a right
  angle to them, adds to it: after k steps of Adam the square of a weight has grown by about k lr².
* **gain**: the mean gain of the batch norms. Gains begin at 1, in PyTorch before 1.2 at random in [0, 1).

What they lead to is the **variance** of the features of CIFAR-100: over images, averaged over features.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

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
PUBLISHED = {
    "published 2020": "store/models/C3-5x16-bn of github.com/GMvandeVen/brain-inspired-replay at 1a030f7",
    "published 2022": "store/models/C3-5x16-bn-e100 of github.com/GMvandeVen/continual-learning at e6d795a",
}
OURS = {
    "ours, for 2020": brain_inspired_replay.CIFAR10["weights"],
    "ours, for 2022": baselines.CIFAR10["weights"],
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
    try:
        state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)["state"]
        for i, layers in enumerate(zip(convolutions, [*norms, None], strict=True), 1):  # the last has no batch norm
            for name, layer in zip(("conv", "bn"), layers, strict=True):
                if layer is not None:
                    begin = f"convLayer{i}.{name}."
                    layer.load_state_dict({k.removeprefix(begin): v for k, v in state.items() if k.startswith(begin)})
    except Exception as error:  # of a file that somebody else wrote, torch.load raises what its bytes happen to mean
        raise CheckpointError(
            f"{file} holds no convolutions as they were published ({type(error).__name__})."
        ) from error
    assert isinstance(module[0], ChannelNormalisation)
    module[0].measure(dataset.x_train)
    return module.eval()


@torch.no_grad()
def measured(module: nn.Module, dataset: Dataset) -> dict[str, Any]:
    """The traces of training in convolutions, and the variance of their features (see the top of this file)."""
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    # PyTorch draws weights from U(-1/√n, 1/√n), with n inputs of a unit; their standard deviation is 1/√(3n)
    growth = [float(layer.weight.std() * (3 * layer.weight[0].numel()) ** 0.5) for layer in convolutions]
    batches = norms[0].num_batches_tracked
    assert batches is not None
    features = torch.cat([module(as_floats(part)) for part in dataset.x_train[:IMAGES].split(500)])
    return {
        "batches": int(batches),
        "growth": float(torch.tensor(growth).log().mean().exp()),
        "gain": float(torch.cat([layer.weight for layer in norms]).mean()),
        "variance": float(features.var(0).mean()),
    }


def make(files: list[Path], out: str | Path = FILE) -> Path:
    """Measure the published files, in the order of `PUBLISHED`, and our own, and write what was found.

    Raises:
        CheckpointError: a file cannot be read, or holds something else.
    """
    dataset = load_dataset("cifar100")
    rows: dict[str, Any] = {}
    for (name, source), file in zip(PUBLISHED.items(), files, strict=True):
        found = measured(published(file, dataset), dataset)
        rows[name] = {"source": source, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), **found}
    for name, weights in OURS.items():
        module = make_extractor("conv-normalised", dataset.shape, weights)
        rows[name] = {"source": weights, **measured(module, dataset)}
    command = "python -m clteach.experiments.published_convolutions C3-5x16-bn C3-5x16-bn-e100"
    return storage.write_json(Path(out), {"command": command, "commit": checkout(), "convolutions": rows})


def table(path: str | Path = FILE) -> pd.DataFrame:
    """What was found: a row for each set of convolutions, with the columns of `measured`."""
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    return pd.DataFrame(document["convolutions"]).T[["batches", "growth", "gain", "variance"]]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m clteach.experiments.published_convolutions", description=make.__doc__
    )
    parser.add_argument("files", type=Path, nargs=len(PUBLISHED), help="the published files, the one of 2020 first")
    parser.add_argument("--out", type=Path, default=FILE, help="the file to write (default: in the package)")
    given = parser.parse_args()
    print(make(given.files, given.out))
