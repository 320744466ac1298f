"""Train a feature extractor on some classes, to be frozen in front of learners (see `clteach.data.extractors`).

    clteach pretrain --data cifar100 --classes 20

learns the first 20 classes and writes ``cifar100-first20.safetensors`` into the data folder, where ``weights=`` finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach import storage
from clteach.data.dataset import Dataset, as_floats
from clteach.data.extractors import EXTRACTORS, make_extractor
from clteach.data.tasks import Shuffle
from clteach.errors import DivergedError
from clteach.learners.optim import adam
from clteach.models.nets import mlp
from clteach.progress import Report
from clteach.seeding import generator, seeded
from clteach.training.start import resolve_device


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
    seed: int = 0,
    device: torch.device | str = "auto",
    progress: Report | None = None,
) -> Path:
    """Train an extractor with a classifier on top, and write the extractor's weights.

    Args:
        dataset: images; it learns from the training set alone.
        out: the safetensors file to write.
        classes: the classes to learn (those that later tasks do not contain); None: all.
        extractor: one of `EXTRACTORS`.
        hidden: units of the hidden layers of the classifier, which is thrown away afterwards.
        epochs: passes over the data.
        batch_size: images per step.
        lr: Adam's learning rate.
        augment: show every image shifted by up to 4 pixels and mirrored at random.
        seed: of weights, batches and augmentation.
        device: "auto", "cpu" or "cuda".
        progress: called as ``progress(done, total, text)`` now and then.

    Returns:
        `out`. Beside the weights it says how they were made, and the share of the chosen classes' test images that were
        classified correctly (`clteach.data.extractors.trained`).
    """
    device = resolve_device(device)
    chosen = torch.as_tensor(list(range(dataset.n_classes)) if classes is None else list(classes))
    rows = torch.isin(dataset.y_train, chosen).nonzero().flatten()
    unit = torch.full((dataset.n_classes,), -1)  # of a class that is not learned
    unit[chosen] = torch.arange(len(chosen))
    x, y = dataset.x_train[rows].to(device), unit[dataset.y_train[rows]].to(device)
    with seeded(seed, "pretrain"):
        features = EXTRACTORS[extractor](dataset.shape)
        n_features = make_extractor(extractor, dataset.shape)(torch.zeros(1, *dataset.shape)).shape[1]
        net = nn.Sequential(features, mlp((n_features,), hidden, len(chosen))).to(device).train()
    opt = adam(net.parameters(), lr)
    shuffle, rng = Shuffle(len(x), batch_size, seed, device), generator(seed, "augment", device=device)
    steps = max(1, epochs * len(x) // batch_size)
    for s in range(steps):
        index = shuffle(s)
        images = as_floats(x[index])
        loss = F.cross_entropy(net(augmented(images, rng) if augment else images), y[index])
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if progress is not None and (s + 1) % 50 == 0:
            progress(s + 1, steps, f"loss {float(loss.detach()):.2f}")
    if not all(bool(p.isfinite().all()) for p in net.parameters()):
        raise DivergedError(
            f"pre-training diverged: expected finite weights, choose a smaller learning rate than lr={lr:g}."
        )
    about = {
        **{"extractor": extractor, "classes": chosen.tolist(), "epochs": epochs, "batch_size": batch_size, "lr": lr},
        **{"augment": augment, "seed": seed, "accuracy": _accuracy(net.eval(), dataset, unit)},
    }
    return storage.save_tensors(out, dict(features.state_dict()), about)


@torch.no_grad()
def _accuracy(net: nn.Module, dataset: Dataset, unit: Tensor) -> float:
    """Share of correct answers on the test images of the classes whose output `unit` (n_classes,) is not -1."""
    rows = (unit[dataset.y_test] >= 0).nonzero().flatten()
    device = next(net.parameters()).device
    answers = [net(as_floats(dataset.x_test[part].to(device))).argmax(1).cpu() for part in rows.split(1000)]
    return float((torch.cat(answers) == unit[dataset.y_test[rows]]).float().mean())


def augmented(x: Tensor, rng: torch.Generator, pad: int = 4) -> Tensor:
    """Images (B, C, H, W), each shifted by up to `pad` pixels (zeros come in) and mirrored with probability ½."""
    n, _, height, width = x.shape
    flip = torch.rand(n, 1, 1, 1, generator=rng, device=rng.device) < 0.5
    x = F.pad(torch.where(flip, x.flip(3), x), (pad, pad, pad, pad))
    down, right = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=rng, device=rng.device)
    rows = down + torch.arange(height, device=x.device)  # (B, H)
    columns = right + torch.arange(width, device=x.device)  # (B, W)
    each = torch.arange(n, device=x.device)[:, None, None]
    return x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
