"""What a file of convolutions tells about its training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clteach.errors import CheckpointError
from clteach.experiments import published_convolutions
from clteach.experiments.published_convolutions import OURS, PUBLISHED, make, measured, published, table
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


@pytest.mark.parametrize("bad", ["missing", "damaged", "another"])
def test_another_file_is_one_clear_error(tmp_path: Path, bad: str) -> None:
    file = tmp_path / "file"
    if bad == "damaged":
        file.write_bytes(b"no weights")
    elif bad == "another":
        torch.save({"state": {"fcE.weight": torch.ones(2, 2)}}, file)
    with pytest.raises(CheckpointError, match="file holds no convolutions as they were published"):
        published(file, toy_data(SHAPE, n=4))


def test_traces_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are counted; weights grow with the learning rate, not without it; gains are where they began."""
    data = toy_data(SHAPE, n=40)
    found = {}
    for lr, uniform in ((0.0, False), (0.0, True), (1e-2, False)):
        file = tmp_path / f"{lr}{uniform}"
        how = {"extractor": "conv-normalised", "hidden": (), "epochs": 5, "batch_size": 20}
        module = published_convolutions.make_extractor(
            "conv-normalised",
            SHAPE,
            pretraining.pretrain(data, file, lr=lr, uniform_gains=uniform, **how),  # type: ignore[arg-type]
        )
        found[lr, uniform] = measured(module, data)
    still, uniform_gains, moved = found.values()
    assert {each["batches"] for each in found.values()} == {5 * len(data.x_train) // 20}
    assert still["growth"] == pytest.approx(1, abs=0.03) and uniform_gains["growth"] == pytest.approx(1, abs=0.03)
    assert moved["growth"] > 1.1
    assert still["gain"] == 1 and uniform_gains["gain"] == pytest.approx(0.5, abs=0.1)
    assert uniform_gains["variance"] < still["variance"]


def test_what_is_in_the_package_was_measured_on_its_own_weights() -> None:
    found = table()
    assert list(found.index) == [*PUBLISHED, *OURS]
    for name, weights in OURS.items():
        module = published_convolutions.make_extractor("conv-normalised", SHAPE, weights)
        again = measured(module, toy_data(SHAPE, n=40))
        for key in ("batches", "growth", "gain"):
            assert found.loc[name, key] == pytest.approx(again[key], rel=1e-5)


def test_it_is_made_of_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_convolutions, "load_dataset", lambda name: toy_data(SHAPE, n=40))
    files = [as_published(normalised_conv_features(SHAPE), tmp_path / name) for name in ("2020", "2022")]
    found = table(make(files, tmp_path / "table.json"))
    assert list(found.index) == [*PUBLISHED, *OURS] and list(found["batches"][:2]) == [0, 0]
    assert (found["variance"] > 0).all()
