"""Jobs and recipes: the same numbers wherever a job runs, nothing repeated that is finished, honest records."""

from __future__ import annotations

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach import results
from clteach.cli.commands import grid
from clteach.data.extractors import EXTRACTORS
from clteach.errors import CheckpointError, ClteachError, ConfigError, DataError
from clteach.experiments import jobs, papers, provenance, recording
from clteach.experiments.agreement import compare
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.recipe import Recipe, Row, Study, by
from clteach.experiments.recording import reproduce
from clteach.experiments.summary import summarise
from clteach.learners.learner import Classifier
from clteach.methods import METHODS, register
from clteach.results import records
from clteach.storage import load_sealed, save_tensors, sealed, write_json
from clteach.training.loop import train
from clteach.training.run import Run

TINY = Job("finetune", steps=3, batch=16, settings={"hidden": (8,)}, device="cpu")
REPLAY = replace(TINY, method="generative-replay", settings={"hidden": (8,), "z": 3}, seed=1)


def accuracies(found: list[dict[str, Any]]) -> list[Any]:
    return [result["accuracy"] for result in found]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The two jobs, one after the other in this process."""
    return run_jobs([TINY, REPLAY], tmp_path_factory.mktemp("alone"), n_jobs=1)


def test_a_job_is_train_with_the_same_seed(alone: list[dict[str, Any]]) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for job, result in zip([TINY, REPLAY], alone, strict=True):
        run = train(job.method, job.make_stream(job.seed), steps=3, batch_size=16, seed=job.seed, **job.settings)
        assert result["accuracy"] == run.accuracy.tolist()
        assert result["average_accuracy"] == pytest.approx(float(run.accuracy[-1].mean()))
        assert result["fingerprint"] == run.config["fingerprint"]
    torch.set_num_threads(threads)


def test_processes_give_the_same_numbers(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    assert accuracies(run_jobs([TINY, REPLAY], tmp_path, n_jobs=2)) == accuracies(alone)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed.*", "ignore::DeprecationWarning:tornado.*")
def test_a_dask_cluster_gives_the_same_numbers(alone: list[dict[str, Any]], tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    assert accuracies(run_jobs([TINY, REPLAY], tmp_path, n_jobs=1, backend="dask")) == accuracies(alone)


def test_ray_missing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install ray"):
        run_jobs([TINY], tmp_path, backend="ray")


def test_global_state_is_left_as_it_was(tmp_path: Path) -> None:
    state, threads, folder = torch.get_rng_state(), torch.get_num_threads(), os.getcwd()
    run_jobs([REPLAY], tmp_path, n_jobs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert os.getcwd() == folder


def test_a_finished_job_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = run_jobs([TINY], tmp_path, n_jobs=1)
    assert not first["read_back"]
    assert not list(tmp_path.rglob("checkpoint*")) and not list(tmp_path.rglob("progress"))
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "run_job", lambda *_: pytest.fail("a finished job was repeated"))
        (again,) = run_jobs([TINY], tmp_path, n_jobs=1)
        # what is not said and what is said as the default are the same job
        run_jobs([replace(TINY, settings={"hidden": [8], "lr": 1e-3})], tmp_path, n_jobs=1)
    assert again == {**first, "read_back": True}
    assert not run_jobs([TINY], tmp_path, n_jobs=1, fresh=True)[0]["read_back"]


FINETUNE = """
data.catalogue data.dataset data.own_data data.tasks errors learners.generator learners.learner learners.optim
learners.penalty methods.finetune metrics.generation metrics.judge models.frozen models.nets progress seeding storage
training.checkpoint training.loop training.run training.start
""".split()


def test_other_settings_are_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        replace(TINY, seed=1),
        replace(TINY, steps=4),
        replace(TINY, batch=17),
        replace(TINY, scenario="task"),
        replace(TINY, settings={"hidden": (8,), "lr": 1e-2}),
        replace(TINY, stream_settings={"class_order": "random"}),
        replace(TINY, stream="permuted-digits"),
    ]
    folders = {plan.folder for plan in jobs._plan([TINY, *others], tmp_path)}
    assert len(folders) == 1 + len(others)
    # the code is part of a job: that of its own method and of what that stands on, not that of other methods
    sources = jobs._code(METHODS["finetune"]), jobs._code(METHODS["ewc"])
    assert sources[0] != sources[1]
    monkeypatch.setattr(jobs, "_code", lambda cls: "another version")
    assert jobs._plan([TINY], tmp_path)[0].folder not in folders


def test_the_code_of_a_run_is_all_that_it_executes() -> None:
    """Fine-tuning stands on these modules and on no others; EWC and what it shares with others come on top."""
    visited = set(provenance.sources("clteach.training.loop", "clteach.methods.finetune"))
    assert visited == {f"clteach.{name}" for name in FINETUNE}
    assert set(provenance.sources("clteach.training.loop", "clteach.methods.ewc")) - visited == {
        "clteach.methods.ewc",
        "clteach.learners.fisher",
    }
    assert jobs.train.__module__ in visited  # the loop, wherever it stands


def test_a_module_of_the_package_that_cannot_be_read_is_no_unchanged_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError):
        provenance.sources("clteach.no_such_module")

    def unreadable(module: Any) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(provenance.inspect, "getsource", unreadable)
    with pytest.raises(OSError, match="source"):
        provenance.code("clteach.methods.finetune")


def test_an_interrupted_job_goes_on_from_its_checkpoint(
    alone: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_task_3(done: int, total: int, text: str) -> None:
        if text.startswith("task 3"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "to_file", lambda path: stop_in_task_3)
        with pytest.raises(KeyboardInterrupt):
            run_jobs([REPLAY], tmp_path, n_jobs=1)
    assert list(tmp_path.rglob("checkpoint*"))
    reports: list[str] = []
    monkeypatch.setattr(jobs, "to_file", lambda path: lambda done, total, text: reports.append(text))
    assert accuracies(run_jobs([REPLAY], tmp_path, n_jobs=1)) == accuracies(alone)[1:]
    assert reports and not any(text.startswith(("task 1", "task 2")) for text in reports)


def test_trained_models_are_kept_when_asked_for(tmp_path: Path) -> None:
    (result,) = run_jobs([TINY], tmp_path, n_jobs=1, keep=True)
    (folder,) = (tmp_path / "runs").iterdir()
    run = Run.load(folder)
    assert run.accuracy.tolist() == result["accuracy"]
    assert run.learner.evaluate(0, TINY.make_stream(0)[0].test) == result["accuracy"][-1][0]


def test_longest_job_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def dispatch(tasks: list[Any], *_: Any) -> list[Any]:
        order.extend(f"{task[0].method} {task[0].steps}" for task in tasks)
        return [jobs.run_job(*task) for task in tasks]

    monkeypatch.setattr(jobs, "_dispatch", dispatch)
    run_jobs([TINY, REPLAY, replace(TINY, steps=4)], tmp_path)
    assert order == ["generative-replay 3", "finetune 4", "finetune 3"]


class OwnMethod(Classifier):
    """A method of the user's own, registered here and not in the workers."""

    name = "own-method"
    summary = "a test's method"


