"""What a training leaves behind: a `Run` with its numbers and its learner, and how both are saved and read back."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clteach import storage
from clteach.data.dataset import Encoding
from clteach.data.tasks import Spec
from clteach.errors import CheckpointError
from clteach.learners.learner import Learner, NetMaker, Phase
from clteach.methods import configure, method
from clteach.storage import write_atomic

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Run:
    """The result of `train`.

    Attributes:
        learner: the trained learner.
        config: everything needed to repeat the run, as plain JSON values.
        accuracy: (T, T) float64, ``accuracy[t, i]`` = accuracy in [0, 1] on task i after learning task t; of a pure
            generator the score that its `measure` names, such as the FID.
        initial: (T,) float64, accuracies before any training (for forward transfer).
        losses: one row per window of `log_every` steps: task, phase, step (within the phase, at the window's end) and the
            mean of every loss term.
        curve: one row per `eval_every` steps: step (over the whole run) and accuracy (T,) on all tasks; NaN on those that a
            run which went on did not have yet.
        seconds: time spent in training steps, per task.
        quality: of a pure generator trained with `quality`: for each of its measures (``fid``, ``precision``, ``recall``,
            ...) a (T, T) float64 matrix like `accuracy`, NaN for tasks not learned yet.
    """

    learner: Learner
    config: dict[str, Any]
    accuracy: Tensor
    initial: Tensor
    losses: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    quality: dict[str, Tensor] = field(default_factory=dict)

    @property
    def iterations_per_second(self) -> float:
        """Training steps per second over the whole run."""
        trained = [
            t for t, seconds in enumerate(self.seconds) if seconds
        ]  # the first tasks may be those of another run
        steps = sum(phase.steps for t in trained for phase in self.phases(t))
        return steps / max(sum(self.seconds), 1e-9)

    def phases(self, t: int) -> list[Phase]:
        """The phases of task t."""
        return self.learner.phases(t, self.config["steps"])

    def frame(self) -> pd.DataFrame:
        """All scores as a tidy data frame, one row for each.

        Returns:
            Columns method, stream, scenario, seed, measure, ``after`` (tasks learned; 0: before any training), ``task``
            (evaluated on, from 1) and ``value``, accuracies as shares of 1. What was not evaluated is left out.
        """
        import pandas as pd

        about = {
            "method": self.config["name"],
            "stream": self.config["stream"],
            "scenario": self.learner.spec.scenario,
            "seed": self.config["train_seed"],
        }
        return pd.DataFrame(tidy(about, self.learner.measure, self.numbers()))

    def save(self, folder: str | Path) -> Path:
        """Write ``run.json`` (numbers and settings) and ``learner.safetensors`` (weights) into `folder`.

        Raises:
            ClteachError: the folder cannot be written.
        """
        folder = Path(folder)
        weights = storage.saved_checksum(self.learner.save(folder / "learner.safetensors"))
        document = storage.sealed({"config": self.config, "learner": weights, **self.numbers()})
        text = json.dumps(document, indent=1).encode()
        write_atomic(folder / "run.json", lambda file: file.write(text))
        return folder

    @classmethod
    def load(cls, folder: str | Path, net: NetMaker | None = None) -> Run:
        """Read a saved run back; the learner is rebuilt and can predict at once.

        Args:
            folder: what `save` wrote.
            net: as in `load_learner`.

        Raises:
            CheckpointError: a file is missing, damaged, of another format, or the two are not of one run.
        """
        path, weights = Path(folder) / "run.json", Path(folder) / "learner.safetensors"
        document = storage.load_sealed(path)
        learner = load_learner(weights, net)
        try:
            run = cls(learner, document["config"], torch.empty(0), torch.empty(0))
            run.set_numbers(document)
            if document["learner"] != storage.saved_checksum(weights):
                raise ValueError(f"{weights.name} is of another run")
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} cannot be read as a saved run ({error}). "
                "Expected the folder that Run.save wrote, with run.json and learner.safetensors: save the run again."
            ) from error
        return run

    def numbers(self) -> dict[str, Any]:
        """All results as plain JSON values; NaN (not evaluated) becomes null."""
        return {
            "accuracy": _rows(self.accuracy),
            "initial": _row(self.initial.tolist()),
            "losses": self.losses,
            "curve": [{**row, "accuracy": _row(row["accuracy"])} for row in self.curve],
            "seconds": self.seconds,
            "quality": {measure: _rows(matrix) for measure, matrix in self.quality.items()},
        }

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """The inverse of `numbers`."""
        self.accuracy = _matrix(numbers["accuracy"])
        (self.initial,) = _matrix([numbers["initial"]])
        self.losses, self.seconds = numbers["losses"], numbers["seconds"]
        curve = numbers["curve"]
        self.curve = [{**row, "accuracy": [math.nan if v is None else v for v in row["accuracy"]]} for row in curve]
        self.quality = {measure: _matrix(rows) for measure, rows in numbers["quality"].items()}


def tidy(
    about: dict[str, Any], measure: str, numbers: dict[str, Any], matrix: str = "accuracy"
) -> list[dict[str, Any]]:
    """One row {**about, measure, after, task, value} for each score of a run.

    Args:
        about: what every row says of the run.
        measure: what the scores are.
        numbers: of a run (`Run.numbers`), plain JSON values.
        matrix: the name that its matrix of scores has among them.
    """
    scores = {measure: [numbers["initial"], *numbers[matrix]]}
    scores |= {name: [[], *rows] for name, rows in (numbers.get("quality") or {}).items() if name != measure}
    return [
        {**about, "measure": name, "after": after, "task": task, "value": value}
        for name, rows in scores.items()
        for after, row in enumerate(rows)
        for task, value in enumerate(row, start=1)
        if value is not None
    ]


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [_row(row) for row in matrix.tolist()]


def _row(values: list[float]) -> list[float | None]:
    return [None if math.isnan(v) else v for v in values]


def _matrix(rows: list[list[float | None]]) -> Tensor:
    return torch.tensor([[torch.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)


def load_learner(path: str | Path, net: NetMaker | None = None) -> Learner:
    """Build the learner that `Learner.save` wrote and load its state.

    Args:
        path: the file.
        net: what made its network, where that was one of the user's own: a file holds weights, not code. A warning is given
            where the network that it makes answers otherwise with these weights, as one with another activation does.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit the method as it is now.
    """
    tensors, meta = storage.load_tensors(path)
    try:
        if "learner" not in meta:
            raise TypeError("it holds something else")
        about = meta["learner"]
        spec = about["spec"]
        spec = spec_from(spec)
        cls = method(about["name"])
        if about.get("net") is not None and net is None:
            raise CheckpointError(f"{path} holds a network of your own, made by {about['net']}: pass it as net=.")
        learner = cls.make(spec, configure(cls, about["cfg"]), about["seed"], net)
        learner.load_state_dict(tensors)
        _check_answers(path, learner, meta.get("probe"), about.get("net"))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} does not hold a learner of this version ({why}). "
            "Expected what Learner.save wrote; choose another file, or save the learner again."
        ) from error
    return learner.eval()


def _check_answers(path: str | Path, learner: Learner, saved: list[list[float]] | None, name: str | None) -> None:
    """Warn of another network than the one that was saved (`saved`: its `Learner.probe`, if the file holds one)."""
    now = learner.probe() if saved is not None else None
    if saved is None or now is None:
        return
    before, after = torch.tensor(saved), torch.tensor(now)
    # another device rounds otherwise
    if not torch.allclose(after, before, rtol=0.02, atol=0.02 * float(before.abs().median()) + 1e-4):
        warnings.warn(
            f"{path}: the network that net= makes gives other answers with the saved weights than the one that was saved, "
            f"made by {name}. Expected the same layers, activations and settings: its scores are not those of the run. Pass "
            "the maker that it was trained with",
            stacklevel=3,
        )


def spec_from(plain: dict[str, Any]) -> Spec:
    """A `Spec` of its fields as plain JSON values (which know no tuples)."""
    pairs = {"units": tuple(map(tuple, plain["units"])), "classes": tuple(map(tuple, plain.get("classes", ())))}
    encoding = plain.get("encoding")
    if encoding is not None:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in encoding.items()}
        encoding = Encoding(**fields)
    return Spec(**{**plain, "shape": tuple(plain["shape"]), **pairs, "encoding": encoding})
