"""Numbers to the last bit, before and after a change that must not change any: moved files, other names, another order.

    python tests/golden.py write golden.json      # before the change
    python tests/golden.py compare golden.json    # after it: lists what differs, exit code 1 if anything does

For every method × scenario: a SHA-256 of the learner's state and the accuracies after 20 steps per task on toy data, the
same when the run was killed on the way and resumed. Then two recipes and a study in little, every preset and recipe as
text, and the tables of all records. The last bits depend on the processor and on torch's version, so the file is not
kept with the project.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import clteach
from clteach import results
from clteach.experiments import recording
from clteach.experiments.papers import PRESETS, RECIPES
from clteach.methods import METHODS
from clteach.results import cards, comparison
from clteach.training.learner_checks import tiny, toy_data

STEPS = 20
KILLED_AFTER = 27  # steps: in the second task, between two checkpoints
UNSTEADY = ("commit", "seconds", "training_seconds", "wall_seconds", "iterations_per_second", "device", "version")


def digest(learner: clteach.Learner) -> str:
    """A SHA-256 of all parameters and buffers, whatever they are called and in whatever order they stand."""
    each = sorted(
        hashlib.sha256(f"{tuple(v.shape)} {v.dtype}".encode() + v.contiguous().cpu().numpy().tobytes()).hexdigest()
        for v in learner.state_dict().values()
    )
    return hashlib.sha256("".join(each).encode()).hexdigest()


class Killed(Exception):
    """The end of a run that is to be resumed."""


def outcome(name: str, scenario: str, stream: clteach.Stream, checkpoint: Path | None = None) -> dict[str, Any]:
    cls = METHODS[name]
    how: dict[str, Any] = {"steps": STEPS, "batch_size": 8, "device": "cpu", "checkpoint": checkpoint}

    def fresh() -> clteach.Learner:
        return cls.make(stream.spec, tiny(cls), seed=3)

    if checkpoint is not None:

        def kill(done: int, total: int, text: str) -> None:
            if done >= KILLED_AFTER:
                raise Killed

        try:
            clteach.train(fresh(), stream, seed=3, checkpoint_every=5, log_every=1, progress=kill, **how)
        except Killed:
            pass
        else:
            raise AssertionError(f"{name}: was not killed")
        run = clteach.train(fresh(), stream, seed=3, checkpoint_every=5, log_every=1, **how)
    else:
        run = clteach.train(fresh(), stream, seed=3, **how)
    return {"state": digest(run.learner), "accuracy": [[v.hex() for v in row] for row in run.accuracy.tolist()]}


def steady(value: Any) -> Any:
    """Without times, machine and commit."""
    if isinstance(value, Mapping):
        return {key: steady(v) for key, v in value.items() if key not in UNSTEADY}
    return [steady(v) for v in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Settings as text: what they are, not where their classes stand."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {type(value).__name__: plain(value._asdict())}
    if isinstance(value, Mapping):
        return [[key, plain(v)] for key, v in value.items()]
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.__qualname__ if callable(value) else repr(value)


def golden() -> dict[str, Any]:
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, cls in METHODS.items():
        for scenario in cls.scenarios:
            for kind, stream in (
                ("images", clteach.split(toy_data(), scenario, tasks=2)),
                ("permuted", clteach.permuted(toy_data(), scenario, tasks=2)),
            ):
                found[f"{name} {scenario} {kind}"] = outcome(name, scenario, stream)
                with tempfile.TemporaryDirectory() as folder:
                    resumed = outcome(name, scenario, stream, Path(folder) / "checkpoint.safetensors")
                found[f"{name} {scenario} {kind} resumed"] = resumed
    with tempfile.TemporaryDirectory() as folder:
        for recipe, how in (
            ("split-digits", {"iters": 10, "seeds": 2}),
            ("brain-inspired-replay-reinit-digits", {"iters": 10, "seeds": 1}),
            ("multiband-vae-split-digits", {"iters": 10, "seeds": 1}),
            ("ebgan-modes", {"iters": 30, "seeds": 1}),
            ("domain-transfer", {"iters": 10, "seeds": 1}),
        ):
            file = recording.reproduce(recipe, folder, n_jobs=2, **how)
            found[f"reproduce {recipe}"] = steady(json.loads(file.read_text(encoding="utf-8")))
    found |= {f"preset {name}": plain(preset) for name, preset in PRESETS.items()}
    found |= {f"recipe {name}": plain(recipe) for name, recipe in RECIPES.items()}
    found["order of presets"], found["order of recipes"] = list(PRESETS), list(RECIPES)
    for recipe in RECIPES:
        found[f"report {recipe}"] = results.reports(recipe)
    for stream_name in comparison.streams():
        lines = comparison.collected(stream_name).drop(columns=["seconds", "record"])
        found[f"collected {stream_name}"] = [[repr(v) for v in row] for row in lines.to_numpy().tolist()]
    table = cards.cards().drop(columns=["API"])
    found["cards"] = [[repr(v) for v in row] for row in table.to_numpy().tolist()]
    return found


def main(action: str, path: str) -> int:
    found = json.loads(json.dumps(golden()))
    if action == "write":
        Path(path).write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{len(found)} entries written to {path}")
        return 0
    before = json.loads(Path(path).read_text(encoding="utf-8"))
    differing = [key for key in {**before, **found} if before.get(key) != found.get(key)]
    for key in differing:
        print(f"{key}:\n  before {str(before.get(key))[:300]}\n  now    {str(found.get(key))[:300]}")
    print(f"{len(found)} entries, {len(differing)} differ")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
