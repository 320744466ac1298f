"""On a GPU: the same results as on the CPU, and no step that waits for the device.

Where there is no GPU these tests run under an emulation of CUDA's rules (tests/emulated_cuda.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch
from emulated_cuda import emulated

from clteach.data.extractors import encode
from clteach.data.streams import dirichlet, faded, permuted, split
from clteach.data.tasks import Batch
from clteach.learners.optim import constant
from clteach.methods import METHODS, build
from clteach.seeding import generator
from clteach.training import graphs
from clteach.training.learner_checks import TINY, tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run
from clteach.training.seeds import pays_off, train_seeds

pytestmark = [
    pytest.mark.cuda,
    # torch says so once where there is a real GPU; an error, it would leave the mode switched on.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
]
SPECS = {scenario: split(toy_data(), scenario, tasks=2).spec for scenario in ("task", "domain", "class")}
CASES = [(name, scenario) for name, cls in METHODS.items() for scenario in cls.scenarios]


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    """A GPU, or an emulated one."""
    if torch.cuda.is_available():
        exact = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False  # convolutions in float32, as on the CPU
        yield
        torch.backends.cudnn.allow_tf32 = exact
    else:
        with emulated():
            yield


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_same_steps_as_on_the_cpu(name: str, scenario: str) -> None:
    """Fed with the same batches and noise, losses and weights agree within float32 rounding."""
    stream = split(toy_data(), scenario, tasks=2)
    here, there = (METHODS[name](stream.spec, tiny(METHODS[name])).to(d) for d in ("cpu", "cuda"))
    pairs = ((here, stream), (there, stream.to("cuda")))
    real = torch.cuda.is_initialized()

    def made_alike() -> None:
        # The generators of a GPU and of a CPU draw other samples to keep; emulated ones draw the same.
        if real:
            there.load_state_dict(here.state_dict())
        for key, value in there.state_dict().items():
            torch.testing.assert_close(value.cpu(), here.state_dict()[key], rtol=1e-2, atol=1e-4)

    for t in range(2):
        for phase in here.phases(t, 5):
            for learner, tasks in pairs:
                device = learner.device
                learner.enter(t, phase)
                learner.begin_phase(t, phase, learner.training_data(tasks, t), generator(0, "b", device=device))
            made_alike()
            for s in range(phase.steps):
                batch = here.training_data(stream, t).batch(torch.arange(s, s + 6))
                noise = here.draw(6, generator(0, s))
                a = here.step(batch, noise)
                b = there.step(Batch(*(v.cuda() for v in batch)), {k: v.cuda() for k, v in noise.items()})
                for key in a:
                    torch.testing.assert_close(a[key], b[key].cpu(), rtol=1e-3, atol=1e-4)
            for p, q in zip(here.parameters(), there.parameters(), strict=True):
                torch.testing.assert_close(p, q.cpu(), rtol=1e-2, atol=1e-4)
        for learner, tasks in pairs:
            learner.end_task(t, learner.training_data(tasks, t), generator(0, "e", device=learner.device))
        made_alike()


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_no_step_waits_for_the_device(name: str, scenario: str) -> None:
    stream = split(toy_data(), scenario, tasks=2).to("cuda")
    learner = METHODS[name](stream.spec, tiny(METHODS[name])).to("cuda")
    data = learner.training_data(stream, 1)
    for phase in learner.phases(1, 3):
        learner.enter(1, phase)
        learner.begin_phase(1, phase, data, generator(0, device="cuda"))
        index = torch.arange(6, device="cuda")
        rng = generator(0, device="cuda")
        learner.step(data.batch(index), learner.draw(6, rng))  # the first step allocates
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(3):
                learner.step(data.batch(index), learner.draw(6, rng))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("replay_model", ["vae", "multiband-vae", "ebgan", "hypernetwork", "diffusion"])
def test_no_step_of_replay_from_any_generator_waits_for_the_device(replay_model: str) -> None:
    stream = split(toy_data(), "class", tasks=2).to("cuda")
    cls = METHODS["dream-replay"]
    learner = cls(stream.spec, tiny(cls, replay_model=replay_model)).to("cuda")
    data, rng, index = stream[1].train, generator(0, device="cuda"), torch.arange(6, device="cuda")
    phase = learner.phases(1, 3)[-1]
    learner.enter(1, phase)
    learner.begin_phase(1, phase, data, rng)
    learner.step(data.batch(index), learner.draw(6, rng))  # the first step allocates
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(data.batch(index), learner.draw(6, rng))
    finally:
        torch.cuda.set_sync_debug_mode("default")


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("generative-replay", {"targets": "hard"}),
    ("generative-replay", {"keep": "samples", "stored_samples": 20}),
    ("brain-inspired-replay", {"feedback": False}),
    ("dream-replay", {"targets": "hard"}),
    ("er", {"reservoir": 20}),
    ("si", {"gradient": "task"}),
]
"""Settings with which a step does something else."""


@pytest.mark.parametrize(
    ("name", "settings", "encoded"),
    [
        (name, settings, encoded)
        for name, settings in VARIANTS
        for encoded in (False, True)
        if not (encoded and name == "dream-replay")  # its VAE makes images
    ],
)
def test_no_step_of_a_variant_waits_for_the_device(name: str, settings: dict[str, Any], encoded: bool) -> None:
    """Other targets, kept samples, a reservoir; on images and on the features that an extractor makes of them."""
    data = toy_data((1, 8, 8))
    if encoded:
        assert encode(data.to("cuda"), "conv").x_train.is_cuda
        data = encode(data, "conv")
    stream = split(data, "class", tasks=2).to("cuda")
    cls = METHODS[name]
    learner = cls(stream.spec, tiny(cls, **settings)).to("cuda")
    run = train(learner, stream, steps=2, batch_size=6, device="cuda")
    assert bool(run.accuracy.isfinite().all())
    rng, index = generator(0, device="cuda"), torch.arange(6, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.train()
        learner.step(stream[1].train.batch(index), learner.draw(6, rng))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["finetune", "ewc", "si", "lwf", "er", "generative-replay", "brain-inspired-replay"])
def test_many_seeds_are_as_if_alone(name: str) -> None:
    stream = split(toy_data(), "class", tasks=2)
    settings = {key: value for key, value in TINY.items() if key in METHODS[name].Config.__dataclass_fields__}
    options: dict[str, Any] = {"steps": 5, "batch_size": 6, "device": "cuda", **settings}
    for seed, run in enumerate(train_seeds(name, lambda seed: stream, [0, 1], **options)):
        alone = train(name, stream, seed=seed, **options)
        for p, q in zip(run.learner.parameters(), alone.learner.parameters(), strict=True):
            torch.testing.assert_close(p.cpu(), q.cpu(), rtol=1e-3, atol=1e-4)


RECORDED: list[tuple[str, dict[str, Any]]] = [
    (name, {})
    for name, cls in METHODS.items()
    if hasattr(cls.step, "uniform") and cls(SPECS[cls.scenarios[0]], tiny(cls)).phases(1, 5)[0].lr_scale is constant
] + [("er", {"reservoir": 20}), ("si", {"gradient": "task"}), ("generative-replay", {"targets": "hard"})]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="an emulated GPU records nothing")
@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(("name", "settings"), RECORDED)
def test_recorded_steps_are_those_done_one_by_one(
    name: str, settings: dict[str, Any], seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), cls.scenarios[-1], tasks=2)
    given = asdict(tiny(cls, **settings))
    options: dict[str, Any] = {"steps": 10, "batch_size": 6, "device": "cuda", **given}
    recorded = []
    record = graphs.Replayed.record
    monkeypatch.setattr(graphs.Replayed, "record", lambda *of: recorded.append(1) or record(*of))

    def trained() -> list[Run]:
        if seeds == 1:
            return [train(name, stream, **options)]
        return train_seeds(name, lambda seed: stream, range(seeds), **options)

    if seeds > 1 and not pays_off(build(name, stream.spec, **given), 6, "cuda"):
        pytest.skip("its seeds are trained one after the other")
    replayed = trained()
    assert recorded
    monkeypatch.setattr(graphs, "WARM_UP", 1000)
    by_hand = trained()
    for ours, theirs in zip(replayed, by_hand, strict=True):
        for a, b in zip(ours.losses, theirs.losses, strict=True):
            for what, value in a.items():
                assert value == (b[what] if isinstance(value, str) else pytest.approx(b[what], rel=1e-3, abs=1e-5))
        for p, q in zip(ours.learner.state_dict().values(), theirs.learner.state_dict().values(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_trains_on_the_gpu(name: str) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), cls.scenarios[0], tasks=2)
    runs = [
        train(cls(stream.spec, tiny(cls), seed=0), stream, steps=20, batch_size=16, device="cuda") for _ in range(2)
    ]
    assert runs[0].config["device"] == "cuda" and bool(runs[0].accuracy.isfinite().all())


@pytest.mark.parametrize("maker", [split, permuted, dirichlet, faded])
def test_a_data_set_on_the_gpu_is_cut_as_on_the_cpu(maker: Any) -> None:
    """Training takes the tasks to its device anyway."""
    data = toy_data()
    assert maker(data.to("cuda"), tasks=2).fingerprint == maker(data, tasks=2).fingerprint


def test_a_penalty_too_strong_for_squares_in_float32_makes_nothing_infinite() -> None:
    """SI's importance grows from task to task by itself where c is large, as that of BI-R + SI on CIFAR-100 (1e8)."""
    stream = split(toy_data(), "class", tasks=2)
    options: dict[str, Any] = {"steps": 20, "batch_size": 6, "hidden": (8,), "device": "cuda"}
    run = train("si", stream, c=1e30, **options)
    assert bool(run.accuracy.isfinite().all())
    moments = [state["exp_avg_sq"] for opt in run.learner.opts.values() for state in opt.state.values()]
    assert moments and all(bool(moment.isfinite().all()) for moment in moments)
