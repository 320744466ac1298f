"""Where a number comes from: the machine it was measured on, and the commit. The code: `clteach.training.code`."""

from __future__ import annotations

import contextlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch


def machine(device: str = "cpu", threads: int = 1) -> dict[str, Any]:
    """What the runs ran on, with how many threads each."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"type": device, "cpu": model, "cores": joblib.cpu_count(), "gpu": gpu, "threads_per_process": threads}


def as_one(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several machines as one: what they have in common as it is, the rest one after the other (``"EPYC, Xeon"``).

    What some of them lack, such as a GPU, is that of the others.
    """
    known = {key: [each[key] for each in machines if each[key] is not None] for key in machines[0]}
    return {key: in_turn(values) if values else None for key, values in known.items()}


def named(device: Mapping[str, Any]) -> str:
    """What a `machine`, or several `as_one`, computed on: "NVIDIA H200", or where some had no GPU "NVIDIA H200, EPYC"."""
    kinds = str(device["type"]).split(", ")
    names = [device["gpu"]] * ("cuda" in kinds) + [device["cpu"]] * ("cpu" in kinds)
    return ", ".join(name or "a CPU" for name in names)


def in_turn(values: Sequence[Any]) -> Any:
    """The value that all have in common, or the different ones as text in the order of their appearance.

    A value may be such a text itself, of a record to which runs are added: what it names is not named twice.
    """
    if len(set(values)) == 1:
        return values[0]
    return ", ".join(dict.fromkeys(name for value in values for name in str(value).split(", ")))


def checkout() -> str | None:
    """The checkout's state where the package lies in one of its own; None elsewhere."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str | None:
        with contextlib.suppress(OSError):
            done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, encoding="utf-8", check=False)
            return done.stdout.strip() if done.returncode == 0 else None
        return None

    top = git("rev-parse", "--show-toplevel")
    return git("describe", "--always", "--dirty") if top and Path(top) == root else None


def canonical(value: Any) -> str:
    """JSON in one way only, for fingerprints: sorted keys, mappings of any kind as dicts."""
    return json.dumps(value, sort_keys=True, default=dict)
