"""Pre-training of extractors: killed and resumed to the bit, and the channels normalised by the training images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach.data.extractors import EXTRACTORS, make_extractor, trained
from clteach.errors import CheckpointError, ConfigError
from clteach.models.nets import ChannelNormalisation, conv_features, normalised_conv_features
from clteach.seeding import generator
from clteach.storage import load_tensors
from clteach.training import pretraining
from clteach.training.learner_checks import toy_data
from clteach.training.pretraining import augmented, pretrain

HOW: dict[str, Any] = {"extractor": "conv-normalised", "hidden": (16,), "epochs": 10, "batch_size": 20, "lr": 1e-3}


class Killed(Exception):
    """The end of a call that is to be repeated."""


def test_a_killed_call_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data((3, 32, 32), n=40)
    whole, _ = load_tensors(pretrain(data, tmp_path / "whole", **HOW))
    monkeypatch.setattr(pretraining, "SAVE_EVERY", 0.0)

    def kill(path: Path, identity: dict[str, Any], done: int, *rest: Any) -> None:
        save(path, identity, done, *rest)
        if done in (7, 30):
            raise Killed

    save = pretraining._save
    monkeypatch.setattr(pretraining, "_save", kill)
    out = tmp_path / "killed"
    for _ in range(2):
        with pytest.raises(Killed):
            pretrain(data, out, **HOW)
        assert not out.exists() and (tmp_path / "killed.unfinished").exists()
    with pytest.raises(CheckpointError, match=r"another pre-training \(its lr differ\)"):
        pretrain(data, out, **{**HOW, "lr": 1e-2})
    resumed, about = load_tensors(pretrain(data, out, **HOW))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["killed", "whole"]
    assert all(value.dtype is torch.float16 for value in whole.values() if value.is_floating_point())
    assert about["data"] == data.name and trained(out).startswith(f"{data.n_classes} classes of {data.name}, 10 epochs")


def test_the_channels_are_normalised_by_the_training_images(tmp_path: Path) -> None:
    data = toy_data((3, 32, 32), n=40)
    extractor = make_extractor("conv-normalised", data.shape, pretrain(data, tmp_path / "weights", **HOW))
    x = data.x_train.double() / 255
    normalisation = extractor[0]  # type: ignore[index]
    assert isinstance(normalisation, ChannelNormalisation)
    half = 2.0**-11  # the largest relative error of half precision
    torch.testing.assert_close(normalisation.mean.flatten(), x.mean((0, 2, 3)).float(), rtol=half, atol=0)
    torch.testing.assert_close(normalisation.std.flatten(), x.std((0, 2, 3), correction=0).float(), rtol=half, atol=0)
    shown = normalisation(x.float())
    torch.testing.assert_close(shown.mean((0, 2, 3)), torch.zeros(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(shown.std((0, 2, 3), correction=0), torch.ones(3), atol=2e-3, rtol=0)


def test_a_shifted_image_goes_on_as_its_own_mirror_image() -> None:
    """The oracle is NumPy's padding that repeats the edge; every shift comes up, each about as often."""
    x = torch.rand(1, 2, 6, 8)
    padded = np.pad(x[0].numpy(), ((0, 0), (3, 3), (3, 3)), "symmetric")
    shifts = {(mirror, i, j): 0 for mirror in (False, True) for i in range(7) for j in range(7)}
    possible = {
        key: padded[:, key[1] : key[1] + 6, key[2] : key[2] + 8][:, :, :: -1 if key[0] else 1].tobytes()
        for key in shifts
    }
    of = {image: key for key, image in possible.items()}
    assert len(of) == len(possible)
    for image in augmented(x.expand(4900, -1, -1, -1), generator(0), pad=3).contiguous():
        shifts[of[image.numpy().tobytes()]] += 1
    assert min(shifts.values()) > 20 and max(shifts.values()) < 90
    for size in (1, 2, 3):  # smaller than the shift
        tiny = torch.rand(50, 1, size, size)
        assert set(augmented(tiny, generator(0)).flatten().tolist()) <= set(tiny.flatten().tolist())


def test_gains_begin_at_one_or_at_random(tmp_path: Path) -> None:
    data = toy_data((3, 32, 32), n=40)
    still: dict[str, Any] = {**HOW, "epochs": 1, "lr": 1e-12}
    for uniform in (False, True):
        file = pretrain(data, tmp_path / f"{uniform}", uniform_gains=uniform, **still)
        gains = torch.cat(
            [v.flatten() for k, v in load_tensors(file)[0].items() if k in ("2.weight", "11.weight")]
        ).float()
        assert len(gains) == 16 + 128
        if uniform:
            assert 0 <= gains.min() < 0.1 and 0.9 < gains.max() <= 1 and abs(gains.mean() - 0.5) < 0.1
        else:
            assert (gains == 1).all()
        assert ("gains from [0, 1)" in trained(file)) == uniform


def test_floats_and_a_constant_channel() -> None:
    x = torch.rand(2500, 2, 4, 4)
    x[:, 1] = 0.5
    normalisation = ChannelNormalisation(2)
    normalisation.measure(x)
    torch.testing.assert_close(normalisation.mean.flatten(), torch.tensor([float(x[:, 0].mean()), 0.5]))
    assert normalisation(x)[:, 1].abs().max() < 1e-6
    before, after = conv_features((3, 32, 32)), normalised_conv_features((3, 32, 32))
    assert len(after) == len(before) + 1


def test_one_clear_error_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRACTORS, "flat", lambda shape: torch.nn.Flatten())
    data = toy_data((3, 32, 32), n=8)
    with pytest.raises(ConfigError, match="is a folder"):
        pretrain(data, tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'conv'"):
        pretrain(data, tmp_path / "x", extractor="cnv")
    for bad, words in (
        ({"batch_size": 0}, "batch_size=0: expected at least one"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": 0.0}, "lr=0.0: expected a number above 0"),
        ({"lr": -1e-3}, "lr=-0.001"),
        ({"lr": math.nan}, "lr=nan"),
        ({"lr": math.inf}, "lr=inf"),
        ({"seed": -1}, "seed=-1"),
        ({"uniform_gains": True, "extractor": "flat"}, "'flat' has no batch norm"),
    ):
        with pytest.raises(ConfigError, match=words):
            pretrain(data, tmp_path / "x", **bad)  # type: ignore[arg-type]
    for classes in ([], [-1], [data.n_classes]):
        with pytest.raises(ConfigError, match=r"expected some of 0\.\."):
            pretrain(data, tmp_path / "x", classes=classes)
    (tmp_path / "x.unfinished").write_bytes(b"damaged")
    with pytest.raises(CheckpointError):
        pretrain(data, tmp_path / "x", **HOW)
