"""Saved runs: read back whole, plain files, one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import CheckpointError
from clteach.methods import METHODS
from clteach.training.learner_checks import quick, same_state, toy_data
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
