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

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data import Dataset, as_floats
from clteach.errors import unknown
from clteach.learner import adam
from clteach.methods.ebgan import energy, hinge
from clteach.nets import mlp
from clteach.seeding import generator, seeded

METHODS = ("source-only", "dann", "energy", "target")
SHIFTS = ("inverted", "blurred", "coloured")
FEATURES = 64


class Domain(NamedTuple):
    """Labelled images of one kind: `x` (N, C, H, W) in [0, 1] and classes `y` (N,)."""

    x: Tensor
    y: Tensor


def shifted(x: Tensor, shift: str, rng: torch.Generator) -> Tensor:
    """Images x (N, 1, H, W) in [0, 1] of the source -> (N, 3, H, W) of the target.

    Inverted: black and white exchanged. Blurred: the mean over a square whose side is 3/8 of the image's, 3 x 3 pixels of
    8 x 8 and 11 x 11 of 28 x 28. Coloured: drawn on a plain background of a random colour, in its complement.
    """
    if shift not in SHIFTS:
        raise unknown("shift", shift, SHIFTS)
    colour = x.expand(-1, 3, -1, -1)
    if shift == "inverted":
        return 1 - colour
    if shift == "blurred":
        side = 3 * x.shape[-1] // 8 | 1  # odd, so that the image stays where it is
        return F.avg_pool2d(colour, side, stride=1, padding=side // 2)
    background = torch.rand(len(x), 3, 1, 1, generator=rng)
    return (background - colour).abs()


def reduced(x: Tensor) -> Tensor:
    """Images (N, 1, 28, 28) of MNIST -> (N, 1, 8, 8) like those of the bundled digits: means over blocks.

    The bundled digits are counts over the 4 x 4 blocks of a 32 x 32 bitmap that the digit fills. MNIST's digits fill 20 of
    its 28 pixels: an edge of 2 is cut off, and the means over blocks of 3 x 3 are kept.
    """
    return F.avg_pool2d(x[:, :, 2:-2, 2:-2], 3)


def reversed_gradient(x: Tensor, strength: float) -> Tensor:
    """x itself, with a gradient of -strength instead of 1."""
    # r(x) = (1 + λ) stop(x) - λ x
    return (1 + strength) * x.detach() - strength * x


def adapt(
    source: Domain,
    target: Domain,
    method: str,
    rng: torch.Generator,
    steps: int,
    seed: int = 0,
    batch_size: int = 64,
    strength: float = 0.3,
    margin: float = 1.0,
    lr: float = 1e-3,
) -> nn.Sequential:
    """Learn to classify target images from labelled source images. Only the method "target" reads the target's labels.

    Args:
        source: images with labels.
        target: images of the same shape; their labels are the upper bound's alone.
        method: one of `METHODS`.
        rng: the source of the batches.
        steps: training steps; the critic makes one in each.
        seed: seed of the weights.
        batch_size: source images per step, and as many target images (of other rows).
        strength: λ, weight of what the critic says.
        margin: m of the energy.
        lr: Adam's learning rate.

    Returns:
        The classifier, images -> logits.

    Raises:
        ConfigError: no such method.
    """
    if method not in METHODS:
        raise unknown("method of domain transfer", method, METHODS)
    if method == "target":
        source = target  # the upper bound is told the labels that the others never see
    with seeded(seed, "transfer"):
        f = nn.Sequential(mlp(source.x.shape[1:], (256,), FEATURES), nn.ReLU())
        head = nn.Linear(FEATURES, int(source.y.max()) + 1)
        encoder, decoder = mlp((FEATURES,), (64,), 16), mlp((16,), (64,), FEATURES)
        domain = mlp((FEATURES,), (64,), 1)
    critic = nn.ModuleList([encoder, decoder] if method == "energy" else [domain])
    opt, critic_opt = adam([*f.parameters(), *head.parameters()], lr), adam(critic.parameters(), lr)

    for _ in range(steps):
        rows, others = (torch.randint(len(d.x), (batch_size,), generator=rng) for d in (source, target))
        at_source = f(source.x[rows])
        loss = F.cross_entropy(head(at_source), source.y[rows])
        if method == "dann":
            both = reversed_gradient(torch.cat([at_source, f(target.x[others])]), strength)
            is_source = torch.cat([torch.ones(batch_size), torch.zeros(batch_size)])
            loss = loss + F.binary_cross_entropy_with_logits(domain(both).squeeze(1), is_source)
        if method == "energy":
            at_target = f(target.x[others])
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
    return nn.Sequential(f, head)


@torch.no_grad()
def accuracy(net: nn.Module, domain: Domain) -> float:
    """Share in [0, 1] of a domain's images that a classifier gets right."""
    right = [net(x).argmax(1) == y for x, y in zip(domain.x.split(1000), domain.y.split(1000), strict=True)]
    return float(torch.cat(right).double().mean())


def transfer(dataset: Dataset, shift: str, method: str, seed: int, steps: int, **settings: Any) -> float:
    """Adapt from a data set's training images to their shifted version.

    Args:
        dataset: grey images.
        shift: one of `SHIFTS`.
        method: one of `METHODS`.
        seed: seed of weights, batches and colours.
        steps: training steps.
        **settings: further arguments of `adapt`.

    Returns:
        Accuracy in [0, 1] on the shifted test images.
    """
    rng = generator(seed, "transfer", shift)
    x, x_test = as_floats(dataset.x_train), as_floats(dataset.x_test)
    source = Domain(x.expand(-1, 3, -1, -1), dataset.y_train)
    target = Domain(shifted(x, shift, rng), dataset.y_train)
    net = adapt(source, target, method, rng, steps, seed, **settings)
    test = shifted(x_test, shift, generator(seed, "transfer", shift, "test"))
    return accuracy(net, Domain(test, dataset.y_test))