def test_a_method_of_ones_own_runs_in_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "own-method", OwnMethod)
    own = [replace(TINY, method="own-method", seed=seed) for seed in range(2)]
    register(OwnMethod)
    expected = accuracies(run_jobs(own, tmp_path / "here", n_jobs=1))
    assert accuracies(run_jobs(own, tmp_path / "there", n_jobs=2)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "0 iterations"),
        ({"batch": 0}, "batches of 0"),
        ({"seed": -1}, "seed -1"),
        ({"method": "finetoon"}, "Did you mean 'finetune'"),
        ({"stream": "split-digit"}, "Did you mean 'split-digits'"),
        ({"stream": "cut-digits"}, "unknown stream 'cut-digits'"),
        ({"scenario": "clas"}, "Did you mean 'class'"),
        ({"settings": {"lam": 1}}, "no setting 'lam'"),
        ({"stream_settings": {"tasks": 3}}, "do not divide into 3 tasks"),
        ({"evaluate_on": "valid"}, "validation > 0"),
    ],
)
def test_bad_jobs_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_jobs([replace(TINY, **change)], tmp_path, n_jobs=1)


def test_an_error_in_another_process_arrives_whole(tmp_path: Path) -> None:
    both = [TINY, replace(TINY, seed=1)]
    for plan in jobs._plan(both, tmp_path):
        plan.folder.mkdir(parents=True)
        (plan.folder / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ClteachError, match=r"checkpoint\.safetensors is damaged"):
        run_jobs(both, tmp_path, n_jobs=2)


