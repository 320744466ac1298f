"""One suite over every learner: what any method must do, whatever its idea.

`check_learner("ewc")` runs it; a method of your own passes `check_learner(YourLearner)` before you trust its numbers. Every
check is a small function that raises `AssertionError` with a sentence saying what is wrong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clteach.data.dataset import Dataset
from clteach.data.streams import dirichlet, permuted, split
from clteach.data.tasks import SCENARIOS, Stream
from clteach.errors import ConfigError, DivergedError
from clteach.learners.learner import Generator, Learner
from clteach.methods import METHODS, configure, method, register
from clteach.metrics.accuracy import MEASURES
from clteach.seeding import generator
from clteach.training.loop import train
from clteach.training.run import Run, load_learner

TINY = {
    "hidden": (8,),
    "z": 3,
    "decoder_hidden": (8,),
    "translated": 6,
    "candidates": 7,
    "features": "inputs",
    "channels": 8,
    "stored_samples": 20,
    "replay_steps": 2,
    "sampling_steps": 2,
}
"""Settings that make any method tiny, where it has them."""


def toy_data(shape: tuple[int, ...] = (1, 8, 8), n_classes: int = 4, n: int = 24, seed: int = 0) -> Dataset:
    """Random images (or vectors) whose brightest part tells the class: learnable in a few steps.

    Args:
        shape: shape of one input; images become uint8, vectors float32.
        n_classes: number of classes.
        n: samples per class in the training set, and half as many in the test set.
        seed: seed of the pixels.
    """
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))

    def part(m: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = np.repeat(np.arange(n_classes), m)
        x = rng.uniform(0, 0.4, (len(y), size))
        width = size // n_classes
        for row, label in zip(x, y, strict=True):
            row[label * width : (label + 1) * width] += 0.6
        x = x.reshape(-1, *shape)
        pixels = torch.from_numpy((x * 255).astype(np.uint8)) if len(shape) == 3 else torch.from_numpy(x).float()
        return pixels, torch.from_numpy(y)

    (x_train, y_train), (x_test, y_test) = part(n), part(n // 2)
    return Dataset("toy", x_train, y_train, x_test, y_test, tuple(str(c) for c in range(n_classes)))


def tiny(cls: type[Learner], **settings: Any) -> Any:
    """The method's Config with tiny networks."""
    fields = cls.Config.__dataclass_fields__
    return configure(cls, {**{k: v for k, v in TINY.items() if k in fields}, **settings})


def quick(cls: type[Learner], stream: Stream, *, steps: int = 4, batch_size: int = 5, **settings: Any) -> Run:
    """A few steps of a tiny learner."""
    learner = cls(stream.spec, tiny(cls, **settings), seed=0)
    try:
        return train(learner, stream, steps=steps, batch_size=batch_size, device="cpu")
    except DivergedError as error:
        raise AssertionError(f"a loss or an answer is not finite: {error}") from error


def same_state(a: Learner, b: Learner) -> bool:
    """Are all parameters and buffers bit-identical?"""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# --- the checks: each takes the method's class and one scenario that it supports ---


def check_trains(cls: type[Learner], scenario: str) -> None:
    """Runs through a stream; scores are in range, losses are finite, weights are finite and have moved."""
    stream = split(toy_data(), scenario, tasks=2)
    before = {k: v.clone() for k, v in cls(stream.spec, tiny(cls), seed=0).named_parameters()}
    run = quick(cls, stream)
    upper = MEASURES[cls.measure].upper
    in_range = (run.accuracy >= 0) & (run.accuracy <= upper) & run.accuracy.isfinite()
    assert bool(in_range.all()), f"{cls.measure} outside [0, {upper}]: {run.accuracy}"
    for row in run.losses:
        values = [v for k, v in row.items() if k not in ("task", "phase", "step")]
        assert values, "loss() returned no terms"
        assert all(np.isfinite(values)), f"a loss is not finite: {row}"
    state = dict(run.learner.named_parameters())
    assert all(bool(v.isfinite().all()) for v in state.values()), "a weight is not finite"
    assert any(not torch.equal(v, state[k]) for k, v in before.items()), "no weight moved in training"


