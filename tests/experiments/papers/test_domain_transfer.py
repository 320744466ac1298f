"""Domain transfer: the shifts by hand, the reversed gradient, and what labels of the target are worth."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import clteach
from clteach.data.catalogue import data_folder
from clteach.errors import ConfigError
from clteach.experiments.papers import RECIPES, domain_transfer
from clteach.experiments.papers.domain_transfer import (
    CRITICS,
    Domain,
    accuracy,
    adapt,
    reduced,
    reversed_gradient,
    shifted,
    transfer,
)
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


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


def test_mnist_is_reduced_to_means_over_blocks() -> None:
    x = torch.rand(2, 1, 28, 28, generator=generator(0))
    small = reduced(x)
    assert small.shape == (2, 1, 8, 8)
    assert float(small[1, 0, 0, 0]) == pytest.approx(float(x[1, 0, 2:5, 2:5].mean()))
    assert float(small[0, 0, 7, 3]) == pytest.approx(float(x[0, 0, 23:26, 11:14].mean()))


def test_the_blur_is_as_wide_as_a_share_of_the_image() -> None:
    dot = torch.zeros(1, 1, 28, 28)
    dot[0, 0, 14, 14] = 1.0
    blurred = shifted(dot, "blurred", generator(0))[0, 0]
    assert int((blurred > 0).sum()) == 11**2 and float(blurred[14, 14]) == pytest.approx(1 / 121)


def test_domains_may_have_other_numbers_of_images_and_only_the_bound_reads_targets_labels() -> None:
    toy = toy_data((1, 4, 4), n_classes=4, n=20)
    x = toy.x_train.float() / 255
    source, target = Domain(x, toy.y_train), Domain(1 - x[:30], toy.y_train[:30])
    hidden = Domain(target.x, torch.full_like(target.y, -1))  # labels that would raise an error where they are read
    for method in ("source-only", "dann", "energy"):
        nets = [adapt(source, seen, method, generator(0), steps=5) for seen in (target, hidden)]
        assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    bound = adapt(target, target, "target", generator(0), steps=150)
    assert accuracy(bound, target) > 0.9
    assert accuracy(adapt(source, source, "source-only", generator(0), steps=150), source) > 0.9


@pytest.mark.mnist
def test_digits_and_mnist_both_ways() -> None:
    if not (data_folder() / "mnist.npz").is_file():
        pytest.skip("mnist.npz is not in the data folder; set CLTEACH_DATA to a folder that holds it")
    found = domain_transfer.digits_and_mnist(0, 80, "target")
    assert set(found) == set(RECIPES["domain-transfer-digits-mnist"].measures)  # type: ignore[union-attr]
    assert min(found.values()) > 40  # even 80 steps on the target's own labels are far above 10 % by chance
