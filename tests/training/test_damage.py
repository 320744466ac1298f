"""Damaged files and killed runs end in one clear error or in the right result. `tests/damage.py` tries more of them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from clteach.data.extractors import EXTRACTORS, make_extractor
from clteach.data.streams import split
from clteach.errors import CheckpointError, ClteachError
from clteach.experiments import recording
from clteach.experiments.jobs import Job, run_jobs
from clteach.experiments.papers import RECIPES
from clteach.experiments.recipe import Study
from clteach.learners.learner import Learner
from clteach.methods import METHODS, build
from clteach.metrics import judge
from clteach.storage import load_tensors, save_tensors
from clteach.training.learner_checks import quick, same_state, toy_data
from clteach.training.loop import train
from clteach.training.run import Run, load_learner

SCRIPT = Path(__file__).parents[1] / "damage.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("damage", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = script()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found: dict[str, Any] = damage.kinds(tmp_path_factory.mktemp("damage"))
    return found


@pytest.mark.parametrize("kind", ["learner", "run.json", "checkpoint"])
def test_a_damaged_file_is_a_clear_error_or_the_right_result(kind: str, kinds: dict[str, Any]) -> None:
    assert kinds[kind].read() == kinds[kind].right, "the file is whole at first"
    ends, wrong = damage.try_files(kind, kinds[kind], 42, seed=1)
    assert wrong == [] and ends["a clear error"] > 30 and ends.total() == 42
    assert kinds[kind].read() == kinds[kind].right, "and again at last"


def test_wrong_ends_are_found(kinds: dict[str, Any]) -> None:
    """The script itself can fail: a reader that believes everything, and one whose error says nothing."""

    def unclear() -> str:
        raise ClteachError("no")

    def other() -> str:
        raise ValueError("no")

    for read, end in (
        (lambda: "something", "a wrong result"),
        (unclear, "an unclear error"),
        (other, "another error"),
    ):
        ends, wrong = damage.try_files("run.json", kinds["run.json"]._replace(read=read), 5)
        assert ends == {end: 5} and len(wrong) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks processes and kills them with SIGKILL")
@pytest.mark.timeout(600)
def test_killed_runs_are_resumed_to_the_bit() -> None:
    """One kill for each of eight methods, in a process of its own: one with other threads should not be forked."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "kills", "8"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0 and "resumed to the bit 8" in done.stdout, done.stdout + done.stderr


# ------------------------------------------------------------------------------------------- what is no file, or another


@pytest.fixture
def run() -> Run:
    return quick(METHODS["ewc"], split(toy_data(), "class", tasks=2))


def learn(checkpoint: Path, method: str = "finetune") -> Run:
    stream = split(toy_data(), "class", tasks=2)
    return train(method, stream, steps=2, batch_size=5, hidden=(8,), checkpoint=checkpoint, device="cpu")


def test_a_folder_as_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"folder is a folder\. Expected a file.*; choose another one"):
        learn(tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_learner_cannot_be_saved_onto_a_folder(tmp_path: Path, run: Run) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        ClteachError, match=r"cannot write .*folder: a folder has this name\. Expected the name of a file"
    ):
        run.learner.save(tmp_path / "folder")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_run_cannot_be_saved_in_a_files_place(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ClteachError, match=r"file is a file\. Expected a folder there; choose another one"):
        run.save(tmp_path / "file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    with pytest.raises(CheckpointError, match=r"run\.json does not exist"):
        Run.load(tmp_path / "file")


def test_weights_of_another_run_are_refused(tmp_path: Path, run: Run) -> None:
    run.save(tmp_path / "run")
    stream = split(toy_data(), "class", tasks=2)
    longer = quick(METHODS["ewc"], stream, steps=5)  # the same method, the same settings
    longer.learner.save(tmp_path / "run" / "learner.safetensors")
    with pytest.raises(CheckpointError, match=r"run\.json .*learner\.safetensors is of another run"):
        Run.load(tmp_path / "run")
    run.learner.save(tmp_path / "run" / "learner.safetensors")
    assert same_state(Run.load(tmp_path / "run").learner, run.learner)


def test_files_of_another_kind_are_told_apart(tmp_path: Path, run: Run) -> None:
    learn(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="checkpoint does not hold a learner of this version"):
        load_learner(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match="weights is no checkpoint, but another file of clteach"):
        learn(run.learner.save(tmp_path / "weights"))


def test_an_error_about_other_weights_is_one_line(tmp_path: Path, run: Run) -> None:
    """torch lists what is missing on as many lines as there are parameters."""
    about = {"learner": run.learner.describe()}
    with pytest.raises(CheckpointError, match="hold a learner of this version") as info:
        load_learner(save_tensors(tmp_path / "x", {"net.9.weight": torch.zeros(1)}, about))
    assert "\n" not in str(info.value) and len(str(info.value)) < 500


def test_training_starts_by_sweeping_what_a_killed_save_left(tmp_path: Path) -> None:
    """Also where the run is finished, and nothing will be written any more."""
    file = tmp_path / "c.safetensors"
    names = [".c.safetensors.abcdefgh.tmp", ".d.safetensors.abcdefgh.tmp"]
    first = learn(file)
    for name in names:
        (tmp_path / name).write_bytes(bytes(1000))
    again = learn(file)
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[1], file.name]
    assert same_state(first.learner, again.learner)


