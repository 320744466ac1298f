"""The emulated GPU bites: planted faults make the CUDA tests fail, and each rule is the real device's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from emulated_cuda import DeviceError, WaitError, emulated
from test_cuda import test_no_step_waits_for_the_device as no_wait
from test_cuda import test_same_steps_as_on_the_cpu as same_steps
from torch import Tensor
from torch.nn import functional as F

from clteach.data.tasks import Batch, Spec
from clteach.learners.learner import Classifier, Losses, Noise
from clteach.methods import METHODS, register

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a real GPU is at hand: nothing is emulated")


class Sound(Classifier):
    """No fault yet: fine-tuning, with noise added to its inputs."""

    name, summary, scenarios, needs = "faulty", "for the tests", ("class",), "tests"
    takes_net = False

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.register_buffer("scale", torch.ones(spec.n_out))

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {"noise": torch.randn(n, *self.spec.shape, generator=rng, device=rng.device)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        logits = self.net(batch.x + 0.1 * noise["noise"]) * self.scale
        return {"current": self.cross_entropy(logits, batch)}


class HostIndex(Sound):
    def loss(self, batch: Batch, noise: Noise) -> Losses:
        some = torch.arange(3)
        return super().loss(Batch(*(v.index_select(0, some) for v in batch)), {"noise": noise["noise"][:3]})


class HostIndexInBrackets(Sound):
    def loss(self, batch: Batch, noise: Noise) -> Losses:
        some = torch.arange(3)
        return super().loss(Batch(*(v[some] for v in batch)), {"noise": noise["noise"][:3]})


class HostGenerator(Sound):
    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        own = torch.Generator().manual_seed(1)
        return {"noise": torch.randn(n, *self.spec.shape, generator=own, device=rng.device)}


class Item(Sound):
    def loss(self, batch: Batch, noise: Noise) -> Losses:
        value = super().loss(batch, noise)["current"]
        return {"current": value * (2.0 if value.item() > 1e9 else 1.0)}


class MaskIndex(Sound):
    def loss(self, batch: Batch, noise: Noise) -> Losses:
        known = batch.y >= 0
        return super().loss(Batch(*(v[known] for v in batch)), noise)


class HostBuffer(Sound):
    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.weights = torch.ones(spec.n_out)  # an attribute: `Module.to` leaves it where it is

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return {"current": F.cross_entropy(self.net(batch.x) * self.weights, batch.y)}


@pytest.fixture
def planted() -> Iterator[Callable[[type[Sound]], None]]:
    yield register  # type: ignore[misc]
    METHODS.pop("faulty", None)


def failures() -> set[str]:
    """Which of the CUDA tests fail with the method that is planted, and how."""
    found = set()
    for test in (same_steps, no_wait):
        with emulated():
            try:
                test("faulty", "class")
            except (DeviceError, WaitError) as error:
                found.add(type(error).__name__)
    return found


def test_without_a_fault_they_pass(planted: Callable[[type[Sound]], None]) -> None:
    planted(Sound)
    assert failures() == set()


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        (HostIndex, "DeviceError"),
        (HostIndexInBrackets, "WaitError"),
        (HostGenerator, "DeviceError"),
        (Item, "WaitError"),
        (MaskIndex, "WaitError"),
        (HostBuffer, "DeviceError"),
    ],
)
def test_a_planted_fault_is_noticed(fault: type[Sound], how: str, planted: Callable[[type[Sound]], None]) -> None:
    planted(fault)
    assert failures() == {how}


def on_both() -> tuple[Tensor, Tensor]:
    return torch.arange(6.0).view(2, 3), torch.arange(6.0, device="cuda").view(2, 3)


@pytest.mark.parametrize(
    "mixing",
    [
        lambda here, there: here + there,
        lambda here, there: there @ here.T,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there.long()],
        lambda here, there: there.add_(here),
        lambda here, there: torch.stack([there.sum(), here.sum()]),
        lambda here, there: F.linear(there, here),
        lambda here, there: torch.randn(2, generator=torch.Generator(), device="cuda"),
        lambda here, there: torch.randn(2, generator=torch.Generator("cuda")),
        lambda here, there: there.normal_(generator=torch.Generator()),
    ],
)
def test_what_mixes_devices_is_refused(mixing: Callable[[Tensor, Tensor], Any]) -> None:
    with emulated(), pytest.raises(DeviceError):
        mixing(*on_both())


def test_what_cuda_allows_is_allowed() -> None:
    with emulated() as waits:
        here, there = on_both()
        assert (there * torch.tensor(2.0)).device.type == "cuda" and there.is_cuda and not here.is_cuda
        total = there.requires_grad_().square().sum()
        total.backward()
        assert there.grad is not None and there.grad.is_cuda
        there.detach().masked_fill_(there > 1, 0.0)
        torch.randn(2, generator=torch.Generator("cuda").manual_seed(0), device=there.device)
        assert not waits
        copied = there.detach().to("cpu")
        assert copied.device.type == "cpu" and copied.numpy().shape == (2, 3)
        assert len(waits) == 1 and "test_emulated_cuda.py" in waits[0]


@pytest.mark.parametrize(
    "reading",
    [
        lambda x: x.sum().item(),
        lambda x: float(x[0, 0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: x.new_tensor([1.0]),
        lambda x: torch.tensor([1.0], device=x.device),
        lambda x: x.copy_(torch.zeros(2, 3)),
        lambda x: x[torch.tensor([0, 1])],
    ],
)
def test_what_makes_the_host_wait_is_noted_or_refused(reading: Callable[[Tensor], Any]) -> None:
    with emulated() as waits:
        _, there = on_both()
        reading(there)
        assert waits
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(WaitError):
            reading(there)


def test_arrays_are_made_of_what_is_on_the_host() -> None:
    with emulated(), pytest.raises(TypeError, match=r"use \.cpu\(\) first"):
        torch.zeros(2, device="cuda").numpy()


def test_afterwards_all_is_as_it_was() -> None:
    before = torch.Generator, torch.cuda.is_available, torch.cuda.set_sync_debug_mode
    with pytest.raises(ZeroDivisionError), emulated():
        1 / 0  # noqa: B018
    assert before == (torch.Generator, torch.cuda.is_available, torch.cuda.set_sync_debug_mode)
    assert not torch.zeros(1).is_cuda
