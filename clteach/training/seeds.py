r"""Many seeds of one setting trained at once: their weights are stacked, and a step is one for all of them.

A small network keeps no core busy: most of a step's time goes into starting its operations. So the S seeds' weights
$\theta_1, \dots, \theta_S$ become one tensor (S, ...) each, the pure `loss` is mapped over the first axis
(`torch.func.vmap`), and one backward pass and one fused Adam serve all of them, because

$$\frac{\partial}{\partial \theta_s} \sum_{r} \mathcal{L}(\theta_r;\, \text{batch}_r, \text{noise}_r)
  = \frac{\partial}{\partial \theta_s} \mathcal{L}(\theta_s;\, \text{batch}_s, \text{noise}_s).$$

Every seed keeps its own stream, order of samples, noise and initial weights: those of a run of its own, from which it
differs by the rounding of sums alone. What a learner does between the steps (copies of old networks, Fisher information,
memories, evaluation) it does by itself: its tensors are views into the stacked ones.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from clteach import storage
from clteach.data.tasks import Batch, Data, Shuffle, Stream
from clteach.errors import CheckpointError, ConfigError
from clteach.learners.learner import Learner, Losses, NetMaker, Noise, Phase
from clteach.learners.optim import IDLE_EVERY, OPTIMISERS, drop_idle_moments
from clteach.methods.er import ER
from clteach.progress import Report
from clteach.seeding import derive, generator, whole_seed
from clteach.settings import in_memory
from clteach.training.checkpoint import Position, begun, contents, fill
from clteach.training.code import code as fingerprint
from clteach.training.graphs import step_of
from clteach.training.loop import evaluated, judge, scale_learning_rates, threads_restored, train
from clteach.training.run import Run
from clteach.training.start import Plan, built, new_run, resolve_device


class NotTogether(Exception):
    """Why the seeds of a setting cannot be trained at once."""


def train_seeds(
    method: str,
    stream_of_seed: Callable[[int], Stream],
    seeds: Sequence[int],
    *,
    steps: int = 2000,
    batch_size: int = 128,
    device: torch.device | str = "auto",
    progress: Report | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    eval_every: int = 0,
    log_every: int = 50,
    evaluate_on: str = "test",
    quality: bool = False,
    source: str | None = None,
    net: NetMaker | None = None,
    **settings: Any,
) -> list[Run]:
    """Train one method with many seeds at once: the runs that `clteach.train` gives one by one, within rounding.

    It pays off for small networks on a CPU and for all but the largest on a GPU (`benchmarks/seeds.py` measures it). A
    method with a step of its own cannot be trained so: its seeds are trained one after the other, with a warning that says
    why.

    Args:
        method: a method's name.
        stream_of_seed: the stream of each seed, e.g. ``lambda seed: split(data, class_order="random", seed=seed)``.
        seeds: the seeds, of weights and training.
        steps, batch_size, device, checkpoint_every, eval_every, log_every, evaluate_on, quality: as in `clteach.train`.
        progress: called as ``progress(done, total, text)`` with the steps of one seed.
        checkpoint: file to checkpoint all seeds to and to resume them from. Of seeds that are trained one after the other
            each has a file of its own, its seed added to the name.
        source: as in `clteach.train`.
        net: makes a network of one's own, see `clteach.build`.
        **settings: fields of the method's Config.

    Returns:
        One `Run` per seed, in the order of `seeds`. Each counts its share of the time.

    Raises:
        ConfigError: no seeds or one seed twice, or as `clteach.train`.
        DivergedError: losses or answers of a seed are no finite numbers any more.
        CheckpointError: as `clteach.train`, also where the file is of other seeds.
    """
    seeds = [whole_seed(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds={seeds}: expected at least one seed, and each of them once.")
    shared: dict[str, Any] = {
        "checkpoint_every": checkpoint_every,
        "eval_every": eval_every,
        "log_every": log_every,
        "evaluate_on": evaluate_on,
        "quality": quality,
    }
    path = None if checkpoint is None else Path(checkpoint)
    plans = [
        Plan(steps, batch_size, seed, resolve_device(device), progress, path, **shared)._replace(checkpoint=None)
        for seed in seeds
    ]
    if not callable(stream_of_seed):
        raise ConfigError(
            f"expected the stream of each seed as a function, got a {type(stream_of_seed).__name__}. Where all seeds share "
            "one: lambda seed: stream."
        )
    streams = [stream_of_seed(seed) for seed in seeds]
    for plan, stream in zip(plans, streams, strict=True):
        plan.check(stream)
    shared |= {"steps": steps, "batch_size": batch_size, "device": device, "progress": progress, "source": source}
    try:
        learners = [
            built(method, stream, plan, net, dict(settings)) for stream, plan in zip(streams, plans, strict=True)
        ]
        why_apart(learners)
        fits = in_memory(f"{method}: training {len(seeds)} seeds at once", "fewer seeds, units or samples")
        with threads_restored(), fits:
            return _trained(learners, streams, plans, path, source)
    except NotTogether as reason:
        warnings.warn(f"{method}: its seeds are trained one after the other, as {reason}", stacklevel=2)
    runs = []
    for seed, stream in zip(seeds, streams, strict=True):
        file = None if path is None else path.with_name(f"{path.stem}-seed{seed}{path.suffix}")
        runs.append(train(method, stream, seed=seed, checkpoint=file, net=net, **shared, **settings))
    return runs


def why_apart(learners: Sequence[Learner]) -> None:
    """Nothing, where these learners can be stacked.

    Raises:
        NotTogether: they cannot.
    """
    first = learners[0]
    if not getattr(type(first).step, "uniform", False) or type(first).clip_grad_ is not Learner.clip_grad_:
        raise NotTogether("the method has a step of its own, or limits its gradients")
    if isinstance(first, ER) and first.cfg.reservoir is not None:
        raise NotTogether("its memory takes in samples in every step")
    if any(type(opt) not in OPTIMISERS for opt in first.opts.values()):
        raise NotTogether("its optimiser mixes the weights of different seeds")
    if any(learner.spec != first.spec for learner in learners):
        raise NotTogether("their streams have different specifications")
    shapes = [{name: tensor.shape for name, tensor in tensors(learner).items()} for learner in learners]
    if any(of_seed != shapes[0] for of_seed in shapes):
        raise NotTogether("their tensors have different shapes")


def pays_off(learner: Learner, batch_size: int, device: torch.device | str = "cpu") -> bool:
    """Is training seeds of this learner at once on that device faster than one after the other?

    On a CPU with one thread it is as long as starting the operations takes longer than a good part of their arithmetic,
    about 6 operations per weight that learns and sample (`benchmarks/seeds.py`).
    """
    try:
        why_apart([learner])
    except NotTogether:
        return False
    learning = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    return torch.device(device).type != "cpu" or 6 * learning * batch_size < MOST_ARITHMETIC


MOST_ARITHMETIC = 1e8
"""Operations of one step from which on a core is busy with one seed."""


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """{name: tensor} of all parameters and buffers."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


