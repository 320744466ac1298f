"""The judge of generated images: a LeNet trained on the data set itself, and all measures in its features.

The measures are those of `clteach.metrics.generation`; their values depend on this network.
"""

from __future__ import annotations

import contextlib
import hashlib
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.catalogue import data_folder
from clteach.data.tasks import Data, Shuffle, Stream
from clteach.errors import CheckpointError, ClteachError, ConfigError, DivergedError
from clteach.metrics.generation import (
    frechet_distance,
    inception_score,
    precision_recall,
)
from clteach.models.nets import LeNet
from clteach.seeding import derive, seeded
from clteach.storage import load_tensors, save_tensors


def quality(net: LeNet, real: Tensor, generated: Tensor) -> dict[str, float]:
    """All measures at once, of images in the features of `net`.

    Args:
        net: the classifier.
        real: (N, C, H, W) images in [0, 1].
        generated: (M, C, H, W) images in [0, 1]; M = N makes methods comparable.

    Returns:
        ``fid``, ``inception_score``, ``precision`` and ``recall``.
    """
    x, y = features(net, real), features(net, generated)
    with torch.no_grad():
        p = torch.cat([net.probabilities(part) for part in generated.split(1000)]).cpu()
    return {"fid": frechet_distance(x, y), "inception_score": inception_score(p), **precision_recall(x, y)._asdict()}


def quality_by_group(
    net: LeNet, real: Tensor, groups: Tensor, generated: Tensor, asked: Tensor | None = None
) -> dict[int, dict[str, float]]:
    """All measures for each class, or for each task: of the generated images that belong to it, against the real ones.

    Args:
        net: the classifier.
        real: (N, C, H, W) images in [0, 1].
        groups: (N,) the group of each real image, from 0: its class, or its task.
        generated: (M, C, H, W) images in [0, 1].
        asked: (M,) the group that each generated image was asked for. None: the one that it is in the eyes of `net`, for
            generators that cannot be asked.

    Returns:
        For each group the measures of `quality`, and ``share``, that of the generated images in [0, 1]. FID falls with the
        number of images. Of fewer than two the measures are NaN.

    Raises:
        ConfigError: not one group for each image, or a group with fewer than two real images.
    """
    if len(groups) != len(real) or (asked is not None and len(asked) != len(generated)):
        raise ConfigError(
            f"{len(groups)} groups of {len(real)} real images, {'no' if asked is None else len(asked)} groups asked for of "
            f"{len(generated)} generated ones: expected one for each image."
        )
    n_groups = int(groups.max()) + 1
    if asked is None:
        seen, dreamed = (predicted(net, images).cpu() for images in (real, generated))
        # Which group do images belong to that the net takes for its class k? That of most of the real ones.
        count = torch.zeros(int(max(seen.max(), dreamed.max())) + 1, n_groups)
        count.index_put_((seen, groups.cpu()), torch.ones(len(seen)), accumulate=True)
        asked = torch.where(count.sum(1) > 0, count.argmax(1), -1)[dreamed]
    found = {}
    for group in range(n_groups):
        images = generated[(asked == group).to(generated.device)]
        nothing = dict.fromkeys(("fid", "inception_score", "precision", "recall"), math.nan)
        measures = nothing if len(images) < 2 else quality(net, real[groups == group], images)
        found[group] = {"share": len(images) / len(generated), **measures}
    return found


@torch.no_grad()
def predicted(net: LeNet, x: Tensor) -> Tensor:
    """(N,) classes that `net` takes images (N, C, H, W) for, numbered as it numbers them; a thousand at a time."""
    return torch.cat([net(part).argmax(1) for part in x.split(1000)])


@torch.no_grad()
def features(net: LeNet, x: Tensor) -> Tensor:
    """(N, 84) features of images x (N, C, H, W) on the CPU, a thousand at a time."""
    return torch.cat([net.features(part) for part in x.split(1000)]).cpu()


# ------------------------------------------------------------------------------------------ the feature classifier

STEPS, EPOCHS, BATCH, LR = 2000, 15, 64, 2e-3
"""The recipe: Adam for 2000 steps, at most 15 epochs, batch 64, learning rate 2e-3 falling to 0 along a cosine."""

_trained: dict[str, LeNet] = {}


def feature_classifier(stream: Stream) -> LeNet:
    """The LeNet in whose features generators on this stream are judged, trained once per data set and then kept.

    It depends on the images alone: not on how a stream cuts them into tasks, orders its classes or holds images out (it
    learns from these too, so that one space serves all seeds; but the images of permuted streams differ by seed). Kept in
    memory and as a file in the data folder; where the folder cannot be written it is trained again, with the same result.

    Args:
        stream: a class-incremental stream of images.

    Raises:
        ConfigError: feature vectors instead of images, or another scenario.
    """
    spec = stream.spec
    if len(spec.shape) != 3 or spec.scenario != "class":
        raise ConfigError(
            f"a LeNet cannot be trained on inputs of shape {spec.shape} in the scenario {spec.scenario!r}: expected "
            "images (C, H, W) and the scenario 'class', where every class has a label of its own."
        )
    data = _whole(stream)
    digest = hashlib.sha256(repr((stream.name.partition("-")[2], STEPS, EPOCHS, BATCH, LR)).encode())
    for tensor in (data.x, data.rows, data.y, *([] if data.pixels is None else [data.pixels])):
        digest.update(tensor.cpu().numpy().data)
    key = digest.hexdigest()[:16]
    if key not in _trained:
        file = data_folder() / "features" / f"lenet-{key}.safetensors"
        with seeded(0, "feature classifier"):
            net = LeNet(spec.shape[0], spec.n_out)
        try:
            net.load_state_dict(load_tensors(file)[0])
            net.to(data.device)
        except (CheckpointError, RuntimeError):
            fit(net.to(data.device), data)
            with contextlib.suppress(ClteachError):  # a folder that is read-only: train again next time
                save_tensors(file, net.state_dict(), {"feature classifier": stream.name})
        _trained[key] = net.requires_grad_(False).eval()
    return _trained[key].to(data.device)


def fit(net: LeNet, data: Data) -> None:
    """Train the classifier by the recipe above; the same data give the same weights on the same machine.

    Raises:
        DivergedError: its weights are no numbers any more.
    """
    steps = min(STEPS, EPOCHS * math.ceil(len(data) / BATCH))
    optimizer = torch.optim.Adam(net.parameters(), lr=LR, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    shuffle = Shuffle(len(data), BATCH, derive(0, "feature classifier"), data.device)
    for step in range(steps):
        batch = data.batch(shuffle(step))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(batch.x), batch.y).backward()
        optimizer.step()
        schedule.step()
    if not all(bool(p.isfinite().all()) for p in net.parameters()):
        raise DivergedError(
            "the classifier that judges generated images diverged on this data set: its features would mean nothing. "
            "Expected images in [0, 1] with labels; set features='inputs' to compare inputs as they are."
        )


def _whole(stream: Stream) -> Data:
    """All training and held-out images in the order of the data set; classes numbered as they first appear there."""
    parts = [part for task in stream for part in (task.train, task.valid) if part is not None]
    data = Data.concat(parts)
    data = data.subset(torch.argsort(data.rows, stable=True))
    # The row at which each class appears first; a class without a row comes last.
    shown = [(data.y == unit).nonzero() for unit in range(stream.spec.n_out)]
    first = [int(rows[0]) if len(rows) else len(data) for rows in shown]
    number = torch.argsort(torch.argsort(torch.tensor(first, device=data.device), stable=True))
    return Data(data.x, data.rows, number[data.y], data.task, data.pixels)
