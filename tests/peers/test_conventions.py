"""The table of conventions of the book (equations.md): every row, by the peer's own function on the numbers of ours."""

from __future__ import annotations

import warnings
from inspect import signature
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conventions import EXACT, INITIAL, MADE, REAL, RNG, R, T, network, ours, samples, si_learner, si_trained
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector

from clteach.learners.fisher import fisher_diagonal
from clteach.learners.replay import imitation_loss
from clteach.methods.si import SI
from clteach.metrics.accuracy import average_incremental_accuracy, backward_transfer, forgetting, forward_transfer
from clteach.metrics.generation import frechet_distance, inception_score, precision_recall
from clteach.models.hypernet import Hypernet, Target
from clteach.models.nets import mlp


def avalanche(module: str) -> Any:
    return pytest.importorskip(f"avalanche.{module}", reason="needs avalanche (make peers)")


def hypnettorch(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(f"hypnettorch.{module}", reason="needs hypnettorch (make peers)")


# ------------------------------------------------------------------------------------------------- accuracy matrices


def recorded(metric: Any) -> Any:
    """A metric of avalanche that was told the accuracies of the matrix R in the order in which they are measured."""
    for t, row in enumerate(R.tolist()):
        metric.update(t, row[t], initial=True)
    for i, last in enumerate(R[-1, :-1].tolist()):
        metric.update(i, last)
    return metric


def test_forgetting() -> None:
    """avalanche: from the accuracy right after learning, which is -BWT; ours: from the best one."""
    found = recorded(avalanche("evaluation.metrics.forgetting_bwt").Forgetting()).result()
    theirs = sum(found.values()) / len(found)
    assert len(found) == T - 1 and theirs == pytest.approx(-backward_transfer(R), **EXACT)
    assert forgetting(R) == pytest.approx(np.mean([float(R[i:-1, i].max() - R[-1, i]) for i in range(T - 1)]), **EXACT)
    assert forgetting(R) > theirs
    falling = R.sort(0, descending=True).values  # where accuracies only fall, the two are one
    assert forgetting(falling) == pytest.approx(-backward_transfer(falling), **EXACT)


def test_backward_transfer() -> None:
    """avalanche: the same."""
    metric = recorded(avalanche("evaluation.metrics.forgetting_bwt").BWT())
    found = [
        -value if type(metric).result is type(metric).__mro__[1].result else value for value in metric.result().values()
    ]
    assert np.mean(found) == pytest.approx(backward_transfer(R), **EXACT)


def test_forward_transfer() -> None:
    """avalanche: the same, task by task."""
    metric = avalanche("evaluation.metrics.forward_transfer").ForwardTransfer()
    for i in range(1, T):
        metric.update(i, float(INITIAL[i]), initial=True)
        metric.update(i, float(R[i - 1, i]))
    assert np.mean([*metric.result().values()]) == pytest.approx(forward_transfer(R, INITIAL), **EXACT)


def test_incremental_accuracy() -> None:
    """continuum: the mean over all entries learned so far, so that late rows count more; ours: over rows, then over time."""
    metrics = pytest.importorskip("continuum.metrics.metrics", reason="needs continuum (make peers)")
    share = (R * 10).round() / 10  # as shares of ten samples
    targets = [np.ones(10 * T)] * T
    tasks = [np.repeat(np.arange(T), 10)] * T
    predictions = [np.concatenate([np.arange(10) < round(10 * v) for v in row]).astype(float) for row in share.tolist()]
    learned = torch.ones(T, T).tril().bool()
    assert metrics.accuracy_A(predictions, targets, tasks) == pytest.approx(float(share[learned].mean()), **EXACT)
    assert average_incremental_accuracy(share) == pytest.approx(
        float(torch.stack([share[t, : t + 1].mean() for t in range(T)]).mean()), **EXACT
    )


# ---------------------------------------------------------------------------------------------------------- penalties


@pytest.mark.parametrize("batch", [1, 4])
def test_fisher_information(batch: int) -> None:
    """avalanche: squares the gradient of a batch's mean; of batches of one it is ours, with the true labels."""
    plugin = avalanche("training.plugins").EWCPlugin(1.0)
    net, data = network(), samples()
    pairs = [(x, int(y), 0) for x, y, _ in zip(*data.batch(torch.arange(len(data))), strict=True)]
    theirs = plugin.compute_importances(
        net, nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), 1), pairs, "cpu", batch
    )
    found = torch.cat([value.data.flatten() for value in theirs.values()])
    fisher = parameters_to_vector(fisher_diagonal(net, data, torch.ones(3, dtype=torch.bool), labels="true"))
    if batch == 1:
        torch.testing.assert_close(found, fisher, rtol=1e-4, atol=1e-9)
    else:
        assert float(found.sum()) < 0.5 * float(fisher.sum())


