"""Files: whole or not there, with a checksum of all that is in them, and no leftovers of killed processes."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from clteach import storage
from clteach.errors import CheckpointError, ClteachError
from clteach.storage import (
    load_sealed,
    load_tensors,
    save_tensors,
    saved_checksum,
    sealed,
    sweep,
    write_atomic,
    write_json,
)

ROOT = Path(__file__).parents[1]


# ----------------------------------------------------------------------------------------------------------- checksums


def some_tensors() -> dict[str, torch.Tensor]:
    shared = torch.arange(6.0)
    return {
        "double": torch.tensor([[1.5, torch.nan], [torch.inf, -0.0]], dtype=torch.float64),
        "half": torch.randn(3, generator=torch.Generator().manual_seed(0)).half(),
        "brain": torch.arange(3).bfloat16(),
        "mask": torch.tensor([True, False]),
        "step": torch.tensor(7),
        "nothing": torch.empty(0, 4),
        "view": shared.view(2, 3).T,
        "the same memory": shared[1:],
    }


def test_tensors_and_values_come_back_to_the_bit(tmp_path: Path) -> None:
    meta = {"b": 1, "a": [None, 0.1, "Jörg"], "deep": {"z": 1, "y": 2}}
    tensors, found = load_tensors(save_tensors(tmp_path / "x", some_tensors(), meta))
    assert tensors.keys() == some_tensors().keys() and found == {"format": storage.FORMAT, **meta}
    assert list(found["deep"]) == ["z", "y"], "the order of the values is theirs"
    for name, value in some_tensors().items():
        assert tensors[name].dtype == value.dtype and tensors[name].shape == value.shape
        assert tensors[name].numpy().tobytes() == value.contiguous().numpy().tobytes() if name != "brain" else True
        assert torch.equal(tensors[name].nan_to_num(9), value.nan_to_num(9)), name


def test_documents_come_back_as_they_are_read(tmp_path: Path) -> None:
    document = {"rows": [{"b": 0.1, "a": 1e-300}], "by task": {10: "Jörg", 9: (1, 2)}, "nan": float("nan")}
    (tmp_path / "x.json").write_text(json.dumps(sealed(document), indent=1), encoding="utf-8")
    found = load_sealed(tmp_path / "x.json")
    assert found.pop("nan") != 0
    assert found == {"rows": document["rows"], "by task": {"10": "Jörg", "9": [1, 2]}}
    assert list(found["rows"][0]) == ["b", "a"], "the order of the values is theirs"


@pytest.mark.parametrize("kind", ["tensors", "document"])
def test_every_bit_counts(kind: str, tmp_path: Path) -> None:
    """Each bit of a small file, flipped: an error that names the file, or the same content."""
    file, read = tmp_path / "file", load_tensors if kind == "tensors" else load_sealed
    if kind == "tensors":
        save_tensors(file, {"w": torch.tensor([1.0, -2.0]), "t": torch.tensor(3)}, {"loss": 0.25, "name": "ewc"})
    else:
        write_json(file, sealed({"accuracy": [[0.25, None], [1e-3, 1.0]], "name": "Jörg"}))
    content, whole = file.read_bytes(), repr(read(file))
    harmless = 0
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            found = repr(read(file))
        except CheckpointError as error:
            assert str(file) in str(error) and "Expected" in str(error)
        else:
            assert found == whole, f"bit {bit} changes the content without a word"
            harmless += 1
    assert harmless < 0.02 * 8 * len(content), "such a thing as white space"


@pytest.mark.parametrize("change", ["name", "order", "type", "shape", "value", "meta", "no checksum"])
def test_the_checksum_covers(change: str, tmp_path: Path) -> None:
    """A whole safetensors file in which one thing is another, with the checksum of before."""
    file = save_tensors(tmp_path / "x", {"a": torch.zeros(2, 3), "b": torch.ones(2, 3)}, {"lr": 0.1})
    tensors, _ = load_tensors(file)
    with safe_open(file, framework="pt") as opened:
        header = opened.metadata()
    a, b = tensors["a"], tensors["b"]
    tensors, header = {
        "name": ({"a": a, "c": b}, header),
        "order": ({"a": b, "b": a}, header),
        "type": ({"a": a.view(torch.int32), "b": b}, header),
        "shape": ({"a": a.view(3, 2), "b": b}, header),
        "value": ({"a": -a, "b": b}, header),  # -0.0 == 0.0, but is other bits
        "meta": ({"a": a, "b": b}, {**header, "clteach": header["clteach"].replace("0.1", "0.2")}),
        "no checksum": ({"a": a, "b": b}, {"clteach": header["clteach"]}),
    }[change]
    file.write_bytes(safetensors.torch.save(tensors, header))
    with pytest.raises(CheckpointError, match="checksum is another one"):
        load_tensors(file)


def test_files_with_the_same_content_have_the_same_checksum(tmp_path: Path) -> None:
    a, b = (save_tensors(tmp_path / name, some_tensors(), {"seed": 1}) for name in "ab")
    c = save_tensors(tmp_path / "c", some_tensors(), {"seed": 2})
    assert saved_checksum(a) == saved_checksum(b) != saved_checksum(c)
    (tmp_path / "d").write_bytes(b"text")
    with pytest.raises(CheckpointError, match="d is damaged"):
        saved_checksum(tmp_path / "d")


def test_files_of_another_format_are_refused(tmp_path: Path) -> None:
    old = {"clteach": json.dumps({"format": 1, "learner": {}})}
    (tmp_path / "x").write_bytes(safetensors.torch.save({"w": torch.zeros(2)}, old))
    with pytest.raises(CheckpointError, match=r"x has format 1, this version of clteach reads 2.*make it again"):
        load_tensors(tmp_path / "x")
    (tmp_path / "y").write_text('{"format": 1, "accuracy": []}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="y has format 1, this version of clteach reads 2"):
        load_sealed(tmp_path / "y")


@pytest.mark.parametrize("read", [load_tensors, load_sealed, saved_checksum])
def test_what_is_no_file_is_one_error(read: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{tmp_path.name} is a folder.*choose another one"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match=r"nothing does not exist.*choose another one"):
        read(tmp_path / "nothing")
    for text in ("", "null", "[" * 100_000, '{"sha256": 1}', '{"format": 2}'):
        (tmp_path / "text").write_text(text, encoding="utf-8")
        with pytest.raises(CheckpointError, match="text is damaged or was not written by clteach"):
            read(tmp_path / "text")


@pytest.mark.parametrize("read", [load_tensors, load_sealed, saved_checksum])
def test_a_whole_file_that_may_not_be_read_is_not_called_damaged(
    read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told that a file is damaged deletes it."""

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "safe_open", refuse)
    monkeypatch.setattr(Path, "read_text", refuse)
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(
        CheckpointError, match=r"x cannot be read: Permission denied\. Expected a readable file"
    ) as info:
        read(tmp_path / "x")
    assert "elete" not in str(info.value)