Forwards = list[tuple[nn.Module, Callable[[Tensor], Tensor]]]


def forwards_in_place(module: nn.Module) -> Forwards:
    """(layer, forward) of linear layers, and of chains of layers, that give the same numbers and write fewer tensors.

    `vmap` makes two new tensors of a linear layer, the product and the sum with the bias, and a third one of the ReLU behind
    it. With all seeds in them they are larger than a core's cache, so the time goes with the tensors that are written.
    """
    found: Forwards = []
    for part in module.modules():
        if type(part) is nn.Linear and part.bias is not None:
            found.append((part, partial(affine, part)))
        elif type(part) is nn.Sequential:
            found.append((part, partial(along, part)))
    return found


def affine(layer: nn.Linear, x: Tensor) -> Tensor:
    """W x + b in one new tensor."""
    return (x @ layer.weight.T).add_(layer.bias)


def along(chain: nn.Sequential, x: Tensor) -> Tensor:
    """The chain's output; a ReLU overwrites what a linear layer has just made, which nobody else has seen."""
    own = False
    for layer in chain:
        hooked = layer._forward_hooks or layer._forward_pre_hooks
        x = torch.relu_(x) if own and type(layer) is nn.ReLU and not hooked else layer(x)
        own = type(layer) is nn.Linear and not hooked
    return x


@contextmanager
def replaced(forwards: Forwards) -> Iterator[None]:
    """These layers are evaluated in another way."""
    for layer, forward in forwards:
        layer.forward = forward
    try:
        yield
    finally:
        for layer, _ in forwards:
            del layer.forward


