"""Encoded streams: the features are those of the extractor, any method learns from them, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import clteach
from clteach.data import extractors
from clteach.data.dataset import Dataset, Encoding, as_floats
from clteach.data.extractors import EXTRACTORS, encode, make_extractor, register_extractor, trained
from clteach.data.raw import as_read
from clteach.data.streams import make_stream, permuted, split
from clteach.errors import ConfigError, DataError
from clteach.learners.learner import Phase
from clteach.learners.replay import Memory
from clteach.methods import METHODS
from clteach.methods.brain_inspired_replay import BrainInspiredReplay
from clteach.methods.generative_replay import GenerativeReplay
from clteach.seeding import generator
from clteach.training.learner_checks import quick, same_state, tiny, toy_data
from clteach.training.pretraining import pretrain
from clteach.training.run import load_learner

ALL_OFF = {"feedback": False, "conditional": False, "gating": 0.0}


class Rows(nn.Module):
    """Four sums of two rows each, times 3 and minus 6: exact in whatever batch, and outside [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.flatten(1).view(len(x), 4, 16).sum(2) - 6


@pytest.fixture(autouse=True)
def rows() -> Iterator[None]:
    register_extractor("rows", lambda shape: Rows())
    yield
    del EXTRACTORS["rows"]
    extractors._LATEST.clear()


def test_features_are_those_of_the_extractor_whatever_the_batch() -> None:
    data = toy_data(n=60)  # more than are encoded at a time
    encoded = encode(data, "rows")
    by_hand = torch.tensor([[3 * float((image / 255).flatten()[i : i + 16].sum()) - 6 for i in range(0, 64, 16)]
                            for image in data.x_train])  # fmt: skip
    torch.testing.assert_close(encoded.x_train, by_hand)
    assert torch.equal(encoded.x_test, Rows()(data.x_test / 255))
    assert encoded.y_train is data.y_train and encoded.classes == data.classes
    assert encoded.encoded_from == 64 and float(encoded.x_train.min()) < 0 and float(encoded.x_train.max()) > 1
    assert encode(data, "rows").x_train is encoded.x_train  # it is encoded once
    register_extractor("rows", lambda shape: nn.Flatten())  # but never again for another extractor of that name
    assert encode(data, "rows").shape == (64,)


def test_equal_images_keep_their_own_encoding_and_extractor() -> None:
    x, y = torch.randint(0, 17, (60, 1, 8, 8), generator=generator(0)).double().numpy(), np.arange(60) % 3
    data = [clteach.from_arrays(x / 16, y), clteach.from_arrays(x, y, largest=16)]
    assert data[0].fingerprint == data[1].fingerprint
    register_extractor("same rows", EXTRACTORS["rows"])
    try:
        for given, extractor, seed in ((data[0], "rows", 0), (data[1], "same rows", 1)):
            encoded = encode(given, extractor, seed=seed)
            made_by = {"name": extractor, "weights": None, "seed": seed}
            assert encoded.encoding is not None and encoded.encoding.extractor is not None
            assert made_by.items() <= encoded.encoding.extractor.items()
            assert encoded.encoding.largest == (given.encoding or Encoding()).largest
        read = as_read(x, split(encoded, "class", tasks=3).spec)  # what `classify` makes of the raw images
    finally:
        del EXTRACTORS["same rows"]
    torch.testing.assert_close(read, Rows()(torch.from_numpy(x / 16).float()))


def test_random_weights_are_those_of_the_seed() -> None:
    data = toy_data((3, 32, 32), n=2)
    assert not torch.equal(encode(data, "conv", seed=0).x_train, encode(data, "conv", seed=1).x_train)
    module = make_extractor("conv", data.shape, seed=1)
    with torch.no_grad():
        torch.testing.assert_close(encode(data, "conv", seed=1).x_train, module(data.x_train / 255))


def test_a_stream_is_encoded_by_name() -> None:
    named = make_stream("split-toy", "domain", toy_data(), extractor="rows", tasks=2)
    assert named.fingerprint == split(encode(toy_data(), "rows"), "domain", tasks=2).fingerprint
    plain = split(toy_data(), "domain", tasks=2)
    assert named.fingerprint != plain.fingerprint
    assert named.spec.shape == (4,) and (named.spec.pixels, plain.spec.pixels) == (64, 64)
    assert named.spec != split(toy_data((4,)), "domain", tasks=2).spec


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.takes_features])
def test_every_other_method_learns_behind_an_extractor(name: str, tmp_path: Path) -> None:
    cls = METHODS[name]
    if name == "dream-replay":
        return  # its generators refuse, see below
    stream = split(encode(toy_data(), "rows"), cls.scenarios[-1], tasks=2)
    learner = quick(cls, stream).learner
    assert same_state(load_learner(learner.save(tmp_path / "learner")), learner)
    for memory in (module for module in learner.modules() if isinstance(module, Memory)):
        kept = memory.batch(torch.arange(3)).x  # not rounded, not clipped
        assert all((stream[0].train.x == x).all(1).any() for x in kept)


