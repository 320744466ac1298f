r"""The diagonal of the Fisher information, which EWC weighs its penalty with.

$$F_i = \frac1N \sum_n \sum_c p_\theta(c\,|\,x_n)\Big(\frac{\partial \log p_\theta(c\,|\,x_n)}{\partial\theta_i}\Big)^2$$

The square stands *inside* the sum over samples: squaring the gradient of a batch's mean loss instead is the most common
mistake in published implementations, and gives something much smaller.

Two ways to compute it. `fisher_linear` is exact and fast where all parameters sit in linear layers, each used once;
`fisher_vmap` works for any network and is the oracle for the first. Both look at the network in evaluation mode: with batch
norm's running statistics and without dropout, a sample's probabilities depend on that sample alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from clteach.data.tasks import Data
from clteach.errors import ConfigError
from clteach.models.frozen import in_eval_mode
from clteach.models.nets import ACTIVATIONS

LABELS = ("all", "predicted", "true")
LAYERS = (nn.Linear, nn.Flatten, nn.Identity, nn.Dropout, *ACTIVATIONS)
"""The layers that a plain stack is made of: beside the linear ones none has parameters, and each keeps to its sample."""


def fisher_diagonal(
    net: nn.Module, data: Data, active: Tensor, labels: str = "all", n_samples: int | None = None
) -> list[Tensor]:
    """The diagonal Fisher information of a classifier, by the fastest way that is exact for it.

    Args:
        net: (B, *shape) -> (B, n_out) logits; it is left in the mode it is in.
        data: samples of one task.
        active: (n_out,) bool, the units the softmax is normalised over.
        labels: expectation over "all" labels under the model's own prediction (the definition), or only the
            "predicted" (most probable) or the "true" label of each sample (the "empirical Fisher").
        n_samples: use only the first n samples (they are in random order); None: all.

    Returns:
        One tensor per parameter of `net`, in the order of ``net.parameters()``, ≥ 0; 0 for those that do not learn.

    Raises:
        ConfigError: unknown `labels` or no samples asked for.
    """
    if labels not in LABELS:
        raise ConfigError(f"unknown Fisher labels {labels!r}. Expected one of {', '.join(LABELS)}.")
    if n_samples is not None:
        if n_samples < 1:
            raise ConfigError(f"{n_samples} samples for the Fisher information: expected at least 1.")
        data = data.subset(torch.arange(min(n_samples, len(data)), device=data.device))
    with in_eval_mode(net):
        return (fisher_linear if _linear_once(net, data) else fisher_vmap)(net, data, active, labels)


def fisher_linear(net: nn.Module, data: Data, active: Tensor, labels: str = "all") -> list[Tensor]:
    r"""The exact diagonal for a network whose parameters all sit in `nn.Linear` layers, each used once per pass.

    With a the input of a layer and δ the gradient of one sample's log-probability at the layer's output,
    ∂ log p / ∂W = δ aᵀ, so Σ_n (∂ log p_n / ∂W)² = (δ²)ᵀ(a²): one matrix product instead of a gradient per sample.
    """
    sums: dict[int, Tensor] = {id(p): torch.zeros_like(p) for p in net.parameters()}
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []  # (layer, input, output) in the order of the calls

    def remember(layer: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.requires_grad:  # not so where nothing below or in this layer learns
            seen.append((layer, inputs[0].detach(), output))

    hooks = [layer.register_forward_hook(remember) for layer in net.modules() if isinstance(layer, nn.Linear)]
    try:
        for batch in data.batches(512):
            seen.clear()
            with torch.enable_grad():
                logits = net(batch.x).masked_fill(~active, -torch.inf)
                log_p = F.log_softmax(logits, 1)  # (B, n_out)
            if not seen:
                break
            outputs = [output for _, _, output in seen]
            squared = [torch.zeros_like(output) for output in outputs]
            for label, weight in _weighted_labels(log_p.detach(), batch.y, labels):
                picked = log_p.gather(1, label[:, None]).sum()
                deltas = torch.autograd.grad(picked, outputs, retain_graph=True, allow_unused=True)
                for total, delta in zip(squared, deltas, strict=True):
                    if delta is not None:
                        total += weight[:, None] * delta.square()  # Σ_c p(c|x) δ_c²
            for (layer, a, _), total in zip(seen, squared, strict=True):
                if layer.weight.requires_grad:
                    sums[id(layer.weight)] += total.T @ a.square()
                if layer.bias is not None and layer.bias.requires_grad:
                    sums[id(layer.bias)] += total.sum(0)
    finally:
        for hook in hooks:
            hook.remove()
    return [sums[id(p)].detach() / len(data) for p in net.parameters()]


def fisher_vmap(net: nn.Module, data: Data, active: Tensor, labels: str = "all") -> list[Tensor]:
    """The same for any network, from one gradient per sample and label (`vmap(grad)`); slower, and the oracle.

    Raises:
        ConfigError: a network that cannot be evaluated for each sample by itself.
    """
    learned = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in net.named_parameters() if not p.requires_grad} | dict(net.named_buffers())

    def log_prob(theta: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(net, {**fixed, **theta}, (x[None],))[0]
        return F.log_softmax(logits.masked_fill(~active, -torch.inf), 0).gather(0, label[None])[0]

    per_sample: Callable[..., dict[str, Tensor]] = vmap(grad(log_prob), in_dims=(None, 0, 0))
    sums = {name: torch.zeros_like(p) for name, p in learned.items()}
    with torch.no_grad(), in_eval_mode(net):
        for batch in data.batches(32):
            log_p = F.log_softmax(net(batch.x).masked_fill(~active, -torch.inf), 1)
            for label, weight in _weighted_labels(log_p, batch.y, labels):
                try:
                    gradients = per_sample(learned, batch.x, label)
                except RuntimeError as error:
                    raise ConfigError(
                        f"the Fisher information of this network cannot be computed sample by sample ({error}). Expected a "
                        "network whose forward pass writes nothing and does not branch on the values of its inputs."
                    ) from error
                for name, g in gradients.items():
                    sums[name] += torch.tensordot(weight, g.square(), 1)
    return [
        sums[name] / len(data) if name in sums else torch.zeros_like(p.detach()) for name, p in net.named_parameters()
    ]


def _weighted_labels(log_p: Tensor, y: Tensor, labels: str) -> list[tuple[Tensor, Tensor]]:
    """[(label (B,), weight (B,))]: the labels to differentiate at; the weights of a sample sum to 1."""
    if labels == "all":
        columns = (log_p > -torch.inf).any(0).nonzero().flatten()
        return [(torch.full_like(y, int(c)), log_p[:, c].exp()) for c in columns]
    return [(y if labels == "true" else log_p.argmax(1), torch.ones_like(log_p[:, 0]))]


def stacked_layers(net: nn.Module) -> list[nn.Module] | None:
    """The layers of a plain stack in the order in which they are called, or None for any other network.

    A layer of a kind that is not known here may use the weights of another one, or take a sample apart: a network with one
    is no plain stack. Nor is one with a layer that writes over its input, which hides the output of the layer before.
    """
    if type(net) is nn.Sequential:
        parts = [stacked_layers(part) for part in net]
        return [layer for part in parts for layer in part or ()] if None not in parts else None
    return [net] if type(net) in LAYERS and not getattr(net, "inplace", False) else None


def _linear_once(net: nn.Module, data: Data) -> bool:
    """Do all parameters sit in linear layers, each of which sees one vector per sample, once per pass?

    What modules say of themselves does not tell whether a weight is also used elsewhere (tied to another layer, say): a
    network that is no plain stack of layers is asked for two samples both ways.
    """
    linear = [module for module in net.modules() if isinstance(module, nn.Linear)]
    own = {id(p) for layer in linear for p in (layer.weight, layer.bias)}
    if not all(id(p) in own for p in net.parameters()):
        return False
    calls: list[int] = []
    shapes: set[tuple[int, int]] = set()

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.extend(id(p) for p in layer.parameters())
        shapes.add((output.ndim, len(output)))

    hooks = [layer.register_forward_hook(count) for layer in linear]
    few = data.subset(torch.arange(min(2, len(data)), device=data.device))
    try:
        with torch.no_grad():
            out = net(few.batch(torch.arange(len(few), device=data.device)).x)
    finally:
        for hook in hooks:
            hook.remove()
    if len(calls) != len(set(calls)) or shapes != {(2, len(few))}:
        return False
    if stacked_layers(net) is not None:
        return True
    every = torch.ones(out.shape[1], dtype=torch.bool, device=out.device)
    both = zip(fisher_linear(net, few, every), fisher_vmap(net, few, every), strict=True)
    # A network that is sure of two samples has little information of them: what is equal depends on the largest value.
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-6 * float(b.max())) for a, b in both)
