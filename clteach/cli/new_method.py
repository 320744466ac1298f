"""A method of one's own to start from: a class that runs as it is, and its test."""

from __future__ import annotations

import keyword
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO

from clteach.errors import ConfigError
from clteach.methods import METHODS
from clteach.storage import write_atomic

METHOD = '''r"""TITLE: in one sentence, what the method does against forgetting.

As it stands, it holds every weight alike where it was when the task began, with a strength λ:

$$\\mathcal{L}_t(\\theta) = \\mathcal{L}_{\\text{task } t}(\\theta)
  + \\frac{\\lambda}{2} \\sum_i \\big(\\theta_i - \\theta^{*}_i\\big)^2 .$$

Run this file to train it beside fine-tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector

import clteach


@clteach.register
class CLASS(clteach.Classifier):
    """TITLE."""

    name = "NAME"
    summary = "hold every weight alike"

    @dataclass(frozen=True)
    class Config(clteach.Classifier.Config):
        """Settings of NAME."""

        lam: float = 0.01
        """strength λ of the penalty, ≥ 0 (0: fine-tuning)"""

    start: Tensor  # (P,) θ*, the weights when the task began

    def __init__(self, spec: clteach.Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        # What must outlive a step is a parameter or a buffer, and has its final shape now: so a run can be resumed.
        size = sum(p.numel() for p in self.net.parameters())
        self.register_buffer("start", torch.zeros(size))

    def begin_phase(self, t: int, phase: Any, data: Any, rng: torch.Generator) -> None:
        self.start.copy_(parameters_to_vector(self.net.parameters()).detach())

    def loss(self, batch: Any, noise: Any) -> dict[str, Tensor]:
        # Pure: it draws and writes nothing. What is random comes from `draw`, by the name of `noise`.
        losses = super().loss(batch, noise)
        if self.t == 0:
            return losses
        theta = parameters_to_vector(self.net.parameters())
        # λ/2 Σ_i (θ_i - θ*_i)²
        return {**losses, "held": 0.5 * self.cfg.lam * (theta - self.start).square().sum()}


if __name__ == "__main__":
    stream = clteach.split(clteach.load("digits"), "class", tasks=5)
    for method in ("finetune", "NAME"):
        run = clteach.train(method, stream, steps=200, hidden=(100,))
        print(f"{method}: average accuracy {100 * clteach.average_accuracy(run.accuracy):.1f} %")
'''

TEST = '''"""NAME: the suite that every method passes, and what only this one must do."""

from __future__ import annotations

import torch
from MODULE import CLASS

import clteach


def test_the_suite_of_all_methods() -> None:
    """Resumes to the bit, saves and loads, draws no global random number, takes a batch of one, ..."""
    clteach.check_learner(CLASS)


def test_without_strength_it_is_fine_tuning() -> None:
    """A limit in which it must equal another method. Put closed forms and naive loops beside it."""
    stream = clteach.split(clteach.load("digits"), "class", tasks=2)
    settings = {"steps": 10, "hidden": (8,), "device": "cpu"}
    own = clteach.train("NAME", stream, lam=0, **settings)
    other = clteach.train("finetune", stream, **settings)
    assert torch.equal(own.accuracy, other.accuracy)
'''


def write(name: str, folder: Path, overwrite: bool = False) -> tuple[Path, Path]:
    """Write the method and its test.

    Args:
        name: the method's name, as in "my-method".
        folder: where to.
        overwrite: replace files that are there?

    Returns:
        The two files.

    Raises:
        ConfigError: a name that cannot be one or is taken, or files that are there.
    """
    module = name.replace("-", "_")
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise ConfigError(
            f"{name!r} is no name of a method: expected small letters and digits, words joined by hyphens."
        )
    if name in METHODS:
        raise ConfigError(f"there is a method {name!r} already: expected another name.")
    words = name.split("-")
    class_name = "".join(word.capitalize() for word in words)
    files = folder / f"{module}.py", folder / f"test_{module}.py"
    there = [str(file) for file in files if file.exists()]
    if there and not overwrite:
        raise ConfigError(f"{', '.join(there)} exists: expected a new name, or --overwrite to replace it.")
    for file, text in zip(files, (METHOD, TEST), strict=True):
        for word, meant in (("TITLE", " ".join(words).capitalize()), ("MODULE", module), ("CLASS", class_name)):
            text = text.replace(word, meant)
        write_atomic(file, partial(_put, text.replace("NAME", name)))
    return files


def _put(text: str, file: BinaryIO) -> None:
    file.write(text.encode())