def test_fisher_information_of_hypnettorch() -> None:
    """hypnettorch, empirical: the same as ours with the true labels."""
    regulariser = hypnettorch("utils.ewc_regularizer")
    net, data = network(), samples()
    batch, position = data.batch(torch.arange(len(data))), iter(range(len(data)))

    def next_train_batch(n: int, return_ids: bool) -> tuple[Any, Any]:
        i = next(position)
        return batch.x[i : i + 1], F.one_hot(batch.y[i : i + 1], 3).float()

    handler = SimpleNamespace(
        num_train_samples=len(data),
        reset_batch_generator=lambda **settings: None,
        next_train_batch=next_train_batch,
        input_to_torch_tensor=lambda x, *args, **settings: x,
        output_to_torch_tensor=lambda y, *args, **settings: y,
        classification=True,
        out_shape=[3],
        num_classes=3,
        is_one_hot=True,
    )
    theirs = hypnettorch("mnets").MLP(n_in=5, n_out=3, hidden_layers=[4], verbose=False)
    parameters = list(theirs.weights)
    with torch.no_grad():
        for p, value in zip(parameters, net.parameters(), strict=True):
            p.copy_(value)
    regulariser.compute_fisher(0, handler, parameters, "cpu", theirs)
    found = torch.cat([getattr(theirs, regulariser._ewc_buffer_names(0, i, False)[1]).flatten() for i in range(4)])
    fisher = parameters_to_vector(fisher_diagonal(net, data, torch.ones(3, dtype=torch.bool), labels="true"))
    torch.testing.assert_close(found, fisher, rtol=1e-4, atol=1e-9)

    # and its penalty has the same ½
    with torch.no_grad():
        centre = parameters_to_vector(parameters).clone()
        for p in [*parameters, *net.parameters()]:
            p += 0.1
    assert float(regulariser.ewc_regularizer(1, parameters, theirs)) == pytest.approx(
        ours(net, fisher, centre), rel=1e-3
    )


def test_ewc_penalty() -> None:
    """avalanche: λ without the half, so that its λ is twice ours."""
    plugins = avalanche("training.plugins")
    lam, net = 7.0, network()
    fisher = torch.rand(sum(p.numel() for p in net.parameters()))
    centre = parameters_to_vector(net.parameters()).detach() + 0.3
    plugin = plugins.EWCPlugin(lam)
    sizes = [p.numel() for p in net.parameters()]
    for kept, values in ((plugin.importances, fisher), (plugin.saved_params, centre)):
        pieces = zip(net.named_parameters(), values.split(sizes), strict=True)
        kept[0] = {name: SimpleNamespace(expand=lambda shape, v=v: v.view(shape)) for (name, _), v in pieces}
    strategy = SimpleNamespace(
        clock=SimpleNamespace(train_exp_counter=1), device="cpu", model=net, loss=torch.zeros(())
    )
    plugin.before_backward(strategy)
    assert float(strategy.loss.detach()) == pytest.approx(2 * ours(net, lam * fisher, centre), **EXACT)


def test_si_of_hypnettorch() -> None:
    """hypnettorch: no half, as ours, so that its strength is our c; but importances below 0 are set to 0."""
    si = hypnettorch("utils.si_regularizer")
    epsilon = 0.1
    learner, theirs = si_learner(epsilon, c=1.0), nn.Module()
    start = learner.penalty.flat()
    parameters = list(learner.net.parameters())
    si_trained(
        learner,
        lambda net: si.si_pre_optim_step(theirs, parameters),
        lambda net: si.si_post_optim_step(theirs, parameters),
    )
    si.si_compute_importance(theirs, parameters, epsilon=epsilon)
    found = torch.cat([getattr(theirs, si._si_buffer_names(i)[0]).flatten() for i in range(len(parameters))])
    end = learner.penalty.flat()
    raw = learner.omega / ((end - start).square() + epsilon)
    learner.end_task(0, samples(), torch.Generator())
    assert bool((raw < 0).any())
    torch.testing.assert_close(learner.importance, raw)
    torch.testing.assert_close(found, raw.clamp_min(0), rtol=1e-3, atol=1e-8)
    with torch.no_grad():
        for p in parameters:
            p += 0.1
    expected = ours(learner.net, 2 * raw.clamp_min(0), end)  # c Σ Ω (θ - θ*)² = ½ Σ 2 c Ω (θ - θ*)²
    assert float(si.si_regularizer(theirs, parameters)) == pytest.approx(expected, rel=1e-3)


