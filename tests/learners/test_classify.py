"""From the model back to the user: raw rows in, the user's own class names out, the whole way and through files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import clteach
from clteach.data.extractors import EXTRACTORS
from clteach.data.streams import dirichlet, permuted, split
from clteach.errors import ConfigError, DataError
from clteach.training.run import Run, load_learner

NAMES = ("ant", "bee", "cat", "dog", "elk", "fly")


def raw(n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standardised vectors far from [0, 1], and labels that are words."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), n)
    x = rng.normal(0, 0.3, (6 * n, 8)) + 4 * np.eye(8)[labels] - 1.5
    return x * np.linspace(1, 100, 8), np.array(NAMES)[labels]


def own_stream(scenario: str, **more: Any) -> clteach.Stream:
    x, y = raw()
    return split(clteach.from_arrays(x, y), scenario, tasks=3, class_order="random", seed=5, **more)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_the_whole_way_with_words_a_random_order_and_any_scale(scenario: str, tmp_path: Path) -> None:
    stream = own_stream(scenario)
    run = clteach.train("joint", stream, steps=150, batch_size=32, hidden=(32,), lr=1e-2)
    x, y = raw(seed=1)  # new rows, as raw as those of training
    task_of = {name: t.index for t in stream for name in t.classes}
    tasks = np.array([task_of[name] for name in y])
    saved = Run.load(run.save(tmp_path / "run")).learner
    for learner in (run.learner, saved, load_learner(tmp_path / "run" / "learner.safetensors")):
        told = {} if scenario == "class" else {"task": tasks}
        answers = learner.classify(x, **told)
        assert (answers.names == y).mean() > 0.95  # 1/6 where units were taken for classes, or rows not scaled
        assert answers.probabilities.shape == (len(x), stream.spec.n_out)
        torch.testing.assert_close(answers.probabilities.sum(1), torch.ones(len(x)))
        for same in (pd.DataFrame(x), torch.from_numpy(x), x.tolist()):
            assert (learner.classify(same, **told).names == answers.names).all()
    if scenario == "task":  # only the task's own units compete
        outside = answers.probabilities.masked_fill(stream.spec.task_units()[tasks], 0)
        assert float(outside.max()) == 0
        one = run.learner.classify(x[tasks == 1], task=1)
        assert set(one.names) <= set(stream[1].classes)
    if scenario == "domain":  # the task names the answer and does not help to find it
        alone = run.learner.classify(x)
        torch.testing.assert_close(alone.probabilities, answers.probabilities)
        assert alone.names[0] in alone.units and alone.units[0].count(" or ") == 2


def test_names_of_units() -> None:
    spec = own_stream("class").spec
    assert sorted(spec.unit_names()) == sorted(NAMES) and spec.unit_names() != NAMES  # the order is drawn
    assert spec.unit_names() == tuple(name for task in own_stream("class") for name in task.classes)
    bare = clteach.Spec((8,), 2, 4, "class", ((0, 1), (2, 3)))
    assert bare.unit_names() == ("0", "1", "2", "3")  # nobody said what they are called
    shares = dirichlet(clteach.load("digits"), "task", tasks=2, alpha=10.0)
    assert shares.spec.unit_names(1)[10:] == tuple("0123456789")


def test_what_classes_are_called_tells_no_stream_from_another() -> None:
    x, y = raw()
    words, numbers = (split(clteach.from_arrays(x, labels), tasks=3) for labels in (y, np.searchsorted(NAMES, y)))
    assert words.spec == numbers.spec and words.spec.classes != numbers.spec.classes
    learner = clteach.build("finetune", words.spec, hidden=(8,))
    clteach.train(learner, numbers, steps=2)
    assert set(learner.classify(x).names) <= set("012345")  # the names are those of what it was trained on


def test_images_of_every_scale() -> None:
    digits = clteach.load("digits")
    run = clteach.train("joint", split(digits, tasks=5), steps=200, hidden=(50,))
    bytes_, names = digits.x_test, np.array(digits.classes)[digits.y_test]
    for x in (bytes_, bytes_.float() / 255, bytes_[:, 0].numpy(), list(bytes_[:, 0].numpy())):
        assert (run.learner.classify(x).names == names).mean() > 0.9
    sixteen = np.round(bytes_[:, 0].numpy() / 255 * 16).astype(np.int64)
    data = clteach.from_arrays(sixteen, digits.y_test.numpy(), largest=16)
    run = clteach.train("joint", split(data, tasks=5), steps=200, hidden=(50,))
    assert (run.learner.classify(sixteen).names == names).mean() > 0.9


def wide(shape: tuple[int, ...]) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 40))


def wider(shape: tuple[int, ...]) -> torch.nn.Module:
    net = wide(shape)
    with torch.no_grad():
        net[1].weight.mul_(2)  # type: ignore[index]
    return net


def test_behind_a_frozen_extractor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "mine", wide)
    digits = clteach.load("digits")
    stream = split(clteach.encode(digits, "mine", seed=3), tasks=5)
    run = clteach.train("joint", stream, steps=200, hidden=(50,))
    learner = load_learner(run.learner.save(tmp_path / "learner.safetensors"))
    assert (learner.classify(digits.x_test).names == np.array(digits.classes)[digits.y_test]).mean() > 0.8
    monkeypatch.setitem(EXTRACTORS, "mine", wider)
    with pytest.raises(ConfigError, match="'mine' has other weights"):
        learner.classify(digits.x_test)


def test_permuted_images_are_taken_as_the_task_shows_them() -> None:
    stream = permuted(clteach.load("digits"), "domain", tasks=2, pad=0)
    run = clteach.train("joint", stream, steps=150, hidden=(50,))
    batch = stream[1].test.batch(torch.arange(100))
    right = run.learner.classify(batch.x).names == np.array([stream[1].classes[int(u)] for u in batch.y])
    assert right.mean() > 0.8


def test_errors() -> None:
    stream = own_stream("task")
    learner = clteach.build("finetune", stream.spec, hidden=(4,))
    x, _ = raw(2)
    with pytest.raises(ConfigError, match="has not been trained"):
        learner.classify(x, task=0)
    clteach.train(learner, stream, steps=1)
    with pytest.raises(ConfigError, match=r"in Task-IL the task is known: expected task=0\.\.2"):
        learner.classify(x)
    for wrong in (3, -1, [0, 1], 0.5):
        with pytest.raises(ConfigError, match="task="):
            learner.classify(x, task=wrong)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"have 5 features: expected 8"):
        learner.classify(x[:, :5], task=0)
    with pytest.raises(DataError, match="expected finite numbers"):
        learner.classify(x * np.nan, task=0)
    with pytest.raises(DataError, match=r"shape \(2, 1, 8, 8\)"):
        learner.classify(np.ones((2, 8, 8)), task=0)
    known = clteach.train("finetune", own_stream("class"), steps=1, hidden=(4,)).learner
    with pytest.raises(ConfigError, match="in Class-IL the task is not known"):
        known.classify(x, task=0)
    digits = split(clteach.load("digits"), tasks=5)
    vae = clteach.train("vae-finetune", digits, steps=1, hidden=(4,), decoder_hidden=(4,), features="inputs").learner
    with pytest.raises(ConfigError, match="classifies nothing"):
        vae.classify(clteach.load("digits").x_test)
