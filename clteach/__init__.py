"""clteach: learn, teach and reproduce continual learning with generative memory.

The names most programs need are here, and are imported on first use, so that ``import clteach`` is light::

    import clteach

    data = clteach.load("digits")
    stream = clteach.split(data, "class", tasks=5)
    run = clteach.train("generative-replay", stream, steps=1000, hidden=(100, 100))
    print(clteach.average_accuracy(run.accuracy))
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from clteach.version import __version__ as __version__

if TYPE_CHECKING:
    from clteach.data.catalogue import load
    from clteach.data.dataset import Dataset
    from clteach.data.extractors import encode, register_extractor
    from clteach.data.folders import from_folder
    from clteach.data.own_data import from_arrays
    from clteach.data.ready_made import from_avalanche, from_continuum, from_tasks
    from clteach.data.streams import dirichlet, faded, make_stream, permuted, split
    from clteach.data.tasks import Spec, Stream
    from clteach.learners.learner import Classifier, Generator, Learner
    from clteach.methods import METHODS, build, register
    from clteach.metrics.accuracy import (
        average_accuracy,
        average_incremental_accuracy,
        backward_transfer,
        forgetting,
        forward_transfer,
    )
    from clteach.training.learner_checks import check_learner
    from clteach.training.loop import train
    from clteach.training.run import Run, load_learner
    from clteach.training.seeds import train_seeds

_HOME = {
    "data.catalogue": ["load"],
    "data.dataset": ["Dataset"],
    "data.extractors": ["encode", "register_extractor"],
    "data.folders": ["from_folder"],
    "data.own_data": ["from_arrays"],
    "data.ready_made": ["from_avalanche", "from_continuum", "from_tasks"],
    "data.streams": ["dirichlet", "faded", "make_stream", "permuted", "split"],
    "data.tasks": ["Spec", "Stream"],
    "learners.learner": ["Classifier", "Generator", "Learner"],
    "methods": ["METHODS", "build", "register"],
    "metrics.accuracy": [
        "average_accuracy",
        "average_incremental_accuracy",
        "backward_transfer",
        "forgetting",
        "forward_transfer",
    ],
    "training.learner_checks": ["check_learner"],
    "training.loop": ["train"],
    "training.run": ["Run", "load_learner"],
    "training.seeds": ["train_seeds"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
_ROOMS = frozenset(info.name for info in iter_modules(__path__))

__all__ = [
    "METHODS",
    "Classifier",
    "Dataset",
    "Generator",
    "Learner",
    "Run",
    "Spec",
    "Stream",
    "average_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "build",
    "check_learner",
    "dirichlet",
    "encode",
    "faded",
    "forgetting",
    "forward_transfer",
    "from_arrays",
    "from_avalanche",
    "from_continuum",
    "from_folder",
    "from_tasks",
    "load",
    "load_learner",
    "make_stream",
    "permuted",
    "register",
    "register_extractor",
    "split",
    "train",
    "train_seeds",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"clteach.{_MODULE[name]}"), name)
    if name in _ROOMS:
        return import_module(f"clteach.{name}")
    raise AttributeError(f"module 'clteach' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