class Stack:
    """Learners of one method as a single one, `whole`, whose tensors have one more axis in front: the seeds'.

    The learners go on living: their tensors become views into the stacked ones.

    Args:
        learners: S of them, with states of equal shapes.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        self.learners = learners
        self.template = learners[0]  # whose `loss` is evaluated at the weights of every seed
        self.whole = copy.deepcopy(learners[0])
        self.tensors = tensors(self.whole)
        self.values: Losses = {}
        of_seed = [tensors(learner) for learner in learners]
        for name, stacked in self.tensors.items():
            stacked.data = torch.stack([each[name].detach() for each in of_seed])
            for s, each in enumerate(of_seed):
                each[name].data = stacked.data[s]
        self._take_moments()
        if self.whole.device.type == "cpu":
            # Linux gets the memory of a step back after it, and hands it out again in the next with every page filled with
            # zeros, a seventh of ER's time; unless a block of up to 32 MB has been freed before, of which it learns to wait.
            torch.empty(30 * 2**20, dtype=torch.uint8)
        self.in_place = forwards_in_place(self.template)
        self.losses = vmap(lambda at, batch, noise: functional_call(self.template, at, (batch, noise)))
        self.whole.loss = self._loss  # type: ignore[method-assign]

    def enter(self, t: int, phase: Phase) -> None:
        """As `Learner.enter`, for all of them."""
        for learner in self.learners:
            learner.enter(t, phase)
        self.whole.t, self.whole.phase = t, phase

    def begin_phase(self, t: int, p: int, phase: Phase, data: Sequence[Data], seeds: Sequence[int]) -> None:
        """As `Learner.begin_phase`, for each of them, and what is frozen there is frozen here."""
        if phase.fresh_optimizer:
            for learner in (self.whole, *self.learners):
                for opt in learner.opts.values():
                    opt.state.clear()
        self.give_moments()  # a learner may change or forget them
        for learner, of_seed, seed in zip(self.learners, data, seeds, strict=True):
            learner.begin_phase(t, phase, of_seed, generator(seed, "begin", t, p, device=learner.device))
        self._take_moments()

    def end_task(self, t: int, data: Sequence[Data], seeds: Sequence[int]) -> None:
        """As `Learner.end_task`, for each of them."""
        self.give_moments()
        for learner, of_seed, seed in zip(self.learners, data, seeds, strict=True):
            learner.end_task(t, of_seed, generator(seed, "end", t, device=learner.device))
        self._take_moments()

    def follow(self) -> None:
        """What learns in the learners learns in the stack, and nothing else."""
        for name, tensor in tensors(self.template).items():
            self.tensors[name].requires_grad_(tensor.requires_grad)

    def step(self, batch: Batch, noise: Noise) -> Losses:
        """One step of all seeds, with batch and noise (S, ...); {name: (S,)} loss terms."""
        self.whole.step(batch, noise)
        return self.values

    def _loss(self, batch: Batch, noise: Noise) -> Losses:
        # Σ_s L_s: the gradient with respect to the weights of seed s is that of L_s
        with replaced(self.in_place):
            losses = self.losses(self.tensors, batch, noise)
        self.values = {name: value.detach() for name, value in losses.items()}
        return {name: value.sum() for name, value in losses.items()}

    def _pairs(self) -> Iterator[tuple[Any, Any, list[Any], list[Any]]]:
        """(stacked optimiser, stacked parameter, the seeds' optimisers, their parameters)."""
        for name, opt in self.whole.opts.items():
            others = [learner.opts[name] for learner in self.learners]
            for g, group in enumerate(opt.param_groups):
                for i, p in enumerate(group["params"]):
                    yield opt, p, others, [other.param_groups[g]["params"][i] for other in others]

    def _take_moments(self) -> None:
        for opt in self.whole.opts.values():
            opt.state.clear()
        for opt, p, others, own in self._pairs():
            states = [other.state.get(q, {}) for other, q in zip(others, own, strict=True)]
            if states[0]:
                opt.state[p] = {
                    key: value if key == "step" else torch.stack([state[key] for state in states])
                    for key, value in states[0].items()
                }
        for name, opt in self.whole.opts.items():
            for group, of_first in zip(opt.param_groups, self.template.opts[name].param_groups, strict=True):
                group.update({key: value for key, value in of_first.items() if key != "params"})

    def give_moments(self) -> None:
        """Enter the optimisers' states into those of the learners, for whoever writes them to a file."""
        for opt, p, others, own in self._pairs():
            state = opt.state.get(p)
            for s, (other, q) in enumerate(zip(others, own, strict=True)):
                if state:
                    other.state[q] = {key: value if key == "step" else value[s] for key, value in state.items()}
        for name, opt in self.whole.opts.items():
            for learner in self.learners:
                for group, stacked in zip(learner.opts[name].param_groups, opt.param_groups, strict=True):
                    group.update({key: value for key, value in stacked.items() if key != "params"})

    def release(self) -> None:
        """The learners get tensors of their own again, so that each can be kept without the others."""
        self.give_moments()
        for learner in self.learners:
            for tensor in tensors(learner).values():
                tensor.data = tensor.data.clone()
            for opt in learner.opts.values():
                for state in opt.state.values():
                    state.update({key: value.clone() for key, value in state.items()})


class Draws:
    """The batches and the noise of a phase, step by step: what each seed would draw by itself, stacked."""

    def __init__(self, stack: Stack, data: Sequence[Data], plans: Sequence[Plan], t: int, p: int) -> None:
        self.learners, self.data, self.plans, self.t, self.p = stack.learners, data, plans, t, p
        device, self.size = plans[0].device, plans[0].batch_size
        self.shuffles = [
            Shuffle(len(of_seed), self.size, derive(plan.seed, "shuffle", t, p), device)
            for of_seed, plan in zip(data, plans, strict=True)
        ]
        self.rng = torch.Generator(device)
        # Rows of one array, whoever they belong to, are gathered in one go.
        shared = all(of_seed.x is data[0].x and of_seed.pixels is None for of_seed in data)
        self.together = Data.concat(data) if shared else None
        lengths = torch.tensor([0, *(len(of_seed) for of_seed in data[:-1])])
        self.starts = lengths.cumsum(0)[:, None].to(device)

    def batch(self, s: int) -> Batch:
        """The batches (S, B, ...) of step s."""
        index = [shuffle(s) for shuffle in self.shuffles]
        if self.together is not None:
            flat = self.together.batch((torch.stack(index) + self.starts).flatten())
            return Batch(*(value.unflatten(0, (len(index), self.size)) for value in flat))
        parts = [of_seed.batch(rows) for of_seed, rows in zip(self.data, index, strict=True)]
        return Batch(*(torch.stack(values) for values in zip(*parts, strict=True)))

    def noise(self, s: int) -> dict[str, Tensor]:
        """The noise (S, ...) of step s."""
        if type(self.learners[0]).draw is Learner.draw:  # none at all: no generator need be seeded
            return {}
        parts = []
        for learner, plan in zip(self.learners, self.plans, strict=True):
            self.rng.manual_seed(derive(plan.seed, "step", self.t, self.p, s))
            parts.append(learner.draw(self.size, self.rng))
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}


