"""What a file of convolutions tells about its training."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clteach.errors import CheckpointError
from clteach.experiments import published_convolutions
from clteach.experiments.published_convolutions import OURS, PUBLISHED, Published, make, measured, published, table
from clteach.models.nets import normalised_conv_features
from clteach.training import pretraining
from clteach.training.learner_checks import toy_data

SHAPE = (3, 32, 32)


def as_published(module: nn.Sequential, file: Path) -> Path:
    """The file that the published code would have written of these convolutions."""
    state: dict[str, Any] = {}
    conv = norm = 0
    for layer in module:
        if isinstance(layer, nn.Conv2d):
            conv += 1
            state |= {f"convLayer{conv}.conv.{k}": v for k, v in layer.state_dict().items()}
        elif isinstance(layer, nn.BatchNorm2d):
            norm += 1
            state |= {f"convLayer{norm}.bn.{k}": v for k, v in layer.state_dict().items()}
    torch.save({"state": state}, file)
    return file


def test_a_published_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    data = toy_data(SHAPE, n=40)
    torch.manual_seed(0)
    written = normalised_conv_features(SHAPE).train()
    for layer in written:
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight)
    written(torch.rand(20, *SHAPE))  # so that running statistics are not those of the start
    read = published(as_published(written, tmp_path / "file"), data)
    assert not read.training
    read[0] = written[0]
    x = torch.rand(5, *SHAPE)
    torch.testing.assert_close(read(x), written.eval()(x))


@pytest.mark.parametrize("bad", ["missing", "damaged", "another", "with another batch norm"])
def test_another_file_is_one_clear_error(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "file"
    if bad == "damaged":
        file.write_bytes(b"no weights")
    elif bad == "another":
        torch.save({"state": {"fcE.weight": torch.ones(2, 2)}}, file)
    elif bad == "with another batch norm":
        as_published(nn.Sequential(*normalised_conv_features(SHAPE)[:-1], nn.BatchNorm2d(256)), file)
    with pytest.raises(CheckpointError, match="file holds no convolutions as they were published"):
        published(file, toy_data(SHAPE, n=4))


def test_traces_of_a_random_walk() -> None:
    """Weights that took k steps of length lr from PyTorch's own start, gains of which the mean is known."""
    torch.manual_seed(0)
    data = toy_data(SHAPE, n=4)
    for k, lr in ((19_500, 1e-4), (39_000, 1e-3)):
        module = normalised_conv_features(SHAPE).eval()
        for layer in module:
            if isinstance(layer, nn.Conv2d):
                layer.weight.data += lr * k**0.5 * torch.randn_like(layer.weight)
            elif isinstance(layer, nn.BatchNorm2d):
                layer.weight.data.fill_(0.25)
                layer.num_batches_tracked.fill_(k)  # type: ignore[union-attr]
        found = measured(module, data)
        assert found["batches"] == k and found["gain"] == 0.25
        assert found["step"] == pytest.approx(lr, rel=0.05)
        x = data.x_train.float() / 255
        assert found["variance"] == pytest.approx(float(module(x).var(0).mean().detach()), rel=1e-4)


@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_the_step_is_the_learning_rate_of_a_training(tmp_path: Path, lr: float) -> None:
    data = toy_data(SHAPE, n=40)
    how: dict[str, Any] = {"extractor": "conv-normalised", "hidden": (), "epochs": 20, "batch_size": 40}
    file = pretraining.pretrain(data, tmp_path / "weights", lr=lr, **how)
    found = measured(published_convolutions.make_extractor("conv-normalised", SHAPE, file), data)
    assert found["batches"] == 20 * len(data.x_train) // 40
    assert lr / 3 < found["step"] < 3 * lr


def test_what_is_in_the_package_was_measured_on_its_own_weights() -> None:
    found = table()
    assert list(found.index) == [*PUBLISHED, *OURS]
    for name, weights in OURS.items():
        module = published_convolutions.make_extractor("conv-normalised", SHAPE, weights)
        again = measured(module, toy_data(SHAPE, n=40))
        for key in ("batches", "step", "gain"):
            assert found.loc[name, key] == pytest.approx(again[key], rel=1e-5)


def test_it_is_made_of_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_convolutions, "load_dataset", lambda name: toy_data(SHAPE, n=40))
    files = [as_published(normalised_conv_features(SHAPE), tmp_path / name) for name in ("2020", "2022")]
    with pytest.raises(CheckpointError, match="2020 is another file than store/models/C3-5x16-bn of"):
        make(files, tmp_path / "table.json")
    of = {
        name: Published(each.source, hashlib.sha256(file.read_bytes()).hexdigest())
        for (name, each), file in zip(PUBLISHED.items(), files, strict=True)
    }
    monkeypatch.setattr(published_convolutions, "PUBLISHED", of)
    found = table(make(files, tmp_path / "table.json"))
    assert list(found.index) == [*PUBLISHED, *OURS] and list(found["batches"][:2]) == [0, 0]
    assert (found["variance"] > 0).all()