def check_repeats(cls: type[Learner], scenario: str) -> None:
    """The same seed twice gives bit-identical weights; another seed does not."""
    stream = split(toy_data(), scenario, tasks=2)
    first, second = quick(cls, stream), quick(cls, stream)
    assert same_state(first.learner, second.learner), "two runs with the same seed differ"
    assert torch.equal(first.accuracy, second.accuracy), "two runs with the same seed differ in accuracy"
    other = train(cls(stream.spec, tiny(cls), seed=1), stream, steps=4, batch_size=5, seed=1, device="cpu")
    assert not same_state(first.learner, other.learner), "another seed gives the same weights"


def check_resumes(cls: type[Learner], scenario: str) -> None:
    """Interrupted after any step and resumed: bit-identical weights, accuracies and losses."""
    stream = split(toy_data(), scenario, tasks=2)
    whole = train(cls(stream.spec, tiny(cls), seed=0), stream, steps=4, batch_size=5, log_every=3, device="cpu")

    class Stop(Exception):
        pass

    for stop_at in (3, 6):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.safetensors"
            learner = cls(stream.spec, tiny(cls), seed=0)
            original, count = learner.step, 0

            def step(*args: Any) -> Any:
                nonlocal count
                count += 1
                if count > stop_at:  # noqa: B023 (called within the same turn of the loop)
                    raise Stop
                return original(*args)  # noqa: B023

            learner.step = step  # type: ignore[method-assign,assignment]
            options: dict[str, Any] = {"steps": 4, "batch_size": 5, "log_every": 3, "device": "cpu"}
            with suppress(Stop):
                train(learner, stream, checkpoint=file, checkpoint_every=1, **options)
            resumed = train(cls(stream.spec, tiny(cls), seed=0), stream, checkpoint=file, checkpoint_every=1, **options)
        assert same_state(whole.learner, resumed.learner), f"resumed after step {stop_at}: other weights"
        assert torch.equal(whole.accuracy, resumed.accuracy), f"resumed after step {stop_at}: other accuracies"
        assert whole.losses == resumed.losses, f"resumed after step {stop_at}: other losses"


def check_saves(cls: type[Learner], scenario: str) -> None:
    """Saved, loaded: the same predictions, the same evaluation; also a whole Run."""
    stream = split(toy_data(), scenario, tasks=2)
    run = quick(cls, stream)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_learner(run.learner.save(Path(folder) / "learner.safetensors"))
        again = Run.load(run.save(Path(folder) / "run"))
    assert same_state(run.learner, loaded), "a saved learner comes back with another state"
    batch = stream[0].test.batch(torch.arange(7))
    run.learner.eval(), loaded.eval()
    if cls.measure == "accuracy":
        with torch.no_grad():
            expected = run.learner.predict(batch.x, batch.task)
            assert torch.equal(expected, loaded.predict(batch.x, batch.task)), "a loaded learner predicts otherwise"
    assert loaded.evaluate(0, stream[0].test) == run.learner.evaluate(0, stream[0].test), "evaluates to something else"
    assert torch.equal(run.accuracy, again.accuracy), "a loaded Run has other accuracies"
    assert run.losses == again.losses, "a loaded Run has other losses"


def check_predicts(cls: type[Learner], scenario: str) -> None:
    """predict gives (B, n_out) finite logits, sample by sample the same, leaving the learner as it was.

    Only for learners that classify: a pure generator is measured by its samples.
    """
    if cls.measure != "accuracy":
        return
    stream = split(toy_data(), scenario, tasks=2)
    learner = quick(cls, stream).learner.eval()
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    batch = stream[1].test.batch(torch.arange(6))
    with torch.no_grad():
        logits = learner.predict(batch.x, batch.task)
        singles = torch.cat([learner.predict(x[None], t[None]) for x, t in zip(batch.x, batch.task, strict=True)])
    assert logits.shape == (6, stream.spec.n_out), f"logits of shape {tuple(logits.shape)}"
    assert bool(logits.isfinite().all()), "predict must return unmasked, finite logits"
    torch.testing.assert_close(logits, singles, msg="a sample's prediction depends on the batch it is in")
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items()), "predict changed the learner"


