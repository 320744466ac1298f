r"""The kernel of a network's probabilities: how a belief about the weights ties the answers on two inputs together.

Let the weights be known up to a Gaussian with a diagonal covariance,
$\theta \sim \mathcal{N}(\theta^*, \mathrm{diag}(\sigma^2))$. To first order,
$p_c(x; \theta) \approx p_c(x; \theta^*) + \nabla p_c(x)^\top (\theta - \theta^*)$, so the probabilities of class c on n
inputs are Gaussian too, with the covariance

$$K_c[i, j] = \sum_k \frac{\partial p_c(x_i)}{\partial\theta_k}\, \sigma_k^2\, \frac{\partial p_c(x_j)}{\partial\theta_k} .$$

Two ways to compute it. `kernel_linear` is exact and fast for a plain stack of linear layers and activations; `kernel_vmap`
works for any network and is the oracle for the first. Both look at the network in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from clteach.learners.fisher import stacked_layers
from clteach.models.frozen import in_eval_mode


def probability_kernel(net: nn.Module, x: Tensor, units: Tensor, variance: Sequence[Tensor]) -> Tensor:
    """The kernels of a classifier's probabilities, by the fastest way that is exact for it.

    Args:
        net: (n, *shape) -> (n, n_out) logits; it is left in the mode it is in.
        x: (n, *shape) the inputs.
        units: (U,) int64, the output units that the softmax is normalised over.
        variance: σ², one tensor per parameter of `net`, in the order of ``net.parameters()``, ≥ 0. Of parameters that do not
            learn it does not count: they are known.

    Returns:
        (U, n, n) float64, a kernel per unit; symmetric, no eigenvalue below 0 but for rounding.
    """
    with in_eval_mode(net):
        return (kernel_linear if _plain_stack(net, x) else kernel_vmap)(net, x, units, variance)


def kernel_linear(net: nn.Module, x: Tensor, units: Tensor, variance: Sequence[Tensor]) -> Tensor:
    r"""The kernels of a network whose parameters all sit in `nn.Linear` layers, without any gradient per sample.

    With a the input of a layer and δ the gradient of p_c at its output, ∂p_c/∂W = δ aᵀ. So a layer adds

    $$\sum_o \delta_{io}\, \delta_{jo} \Big(\sum_k a_{ik}\, \sigma^2_{ok}\, a_{jk} + \sigma^2_o\Big)$$

    to K_c[i, j], and the inner sum is the same for all classes. A ReLU that is off passes no gradient: a unit counts only
    for the inputs that switch it on.
    """
    seen: list[tuple[nn.Linear, Tensor, Tensor]] = []  # (layer, input, output)
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, out: seen.append((layer, inputs[0].detach(), out)))
        for layer in net.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.enable_grad():
            probabilities = net(x).index_select(1, units).softmax(1)  # (n, U)
    finally:
        for hook in hooks:
            hook.remove()
    outputs = [output for _, _, output in seen]
    per_class = [torch.autograd.grad(p.sum(), outputs, retain_graph=True) for p in probabilities.unbind(1)]
    known = {id(p): v for p, v in zip(net.parameters(), variance, strict=True)}
    kernel = torch.zeros(len(units), len(x), len(x), dtype=torch.float64, device=x.device)
    for (layer, a, _), deltas in zip(seen, zip(*per_class, strict=True), strict=True):
        delta = torch.stack(deltas).double()  # (U, n, outputs)
        a, weight = a.double(), known[id(layer.weight)].double()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else known[id(layer.bias)].double()
        for o, on in enumerate((delta != 0).any(0).unbind(1)):
            rows = on.nonzero().flatten()
            a_on, delta_on = a[rows], delta[:, rows, o]  # (m, inputs), (U, m)
            # Σ_k a_ik σ²_ok a_jk + σ²_o
            inner = (a_on * weight[o]) @ a_on.T + bias[o]
            kernel[:, rows[:, None], rows] += delta_on[:, :, None] * delta_on[:, None] * inner
    return kernel


def kernel_vmap(net: nn.Module, x: Tensor, units: Tensor, variance: Sequence[Tensor]) -> Tensor:
    """The same for any network, from a gradient per input and class (`vmap(grad)`), all of them held in memory."""
    learned = {name: p.detach() for name, p in net.named_parameters() if p.requires_grad}
    fixed = {name: p.detach() for name, p in net.named_parameters() if not p.requires_grad} | dict(net.named_buffers())
    spread = torch.cat(
        [v.flatten() for p, v in zip(net.parameters(), variance, strict=True) if p.requires_grad]
    ).double()

    def probability(theta: dict[str, Tensor], one: Tensor, unit: Tensor) -> Tensor:
        logits = functional_call(net, {**fixed, **theta}, (one[None],))[0]
        return logits.index_select(0, units).softmax(0).gather(0, unit[None])[0]

    per_sample = vmap(grad(probability), in_dims=(None, 0, None), chunk_size=32)
    kernels = []
    with in_eval_mode(net):
        for unit in torch.arange(len(units), device=x.device):
            gradients = per_sample(learned, x, unit)
            jacobian = torch.cat([gradients[name].flatten(1) for name in learned], 1).double()  # (n, P)
            # K_c = J_c diag(σ²) J_cᵀ
            kernels.append((jacobian * spread) @ jacobian.T)
    return torch.stack(kernels)


def _plain_stack(net: nn.Module, x: Tensor) -> bool:
    """Layers one after the other, and all parameters, which learn, in linear ones that see one vector per input?"""
    stack = stacked_layers(net)
    if stack is None:
        return False
    layers = [layer for layer in stack if isinstance(layer, nn.Linear)]
    parameters, of_layers = [*net.parameters()], [p for layer in layers for p in layer.parameters()]
    if len(parameters) != len(of_layers) or not layers or not all(p.requires_grad for p in of_layers):
        return False  # two layers share theirs, say
    with torch.no_grad():
        h = x[:1]
        for layer in stack:
            if isinstance(layer, nn.Linear) and h.ndim != 2:
                return False
            h = layer(h)
    return True