def test_what_was_read_does_not_depend_on_the_file_any_more(tmp_path: Path) -> None:
    """Whoever goes on from a checkpoint must not train on whatever somebody copies into its place."""
    file = save_tensors(tmp_path / "x", {"w": torch.ones(100_000)}, {})
    tensors, _ = load_tensors(file)
    with file.open("r+b") as opened:
        opened.write(bytes(file.stat().st_size))
    assert bool((tensors["w"] == 1).all())


# --------------------------------------------------------------------------------------------- leftovers of killed saves

KILLED_IN_A_SAVE = """
import os, signal, sys
from clteach.storage import write_atomic
def half(file):
    file.write(b"x" * 500); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_atomic(sys.argv[1], half)
"""

WAITING_IN_A_SAVE = """
import sys
from clteach.storage import write_atomic
def half(file):
    file.write(b"old"); file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(b" and slow")
write_atomic(sys.argv[1], half)
"""


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".tmp")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_what_a_killed_save_left_is_swept_away_by_the_next_one(tmp_path: Path) -> None:
    file, other = tmp_path / "c.safetensors", tmp_path / "c"
    for path in (file, file, other):
        done = subprocess.run([sys.executable, "-c", KILLED_IN_A_SAVE, str(path)])
        assert done.returncode == -signal.SIGKILL
    strangers = [".c.safetensors.old.tmp", "c.safetensors.abcdefgh.tmp", ".c.safetensors.abcdefgh.tmp.gz"]
    for name in strangers:
        (tmp_path / name).write_text("not ours", encoding="utf-8")
    before = leftovers(tmp_path)
    assert len(before) == 2 + 2, "one of each path: the second kill swept what the first left"
    sweep(other)
    assert len(leftovers(tmp_path)) == len(before) - 1, "only what belongs to this one path"
    write_atomic(file, lambda stream: stream.write(b"new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*strangers, "c.safetensors"])
    assert file.read_bytes() == b"new"


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    command = [sys.executable, "-c", WAITING_IN_A_SAVE, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "half\n"
        before = leftovers(tmp_path)
        sweep(file)
        write_atomic(file, lambda stream: stream.write(b"new"))
        assert leftovers(tmp_path) == before and len(before) == 1
        assert file.read_bytes() == b"new"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait() == 0
    assert file.read_bytes() == b"old and slow" and leftovers(tmp_path) == []


def test_also_in_one_process_and_after_an_error(tmp_path: Path) -> None:
    """A write within a write to the same place, as two threads would do; then one that fails."""
    file = tmp_path / "x"

    def outer(stream: Any) -> None:
        write_atomic(file, lambda inner: inner.write(b"inner"))
        assert file.read_bytes() == b"inner"
        stream.write(b"outer")

    assert write_atomic(file, outer).read_bytes() == b"outer"
    with pytest.raises(ZeroDivisionError):
        write_atomic(file, lambda stream: stream.write(bytes(1 // 0)))
    assert file.read_bytes() == b"outer" and [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_new_file_swept_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = storage.tempfile.mkstemp, []

    def stolen(**how: Any) -> tuple[int, str]:
        handle, name = make(**how)
        made.append(name)
        if len(made) == 1:
            sweep(tmp_path / "x")  # not locked yet: it looks like a leftover
            assert not os.path.exists(name)
        return handle, name

    monkeypatch.setattr(storage.tempfile, "mkstemp", stolen)
    write_atomic(tmp_path / "x", lambda stream: stream.write(b"new"))
    assert len(made) == 2 and [path.name for path in tmp_path.iterdir()] == ["x"]


def test_without_locks_nothing_is_swept_and_everything_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no locks on this file system")

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".x.abcdefgh.tmp").write_bytes(b"who knows")
    write_atomic(tmp_path / "x", lambda stream: stream.write(b"new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.abcdefgh.tmp", "x"]


def test_windows_deletes_what_is_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There no lock is needed: an open file cannot be deleted. (Here it could; what is tested is the way round.)"""
    monkeypatch.setattr(sys, "platform", "win32")
    for name in (".x.abcdefgh.tmp", ".x.12345678.tmp"):
        (tmp_path / name).write_bytes(b"of a process that was killed, or one about to move it into its place")
    os.utime(tmp_path / ".x.abcdefgh.tmp", (time.time() - 5, time.time() - 5))
    write_atomic(tmp_path / "x", lambda stream: stream.write(b"new"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.12345678.tmp", "x"]
    assert (tmp_path / "x").read_bytes() == b"new"


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "folder").mkdir()

    def written(path: Path) -> str:
        with pytest.raises(ClteachError) as info:
            write_atomic(path, lambda stream: stream.write(b"new"))
        return str(info.value).replace(str(tmp_path), ".").replace("\\", "/")

    folder, inside = written(tmp_path / "folder"), written(tmp_path / "file" / "deeper" / "x")
    assert folder.startswith("cannot write ./folder: a folder has this name. Expected the name of a file")
    assert inside == "cannot write ./file/deeper/x: ./file is a file. Expected a folder there; choose another one."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# ------------------------------------------------------------------------------------------------------------ text files


NO_TEXT = ("os.open", "Image.open", "tarfile.open")
"""Functions called `open` that know nothing of text."""


def calls_without_encoding(source: str) -> list[int]:
    """Lines on which text is read from or written to a file or a process without saying how it is encoded."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func) in NO_TEXT:
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        given = [value.value for value in [*node.args, options.get("mode")] if isinstance(value, ast.Constant)]
        modes = [value for value in given if isinstance(value, str) and set(value) <= set("rwaxbt+")]
        binary = any("b" in mode for mode in modes)
        as_text = (
            name in ("read_text", "write_text")
            or (name in ("open", "fdopen") and not binary)
            or (name.endswith("TemporaryFile") and bool(modes) and not binary)
            or (name in ("run", "Popen", "check_output") and bool(options.keys() & {"text", "universal_newlines"}))
        )
        if as_text and "encoding" not in options:
            lines.append(node.lineno)
    return lines


def test_calls_without_encoding_are_found() -> None:
    bad = [
        "path.read_text()",
        "Path(name).write_text(text)",
        "open(name)",
        "open(name, 'w')",
        "path.open('r')",
        "path.open()",
        "open(name, mode='a')",
        "os.fdopen(handle, 'w')",
        "tempfile.NamedTemporaryFile('w')",
        "subprocess.run(command, text=True)",
    ]
    good = [
        "path.read_text(encoding='utf-8')",
        "open(name, 'rb')",
        "path.open('wb')",
        "open(name, mode='rb')",
        "open(name, 'w', encoding='utf-8')",
        "os.open(name, os.O_RDWR)",
        "Image.open(stream)",
        "tempfile.TemporaryFile(dir=out)",
        "subprocess.run(command, text=True, encoding='utf-8')",
    ]
    assert calls_without_encoding("\n".join(bad)) == list(range(1, len(bad) + 1))
    assert calls_without_encoding("\n".join(good)) == []


def test_text_files_say_how_they_are_encoded() -> None:
    """On Windows the default is not UTF-8, and names and captions have letters beyond ASCII."""
    files = [file for room in ("clteach", "notebooks", "book", "benchmarks") for file in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    found = {
        str(file.relative_to(ROOT)): lines
        for file in files
        if "_build" not in file.parts and (lines := calls_without_encoding(file.read_text(encoding="utf-8")))
    }
    assert found == {}
