"""Measures of generated images against closed forms, and the classifier in whose features they are taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from clteach.data.catalogue import load
from clteach.data.streams import dirichlet, permuted, split
from clteach.errors import ConfigError
from clteach.methods import build
from clteach.metrics import judge
from clteach.metrics.generation import frechet_distance, inception_score, precision_recall, precision_recall_curve
from clteach.metrics.judge import feature_classifier, quality
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


def whitened(n: int, d: int) -> torch.Tensor:
    """(n, d) samples whose mean is exactly 0 and whose covariance is exactly the unit matrix."""
    x = torch.randn(n, d, generator=generator(0, n, d), dtype=torch.float64)
    return torch.linalg.qr(x - x.mean(0)).Q * math.sqrt(n - 1)


def test_fid_of_two_gaussians_in_closed_form() -> None:
    x = whitened(200, 3)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    # Diagonal covariances a², b²: ‖μ‖² + Σ (a - b)²
    a, b, mean = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 0.5]), torch.tensor([1.0, -2.0, 0.0])
    assert frechet_distance(x * a, x * b + mean) == pytest.approx(5 + 1 + 0 + 6.25)


def test_fid_with_covariances_that_do_not_commute() -> None:
    """Against the matrix square root written out."""
    a, b = (torch.randn(4, 4, generator=generator(1, k), dtype=torch.float64) for k in range(2))
    x, y = whitened(50, 4) @ a, whitened(60, 4) @ b
    cov_x, cov_y = a.T @ a, b.T @ b
    values, vectors = torch.linalg.eigh(cov_x)
    root = vectors * values.sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_y @ root).clamp_min(0).sqrt().sum()
    assert frechet_distance(x, y) == pytest.approx(float(cov_x.trace() + cov_y.trace() - 2 * cross), rel=1e-9)


def test_fid_with_more_features_than_samples() -> None:
    x = torch.randn(5, 40, generator=generator(2))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, x + 2) == pytest.approx(160, rel=1e-6)
    assert frechet_distance(x, 3 * x) == pytest.approx(frechet_distance(3 * x, x))


def test_inception_score_of_uniform_and_certain_predictions() -> None:
    assert inception_score(torch.full((30, 10), 0.1)) == pytest.approx(1)
    assert inception_score(torch.eye(10).repeat(3, 1)) == pytest.approx(10)
    assert inception_score(torch.eye(10)[torch.zeros(30, dtype=torch.int64)]) == pytest.approx(1)
    # Two certain classes, one three times as frequent: the exponential of the marginal's entropy
    p = torch.eye(2)[torch.tensor([0, 0, 0, 1])]
    assert inception_score(p) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_precision_and_recall_of_identical_and_disjoint_sets() -> None:
    x = torch.randn(300, 2, generator=generator(3))
    same = precision_recall(x, x)
    assert same.precision == pytest.approx(1, abs=1e-3) and same.recall == pytest.approx(1, abs=1e-3)
    apart = precision_recall(x, x + 100)
    assert apart.precision == pytest.approx(0, abs=1e-6) and apart.recall == pytest.approx(0, abs=1e-6)


def test_precision_is_of_the_samples_and_recall_of_the_data() -> None:
    """Two far groups; a generator that makes only one of them is precise, but covers half of the data."""
    group = torch.randn(200, 2, generator=generator(4)) * 0.01
    both = torch.cat([group, group + 100])
    one = precision_recall(both, torch.cat([group, group]), clusters=2)
    # α = min(λ/2, 1), β = min(½, 1/λ): F_⅛ is best at λ = 2 (α = 1, β = ½), F_8 too
    f8, f18 = (1 + 64) * 0.5 / (64 + 0.5), (1 + 1 / 64) * 0.5 / (1 / 64 + 0.5)
    assert one.precision == pytest.approx(f18, abs=2e-3) and one.recall == pytest.approx(f8, abs=2e-3)
    assert one.precision > 0.9 > 0.6 > one.recall
    turned = precision_recall(torch.cat([group, group]), both, clusters=2)
    assert turned.precision == pytest.approx(one.recall, abs=1e-3)


def test_precision_recall_curve_written_out() -> None:
    x, y = torch.tensor([[0.0], [0.0], [0.0], [9.0]]), torch.tensor([[0.0], [9.0]])
    alpha, beta = precision_recall_curve(x, y, clusters=2, angles=5, runs=2)
    assert alpha.shape == beta.shape == (5,)
    for k, theta in enumerate((math.pi / 8, math.pi / 4, 3 * math.pi / 8), start=1):
        lam = math.tan(theta)
        expected = min(0.75 * lam, 0.5) + min(0.25 * lam, 0.5)
        assert float(alpha[k]) == pytest.approx(expected, rel=1e-4)
        assert float(beta[k]) == pytest.approx(expected / lam, rel=1e-4)
    assert torch.equal(alpha, precision_recall_curve(x, y, clusters=2, angles=5, runs=2)[0])


def test_measures_leave_the_global_random_states_alone() -> None:
    x = torch.rand(30, 2)
    states = torch.get_rng_state(), str(np.random.get_state())
    precision_recall(x, x, runs=1)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == str(np.random.get_state())


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


def test_errors_say_what_is_wrong() -> None:
    x = torch.randn(5, 3)
    with pytest.raises(ConfigError, match=r"shape \(1, 3\)"):
        frechet_distance(x, x[:1])
    with pytest.raises(ConfigError, match="3 features, generated 2"):
        frechet_distance(x, x[:, :2])
    with pytest.raises(ConfigError, match="finite"):
        frechet_distance(x, x / 0)
    with pytest.raises(ConfigError, match="sum to 1"):
        inception_score(x)
    with pytest.raises(ConfigError, match="images"):
        feature_classifier(split(toy_data((12,)), "class", tasks=2))
    with pytest.raises(ConfigError, match="scenario"):
        feature_classifier(split(toy_data(), "domain", tasks=2))


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
