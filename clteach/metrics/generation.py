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

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from clteach.errors import ConfigError
from clteach.seeding import derive

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


def _check_features(x: Tensor, name: str, least: int = 2) -> Tensor:
    if x.ndim != 2 or len(x) < least:
        raise ConfigError(f"{name} has shape {tuple(x.shape)}; expected (N, d) with N ≥ {least} samples.")
    if not bool(x.isfinite().all()):
        raise ConfigError(f"{name} holds values that are not finite; expected numbers.")
    return x.detach().cpu()
