r"""How good are generated images? Fréchet distance, Inception Score, precision and recall, in a classifier's features.

Pixels are a bad place to compare images in: move a digit by one pixel and it is far away. So all four measures look at
*features*, here the last hidden layer (84 units) of a LeNet that was trained on the data set itself. Their values depend on
that network: compare methods in one and the same feature space, and say which one it is. All measures are plain functions
of feature matrices (N, d), so any other space can be given; libraries offer them tied to the Inception network, which was
trained on photographs, has to be downloaded and means little for digits.

* **FID** (Heusel et al. 2017): the distance of two Gaussians that have the means and covariances of the features.
* **Inception Score** (Salimans et al. 2016): are single samples clear, and are they of many classes?
* **Precision and recall** (Sajjadi et al. 2018): how many samples look real, and how much of what is real is covered?
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data import data_folder
from clteach.errors import CheckpointError, ClteachError, ConfigError
from clteach.nets import LeNet
from clteach.seeding import derive, seeded
from clteach.storage import load_tensors, save_tensors
from clteach.streams import Data, Stream

# ----------------------------------------------------------------------------------------------------- the measures


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    r"""Fréchet distance of two sets of features, each summed up by a Gaussian (FID; Heusel et al. 2017).

    $$\mathrm{FID} = \|\mu_r - \mu_g\|^2
      + \operatorname{tr}\big(\Sigma_r + \Sigma_g - 2\,(\Sigma_r \Sigma_g)^{1/2}\big).$$

    With few samples it is too large (the covariances are noisy), so give both sides as many.

    Args:
        real: (N, d) features, N ≥ 2.
        generated: (M, d) features, M ≥ 2.

    Returns:
        A value ≥ 0 in squared units of the features; 0 where means and covariances agree.

    Raises:
        ConfigError: other shapes, or a value that is not finite.
    """
    pair = [_check_features(x, name).double() for x, name in ((real, "real"), (generated, "generated"))]
    if pair[0].shape[1] != pair[1].shape[1]:
        raise ConfigError(f"real has {pair[0].shape[1]} features, generated {pair[1].shape[1]}; expected the same.")
    mean_r, mean_g = (x.mean(0) for x in pair)
    # Σ = AᵀA with A = (x - μ) / √(N-1); R of A = QR has the same AᵀA, and no more rows than columns
    r, g = (torch.linalg.qr((x - x.mean(0)) / math.sqrt(len(x) - 1), mode="r").R for x in pair)
    # tr (Σ_r Σ_g)^½ is the sum of the singular values of A_r A_gᵀ: no matrix root, and d may exceed N
    cross = torch.linalg.svdvals(r @ g.T).sum()
    # FID = ‖μ_r - μ_g‖² + tr Σ_r + tr Σ_g - 2 tr (Σ_r Σ_g)^½
    distance = (mean_r - mean_g).square().sum() + r.square().sum() + g.square().sum() - 2 * cross
    return max(float(distance), 0.0)


def inception_score(probabilities: Tensor) -> float:
    r"""Inception Score: $\exp \mathbb{E}_x\, \mathrm{KL}(p(y|x) \,\|\, p(y))$ (Salimans et al. 2016).

    Args:
        probabilities: (N, K) class probabilities of N samples by a classifier; rows sum to 1.

    Returns:
        A value in [1, K]: 1 where all predictions are alike, K where each is certain and all classes are equally frequent.

    Raises:
        ConfigError: rows that are no probabilities.
    """
    p = _check_features(probabilities, "probabilities", least=1).double()
    if bool((p < 0).any()) or not torch.allclose(p.sum(1), torch.ones(len(p), dtype=p.dtype), atol=1e-4):
        raise ConfigError("probabilities has rows that do not sum to 1 or are negative; expected (N, K) probabilities.")
    # IS = exp( 1/N Σ_n Σ_k p(k|x_n) [log p(k|x_n) - log p(k)] )
    return float((torch.xlogy(p, p) - torch.xlogy(p, p.mean(0))).sum(1).mean().exp())


class PrecisionRecall(NamedTuple):
    """Precision (F1/8) and recall (F8), each in [0, 1]; higher is better."""

    precision: float
    recall: float


def precision_recall_curve(
    real: Tensor, generated: Tensor, clusters: int = 20, angles: int = 1001, runs: int = 10, seed: int = 0
) -> tuple[Tensor, Tensor]:
    r"""The precision-recall curve of two sets of features (PRD; Sajjadi et al. 2018).

    k-means on both sets together turns each into a histogram over clusters, $p$ (real) and $q$ (generated). For every slope
    $\lambda = \tan\theta$ between 0 and ∞, the part of $q$ and of $p$ that both have in common is
    $\alpha(\lambda) = \sum_c \min(\lambda p_c, q_c)$ (precision) and $\beta(\lambda) = \alpha(\lambda) / \lambda$ (recall).

    Args:
        real: (N, d) features.
        generated: (M, d) features.
        clusters: clusters of k-means (fewer where there are fewer samples).
        angles: number of slopes.
        runs: k-means runs that the curve is averaged over.
        seed: seed of k-means; global random states are not used.

    Returns:
        Precision and recall, each (angles,) float64 in [0, 1].
    """
    from sklearn.cluster import MiniBatchKMeans

    p_x, q_x = _check_features(real, "real", least=1), _check_features(generated, "generated", least=1)
    both = torch.cat([p_x, q_x]).double().numpy()
    n_clusters = min(clusters, len(np.unique(both, axis=0)))
    slope = np.tan(np.linspace(1e-6, np.pi / 2 - 1e-6, angles))[:, None]  # λ, (angles, 1)
    precision, recall = np.zeros(angles), np.zeros(angles)
    for run in range(runs):
        state = derive(seed, "prd", run) % 2**32
        label = MiniBatchKMeans(n_clusters, n_init=10, random_state=state).fit(both).labels_
        p = np.bincount(label[: len(p_x)], minlength=n_clusters) / len(p_x)
        q = np.bincount(label[len(p_x) :], minlength=n_clusters) / len(q_x)
        # α(λ) = Σ_c min(λ p_c, q_c),  β(λ) = α(λ) / λ
        alpha = np.minimum(slope * p, q).sum(1)
        precision += alpha / runs
        recall += alpha / slope[:, 0] / runs
    return torch.from_numpy(precision.clip(0, 1)), torch.from_numpy(recall.clip(0, 1))


def precision_recall(
    real: Tensor, generated: Tensor, clusters: int = 20, angles: int = 1001, runs: int = 10, seed: int = 0
) -> PrecisionRecall:
    """The two ends of the precision-recall curve as single numbers: the best F1/8 (precision) and F8 (recall).

    Args and errors as `precision_recall_curve`.
    """
    alpha, beta = precision_recall_curve(real, generated, clusters, angles, runs, seed)

    def best_f(b: float) -> float:
        # F_b = (1 + b²) α β / (b² α + β); b = 8 weighs recall, b = 1/8 precision
        return float(((1 + b**2) * alpha * beta / (b**2 * alpha + beta).clamp_min(1e-12)).max())

    return PrecisionRecall(best_f(1 / 8), best_f(8))


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


def _check_features(x: Tensor, name: str, least: int = 2) -> Tensor:
    if x.ndim != 2 or len(x) < least:
        raise ConfigError(f"{name} has shape {tuple(x.shape)}; expected (N, d) with N ≥ {least} samples.")
    if not bool(x.isfinite().all()):
        raise ConfigError(f"{name} holds values that are not finite; expected numbers.")
    return x.detach().cpu()


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
    """Train the classifier by the recipe above; the same data give the same weights on the same machine."""
    from clteach.training import Shuffle

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
