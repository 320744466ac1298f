"""What dreams of features look like, as photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clteach.errors import CheckpointError, ConfigError
from clteach.experiments import dreamed_photographs
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.recording import reproduce
from clteach.seeding import generator


def test_nearest_is_what_a_loop_finds() -> None:
    rng = generator(0)
    dreams, features = torch.randn(120, 7, generator=rng), torch.randn(300, 7, generator=rng)
    found = dreamed_photographs.nearest(dreams, features)
    for dream, index in zip(dreams, found, strict=True):
        distances = [float((dream - feature).square().sum()) for feature in features]
        assert distances[index] == pytest.approx(min(distances))


def test_the_package_has_dreams_of_as_many_classes_of_every_learned_task() -> None:
    shown, about = dreamed_photographs.load()
    tasks = about["run"]["tasks"]
    assert [each.task for each in shown] == [
        t for t in range(tasks) for _ in range(-(-dreamed_photographs.ROWS // tasks))
    ]
    assert about["run"]["steps"] == 5000 and "dirty" not in about["commit"]
    assert len(about["classes"]) == 10 * tasks
    assert {"command", "commit", "seed", "device"} <= set(about) and {"seed", "device"} <= set(about["run"])
    # of the first task, which a network learns without replay, most dreams come near photographs of the class or its like
    first = [each["share"] for each in about["classes"] if each["task"] == 0]
    assert sum(first) / len(first) > 0.1, "chance is one in a hundred"


@pytest.fixture
def small_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CIFAR-100 of three random training images per class."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 3), ("test", 1)):
        arrays[f"y_{part}"] = np.repeat(np.arange(100), n)
        arrays[f"x_{part}"] = rng.integers(0, 256, (100 * n, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "cifar100.npz", **arrays)
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))


@pytest.mark.usefixtures("small_photographs")
def test_the_dreams_of_a_kept_run_are_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dreamed_photographs, "SHOWN", 2)
    monkeypatch.setattr(dreamed_photographs, "DREAMS", 5)
    reproduce(
        "brain-inspired-replay-split-cifar100", tmp_path, rows=["BI-R"], iters=1, keep=True, n_jobs=1, device="cpu"
    )
    (folder,) = (tmp_path / "runs").iterdir()
    file = dreamed_photographs.make(folder, tmp_path / "dreams.safetensors")
    shown, about = dreamed_photographs.load(file)
    assert [each.task for each in shown] == list(range(10)) and len({each.name for each in shown}) == 10
    assert about["run"] == {"steps": 1, "seed": 0, "device": "cpu", "tasks": 10}
    assert about["device"]["type"] == "cpu" and "dreamed_photographs" in about["command"]
    assert len(about["classes"]) == 100 and all(0 <= each["share"] <= 1 for each in about["classes"])
    for each in shown:
        assert each.real.shape == each.nearest.shape == (2, 3, 32, 32) and each.real.dtype == torch.uint8
    again, _ = dreamed_photographs.load(dreamed_photographs.make(folder, tmp_path / "again.safetensors"))
    assert all(torch.equal(one.nearest, other.nearest) for one, other in zip(shown, again, strict=True))

    run_jobs([Job("finetune", "split-digits", steps=1, device="cpu")], tmp_path / "other", n_jobs=1, keep=True)
    (other,) = (tmp_path / "other" / "runs").iterdir()
    with pytest.raises(ConfigError, match=r"a run of finetune on split-digits .* Expected .*--keep"):
        dreamed_photographs.make(other, tmp_path / "dreams.safetensors")
    (damaged := tmp_path / "damaged.safetensors").write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        dreamed_photographs.load(damaged)
