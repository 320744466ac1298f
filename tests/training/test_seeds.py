"""Many seeds at once: each seed's run is the one it would have had by itself."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clteach.data.catalogue import load
from clteach.data.streams import permuted, split
from clteach.data.tasks import Batch, Data, Stream
from clteach.errors import CheckpointError, ConfigError, DivergedError
from clteach.learners.learner import Classifier, Learner, Losses, Noise, Phase
from clteach.methods import METHODS, build, register
from clteach.methods.finetune import FineTune
from clteach.training.learner_checks import TINY, same_state, toy_data
from clteach.training.loop import train
from clteach.training.run import Run
from clteach.training.seeds import Stack, pays_off, train_seeds

TOGETHER = (
    *"finetune joint separate-networks ewc online-ewc si lwf xdg si-xdg er icarl generative-replay".split(),
    *"brain-inspired-replay diffusion-finetune diffusion-joint diffusion-replay diffusion-distill".split(),
)
SEEDS = [0, 3, 5]
CASES = [(name, scenario) for name in [*TOGETHER, "brain-inspired-replay-si"] for scenario in METHODS[name].scenarios]


def settings(name: str) -> dict[str, Any]:
    return {key: value for key, value in TINY.items() if key in METHODS[name].Config.__dataclass_fields__}


def toy(scenario: str, seed: int) -> Stream:
    return split(toy_data(), scenario, tasks=2, class_order="random", seed=seed)


def assert_same(together: Run, alone: Run, weights: float = 1e-5) -> None:
    """Losses within 1e-5, weights within `weights`."""
    left, right = together.learner.state_dict(), alone.learner.state_dict()
    assert left.keys() == right.keys()
    for key in left:
        torch.testing.assert_close(left[key], right[key], rtol=weights, atol=weights, msg=key)
    for a, b in zip(together.losses, alone.losses, strict=True):
        assert a.pop("phase") == b.pop("phase") and a == pytest.approx(b, rel=1e-5, abs=1e-5)
    assert {**together.config, "seeds": None} == {**alone.config, "seeds": None}


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_each_seed_is_as_if_alone(name: str, scenario: str) -> None:
    """20 steps: losses and weights within 1e-5, with another order of classes for each seed."""
    options: dict[str, Any] = {"steps": 10, "batch_size": 8, "log_every": 3, "device": "cpu", **settings(name)}
    runs = train_seeds(name, lambda seed: toy(scenario, seed), SEEDS, **options)
    for seed, run in zip(SEEDS, runs, strict=True):
        alone = train(name, toy(scenario, seed), seed=seed, **options)
        assert_same(run, alone)
        torch.testing.assert_close(run.accuracy, alone.accuracy)
        torch.testing.assert_close(run.initial, alone.initial)
        assert not run.learner.training and len(run.seconds) == 2


@pytest.mark.parametrize("name", ["finetune", "ewc", "generative-replay"])
def test_on_permuted_pixels(name: str) -> None:
    """There the seeds share no rows that could be gathered in one go."""
    # Adam divides g by √v. Where samples are replayed, the gradients of padding are little more than rounding, which is the
    # processor's business, and so are its steps: without padding the weights agree to 1e-7 on all of them.
    pad = 0 if name == "generative-replay" else 2
    options: dict[str, Any] = {"steps": 10, "batch_size": 8, "device": "cpu", **settings(name)}

    def stream(seed: int) -> Stream:
        return permuted(toy_data(), "domain", tasks=2, seed=seed, pad=pad)

    runs = train_seeds(name, stream, SEEDS, **options)
    for seed, run in zip(SEEDS, runs, strict=True):
        assert_same(run, train(name, stream(seed), seed=seed, **options))


@pytest.mark.parametrize("name", ["ewc", "si", "er", "generative-replay"])
def test_a_whole_run_on_digits(name: str) -> None:
    """Accuracies within half a point, in the mean over the seeds."""
    options: dict[str, Any] = {"steps": 60, "batch_size": 64, "hidden": (50,), "device": "cpu"}
    runs = train_seeds(name, lambda seed: split(load("digits"), "class"), SEEDS, **options)
    alone = [train(name, split(load("digits"), "class"), seed=seed, **options) for seed in SEEDS]
    for run, other in zip(runs, alone, strict=True):
        assert abs(float(run.accuracy[-1].mean() - other.accuracy[-1].mean())) <= 0.005


@pytest.mark.parametrize("name", ["si", "online-ewc", "er", "generative-replay"])
@pytest.mark.parametrize("stop_at", [3, 6])
def test_killed_and_resumed(name: str, stop_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-identical weights, losses and accuracies to those of an uninterrupted run."""
    options: dict[str, Any] = {"steps": 4, "batch_size": 8, "log_every": 3, "device": "cpu", **settings(name)}
    whole = train_seeds(name, lambda seed: toy("class", seed), SEEDS, **options)
    original, count = Stack.step, 0

    class Stop(Exception):
        pass

    def step(self: Stack, batch: Batch, noise: Noise) -> Losses:
        nonlocal count
        count += 1
        if count > stop_at:
            raise Stop
        return original(self, batch, noise)

    options |= {"checkpoint": tmp_path / "all.safetensors", "checkpoint_every": 1}
    monkeypatch.setattr(Stack, "step", step)
    with pytest.raises(Stop):
        train_seeds(name, lambda seed: toy("class", seed), SEEDS, **options)
    monkeypatch.undo()
    resumed = train_seeds(name, lambda seed: toy("class", seed), SEEDS, **options)
    for a, b in zip(whole, resumed, strict=True):
        assert same_state(a.learner, b.learner)
        assert torch.equal(a.accuracy, b.accuracy) and torch.equal(a.initial, b.initial)
        assert a.losses == b.losses
    with pytest.raises(CheckpointError, match=r"3 seeds|2 seeds"):
        train_seeds(name, lambda seed: toy("class", seed), SEEDS[:2], **options)
    with pytest.raises(CheckpointError, match="another experiment"):
        train_seeds(name, lambda seed: toy("class", seed), [0, 3, 6], **options)


