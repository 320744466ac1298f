"""Generators that classify nothing: they are judged by their samples, in the features of a LeNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from clteach.data.tasks import Data, Spec, Stream
from clteach.errors import ConfigError, DivergedError
from clteach.learners.learner import (
    Generator,
    NetMaker,
)
from clteach.metrics.generation import frechet_distance, precision_recall
from clteach.metrics.judge import feature_classifier, features, quality
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.nets import LeNet
from clteach.seeding import generator, seeded


class PureGenerator(Generator):
    """A generator that classifies nothing: it is judged by its samples of each task, by their FID."""

    @dataclass(frozen=True)
    class Config(Generator.Config):
        """Settings of every pure generator."""

        features: Literal["lenet", "inputs"] = "lenet"
        """space in which FID is measured: a LeNet's 84 features (trained on the data set), or the inputs as they are"""

    scenarios = ("class",)
    needs = "the scenarios differ only in labels, which a generator does not see"
    takes_features = False
    measure = "fid"

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        # The judge's weights are part of the learner: one that is loaded from a file is judged in the same space.
        if self.cfg.features == "lenet":
            if len(spec.shape) != 3:
                raise ConfigError(
                    f"{self.name}: a LeNet needs images, the inputs are of shape {spec.shape}; set features='inputs'."
                )
            with seeded(seed, "judge"):
                self.judge = frozen_copy(LeNet(spec.shape[0], spec.n_out))

    def prepare(self, stream: Stream) -> None:
        if self.cfg.features == "lenet":
            refresh(self.judge, feature_classifier(stream))

    def features(self, x: Tensor) -> Tensor:
        """Inputs (N, *shape) -> what FID compares (N, d), on the CPU."""
        return features(self.judge, x) if self.cfg.features == "lenet" else x.flatten(1).cpu()

    @torch.no_grad()
    def evaluate(self, t: int, data: Data) -> float:
        """FID ≥ 0 between the data of task t and as many samples of that task; always from the same random numbers."""
        real = torch.cat([self.features(batch.x) for batch in data.batches()])
        return frechet_distance(real, self.features(self.judged(t, data)))

    @torch.no_grad()
    def quality(self, t: int, data: Data) -> dict[str, float]:
        """All measures of `clteach.metrics.judge.quality` on data of task t, of the same samples as in `evaluate`.

        In the space of the inputs there is no classifier, and so no Inception Score.
        """
        real, sampled = torch.cat([batch.x for batch in data.batches()]), self.judged(t, data)
        if self.cfg.features == "lenet":
            return quality(self.judge, real, sampled)
        x, y = self.features(real), self.features(sampled)
        return {"fid": frechet_distance(x, y), **precision_recall(x, y)._asdict()}

    def judged(self, t: int, data: Data) -> Tensor:
        """(N, *shape) samples of task t, as many as there are data.

        Raises:
            DivergedError: samples that are no numbers.
        """
        rng = generator(self.seed, "evaluate", t, device=data.device)
        samples = self.sample(len(data), rng, tasks=torch.full((len(data),), t, device=data.device))
        if not bool(samples.isfinite().all()):
            raise DivergedError(
                f"{self.name}, seed {self.seed}: training diverged, the samples of task {t + 1} are not finite. Expected "
                f"numbers: choose a smaller learning rate than lr={self.cfg.lr}."
            )
        return samples

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of tasks (n,); without them, of all tasks learned so far, equally often.

        Raises:
            ConfigError: classes are asked for, which a generator without labels cannot choose.
        """
        if classes is not None:
            raise ConfigError(f"{self.name} has seen no labels: it can sample chosen tasks, but not chosen classes.")
        if tasks is None:
            tasks = torch.randint(max(self.t, 0) + 1, (n,), generator=rng, device=rng.device)
        return self.dream(tasks, rng)

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        """(n, *shape) samples in [0, 1], one of each of the tasks (n,)."""
        raise NotImplementedError(f"{type(self).__name__} must define dream()")