def check_pure(cls: type[Learner], scenario: str) -> None:
    """loss is pure: the same value twice, nothing written, no random number drawn; step leaves its inputs alone."""
    stream = split(toy_data(), scenario, tasks=2)
    learner = cls(stream.spec, tiny(cls), seed=0)
    for t in range(2):
        data = learner.training_data(stream, t)
        for phase in learner.phases(t, 2):
            learner.enter(t, phase)
            learner.begin_phase(t, phase, data, generator(0, "begin"))
            tracked = [name for name, buffer in learner.named_buffers() if buffer.requires_grad]
            assert not tracked, f"begin_phase left buffers in the autograd graph: {tracked}; detach what you copy"
            batch = data.batch(torch.arange(5))
            noise = learner.draw(5, generator(0, "noise"))
            state = {k: v.clone() for k, v in learner.state_dict().items()}
            inputs = [v.clone() for v in (*batch, *noise.values())]
            rng = torch.get_rng_state()
            first, second = learner.loss(batch, noise), learner.loss(batch, noise)
            assert all(torch.equal(first[k], second[k]) for k in first), "loss differs when called twice"
            assert all(v.ndim == 0 for v in first.values()), "loss terms must be scalars"
            assert all(torch.equal(v, state[k]) for k, v in learner.state_dict().items()), "loss wrote to the learner"
            learner.step(batch, noise)
            assert torch.equal(rng, torch.get_rng_state()), "loss or step drew from the global generator"
            now = (*batch, *noise.values())
            assert all(torch.equal(a, b) for a, b in zip(inputs, now, strict=True)), "step changed its inputs"
        learner.end_task(t, data, generator(0, "end"))


def check_global_rng(cls: type[Learner], scenario: str) -> None:
    """Building, training, saving and evaluating leave the global generators of torch and numpy as they were."""
    stream = split(toy_data(), scenario, tasks=2)
    states = torch.get_rng_state(), str(np.random.get_state())
    x = stream[0].train.x.clone()
    quick(cls, stream)
    assert torch.equal(states[0], torch.get_rng_state()), "torch's global generator was used"
    assert states[1] == str(np.random.get_state()), "numpy's global generator was used"
    assert torch.equal(x, stream[0].train.x), "training changed the data"


def check_shapes(cls: type[Learner], scenario: str) -> None:
    """3 x 32 x 32 images, feature vectors, permuted and Dirichlet streams, unequal tasks, in Class-IL one class per task."""
    streams = [
        split(toy_data((3, 32, 32)), scenario, tasks=2),
        split(toy_data((12,)), scenario, tasks=2),
        split(toy_data(n_classes=5), scenario, classes=[[3, 4], [0, 1, 2]]),
        permuted(toy_data(), scenario, tasks=2),
        dirichlet(toy_data(), scenario, tasks=2, alpha=2.0),
    ]
    if scenario == "class":  # elsewhere such a task measures nothing, and is refused
        streams += [split(toy_data(), scenario, tasks=4), split(toy_data(), scenario, classes=[[3], [0, 1, 2]])]
    for stream in streams:
        run = quick(cls, stream, steps=2)
        assert bool(run.accuracy.isfinite().all()), f"{stream.name}: accuracies {run.accuracy}"


