r"""Domain adaptation: labels in one domain, images of another. Can an energy stand in for a domain classifier?

A network f makes features of labelled source images and of unlabelled target images; a classifier reads the labels off
the features. To make it work on the target, a critic learns to tell the two domains apart by their features, and f learns
to stop it:

* **source-only**: no critic. What is to be beaten.
* **dann** (Ganin et al. 2016): the critic is a classifier of the domain, and its gradient reaches f *reversed*.
* **energy**: the critic is an auto-encoder whose energy D (see `clteach.methods.ebgan`) is low on source features and pushed
  up to a margin on target features, while f lowers the energy of target features:
  $\mathcal{L}_D = D(f(x_s)) + [m - D(f(x_t))]^+$ and $\mathcal{L}_f = \mathcal{L}_{\text{class}} + \lambda D(f(x_t))$.
* **target**: trained on the target's labels, which the others never see. The upper bound.

The energy critic is an idea to be tested here, not a published method.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data import Dataset
from clteach.errors import unknown
from clteach.learner import adam
from clteach.methods.ebgan import energy, hinge
from clteach.nets import mlp
from clteach.seeding import generator, seeded

METHODS = ("source-only", "dann", "energy", "target")
SHIFTS = ("inverted", "blurred", "coloured")
FEATURES = 64


def shifted(x: Tensor, shift: str, rng: torch.Generator) -> Tensor:
    """Images x (N, 1, H, W) in [0, 1] of the source -> (N, 3, H, W) of the target.

    Inverted: black and white exchanged. Blurred: the mean over 3 x 3 pixels. Coloured: drawn on a plain background of a
    random colour, in its complement.
    """
    if shift not in SHIFTS:
        raise unknown("shift", shift, SHIFTS)
    colour = x.expand(-1, 3, -1, -1)
    if shift == "inverted":
        return 1 - colour
    if shift == "blurred":
        return F.avg_pool2d(colour, 3, stride=1, padding=1)
    background = torch.rand(len(x), 3, 1, 1, generator=rng)
    return (background - colour).abs()


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself, with a gradient of -strength instead of 1."""
    # r(x) = (1 + λ) stop(x) - λ x
    return (1 + strength) * x.detach() - strength * x


def transfer(
    dataset: Dataset,
    shift: str,
    method: str,
    seed: int,
    steps: int,
    batch_size: int = 64,
    strength: float = 0.3,
    margin: float = 1.0,
    lr: float = 1e-3,
) -> float:
    """Adapt from a data set's training images to their shifted version.

    Args:
        dataset: grey images.
        shift: one of `SHIFTS`.
        method: one of `METHODS`.
        seed: seed of weights, batches and colours.
        steps: training steps; the critic makes one in each.
        batch_size: source images per step, and as many target images (of other rows).
        strength: λ, weight of what the critic says.
        margin: m of the energy.
        lr: Adam's learning rate.

    Returns:
        Accuracy in [0, 1] on the shifted test images.
    """
    if method not in METHODS:
        raise unknown("method of domain transfer", method, METHODS)
    rng = generator(seed, "transfer", shift)
    x, y = dataset.x_train.float() / 255, dataset.y_train
    source, target = x.expand(-1, 3, -1, -1), shifted(x, shift, rng)
    with seeded(seed, "transfer"):
        f = nn.Sequential(mlp(source.shape[1:], (256,), FEATURES), nn.ReLU())
        head = nn.Linear(FEATURES, dataset.n_classes)
        encoder, decoder = mlp((FEATURES,), (64,), 16), mlp((16,), (64,), FEATURES)
        domain = mlp((FEATURES,), (64,), 1)
    critic = nn.ModuleList([encoder, decoder] if method == "energy" else [domain])
    opt, critic_opt = adam([*f.parameters(), *head.parameters()], lr), adam(critic.parameters(), lr)

    for _ in range(steps):
        rows, others = (torch.randint(len(x), (batch_size,), generator=rng) for _ in range(2))
        if method == "target":
            loss = F.cross_entropy(head(f(target[rows])), y[rows])
        else:
            at_source = f(source[rows])
            loss = F.cross_entropy(head(at_source), y[rows])
        if method == "dann":
            both = reversed_gradient(torch.cat([at_source, f(target[others])]), strength)
            is_source = torch.cat([torch.ones(batch_size), torch.zeros(batch_size)])
            loss = loss + F.binary_cross_entropy_with_logits(domain(both).squeeze(1), is_source)
        if method == "energy":
            at_target = f(target[others])
            with_energy = torch.cat([at_source.detach(), at_target.detach()])
            low, high = energy(with_energy, decoder(encoder(with_energy))).chunk(2)
            # L_D = D(f(x_s)) + [m - D(f(x_t))]⁺
            critic_opt.zero_grad()
            (low.mean() + hinge(high, margin).mean()).backward()
            critic_opt.step()
            # L_f = L_class + λ D(f(x_t))
            loss = loss + strength * energy(at_target, decoder(encoder(at_target))).mean()
        opt.zero_grad()
        if method == "dann":
            critic_opt.zero_grad()
        loss.backward()
        opt.step()
        if method == "dann":
            critic_opt.step()  # the same backward pass: the critic descends its loss, f climbs it

    x_test = shifted(dataset.x_test.float() / 255, shift, generator(seed, "transfer", shift, "test"))
    with torch.no_grad():
        right = head(f(x_test)).argmax(1) == dataset.y_test
    return float(right.double().mean())
