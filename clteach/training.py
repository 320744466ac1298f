"""One flat loop that trains any learner on any stream, and can be killed at any moment.

Every random number is derived from (seed, task, phase, step), and a checkpoint holds the learner's state, its optimisers'
states and the position. So a run that was killed and resumed ends with bit-identical weights and accuracies on the CPU.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clteach import storage
from clteach.errors import CheckpointError, ConfigError
from clteach.files import write_atomic
from clteach.learner import IDLE_EVERY, Learner, Phase, PureGenerator, drop_idle_moments
from clteach.methods import build, configure, method
from clteach.seeding import derive, generator, whole_seed
from clteach.streams import Spec, Stream

Report = Callable[[int, int, str], None]
"""Progress callback: (steps done, steps in all, what is being done)."""


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
        curve: one row per `eval_every` steps: step (over the whole run) and accuracy (T,) on all tasks.
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
        steps = sum(phase.steps for t in range(len(self.accuracy)) for phase in self.phases(t))
        return steps / max(sum(self.seconds), 1e-9)

    def phases(self, t: int) -> list[Phase]:
        """The phases of task t."""
        return self.learner.phases(t, self.config["steps"])

    def save(self, folder: str | Path) -> Path:
        """Write ``run.json`` (numbers and settings) and ``learner.safetensors`` (weights) into `folder`."""
        folder = Path(folder)
        self.learner.save(folder / "learner.safetensors")
        text = json.dumps({"format": storage.FORMAT, "config": self.config, **self.numbers()}, indent=1).encode()
        write_atomic(folder / "run.json", lambda file: file.write(text))
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a saved run back; the learner is rebuilt and can predict at once.

        Raises:
            CheckpointError: a file is missing, damaged or of another format.
        """
        path = Path(folder) / "run.json"
        try:
            document = json.loads(path.read_text())
            if document["format"] != storage.FORMAT:
                raise ValueError(f"format {document['format']}, expected {storage.FORMAT}")
            learner = load_learner(Path(folder) / "learner.safetensors")
            run = cls(learner, document["config"], torch.empty(0), torch.empty(0))
            run.set_numbers(document)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} cannot be read as a saved run ({type(error).__name__}: {error}). "
                "Expected the folder that Run.save wrote, with run.json and learner.safetensors."
            ) from error
        return run

    def numbers(self) -> dict[str, Any]:
        """All results as plain JSON values; NaN (not evaluated) becomes null."""
        return {
            "accuracy": _rows(self.accuracy),
            "initial": [None if v != v else v for v in self.initial.tolist()],
            "losses": self.losses,
            "curve": self.curve,
            "seconds": self.seconds,
            "quality": {measure: _rows(matrix) for measure, matrix in self.quality.items()},
        }

    def set_numbers(self, numbers: dict[str, Any]) -> None:
        """The inverse of `numbers`."""
        self.accuracy = _matrix(numbers["accuracy"])
        (self.initial,) = _matrix([numbers["initial"]])
        self.losses, self.curve, self.seconds = numbers["losses"], numbers["curve"], numbers["seconds"]
        self.quality = {measure: _matrix(rows) for measure, rows in numbers.get("quality", {}).items()}


def _rows(matrix: Tensor) -> list[list[float | None]]:
    return [[None if v != v else v for v in row] for row in matrix.tolist()]


def _matrix(rows: list[list[float | None]]) -> Tensor:
    return torch.tensor([[torch.nan if v is None else v for v in row] for row in rows], dtype=torch.float64)


def load_learner(path: str | Path) -> Learner:
    """Build the learner that `Learner.save` wrote and load its state.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit the method as it is now.
    """
    tensors, meta = storage.load_tensors(path)
    try:
        about = meta["learner"]
        spec = about["spec"]
        spec = Spec(**{**spec, "shape": tuple(spec["shape"]), "units": tuple(map(tuple, spec["units"]))})
        cls = method(about["name"])
        learner = cls(spec, configure(cls, about["cfg"]), about["seed"])
        learner.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold a learner of this version ({error}).") from error
    return learner


