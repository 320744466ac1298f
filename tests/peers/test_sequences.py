"""Ready-made sequences of tasks of continuum and avalanche are no data set: the error names what takes them."""

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
        with pytest.raises(clteach.errors.DataError, match=r"cut them again with clteach\.split"):
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
        with pytest.raises(clteach.errors.DataError, match=r"cut them again with clteach\.split"):
            clteach.from_arrays(given)