def _trained(
    learners: list[Learner], streams: list[Stream], plans: list[Plan], path: Path | None, source: str | None
) -> list[Run]:
    """Build the runs or read them back, train them together, and set the learners free again."""
    moved: dict[int, Tensor] = {}
    streams = [stream.to(plan.device, moved) for stream, plan in zip(streams, plans, strict=True)]
    runs = [new_run(learner, stream, plan) for learner, stream, plan in zip(learners, streams, plans, strict=True)]
    at = Position()
    for run in runs:
        run.config["seeds"] = [plan.seed for plan in plans]
    if path is not None:
        own = fingerprint(type(learners[0]), learners[0].own_net) if source is None else source
        at.code = None if own is None else f"{own} {fingerprint(__name__)}"
    if path is not None and begun(path):
        _restore(path, runs, at)
    else:
        for run, stream, plan in zip(runs, streams, plans, strict=True):
            run.learner.prepare(stream)
            run.learner.enter(0, Phase("initial", 0))
            run.initial = evaluated(run.learner, plan.held_out(stream))
    stack = Stack(learners)
    _loop(stack, runs, at, streams, plans, path)
    stack.release()
    for learner in learners:
        learner.eval()
    return runs


def _loop(
    stack: Stack, runs: list[Run], at: Position, streams: list[Stream], plans: list[Plan], path: Path | None
) -> None:
    """The loop of `clteach.training.loop`, for all seeds: task after task, phase after phase, step after step."""
    plan, seeds, T = plans[0], [plan.seed for plan in plans], len(streams[0])
    held_out = [plan.held_out(stream) for plan, stream in zip(plans, streams, strict=True)]
    total = sum(phase.steps for t in range(T) for phase in stack.template.phases(t, plan.steps))
    for t in range(at.task, T):
        data = [run.learner.training_data(stream, t) for run, stream in zip(runs, streams, strict=True)]
        for run in runs:
            if len(run.seconds) == t:
                run.seconds.append(0.0)
        for p, phase in [*enumerate(stack.template.phases(t, plan.steps))][at.phase :]:
            stack.enter(t, phase)
            if not at.begun:
                stack.begin_phase(t, p, phase, data, seeds)
                at.begun = True
            stack.follow()
            draws, step = Draws(stack, data, plans, t, p), step_of(stack.whole, phase, stack.step)
            first, clock = at.step, time.perf_counter()

            for s in range(at.step, phase.steps):
                if s % IDLE_EVERY == 0 and plan.device.type == "cpu":
                    for opt in stack.whole.opts.values():
                        drop_idle_moments(opt)
                scale_learning_rates(stack.whole, phase.lr_scale(s / phase.steps))
                batch, noise = draws.batch(s), draws.noise(s)
                try:
                    at.add(step(batch, noise))
                except RuntimeError as error:
                    if s > first or "memory" in str(error):
                        raise
                    reason = str(error).strip().partition("\n")[0]
                    raise NotTogether(f"its loss cannot be evaluated for many seeds at once ({reason})") from error

                last = at.step == phase.steps
                if at.window == plan.log_every or last:
                    _log(runs, at, phase)
                    if plan.progress is not None:
                        plan.progress(at.done, total, f"task {t + 1} of {T}, {len(runs)} seeds")
                evaluating = plan.eval_every > 0 and at.done % plan.eval_every == 0
                saving = path is not None and at.step % plan.checkpoint_every == 0 and not last
                if evaluating or saving or last:
                    for run in runs:
                        run.seconds[t] += (time.perf_counter() - clock) / len(runs)
                    if evaluating:
                        for run, of_seed in zip(runs, held_out, strict=True):
                            run.curve.append({"step": at.done, "accuracy": evaluated(run.learner, of_seed).tolist()})
                    if saving:
                        _save(path, stack, runs, at)
                    clock = time.perf_counter()
            del step  # and with it the memory of a recorded one
            at.next_phase()
        stack.end_task(t, data, seeds)
        for run, of_seed in zip(runs, held_out, strict=True):
            run.accuracy[t] = evaluated(run.learner, of_seed)
            if plan.quality:
                judge(run, t, of_seed)
        at.next_task()
        _save(path, stack, runs, at)


