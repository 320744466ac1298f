"""Rows of the table of conventions whose peer is a repository and no package: its own function, on the numbers of ours.

The checkouts are searched in the folder that CLTEACH_PEERS names (CONTRIBUTING.md says how to make it).
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conventions import EXACT, INITIAL, MADE, REAL, RNG, R, T, network, ours, samples, si_learner, si_trained
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from clteach.learners.fisher import fisher_diagonal
from clteach.learners.replay import imitation_loss
from clteach.methods.si import SI
from clteach.metrics.accuracy import backward_transfer, forgetting, forward_transfer
from clteach.metrics.generation import frechet_distance, precision_recall_curve


def checkout(name: str) -> Path:
    folder = Path(os.environ.get("CLTEACH_PEERS", ""), name)
    if not os.environ.get("CLTEACH_PEERS") or not folder.is_dir():
        pytest.skip(f"needs a checkout of {name} in the folder CLTEACH_PEERS (CONTRIBUTING.md)")
    return folder


@contextmanager
def modules_kept() -> Iterator[None]:
    """Both repositories have packages called models, utils and data: each test gets those of its own."""
    path, before = [*sys.path], {*sys.modules}
    try:
        yield
    finally:
        sys.path[:] = path
        for name in {*sys.modules} - before:
            if name.partition(".")[0] in ("models", "utils", "data", "eval", "visual"):
                del sys.modules[name]


def authors(name: str, repository: str = "continual-learning") -> ModuleType:
    """A module of the code of van de Ven et al."""
    folder = checkout(repository)
    with modules_kept():
        sys.path.insert(0, str(folder))
        return import_module(name)


def mammoth(file: str) -> ModuleType:
    """A file of mammoth; its methods are called on stand-ins, so the base class may be any."""
    path = checkout("mammoth") / file
    with modules_kept():
        base, args = ModuleType("models.utils.continual_model"), ModuleType("utils.args")
        base.ContinualModel = nn.Module  # type: ignore[attr-defined]
        args.ArgumentParser = Any  # type: ignore[attr-defined]
        sys.modules |= {"models": ModuleType("models"), "models.utils": ModuleType("models.utils")}
        sys.modules |= {base.__name__: base, "utils": ModuleType("utils"), args.__name__: args}
        spec = spec_from_file_location(f"mammoth_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


class Net:
    """A network in the shape of mammoth's: parameters and gradients as one vector."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, x: Tensor) -> Tensor:
        return self.net(x)

    def get_params(self) -> Tensor:
        return parameters_to_vector(self.net.parameters())

    def get_grads(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.net.parameters() if p.grad is not None])


def theirs_of(net: nn.Module) -> Any:
    """The learner of van de Ven et al., with this network."""

    class Theirs(authors("models.cl.continual_learner").ContinualLearner):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    return Theirs()


# ------------------------------------------------------------------------------------------------- accuracy matrices


def test_forgetting_of_mammoth() -> None:
    """From the best accuracy, the last one included: what is negative for one task counts as 0."""
    theirs = mammoth("utils/metrics.py").forgetting([row[: t + 1] for t, row in enumerate(R.tolist())])
    each = torch.stack([R[i:-1, i].max() - R[-1, i] for i in range(T - 1)])
    assert bool((each < 0).any()) and forgetting(R) == pytest.approx(float(each.mean()), **EXACT)
    assert theirs == pytest.approx(float(each.clamp_min(0).mean()), **EXACT) and theirs > forgetting(R)


def test_transfer_of_mammoth() -> None:
    metrics = mammoth("utils/metrics.py")
    assert metrics.backward_transfer(R.tolist()) == pytest.approx(backward_transfer(R), **EXACT)
    random = [[value] for value in INITIAL.tolist()]
    assert metrics.forward_transfer(R.tolist(), random) == pytest.approx(forward_transfer(R, INITIAL), **EXACT)


# ---------------------------------------------------------------------------------------------------------- penalties


def test_fisher_information_of_the_authors() -> None:
    """The sum over N samples is divided by N - 1."""
    net, data = network(), samples()
    n = len(data)
    items = [(x, int(y)) for x, y, _ in zip(*data.batch(torch.arange(n)), strict=True)]
    for labels in ("all", "true"):
        theirs = theirs_of(net)
        theirs.fisher_labels = labels
        theirs.estimate_fisher(items)
        names = [name.replace(".", "__") for name, _ in theirs.named_parameters()]
        found = torch.cat([getattr(theirs, f"{name}_EWC_estimated_fisher").flatten() for name in names])
        fisher = parameters_to_vector(fisher_diagonal(net, data, torch.ones(3, dtype=torch.bool), labels=labels))
        torch.testing.assert_close(found, fisher * n / (n - 1), rtol=1e-4, atol=1e-9)
        with torch.no_grad():  # and its penalty has the same ½
            centre = parameters_to_vector(net.parameters()).clone()
            for p in net.parameters():
                p += 0.1
        assert float(theirs.ewc_loss()) == pytest.approx(ours(net, found, centre), rel=1e-4)