def test_unusable_places_and_backends_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ClteachError, match=r"cannot write into .*file"):
        run_jobs([TINY], tmp_path / "file", n_jobs=1)
    with pytest.raises(ConfigError, match="Did you mean 'dask'"):
        run_jobs([TINY], tmp_path, backend="dusk")
    with pytest.raises(ConfigError, match="0 processes"):
        run_jobs([TINY], tmp_path, n_jobs=0)


def test_missing_data_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(
        "clteach.data.catalogue._read_torchvision", lambda *_, **__: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(DataError, match="mnist could not be downloaded"):
        run_jobs([replace(TINY, stream="split-mnist")], tmp_path, n_jobs=1)


def test_summary_over_seeds() -> None:
    job = {"settings": {"lr": 1}}
    first = {"job": job, "average_accuracy": 0.5, "accuracy": [[1.0, None], [0.0, 1.0]], "forgetting": 1.0}
    second = {"job": job, "average_accuracy": 0.9, "accuracy": [[1.0, None], [0.8, 1.0]], "forgetting": 0.2}
    speed = {"seconds": 2.0, "iterations_per_second": 100.0}
    summary = summarise([{**first, **speed}, {**second, **speed, "seconds": 4.0}])
    assert summary["average_accuracy"]["mean"] == pytest.approx(0.7)
    assert summary["average_accuracy"]["sem"] == pytest.approx(0.2)  # √(0.08 / 2)
    assert summary["average_accuracy"]["seeds"] == [0.5, 0.9]
    assert summary["forgetting"]["mean"] == pytest.approx(0.6)
    assert summary["accuracy_matrix"] == [[1.0, None], [pytest.approx(0.4), 1.0]]
    assert summary["accuracy_matrices"] == [[[1.0, None], [0.0, 1.0]], [[1.0, None], [0.8, 1.0]]]
    assert (summary["seconds"], summary["iterations_per_second"]) == (3.0, 100.0)
    alone = summarise([{**first, **speed}])
    assert alone["average_accuracy"]["sem"] is None and "accuracy_matrices" not in alone
    # What no task has taught yet is only kept in the mean.
    ahead = summarise([{**first, **speed, "accuracy": [[1.0, 0.5], [0.0, 1.0]]}] * 2)
    assert ahead["accuracy_matrix"][0] == [1.0, 0.5] and ahead["accuracy_matrices"][0][0] == [1.0, None]


def test_matrices_of_a_record(tmp_path: Path) -> None:
    one, two = [[0.9, None], [0.3, 0.8]], [[0.7, None], [0.5, 0.6]]
    cell = {"row": "own", "scenario": "class", "accuracy_matrix": one, "average_accuracy": {"seeds": [0.55]}}
    path = tmp_path / "own.json"

    def written(**more: Any) -> str:
        path.write_text(json.dumps({"command": "clteach reproduce own", "cells": [{**cell, **more}]}))
        return str(path)

    (R,) = results.matrices(written())["own"]
    np.testing.assert_allclose(R, [[0.9, np.nan], [0.3, 0.8]])
    several = {"average_accuracy": {"seeds": [0.55, 0.55]}}
    found = results.matrices(written(**several, accuracy_matrices=[one, two]), "class")
    np.testing.assert_allclose(torch.stack(found["own"])[:, 1], [[0.3, 0.8], [0.5, 0.6]])
    with pytest.raises(DataError, match=r"holds no accuracy_matrices: .* To record it again: `clteach reproduce own`"):
        results.matrices(written(**several))
    (R,) = results.matrices(written(precision_matrix=two), measure="precision")["own"]
    np.testing.assert_allclose(R, [[0.7, np.nan], [0.5, 0.6]])
    with pytest.raises(DataError, match="holds no recall_matrix"):
        results.matrices(written(), measure="recall")
    with pytest.raises(ConfigError, match="unknown scenario 'task'"):
        results.matrices(written(), "task")


def test_grid_has_every_combination_once() -> None:
    assert grid({"a": [1, 2], "b": [3, 4]}) == [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
    assert grid({}) == [{}]


@pytest.mark.parametrize(
    ("mean", "sem", "paper", "paper_sem", "verdict"),
    [
        (0.904, 0.0, 90.0, 0.1, "agrees"),  # within 0.5 points
        (0.906, 0.0, 90.0, 0.1, "differs"),
        (0.96, 0.02, 90.0, 1.5, "agrees"),  # 2.5 √(2² + 1.5²) = 6.25
        (0.963, 0.02, 90.0, 1.5, "differs"),
        (0.914, 0.0, 90.0, None, "agrees"),  # no SEM published: 1.5 points
        (0.916, 0.0, 90.0, None, "differs"),
        (0.92, 0.01, 90.0, None, "agrees"),  # or 2.5 SEM of ours
        (0.904, None, 90.0, 0.1, "agrees"),  # one seed
    ],
)
def test_agreement_rule(mean: float, sem: float | None, paper: float, paper_sem: float | None, verdict: str) -> None:
    result = compare({"mean": mean, "sem": sem}, {"mean": paper, "sem": paper_sem})
    assert result["verdict"] == verdict
    assert result["difference"] == pytest.approx(100 * mean - paper)
    assert (
        compare({"mean": mean, "sem": sem}, {"mean": paper, "sem": paper_sem}, withheld=True)["verdict"] == "withheld"
    )
    assert compare({"mean": mean, "sem": sem}, None)["verdict"] == "not published"


@pytest.fixture
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """split-digits with two quick rows and a published number."""
    recipe = papers.RECIPES["split-digits"]
    rows = {"None": Row("finetune", {"hidden": (8,)}), "later": Row("not-registered")}
    monkeypatch.setitem(papers.RECIPES, "split-digits", replace(recipe, rows=rows, paper_seeds=20))
    number = {"mean": 50.0, "sem": 1.0, "source": "a paper"}
    monkeypatch.setattr(recording, "published", lambda *where: number if where[-1] == "class" else None)


@pytest.mark.usefixtures("small_recipe")
def test_a_record_holds_what_its_numbers_depend_on(tmp_path: Path) -> None:
    path = reproduce("split-digits", tmp_path, iters=2, seeds=2, device="cpu", n_jobs=1)
    record = json.loads(path.read_text())
    assert path.name == "split_digits_shortened.json"
    assert record["shortened"] is True
    assert record["command"] == "clteach reproduce split-digits --seeds 2 --iters 2"
    full = papers.column("digits", "split-digits").steps
    assert record["deviations"] == ["2 seeds instead of 20", f"2 steps per task instead of {full}"]
    for key in ("version", "python", "torch", "training_seconds", "wall_seconds"):
        assert record[key], key
    assert record["device"]["type"] == "cpu" and record["device"]["threads_per_process"] == 1
    assert record["stream"]["fingerprint"] == replace(TINY, scenario="task").make_stream(0).fingerprint
    assert [cell["scenario"] for cell in record["cells"]] == [
        "task",
        "domain",
        "class",
    ]  # no row for what is not registered
    cell = record["cells"][2]
    assert cell["row"] == "None" and cell["settings"]["hidden"] == [8]
    seeds = cell["average_accuracy"]["seeds"]
    assert len(seeds) == 2 and cell["average_accuracy"]["mean"] == pytest.approx(sum(seeds) / 2)
    assert cell["published"]["mean"] == 50.0 and cell["verdict"] == "withheld"
    assert record["cells"][0]["verdict"] == "not published"

    # repeated, everything is read back: the same numbers, but no wall-clock time of its own
    again = json.loads(reproduce("split-digits", tmp_path, iters=2, seeds=2, device="cpu", n_jobs=1).read_text())
    assert again["cells"] == record["cells"] and again["wall_seconds"] is None


@pytest.mark.usefixtures("small_recipe")
def test_runs_of_several_machines_make_one_record(tmp_path: Path) -> None:
    """The finished runs of a long recipe may be carried to another machine, which goes on with the next seed."""
    reproduce("split-digits", tmp_path / "there", iters=2, seeds=1, device="cpu", n_jobs=1)
    for file in (tmp_path / "there").rglob("result.json"):
        there = load_sealed(file)
        there |= {"device": {**there["device"], "cpu": "another CPU"}, "commit": "another commit"}
        copy = tmp_path / "here" / file.relative_to(tmp_path / "there")
        copy.parent.mkdir(parents=True)
        write_json(copy, sealed(there))
    path = reproduce("split-digits", tmp_path / "here", iters=2, seeds=2, device="cpu", n_jobs=1)
    record, alone = json.loads(path.read_text()), provenance.machine()
    assert record["device"] == {**alone, "cpu": f"another CPU, {alone['cpu']}"}
    assert record["commit"] == f"another commit, {provenance.checkout()}"
    assert record["wall_seconds"] is None
    assert "2 seeds" in results.report(str(path)) and f"on another CPU, {alone['cpu']}" in results.report(str(path))


@pytest.mark.usefixtures("small_recipe")
def test_a_full_run_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    column = papers.PRESETS["digits"].columns["split-digits"]
    quick = {**papers.PRESETS["digits"].columns, "split-digits": replace(column, steps=2)}
    monkeypatch.setitem(papers.PRESETS, "digits", replace(papers.PRESETS["digits"], columns=quick))
    path = reproduce("split-digits", tmp_path, device="cpu", n_jobs=1)
    record = results.load(str(path))
    assert path.name == "split_digits.json" and not record["shortened"] and record["seeds"] == [0, 1, 2]
    assert record["command"] == "clteach reproduce split-digits"
    assert record["cells"][2]["verdict"] in ("agrees", "differs")

    table = results.table(str(path))
    assert table["mean"].tolist() == [pytest.approx(100 * cell["average_accuracy"]["mean"]) for cell in record["cells"]]
    assert math.isnan(table["published"][0]) and table["published"][2] == 50.0
    lines = results.markdown(str(path)).splitlines()
    assert lines[0] == "| method | scenario | ours | published | difference | verdict |"
    assert "| 50.0 ± 1.0 |" in lines[-1] and "| – |" in lines[2]
    agreeing = int(record["cells"][2]["verdict"] == "agrees")
    assert f"{agreeing} of 1 published cells agree" in results.report(str(path))
    assert "weak evidence" not in results.report(str(path))
    assert results.scores(str(path), "class") == {"None": record["cells"][2]["average_accuracy"]["seeds"]}
    with pytest.raises(ConfigError, match="unknown scenario 'None'"):
        results.scores(str(path))


@pytest.mark.usefixtures("small_recipe")
@pytest.mark.parametrize("own", [1, 2, 5])
def test_one_seed_is_judged_only_where_the_recipe_has_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: int
) -> None:
    monkeypatch.setitem(papers.RECIPES, "split-digits", replace(papers.RECIPES["split-digits"], seeds=own))
    digits = papers.PRESETS["digits"]
    quick = {**digits.columns, "split-digits": replace(digits.columns["split-digits"], steps=1)}
    monkeypatch.setitem(papers.PRESETS, "digits", replace(digits, columns=quick))
    path = reproduce("split-digits", tmp_path, seeds=1, device="cpu", n_jobs=1)
    record, report = results.load(str(path)), results.report(str(path))
    assert record["shortened"] == ("A shortened run" in report) == (own > 1)
    judged = own == 1
    assert (record["cells"][2]["verdict"] != "withheld") == ("so a verdict is weak evidence" in report) == judged


def test_a_row_may_have_its_own_stream_and_depend_on_the_scenario(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
        "2": Row("finetune", {"hidden": by(None, (8,), (9,))}, {"tasks": 2}),
        "5": Row("ewc", {"hidden": (8,), "lam": by(None, 1.0, 2.0)}),
        "gone": Row("joint"),
    }
    recipe = replace(
        papers.RECIPES["split-digits"],
        rows=rows,
        scenarios=("domain", "class"),
        steps=2,
        axis="tasks",
        deviations=("short",),
    )
    monkeypatch.setitem(papers.RECIPES, "split-digits", recipe)
    digits = papers.PRESETS["digits"]
    monkeypatch.setitem(papers.PRESETS, "digits", replace(digits, without=("gone",)))
    record = json.loads(reproduce("split-digits", tmp_path, seeds=1, device="cpu", n_jobs=1).read_text())
    assert [(cell["row"], cell["scenario"]) for cell in record["cells"]] == [
        ("2", "domain"),
        ("2", "class"),
        ("5", "domain"),
        ("5", "class"),
    ]
    assert [len(cell["accuracy_matrix"]) for cell in record["cells"]] == [2, 2, 5, 5]
    assert [cell["settings"]["hidden"] for cell in record["cells"]] == [[8], [9], [8], [8]]
    assert [cell["settings"]["lam"] for cell in record["cells"][2:]] == [1.0, 2.0]
    assert record["axis"] == "tasks" and record["steps"] == 2 and "short" in record["deviations"]
    assert results.shown(str(tmp_path / "split_digits_shortened.json"))[0][0] == "tasks"


def test_fewer_permutations_make_a_shortened_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(
        papers.RECIPES["split-digits"],
        stream="permuted-digits",
        rows={"None": Row("finetune", {"hidden": (8,)}, {"tasks": 3, "test_samples": 20})},
        scenarios=("domain",),
        steps=2,
        seeds=1,
    )
    monkeypatch.setitem(papers.RECIPES, "long", recipe)
    whole = json.loads(reproduce("long", tmp_path, device="cpu", n_jobs=1).read_text())
    assert not whole["shortened"] and len(whole["cells"][0]["accuracy_matrix"]) == 3
    path = reproduce("long", tmp_path, tasks=2, device="cpu", n_jobs=1)
    record = json.loads(path.read_text())
    assert record["shortened"] and path.name == "long_shortened.json"
    assert record["command"] == "clteach reproduce long --tasks 2"
    assert record["deviations"] == ["2 permutations instead of 3"]
    cell = record["cells"][0]
    assert len(cell["accuracy_matrix"]) == 2 and cell["stream"]["tasks"] == 2 and cell["stream"]["test_samples"] == 20
    with pytest.raises(ConfigError, match="tasks=4: expected between 1 and 3"):
        reproduce("long", tmp_path, tasks=4, device="cpu", n_jobs=1)
    for name in ("split-digits", "ebgan-modes"):
        with pytest.raises(ConfigError, match=f"the tasks of {name} are fixed"):
            reproduce(name, tmp_path, tasks=2)


def test_a_row_behind_an_extractor_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "flat", lambda shape: torch.nn.Flatten())
    about = {"classes": [0, 1], "epochs": 3, "batch_size": 7, "lr": 1e-3, "accuracy": 0.75}
    save_tensors(tmp_path / "flat.safetensors", {}, about)
    stream = {"extractor": "flat", "weights": str(tmp_path / "flat.safetensors")}
    rows = {"images": Row("finetune", {"hidden": (8,)}), "features": Row("finetune", {"hidden": (8,)}, stream)}
    recipe = replace(papers.RECIPES["split-digits"], rows=rows, scenarios=("class",))
    monkeypatch.setitem(papers.RECIPES, "split-digits", recipe)
    record = json.loads(reproduce("split-digits", tmp_path, seeds=1, iters=2, device="cpu", n_jobs=1).read_text())
    images, behind = record["cells"]
    assert "stream" not in images and {**stream, "fingerprint": behind["stream"]["fingerprint"]} == behind["stream"]
    assert behind["stream"]["fingerprint"] != record["stream"]["fingerprint"]
    assert images["average_accuracy"] == behind["average_accuracy"]  # to flatten changes nothing
    assert "2 classes, 3 epochs in batches of 7, Adam 0.001; 75.0 % of the test images" in record["deviations"][0]
    save_tensors(tmp_path / "flat.safetensors", {}, {})
    with pytest.raises(CheckpointError, match="does not say how it was made"):
        reproduce("split-digits", tmp_path, seeds=1, iters=2, device="cpu", n_jobs=1)