def test_a_resumed_run_does_not_depend_on_its_file(tmp_path: Path) -> None:
    """The moments of Adam must not be a view of the checkpoint: it may be overwritten while the run goes on."""
    file, content = tmp_path / "c", b""

    def stop(done: int, total: int, text: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    def overwrite(done: int, total: int, text: str) -> None:
        if done == 4:
            with file.open("r+b") as opened:
                opened.write(bytes(len(content)))

    def learned(checkpoint: Path | None, progress: Any) -> Learner:
        options: dict[str, Any] = {"steps": 3, "batch_size": 5, "hidden": (300,), "device": "cpu", "log_every": 1}
        stream = split(toy_data(), "class", tasks=2)
        return train(
            "finetune", stream, checkpoint=checkpoint, checkpoint_every=1, progress=progress, **options
        ).learner

    whole = learned(None, None)
    with pytest.raises(KeyboardInterrupt):
        learned(file, stop)
    content = file.read_bytes()
    assert same_state(learned(file, overwrite), whole)


# ----------------------------------------------------------------------------------------------- what is read elsewhere


def test_a_damaged_result_is_as_good_as_none(tmp_path: Path) -> None:
    """Digits changed by hand or by a disk are not passed on: the job runs again, to the same numbers."""
    job = Job("finetune", steps=3, settings={"hidden": (8,)}, stream_settings={"tasks": 2}, device="cpu")
    (first,) = run_jobs([job], tmp_path, n_jobs=1)
    (file,) = tmp_path.rglob("result.json")
    content = file.read_text(encoding="utf-8")
    assert str(first["average_accuracy"]) in content and "sha256" not in first and "format" not in first
    (read,) = run_jobs([job], tmp_path, n_jobs=1)
    assert read == {**first, "read_back": True}, "as it was: whole files are read back"
    for damaged in (content.replace(str(first["average_accuracy"]), "0.987"), content[:-20], "[" * 100_000, ""):
        assert damaged != content
        file.write_text(damaged, encoding="utf-8")
        (again,) = run_jobs([job], tmp_path, n_jobs=1)
        assert not again["read_back"] and again["accuracy"] == first["accuracy"]


def test_a_damaged_part_of_a_study_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(
        summary="for tests",
        source="nowhere",
        run=lambda seed, steps, at: {"value": 10 * at + seed},
        rows={"one": {"at": 1}, "two": {"at": 2}},
        measures={"value": "value"},
        seeds=2,
        steps=3,
    )
    monkeypatch.setitem(RECIPES, "damaged-study", study)
    monkeypatch.setattr(recording, "code", lambda *things: "a version")
    path = recording.reproduce("damaged-study", tmp_path, n_jobs=1)
    whole = path.read_text(encoding="utf-8")
    parts = sorted((tmp_path / "runs").rglob("*.json"))
    assert len(parts) == 4
    for part in parts:
        content = part.read_text(encoding="utf-8")
        part.write_text(content.replace('"value": ', '"value": 5'), encoding="utf-8")
        assert part.read_text(encoding="utf-8") != content
    again = recording.reproduce("damaged-study", tmp_path, n_jobs=1).read_text(encoding="utf-8")
    assert '"value": 5' not in "".join(part.read_text(encoding="utf-8") for part in parts)
    assert again.split('"cells"')[1] == whole.split('"cells"')[1]


def test_damaged_weights_of_an_extractor_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def layer(shape: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))

    monkeypatch.setitem(EXTRACTORS, "layer", layer)
    file = save_tensors(tmp_path / "weights", {"1.weight": torch.ones(5, 64), "1.bias": torch.zeros(5)}, {})
    make_extractor("layer", (1, 8, 8), file)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="weights is damaged"):
        make_extractor("layer", (1, 8, 8), file)


def test_a_damaged_judge_is_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Generators must not be judged by other features without a word."""
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    monkeypatch.setattr(judge, "_trained", {})
    monkeypatch.setattr(judge, "EPOCHS", 1)
    stream = split(toy_data((1, 12, 12)), "class", tasks=2)
    first = {name: value.clone() for name, value in judge.feature_classifier(stream).state_dict().items()}
    (file,) = (tmp_path / "features").iterdir()
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    judge._trained.clear()
    again = judge.feature_classifier(stream).state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert load_tensors(file)[0].keys() == first.keys(), "and written anew"


def test_a_method_that_is_not_known_here_is_named(tmp_path: Path) -> None:
    learner = build("finetune", split(toy_data(), "class", tasks=2).spec, hidden=(8,))
    about = {**learner.describe(), "name": "mine"}
    file = save_tensors(tmp_path / "x", dict(learner.state_dict()), {"learner": about})
    with pytest.raises(CheckpointError, match=r"x does not hold a learner of this version \(unknown method 'mine'"):
        load_learner(file)