def test_what_it_leaves_behind_stands_alone(tmp_path: Path) -> None:
    """Each run has tensors of its own, can be saved and read back, and its curve is that of its seed."""
    options: dict[str, Any] = {"steps": 6, "batch_size": 8, "eval_every": 4, "device": "cpu", "hidden": (16,)}
    first, second = train_seeds("finetune", lambda seed: toy("task", seed), [1, 2], **options)
    again = Run.load(first.save(tmp_path / "run"))
    assert same_state(first.learner, again.learner)
    alone = train("finetune", toy("task", 1), seed=1, **options)
    assert [row["step"] for row in first.curve] == [4, 8, 12]
    torch.testing.assert_close(
        torch.tensor([r["accuracy"] for r in first.curve]), torch.tensor([r["accuracy"] for r in alone.curve])
    )
    before = [p.clone() for p in second.learner.parameters()]
    for p in first.learner.parameters():
        p.data.zero_()
        assert p.untyped_storage().nbytes() == p.numel() * p.element_size()
    assert all(torch.equal(p, q) for p, q in zip(before, second.learner.parameters(), strict=True))


def test_a_step_of_its_own_goes_one_after_the_other_and_says_so(tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 3, "batch_size": 8, "device": "cpu", **settings("a-gem")}
    file = tmp_path / "all.safetensors"
    with pytest.warns(UserWarning, match="one after the other, as the method has a step of its own"):
        runs = train_seeds("a-gem", lambda seed: toy("class", seed), [0, 1], checkpoint=file, **options)
    assert same_state(runs[1].learner, train("a-gem", toy("class", 1), seed=1, **options).learner)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all-seed0.safetensors", "all-seed1.safetensors"]


def test_every_method_is_trained_somehow() -> None:
    """Those of which this file does not compare the runs are those with a step of their own."""
    for name, cls in METHODS.items():
        learner = build(name, toy(cls.scenarios[0], 0).spec, **settings(name))
        assert pays_off(learner, 8) == (name in TOGETHER or name == "brain-inspired-replay-si")


def test_a_loss_that_looks_at_numbers_goes_one_after_the_other() -> None:
    class Looks(Classifier):
        name, summary = "looks", "branches on a value"

        def loss(self, batch: Batch, noise: Noise) -> Losses:
            return super().loss(batch, noise) if float(batch.x.sum()) > 0 else {"none": batch.x.sum()}

    register(Looks)
    try:
        with pytest.warns(UserWarning, match="cannot be evaluated for many seeds at once"):
            runs = train_seeds("looks", lambda seed: toy("class", seed), [0, 1], steps=2, hidden=(8,), device="cpu")
        assert len(runs) == 2
    finally:
        del METHODS["looks"]


def test_different_specifications_go_one_after_the_other() -> None:
    with pytest.warns(UserWarning, match="different specifications"):
        train_seeds(
            "finetune", lambda seed: split(toy_data(), "class", tasks=2 + 2 * seed), [0, 1], steps=1, device="cpu"
        )


