"""Train a feature extractor, to be frozen in front of learners (see `clteach.data.extractors`).

    clteach pretrain --data cifar10 --extractor conv-normalised

learns CIFAR-10 as the papers on split CIFAR-100 did before they froze the convolutions, and writes ``cifar10.safetensors``
into the data folder, where ``weights=`` finds it. Killed and started again it goes on where it was, to the bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach import storage
from clteach.data.dataset import Dataset, as_floats
from clteach.data.extractors import EXTRACTORS, make_extractor
from clteach.data.tasks import Shuffle
from clteach.errors import CheckpointError, ConfigError, DivergedError, unknown
from clteach.learners.optim import adam
from clteach.models.nets import ChannelNormalisation, mlp
from clteach.progress import Report
from clteach.seeding import generator, seeded, whole_seed
from clteach.training.code import code
from clteach.training.start import resolve_device

SAVE_EVERY = 30.0
"""Seconds between two checkpoints."""


def pretrain(
    dataset: Dataset,
    out: str | Path,
    *,
    classes: Sequence[int] | None = None,
    extractor: str = "conv",
    hidden: tuple[int, ...] = (2000, 2000),
    epochs: int = 100,
    batch_size: int = 256,
    lr: float = 1e-4,
    augment: bool = True,
    uniform_gains: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
    progress: Report | None = None,
) -> Path:
    """Train an extractor with a classifier on top, and write the extractor's weights.

    Args:
        dataset: images; it learns from the training set alone.
        out: the safetensors file to write. Until it is there, ``OUT.unfinished`` beside it holds the checkpoint.
        classes: the classes to learn (those that later tasks do not contain); None: all.
        extractor: one of `EXTRACTORS`.
        hidden: units of the hidden layers of the classifier, which is thrown away afterwards.
        epochs: passes over the data.
        batch_size: images per step.
        lr: Adam's learning rate.
        augment: show every image shifted by up to 4 pixels and mirrored at random (`augmented`).
        uniform_gains: batch norm's gains begin at random in [0, 1), as they did in PyTorch before 1.2, instead of at 1.
        seed: of weights, batches and augmentation.
        device: "auto", "cpu" or "cuda".
        progress: called as ``progress(done, total, text)`` now and then.

    Returns:
        `out`, with the weights in half precision: a frozen extractor needs no more, and the file is half as large. Beside
        them it says how they were made, and the share of the chosen classes' test images that the rounded weights
        classified correctly (`clteach.data.extractors.trained`).

    Raises:
        ConfigError: an unknown extractor, no class to learn, less than one pass or one image per step, a learning rate that
            is not above 0, a seed below 0, gains asked for where there is no batch norm, or `out` is a folder.
        CheckpointError: ``OUT.unfinished`` is damaged, or of other settings, data or code.
        DivergedError: the weights are not finite.
    """
    device, out, seed = resolve_device(device), Path(out), whole_seed(seed)
    if epochs < 1 or batch_size < 1:
        raise ConfigError(f"epochs={epochs}, batch_size={batch_size}: expected at least one of each.")
    if not 0 < lr < math.inf:
        raise ConfigError(f"lr={lr}: expected a number above 0, such as the default 1e-4.")
    if extractor not in EXTRACTORS:
        raise unknown("feature extractor", extractor, EXTRACTORS)
    if out.is_dir():
        raise ConfigError(
            f"{out} is a folder: expected the name of the file to write, such as {out / 'conv.safetensors'}."
        )
    chosen = torch.as_tensor(list(range(dataset.n_classes)) if classes is None else list(classes))
    if not len(chosen) or int(chosen.min()) < 0 or int(chosen.max()) >= dataset.n_classes:
        raise ConfigError(
            f"classes={chosen.tolist()}: expected some of 0..{dataset.n_classes - 1}, as {dataset.name} has."
        )
    rows = torch.isin(dataset.y_train, chosen).nonzero().flatten()
    unit = torch.full((dataset.n_classes,), -1)  # of a class that is not learned
    unit[chosen] = torch.arange(len(chosen))
    x, y = dataset.x_train[rows].to(device), unit[dataset.y_train[rows]].to(device)
    with seeded(seed, "pretrain"):
        features = EXTRACTORS[extractor](dataset.shape)
        n_features = make_extractor(extractor, dataset.shape)(torch.zeros(1, *dataset.shape)).shape[1]
        classifier = mlp((n_features,), hidden, len(chosen))
        norms = [layer for layer in features.modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in norms if uniform_gains else ():
            nn.init.uniform_(norm.weight)  # on the CPU, so that they are the same for every device
    if uniform_gains and not norms:
        raise ConfigError(f"uniform_gains=True, but {extractor!r} has no batch norm. Leave it out.")
    net = nn.Sequential(features, classifier).to(device).train()
    for layer in features.modules():
        if isinstance(layer, ChannelNormalisation):
            layer.measure(x)
    opt = adam(net.parameters(), lr)
    shuffle, rng = Shuffle(len(x), batch_size, seed, device), generator(seed, "augment", device=device)
    steps = max(1, epochs * len(x) // batch_size)
    made = {
        **{"extractor": extractor, "data": dataset.name, "classes": chosen.tolist(), "epochs": epochs},
        **{"batch_size": batch_size, "lr": lr, "augment": augment, "seed": seed},
        **{"uniform_gains": uniform_gains},
    }
    source = code("clteach.training.pretraining", EXTRACTORS[extractor])
    identity = {**made, "hidden": list(hidden), "images": dataset.fingerprint, "code": source}
    unfinished = out.with_name(f"{out.name}.unfinished")
    # without a source nobody can tell whether a checkpoint is of this extractor
    begin, saved = 0 if source is None else _resume(unfinished, identity, net, opt, rng), time.monotonic()
    for s in range(begin, steps):
        index = shuffle(s)
        images = as_floats(x[index])
        with seeded(seed, "step", s, device=device):  # of an extractor of the user's own, which may have dropout
            loss = F.cross_entropy(net(augmented(images, rng) if augment else images), y[index])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if progress is not None and ((s + 1) % 50 == 0 or s + 1 == steps):
            progress(s + 1, steps, f"loss {float(loss.detach()):.2f}")
        if time.monotonic() - saved > SAVE_EVERY:
            _save(unfinished, identity, s + 1, net, opt, rng)
            saved = time.monotonic()
    if not all(bool(p.isfinite().all()) for p in net.parameters()):
        unfinished.unlink(missing_ok=True)
        raise DivergedError(
            f"pre-training diverged: expected finite weights, choose a smaller learning rate than lr={lr:g}."
        )
    weights = {key: v.half() if v.is_floating_point() else v for key, v in features.state_dict().items()}
    features.load_state_dict(weights)  # what is measured is what is kept
    about = {**made, "accuracy": _accuracy(net.eval(), dataset, unit)}
    storage.save_tensors(out, weights, about)
    unfinished.unlink(missing_ok=True)
    return out


def _save(
    path: Path, identity: dict[str, Any], done: int, net: nn.Module, opt: torch.optim.Optimizer, rng: torch.Generator
) -> None:
    moments, groups = storage.optimizer_tensors("adam", opt)
    tensors = {**{f"net/{k}": v for k, v in net.state_dict().items()}, **moments, "rng": rng.get_state()}
    storage.save_tensors(path, tensors, {"identity": identity, "done": done, "groups": groups})


def _resume(
    path: Path, identity: dict[str, Any], net: nn.Module, opt: torch.optim.Optimizer, rng: torch.Generator
) -> int:
    """Steps that a killed call has done; the network, its optimiser and the random numbers are as they were then."""
    storage.sweep(path)
    if not path.exists():
        return 0
    tensors, meta = storage.load_tensors(path)
    found = meta.get("identity", {})
    differing = [key for key in identity if found.get(key) != identity[key]]
    if differing:
        raise CheckpointError(
            f"{path} is the beginning of another pre-training (its {', '.join(differing)} differ). Delete it to start anew, "
            "choose another file, or repeat the same settings to go on."
        )
    net.load_state_dict({key.removeprefix("net/"): v for key, v in tensors.items() if key.startswith("net/")})
    storage.restore_optimizer("adam", opt, tensors, meta["groups"])
    rng.set_state(tensors["rng"].cpu())
    return int(meta["done"])


@torch.no_grad()
def _accuracy(net: nn.Module, dataset: Dataset, unit: Tensor) -> float:
    """Share of correct answers on the test images of the classes whose output `unit` (n_classes,) is not -1."""
    rows = (unit[dataset.y_test] >= 0).nonzero().flatten()
    device = next(net.parameters()).device
    answers = [net(as_floats(dataset.x_test[part].to(device))).argmax(1).cpu() for part in rows.split(1000)]
    return float((torch.cat(answers) == unit[dataset.y_test[rows]]).float().mean())


def augmented(x: Tensor, rng: torch.Generator, pad: int = 4) -> Tensor:
    """Images (B, C, H, W), each mirrored with probability ½ and shifted by up to `pad` pixels, or its size.

    What is missing at an edge then is the image's own mirror image beyond that edge: black bars would be the strongest
    edges that the convolutions see.
    """
    n, _, height, width = x.shape
    pad = min(pad, height, width)
    flip = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < 0.5
    x = torch.where(flip, x.flip(3), x)
    down, right = torch.randint(-pad, pad + 1, (2, n, 1), generator=rng, device=rng.device)
    rows = _mirrored(down + torch.arange(height, device=x.device), height)  # (B, H)
    columns = _mirrored(right + torch.arange(width, device=x.device), width)  # (B, W)
    each = torch.arange(n, device=x.device)[:, None, None]
    return x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Places -size .. 2 size - 1 on a line -> 0 .. size - 1, as if mirrors stood at its two ends: -1 is 0 again."""
    index = torch.where(index < 0, -1 - index, index)
    return torch.where(index >= size, 2 * size - 1 - index, index)
