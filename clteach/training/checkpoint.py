"""Where a run is, and the file from which it goes on after it was killed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clteach import storage
from clteach.errors import CheckpointError
from clteach.training.run import Run


@dataclass
class Position:
    """Where a run is: the next step to do, and the loss sums of the window it is in."""

    task: int = 0
    phase: int = 0
    step: int = 0
    done: int = 0  # steps over the whole run
    begun: bool = False  # has begin_phase been called for this phase?
    window: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    code: str | None = None  # fingerprint of the code that is run

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, value in losses.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.step += 1
        self.done += 1
        self.window += 1

    def means(self) -> dict[str, float]:
        means = {name: float(value) / self.window for name, value in self.sums.items()}
        self.sums, self.window = {}, 0
        return means

    def next_phase(self) -> None:
        self.phase, self.step, self.begun = self.phase + 1, 0, False

    def next_task(self) -> None:
        self.task, self.phase = self.task + 1, 0


def save(path: Path | None, run: Run, at: Position) -> None:
    """Write the learner, its optimisers, the results so far and the position; nothing where there is no path."""
    if path is not None:
        storage.save_tensors(path, *contents(run, at))


def contents(run: Run, at: Position) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint of a run holds: tensors, and plain JSON values."""
    tensors = {f"learner/{k}": v for k, v in run.learner.state_dict().items()}
    groups = {}
    for name, opt in run.learner.opts.items():
        opt_tensors, groups[name] = storage.optimizer_tensors(name, opt)
        tensors.update(opt_tensors)
    position = {**dataclasses.asdict(at), "sums": {name: float(value) for name, value in at.sums.items()}}
    meta = {
        "config": run.config,
        "position": position,
        "groups": groups,
        # Sums in another order round differently: the number of threads is part of the result.
        "threads": torch.get_num_threads(),
        **run.numbers(),
    }
    return tensors, meta


def begun(path: Path) -> bool:
    """Is there a checkpoint to go on from? Also sweeps away what a killed save of it left behind."""
    storage.sweep(path)
    return path.exists()


def restore(path: Path, run: Run, at: Position) -> None:
    """Fill the run and its position from the file.

    Raises:
        CheckpointError: it is damaged, or belongs to another experiment.
    """
    fill(path, *storage.load_tensors(path), run, at)


def fill(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any], run: Run, at: Position) -> None:
    """Fill the run and its position from what `contents` gave; `path` is for the messages.

    Raises:
        CheckpointError: as `restore`.
    """
    if "position" not in meta:
        raise CheckpointError(
            f"{path} is no checkpoint, but another file of clteach. Expected one that train(checkpoint=...) wrote, or "
            "the name of a new file; choose another one."
        )
    try:
        saved = meta["config"]
        if saved != run.config:
            now = run.config
            differing = [k for k in {**now, **saved} if saved.get(k) != now.get(k)]
            what = "; ".join(f"{k} was {saved.get(k)!r}, is {now.get(k)!r}" for k in differing)
            raise CheckpointError(
                f"{path} belongs to another experiment ({what}). Expected the same settings. "
                "Delete it or choose another file to start anew, or repeat the same settings to resume."
            )
        if at.code is None or meta["position"]["code"] != at.code:
            why = (
                f"the source of {type(run.learner).__name__} cannot be found, so nobody can tell whether it wrote the file"
                if at.code is None
                else f"the code of {run.config['name']}, or what it stands on, has changed since"
            )
            raise CheckpointError(
                f"{path} cannot be resumed: {why}. Delete it to start anew with the code as it is"
                f"{', or define the class in a file' * (at.code is None)}."
            )
        run.learner.load_state_dict(
            {k.removeprefix("learner/"): v for k, v in tensors.items() if k.startswith("learner/")}
        )
        for name, opt in run.learner.opts.items():
            storage.restore_optimizer(name, opt, tensors, meta["groups"][name])
        run.set_numbers(meta)
        for key, value in meta["position"].items():
            setattr(at, key, value)
        at.sums = {name: torch.tensor(value, device=run.learner.device) for name, value in at.sums.items()}
        torch.set_num_threads(meta["threads"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} does not fit this version of the method ({why}). "
            "Expected a checkpoint of the same version; delete it to start again."
        ) from error
