"""Progress: reported through a file, shown on a terminal and nowhere else."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from clteach.progress import Watched, _read, bar, board, to_file


def test_reports_are_read_back(tmp_path: Path) -> None:
    report = to_file(tmp_path / "progress", every=1000)
    assert _read(tmp_path / "progress") == (0, "")
    report(5, 100, "task 1 of 2")
    report(6, 100, "task 1 of 2")  # too soon after the one before
    assert _read(tmp_path / "progress") == (5, "task 1 of 2")
    report(100, 100, "task 2 of 2")  # the last one is always written
    assert _read(tmp_path / "progress") == (100, "task 2 of 2")
    (tmp_path / "progress").write_text("12")  # half written
    assert _read(tmp_path / "progress") == (0, "")


def test_a_folder_that_vanished_does_not_end_the_run(tmp_path: Path) -> None:
    to_file(tmp_path / "gone" / "progress")(1, 2, "")


def test_nothing_is_shown_where_stderr_is_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with bar("training") as report, board([Watched("job", tmp_path / "progress", 10)]):
        report(1, 10, "task 1 of 2")
    assert capsys.readouterr() == ("", "")


def pretend_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The captured stderr of this test says that it is a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_a_bar_shows_what_is_done(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_terminal(monkeypatch)
    with bar("ewc") as report:
        report(30, 100, "task 1 of 2")
        report(100, 100, "task 2 of 2")
    out, err = capsys.readouterr()
    err = re.sub(r"\x1b\[[0-9;?]*\w", "", err)  # colours
    assert out == ""
    assert "ewc, task 2 of 2" in err and "100/100" in err


def test_a_board_has_a_row_per_running_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_terminal(monkeypatch)
    watched = [Watched(name, tmp_path / name, 10) for name in ("running", "waiting", "done")]
    to_file(tmp_path / "running")(4, 10, "task 1 of 2")
    to_file(tmp_path / "done")(10, 10, "task 2 of 2")
    with board(watched):
        time.sleep(0.6)
    with bar("hidden", show=False):
        pass
    out, err = capsys.readouterr()
    err = re.sub(r"\x1b\[[0-9;?]*\w", "", err)  # colours
    assert out == ""
    assert "running, task 1 of 2" in err and "waiting" not in err and "hidden" not in err and "done, task" not in err
    assert "all 3 runs" in err and "14/30" in err
