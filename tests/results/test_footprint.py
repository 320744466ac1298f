"""Bytes counted against closed forms, and that what passes is not needed."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from clteach.data.streams import split
from clteach.data.tasks import Spec
from clteach.learners.learner import Classifier
from clteach.learners.replay import Memory
from clteach.methods import METHODS, build
from clteach.results.comparison import live
from clteach.results.footprint import Footprint, footprint, keeps_data, passing
from clteach.seeding import generator
from clteach.training.learner_checks import quick, toy_data

SPEC = Spec((1, 8, 8), 5, 10, "class", tuple((2 * t, 2 * t + 1) for t in range(5)))
NETWORK = 64 * 7 + 7 + 7 * 10 + 10  # weights of a network with one hidden layer of 7


def bytes_of(name: str, spec: Spec = SPEC, samples: int = 1000, **settings: Any) -> Footprint:
    return footprint(build(name, spec, hidden=(7,), **settings), samples)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("finetune", {}, (0, 0, 0)),
        ("joint", {}, (1000 * (64 + 16), 0, 0)),  # images as bytes, label and task as int64
        ("er", {"per_class": 3}, (30 * (64 + 16), 0, 0)),
        ("a-gem", {"per_class": 1}, (10 * (64 + 16), 0, 0)),
        ("ewc", {}, (0, 2 * 4 * NETWORK + 4, 0)),  # curvature, centre and the constant of the penalty
        ("si", {}, (0, 5 * 4 * NETWORK + 4, 0)),  # and ω, Ω, the weights at the task's start
        # Memorable points; F, columns and starts; m_old, and a precision per class of the 8 points of the first 4 tasks
        ("fromp", {"per_class": 1}, (10 * (64 + 16), 4 * NETWORK + 8 * (5 * 10 + 1), 4 * (8 * 10 + 8 * 8 * 10))),
        ("lwf", {}, (0, 0, 4 * NETWORK)),  # a copy of the network, during a task alone
        # the exemplars; which units are whose, which places are filled, and the exemplars' share; a copy of the network
        ("icarl", {"per_class": 3}, (30 * (64 + 16), 5 * 10 + 30 + 4, 4 * NETWORK)),
        # a VAE for each of ten classes instead of the network, the noise, which units are whose, and a count
        (
            "generative-classifier",
            {"z": 3},
            (0, 10 * 4 * (64 * 7 + 7 + 7 * 6 + 6 + 3 * 7 + 7 + 7 * 64 + 64) + 4 * 300 + 5 * 10 - 4 * NETWORK, 8),
        ),
    ],
)
def test_bytes_are_those_of_the_closed_form(
    name: str, settings: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    assert tuple(bytes_of(name, **settings)) == expected
    assert bytes_of(name, **settings).extra == sum(expected)


def test_bytes_of_masks_and_of_a_generator() -> None:
    task = replace(SPEC, scenario="task")
    assert tuple(bytes_of("xdg", task)) == (0, 4 * 5 * 7, 0)
    small = 64 * 7 + 7 + 7 * 2 + 2  # five networks of two units and where these stand, instead of one of ten
    assert tuple(bytes_of("separate-networks", task)) == (0, 4 * (5 * small - NETWORK) + 8 * 5 * 10, 0)
    precisions = 4 * (8 * 2 + 4 * 2 * 2 * 2)  # of a task's two points for its two classes
    assert bytes_of("fromp", task, per_class=1).passing == precisions
    vae = 4 * (64 * 7 + 7 + 7 * 6 + 6 + 3 * 7 + 7 + 7 * 64 + 64)
    assert tuple(bytes_of("generative-replay", z=3)) == (0, vae, 4 * NETWORK + vae)
    hypernet = build("hypernetwork", task, hidden=(7,), chunk=42000).get_submodule("hypernet")
    old = [hypernet.get_buffer(f"old_{name}") for name in ("last", "gram", "features")]
    assert bytes_of("hypernetwork", task, chunk=42000).passing == sum(t.nbytes for t in old)
    inner = footprint(build("dream-replay", SPEC, hidden=(7,)), 0)  # copies within a copy are counted once
    assert 0 < inner.passing < inner.extra


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.measure == "accuracy"])
def test_nothing_is_lost_with_what_passes(name: str) -> None:
    """Whatever stands in the passing tensors between two tasks: the next task is learned the same."""
    stream = split(toy_data(), METHODS[name].scenarios[-1], tasks=2)
    first = quick(METHODS[name], stream, steps=1).learner
    second = copy.deepcopy(first)
    for tensor in passing(second):
        tensor.detach().fill_(7)
    for learner in (first, second):
        data = learner.training_data(stream, 1)
        for phase in learner.phases(1, 1):
            learner.enter(1, phase)
            learner.begin_phase(1, phase, data, generator(0, "begin"))
            learner.step(data.batch(torch.arange(6)), learner.draw(6, generator(0, "step")))
    states = [{id(t): t for t in (*each.parameters(), *each.buffers())} for each in (first, second)]
    kept = [
        [t for i, t in state.items() if i not in set(map(id, passing(each)))]
        for state, each in zip(states, (first, second), strict=True)
    ]
    assert kept[0] and all(torch.equal(a, b) for a, b in zip(*kept, strict=True))


def test_who_keeps_data() -> None:
    class Boxed(Classifier):
        name = "boxed"
        summary = "a test's method"

        def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
            super().__init__(spec, cfg, seed)
            self.box = Memory(spec, 2)

    kept = {"joint", "er", "a-gem", "fromp", "icarl", "vae-joint", "diffusion-joint"}
    assert {name for name, cls in METHODS.items() if keeps_data(cls)} == kept
    assert keeps_data(Boxed)


def test_training_changes_no_bytes_and_memory_is_the_stream_s() -> None:
    stream = split(toy_data(), "class", tasks=2)
    for name in ("ewc", "er", "generative-replay"):
        trained = quick(METHODS[name], stream).learner
        untrained = METHODS[name](stream.spec, trained.cfg)
        assert footprint(trained, 96) == footprint(untrained, 96)
    assert live([quick(METHODS["joint"], stream)], stream)["data"].item() == 96 * (64 + 16) / 1000