def test_ewc_of_mammoth() -> None:
    """λ without the half; a squared gradient is weighted by the probability of the true label."""
    module, net, data = mammoth("models/ewc_on.py").EwcOn, network(), samples()
    batch = data.batch(torch.arange(len(data)))
    lam = 7.0
    args = SimpleNamespace(e_lambda=lam, gamma=1.0, batch_size=4)
    loader = [(batch.x[i : i + 4], batch.y[i : i + 4]) for i in range(0, len(data), 4)]
    theirs = SimpleNamespace(net=Net(net), args=args, device="cpu", fish=None, logsoft=nn.LogSoftmax(dim=1))
    theirs.opt = torch.optim.SGD(net.parameters(), 1)
    module.end_task(theirs, SimpleNamespace(train_loader=loader))
    active = torch.ones(3, dtype=torch.bool)
    probability = net(batch.x).softmax(1).gather(1, batch.y[:, None])[:, 0].detach()
    each = [
        parameters_to_vector(fisher_diagonal(net, data.subset(torch.tensor([i])), active, labels="true"))
        for i in range(len(data))
    ]
    expected = (probability[:, None] * torch.stack(each)).mean(0)
    torch.testing.assert_close(theirs.fish, expected, rtol=1e-4, atol=1e-9)
    centre = theirs.net.get_params().detach().clone()
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1
    assert float(module.penalty(theirs)) == pytest.approx(2 * ours(net, lam * theirs.fish, centre), rel=1e-4)
    slope = torch.autograd.grad(module.penalty(theirs), [*net.parameters()])
    torch.testing.assert_close(module.get_penalty_grads(theirs), torch.cat([g.flatten() for g in slope]))


@pytest.mark.parametrize("of", ["the authors", "mammoth"])
def test_si(of: str) -> None:
    """Both the same: no half, and importances may be negative."""
    learner, epsilon = si_learner(0.1, c=1.0), 0.1
    start, last = learner.penalty.flat(), learner.penalty.flat()
    small = torch.zeros_like(start)
    theirs = theirs_of(learner.net) if of == "the authors" else None
    if theirs is not None:
        theirs.register_starting_param_values()
        path, old = theirs.prepare_importance_estimates_dicts()

    def before(net: nn.Module) -> None:
        last.copy_(learner.penalty.flat())

    def after(net: nn.Module) -> None:
        if theirs is not None:
            theirs.update_importance_estimates(path, old)
        gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        small.add_(gradient * (last - learner.penalty.flat()))

    si_trained(learner, before, after)
    end = learner.penalty.flat()
    raw = learner.omega / ((end - start).square() + epsilon)
    assert bool((raw < 0).any())
    if theirs is not None:
        theirs.update_omega(path, epsilon)
        names = [name.replace(".", "__") for name, _ in theirs.named_parameters()]
        found, penalty = torch.cat([getattr(theirs, f"{name}_SI_omega").flatten() for name in names]), None
    else:
        module = mammoth("models/si.py").SI
        peer = SimpleNamespace(net=Net(learner.net), checkpoint=start, big_omega=None, small_omega=small, device="cpu")
        peer.args = SimpleNamespace(c=1.0, xi=epsilon)
        module.end_task(peer, None)
        found, penalty = peer.big_omega, module.penalty
    torch.testing.assert_close(found, raw, rtol=1e-3, atol=1e-7)
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.1
    value = theirs.surrogate_loss() if theirs is not None else penalty(peer)
    assert float(value) == pytest.approx(ours(learner.net, 2 * found, end), rel=1e-4)


def test_damping_of_si() -> None:
    """The defaults: the authors' is ours; mammoth has none."""
    assert theirs_of(network()).epsilon == SI.Config().epsilon
    options = ArgumentParser(exit_on_error=False)
    mammoth("models/si.py").SI.get_parser(options)
    with pytest.raises((ArgumentError, SystemExit)):
        options.parse_args(["--c", "1"])
    assert options.parse_args(["--c", "1", "--xi", "0.5"]).xi == 0.5


def test_distillation() -> None:
    """The authors: in 2020 the same, later without T² unless `norm`. mammoth: without T², over the units of the past."""
    logits, old = torch.from_numpy(RNG.normal(size=(2, 6, 5))).float()
    past, temperature = torch.tensor([[True, True, True, False, False]]), 3.0
    everything = torch.ones(1, 5, dtype=torch.bool)
    mine = float(imitation_loss(logits, old[:, :5], past, everything, "soft", temperature))
    kd = authors("models.utils.loss_functions", "brain-inspired-replay").loss_fn_kd
    assert float(kd(logits, old[:, :3], T=temperature)) == pytest.approx(mine, **EXACT)
    kd = authors("models.utils.loss_functions").loss_fn_kd
    assert float(kd(logits, old[:, :3], T=temperature, norm=True)) == pytest.approx(mine, **EXACT)
    assert float(kd(logits, old[:, :3], T=temperature)) == pytest.approx(mine / temperature**2, **EXACT)
    lwf = mammoth("models/lwf.py")
    theirs = lwf.modified_kl_div(*(lwf.smooth(z[:, :3].softmax(1), temperature, 1) for z in (old, logits)))
    mine = float(imitation_loss(logits, old, past, past, "soft", temperature))
    assert float(theirs) == pytest.approx(mine / temperature**2, **EXACT)


# ------------------------------------------------------------------------------------------------- generated images


def test_fid_of_the_authors() -> None:
    theirs = authors("eval.fid", "brain-inspired-replay").calculate_fid_from_embedding(MADE.numpy(), REAL.numpy())
    assert float(theirs) == pytest.approx(frechet_distance(REAL, MADE), rel=1e-6)


def test_precision_and_recall_of_the_authors() -> None:
    """The same curve, where k-means finds the same clusters."""
    module = authors("eval.precision_recall", "brain-inspired-replay")
    modes = torch.from_numpy(RNG.normal(size=(400, 2)) * 0.05 + 5 * (np.arange(400) % 4)[:, None])
    made = modes[torch.arange(400) % 5 % 4 < 3]
    theirs = module.compute_prd_from_embedding(made.numpy(), modes.numpy(), num_clusters=4, enforce_balance=False)
    mine = precision_recall_curve(modes, made, clusters=4)
    for a, b in zip(theirs, mine, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    assert 0.3 < float(mine[0].median()) < 1