@pytest.mark.parametrize("name", [*(n for n, cls in METHODS.items() if not cls.takes_features), "dream-replay"])
def test_generators_of_values_between_0_and_1_refuse(name: str) -> None:
    cls = METHODS[name]
    spec = split(encode(toy_data(), "rows"), cls.scenarios[-1], tasks=2).spec
    with pytest.raises(ConfigError, match="features, any numbers: leave the extractor out"):
        cls(spec, tiny(cls))


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("settings", [{}, {**ALL_OFF, "targets": "hard"}], ids=["BI-R", "all off"])
def test_internal_replay_is_the_same_on_an_encoded_stream_to_the_bit(scenario: str, settings: dict[str, Any]) -> None:
    inside = quick(BrainInspiredReplay, split(toy_data(), scenario, tasks=2), extractor="rows", **settings)
    before = quick(BrainInspiredReplay, split(encode(toy_data(), "rows"), scenario, tasks=2), **settings)
    left, right = inside.learner.state_dict(), before.learner.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    assert torch.equal(inside.accuracy, before.accuracy)


def test_all_off_is_generative_replay_of_features_to_the_bit() -> None:
    stream = split(encode(toy_data(), "rows"), "class", tasks=2)
    replay = quick(GenerativeReplay, stream, targets="hard").learner.state_dict()
    off = quick(BrainInspiredReplay, stream, **ALL_OFF, targets="hard").learner.state_dict()
    assert all(torch.equal(off[key], value) for key, value in replay.items())


@pytest.mark.parametrize("keep", ["model", "samples"])
def test_generative_replay_dreams_features(keep: str) -> None:
    stream = split(encode(toy_data(), "rows"), "class", tasks=2)
    learner = quick(GenerativeReplay, stream, keep=keep, stored_samples=7).learner
    assert isinstance(learner, GenerativeReplay)
    z = torch.randn(50, 3, generator=generator(0))
    dreams = learner.vae.sample(z)
    torch.testing.assert_close(dreams, learner.vae.decoder(z))  # no sigmoid
    assert dreams.shape == (50, 4)
    # L_VAE = ½ Σ (x̂ - x)² / 4 features + KL / 64 pixels
    learner.enter(0, Phase("train", 1))
    x, eps = stream[0].train.batch(torch.arange(5)).x, torch.randn(5, 3, generator=generator(1))
    mean, logvar = learner.vae.encode(x)
    decoded = learner.vae.decoder(mean + torch.exp(0.5 * logvar) * eps)
    kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(1)
    torch.testing.assert_close(learner.elbo_loss(x, eps), 0.5 * ((decoded - x) ** 2).mean(1) + kl / 64)


