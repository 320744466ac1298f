"""One flat loop that trains any learner on any stream, and can be killed at any moment.

Every random number is derived from (seed, task, phase, step), and a checkpoint holds the learner's state, its optimisers'
states and the position. So a run that was killed and resumed ends with bit-identical weights and accuracies on the CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clteach.data.tasks import Data, Fade, Shuffle, Stream
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Learner, NetMaker, Phase
from clteach.learners.optim import IDLE_EVERY, drop_idle_moments
from clteach.progress import Log, Report
from clteach.seeding import derive, generator, seeded, whole_seed
from clteach.settings import SEED, converted, in_memory
from clteach.training.checkpoint import Position, begun, restore, save
from clteach.training.code import PACKAGE
from clteach.training.code import code as fingerprint
from clteach.training.graphs import DRAWING, step_of
from clteach.training.run import Run
from clteach.training.start import Plan, built, new_run, resolve_device


@converted(seed=SEED)
def train(
    learner: Learner | Run | str,
    stream: Stream,
    *,
    first: int = 0,
    steps: int = 2000,
    batch_size: int = 128,
    seed: int | None = None,
    device: torch.device | str = "auto",
    progress: Report | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    eval_every: int = 0,
    log_every: int = 50,
    evaluate_on: str = "test",
    quality: bool = False,
    compile: bool | str = False,
    source: str | None = None,
    net: NetMaker | None = None,
    log: Log | None = None,
    **settings: Any,
) -> Run:
    """Train a learner on a stream, task after task, and evaluate it on every task after each.

    Args:
        learner: a learner built for ``stream.spec``, or a method's name (then `settings` are its Config's fields); with
            `first` one that was trained, or its `Run`, whose results and seed are then kept.
        stream: the tasks.
        first: go on with this task, counted from 0, the tasks before it having been learned. A copy of the learner goes on,
            and ends with the same weights as if it had had all tasks from the start, with the same seed, steps and batches.
            A `Run` says what these were, so others are refused; give its learner to go on with others, in a new record.
        steps: steps per task.
        batch_size: samples per step.
        seed: seed of everything that is random in training (and of the initial weights when `learner` is a name), also of
            dropout in a network of one's own; not of NumPy's and Python's generators. None: 0, or that of the `Run`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ... On a GPU the steps of most methods are recorded once per
            phase and replayed (`clteach.training.graphs`).
        progress: called as ``progress(done, total, text)`` now and then; `clteach.progress.bar` shows a bar.
        checkpoint: file to checkpoint to and to resume from; None: neither. A finished run is returned at once.
        checkpoint_every: steps between checkpoints within a task (one is written after every task in any case).
        eval_every: steps between evaluations for `Run.curve`; 0: none.
        log_every: steps per window of `Run.losses`.
        evaluate_on: "test", or "valid" (the held-out part of the training data: tune settings on that one).
        quality: of a pure generator, take all measures of its samples of each task after each task (`Run.quality`); about
            a second each, for thousands of images.
        compile: compile the loss with `torch.compile` (True, or the name of a backend). It takes minutes on a CPU, so it
            pays off in long runs only. On a GPU a compiled step is not recorded.
        source: fingerprint of the code that a checkpoint must be of; None: taken from the learner (`clteach.training.code`).
        net: with a method's name, makes a network of one's own, see `clteach.build`.
        log: called as ``log(name, value, steps done)`` with every loss term of a window and every score after a task;
            `clteach.progress.tensorboard` writes them for TensorBoard.
        **settings: fields of the method's Config when `learner` is a name.

    Returns:
        The `Run`.

    Raises:
        ConfigError: arguments that cannot work or that memory does not suffice for, a learner that was trained already, one
            that cannot go on as if it had had all tasks from the start, or a run that goes on in another way than it began.
        DivergedError: losses or answers are no finite numbers any more.
        CheckpointError: `checkpoint` is damaged, or belongs to another experiment or to other code.
    """
    before = learner if isinstance(learner, Run) and first else None
    if seed is None:
        seed = 0 if before is None else before.config["train_seed"]
    plan = Plan(
        steps,
        batch_size,
        whole_seed(seed),
        resolve_device(device),
        progress,
        None if checkpoint is None else Path(checkpoint),
        checkpoint_every,
        eval_every,
        log_every,
        evaluate_on,
        quality,
        log,
    )
    plan.check(stream)
    if before is not None:
        plan.check_goes_on(before)
    learner = built(learner.learner if isinstance(learner, Run) else learner, stream, plan, net, settings, first)
    stream = stream.to(plan.device)
    run, at = new_run(learner, stream, plan, first, before), Position(task=first)
    at.done = sum(phase.steps for t in range(first) for phase in learner.phases(t, plan.steps))
    fits = in_memory(
        f"{learner.name}: training in batches of {batch_size}", "a smaller batch_size, fewer units or samples"
    )
    with threads_restored(), fits, _compiled(learner, compile) if compile else nullcontext():
        if plan.checkpoint is not None:
            at.code = fingerprint(type(learner), learner.own_net) if source is None else source
        if plan.checkpoint is not None and begun(plan.checkpoint):
            restore(plan.checkpoint, run, at)
        else:
            learner.prepare(stream)
            if first == 0:
                learner.enter(0, Phase("initial", 0))
                run.initial = evaluated(learner, plan.held_out(stream))
        _loop(run, at, stream, plan)
    learner.eval()  # whoever uses it now has batch norm and dropout of a network of their own as they should be
    return run


def _loop(run: Run, at: Position, stream: Stream, plan: Plan) -> None:
    """Task after task, phase after phase, step after step, from where `at` stands."""
    learner, seed, device, held_out = run.learner, plan.seed, plan.device, plan.held_out(stream)
    total = sum(phase.steps for t in range(len(stream)) for phase in learner.phases(t, plan.steps))
    for t in range(at.task, len(stream)):
        fades = _fades(learner, stream)
        data = Data.concat(stream.around(t)) if fades else learner.training_data(stream, t)
        if len(run.seconds) == t:
            run.seconds.append(0.0)
        for p, phase in [*enumerate(learner.phases(t, plan.steps))][at.phase :]:
            learner.enter(t, phase)
            if not at.begun:
                if phase.fresh_optimizer:
                    for opt in learner.opts.values():
                        opt.state.clear()
                with drawn(learner, seed, "begin", t, p):
                    learner.begin_phase(t, phase, data, generator(seed, "begin", t, p, device=device))
                at.begun = True
            shuffle = _order(stream, fades, t, p, phase, len(data), plan)
            rng, step, draws = torch.Generator(device), step_of(learner, phase), draws_itself(learner)
            clock = time.perf_counter()

            for s in range(at.step, phase.steps):
                if s % IDLE_EVERY == 0 and device.type == "cpu":
                    for opt in learner.opts.values():
                        drop_idle_moments(opt)
                scale_learning_rates(learner, phase.lr_scale(s / phase.steps))
                batch = data.batch(shuffle(s))
                rng.manual_seed(derive(seed, "step", t, p, s))
                with drawn(learner, seed, "step", t, p, s) if draws else nullcontext():
                    losses = step(batch, learner.draw(len(batch.y), rng))
                # Sums stay on the device: reading a number would make every step wait for it.
                at.add(losses)

                last = at.step == phase.steps
                if at.window == plan.log_every or last:
                    means = at.means()
                    if not all(map(math.isfinite, means.values())):
                        raise learner.diverged(f"its loss in task {t + 1}, step {at.step}, is not finite")
                    run.losses.append({"task": t, "phase": phase.name, "step": at.step, **means})
                    _log(plan, {f"loss/{name}": value for name, value in means.items()}, at.done)
                    if plan.progress is not None:
                        plan.progress(at.done, total, f"task {t + 1} of {len(stream)}")
                evaluating = plan.eval_every > 0 and at.done % plan.eval_every == 0
                saving = plan.checkpoint is not None and at.step % plan.checkpoint_every == 0 and not last
                if evaluating or saving or last:  # the clock stands still meanwhile
                    run.seconds[t] += time.perf_counter() - clock
                    if evaluating:
                        run.curve.append({"step": at.done, "accuracy": evaluated(learner, held_out).tolist()})
                    if saving:
                        save(plan.checkpoint, run, at)
                    clock = time.perf_counter()
            del step  # and with it the memory of a recorded one
            at.next_phase()
        with drawn(learner, seed, "end", t):
            learner.end_task(t, data, generator(seed, "end", t, device=device))
        run.accuracy[t] = evaluated(learner, held_out)
        _log(plan, _scores(run, t), at.done)
        if plan.quality:
            judge(run, t, held_out)
        at.next_task()
        save(plan.checkpoint, run, at)


def draws_itself(learner: Learner) -> bool:
    """May a step draw random numbers that `Learner.draw` did not?"""
    if learner.own_net is not None or not type(learner).__module__.startswith(f"{PACKAGE}."):
        return True
    return any(isinstance(module, DRAWING) for module in learner.modules())  # somebody put it there


def drawn(learner: Learner, seed: int, *path: int | str) -> AbstractContextManager[None]:
    """Inside, what draws random numbers of its own accord draws them from this address.

    Dropout in a network of the user's own does, and whatever their own method calls. This package's methods draw all
    they need in `Learner.draw`, so their steps are left alone.
    """
    return seeded(seed, "global", *path, device=learner.device) if draws_itself(learner) else nullcontext()


def _fades(learner: Learner, stream: Stream) -> bool:
    """Are batches drawn by the shares of the tasks that fade? Not of a method that keeps the data of all tasks."""
    return stream.fade > 0 and type(learner).training_data is Learner.training_data


def _order(stream: Stream, fades: bool, t: int, p: int, phase: Phase, n: int, plan: Plan) -> Shuffle | Fade:
    """Which of the n samples of task t are in which batch of its phase p."""
    if fades:
        own = derive(plan.seed, "fade", t, p)
        return Fade(stream.around(t), plan.batch_size, phase.steps, stream.fade, own, plan.device)
    return Shuffle(n, plan.batch_size, derive(plan.seed, "shuffle", t, p), plan.device)


def evaluated(learner: Learner, held_out: Sequence[Data]) -> Tensor:
    """(T,) float64, the score on each task, in evaluation mode."""
    learner.eval()
    with drawn(learner, learner.seed, "evaluate"):
        scores = [learner.evaluate(i, data) for i, data in enumerate(held_out)]
    learner.train()
    return torch.tensor(scores, dtype=torch.float64)


def judge(run: Run, t: int, held_out: Sequence[Data]) -> None:
    """Enter all measures of a pure generator's samples of the tasks learned so far, after task t."""
    learner = run.learner
    assert isinstance(learner, PureGenerator)
    learner.eval()
    for i, data in enumerate(held_out[: t + 1]):
        for measure, value in learner.quality(i, data).items():
            run.quality.setdefault(measure, torch.full_like(run.accuracy, torch.nan))[t, i] = value
    learner.train()


def _scores(run: Run, t: int) -> dict[str, float]:
    """The scores after task t, under the names that they have in a log."""
    seen = run.accuracy[t, : t + 1]
    scores = {f"task {i + 1}": float(score) for i, score in enumerate(seen)}
    return {
        f"{run.learner.measure}/{name}": v for name, v in {**scores, "mean of tasks seen": float(seen.mean())}.items()
    }


def _log(plan: Plan, values: dict[str, float], step: int) -> None:
    if plan.log is not None:
        for name, value in values.items():
            plan.log(name, value, step)


def scale_learning_rates(learner: Learner, scale: float) -> None:
    for opt in learner.opts.values():
        for group in opt.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * scale


@contextmanager
def threads_restored() -> Iterator[None]:
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
