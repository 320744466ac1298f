"""A network of one's own in every method that takes one: whatever its build, what is computed on it is right."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import clteach
from clteach.data.streams import split
from clteach.errors import CheckpointError, ConfigError
from clteach.learners.fisher import fisher_diagonal, fisher_linear, fisher_vmap
from clteach.learners.learner import Classifier, NetMaker
from clteach.methods import METHODS, build, configure
from clteach.methods.xdg import XdG
from clteach.models.hypernet import Target
from clteach.models.nets import gated, hidden_units, mlp
from clteach.training.learner_checks import TINY, same_state, toy_data
from clteach.training.loop import train
from clteach.training.run import Run, load_learner


def convolutions(shape: tuple[int, ...], n_out: int) -> nn.Module:
    """Batch norm and dropout, which behave otherwise in training."""
    return nn.Sequential(
        nn.Conv2d(shape[0], 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * shape[1] * shape[2], n_out),
    )


class Backwards(nn.Module):
    """Layers that are defined in another order than they are called."""

    def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
        super().__init__()
        n = shape[0] * shape[1] * shape[2]
        self.last, self.act, self.first = nn.Linear(12, n_out), nn.ReLU(), nn.Linear(n, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x.flatten(1))))


class Shared(nn.Module):
    """One layer that is used twice."""

    def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
        super().__init__()
        n = shape[0] * shape[1] * shape[2]
        self.first, self.twice, self.last, self.act = nn.Linear(n, 8), nn.Linear(8, 8), nn.Linear(8, n_out), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.first(x.flatten(1)))
        return self.last(torch.tanh(self.twice(torch.tanh(self.twice(h)))))


class Tied(nn.Module):
    """A weight that is also used without its layer: no hook sees that."""

    def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
        super().__init__()
        n = shape[0] * shape[1] * shape[2]
        self.first, self.last, self.act = nn.Linear(n, 6), nn.Linear(n, n_out), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.linear(self.act(self.first(x.flatten(1))), self.first.weight.T))


def frozen(shape: tuple[int, ...], n_out: int) -> nn.Module:
    """A first layer that does not learn."""
    net = mlp(shape, (10,), n_out)
    next(layer for layer in net if isinstance(layer, nn.Linear)).requires_grad_(False)
    return net


class Unused(Backwards):
    """A layer that is there and never called."""

    def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
        super().__init__(shape, n_out)
        self.spare = nn.Linear(3, 3)


def tanh(shape: tuple[int, ...], n_out: int) -> nn.Module:
    return mlp(shape, (10,), n_out, nn.Tanh)


NETS = {net.__name__.lower(): net for net in (convolutions, Backwards, Shared, Tied, frozen, Unused, tanh)}
TAKES = [name for name, cls in METHODS.items() if cls.takes_net]
STREAM = split(toy_data(), "task", tasks=2)
NORMED = ("hypernetwork", "hypernetwork-ent", "hypernetwork-tir")  # whose target cannot have batch norm


def settings(name: str, **more: Any) -> Any:
    cls = METHODS[name]
    fields = cls.Config.__dataclass_fields__
    return configure(cls, {k: v for k, v in {**TINY, **more}.items() if k in fields})


def test_who_takes_a_network() -> None:
    named = (
        "finetune joint ewc online-ewc si lwf fromp xdg si-xdg separate-networks er a-gem icarl generative-replay "
        "brain-inspired-replay"
    )
    assert set(named.split()) <= set(TAKES) and "hypernetwork" in TAKES
    for name in set(METHODS) - set(TAKES):
        with pytest.raises(ConfigError, match=rf"{name} makes its networks itself.*ewc"):
            build(name, split(toy_data(), "class", tasks=2).spec, net=convolutions)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("labels", ["all", "predicted", "true"])
def test_fisher_information_belongs_to_its_weights(net: str, labels: str) -> None:
    """By layer and not by position, in evaluation mode, equal to one gradient per sample."""
    torch.manual_seed(0)
    module = NETS[net]((1, 8, 8), 4)
    data, active = STREAM[0].train, torch.tensor([True, True, False, True])
    state = {name: value.clone() for name, value in module.state_dict().items()}
    rng = torch.get_rng_state()
    found = fisher_diagonal(module.train(), data, active, labels)
    assert torch.equal(rng, torch.get_rng_state()) and all(part.training for part in module.modules())
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    module.eval()
    parameters = dict(module.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x, y in zip(data.batch(torch.arange(len(data))).x, data.y, strict=True):
        log_p = F.log_softmax(module(x[None]).masked_fill(~active, -torch.inf), 1)[0]
        cases = {"all": active.nonzero().flatten().tolist(), "predicted": [int(log_p.argmax())], "true": [int(y)]}
        for label in cases[labels]:
            weight = float(log_p[label].detach().exp()) if labels == "all" else 1.0
            learned = [p for p in parameters.values() if p.requires_grad]
            gradients = iter(torch.autograd.grad(log_p[label], learned, retain_graph=True, allow_unused=True))
            for name, p in parameters.items():
                g = next(gradients) if p.requires_grad else None
                if g is not None:
                    expected[name] += weight * g.square() / len(data)
    for (name, wanted), got in zip(expected.items(), found, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-7, msg=f"{net}: {name}")


def test_the_fast_way_is_taken_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    from clteach.learners import fisher

    taken: list[str] = []
    monkeypatch.setattr(fisher, "fisher_linear", lambda *a: taken.append("linear") or fisher_linear(*a))
    monkeypatch.setattr(fisher, "fisher_vmap", lambda *a: taken.append("vmap") or fisher_vmap(*a))
    for net, way in (("tanh", "linear"), ("backwards", "linear"), ("shared", "vmap"), ("tied", "vmap")):
        taken.clear()
        fisher.fisher_diagonal(NETS[net]((1, 8, 8), 4), STREAM[0].train, torch.ones(4, dtype=torch.bool))
        assert taken[-1] == way, net


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", TAKES)
def test_every_method_learns_with_it(name: str, net: str) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), "task" if "task" in cls.scenarios else "class", tasks=2)
    more = {"feedback": False} if net not in ("convolutions", "frozen", "tanh") else {}
    if name in NORMED and net == "convolutions":
        with pytest.raises(ConfigError, match=r"cannot have buffers.*1\.running_mean"):
            cls.make(stream.spec, settings(name), 0, NETS[net])
        return
    learner = cls.make(stream.spec, settings(name, **more), 0, NETS[net])
    before = {k: v.clone() for k, v in learner.named_parameters()}
    run = train(learner, stream, steps=12, batch_size=8)
    assert run.accuracy.isfinite().all()
    moved = {k for k, v in learner.named_parameters() if not torch.equal(v, before[k])}
    still = {k for k, v in learner.named_parameters() if k.startswith("net.") and not v.requires_grad}
    assert moved and not moved & still


@pytest.mark.parametrize("name", ["ewc", "si", "a-gem", "brain-inspired-replay"])
def test_saved_and_loaded_with_its_maker(name: str, tmp_path: Path) -> None:
    run = train(name, STREAM, steps=4, batch_size=8, net=convolutions, **({"z": 3} if "replay" in name else {}))
    folder = run.save(tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"network of your own, made by .*convolutions: pass it as net="):
        Run.load(folder)
    again = Run.load(folder, net=convolutions)
    assert same_state(run.learner, again.learner)
    assert again.learner.evaluate(0, STREAM[0].test) == run.learner.evaluate(0, STREAM[0].test)
    with pytest.raises(CheckpointError):
        load_learner(folder / "learner.safetensors", net=tanh)


def leaky(slope: float) -> NetMaker:
    return lambda shape, n_out: mlp(shape, (10,), n_out, partial(nn.LeakyReLU, slope))


@pytest.mark.parametrize("name", TAKES)
def test_another_network_with_the_same_weights_is_noticed(name: str, tmp_path: Path) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), "task" if "task" in cls.scenarios else "class", tasks=2)
    learner = cls.make(stream.spec, settings(name), 0, leaky(0.01))
    run = train(learner, stream, steps=12, batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Run.load(run.save(tmp_path), net=leaky(0.01))
    with pytest.warns(UserWarning, match=r"gives other answers with the saved weights .*made by .*leaky") as said:
        Run.load(tmp_path, net=leaky(5.0))
    assert len(said) == 1


def test_a_network_that_cannot_be_probed_is_saved_all_the_same(tmp_path: Path) -> None:
    """And so is a file without a probe read back, as older ones are."""
    learner = build("ewc", STREAM.spec, net=leaky(0.01))
    learner.predict = lambda x, task: x.no_such_thing  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_learner(learner.save(tmp_path / "learner"), net=leaky(5.0))


def test_the_old_network_keeps_its_statistics() -> None:
    """LwF's copy of the past is in evaluation mode: its batch norm neither learns nor looks at the batch."""
    learner = build("lwf", STREAM.spec, net=convolutions)
    train(learner, STREAM, steps=4, batch_size=8)
    old = learner.old_net
    assert isinstance(old, nn.Sequential) and not any(part.training for part in learner.train().old_net.modules())
    assert not torch.equal(old[1].running_mean, learner.net[1].running_mean)  # type: ignore[index,union-attr]


