"""Which classes each task has, in Python and on the command line; and the average incremental accuracy of such streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import clteach as package
from clteach import cli, metrics
from clteach.cli import options
from clteach.data.catalogue import load
from clteach.data.streams import class_counts, split
from clteach.errors import ConfigError
from clteach.experiments.summary import incremental
from clteach.training.learner_checks import toy_data

TINY = ("--iters", "3", "--batch", "16", "--hidden", "8", "--jobs", "1", "--device", "cpu")


# ---------------------------------------------------------------------------------------------------------- Python


@pytest.mark.parametrize(
    ("n", "how", "sizes"),
    [
        (10, {}, [2] * 5),
        (10, {"tasks": 2}, [5, 5]),
        (100, {"first": 50, "then": 5}, [50] + [5] * 10),  # PyCIL's B50 with 5 classes per step
        (100, {"then": 10}, [10] * 10),  # B0
        (100, {"first": 50, "then": 20}, [50, 20, 20, 10]),  # as in PyCIL, the rest is a task of its own
        (10, {"first": 10}, [10]),
        (10, {"first": 4, "then": 100}, [4, 6]),
        (10, {"first": 4, "then": 2, "tasks": 4}, [4, 2, 2, 2]),
    ],
)
def test_class_counts(n: int, how: dict[str, int], sizes: list[int]) -> None:
    assert class_counts(n, **how) == sizes


@pytest.mark.parametrize(
    "how", [{"first": 4}, {"first": 0, "then": 2}, {"then": 0}, {"first": 11, "then": 1}, {"then": -1}]
)
def test_class_counts_that_cannot_work(how: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"first=.*, then=.*'digits' has \(10 classes in all\)\. Set both"):
        class_counts(10, name="digits", **how)


def test_first_and_then_cut_the_order_of_classes() -> None:
    data = toy_data(n_classes=6)
    stream = split(data, first=3, then=2, class_order=[5, 3, 1, 0, 2, 4])
    assert [task.classes for task in stream] == [("5", "3", "1"), ("0", "2"), ("4",)]
    assert stream.spec.units == ((0, 1, 2), (3, 4), (5,))
    named = split(data, classes=[[5, 3, 1], [0, 2], [4]])
    assert stream.spec == named.spec
    assert [len(task.train) for task in stream] == [len(task.train) for task in named] == [72, 48, 24]
    shuffled = [split(data, then=1, class_order="random", seed=seed)[0].classes for seed in range(8)]
    assert len(set(shuffled)) > 1  # a seed has its own order, as PyCIL's shuffle
    with pytest.raises(ConfigError, match="tasks=4, but first=3 and then=2 make 3 tasks of 6 classes"):
        split(data, tasks=4, first=3, then=2)
    for more in ({"tasks": 3}, {"first": 2, "then": 1}):
        with pytest.raises(ConfigError, match=r"the classes of 2 tasks beside (tasks=3|first=2, then=1): .*Leave"):
            split(data, classes=[[0, 1], [2]], **more)  # type: ignore[arg-type]
    assert len(split(data, classes=[[0, 1], [2]], tasks=2)) == 2


# ---------------------------------------------------------------------------------------------------- command line


def _parsed(*words: str) -> dict[str, Any]:
    args, settings = options.parse_run(["finetune", *words])
    return dict(options.jobs(args, "finetune", settings["finetune"])[0].stream_settings)


def test_options_become_arguments_of_the_stream() -> None:
    assert _parsed() == {"tasks": 5}  # the preset's
    assert _parsed("--classes", "0,1,2", "7", "3-5,9") == {"classes": [[0, 1, 2], [7], [3, 4, 5, 9]]}
    assert _parsed("--first", "4", "--then", "2") == {"first": 4, "then": 2}
    assert _parsed("--then", "2", "--class-order", "random") == {"then": 2, "class_order": "random"}
    assert _parsed("--class-order", "random") == {"tasks": 5, "class_order": "random"}
    assert _parsed("--tasks", "2", "--first", "4", "--then", "6") == {"tasks": 2, "first": 4, "then": 6}
    mnist = _parsed("--stream", "split-mnist", "--first", "4", "--then", "3")
    assert mnist == {"class_order": "random", "active_units": "all", "first": 4, "then": 3}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--classes 0,1 x", "--classes x: expected the numbers of the classes of one task, separated by commas"),
        ("--classes 0, 1", "--classes 0,: expected"),
        ("--classes 4-2", "--classes 4-2: expected"),
        ("--classes 0,1 1,2", "class 1 is unknown or named twice"),
        ("--classes 0,12", "class 12 is unknown"),
        ("--classes", "a task without classes"),
        ("--classes 0,1 2,3 --class-order random", "leave --class-order out"),
        ("--classes 0,1 2,3 --tasks 3", "beside tasks=3"),
        ("--first 4", "Set both"),
        ("--first 4 --then many", "['many']"),
        ("--tasks 3", "a number of tasks out of 1, 2, 5, 10, or set the classes of each task (classes), or the number"),
        (
            "--stream permuted-digits --first 2 --then 2",
            "--first with --stream permuted-digits: its tasks are not made of",
        ),
        ("--stream dirichlet-digits --class-order random", "--class-order with --stream dirichlet-digits"),
    ],
)
def test_one_clear_message(
    words: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "finetune", *TINY, *words.split()]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert "=[[" not in said.split("Expected")[-1] and "split(" not in said  # no advice that only Python can follow


def test_help_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "finetune", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("--first", "init_cls in PyCIL", "--then", "increment in PyCIL", "--classes", "0,1,2 7 3-6"):
        assert words in said


def test_run_on_uneven_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["run", "finetune", "joint", *TINY, "--first", "6", "--then", "3", "--seeds", "2", "--json"]
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["stream_settings"] == {"first": 6, "then": 3}
    assert "incremental (%)" in err
    tests = [len(task.test) for task in split(load("digits"), first=6, then=3)]
    for result in document["results"].values():
        by_hand = {"average_incremental_accuracy": [1, 1, 1], "average_incremental_accuracy_by_samples": tests}
        for key, weights in by_hand.items():
            scores = []
            for R in result["accuracy_matrices"]:
                seen = [sum(w * v for w, v in zip(weights, row[: t + 1], strict=False)) for t, row in enumerate(R)]
                scores.append(sum(s / sum(weights[: t + 1]) for t, s in enumerate(seen)) / 3)
            assert result[key]["seeds"] == pytest.approx(scores, abs=2e-6)  # the matrices are rounded
            assert f"{100 * result[key]['mean']:.1f}" in err or key == "average_incremental_accuracy"


# -------------------------------------------------------------------------------------------- incremental accuracy


def test_average_incremental_accuracy_by_hand() -> None:
    R = torch.tensor([[0.9, torch.nan, torch.nan], [0.6, 0.8, torch.nan], [0.5, 0.7, 1.0]])
    assert metrics.average_incremental_accuracy(R) == pytest.approx((0.9 + 0.7 + 2.2 / 3) / 3)
    # 50 classes, then 10 and 10: what counts is the share of all test samples
    by_samples = (0.9 + (50 * 0.6 + 10 * 0.8) / 60 + (50 * 0.5 + 10 * 0.7 + 10 * 1.0) / 70) / 3
    assert metrics.average_incremental_accuracy(R, [50, 10, 10]) == pytest.approx(by_samples)
    assert metrics.average_incremental_accuracy(R, torch.tensor([500, 100, 100])) == pytest.approx(by_samples)
    equal = metrics.average_accuracy_over_time(R).mean()
    assert metrics.average_incremental_accuracy(R, [7, 7, 7]) == pytest.approx(float(equal))
    assert package.average_incremental_accuracy is metrics.average_incremental_accuracy
    for bad in ([1, 2], [1, 2, 0], [1, 2, torch.nan], [[1, 2, 3]]):
        with pytest.raises(ConfigError, match="expected 3 numbers of test samples above 0"):
            metrics.average_incremental_accuracy(R, bad)  # type: ignore[arg-type]


def test_by_samples_it_is_the_accuracy_on_all_samples_seen() -> None:
    """As PyCIL computes it: after each task one accuracy on the test samples of all classes so far, pooled."""
    stream = split(toy_data(n_classes=6), first=3, then=2)
    rng = torch.Generator().manual_seed(0)
    pooled, matrix = [], torch.full((3, 3), torch.nan)
    for t in range(3):  # guesses of any classifier will do
        right = [torch.rand(len(task.test), generator=rng) < 0.3 + 0.2 * i for i, task in enumerate(stream)]
        matrix[t] = torch.stack([r.double().mean() for r in right])
        pooled.append(torch.cat(right[: t + 1]).double().mean())
    samples = [len(task.test) for task in stream]
    assert metrics.average_incremental_accuracy(matrix, samples) == pytest.approx(float(torch.stack(pooled).mean()))


def test_results_that_do_not_say_it_have_none() -> None:
    result = {"accuracy": [[1.0]], "samples": [5]}
    assert incremental([result])["average_incremental_accuracy"]["mean"] == 1.0
    assert incremental([{"accuracy": [[1.0]]}]) == {}  # of an earlier version
    assert incremental([result, {"accuracy": None, "samples": [5]}]) == {}  # diverged
    assert incremental([{"fid": [[1.0]], "samples": [5]}]) == {}