def test_si_of_avalanche() -> None:
    """avalanche: ½ λ and 0.0015 in the importance, so that our c is 0.00075 λ; importances are cut off above.

    On a CPU its "weights before the step" are the weights themselves, and every importance is 0
    (findings/avalanche_si.sh): here they are copied, as on a GPU.
    """
    plugin = avalanche("training.plugins.synaptic_intelligence").SynapticIntelligencePlugin
    lam, epsilon = 4.0, 1e-7
    learner = si_learner(epsilon, c=lam * 0.0015 / 2)
    none: set[str] = set()
    kept = {}, {}
    path: dict[str, Any] = {k: {} for k in ("old_theta", "new_theta", "grad", "trajectory", "cum_trajectory")}

    def copied(values: Any) -> None:
        for value in values.values():
            value.data = value.data.clone()

    def before(net: nn.Module) -> None:
        plugin.pre_update(net, path, none)
        copied(path["old_theta"])

    plugin.create_syn_data(learner.net, kept, path, none)
    plugin.init_batch(learner.net, kept, path, none)
    copied(kept[0])
    start = learner.penalty.flat()
    si_trained(learner, before, lambda net: plugin.post_update(net, path, none))
    plugin.update_ewc_data(learner.net, kept, path, np.inf, none, c=0.0015, eps=epsilon)
    found = torch.cat([value.data for value in kept[1].values()])
    end = learner.penalty.flat()
    raw = learner.omega / ((end - start).square() + epsilon)
    torch.testing.assert_close(found, 0.0015 * raw, rtol=1e-3, atol=1e-8)
    learner.end_task(0, samples(), torch.Generator())
    copied(kept[0])
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.1
    theirs = float(plugin.compute_ewc_loss(learner.net, kept, none, "cpu", lambd=lam))
    assert theirs == pytest.approx(float(learner.penalty.value()), rel=1e-3)
    plugin.update_ewc_data(learner.net, kept, path, 1e-4, none, c=0.0015, eps=epsilon)
    assert max(float(value.data.max()) for value in kept[1].values()) <= 1e-4


def test_damping_of_si() -> None:
    """A setting of each: what they have by default."""
    theirs = signature(avalanche("training.plugins.synaptic_intelligence").SynapticIntelligencePlugin.__init__)
    assert theirs.parameters["eps"].default == 1e-7
    theirs = signature(hypnettorch("utils.si_regularizer").si_compute_importance)
    assert theirs.parameters["epsilon"].default == 1e-3
    assert SI.Config().epsilon == 0.1


def test_distillation() -> None:
    """avalanche: no factor T², and the old model's entropy is subtracted: its alpha is T² times what weighs ours."""
    module = avalanche("training.regularization")
    logits, old = torch.from_numpy(RNG.normal(size=(2, 6, 5))).float()
    logits.requires_grad_()
    active, temperature = torch.tensor([[True, True, False, True, False]]), 3.0
    theirs = module.LearningWithoutForgetting(1, temperature)._distillation_loss(logits, old, [0, 1, 3])
    mine = imitation_loss(logits, old, active, active, "soft", temperature)
    a, b = (torch.autograd.grad(loss, logits)[0] for loss in (theirs, mine))
    torch.testing.assert_close(b, temperature**2 * a, rtol=1e-4, atol=1e-7)
    q = F.softmax(old[:, [0, 1, 3]] / temperature, 1)
    entropy = -(q * q.log()).sum(1).mean()
    assert float(mine.detach() / temperature**2 - theirs.detach()) == pytest.approx(float(entropy), rel=1e-4)


