"""The classifier in whose features generated images are judged, and what it says of each part of them."""

from __future__ import annotations

import math

import pytest
import torch

from clteach.data.catalogue import load
from clteach.data.streams import dirichlet, permuted, split
from clteach.errors import ConfigError
from clteach.methods import build
from clteach.metrics import judge
from clteach.metrics.judge import feature_classifier, quality
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


class Brightness(torch.nn.Module):
    """A judge in whose eyes an image of brightness k/10 is of class k; its features are the image's pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(10 * x.flatten(1).mean(1, keepdim=True) - torch.arange(10.0)).abs()

    def probabilities(self, x: torch.Tensor) -> torch.Tensor:
        return self(x).softmax(1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)


def gray(*classes: int, each: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, 2, 2) of these classes in the eyes of `Brightness`, and their classes (N,)."""
    of = torch.tensor(classes).repeat_interleave(each)
    noise = torch.rand(len(of), 1, 2, 2, generator=generator(5, *classes)) - 0.5
    return of[:, None, None, None] / 10 + 0.05 * noise, of


def test_quality_by_group_is_the_quality_of_each_part() -> None:
    """Classes 7 and 1 make task 0, class 4 makes task 1: the judge's numbers are not the groups' numbers."""
    net, (real, of), (generated, shown) = Brightness(), gray(7, 1, 4), gray(4, 4, 1, 4)
    task = (of == 4).long()
    by_task = judge.quality_by_group(net, real, task, generated)  # type: ignore[arg-type]
    assert by_task[0]["share"] == 0.25 and by_task[1]["share"] == 0.75
    for t, group in by_task.items():
        part = quality(net, real[task == t], generated[(shown == 4).long() == t])  # type: ignore[arg-type]
        assert group == {"share": group["share"], **part}
    assert by_task[1]["fid"] < 0.01 < by_task[0]["fid"]  # task 0 is dreamed without its class 7


def test_quality_by_group_believes_what_was_asked_for() -> None:
    net, (real, of), (generated, _) = Brightness(), gray(0, 1), gray(1, 1)
    asked = torch.tensor([0, 1]).repeat_interleave(40)
    by_class = judge.quality_by_group(net, real, of, generated, asked)  # type: ignore[arg-type]
    assert by_class[0]["share"] == by_class[1]["share"] == 0.5
    assert by_class[0]["fid"] > 10 * by_class[1]["fid"]  # asked for 0, it gave 1
    seen = judge.quality_by_group(net, real, of, generated)  # type: ignore[arg-type]
    assert seen[0]["share"] == 0 and math.isnan(seen[0]["fid"]) and seen[1]["share"] == 1


def test_quality_by_group_leaves_out_what_looks_like_no_group() -> None:
    net, (real, of), (generated, _) = Brightness(), gray(0, 1), gray(1, 9)
    groups = judge.quality_by_group(net, real, of, generated)  # type: ignore[arg-type]
    assert groups[0]["share"] == 0 and groups[1]["share"] == 0.5
    with pytest.raises(ConfigError, match="3 groups of 80 real images, no groups asked for of 80 generated ones"):
        judge.quality_by_group(net, real, of[:3], generated)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="80 groups of 80 real images, 5 groups asked for"):
        judge.quality_by_group(net, real, of, generated, of[:5])  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    monkeypatch.setattr(judge, "_trained", {})
    return tmp_path


def test_the_classifier_depends_on_the_data_set_alone(folder) -> None:  # type: ignore[no-untyped-def]
    data = toy_data()
    first = feature_classifier(split(data, "class", tasks=2))
    assert len(list((folder / "features").iterdir())) == 1
    others = [
        split(data, "class", tasks=4, class_order="random", validation=0.25, seed=3),
        dirichlet(data, "class", tasks=2, alpha=2.0, seed=1),
    ]
    for stream in others:
        assert feature_classifier(stream) is first
    assert feature_classifier(split(toy_data(seed=1), "class", tasks=2)) is not first


def test_permuted_images_have_a_classifier_of_their_own(folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(judge, "fit", lambda net, data: None)  # which one is asked for, not what it has learned
    one, again, other = (permuted(toy_data(), "class", tasks=2, pad=0, seed=seed) for seed in (0, 0, 1))
    assert feature_classifier(one) is feature_classifier(again) is not feature_classifier(other)


def test_the_classifier_is_read_back_or_trained_again_alike(folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    stream = split(toy_data(), "class", tasks=2)
    first = feature_classifier(stream).state_dict()
    judge._trained.clear()
    with monkeypatch.context() as patched:
        patched.setattr(judge, "fit", lambda *_: pytest.fail("trained again although the file is there"))
        read = feature_classifier(stream).state_dict()
    judge._trained.clear()
    (folder / "features").rename(folder / "elsewhere")
    (folder / "features").write_text("a file where the folder should be: nothing can be written")
    again = feature_classifier(stream).state_dict()
    for key in first:
        assert torch.equal(first[key], read[key]) and torch.equal(first[key], again[key])


def test_the_classifier_knows_digits(folder) -> None:  # type: ignore[no-untyped-def]
    data = load("digits")
    net = feature_classifier(split(data, "class", tasks=5))
    x = data.x_test.float() / 255
    # Classes are numbered in the order in which the data set shows them.
    order = list(dict.fromkeys(data.y_train.tolist()))
    accuracy = (torch.tensor(order)[net.probabilities(x).argmax(1)] == data.y_test).float().mean()
    assert accuracy > 0.9
    assert net.features(x[:3]).shape == (3, 84)
    half = len(x) // 2
    real, noise = quality(net, x[:half], x[half:]), quality(net, x[:half], torch.rand_like(x[half:]))
    assert real["fid"] < 0.2 * noise["fid"]
    assert real["precision"] > 0.8 > noise["precision"] and real["recall"] > 0.8 > noise["recall"]
    assert real["inception_score"] > 7 > noise["inception_score"]


def test_a_generator_that_diverged_says_so(folder, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    stream = split(toy_data(), "class", tasks=2)
    learner = build("vae-replay", stream.spec, features="inputs", hidden=(8,), lr=0.5, seed=3)
    monkeypatch.setattr(
        type(learner), "dream", lambda self, tasks, rng: torch.full((len(tasks), *stream.spec.shape), torch.nan)
    )
    with pytest.raises(ConfigError, match=r"vae-replay, seed 3: training diverged, .* task 2 .*lr=0\.5"):
        learner.evaluate(1, stream[1].test)
