"""Domain transfer: the shifts by hand, the reversed gradient, and what labels of the target are worth."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import clteach
from clteach.errors import ConfigError
from clteach.experiments.papers.domain_transfer import CRITICS, reversed_gradient, shifted, transfer
from clteach.seeding import generator


def test_shifts() -> None:
    x = torch.zeros(2, 1, 8, 8)
    x[:, :, 3, 4] = 1.0
    inverted, blurred, coloured = (shifted(x, how, generator(0)) for how in ("inverted", "blurred", "coloured"))
    assert inverted.shape == (2, 3, 8, 8) and float(inverted[0, 0, 3, 4]) == 0.0 and float(inverted[0, 0, 0, 0]) == 1.0
    assert float(blurred[0, 1, 3, 4]) == pytest.approx(1 / 9) and float(blurred[0, 1, 0, 0]) == 0.0
    background = coloured[:, :, 0, 0]
    torch.testing.assert_close(coloured[:, :, 3, 4], 1 - background)  # the stroke has the complement
    assert not torch.equal(background[0], background[1])
    with pytest.raises(ConfigError, match="unknown shift"):
        shifted(x, "rotated", generator(0))


def test_reversed_gradient_changes_the_gradient_alone() -> None:
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reversed_gradient(x, 0.5)
    torch.testing.assert_close(y.detach(), x.detach())
    (y * torch.tensor([3.0, 4.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [-1.5, -2.0]


def test_labels_of_the_target_help_and_runs_repeat() -> None:
    digits = clteach.load("digits")
    scores = {method: transfer(digits, "inverted", method, seed=0, steps=60) for method in CRITICS}
    assert scores["target"] > 0.7 > scores["source-only"]
    assert transfer(digits, "inverted", "energy", seed=0, steps=60) == scores["energy"]
    with pytest.raises(ConfigError, match="unknown method of domain transfer"):
        transfer(digits, "inverted", "magic", seed=0, steps=1)


def test_images_in_floats_give_what_images_in_bytes_give() -> None:
    digits = clteach.load("digits")
    floats = dataclasses.replace(digits, x_train=digits.x_train / 255, x_test=digits.x_test / 255)
    assert transfer(floats, "inverted", "target", 0, 20) == transfer(digits, "inverted", "target", 0, 20) > 0.3
