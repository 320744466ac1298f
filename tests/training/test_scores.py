"""No score that cannot be wrong, and none that looks like a result and is none: untrained, constant and NaN learners."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import clteach
from clteach.data.dataset import Dataset
from clteach.data.streams import dirichlet, permuted, split
from clteach.data.tasks import SCENARIOS, Spec, Stream
from clteach.errors import ConfigError, DivergedError
from clteach.experiments.agreement import compare
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.summary import summarise
from clteach.learners.gan import fit
from clteach.learners.learner import Classifier
from clteach.methods import METHODS, build, register
from clteach.methods.ebgan import EBGAN, make_gan
from clteach.metrics import judge
from clteach.models.nets import LeNet
from clteach.training.learner_checks import tiny, toy_data
from clteach.training.loop import train
from clteach.training.pretraining import pretrain


def one_class_tested(scenario: str) -> Stream:
    """A stream whose first task has test samples of one of its two classes alone."""
    data = toy_data()
    keep = data.y_test != 1
    data = Dataset("toy", data.x_train, data.y_train, data.x_test[keep], data.y_test[keep], data.classes)
    return split(data, scenario, tasks=2)


STREAMS: dict[str, Callable[[str], Stream]] = {
    "two classes per task": lambda scenario: split(toy_data(), scenario, tasks=2),
    "unequal tasks": lambda scenario: split(toy_data(n_classes=5), scenario, classes=[[0, 1, 2], [3, 4]]),
    "one class tested": one_class_tested,
    "permuted": lambda scenario: permuted(toy_data(), scenario, tasks=2),
    "dirichlet": lambda scenario: dirichlet(toy_data(n=60), scenario, tasks=2, alpha=4.0),
}


class Constant(Classifier):
    """Always the same answer: unit 1 if it competes, else the first that does."""

    name = "constant"
    summary = "always the same answer"

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return torch.eye(self.spec.n_out)[1].expand(len(x), -1) + 0 * self.net(x)


class Broken(Classifier):
    """Answers that are no numbers."""

    name = "broken"
    summary = "answers that are no numbers"

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return self.net(x) * torch.nan


@pytest.mark.parametrize("shape", STREAMS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_untrained_and_a_constant_learner_can_be_wrong(scenario: str, shape: str) -> None:
    stream = STREAMS[shape](scenario)
    for cls in (METHODS["finetune"], Constant):
        learner = cls(stream.spec, tiny(cls), seed=1).eval()
        for seen in range(len(stream)):
            learner.enter(seen, learner.phases(seen, 1)[0])
            for i, task in enumerate(stream):
                units = learner.active_now[i].sum()
                assert units > 1  # something competes
                if cls is Constant and task.test.y.unique().numel() > 1:
                    assert learner.evaluate(i, task.test) < 1
    if shape == "one class tested":
        assert stream.notes == ("task 1 is tested on one of its 2 classes alone",)
    else:
        assert stream.notes == ()


@pytest.mark.parametrize("scenario", ["task", "domain"])
def test_one_class_per_task_measures_nothing(scenario: str) -> None:
    with pytest.raises(ConfigError, match=r"task 1 has one class.*every answer is right.*'class'"):
        split(toy_data(), scenario, tasks=4)
    with pytest.raises(ConfigError, match="task 1 has one class"):
        Spec((12,), 2, 1, "domain", ((0,), (0,)))


def test_one_class_alone_in_a_task_of_task_il() -> None:
    with pytest.raises(ConfigError, match="task 2 has one class"):
        split(toy_data(), "task", classes=[[0, 1, 2], [3]])
    split(toy_data(), "domain", classes=[[0, 1, 2], [3]])  # three units compete in every task: it can be wrong


def test_class_il_with_one_class_in_task_1_says_so(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=4)
    (note,) = stream.notes
    assert "accuracy after task 1 is 100 %" in note
    assert train("finetune", stream, steps=1, hidden=(4,)).accuracy[0, 0] == 1.0  # whatever was learned
    assert split(toy_data(), "class", tasks=4, active_units="all").notes == ()
    (result,) = run_jobs([Job("finetune", settings={"hidden": (4,)}, steps=1, stream_settings={"tasks": 10})], tmp_path)
    assert result["notes"] == [split(clteach.load("digits"), "class", tasks=10).notes[0]]


def test_domain_il_does_not_give_the_task_away() -> None:
    """In Domain-IL every unit of the stream competes for every sample, also where its own task has fewer classes."""
    spec = split(toy_data(n_classes=7), "domain", classes=[[0, 1, 2, 3, 4], [5, 6]]).spec
    assert spec.active_table(2).all() and spec.replay_masks(1).all()
    learner = build("finetune", spec, hidden=(4,))
    assert learner.active_now.all()
    equal = split(toy_data(), "domain", tasks=2).spec  # recorded tables are of equal tasks: nothing changes
    assert torch.equal(equal.active_table(1), equal.task_units())


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_answers_that_are_no_numbers_have_no_score(scenario: str) -> None:
    stream = split(toy_data(), scenario, tasks=2)
    with pytest.raises(DivergedError, match=r"broken, seed 0: training diverged, its answers on task 1 are not finite"):
        train(Broken(stream.spec, tiny(Broken)), stream, steps=1)


@pytest.mark.parametrize("name", METHODS)
def test_a_diverged_training_is_an_error(name: str) -> None:
    cls = METHODS[name]
    scenario = cls.scenarios[-1]
    stream = split(toy_data(), scenario, tasks=2)
    learner = cls(stream.spec, tiny(cls))
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.fill_(torch.nan)
    with pytest.raises(DivergedError, match=f"{name}, seed 0: training diverged"):
        train(learner, stream, steps=3, batch_size=5)


def test_a_diverged_run_is_a_dash_with_a_note_and_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(METHODS, "broken", Broken)
    quick = ["--iters", "2", "--hidden", "4", "--jobs", "1"]
    from clteach.cli import main

    assert main(["run", "broken", "finetune", *quick, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert document["results"]["broken"]["average_accuracy"] is None
    rows = [line for line in err.splitlines() if line.strip().startswith(("broken", "finetune"))]
    assert rows[0].split()[0] == "finetune" and rows[1].split() == ["broken", *["–"] * (len(rows[1].split()) - 1)]
    assert "note: broken, seed 0: training diverged" in err
    assert main(["sweep", "broken", "finetune", "--set", "lr=1e-3,1e-2", "--by", "method", *quick]) == 0
    said = capsys.readouterr().out
    order = [line.split()[0] for line in said.splitlines() if line.strip().startswith(("broken", "finetune"))]
    assert order == ["finetune", "finetune", "broken", "broken"]
    assert "best for broken on held-out training data: lr=0.001 with –" in said
    # alone it has no picture, and is still no traceback
    assert main(["run", "broken", *quick]) == 0
    assert "none, every training diverged" in capsys.readouterr().out


def test_seeds_that_diverge_are_not_averaged_over() -> None:
    fine: dict[str, Any] = {
        "average_accuracy": 0.9,
        "forgetting": 0.0,
        "accuracy": [[0.9]],
        "seconds": 1.0,
        "iterations_per_second": 1.0,
        "job": {"settings": {}},
    }
    gone = {**dict.fromkeys(fine), "job": {"settings": {}}, "diverged": "seed 1 blew up"}
    both = summarise([fine, gone])
    assert both["average_accuracy"] is None and both["diverged"] == ["seed 1 blew up"]
    assert compare(None, {"mean": 90.0, "sem": 1.0})["verdict"] == "diverged"


def test_generators_judges_and_extractors_that_blow_up_say_so(tmp_path: Path) -> None:
    gan = make_gan((2,), EBGAN.Config(z=2, hidden=(4,), critic_hidden=(4,), objective="gan"), bounded=False)
    with pytest.raises(DivergedError, match="the game diverged"):
        fit(gan, torch.full((10, 2), torch.nan), 3, 5)
    data = toy_data((3, 32, 32), n=4)
    with pytest.raises(DivergedError, match="pre-training diverged"):
        pretrain(data, tmp_path / "conv", hidden=(4,), epochs=1, batch_size=8, lr=float("1e30"))
    stream = split(toy_data(), "class", tasks=2)
    net = LeNet(1, 4)
    with torch.no_grad():
        next(net.parameters()).fill_(torch.inf)
    with pytest.raises(DivergedError, match="judges generated images diverged"):
        judge.fit(net, stream[0].train)


def test_a_trained_learner_is_not_trained_again(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    learner = build("finetune", stream.spec, hidden=(4,))
    train(learner, stream, steps=1)
    for used in (learner, clteach.load_learner(learner.save(tmp_path / "learner.safetensors"))):
        with pytest.raises(ConfigError, match=r"has been trained already, up to task 2.*Build a new one"):
            train(used, stream, steps=1)
    # a checkpoint that is there takes the learner back to where it was
    file = tmp_path / "checkpoint.safetensors"
    first = train("finetune", stream, steps=2, hidden=(4,), checkpoint=file)
    again = train(first.learner, stream, steps=2, checkpoint=file)
    assert torch.equal(first.accuracy, again.accuracy)


def test_a_name_that_is_registered_anew_is_the_new_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "broken", METHODS["finetune"])
    register(Broken)
    assert METHODS["broken"] is Broken
    spec = replace(split(toy_data(), "class", tasks=2).spec)
    assert isinstance(build("broken", spec, hidden=(4,)), Broken)