def test_other_weights_of_the_same_name_are_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layer(shape: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))

    monkeypatch.setitem(EXTRACTORS, "layer", layer)
    file, folders = tmp_path / "layer.safetensors", []
    settings = {"extractor": "layer", "weights": str(file), "hidden": (8,)}
    before = Job("finetune", settings={"hidden": (8,)}, stream_settings={"extractor": "layer", "weights": str(file)})
    for scale in (1.0, 2.0):
        save_tensors(file, {"1.weight": torch.full((5, 64), scale), "1.bias": torch.zeros(5)}, {})
        plans = jobs._plan([before, Job("brain-inspired-replay", settings=settings)], tmp_path)
        folders += [plan.folder for plan in plans]
    assert len(set(folders)) == 4


def test_unknown_recipes_and_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'split-digits'"):
        reproduce("split-digit", tmp_path)
    with pytest.raises(ConfigError, match="unknown preset of split-digits '2018'"):
        reproduce("split-digits", tmp_path, preset="2018")
    with pytest.raises(ConfigError, match="0 seeds"):
        reproduce("split-digits", tmp_path, seeds=0)


def test_records_of_the_package_can_be_read() -> None:
    assert "published" not in results.names()
    for name in results.names():
        record = results.load(name)
        assert len(results.table(name)) == len(record["cells"])
        assert record["shortened"] == name.endswith("_shortened"), f"{name}: a shortened run must be called so"
        assert "-dirty" not in (record["commit"] or "-dirty"), f"{name} was recorded from changed files"
        report = results.report(name)
        assert results.markdown(name) in report and record["command"] in report
        assert all(deviation in report for deviation in record["deviations"])
    with pytest.raises(ConfigError, match="unknown record"):
        results.load("no-such-record")


