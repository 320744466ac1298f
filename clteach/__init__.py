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
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from clteach.checks import check_learner
    from clteach.data import Dataset, from_arrays, load
    from clteach.features import encode, register_extractor
    from clteach.learner import Classifier, Generator, Learner
    from clteach.methods import METHODS, build, register
    from clteach.metrics import average_accuracy, backward_transfer, forgetting, forward_transfer
    from clteach.streams import Spec, Stream, dirichlet, make_stream, permuted, split
    from clteach.training import Run, load_learner, train

_HOME = {
    "checks": ["check_learner"],
    "data": ["Dataset", "from_arrays", "load"],
    "features": ["encode", "register_extractor"],
    "learner": ["Classifier", "Generator", "Learner"],
    "methods": ["METHODS", "build", "register"],
    "metrics": ["average_accuracy", "backward_transfer", "forgetting", "forward_transfer"],
    "streams": ["Spec", "Stream", "dirichlet", "make_stream", "permuted", "split"],
    "training": ["Run", "load_learner", "train"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

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
    "backward_transfer",
    "build",
    "check_learner",
    "dirichlet",
    "encode",
    "forgetting",
    "forward_transfer",
    "from_arrays",
    "load",
    "load_learner",
    "make_stream",
    "permuted",
    "register",
    "register_extractor",
    "split",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULE:
        return getattr(import_module(f"clteach.{_MODULE[name]}"), name)
    raise AttributeError(f"module 'clteach' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