def test_the_regulariser_of_hypernetworks() -> None:
    """hypnettorch: the same, the sum over weights and the mean over past tasks."""
    regulariser, interface = (
        hypnettorch("utils.hnet_regularizer"),
        hypnettorch("hnets.hnet_interface").HyperNetInterface,
    )
    torch.manual_seed(0)
    hypernet = Hypernet(Target(mlp((5,), (4,), 3)), 3, embedding=3, chunk=20, chunk_embedding=2, hidden=(6,))
    targets = [hypernet.weights(i).detach().clone() for i in range(2)]

    class Theirs(interface):
        """Our hypernetwork in the shape of theirs."""

        def __init__(self) -> None:
            pass

        unconditional_params = property(lambda self: list(hypernet.parameters()))  # type: ignore[assignment]
        unconditional_param_shapes = property(lambda self: [list(p.shape) for p in hypernet.parameters()])

        def forward(self, cond_id: int, weights: Any = None) -> list[Tensor]:  # type: ignore[override]
            return [hypernet.weights(cond_id)]

        def distillation_targets(self) -> None:
            return None

    hypernet.remember(2)
    with torch.no_grad():
        for name, p in hypernet.named_parameters():
            if not name.startswith("embeddings"):
                p += 0.05
    theirs = regulariser.calc_fix_target_reg(Theirs(), 2, targets=[[target] for target in targets])
    expected = sum((hypernet.weights(i) - target).square().sum() for i, target in enumerate(targets)) / 2
    assert float(theirs) == pytest.approx(float(expected), rel=1e-4)
    assert float(hypernet.drift(2)) == pytest.approx(float(theirs), rel=1e-3)


# ------------------------------------------------------------------------------------------------- generated images


class AsTheyAre(nn.Module):
    """Features as they are, for measures that bring a network of their own."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_fid() -> None:
    """pytorch-fid and torchmetrics: the same on the same features."""
    score = pytest.importorskip("pytorch_fid.fid_score", reason="needs pytorch-fid (make peers)")
    moments = [(x.mean(0).numpy(), np.cov(x.numpy(), rowvar=False)) for x in (REAL, MADE)]
    theirs = score.calculate_frechet_distance(*moments[0], *moments[1])
    assert float(theirs) == pytest.approx(frechet_distance(REAL, MADE), rel=1e-6)

    image = pytest.importorskip("torchmetrics.image.fid", reason="needs torchmetrics (make peers)")
    metric = image.FrechetInceptionDistance(feature=AsTheyAre(), normalize=True, input_img_size=(1, 1, 6))
    metric.set_dtype(torch.float64)
    metric.update(REAL, real=True)
    metric.update(MADE, real=False)
    assert float(metric.compute()) == pytest.approx(frechet_distance(REAL, MADE), rel=1e-4)


def test_inception_score() -> None:
    """torchmetrics: the mean over ten parts of the samples, a little less; of one part the same."""
    image = pytest.importorskip("torchmetrics.image.inception", reason="needs torchmetrics (make peers)")
    logits = 2 * MADE.float()

    def theirs(splits: int) -> float:
        metric = image.InceptionScore(feature=AsTheyAre(), splits=splits)
        metric.update(logits)
        return float(metric.compute()[0])

    found = inception_score(logits.softmax(1))
    assert theirs(1) == pytest.approx(found, rel=1e-4)
    assert theirs(10) < found


def test_precision_and_recall() -> None:
    """prdc: whether a sample lies in the ball of a neighbour (Kynkäänniemi 2019), another measure: no factor leads there."""
    prdc = pytest.importorskip("prdc", reason="needs prdc (make peers)")
    modes = torch.from_numpy(RNG.normal(size=(400, 2)) * 0.05 + 5 * (np.arange(400) % 4)[:, None])
    half = modes[torch.arange(400) % 4 < 2]  # of four modes two, perfectly
    theirs = prdc.compute_prdc(modes.numpy(), half.numpy(), nearest_k=5)
    mine = precision_recall(modes, half, clusters=4)
    assert theirs["precision"] == 1 and theirs["recall"] == pytest.approx(0.5, abs=0.01)
    assert mine.precision > 0.97 and mine.recall == pytest.approx(65 / (64 / 0.5 + 1), abs=0.02)
    same = prdc.compute_prdc(modes.numpy(), modes.numpy(), nearest_k=5)
    assert same["recall"] == same["precision"] == 1 and precision_recall(modes, modes).recall == pytest.approx(1)
    noise = modes + torch.from_numpy(RNG.normal(size=(400, 2)))
    assert (
        abs(prdc.compute_prdc(modes.numpy(), noise.numpy(), 5)["precision"] - precision_recall(modes, noise).precision)
        > 0.2
    )
