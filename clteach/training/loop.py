"""One flat loop that trains any learner on any stream, and can be killed at any moment.

Every random number is derived from (seed, task, phase, step), and a checkpoint holds the learner's state, its optimisers'
states and the position. So a run that was killed and resumed ends with bit-identical weights and accuracies on the CPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from clteach.data.tasks import Shuffle, Stream
from clteach.errors import ConfigError
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Learner, Phase
from clteach.learners.optim import IDLE_EVERY, drop_idle_moments
from clteach.methods import build
from clteach.progress import Report
from clteach.seeding import derive, generator, whole_seed
from clteach.training.checkpoint import Position, restore, save
from clteach.training.run import Run


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
            restore(path, run, at)
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
                            save(path, run, at)
                        clock = time.perf_counter()
                at.next_phase()
            learner.end_task(t, data, generator(seed, "end", t, device=device))
            run.accuracy[t] = torch.tensor(evaluate(), dtype=torch.float64)
            if quality:
                judge(t)
            at.next_task()
            if path is not None:
                save(path, run, at)
    return run


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
