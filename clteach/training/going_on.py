"""Going on with tasks that come later, as if they had been there from the start.

Two ways are bit-equal to that. A learner that was built for all tasks (`Stream.upto`, ``from_tasks(later=...)``) has room
for them. One that was built for fewer is moved into a new one with room for more, but only where this one would have
begun with the same weights: so it is refused where heads, gates or embeddings are made for a number of tasks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clteach.data.tasks import Spec, Stream
from clteach.errors import ConfigError
from clteach.learners.learner import Learner

KNOWN_LENGTH = (
    "Expected a learner that was built for all tasks: cut the stream with the classes of those that come later "
    "(clteach.from_tasks(tasks, later=[...])), or train on the first tasks of the whole stream (stream.upto(n))"
)


def going_on(learner: Learner, stream: Stream, first: int, steps: int) -> Learner:
    """A copy of a learner that has learned the first tasks of a stream, with room for the others.

    Args:
        learner: it stays as it is.
        stream: all tasks, those that were learned among them.
        first: number of tasks that were learned.
        steps: steps per task.

    Raises:
        ConfigError: other tasks than these were learned, none is left, or going on would not be what it looks like.
    """
    if learner.t != first - 1:
        raise ConfigError(
            f"first={first}: this {learner.name} has learned {learner.t + 1} tasks, expected {first}. Say first="
            f"{learner.t + 1}, or give the learner of then."
        )
    if first >= len(stream):
        raise ConfigError(
            f"first={first}: the stream has {len(stream)} tasks, so none is left. Expected a longer stream."
        )
    _check_tasks(learner.spec, stream.spec)
    if stream.fade and learner.spec != stream.spec:
        raise ConfigError(
            f"the tasks of {stream.name} fade into each other, and the last one that was learned into none. Expected a "
            f"learner of the first tasks of the whole stream: train it on stream.upto({first}) first."
        )
    if not any(opt.state for opt in learner.opts.values()) and not all(
        phase.fresh_optimizer for phase in learner.phases(first, steps)
    ):
        raise ConfigError(
            f"this {learner.name} was read from a file, which holds no moments of its optimiser: it cannot go on as if it "
            "had never stopped. Expected the learner of this session, or one with fresh_optimizer=True, which begins every "
            "task without."
        )
    longer = _made(learner, stream.spec)
    _carry_state(learner, longer)
    _carry_moments(learner, longer)
    return longer


def _made(learner: Learner, spec: Spec) -> Learner:
    """A new learner with the same settings and seed."""
    return type(learner).make(spec, learner.cfg, learner.seed, learner.own_net)


def _check_tasks(before: Spec, now: Spec) -> None:
    n = before.n_tasks
    kept = ("shape", "scenario", "active_units", "encoded_from")
    other = [f"{key} was {getattr(before, key)}, is {getattr(now, key)}" for key in kept]
    other = [text for key, text in zip(kept, other, strict=True) if getattr(before, key) != getattr(now, key)]
    if before.units != now.units[:n]:
        other.append(f"the output units were {before.units}, are {now.units[:n]}")
    if before.classes and now.classes and before.classes != now.classes[:n]:
        other.append(f"the classes were {before.classes}, are {now.classes[:n]}")
    if before.encoding != now.encoding:
        other.append("the inputs are scaled otherwise, as by the range of other training data")
    if other:
        raise ConfigError(
            f"the stream does not begin with the tasks that were learned: {'; '.join(other)}. Expected the same tasks, and "
            "then others."
        )


def _carry_state(learner: Learner, longer: Learner) -> None:
    """Copy weights and buffers; what grew with the number of tasks begins with what was there.

    Raises:
        ConfigError: the longer learner would have begun otherwise.
    """
    old, new = learner.state_dict(), longer.state_dict()
    begun = old if learner.spec == longer.spec else _made(learner, learner.spec).state_dict()
    weights = {name for name, _ in longer.named_parameters()}
    for name, value in new.items():
        at = _corner(begun, name, value)
        grown = name in old and old[name].shape != value.shape
        same = at is not None and (
            learner.spec == longer.spec or torch.equal(begun[name], value[at].to(begun[name].device))
        )
        if not same or (grown and name in weights):
            raise ConfigError(
                f"{learner.name} for {longer.spec.n_tasks} tasks and {longer.spec.n_out} output units begins with another "
                f"{name!r} than for {learner.spec.n_tasks} and {learner.spec.n_out}, so going on would not be what all "
                f"tasks from the start give. {KNOWN_LENGTH}."
            )
        if at is not None:
            value[at] = old[name].to(value.device)
    longer.load_state_dict(new)


def _corner(begun: dict[str, Tensor], name: str, value: Tensor) -> tuple[slice, ...] | None:
    """Where the shorter learner's tensor of this name lies in the longer one's; None: nowhere."""
    if name not in begun or begun[name].ndim != value.ndim:
        return None
    sizes = begun[name].shape
    return tuple(map(slice, sizes)) if all(a <= b for a, b in zip(sizes, value.shape, strict=True)) else None


def _carry_moments(learner: Learner, longer: Learner) -> None:
    names = {id(p): name for name, p in learner.named_parameters()}
    parameters = dict(longer.named_parameters())
    for key, opt in learner.opts.items():
        new = longer.opts[key]
        for group, into in zip(opt.param_groups, new.param_groups, strict=True):
            into.update({k: v for k, v in group.items() if k != "params"})
        for p, state in opt.state.items():
            new.state[parameters[names[id(p)]]] = {k: _copied(v) for k, v in state.items()}


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
