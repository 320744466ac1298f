"""Ready-made sequences of tasks of continuum and avalanche: read as streams, and as data sets refused with their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import clteach

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
Y = np.arange(40) % 4


def test_continuum() -> None:
    continuum = pytest.importorskip("continuum", reason="needs continuum (make peers)")
    whole = continuum.datasets.InMemoryDataset(X, Y, data_type=continuum.tasks.TaskType.IMAGE_ARRAY)
    scenario = continuum.ClassIncremental(whole, increment=2)
    for given in (scenario, scenario[0], continuum.Permutations(whole, nb_tasks=2, seed=0)[0]):
        with pytest.raises(clteach.errors.DataError, match=r"clteach\.from_tasks.*from_avalanche.*from_continuum"):
            clteach.from_arrays(given)
    with pytest.raises(clteach.errors.DataError, match=r"x, y, _ = data\.get_data\(\)"):
        clteach.from_arrays(whole)
    x, y, _ = whole.get_data()
    assert np.array_equal(clteach.from_arrays(x, y, x, y).x_train.numpy(), X.transpose(0, 3, 1, 2))


def test_avalanche() -> None:
    benchmarks = pytest.importorskip("avalanche.benchmarks", reason="needs avalanche (make peers)")
    whole = torch.utils.data.TensorDataset(torch.from_numpy(X).permute(0, 3, 1, 2) / 255, torch.from_numpy(Y))
    whole.targets = Y.tolist()
    benchmark = benchmarks.nc_benchmark(whole, whole, n_experiences=2, task_labels=False)
    stream = benchmark.train_stream
    for given in (benchmark, stream, stream[0], stream[0].dataset):
        with pytest.raises(clteach.errors.DataError, match=r"clteach\.from_tasks.*from_avalanche.*from_continuum"):
            clteach.from_arrays(given)


STANDARDISED = (X / 255 - 0.4) / 0.3


def pixels(task: object, part: str = "train") -> list[list[float]]:
    """The images of a task, rounded, in an order of their own."""
    data = getattr(task, part)
    return sorted(data.batch(torch.arange(len(data))).x.flatten(1).double().round(decimals=5).tolist())


def expected(rows: np.ndarray) -> list[list[float]]:
    return sorted(torch.from_numpy((X[rows] / 255).transpose(0, 3, 1, 2)).flatten(1).round(decimals=5).tolist())


def test_a_continuum_scenario_becomes_a_stream() -> None:
    continuum = pytest.importorskip("continuum", reason="needs continuum (make peers)")
    train, test = (
        continuum.datasets.InMemoryDataset(X, Y, data_type=continuum.tasks.TaskType.IMAGE_ARRAY, train=part)
        for part in (True, False)
    )
    parts = [continuum.ClassIncremental(each, increment=2) for each in (train, test)]
    stream = clteach.from_continuum(*parts)
    assert stream.spec.units == ((0, 1), (2, 3)) and stream.spec.classes == (("0", "1"), ("2", "3"))
    for t, task in enumerate(stream):
        assert pixels(task) == pixels(task, "test") == expected(np.isin(Y, (2 * t, 2 * t + 1)))
    held = clteach.from_continuum(parts[0], scenario="task")
    assert [len(task.test) for task in held] == [4, 4]
    guises = [continuum.Permutations(each, nb_tasks=2, seed=0) for each in (train, test)]
    stream = clteach.from_continuum(*guises, scenario="domain")
    assert stream.spec.units == ((0, 1, 2, 3),) * 2
    assert pixels(stream[0]) == expected(Y >= 0) != pixels(stream[1])
    run = clteach.train("er", stream, steps=3, batch_size=8, hidden=(8,), per_class=2, device="cpu")
    assert run.accuracy.isfinite().all()


@pytest.mark.parametrize("x", [X / 255, STANDARDISED], ids=["in [0, 1]", "standardised"])
def test_an_avalanche_benchmark_becomes_a_stream(x: np.ndarray) -> None:
    benchmarks = pytest.importorskip("avalanche.benchmarks", reason="needs avalanche (make peers)")
    images = torch.from_numpy(x).permute(0, 3, 1, 2).float()
    images[0], images[1] = images.amin((0, 2, 3))[:, None, None], images.amax((0, 2, 3))[:, None, None]
    whole = torch.utils.data.TensorDataset(images, torch.from_numpy(Y))
    whole.targets = Y.tolist()
    benchmark = benchmarks.nc_benchmark(whole, whole, n_experiences=2, task_labels=True, shuffle=False)
    stream = clteach.from_avalanche(benchmark, "task")
    assert stream.spec.units == ((0, 1), (2, 3)) and stream.spec.classes == (("0", "1"), ("2", "3"))
    found = stream[1].train.batch(torch.arange(20)).x
    order = np.flatnonzero(Y // 2 == 1)
    low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    scale = (images - low[:, None, None]) / (high - low)[:, None, None] if x is STANDARDISED else images
    assert sorted(found.sum((1, 2, 3)).tolist()) == pytest.approx(
        sorted(scale[order].sum((1, 2, 3)).tolist()), abs=1e-3
    )
    run = clteach.train("ewc", stream, steps=3, batch_size=8, hidden=(8,), device="cpu")
    assert run.accuracy.isfinite().all()
    with pytest.raises(clteach.errors.DataError, match="without experiences"):
        clteach.from_avalanche(benchmark.train_stream)
