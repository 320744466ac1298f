"""What stands before the first step: the device, the checks of the arguments, the learner and the `Run` it will fill."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch

from clteach.data.tasks import Data, Stream
from clteach.errors import ConfigError
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Learner, NetMaker
from clteach.methods import build
from clteach.progress import Log, Report
from clteach.settings import MOST_SAMPLES, MOST_STEPS
from clteach.training.going_on import going_on
from clteach.training.run import Run


class Plan(NamedTuple):
    """How a learner is trained: the arguments of `clteach.train` of the same names, checked."""

    steps: int
    batch_size: int
    seed: int
    device: torch.device
    progress: Report | None
    checkpoint: Path | None
    checkpoint_every: int
    eval_every: int
    log_every: int
    evaluate_on: str
    quality: bool
    log: Log | None = None

    def check(self, stream: Stream) -> None:
        """ConfigError where the arguments cannot work."""
        if not isinstance(stream, Stream):
            raise ConfigError(
                f"expected a Stream to train on, got a {type(stream).__name__}. clteach.split(dataset) cuts a data set into "
                "one, clteach.make_stream('split-digits') makes one by name."
            )
        counts = (self.steps, self.batch_size, self.checkpoint_every, self.log_every)
        too_many = self.steps > MOST_STEPS or self.batch_size > MOST_SAMPLES
        if min(counts) < 1 or self.eval_every < 0 or too_many:
            raise ConfigError(
                f"steps={self.steps}, batch_size={self.batch_size}, checkpoint_every={self.checkpoint_every}, "
                f"log_every={self.log_every}, eval_every={self.eval_every}: expected whole numbers ≥ 1 (eval_every ≥ 0), "
                f"at most {MOST_STEPS:,} steps and {MOST_SAMPLES:,} samples per step."
            )
        if self.evaluate_on not in ("test", "valid") or (self.evaluate_on == "valid" and stream[0].valid is None):
            raise ConfigError(
                f"evaluate_on={self.evaluate_on!r}: expected 'test', or 'valid' on a stream made with validation > 0."
            )

    def check_goes_on(self, before: Run) -> None:
        """ConfigError where this is another experiment than that of the run before: one record cannot say of both."""
        kept = {"train_seed": "seed", "steps": "steps", "batch_size": "batch_size", "evaluate_on": "evaluate_on"}
        pairs = {name: (before.config[key], getattr(self, name)) for key, name in kept.items()}
        other = {name: (was, now) for name, (was, now) in pairs.items() if was != now}
        if other:
            what = "; ".join(f"{name} was {was!r}, is {now!r}" for name, (was, now) in other.items())
            same = ", ".join(f"{name}={was!r}" for name, (was, _) in other.items())
            raise ConfigError(
                f"the run does not go on as it began: {what}. Its results are kept, and one record cannot say both. Say "
                f"{same} as before, or give its learner (run.learner) instead to begin a new record."
            )

    def held_out(self, stream: Stream) -> list[Data]:
        """What is evaluated on: of every task the test data, or the part of its training data that is held out."""
        return [task.valid if self.evaluate_on == "valid" and task.valid is not None else task.test for task in stream]


def built(
    learner: Learner | str, stream: Stream, plan: Plan, net: NetMaker | None, settings: dict[str, Any], first: int = 0
) -> Learner:
    """The learner, on its device: the one given, or one of the method that is named, or one that goes on with task `first`.

    Raises:
        ConfigError: no learner, one that does not fit the stream or is trained already, or settings for one that is built.
    """
    if first < 0 or (first and isinstance(learner, str)):
        raise ConfigError(
            f"first={first}: expected the number of tasks that a trained learner has learned; give its run or it itself."
        )
    if not isinstance(learner, (str, Learner)):
        got = f"the class {learner.__name__}" if isinstance(learner, type) else f"a {type(learner).__name__}"
        build_it = f" Build it: {learner.__name__}(stream.spec)." if isinstance(learner, type) else ""
        raise ConfigError(f"expected a method's name, a learner or the Run of one to train, got {got}.{build_it}")
    if isinstance(learner, str):
        learner = build(learner, stream.spec, seed=plan.seed, net=net, **settings)
    elif settings or net is not None:
        given = ", ".join([*settings, *(["net"] if net is not None else [])])
        raise ConfigError(f"{given}: settings go with a method's name; this learner is already built.")
    elif first:
        learner = going_on(learner, stream, first, plan.steps)
    elif learner.t >= 0 and (plan.checkpoint is None or not plan.checkpoint.exists()):
        raise ConfigError(
            f"this {learner.name} has been trained already, up to task {learner.t + 1}: training it again would start from "
            f"what it knows. Build a new one, say first={learner.t + 1} to go on with the tasks after these, or give "
            "checkpoint= to resume an interrupted run."
        )
    if learner.spec != stream.spec:
        raise ConfigError(
            f"the learner was built for {learner.spec}, the stream is {stream.spec}: build it with stream.spec."
        )
    learner.spec = stream.spec  # equal but for what the user calls things: those names are saved with it
    check_borders(learner, stream)
    if plan.quality and not isinstance(learner, PureGenerator):
        raise ConfigError(f"quality=True: {learner.name} is not judged by its samples. Expected a pure generator.")
    return learner.to(plan.device)


def check_borders(learner: Learner, stream: Stream) -> None:
    """ConfigError for a method that must be told when a task ends, on a stream whose tasks fade into each other."""
    if stream.fade and (learner.needs_borders or learner.cfg.fresh_optimizer):
        what = "needs to know when a task ends" if learner.needs_borders else "forgets Adam's moments at every border"
        raise ConfigError(
            f"{learner.name} {what}, and the tasks of {stream.name} fade into each other. Expected finetune, "
            "joint, xdg, er with a reservoir (reservoir=500), or a method of your own whose needs_borders is False; or a "
            "split stream."
        )


def new_run(learner: Learner, stream: Stream, plan: Plan, first: int = 0, before: Run | None = None) -> Run:
    """A `Run` with all that is needed to repeat it, and without results, or with those of the tasks before `first`."""
    config = {
        **learner.describe(),
        "stream": stream.name,
        "fingerprint": stream.fingerprint,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "train_seed": plan.seed,
        "device": plan.device.type,
        "log_every": plan.log_every,
        "eval_every": plan.eval_every,
        "evaluate_on": plan.evaluate_on,
        "quality": plan.quality,
        **({"first": first} if first else {}),
    }
    T = len(stream)
    run = Run(learner, config, torch.full((T, T), torch.nan).double(), torch.full((T,), torch.nan).double())
    run.seconds = [0.0] * first
    if before is not None:
        run.seconds, run.losses = [*before.seconds], [*before.losses]
        run.initial[:first] = before.initial
        if not hasattr(learner, "judge"):  # the judge of a generator's samples knows the later tasks now
            run.accuracy[:first, :first] = before.accuracy
            ahead = [math.nan] * (T - first)
            run.curve = [{**row, "accuracy": row["accuracy"] + ahead} for row in before.curve]
    return run


def resolve_device(device: torch.device | str) -> torch.device:
    """ "auto" -> a GPU if there is one, else the CPU.

    Raises:
        ConfigError: an unknown device, or one this machine does not have.
    """
    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {str(device)!r} cannot be used ({reason}). Expected 'auto', 'cpu' or 'cuda'."
        ) from error
    return resolved
