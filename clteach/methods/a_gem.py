r"""A-GEM: learn the new task, but never in a direction that harms the memory.

Averaged gradient episodic memory, Chaudhry et al. 2019. The memory of experience replay is not trained on; it has a veto.
With g the gradient of the current batch and $g_{\text{ref}}$ that of a batch from the memory, a step that would raise the
memory's loss (negative inner product) loses its component along $g_{\text{ref}}$:

$$\tilde g = g - \frac{\min(g^\top g_{\text{ref}},\, 0)}{g_{\text{ref}}^\top g_{\text{ref}}}\; g_{\text{ref}}.$$
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from clteach.data.tasks import Batch
from clteach.learners.learner import Classifier, Losses, Noise, total
from clteach.methods.er import ER


class AGEM(ER):
    """Averaged gradient episodic memory (Chaudhry et al. 2019), on the memory of experience replay."""

    name = "a-gem"
    summary = "project gradients that would harm a small memory (Chaudhry 2019)"
    takes_reservoir = False

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return Classifier.loss(self, batch, noise)

    def step(self, batch: Batch, noise: Noise) -> Losses:
        if self.t == 0:
            return super().step(batch, noise)
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        losses = self.loss(batch, noise)
        gradient = self.gradients(total(losses), parameters)
        memory = self.memory.batch(noise["memory"])
        reference = self.gradients(self.cross_entropy(self.net(memory.x), memory), parameters)
        for p, g in zip(parameters, project(gradient, reference), strict=True):
            p.grad = g
        for opt in self.opts.values():
            opt.step()
        return {name: value.detach() for name, value in losses.items()}

    def gradients(self, loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
        """One gradient per parameter; 0 for a layer of one's own network that is not used."""
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return tuple(torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True))


def project(gradient: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> list[Tensor]:
    """The gradient without its component against the reference gradient, if it has one.

    Args:
        gradient: g, one tensor per parameter.
        reference: g_ref, of the same shapes.

    Returns:
        g̃; equal to g where the inner product of the two is not negative, and where the reference is zero.
    """
    dot = torch.stack([(g * r).sum() for g, r in zip(gradient, reference, strict=True)]).sum()
    norm = torch.stack([r.square().sum() for r in reference]).sum()
    # min(gᵀg_ref, 0) / g_refᵀg_ref, on the device: asking which case it is would make every step wait
    scale = dot.clamp_max(0) / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return [g - scale * r for g, r in zip(gradient, reference, strict=True)]