def test_a_seed_that_diverges_is_named() -> None:
    with pytest.raises(DivergedError, match="seed 0"):
        train_seeds("finetune", lambda seed: toy("class", seed), [0, 1], steps=30, lr=1e30, device="cpu", hidden=(8,))


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0.5]])
def test_seeds_that_cannot_be(seeds: list[Any]) -> None:
    with pytest.raises(ConfigError, match="seed"):
        train_seeds("finetune", lambda seed: toy("class", 0), seeds)


def test_frozen_weights_stay_and_moments_follow() -> None:
    """A layer of one's own network that does not learn; warm optimisers in the second task, cold ones where asked for."""

    class Half(nn.Module):
        def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
            super().__init__()
            self.below, self.above = nn.Linear(shape[0], 8), nn.Linear(8, n_out)
            self.below.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.above(self.below(x.flatten(1)).relu())

    def stream(seed: int) -> Stream:
        return split(toy_data((12,)), "class", tasks=2, seed=seed)

    for fresh in (False, True):
        options: dict[str, Any] = {"steps": 5, "batch_size": 8, "device": "cpu", "net": Half, "fresh_optimizer": fresh}
        for name in ("finetune", "si"):
            runs = train_seeds(name, stream, [0, 1], **options)
            for seed, run in enumerate(runs):
                alone = train(name, stream(seed), seed=seed, **options)
                assert_same(run, alone)
                for key, opt in alone.learner.opts.items():
                    ours = run.learner.opts[key].state_dict()["state"]
                    for index, state in opt.state_dict()["state"].items():
                        torch.testing.assert_close(ours[index], state, rtol=1e-4, atol=1e-7)


def test_what_a_learner_does_to_its_optimiser_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """BI-R that forgets its weights forgets their moments too; another method begins each task with a smaller step."""

    class Slower(FineTune):
        name, summary = "slower", "takes smaller steps from task to task"

        def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
            for opt in self.opts.values():
                opt.state.clear()
                opt.param_groups[0]["initial_lr"] = 1e-3 / (t + 1)

        def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
            for opt in self.opts.values():
                for state in opt.state.values():
                    state["exp_avg"].zero_()

    monkeypatch.setitem(METHODS, "slower", Slower)
    for name, own in (("brain-inspired-replay", {"z": 2, "reinit": True}), ("slower", {})):
        options: dict[str, Any] = {"steps": 10, "batch_size": 8, "hidden": (9,), "device": "cpu", **own}
        runs = train_seeds(name, lambda seed: toy("class", seed), [0, 3], **options)
        for seed, run in zip([0, 3], runs, strict=True):
            assert_same(run, train(name, toy("class", seed), seed=seed, **options))


def test_nothing_is_overwritten_that_is_used_again() -> None:
    """Layers of a chain called one by one, and a hook that keeps what a layer makes."""

    class Again(nn.Module):
        def __init__(self, shape: tuple[int, ...], n_out: int) -> None:
            super().__init__()
            self.chain = nn.Sequential(nn.Linear(shape[0], 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
            self.above = nn.Linear(8, n_out)
            self.chain[2].register_forward_hook(self.keep)

        def keep(self, layer: nn.Module, inputs: tuple[Tensor, ...], h: Tensor) -> None:
            self.kept = h

        def forward(self, x: Tensor) -> Tensor:
            h = self.chain[0](x.flatten(1))
            rectified = self.chain[1](h)
            return self.above(h - 2 * rectified + self.chain(x.flatten(1)) + self.kept)

    def stream(seed: int) -> Stream:
        return split(toy_data((12,)), "class", tasks=2, seed=seed)

    options: dict[str, Any] = {"steps": 5, "batch_size": 8, "device": "cpu", "net": Again}
    runs = train_seeds("finetune", stream, [0, 1], **options)
    for seed, run in enumerate(runs):
        assert_same(run, train("finetune", stream(seed), seed=seed, **options))


def test_large_networks_are_left_alone() -> None:
    spec = split(load("digits"), "class").spec
    assert pays_off(build("finetune", spec, hidden=(100, 100)), 128)
    assert not pays_off(build("finetune", spec, hidden=(2000, 2000)), 128)
    assert isinstance(build("finetune", spec), Learner)


def test_no_warning_where_it_works() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_seeds("lwf", lambda seed: toy("class", seed), [0, 1], steps=2, device="cpu", hidden=(8,))
