"""Records: honest about what their numbers depend on and about what was left out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from clteach import results
from clteach.data.extractors import EXTRACTORS
from clteach.data.streams import make_stream
from clteach.errors import CheckpointError, ClteachError, ConfigError
from clteach.experiments import papers, provenance, recording
from clteach.experiments.recipe import Recipe, Row, Study, by
from clteach.experiments.recording import reproduce
from clteach.storage import load_sealed, save_tensors, sealed, write_json


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
    assert record["stream"]["fingerprint"] == make_stream("split-digits", "task").fingerprint
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


def test_a_machine_of_the_record_is_not_named_twice() -> None:
    before = {"cpu": "one, other", "cores": 2}
    assert provenance.as_one([before, {"cpu": "other", "cores": 2}]) == before
    assert provenance.as_one([before, {"cpu": "third", "cores": 4}]) == {"cpu": "one, other, third", "cores": "2, 4"}


def test_rows_of_a_gpu_and_of_a_cpu_name_both() -> None:
    gpu = {"type": "cuda", "cpu": "EPYC", "gpu": "H200"}
    cpu = {"type": "cpu", "cpu": "Xeon", "gpu": None}
    assert provenance.named(gpu) == "H200" and provenance.named(cpu) == "Xeon"
    assert provenance.named({"type": "cpu", "cpu": "", "gpu": None}) == "a CPU"
    both = provenance.as_one([gpu, cpu])
    assert both == {"type": "cuda, cpu", "cpu": "EPYC, Xeon", "gpu": "H200"}
    assert provenance.named(both) == "H200, EPYC, Xeon"
    assert provenance.as_one([both, cpu]) == both and provenance.as_one([cpu, cpu]) == cpu


@pytest.mark.usefixtures("small_recipe")
def test_some_rows_are_run_again_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = papers.RECIPES["split-digits"]
    rows = {
        "new": Row("joint", {"hidden": (8,)}),
        **recipe.rows,
        "other": Row("icarl", {"hidden": (8,), "per_class": 2}),
    }
    how: dict[str, Any] = {"iters": 2, "seeds": 2, "device": "cpu", "n_jobs": 1}
    path = reproduce("split-digits", tmp_path, **how)
    old = json.loads(path.read_text())
    old["commit"] = "an older commit"
    for cell in old["cells"]:
        del cell["commit"]  # as records were before
    write_json(path, old)

    monkeypatch.setitem(papers.RECIPES, "split-digits", replace(recipe, rows=rows))
    record = json.loads(reproduce("split-digits", tmp_path, rows=["new"], **how).read_text())
    assert [cell["row"] for cell in record["cells"]] == ["new"] * 3 + ["None"] * 3
    assert record["commit"] == f"an older commit, {provenance.checkout()}"
    assert [cell["commit"] for cell in record["cells"]] == [provenance.checkout()] * 3 + ["an older commit"] * 3
    assert [{**cell, "commit": 0} for cell in record["cells"][3:]] == [{**cell, "commit": 0} for cell in old["cells"]]
    assert record["command"] == old["command"] and record["wall_seconds"] is None
    assert record["training_seconds"] > old["training_seconds"]
    again = json.loads(reproduce("split-digits", tmp_path, **how).read_text())  # the whole gives the same table
    assert [cell["accuracy_matrix"] for cell in again["cells"][:6]] == [c["accuracy_matrix"] for c in record["cells"]]

    alone = json.loads(reproduce("split-digits", tmp_path / "alone", rows=["new"], **how).read_text())
    assert alone["command"] == "clteach reproduce split-digits --seeds 2 --iters 2 --rows new"
    for _ in range(2):  # rows that came in turn have the command of each, once
        both = json.loads(reproduce("split-digits", tmp_path / "alone", rows=["other"], **how).read_text())
        assert both["command"] == f"{alone['command']} && {alone['command'].replace('new', 'other')}"
    write_json(path, record)  # whose first row has another first scenario than the row that comes
    more = json.loads(reproduce("split-digits", tmp_path, rows=["other"], **how).read_text())
    assert [cell["row"] for cell in more["cells"]] == ["new"] * 3 + ["None"] * 3 + ["other"]
    with pytest.raises(ConfigError, match="was made with steps = 2, the rows would be with 1"):
        path.rename(tmp_path / "kept")
        write_json(path, record)
        reproduce("split-digits", tmp_path, rows=["new"], **{**how, "iters": 1})
    write_json(path, {**record, "stream": {**record["stream"], "fingerprint": "another"}})
    with pytest.raises(ConfigError, match=r"was made with stream = .*'another'"), monkeypatch.context() as m:
        m.setattr(recording, "run_jobs", None)  # said before anything is run
        reproduce("split-digits", tmp_path, rows=["new"], **how)
    write_json(path, {**record, "cells": [{**cell, "row": "old name"} for cell in record["cells"]]})
    with pytest.raises(ConfigError, match="has the row 'old name', which the recipe has not"), monkeypatch.context() as m:
        m.setattr(recording, "run_jobs", None)
        reproduce("split-digits", tmp_path, rows=["new"], **how)
    write_json(path, {**record, "version": "0.0.1"})
    for _ in range(2):  # what is read back took no time again
        same = json.loads(reproduce("split-digits", tmp_path, rows=["new"], **how).read_text())
        assert same["training_seconds"] == pytest.approx(record["training_seconds"])
        assert same["version"] == f"0.0.1, {record['version']}"
    write_json(path, record)
    with pytest.raises(ClteachError, match=r"unknown row of split-digits .nwe.*new"):
        reproduce("split-digits", tmp_path, rows=["nwe"], **how)
    with pytest.raises(ConfigError, match="has none of them"):
        monkeypatch.setitem(papers.PRESETS, "digits", replace(papers.PRESETS["digits"], without=("other",)))
        reproduce("split-digits", tmp_path, rows=["other"], **how)


@pytest.mark.usefixtures("small_recipe")
def test_seeds_that_are_trained_at_once_say_so(tmp_path: Path) -> None:
    how: dict[str, Any] = {"iters": 2, "seeds": 2, "device": "cpu", "n_jobs": 1}
    alone = json.loads(reproduce("split-digits", tmp_path / "alone", **how).read_text())
    record = json.loads(reproduce("split-digits", tmp_path, together=True, **how).read_text())
    assert record["command"] == "clteach reproduce split-digits --seeds 2 --iters 2 --together"
    assert set(record["deviations"]) - set(alone["deviations"]) == {
        "the seeds of a row were trained at once: the numbers of single runs within rounding"
    }
    for ours, theirs in zip(record["cells"], alone["cells"], strict=True):
        # After two steps no answer of a network this small has changed.
        assert ours["accuracy_matrices"] == theirs["accuracy_matrices"]


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
    assert f"Published cells that agree: {agreeing} of 1." in results.report(str(path))
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
    about = {"data": "toy", "classes": [0, 1], "epochs": 3, "batch_size": 7, "lr": 1e-3, "accuracy": 0.75}
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
    assert (
        "2 classes of toy, 3 epochs in batches of 7, Adam 0.001; 75.0 % of the test images" in record["deviations"][0]
    )
    # what is said is said of the rows that are there
    for row in ("images", "features"):
        part = reproduce("split-digits", tmp_path / "part", seeds=1, iters=2, rows=[row], device="cpu", n_jobs=1)
        assert (row == "features") == any(" of toy, " in said for said in json.loads(part.read_text())["deviations"])
    # rows behind other weights do not enter the same table
    again = reproduce("split-digits", tmp_path, seeds=1, iters=2, rows=["features"], device="cpu", n_jobs=1)
    assert [cell["row"] for cell in json.loads(again.read_text())["cells"]] == ["images", "features"]
    save_tensors(tmp_path / "flat.safetensors", {}, {**about, "accuracy": 0.5})
    with pytest.raises(ConfigError, match=r"was not made behind '.*50.0 % of the test images"):
        reproduce("split-digits", tmp_path, seeds=1, iters=2, rows=["features"], device="cpu", n_jobs=1)
    save_tensors(tmp_path / "flat.safetensors", {}, {})
    with pytest.raises(CheckpointError, match="does not say how it was made"):
        reproduce("split-digits", tmp_path, seeds=1, iters=2, device="cpu", n_jobs=1)


def test_unknown_recipes_and_presets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'split-digits'"):
        reproduce("split-digit", tmp_path)
    with pytest.raises(ConfigError, match="unknown preset of split-digits '2018'"):
        reproduce("split-digits", tmp_path, preset="2018")
    with pytest.raises(ConfigError, match="0 seeds"):
        reproduce("split-digits", tmp_path, seeds=0)


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
        ({"threads": 2}, "with one thread"),
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
