"""Jobs: the same numbers wherever one runs, nothing repeated that is finished."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach.data.extractors import EXTRACTORS
from clteach.errors import ClteachError, ConfigError, DataError
from clteach.experiments import jobs
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.summary import summarise
from clteach.learners.learner import Classifier
from clteach.methods import METHODS
from clteach.storage import save_tensors
from clteach.training import seeds
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
    monkeypatch.setattr(jobs, "_code", lambda *_: "another version")
    assert jobs._plan([TINY], tmp_path)[0].folder not in folders


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
        order.extend(f"{first.method} {first.steps}" for (first, *_), *_ in tasks)
        return [jobs.run_together(*task) for task in tasks]

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
    with pytest.raises(DataError, match=r"mnist could not be downloaded .*no network\)"):
        run_jobs([replace(TINY, stream="split-mnist")], tmp_path, n_jobs=1)


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


def test_seeds_at_once_give_the_same_numbers(tmp_path: Path) -> None:
    """Within rounding; each has a result and a model of its own, and is read back by itself."""
    many = [replace(job, seed=seed) for job in (TINY, REPLAY) for seed in range(3)]
    alone = run_jobs(many, tmp_path / "alone", n_jobs=1)
    together = run_jobs(many, tmp_path, n_jobs=1, together=True, keep=True)
    assert [result.get("together") for result in alone] == [None] * 6
    assert [result["together"] for result in together] == [3] * 6
    for a, b in zip(alone, together, strict=True):
        assert a["job"] == b["job"] and a["fingerprint"] == b["fingerprint"]
        np.testing.assert_allclose(a["accuracy"], b["accuracy"], atol=0.01)
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 6
    assert len(list((tmp_path / "runs").glob("*/learner.safetensors"))) == 6
    assert not list(tmp_path.rglob("seeds-*")) and not list(tmp_path.rglob("progress"))
    again = run_jobs([*many, replace(TINY, seed=3)], tmp_path, n_jobs=1, together=True)
    assert [result["read_back"] for result in again] == [True] * 6 + [False]
    assert accuracies(again[:6]) == accuracies(together)


def test_a_stopped_group_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [replace(TINY, seed=seed) for seed in range(3)]
    whole = run_jobs(many, tmp_path / "whole", n_jobs=1, together=True)
    evaluated = seeds.evaluated
    calls = []

    def stop(*args: Any) -> Any:
        calls.append(1)
        if len(calls) > 7:  # three before training, three after the first task
            raise KeyboardInterrupt
        return evaluated(*args)

    with monkeypatch.context() as patch:
        patch.setattr(seeds, "evaluated", stop)
        with pytest.raises(KeyboardInterrupt):
            run_jobs(many, tmp_path, n_jobs=1, together=True)
    assert len(list(tmp_path.rglob("seeds-0-1-2.safetensors"))) == 1
    resumed = run_jobs(many, tmp_path, n_jobs=1, together=True)
    assert accuracies(resumed) == accuracies(whole)
    assert not list(tmp_path.rglob("seeds-*"))


def test_one_seed_that_diverges_does_not_end_the_others(tmp_path: Path) -> None:
    bold = replace(TINY, steps=20, settings={"hidden": (8,), "lr": 1e30})
    results = run_jobs([replace(bold, seed=seed) for seed in range(2)], tmp_path, n_jobs=1, together=True)
    assert all("diverged" in result and "together" not in result for result in results)


def test_processes_share_the_seeds(tmp_path: Path) -> None:
    many = [replace(TINY, seed=seed) for seed in range(5)]
    results = run_jobs(many, tmp_path, n_jobs=2, together=True)
    assert [result["together"] for result in results] == [3, 3, 3, 2, 2]
    assert [result["job"]["seed"] for result in results] == [0, 1, 2, 3, 4]


def test_large_networks_are_trained_one_by_one(tmp_path: Path) -> None:
    large = replace(TINY, steps=1, batch=2000, settings={"hidden": (100, 100)})
    results = run_jobs([replace(large, seed=seed) for seed in range(2)], tmp_path, n_jobs=1, together=True)
    assert not any("together" in result for result in results)


def test_threads_are_the_job_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many in the run, as before after it; a run with another number of threads is another run, and says so."""
    seen = []

    def step(self: Classifier, *args: Any) -> Any:
        seen.append(torch.get_num_threads())
        return trained(self, *args)

    trained = Classifier.step
    monkeypatch.setattr(Classifier, "step", step)
    before = torch.get_num_threads()
    two = [Job("finetune", steps=1, device="cpu", threads=n) for n in (1, 2)]
    results = run_jobs(two, tmp_path, n_jobs=1)
    assert sorted(set(seen)) == [1, 2] and torch.get_num_threads() == before
    assert [result["device"]["threads_per_process"] for result in results] == [1, 2]
    assert len(list((tmp_path / "runs").iterdir())) == 2
    with pytest.raises(ConfigError, match="0 threads: expected at least"):
        run_jobs([Job("finetune", steps=1, device="cpu", threads=0)], tmp_path)
    with pytest.raises(ConfigError, match="cluster's workers have one thread"):
        run_jobs(two, tmp_path, backend="dask", fresh=True)
    assert len(list((tmp_path / "runs").glob("*/result.json"))) == 2, "a refused call deletes nothing"


def test_as_many_processes_as_the_cores_have_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.joblib, "cpu_count", lambda: 5)
    asked = []

    def dispatch(tasks: Any, n_jobs: int, threads: int, *rest: Any) -> Any:
        asked.append((n_jobs, threads))
        return here(tasks, 1, threads, *rest)

    here = jobs._dispatch
    monkeypatch.setattr(jobs, "_dispatch", dispatch)
    for threads in (1, 2, 9):
        run_jobs([Job("finetune", steps=1, device="cpu", threads=threads)], tmp_path)
    assert asked == [(5, 1), (2, 2), (1, 9)]


def test_one_thread_is_no_other_run_than_before_there_were_threads(tmp_path: Path) -> None:
    """The folder's name is the identity: without the field, as before, and with it where it is not 1."""
    names = {}
    for threads in (1, 2):
        (plan,) = jobs._plan([Job("finetune", steps=1, device="cpu", threads=threads)], tmp_path, False)
        names[threads] = plan.folder.name
        described = asdict(plan.job)
        if threads == 1:
            del described["threads"]
        stream = plan.job.make_stream(seed=0)
        identity = jobs.canonical([described, stream.fingerprint, None, plan.code, {}])
        assert plan.folder.name.endswith(hashlib.sha256(identity.encode()).hexdigest()[:10])
    assert names[1] != names[2]