def train(
    learner: Learner | str,
    stream: Stream,
    *,
    steps: int = 2000,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str = "auto",
    progress: Report | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    eval_every: int = 0,
    log_every: int = 50,
    evaluate_on: str = "test",
    quality: bool = False,
    compile: bool | str = False,
    **settings: Any,
) -> Run:
    """Train a learner on a stream, task after task, and evaluate it on every task after each.

    Args:
        learner: a learner built for ``stream.spec``, or a method's name (then `settings` are its Config's fields).
        stream: the tasks.
        steps: steps per task.
        batch_size: samples per step.
        seed: seed of everything that is random in training (and of the initial weights when `learner` is a name).
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        progress: called as ``progress(done, total, text)`` now and then; `clteach.progress.bar` shows a bar.
        checkpoint: file to checkpoint to and to resume from; None: neither. A finished run is returned at once.
        checkpoint_every: steps between checkpoints within a task (one is written after every task in any case).
        eval_every: steps between evaluations for `Run.curve`; 0: none.
        log_every: steps per window of `Run.losses`.
        evaluate_on: "test", or "valid" (the held-out part of the training data: tune settings on that one).
        quality: of a pure generator, take all measures of its samples of each task after each task (`Run.quality`); about
            a second each, for thousands of images.
        compile: compile the loss with `torch.compile` (True, or the name of a backend). It takes minutes on a CPU, so it
            pays off in long runs only, mostly on a GPU.
        **settings: fields of the method's Config when `learner` is a name.

    Returns:
        The `Run`.

    Raises:
        ConfigError: arguments that cannot work.
        CheckpointError: `checkpoint` is damaged or belongs to another experiment.
    """
    device, seed = resolve_device(device), whole_seed(seed)
    if steps < 1 or batch_size < 1 or checkpoint_every < 1 or log_every < 1 or eval_every < 0:
        raise ConfigError(
            f"steps={steps}, batch_size={batch_size}, checkpoint_every={checkpoint_every}, log_every={log_every}, "
            f"eval_every={eval_every}: expected whole numbers ≥ 1 (eval_every ≥ 0)."
        )
    if evaluate_on not in ("test", "valid") or (evaluate_on == "valid" and stream[0].valid is None):
        raise ConfigError(
            f"evaluate_on={evaluate_on!r}: expected 'test', or 'valid' on a stream made with validation > 0."
        )
    if isinstance(learner, str):
        learner = build(learner, stream.spec, seed=seed, **settings)
    elif settings:
        raise ConfigError(f"{', '.join(settings)}: settings go with a method's name; this learner is already built.")
    if learner.spec != stream.spec:
        raise ConfigError(
            f"the learner was built for {learner.spec}, the stream is {stream.spec}: build it with stream.spec."
        )
    if quality and not isinstance(learner, PureGenerator):
        raise ConfigError(f"quality=True: {learner.name} is not judged by its samples. Expected a pure generator.")

    learner.to(device)
    stream = stream.to(device)
    config = {
        **learner.describe(),
        "stream": stream.name,
        "fingerprint": stream.fingerprint,
        "steps": steps,
        "batch_size": batch_size,
        "train_seed": seed,
        "device": device.type,
        "log_every": log_every,
        "eval_every": eval_every,
        "evaluate_on": evaluate_on,
        "quality": quality,
    }
    n_tasks = len(stream)
    total = sum(phase.steps for t in range(n_tasks) for phase in learner.phases(t, steps))
    run = Run(
        learner, config, torch.full((n_tasks, n_tasks), torch.nan).double(), torch.full((n_tasks,), torch.nan).double()
    )
    at = Position()
    path = None if checkpoint is None else Path(checkpoint)

    held_out = [task.valid if evaluate_on == "valid" and task.valid is not None else task.test for task in stream]

    def evaluate() -> list[float]:
        learner.eval()
        accuracies = [learner.evaluate(i, data) for i, data in enumerate(held_out)]
        learner.train()
        return accuracies

    def judge(t: int) -> None:
        assert isinstance(learner, PureGenerator)
        learner.eval()
        for i, data in enumerate(held_out[: t + 1]):
            for measure, value in learner.quality(i, data).items():
                run.quality.setdefault(measure, torch.full_like(run.accuracy, torch.nan))[t, i] = value
        learner.train()

    with _threads_restored(), _compiled(learner, compile) if compile else nullcontext():
        if path is not None and path.exists():
            _restore(path, run, at)
        else:
            learner.prepare(stream)
            learner.enter(0, Phase("initial", 0))
            run.initial = torch.tensor(evaluate(), dtype=torch.float64)

        for t in range(at.task, n_tasks):
            data = learner.training_data(stream, t)
            if len(run.seconds) == t:
                run.seconds.append(0.0)
            for p, phase in enumerate(learner.phases(t, steps)):
                if p < at.phase:
                    continue
                learner.enter(t, phase)
                if not at.begun:
                    if phase.fresh_optimizer:
                        for opt in learner.opts.values():
                            opt.state.clear()
                    learner.begin_phase(t, phase, data, generator(seed, "begin", t, p, device=device))
                    at.begun = True
                shuffle = Shuffle(len(data), batch_size, derive(seed, "shuffle", t, p), device)
                rng = torch.Generator(device)
                clock = time.perf_counter()

                for s in range(at.step, phase.steps):
                    if s % IDLE_EVERY == 0 and device.type == "cpu":
                        for opt in learner.opts.values():
                            drop_idle_moments(opt)
                    _scale_learning_rates(learner, phase.lr_scale(s / phase.steps))
                    batch = data.batch(shuffle(s))
                    rng.manual_seed(derive(seed, "step", t, p, s))
                    losses = learner.step(batch, learner.draw(len(batch.y), rng))
                    # Sums stay on the device: reading a number would make every step wait for it.
                    at.add(losses)

                    last = at.step == phase.steps
                    if at.window == log_every or last:
                        run.losses.append({"task": t, "phase": phase.name, "step": at.step, **at.means()})
                        if progress is not None:
                            progress(at.done, total, f"task {t + 1} of {n_tasks}")
                    evaluating = eval_every > 0 and at.done % eval_every == 0
                    saving = path is not None and at.step % checkpoint_every == 0 and not last
                    if evaluating or saving or last:  # the clock stands still meanwhile
                        run.seconds[t] += time.perf_counter() - clock
                        if evaluating:
                            run.curve.append({"step": at.done, "accuracy": evaluate()})
                        if saving and path is not None:
                            _save(path, run, at)
                        clock = time.perf_counter()
                at.next_phase()
            learner.end_task(t, data, generator(seed, "end", t, device=device))
            run.accuracy[t] = torch.tensor(evaluate(), dtype=torch.float64)
            if quality:
                judge(t)
            at.next_task()
            if path is not None:
                _save(path, run, at)
    return run


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