def test_what_a_study_measured() -> None:
    found = results.measured("ebgan-modes")
    table = results.table("ebgan-modes")
    assert list(found) == list(results.load("ebgan-modes")["measures"].values())
    (modes, *_) = found.values()
    assert [sum(seeds) / len(seeds) for seeds in modes.values()] == pytest.approx(table["modes"].tolist())
    assert list(modes) == table["row"].tolist()
    with pytest.raises(ConfigError, match="split-digits is no study"):
        results.measured("split-digits")


def test_damaged_records_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"cells": []')
    with pytest.raises(DataError, match=r"a\.json cannot be read as a record"):
        results.load(str(tmp_path / "a.json"))


def test_the_record_of_a_recipe_is_the_one_at_full_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = results.load("multiband_split_digits")
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    assert results.of_recipe("bir-reinit") is None
    assert results.reports("bir-reinit") == "Not recorded yet with this version: `clteach reproduce bir-reinit`.\n"
    for name, recipe, shortened in (
        ("bir_reinit_digits", "bir-reinit-digits", False),  # begins alike, but is another recipe's
        ("bir_reinit_a_shortened", "bir-reinit", True),
        ("bir_reinit_b", "bir-reinit", False),
    ):
        record = {**example, "name": recipe, "shortened": shortened, "command": f"the command of {name}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert results.of_recipe("bir-reinit") == "bir_reinit_b"
    text = results.reports("bir-reinit", "bir-ablation", "bir-reinit-digits")
    assert text.index("the command of bir_reinit_b") < text.index("the command of bir_reinit_digits")
    assert text.endswith("Not recorded yet with this version: `clteach reproduce bir-ablation`.\n")
    (tmp_path / "bir_reinit_b.json").unlink()
    assert results.of_recipe("bir-reinit") == "bir_reinit_a_shortened"
    with pytest.raises(ConfigError, match="unknown recipe 'bir-re-init'"):
        results.of_recipe("bir-re-init")


def test_readme_table_is_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {name: Row(name, {"hidden": (8,)}) for name in ("finetune", "ewc")}
    recipe = replace(papers.RECIPES["split-digits"], rows=rows)
    monkeypatch.setitem(papers.RECIPES, "split-digits", recipe)
    path = reproduce("split-digits", tmp_path, iters=1, seeds=2, device="cpu", n_jobs=1)
    shutil.copy(path, tmp_path / "split_digits.json")
    monkeypatch.setattr(records, "FOLDER", tmp_path)
    text = results.readme_table()
    lines = text.splitlines()
    assert lines[0] == "| method | task-incremental | domain-incremental | class-incremental |"
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| finetune", "| ewc"]
    cell = json.loads(path.read_text())["cells"][0]["average_accuracy"]
    assert f"| finetune | {100 * cell['mean']:.1f} ± {100 * cell['sem']:.1f} |" in lines[2]
    assert "2 seeds" in text and "clteach reproduce split-digits --seeds 2 --iters 1" in text


GENERATORS = [
    Job(
        name, "split-digits", steps=3, batch=16, settings={"hidden": (8,), "decoder_hidden": (8,), "features": "inputs"}
    )
    for name in ("vae-finetune", "multiband-vae")
]


def test_a_generators_job_is_measured_by_fid(tmp_path: Path) -> None:
    found = run_jobs(GENERATORS, tmp_path, n_jobs=1)
    for result in found:
        assert result["measure"] == "fid" and "accuracy" not in result
        matrix = torch.tensor(result["fid"], dtype=torch.float64)
        assert result["average_fid"] == pytest.approx(float(matrix[-1].mean()))
        # Lower is better: what was lost is the final FID minus the best one before.
        lost = [float(matrix[4, i] - matrix[i:4, i].min()) for i in range(4)]
        assert result["forgetting"] == pytest.approx(sum(lost) / 4)
        assert set(result["quality"]) == {"fid", "precision", "recall"}
    summary = summarise(found[:1])
    assert summary["measure"] == "fid" and summary["average_fid"]["mean"] == found[0]["average_fid"]
    assert summary["fid_matrix"] == [[round(v, 6) for v in row] for row in found[0]["fid"]]
    recall = torch.tensor(found[0]["quality"]["recall"][-1], dtype=torch.float64)
    assert summary["average_recall"]["mean"] == pytest.approx(float(recall.mean()))
    assert summary["recall_matrix"][0][1:] == [None] * 4 and "recall_matrices" not in summary
    both = summarise(found[:1] * 2)["recall_matrices"]
    np.testing.assert_allclose(both[1][-1], recall, atol=1e-6)


def test_a_recipe_of_generators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {"hidden": (8,), "decoder_hidden": (8,), "features": "inputs"}
    rows = {"VAE": Row("vae-finetune", tiny), "Multiband VAE": Row("multiband-vae", tiny)}
    monkeypatch.setitem(papers.RECIPES, "own", Recipe("generators", "split-digits", ("digits",), rows))
    monkeypatch.setattr(recording, "published", lambda *where: {"mean": 23.0, "sem": None, "source": "a paper"})
    path = reproduce("own", tmp_path, seeds=1, iters=2, n_jobs=1)
    record = json.loads(path.read_text())
    cell = record["cells"][1]
    assert cell["scenario"] == "class" and cell["verdict"] == "other features"
    assert cell["published"]["mean"] == 23 and cell["difference"] is None
    table = results.table(str(path))
    assert table["mean"].tolist() == [pytest.approx(cell["average_fid"]["mean"]) for cell in record["cells"]]
    assert results.scores(str(path)) == {cell["row"]: cell["average_fid"]["seeds"] for cell in record["cells"]}
    assert "Average FID, lower is better, over all tasks" in results.report(str(path))
    (recall,) = results.matrices(str(path), measure="recall")["Multiband VAE"]
    assert float(recall[-1].mean()) == pytest.approx(cell["average_recall"]["mean"], abs=1e-6)


def measured(seed: int, steps: int, factor: float = 1.0) -> dict[str, float]:
    """What a study runs, without training."""
    return {"first": factor * (seed + 1), "second": float(steps)}


def a_study() -> Study:
    rows = {"plain": {}, "double": {"factor": 2.0}}
    measures = {"second": "steps (1)", "first": "seeds (%)"}
    return Study("a test", measured, rows, measures, steps=7, seeds=3, source="made up", deviations=("odd",))


def test_a_study_is_recorded_with_its_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(papers.RECIPES, "odd", a_study())
    path = reproduce("odd", tmp_path, n_jobs=1)
    record = results.load(str(path))
    assert path.name == "odd.json" and record["command"] == "clteach reproduce odd" and not record["shortened"]
    double = record["cells"][1]["measures"]["first"]
    assert double["seeds"] == [2.0, 4.0, 6.0] and double["mean"] == 4.0 and double["sem"] == pytest.approx(2 / 3**0.5)
    assert results.table(str(path))["first sem"].tolist() == pytest.approx([1 / 3**0.5, 2 / 3**0.5])
    lines = results.markdown(str(path)).splitlines()
    assert lines[0] == "|  | steps (1) | seeds (%) |" and lines[3] == "| double | 7.0 ± 0.0 | 4.0 ± 1.2 |"
    report = results.report(str(path))
    assert results.markdown(str(path)) in report and "7 steps," in report and "* odd" in report and "made up" in report


def test_what_a_study_cannot_do_is_refused_before_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(papers.RECIPES, "odd", a_study())
    (tmp_path / "file").touch()
    for bad, words in (
        ({"preset": "2022"}, "no presets"),
        ({"device": "cuda"}, "runs on the CPU"),
        ({"n_jobs": 0}, "0 processes"),
        ({"seeds": 0}, "0 seeds"),
    ):
        with pytest.raises(ConfigError, match=words):
            reproduce("odd", tmp_path, **bad)  # type: ignore[arg-type]
    with pytest.raises(ClteachError, match="cannot write into"):
        reproduce("odd", tmp_path / "file")
    assert not (tmp_path / "runs").exists()


def test_a_study_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(papers.RECIPES, "odd", a_study())
    path = reproduce("odd", tmp_path, seeds=2, iters=3, n_jobs=1)
    record = results.load(str(path))
    assert path.name == "odd_shortened.json" and "3 steps instead of 7" in record["deviations"]
    assert record["command"] == "clteach reproduce odd --seeds 2 --iters 3" and record["wall_seconds"] is not None
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "runs" / "odd").iterdir()}
    assert len(files) == 4
    next(iter(files)).unlink()
    again = results.load(str(reproduce("odd", tmp_path, seeds=2, iters=3, n_jobs=1)))
    assert again["cells"] == record["cells"] and again["wall_seconds"] is None
    kept = [file for file, time in files.items() if file.stat().st_mtime_ns == time]
    assert len(kept) == 3
    with pytest.raises(ConfigError, match="0 seeds"):
        reproduce("odd", tmp_path, seeds=0)
