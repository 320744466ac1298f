"""Saved runs: read back whole, plain files, one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import CheckpointError
from clteach.methods import METHODS
from clteach.training.learner_checks import quick, same_state, tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run, load_learner


def test_run_save_load(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = quick(METHODS["ewc"], stream)
    loaded = Run.load(run.save(tmp_path / "run"))
    assert torch.equal(run.accuracy, loaded.accuracy) and run.config == loaded.config
    assert loaded.seconds == run.seconds and loaded.iterations_per_second == run.iterations_per_second > 0
    assert same_state(run.learner, loaded.learner)
    (tmp_path / "run" / "run.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        Run.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_learner(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"run\.json"):
        Run.load(tmp_path / "nowhere")


def test_a_saved_learner_with_foreign_content_is_refused(tmp_path: Path) -> None:
    from clteach.storage import save_tensors

    for learner in ({}, {"learner": {"name": "finetune"}}):
        with pytest.raises(CheckpointError, match="learner of this version"):
            load_learner(save_tensors(tmp_path / "x.safetensors", {"w": torch.zeros(1)}, learner))


def test_saved_files_are_plain(tmp_path: Path) -> None:
    run = quick(METHODS["finetune"], split(toy_data(), tasks=2))
    folder = run.save(tmp_path / "run")
    assert sorted(p.name for p in folder.iterdir()) == ["learner.safetensors", "run.json"]
    assert json.loads((folder / "run.json").read_text())["config"]["name"] == "finetune"


def test_the_frame_holds_every_score_once() -> None:
    run = quick(METHODS["ewc"], split(toy_data(), tasks=2))
    frame = run.frame()
    assert [*frame.columns] == ["method", "stream", "scenario", "seed", "measure", "after", "task", "value"]
    assert (
        set(frame["method"]) == {"ewc"}
        and set(frame["stream"]) == {"split-toy"}
        and set(frame["scenario"]) == {"class"}
    )
    for after, scores in enumerate([run.initial, *run.accuracy]):
        assert frame[frame["after"] == after].sort_values("task")["value"].tolist() == scores.tolist()
    run.accuracy[0, 1] = torch.nan  # not evaluated
    assert len(run.frame()) == len(frame) - 1 == 5


def test_the_frame_of_a_generator_has_all_its_measures() -> None:
    stream = split(toy_data(), tasks=2)
    cls = METHODS["vae-finetune"]
    run = train(cls(stream.spec, tiny(cls)), stream, steps=2, batch_size=5, quality=True, device="cpu")
    counts = run.frame()["measure"].value_counts().to_dict()
    assert counts == {"fid": 6, "precision": 3, "recall": 3}  # fid also before training and of tasks to come


def test_the_log_gets_every_loss_and_every_score() -> None:
    stream, rows = split(toy_data(), tasks=2), []
    cls = METHODS["ewc"]
    run = train(
        cls(stream.spec, tiny(cls)), stream, steps=4, log_every=3, device="cpu", log=lambda *row: rows.append(row)
    )
    losses = [(f"loss/{k}", row[k], 4 * row["task"] + row["step"]) for row in run.losses for k in row if k == "current"]
    assert [row for row in rows if row[0] == "loss/current"] == losses and [row[2] for row in losses] == [3, 4, 7, 8]
    first, second = run.accuracy.tolist()
    assert [row for row in rows if row[0].startswith("accuracy")] == [
        ("accuracy/task 1", first[0], 4),
        ("accuracy/mean of tasks seen", first[0], 4),
        ("accuracy/task 1", second[0], 8),
        ("accuracy/task 2", second[1], 8),
        ("accuracy/mean of tasks seen", pytest.approx(sum(second) / 2), 8),
    ]
