"""Training: `loop` the loop, `seeds` many seeds at once, `run` what it leaves behind, `checkpoint` where it is,
`learner_checks` the suite over all methods, `pretraining` of frozen extractors.
"""

from __future__ import annotations

from clteach.training.learner_checks import check_learner
from clteach.training.loop import train
from clteach.training.pretraining import pretrain
from clteach.training.run import Run, load_learner
from clteach.training.seeds import train_seeds
from clteach.training.start import resolve_device

__all__ = [
    "Run",
    "check_learner",
    "load_learner",
    "pretrain",
    "resolve_device",
    "train",
    "train_seeds",
]