class Shuffle:
    """An endless stream of random orders of 0..n-1, cut into batches of equal size.

    Batch s depends only on (seed, s). Every batch is full, also where one order ends and the next begins and where n is
    smaller than a batch, so that no step has another shape.
    """

    def __init__(self, n: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.n, self.batch_size, self.seed, self.device = n, batch_size, seed, device
        self._orders: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """(batch_size,) int64 positions of the samples of batch `step`."""
        epoch, start = divmod(step * self.batch_size, self.n)
        parts, missing = [], self.batch_size
        while missing:
            parts.append(self._order(epoch)[start : start + missing])
            missing -= len(parts[-1])
            epoch, start = epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) > 8:
                self._orders.clear()
            rng = generator(self.seed, epoch, device=self.device)
            self._orders[epoch] = torch.randperm(self.n, generator=rng, device=self.device)
        return self._orders[epoch]


def resolve_device(device: torch.device | str) -> torch.device:
    """ "auto" -> a GPU if there is one, else the CPU.

    Raises:
        ConfigError: an unknown device, or one this machine does not have.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {str(device)!r} cannot be used ({reason}). Expected 'auto', 'cpu' or 'cuda'."
        ) from error
    return resolved


def _scale_learning_rates(learner: Learner, scale: float) -> None:
    for opt in learner.opts.values():
        for group in opt.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * scale


@contextmanager
def _threads_restored() -> Iterator[None]:
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _compiled(learner: Learner, backend: bool | str) -> Iterator[None]:
    name = backend if isinstance(backend, str) else "inductor"
    learner.loss = torch.compile(learner.loss, backend=name)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del learner.loss


def _save(path: Path, run: Run, at: Position) -> None:
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
    storage.save_tensors(path, tensors, meta)


def _restore(path: Path, run: Run, at: Position) -> None:
    tensors, meta = storage.load_tensors(path)
    try:
        saved = meta["config"]
        if saved != run.config:
            differing = [k for k in run.config if saved.get(k) != run.config[k]]
            what = "; ".join(f"{k} was {saved.get(k)!r}, is {run.config[k]!r}" for k in differing)
            raise CheckpointError(
                f"{path} belongs to another experiment ({what}). "
                "Delete it or choose another file to start anew, or repeat the same settings to resume."
            )
        run.learner.load_state_dict(
            {k.removeprefix("learner/"): v for k, v in tensors.items() if k.startswith("learner/")}
        )
        for name, opt in run.learner.opts.items():
            storage.restore_optimizer(name, opt, tensors, meta["groups"][name])
        run.set_numbers(meta)
        for key, value in meta["position"].items():
            setattr(at, key, value)
        at.sums = {name: torch.tensor(value, device=run.learner.mask.device) for name, value in at.sums.items()}
        torch.set_num_threads(meta["threads"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} does not fit this version of the method ({error}). Delete it to start again."
        ) from error