def test_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    data = toy_data()
    encoded = encode(data, "rows")
    with pytest.raises(ConfigError, match="not to permute the pixels"):
        permuted(encoded, tasks=2, pad=0)
    with pytest.raises(ConfigError, match="no images"):
        encode(encoded, "conv")
    with pytest.raises(ConfigError, match="Did you mean 'rows'"):
        make_stream("split-toy", dataset=data, extractor="row")
    with pytest.raises(ConfigError, match="belong to an extractor"):
        make_stream("split-toy", dataset=data, weights="some.safetensors")
    with pytest.raises(ConfigError, match=r"neither here nor in .*clteach pretrain"):
        make_stream("split-toy", dataset=data, extractor="rows", weights="some.safetensors")
    stream = split(encoded, tasks=2)
    for settings in ({"extractor": "rows"}, {"internal": False}):
        with pytest.raises(ConfigError, match="encoded already"):
            clteach.build("brain-inspired-replay", stream.spec, **settings)
    register_extractor("rows", lambda shape: nn.Sequential(nn.Flatten(), nn.Threshold(2.0, float("nan"))))
    with pytest.raises(DataError, match="nan"):
        encode(data, "rows")
    with pytest.raises(DataError, match=r"expected floats in \[0, 1\]"):  # only what encode made may leave [0, 1]
        Dataset("own", 2 * torch.ones(2, 3), torch.tensor([0, 1]), torch.ones(2, 3), torch.tensor([0, 1]), ("a", "b"))


def test_features_of_many_images_are_kept_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_data((3, 32, 32), n=20)
    weights = pretrain(data, tmp_path / "conv.safetensors", hidden=(), epochs=1, batch_size=20)
    without = encode(data, "conv", weights)
    assert len(list(tmp_path.iterdir())) == 1  # few images
    monkeypatch.setattr(extractors, "_KEPT_FROM", 1)

    def again(made: bool, of: Dataset = data) -> Dataset:
        extractors._LATEST.clear()
        calls: list[int] = []
        monkeypatch.setattr(extractors, "as_floats", lambda x: (calls.append(1), as_floats(x))[1])
        encoded = encode(of, "conv", weights)
        assert bool(calls) == made
        return encoded

    for made in (True, False):
        encoded = again(made)
        assert torch.equal(encoded.x_train, without.x_train) and torch.equal(encoded.x_test, without.x_test)
    (file,) = tmp_path.glob("*.features")
    assert file.name.startswith("conv.toy-")
    file.write_bytes(file.read_bytes()[:-7])  # damaged: made anew, and mended
    assert torch.equal(again(True).x_train, without.x_train)
    again(False)
    other = replace(data, x_train=255 - data.x_train)
    assert not torch.equal(again(True, other).x_train, without.x_train)
    pretrain(data, weights, hidden=(), epochs=2, batch_size=20)
    assert not torch.equal(again(True).x_train, without.x_train)
    register_extractor("mine", lambda shape: extractors.EXTRACTORS["conv"](shape))
    extractors._LATEST.clear()
    found = len(list(tmp_path.iterdir()))
    encode(data, "mine", weights)
    assert len(list(tmp_path.iterdir())) == found  # nobody knows whether its code is the same
    del extractors.EXTRACTORS["mine"]


def test_weights_come_with_the_package_and_give_way_to_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path / "data"))
    other, name, shape = "cifar10-2020.safetensors", "cifar10.safetensors", (3, 32, 32)
    ours = make_extractor("conv-normalised", shape, name)
    assert trained(name).startswith("10 classes of cifar10, 100 epochs in batches of 256, Adam 0.0001; ")
    assert trained(other).startswith(
        "10 classes of cifar10, 100 epochs in batches of 128, Adam 0.001, gains from [0, 1); "
    )
    assert all((extractors.WEIGHTS / file).stat().st_size < 1e6 for file in (name, other))
    assert extractors.fingerprint(make_extractor("conv-normalised", shape, other)) != extractors.fingerprint(ours)
    with pytest.raises(ConfigError, match=rf"nor does it come with the package \(as do {other}, {name}\)"):
        make_extractor("conv-normalised", shape, "no-such.safetensors")
    monkeypatch.setattr(extractors, "_KEPT_FROM", 1)
    encode(toy_data(shape, n=4), "conv-normalised", name)
    assert len(list((tmp_path / "data").glob("cifar10.toy-*.features"))) == 1  # the package's folder stays as it is
    pretrain(toy_data(shape, n=4), tmp_path / "data" / name, extractor="conv-normalised", hidden=(), epochs=1)
    own = make_extractor("conv-normalised", shape, name)
    assert extractors.fingerprint(own) != extractors.fingerprint(ours)
