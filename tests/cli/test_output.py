"""Output that is no terminal: files and pipes that know few letters (Windows), and readers that have seen enough."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clteach import cli
from clteach.exercises import check, get

ENCODINGS = ("cp1252", "cp932", "gbk")


def _run(
    *command: str, encoding: str | None = None, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    more = {} if encoding is None else {"PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, **more, **environment}, capture_output=True, check=False
    )


# ------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_list_fits_every_encoding(encoding: str, tmp_path: Path) -> None:
    done = _run("-m", "clteach", "list", encoding=encoding, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode(encoding)
    assert "recipes (clteach reproduce):" in said and "pull-away" in said
    assert ("?" in said) == (encoding != "gbk")  # the ń of a name; gbk has it


@pytest.mark.parametrize(("words", "encoding"), [("run ewc --help", "cp1252"), ("--help", "gbk"), ("rum", "ascii")])
def test_help_and_errors_fit_too(words: str, encoding: str, tmp_path: Path) -> None:
    done = _run("-m", "clteach", *words.split(), encoding=encoding, cwd=tmp_path)
    said = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in said and "Unicode" not in said
    assert done.returncode == (2 if words == "rum" else 0)
    if words.startswith("run"):
        assert "--ewc.lam" in said and "strength ? of the penalty, ? 0" in said  # λ, ≥


def test_an_utf_8_output_shows_every_letter(tmp_path: Path) -> None:
    done = _run("-m", "clteach", "run", "ewc", "--help", encoding="utf-8", cwd=tmp_path)
    assert "strength λ of the penalty, ≥ 0" in done.stdout.decode()


CHECKS = """
from clteach.exercises import check, get
print(check("02.kl", lambda m, l: m))
print(check("02.kl", get("02.kl").solution))
print(check("02.kl", ...))
"""


@pytest.mark.parametrize("encoding", ["cp1252", "cp932"])
def test_reports_are_printed_in_a_program_of_ones_own(encoding: str, tmp_path: Path) -> None:
    done = _run("-c", CHECKS, encoding=encoding, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode(encoding)
    assert "not yet right: 02.kl (" in said and "\nright: 02.kl (" in said and "not done yet: 02.kl (" in said
    assert "✓" not in said and "✗" not in said


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-8"])
def test_the_marks_of_a_report(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = check("02.kl", lambda m, l: m), check("02.kl", get("02.kl").solution)  # noqa: E741
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    for report in (bad, good):
        print(report)
    with pytest.raises(AssertionError) as info:
        bad.require()
    out.flush()
    monkeypatch.undo()
    assert isinstance(out.buffer, io.BytesIO)
    said = out.buffer.getvalue().decode(encoding)
    marks = ("✗ ", "✓ ") if encoding == "utf-8" else ("", "")
    assert said.startswith(f"{marks[0]}not yet right: 02.kl (")
    assert f"\n{marks[1]}right: 02.kl (" in said
    assert str(info.value).encode(encoding)
    if encoding == "utf-8":
        assert "?" not in repr(good).split("(")[0]


def test_an_output_without_an_encoding_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    report = check("02.kl", ...)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert repr(report).startswith("· not done yet: 02.kl (")
    monkeypatch.setattr(sys, "stdout", None)  # pythonw
    assert repr(report).startswith("· not done yet: 02.kl (")


# ----------------------------------------------------------------------------------------------------------- pipes


@pytest.mark.skipif(os.name != "posix", reason="Windows reports a reader that has gone in another way")
@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [("list", ""), ("list", "1"), ("--help", ""), ("--help", "1"), ("run finetune --iters 3 --hidden 8 --jobs 1", "")],
)
def test_a_reader_that_has_gone_is_no_error(words: str, unbuffered: str, tmp_path: Path) -> None:
    """As with ``| head -3``: the program ends quietly. Here the reader goes before anything is written."""
    command = [sys.executable, "-m", "clteach", *words.split()]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_another_broken_pipe_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """That of a worker, say: our own reader is still there."""

    def broken() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.delenv("CLTEACH_DEBUG", raising=False)
    monkeypatch.setattr("clteach.cli.commands.show_lists", broken)
    assert cli.main(["list"]) == 1
    assert "clteach: unexpected BrokenPipeError" in capsys.readouterr().err
