"""On a GPU: the same results as on the CPU, and no step that waits for the device.

Where there is no GPU these tests run under an emulation of CUDA's rules (tests/emulated_cuda.py).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from emulated_cuda import emulated

from clteach.data.streams import split
from clteach.data.tasks import Batch
from clteach.methods import METHODS
from clteach.seeding import generator
from clteach.training.learner_checks import tiny, toy_data
from clteach.training.loop import train

pytestmark = pytest.mark.cuda
CASES = [(name, scenario) for name, cls in METHODS.items() for scenario in cls.scenarios]


@pytest.fixture(autouse=True)
def cuda() -> Iterator[None]:
    """A GPU, or an emulated one."""
    if torch.cuda.is_available():
        yield
    else:
        with emulated():
            yield


@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_same_steps_as_on_the_cpu(name: str, scenario: str) -> None:
    """Fed with the same batches and noise, losses and weights agree within float32 rounding."""
    stream = split(toy_data(), scenario, tasks=2)
    here, there = (METHODS[name](stream.spec, tiny(METHODS[name])).to(d) for d in ("cpu", "cuda"))
    there_stream = stream.to("cuda")
    for t in range(2):
        for phase in here.phases(t, 5):
            for learner, tasks in ((here, stream), (there, there_stream)):
                device = learner.device
                learner.enter(t, phase)
                learner.begin_phase(t, phase, learner.training_data(tasks, t), generator(0, "b", device=device))
            for s in range(phase.steps):
                batch = here.training_data(stream, t).batch(torch.arange(s, s + 6))
                noise = here.draw(6, generator(0, s))
                a = here.step(batch, noise)
                b = there.step(Batch(*(v.cuda() for v in batch)), {k: v.cuda() for k, v in noise.items()})
                for key in a:
                    torch.testing.assert_close(a[key], b[key].cpu(), rtol=1e-3, atol=1e-4)
        for learner, tasks in ((here, stream), (there, there_stream)):
            learner.end_task(t, learner.training_data(tasks, t), generator(0, "e", device=learner.device))
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(p, q.cpu(), rtol=1e-2, atol=1e-4)


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


@pytest.mark.parametrize("name", METHODS)
def test_trains_on_the_gpu(name: str) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), cls.scenarios[0], tasks=2)
    runs = [
        train(cls(stream.spec, tiny(cls), seed=0), stream, steps=20, batch_size=16, device="cuda") for _ in range(2)
    ]
    assert runs[0].config["device"] == "cuda" and bool(runs[0].accuracy.isfinite().all())
