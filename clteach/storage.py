"""Files that are whole or not there, and tensors with plain values in one safetensors file: no pickle is ever loaded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clteach.errors import CheckpointError, ClteachError

if sys.platform != "win32":
    import fcntl

# ------------------------------------------------------------------------------------------------ whole or not there


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file so that a crash at any moment leaves the old file or the new one, never a part of one.

    What earlier, killed attempts to write this file left behind is swept away.

    Args:
        path: the file to write; missing parent folders are made.
        write: called with an open binary file.

    Returns:
        The path written.

    Raises:
        ClteachError: the place cannot be written (the message names it).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "a folder has this name")
        sweep(path)
        handle, temporary = _temporary(path)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            # mkstemp makes private files (0600); give the file the permissions any other new file would get
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            if sys.platform == "win32":
                file.close()  # what is open cannot be moved there; elsewhere the lock holds until the file is in its place
            os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


def sweep(path: str | Path) -> None:
    """Delete what killed processes left of their attempts to write this file. What is being written now stays."""
    path = Path(path)
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.tmp")  # as mkstemp makes them of this name alone
    with suppress(OSError):  # whoever cannot tidy up can work all the same
        for name in os.listdir(path.parent):
            if leftover.fullmatch(name):
                with suppress(OSError):
                    _delete_unless_open(path.parent / name)


def _temporary(path: Path) -> tuple[int, str]:
    """(handle, name) of a new file beside `path`, locked for as long as it is open."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        if sys.platform != "win32":
            with suppress(OSError):  # a file system without locks: then `sweep` cannot lock, and deletes nothing
                fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink > 0:
            return handle, name
        os.close(handle)  # another process swept it away in the moment before it was locked


def _delete_unless_open(path: Path) -> None:
    """Delete a temporary file whose writer is dead; OSError where it lives.

    A lock dies with the process that holds it, whichever container or machine it ran in; a process number in the name
    would tell the living from the dead on one machine alone. Windows has no such locks, but deletes no open file; one
    that was written a moment ago may be closed already and on its way into its place.
    """
    if sys.platform == "win32":
        if time.time() - path.stat().st_mtime > 2:
            path.unlink()
    else:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(handle)


def _cannot_write(path: Path, error: OSError) -> ClteachError:
    what, expected = error.strerror or str(error), "a folder with write permission and free space"
    if os.path.isdir(path):  # os.path, as it answers also where nobody may look
        expected = "the name of a file, which may exist or not"
    lowest = next((parent for parent in path.parents if os.path.exists(parent)), path.parent)
    if os.path.isfile(lowest):
        what, expected = f"{lowest} is a file", "a folder there"
    return ClteachError(f"cannot write {path}: {what}. Expected {expected}; choose another one.")


# ------------------------------------------------------------------------------------------ with a checksum of it all

FORMAT = 2
"""Of the files below. 1 had no checksums: what a damaged disk or a hand had changed was read without a word."""


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Write named tensors and JSON values atomically, with a checksum of them all.

    Raises:
        ClteachError: the place cannot be written.
    """
    # Cloned one by one: safetensors refuses tensors that share memory.
    contents = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **meta})
    header = {"clteach": text, "sha256": _checksum(text, contents)}
    return write_atomic(path, lambda file: file.write(safetensors.torch.save(contents, header)))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back (tensors on the CPU, JSON values).

    Raises:
        CheckpointError: the file is missing, damaged, truncated or not written by clteach.
    """
    path = _existing(path)
    try:
        path.open("rb").close()  # of a file that may not be read safetensors says that there is none
        with safe_open(path, framework="pt") as file:
            text, found = _header(file)
            # Cloned: safetensors maps the file into memory, and who trains on must not depend on the file any more.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        meta = _checked_format(path, json.loads(text))
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if found != _checksum(text, tensors):
        raise _damaged(path, "its checksum is another one")
    return tensors, meta


def saved_checksum(path: str | Path) -> str:
    """The checksum in a file that `save_tensors` wrote: two files with the same one hold the same.

    Raises:
        CheckpointError: the file is missing or not written by clteach.
    """
    path = _existing(path)
    try:
        with safe_open(path, framework="pt") as file:
            return _header(file)[1]
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a JSON document atomically."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, lambda file: file.write(text.encode()))


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as plain JSON values, with its ``format`` and a checksum, ``sha256``, of all the rest."""
    plain = {"format": FORMAT, **json.loads(json.dumps(document))}  # keys are text, tuples lists: as it will be read
    return {**plain, "sha256": _checksum(_canonical(plain))}


def load_sealed(path: str | Path) -> dict[str, Any]:
    """Read back a JSON document that was `sealed` before it was written; format and checksum are left out.

    Raises:
        CheckpointError: the file is missing, damaged, truncated or not written by clteach.
    """
    path = _existing(path)
    try:
        document = _checked_format(path, json.loads(path.read_text(encoding="utf-8")))
        found = document.pop("sha256")
    except _DAMAGE as error:
        raise _damaged(path, error) from error
    if found != _checksum(_canonical(document)):
        raise _damaged(path, "its checksum is another one")
    del document["format"]
    return document


_DAMAGE = (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError)
"""What surfaces where a file is not what it should be."""


def _checksum(text: str, tensors: Mapping[str, Tensor] | None = None) -> str:
    """SHA-256 of a text and of the names, types, shapes and bytes of tensors (contiguous, on the CPU)."""
    each = sorted((tensors or {}).items())
    listed = [(name, str(tensor.dtype), list(tensor.shape)) for name, tensor in each]
    digest = hashlib.sha256(_canonical([text, listed]).encode())
    for _, tensor in each:
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not os.path.isfile(path):
        there = os.path.exists(path)
        what = "is a folder" if os.path.isdir(path) else "is not a regular file" if there else "does not exist"
        raise CheckpointError(
            f"{path} {what}. Expected a file written by clteach (a run, learner or checkpoint); choose another one."
        )
    return path


def _header(file: safe_open) -> tuple[str, str]:
    """(JSON values as text, checksum); an empty one of a file of format 1."""
    header = file.metadata() or {}
    return header["clteach"], header.get("sha256", "")


def _checked_format(path: Path, document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise TypeError("not an object of JSON")
    if document["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has format {str(document['format'])[:20]}, this version of clteach reads {FORMAT}. "
            "Expected a file of this version: make it again, or read it with the version that wrote it."
        )
    return document


def _damaged(path: Path, why: Exception | str) -> CheckpointError:
    if isinstance(why, OSError):
        reason = why.strerror or str(why)
        return CheckpointError(f"{path} cannot be read: {reason}. Expected a readable file; choose another one.")
    if isinstance(why, Exception):
        why = f"{type(why).__name__}: {' '.join(str(why).split())}"[:200]
    return CheckpointError(
        f"{path} is damaged or was not written by clteach ({why}). Expected it as it was written. "
        "Delete it to start again, or restore it from a copy."
    )


# -------------------------------------------------------------------------------------------- the state of optimisers


def optimizer_tensors(name: str, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimiser's state as (tensors under ``opts/NAME/PARAMETER/KEY``, parameter groups as plain values)."""
    state = optimizer.state_dict()
    tensors = {
        f"opts/{name}/{index}/{key}": value
        for index, entries in state["state"].items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }
    return tensors, json.loads(json.dumps(state["param_groups"]))


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    """The inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    prefix = f"opts/{name}/"
    for key, value in tensors.items():
        if key.startswith(prefix):
            index, entry = key[len(prefix) :].split("/")
            state.setdefault(int(index), {})[entry] = value
    for group in groups:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
