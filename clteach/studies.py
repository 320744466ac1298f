"""What the studies of the book run: functions that take a seed and settings and give numbers, the same each time.

A study is an experiment that is no stream × methods; `clteach.experiments` records it with several seeds.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from clteach.data import load
from clteach.gan import cooled, fit
from clteach.generation import feature_classifier, quality, quality_by_group
from clteach.learner import Generator, PureGenerator
from clteach.methods.domain_transfer import SHIFTS, Domain, accuracy, adapt, reduced, transfer
from clteach.methods.ebgan import EBGAN, EnergyGAN, make_gan, pull_away
from clteach.methods.hypernetwork import Hypernetwork
from clteach.plane import coverage, effective_modes, make_cloud
from clteach.presets import column
from clteach.seeding import generator
from clteach.streams import make_stream, split
from clteach.training import train

SAMPLES = 2500
"""Samples in which modes are counted."""


def plane_gan(seed: int, steps: int, cloud: str = "grid", batch: int = 128, **settings: Any) -> dict[str, float]:
    """Train a GAN on a mixture of Gaussians in the plane and count the modes that its samples cover.

    Args:
        seed: seed of data, weights, training and samples.
        steps: updates of each player.
        cloud: "grid" or "ring", see `clteach.plane`.
        batch: samples per update.
        **settings: fields of `EBGAN.Config`.

    Returns:
        ``modes`` covered, ``quality``, the share of samples within 3σ of a mode in percent, and the ``effective`` number of
        modes these are spread over; with an auto-encoder as the critic also ``cosine``, the pull-away term of the samples.
    """
    data = make_cloud(cloud, 50_000, generator(seed, "data"))
    assert data.centres is not None, f"{cloud} has no modes to count"
    gan = make_gan((2,), EBGAN.Config(**settings), seed, bounded=False)
    fit(gan, data.x, steps, batch, seed, cooled)
    with torch.no_grad():
        samples = gan.sample(torch.randn(SAMPLES, gan.cfg.z, generator=generator(seed, "samples")))
        cosine = {"cosine": float(pull_away(gan.encode(samples)))} if isinstance(gan, EnergyGAN) else {}
    covered = coverage(samples, data.centres, data.sigma)
    effective = effective_modes(samples, data.centres, data.sigma)
    return {"modes": covered.modes, "quality": 100 * covered.quality, "effective": effective, **cosine}


TRIAL_SEED = 100
"""Seeds from here on are for choosing settings; no reported number comes from them."""


def plane_trial(seed: int, steps: int, **settings: Any) -> dict[str, float]:
    """`plane_gan` with a seed that is not reported, and its ``score``: modes covered times quality, at most 2500."""
    found = plane_gan(TRIAL_SEED + seed, steps, **settings)
    return {"score": found["modes"] * found["quality"], **found}


def samples(
    seed: int, steps: int, method: str = "ebgan", dataset: str = "mnist", batch: int = 64, **settings: Any
) -> dict[str, float]:
    """Train a generator on a whole data set, as one task, and judge as many samples as there are test images.

    Args:
        seed: seed of weights, training and samples.
        steps: training steps.
        method: a pure generator, see `clteach list`.
        dataset: images, see `clteach.load`.
        batch: images per step.
        **settings: fields of the method's Config.

    Returns:
        ``fid``, ``inception_score``, and ``precision`` and ``recall`` in percent, in the features of a LeNet that was
        trained on the same data (`clteach.generation.quality`).
    """
    stream = split(load(dataset), "class", tasks=1)
    run = train(method, stream, steps=steps, batch_size=batch, seed=seed, **settings)
    assert isinstance(run.learner, PureGenerator), f"{method} is no pure generator"
    found = run.learner.quality(0, stream[0].test)
    return {**found, "precision": 100 * found["precision"], "recall": 100 * found["recall"]}


def dreams(
    seed: int, steps: int, method: str, stream: str = "split-mnist", preset: str = "2022", **settings: Any
) -> dict[str, float]:
    """Learn all tasks of a stream in Class-IL, then judge as many dreams as there are test images.

    Args:
        seed: seed of the order of classes, weights, training and dreams.
        steps: training steps per task.
        method: a method that replays generated samples, see `clteach list`.
        stream: name of a stream of images.
        preset: whose settings.
        **settings: fields of the method's Config that differ from them.

    Returns:
        ``fid``, ``inception_score``, and ``precision`` and ``recall`` in percent, of all dreams together; of those of task
        T, from 1, ``recall_T`` and ``share_T``, how many these are, in percent. A dream's task is that of the class that the
        judging classifier (`clteach.generation`) sees in it.
    """
    base = column(preset, stream)
    tasks = make_stream(stream, "class", seed=seed, **base.stream)
    settings = {**base.settings(method, "class"), **settings}
    learner = train(method, tasks, steps=steps, batch_size=base.batch, seed=seed, **settings).learner
    assert isinstance(learner, Generator), f"{method} generates nothing"
    judge = feature_classifier(tasks)
    tests = [batch for task in tasks for batch in task.test.batches()]
    real, task = (torch.cat([getattr(batch, name) for batch in tests]) for name in ("x", "task"))
    generated = learner.eval().sample(len(real), generator(seed, "dreams", device=real.device))
    found = quality(judge, real, generated)
    by_task = quality_by_group(judge, real, task, generated)
    return {
        **found,
        "precision": 100 * found["precision"],
        "recall": 100 * found["recall"],
        # Of a task that is dreamed no more nothing is covered, while its FID would not exist.
        **{f"recall_{t + 1}": 100 * (g["recall"] if math.isfinite(g["recall"]) else 0.0) for t, g in by_task.items()},
        **{f"share_{t + 1}": 100 * g["share"] for t, g in by_task.items()},
    }


def domain_transfer(seed: int, steps: int, dataset: str = "digits", **settings: Any) -> dict[str, float]:
    """Adapt to every shift of a data set, see `clteach.methods.domain_transfer.transfer`.

    Returns:
        For each shift the accuracy on its test images in percent.
    """
    data = load(dataset)
    return {shift: 100 * transfer(data, shift, seed=seed, steps=steps, **settings) for shift in SHIFTS}


def digits_and_mnist(seed: int, steps: int, method: str, **settings: Any) -> dict[str, float]:
    """Adapt from the bundled digits to MNIST and back, all as images of 8 x 8 pixels (`domain_transfer.reduced`).

    MNIST is reduced, and not the digits enlarged: what an image of 64 pixels does not hold no enlargement brings back, so
    large blurred squares would be a second shift on top of the one in question, that of the hands that wrote the digits.

    Returns:
        Accuracy in percent on the target's test images: ``to_mnist``, ``to_digits``.
    """
    digits, mnist = load("digits"), load("mnist")
    parts = {}
    for part in ("train", "test"):
        x, small = getattr(digits, f"x_{part}").float() / 255, reduced(getattr(mnist, f"x_{part}").float() / 255)
        parts[part] = Domain(x, getattr(digits, f"y_{part}")), Domain(small, getattr(mnist, f"y_{part}"))
    accuracies = {}
    for source, target, name in ((0, 1, "to_mnist"), (1, 0, "to_digits")):
        rng = generator(seed, "transfer", name)
        net = adapt(parts["train"][source], parts["train"][target], method, rng, steps, seed, **settings)
        accuracies[name] = 100 * accuracy(net, parts["test"][target])
    return accuracies


PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Places on the line between two tasks' embeddings: 0 is the first task's own, 1 the second's."""