def test_gates_gate_whatever_the_activation() -> None:
    class Mine(XdG):
        def make_net(self) -> nn.Module:
            return mlp(self.spec.shape, self.cfg.hidden, self.spec.n_out, nn.Tanh)

    learner, x = Mine(STREAM.spec), torch.rand(4, 1, 8, 8)
    assert not torch.equal(learner.predict(x, torch.zeros(4).long()), learner.predict(x, torch.ones(4).long()))
    conv = build("xdg", STREAM.spec, net=convolutions).eval()
    assert conv.gates_0.shape == (2, 4)  # type: ignore[union-attr]  # channels
    by_hand = conv.net[:3](x) * conv.gates_0[0][None, :, None, None]  # type: ignore[index,union-attr]
    torch.testing.assert_close(conv.predict(x, torch.zeros(4).long()), conv.net[3:](by_hand))  # type: ignore[index,union-attr]


def test_gates_that_find_nothing_are_an_error() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x.flatten(1))))

    with pytest.raises(ConfigError, match="nothing to gate"):
        build("xdg", STREAM.spec, net=lambda shape, n_out: Functional())
    x, gates = torch.rand(2, 1, 8, 8), [torch.ones(2, 5), torch.ones(2, 5)]
    with pytest.raises(ConfigError, match="2 of 2 gates found no activation"):
        gated(Functional(), x, gates)
    net = mlp((1, 8, 8), (5,), 4)
    with pytest.raises(ConfigError, match="1 of 2 gates"):
        gated(net, x, gates)
    with pytest.raises(ConfigError, match="more than 0 activations"):
        gated(net, x, [])
    assert hidden_units(net, (1, 8, 8)) == [5]


