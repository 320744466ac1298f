"""Files that are whole or not there, and tensors with plain values in one safetensors file: no pickle is ever loaded."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from clteach.errors import CheckpointError, ClteachError


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file so that a crash at any moment leaves the old file or the new one, never a part of one.

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
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files (0600); give the file the permissions any other new file would get
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise ClteachError(
            f"cannot write {path}: {error.strerror or error}. "
            "Expected a folder with write permission and free space; choose another one."
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path


FORMAT = 1


def save_tensors(path: str | Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write named tensors and JSON values atomically.

    Raises:
        ClteachError: the place cannot be written.
    """
    # Cloned one by one: safetensors refuses tensors that share memory.
    contents = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    header = {"clteach": json.dumps({"format": FORMAT, **meta})}
    return write_atomic(path, lambda file: file.write(safetensors.torch.save(contents, header)))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back (tensors on the CPU, JSON values).

    Raises:
        CheckpointError: the file is missing, damaged, truncated or not written by clteach.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist. Expected a file written by clteach (a run, learner or checkpoint)."
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["clteach"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or was not written by clteach ({type(error).__name__}: {error}). "
            "Delete it to start again, or restore it from a copy."
        ) from error
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {header.get('format')}, this version of clteach reads {FORMAT}.")
    return tensors, header


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


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a JSON document atomically."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return write_atomic(path, lambda file: file.write(text.encode()))