@torch.no_grad()
def embedding_line(
    seed: int,
    steps: int,
    first: int,
    second: int,
    stream: str = "split-mnist",
    preset: str = "2020-hypernetworks",
    **settings: Any,
) -> dict[str, float]:
    """Train a hypernetwork on all tasks, then walk from one task's embedding to another's in a straight line.

    Args:
        seed: seed of weights and training.
        steps: training steps per task.
        first: the task at whose embedding the line begins, from 1.
        second: the task at whose embedding it ends.
        stream: name of the stream, learned with the task known.
        preset: whose settings.
        **settings: fields of `Hypernetwork.Config` that differ from them.

    Returns:
        For each of `PLACES` the accuracies in percent of the network that is generated there, on the test images of the two
        tasks: ``first_PLACE`` and ``second_PLACE``.
    """
    base = column(preset, stream)
    tasks = make_stream(stream, "task", **base.stream)
    settings = {**base.settings("hypernetwork", "task"), **settings}
    with torch.enable_grad():
        run = train("hypernetwork", tasks, steps=steps, batch_size=base.batch, seed=seed, **settings)
    learner = run.learner.eval()
    assert isinstance(learner, Hypernetwork)
    begin, end = (learner.hypernet.embeddings[t - 1] for t in (first, second))
    tasks = tasks.to(begin.device)
    found = {}
    for place in PLACES:
        # e(s) = (1 - s) e_first + s e_second
        weights = learner.hypernet(torch.lerp(begin, end, place)[None])[0]
        for name, t in (("first", first - 1), ("second", second - 1)):
            right = [
                (learner.target(weights, batch.x) + learner.log_heads[t]).argmax(1) == batch.y
                for batch in tasks[t].test.batches()
            ]
            found[f"{name}_{place:g}"] = 100 * float(torch.cat(right).float().mean())
    return found
