"""Going on with tasks that come later: to the bit what all tasks from the start give, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import clteach
from clteach.data.dataset import Dataset
from clteach.data.tasks import Stream
from clteach.errors import ConfigError
from clteach.methods import METHODS
from clteach.training.learner_checks import same_state, tiny, toy_data
from clteach.training.run import Run

DATA = toy_data(n_classes=6, n=12)
OPTIONS: dict[str, Any] = {"steps": 4, "batch_size": 5, "device": "cpu"}


def tasks(n: int, scenario: str, data: Dataset = DATA, **settings: Any) -> Stream:
    """The first n tasks of two classes each, made of the data of these tasks alone."""
    pairs = []
    for t in range(n):
        train, test = data.y_train // 2 == t, data.y_test // 2 == t
        pairs.append(((data.x_train[train], data.y_train[train]), (data.x_test[test], data.y_test[test])))
    return clteach.from_tasks(pairs, scenario, **settings)


def trained(name: str, stream: Stream, first: Run | None = None, **settings: Any) -> Run:
    if first is not None:
        return clteach.train(first, stream, first=len(first.accuracy), **OPTIONS)
    cls = METHODS[name]
    return clteach.train(cls(stream.spec, tiny(cls, **settings), seed=0), stream, **OPTIONS)


def same(one: Run, other: Run) -> bool:
    a, b = one.accuracy.tril().nan_to_num(-1), other.accuracy.tril().nan_to_num(-1)
    return same_state(one.learner, other.learner) and torch.equal(a, b) and one.losses == other.losses


@pytest.mark.parametrize("name", METHODS)
def test_every_method_that_knew_how_many_tasks_there_will_be(name: str) -> None:
    scenario = METHODS[name].scenarios[-1]
    whole = tasks(3, scenario)
    for begun in (whole.upto(2), tasks(2, scenario, later=[[4, 5]])):
        run = trained(name, begun)
        before = {key: value.clone() for key, value in run.learner.state_dict().items()}
        assert same(trained(name, whole, first=run), trained(name, whole))
        assert all(torch.equal(value, before[key]) for key, value in run.learner.state_dict().items()), "it was changed"


GROWING = "finetune joint ewc online-ewc si lwf er a-gem generative-replay dream-replay"


@pytest.mark.parametrize("name", GROWING.split())
def test_domain_il_where_nothing_is_made_for_a_number_of_tasks(name: str) -> None:
    run = trained(name, tasks(2, "domain"))
    assert same(trained(name, tasks(3, "domain"), first=run), trained(name, tasks(3, "domain")))


@pytest.mark.parametrize(
    ("name", "scenario"),
    [
        *(("ewc", "class"), ("er", "task"), ("xdg", "task"), ("hypernetwork-ent", "domain"), ("ebgan", "class")),
        *(("brain-inspired-replay", "domain"), ("latent-partition", "class")),
    ],
)
def test_heads_gates_and_embeddings_for_a_number_of_tasks_are_refused(name: str, scenario: str) -> None:
    run = trained(name, tasks(2, scenario))
    with pytest.raises(ConfigError, match=rf"{name} for 3 tasks .* begins with another .*later=.*upto"):
        trained(name, tasks(3, scenario), first=run)


def test_a_learner_alone_goes_on_without_the_results_of_then() -> None:
    whole = tasks(3, "class")
    run = clteach.train(trained("ewc", whole.upto(2)).learner, whole, first=2, **OPTIONS)
    assert run.accuracy[:2].isnan().all() and run.accuracy[2].isfinite().all() and run.seconds[:2] == [0, 0]
    assert same_state(run.learner, trained("ewc", whole).learner) and run.iterations_per_second > 0


def test_it_is_killed_and_resumed_while_it_goes_on(tmp_path: Path) -> None:
    whole, file = tasks(3, "class"), tmp_path / "checkpoint.safetensors"
    run = trained("ewc", whole.upto(2))

    class Stop(Exception):
        pass

    def stop(done: int, total: int, text: str) -> None:
        assert total == 12 and done > 8
        raise Stop

    options: dict[str, Any] = {**OPTIONS, "first": 2, "checkpoint": file, "checkpoint_every": 1, "log_every": 2}
    with pytest.raises(Stop):
        clteach.train(run, whole, progress=stop, **options)
    again = clteach.train(run, whole, **options)
    assert same_state(again.learner, trained("ewc", whole).learner)
    loaded = Run.load(again.save(tmp_path / "run"))
    assert loaded.config["first"] == 2 and torch.equal(loaded.accuracy.nan_to_num(), again.accuracy.nan_to_num())


def test_a_run_goes_on_with_its_own_seed_and_keeps_all_its_results(tmp_path: Path) -> None:
    whole = tasks(3, "class")
    options = {**OPTIONS, "eval_every": 3, "log_every": 2, "hidden": (8,)}
    begun = clteach.train("ewc", whole.upto(2), seed=3, **options)
    del options["hidden"]
    run = clteach.train(begun, whole, first=2, **options)
    asked = clteach.train(begun, whole, first=2, seed=3, **options)
    at_once = clteach.train("ewc", whole, seed=3, **options, hidden=(8,))
    for each in (run, asked, Run.load(run.save(tmp_path))):
        assert same(each, at_once) and each.config == {**at_once.config, "first": 2}
        assert [row["step"] for row in each.curve] == [row["step"] for row in at_once.curve] == [3, 6, 9, 12]
        curve, full = (torch.tensor([row["accuracy"] for row in one.curve]) for one in (each, at_once))
        assert torch.equal(curve[:2, :2], full[:2, :2]) and torch.equal(curve[2:], full[2:])
        assert curve[:2, 2].isnan().all(), "the third task was not there yet"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"seed": 1}, r"seed was 0, is 1.*Say seed=0 as before, or give its learner"),
        ({"steps": 5, "batch_size": 6}, r"steps was 4, is 5; batch_size was 5, is 6.*Say steps=4, batch_size=5"),
        ({"evaluate_on": "valid"}, r"evaluate_on was 'test', is 'valid'.*Say evaluate_on='test'"),
    ],
)
def test_a_run_goes_on_as_it_began(other: dict[str, Any], words: str) -> None:
    """Its results are kept, and its record says one seed and one number of steps."""
    whole = clteach.split(DATA, "class", tasks=3, validation=0.25)
    run = trained("finetune", whole.upto(2))
    with pytest.raises(ConfigError, match=words):
        clteach.train(run, whole, first=2, **{**OPTIONS, **other})
    anew = clteach.train(run.learner, whole, first=2, **{**OPTIONS, **other})
    assert anew.accuracy[:2].isnan().all() and len(anew.losses) == 1


def test_what_cannot_go_on_says_why(tmp_path: Path) -> None:
    whole = tasks(3, "domain")
    run = trained("finetune", whole.upto(2))
    other = tasks(3, "domain", toy_data(n_classes=6, shape=(1, 6, 6)))
    loaded = Run.load(run.save(tmp_path))
    vectors = toy_data((12,), n_classes=6)
    scaled = trained("finetune", tasks(2, "domain", vectors))
    cases: list[tuple[Any, Stream, int, str]] = [
        (run, whole, 1, r"has learned 2 tasks, expected 1\. Say first=2"),
        (run, whole.upto(2), 2, "has 2 tasks, so none is left"),
        (run, other, 2, r"shape was \(1, 8, 8\), is \(1, 6, 6\)"),
        (run, clteach.split(DATA, "domain", classes=[[4, 5], [2, 3], [0, 1]]), 2, "the classes were"),
        (run, clteach.split(DATA, "domain", tasks=2), 2, "none is left"),
        (run, whole, 0, "say first=2 to go on"),
        ("finetune", whole, 2, "give its run or it itself"),
        (loaded, whole, 2, "no moments of its optimiser"),
        (scaled, tasks(3, "domain", vectors), 2, "scaled otherwise"),
    ]
    for learner, stream, first, words in cases:
        with pytest.raises(ConfigError, match=words):
            clteach.train(learner, stream, first=first, **OPTIONS)
    with pytest.raises(ConfigError, match=r"upto\(4\): expected a number of tasks in 1\.\.3"):
        whole.upto(4)


def test_a_learner_of_a_file_goes_on_where_every_task_begins_without_moments(tmp_path: Path) -> None:
    whole = tasks(3, "class")
    run = trained("ewc", whole.upto(2), fresh_optimizer=True)
    assert same(trained("", whole, first=Run.load(run.save(tmp_path))), trained("ewc", whole, fresh_optimizer=True))