def check_batch_of_one(cls: type[Learner], scenario: str) -> None:
    """A batch of one, in training and as the last one of an evaluation."""
    data = toy_data()
    stream = split(data, scenario, tasks=2)
    run = quick(cls, stream, batch_size=1)
    assert all(np.isfinite(v) for row in run.losses for v in row.values() if isinstance(v, float)), (
        "a loss is not finite"
    )
    if cls.measure != "accuracy":
        return  # another score is one of the whole set, no mean over its samples
    test = stream[0].test.subset(torch.arange(3))
    by_hand = sum(run.learner.evaluate(0, test.subset(torch.tensor([i]))) for i in range(3)) / 3
    assert abs(run.learner.evaluate(0, test) - by_hand) < 1e-12, "accuracy depends on how evaluation is batched"


def check_frozen(cls: type[Learner], scenario: str) -> None:
    """What is marked as not learning does not move within a phase."""
    stream = split(toy_data(), scenario, tasks=2)
    learner = quick(cls, stream).learner
    data = learner.training_data(stream, 1)
    for phase in learner.phases(1, 3):
        learner.enter(1, phase)
        learner.begin_phase(1, phase, data, generator(0, "begin"))
        fixed = {k: p.clone() for k, p in learner.named_parameters() if not p.requires_grad}
        for s in range(phase.steps):
            learner.step(data.batch(torch.arange(5)), learner.draw(5, generator(0, s)))
        moved = [k for k, p in learner.named_parameters() if k in fixed and not torch.equal(p, fixed[k])]
        assert not moved, f"frozen parameters moved: {moved}"


def check_samples(cls: type[Learner], scenario: str) -> None:
    """A generator's samples are images in [0, 1], the same for the same seed; sampling leaves the learner as it was."""
    if not issubclass(cls, Generator):
        return
    stream = split(toy_data(), scenario, tasks=2)
    learner = quick(cls, stream).learner.eval()
    assert isinstance(learner, Generator)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    x, again, other = (learner.sample(5, generator(seed, "samples")) for seed in (0, 0, 1))
    assert x.shape == (5, *stream.spec.shape), f"samples of shape {tuple(x.shape)}"
    assert bool(((x >= 0) & (x <= 1)).all()), "samples outside [0, 1]"
    assert not x.requires_grad, "samples carry a gradient"
    assert torch.equal(x, again), "the same seed gives other samples"
    assert not torch.equal(x, other), "another seed gives the same samples"
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items()), "sample changed the learner"


CHECKS: tuple[Callable[[type[Learner], str], None], ...] = (
    check_trains,
    check_repeats,
    check_resumes,
    check_saves,
    check_predicts,
    check_pure,
    check_global_rng,
    check_shapes,
    check_batch_of_one,
    check_frozen,
    check_samples,
)


def check_learner(learner: str | type[Learner]) -> None:
    """Run every check on a method, in every scenario it supports.

    Args:
        learner: a method's name or class; a class that is not registered is registered (so that it can be loaded).

    Raises:
        AssertionError: a check failed; the message says which, in which scenario, and what is wrong.
    """
    cls = method(learner) if isinstance(learner, str) else learner
    if cls.name not in METHODS:
        register(cls)
    check_scenarios(cls)
    for scenario in cls.scenarios:
        for check in CHECKS:
            try:
                check(cls, scenario)
            except AssertionError as error:
                raise AssertionError(f"{cls.name}, {scenario}, {check.__name__}: {error}") from error


def check_scenarios(cls: type[Learner]) -> None:
    """Supported scenarios are known ones; the others are refused with one clear error."""
    assert cls.scenarios, "a learner must support at least one scenario"
    assert set(cls.scenarios) <= set(SCENARIOS), f"unknown scenarios {cls.scenarios}"
    for scenario in set(SCENARIOS) - set(cls.scenarios):
        try:
            cls(split(toy_data(), scenario, tasks=2).spec, tiny(cls))
        except ConfigError as error:
            message = str(error)
            assert scenario in message and cls.name in message, f"the error must name both: {message}"
        else:
            raise AssertionError(f"{cls.name} accepts the scenario {scenario!r} that it does not list")