def _log(runs: list[Run], at: Position, phase: Phase) -> None:
    """A window's mean losses, to each seed its own."""
    values = {name: value.tolist() for name, value in at.sums.items()}
    for i, run in enumerate(runs):
        means = {name: of_seeds[i] / at.window for name, of_seeds in values.items()}
        if not all(map(math.isfinite, means.values())):
            raise run.learner.diverged(f"its loss in task {at.task + 1}, step {at.step}, is not finite")
        run.losses.append({"task": at.task, "phase": phase.name, "step": at.step, **means})
    at.sums, at.window = {}, 0


def _save(path: Path | None, stack: Stack, runs: list[Run], at: Position) -> None:
    """All seeds in one file: they stand at the same step, whenever the process is killed."""
    if path is None:
        return
    stack.give_moments()
    everything: dict[str, Tensor] = {}
    metas = []
    for i, run in enumerate(runs):
        of_seed = copy.copy(at)
        of_seed.sums = {name: value[i] for name, value in at.sums.items()}
        found, meta = contents(run, of_seed)
        everything |= {f"{i}/{name}": tensor for name, tensor in found.items()}
        metas.append(meta)
    storage.save_tensors(path, everything, {"seeds": metas})


def _restore(path: Path, runs: list[Run], at: Position) -> None:
    everything, meta = storage.load_tensors(path)
    if len(meta.get("seeds", [])) != len(runs):
        raise CheckpointError(
            f"{path} is no checkpoint of {len(runs)} seeds. Expected one that train_seeds(checkpoint=...) wrote with these "
            "seeds, or the name of a new file; choose another one."
        )
    positions = []
    for i, (run, of_seed) in enumerate(zip(runs, meta["seeds"], strict=True)):
        position = Position(code=at.code)
        prefix = f"{i}/"
        found = {name.removeprefix(prefix): x for name, x in everything.items() if name.startswith(prefix)}
        fill(path, found, of_seed, run, position)
        positions.append(position)
    for name, value in vars(positions[0]).items():
        setattr(at, name, value)
    at.sums = {name: torch.stack([position.sums[name] for position in positions]) for name in at.sums}
