"""What a learner sees of a task: batches that are drawn by address, units that are active."""

from __future__ import annotations

import pytest
import torch

from clteach.data.streams import split
from clteach.data.tasks import Shuffle
from clteach.training.learner_checks import toy_data

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (3, 10), (1, 4), (7, 1)])
def test_shuffle_is_an_endless_stream_of_permutations(n: int, batch_size: int) -> None:
    batches = [Shuffle(n, batch_size, 5, CPU)(s) for s in range(2 * n)]
    assert all(len(b) == batch_size for b in batches)
    stream = torch.cat(batches)
    for epoch in stream.split(n):
        if len(epoch) == n:
            assert sorted(epoch.tolist()) == list(range(n))
    again = Shuffle(n, batch_size, 5, CPU)
    assert torch.equal(again(2 * n - 1), batches[-1]), "a batch must not depend on those drawn before"


def test_replay_masks_have_one_row_per_past_head_only_in_task_il() -> None:
    data = toy_data(n_classes=6)
    assert split(data, "task", tasks=3).spec.replay_masks(2).int().tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    assert split(data, "class", tasks=3).spec.replay_masks(2).int().tolist() == [[1, 1, 1, 1, 0, 0]]
    assert split(data, "domain", tasks=3).spec.replay_masks(2).int().tolist() == [[1, 1]]


def test_batch_converts_bytes_and_keeps_vectors() -> None:
    stream = split(toy_data(), tasks=2)
    batch = stream[1].train.batch(torch.tensor([0, 3]))
    assert batch.x.dtype == torch.float32 and batch.x.shape == (2, 1, 8, 8) and batch.task.tolist() == [1, 1]
    row = stream[1].train.rows[3]
    torch.testing.assert_close(batch.x[1], stream[1].train.x[row].float() / 255)
    vectors = split(toy_data((12,)), tasks=2)[0].train
    torch.testing.assert_close(vectors.batch(torch.tensor([2])).x[0], vectors.x[vectors.rows[2]])


def test_batches_end_with_a_batch_of_one() -> None:
    data = split(toy_data(), tasks=2)[0].train
    sizes = [len(b.y) for b in data.subset(torch.arange(9)).batches(4)]
    assert sizes == [4, 4, 1]
