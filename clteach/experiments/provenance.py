"""Where a number comes from: the machine it was measured on, the commit, and the code that a run executes."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch

from clteach.training.loop import train


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the runs ran on."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    return {"type": device, "cpu": model, "cores": joblib.cpu_count(), "gpu": gpu, "threads_per_process": 1}


def together(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several machines as one: what they have in common as it is, the rest one after the other (``"EPYC, Xeon"``)."""
    return {key: in_turn([each[key] for each in machines]) for key in machines[0]}


def in_turn(values: Sequence[Any]) -> Any:
    """The value that all have in common, or the different ones as text in the order of their appearance."""
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else ", ".join(map(str, different))


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


def code(module: str) -> str:
    """A fingerprint of the code a run executes: numbers of another version are neither read back nor resumed.

    Args:
        module: name of the module that holds the method or the study; the loop that drives it is added.
    """
    return hashlib.sha256(canonical(sources(train.__module__, module)).encode()).hexdigest()


def sources(*start: str) -> dict[str, str]:
    """{name: source} of modules and of all modules of this package that they import, also inside functions.

    The package itself and the registry are left out: they would bring in all methods.

    Raises:
        OSError: the source of a module of this package is not there. What cannot be read must not count as unchanged.
    """
    found: dict[str, str] = {}
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in found or name in ("clteach", "clteach.methods"):
            continue
        of_package = name.split(".")[0] == "clteach"
        try:
            found[name] = inspect.getsource(importlib.import_module(name))
        except (ImportError, OSError, TypeError):  # a class typed into an interpreter
            if of_package:
                raise
            continue
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "clteach":
                package = importlib.import_module(str(node.module))
                waiting.append(package.__name__)
                if hasattr(package, "__path__"):  # a name taken from it may be a module
                    below = [f"{package.__name__}.{alias.name}" for alias in node.names]
                    waiting += [each for each in below if importlib.util.find_spec(each) is not None]
    return found


# ----------------------------------------------------------------------------------------------------------- files


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=dict)
