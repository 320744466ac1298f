"""What people are used to: a table of all scores, curves in TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from clteach import cli
from clteach.training.run import Run

RUN = "run finetune er --iters 5 --seeds 2 --jobs 1 --device cpu --tasks 2".split()


def test_the_table_has_every_score_of_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*RUN, "--csv", "--out", str(tmp_path)]) == 0
    file = tmp_path / "split-digits-class.csv"
    assert str(file) in capsys.readouterr().out
    table = pd.read_csv(file)
    runs = [Run.load(folder) for folder in sorted((tmp_path / "runs").iterdir())]
    expected = pd.concat([run.frame() for run in runs])
    keys = ["method", "seed", "after", "task"]
    pd.testing.assert_frame_equal(
        *(each.sort_values(keys).reset_index(drop=True) for each in (table, expected)), check_dtype=False
    )


def test_curves_for_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: dict[str, list[tuple[Any, ...]]] = {}

    class SummaryWriter:
        """Stands in for the real one, which tests/peers uses."""

        def __init__(self, folder: str) -> None:
            self.rows = written.setdefault(Path(folder).name, [])

        def add_scalar(self, *row: Any) -> None:
            self.rows.append(row)

        def close(self) -> None:
            self.rows.append(("closed",))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    assert cli.main([*RUN, "--log", "tensorboard", "--out", str(tmp_path)]) == 0
    assert f"tensorboard --logdir {tmp_path / 'tensorboard'}" in capsys.readouterr().out
    runs = {folder.name for folder in (tmp_path / "runs").iterdir()}
    assert len(runs) == 4 and runs < set(written)
    assert all(written[name][-1] == ("closed",) and len(written[name]) > 3 for name in runs)


def test_without_tensorboard_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert cli.main([*RUN, "--log", "tensorboard", "--out", str(tmp_path)]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_faded_stream_leaves_out_who_needs_borders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faded = "run --stream faded-digits --fade 0.3 --iters 2 --jobs 1 --device cpu --tasks 2 --out".split()
    assert cli.main([*faded, str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "ewc is left out: it needs to know when a task ends" in said and "finetune" in said
    assert cli.main(["run", "ewc", *faded[1:], str(tmp_path)]) == 2
    assert "reservoir=500" in capsys.readouterr().err
    assert cli.main(["run", "er", *faded[1:], str(tmp_path), "--er.reservoir", "20"]) == 0