def test_feedback_needs_a_last_layer_to_grow_on() -> None:
    spec = split(toy_data(), "class", tasks=2).spec
    with pytest.raises(ConfigError, match=r"nn\.Sequential and ends with an nn\.Linear.*feedback=False"):
        build("brain-inspired-replay", spec, net=Backwards, z=3)
    assert build("brain-inspired-replay", spec, net=Backwards, z=3, feedback=False).net.last.out_features == 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (lambda shape, n_out: nn.Linear(64, n_out + 1), r"failed on one input|gives \(1,"),
        (lambda shape, n_out: nn.Sequential(nn.Flatten(), nn.Linear(64, n_out + 1)), r"gives \(1, [35]\)"),
        (lambda shape, n_out: "a network", r"made a str"),
        (tanh((1, 8, 8), 4), r"net= got a network, a Sequential\. Expected a function that makes one"),
        ("a network", r"net= got a str\. Expected a function"),
        (lambda: tanh((1, 8, 8), 4), r"cannot be called as net\(shape, K\) \(too many positional arguments\)"),
        (lambda shape, n_out: tanh(shape, n_out).requires_grad_(False), "no weight that learns"),
        (lambda shape, n_out: nn.Flatten(), r"gives \(1, 64\)"),
    ],
)
@pytest.mark.parametrize("name", ["ewc", "separate-networks"])
def test_a_network_that_does_not_fit_says_so(name: str, net: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(name, STREAM.spec, net=net)


def test_a_built_learner_has_its_network() -> None:
    with pytest.raises(ConfigError, match="net: settings go with a method's name"):
        train(build("ewc", STREAM.spec), STREAM, steps=1, net=tanh)
    assert isinstance(clteach.build("ewc", STREAM.spec, net=tanh), Classifier)


def test_a_target_refuses_buffers_by_name() -> None:
    with pytest.raises(ConfigError, match=r"cannot have buffers.*1\.running_mean"):
        Target(convolutions((1, 8, 8), 4))
