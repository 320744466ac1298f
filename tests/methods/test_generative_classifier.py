"""The generative classifier: its likelihood against closed forms and loops, and that old classes stay as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Independent, MultivariateNormal, Normal

from clteach.data.streams import split
from clteach.data.tasks import Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.methods import build, generative_classifier
from clteach.methods.generative_classifier import GenerativeClassifier
from clteach.models.vae import bernoulli_nll, kl_standard_normal
from clteach.seeding import generator
from clteach.training.learner_checks import (
    check_frozen,
    check_pure,
    check_repeats,
    check_resumes,
    check_trains,
    quick,
    toy_data,
)
from clteach.training.loop import train

STREAM = split(toy_data(n_classes=6), "class", tasks=3)
FEATURES = Spec((7,), 1, 2, "class", ((0, 1),), encoded_from=7)


def classifier(spec: Spec, **settings: object) -> GenerativeClassifier:
    learner = build("generative-classifier", spec, **settings)
    assert isinstance(learner, GenerativeClassifier)
    return learner


def linear_vae(posterior: str, samples: int) -> tuple[GenerativeClassifier, Tensor, Tensor]:
    """Linear decoders x = W z + b + noise of two classes: p(x) = N(b, W Wᵀ + I). Their W have orthogonal columns.

    Args:
        posterior: what the encoders are, the "exact" posterior or a "wider" one.
        samples: importance samples.

    Returns:
        The classifier, inputs (5, 7), and log p(x|c) of these, (5, 2).
    """
    rng = generator(0)
    learner = classifier(FEATURES, hidden=(), z=3, samples=samples)
    x = 2 * torch.randn(5, 7, generator=rng)
    exact = []
    with torch.no_grad():
        for c in range(2):
            W = torch.linalg.qr(torch.randn(7, 3, generator=rng))[0] * torch.tensor([0.5, 1.0, 2.0])
            b = torch.randn(7, generator=rng)
            decoder, encoder = learner.vae(c).decoder[-1], learner.vae(c).encoder[-1]
            decoder.get_parameter("weight").copy_(W)
            decoder.get_parameter("bias").copy_(b)
            # p(z|x) = N(S Wᵀ(x - b), S) with S = (I + WᵀW)⁻¹, which is diagonal here
            variance = 1 / (1 + W.square().sum(0))
            weight = variance[:, None] * W.T
            wider = 0.0 if posterior == "exact" else 0.3
            encoder.get_parameter("weight").copy_(torch.cat([weight, torch.zeros(3, 7)]))
            encoder.get_parameter("bias").copy_(torch.cat([-weight @ b, variance.log() + wider]))
            exact.append(MultivariateNormal(b, W @ W.T + torch.eye(7)).log_prob(x))
    return learner, x, torch.stack(exact, 1)


def test_likelihood_of_a_linear_vae_with_the_exact_posterior() -> None:
    """Every importance weight is p(x) itself, so one sample gives the closed form."""
    for samples in (1, 10):
        learner, x, exact = linear_vae("exact", samples)
        torch.testing.assert_close(learner.log_likelihood(x), exact, rtol=1e-4, atol=1e-3)


def test_likelihood_of_a_linear_vae_with_another_posterior() -> None:
    """One sample is wrong and too low on average, many come to the closed form."""
    one, x, exact = linear_vae("wider", 1)
    many, _, _ = linear_vae("wider", 20_000)
    assert float((one.log_likelihood(x) - exact).abs().max()) > 0.1
    torch.testing.assert_close(many.log_likelihood(x), exact, rtol=0, atol=0.02)
    bounds = []
    for seed in range(100):
        one.eps.copy_(torch.randn(1, 3, generator=generator(seed)))
        bounds.append(one.log_likelihood(x))
    assert bool((torch.stack(bounds).mean(0) < exact).all())


def test_likelihood_of_pixels_against_the_integral() -> None:
    """One latent dimension: p(x) = ∫ p(x|z) p(z) dz on a fine grid."""
    learner = classifier(STREAM.spec, hidden=(8,), z=1, samples=20_000)
    x = STREAM[0].test.batch(torch.arange(3)).x
    grid = torch.linspace(-8, 8, 4001)
    for c in range(6):
        logits = learner.vae(c).decode(grid[:, None]).detach()
        for i in range(3):
            log_p = -bernoulli_nll(logits, x[i].expand(len(grid), *x.shape[1:])) + Normal(0.0, 1.0).log_prob(grid)
            exact = float(log_p.logsumexp(0)) + math.log(16 / 4000)
            assert float(learner.log_likelihood(x)[i, c]) == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("observation", ["trained", "gaussian", "features"])
@pytest.mark.parametrize("at_once", [1, 216, 1000, 10**6])
def test_likelihood_against_a_loop(observation: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Image by image, class by class, sample by sample, with PyTorch's distributions; in pieces of any size."""
    monkeypatch.setattr(generative_classifier, "AT_ONCE", at_once)
    settings = {"observation": observation} if observation != "features" else {}
    spec = STREAM.spec if settings else replace(STREAM.spec, encoded_from=10)
    learner = classifier(spec, hidden=(9, 5), z=3, samples=6, **settings)
    for parameter in learner.parameters():
        parameter.data.mul_(3)  # so that classes and samples differ
    x = STREAM[0].test.batch(torch.arange(4)).x
    found = learner.log_likelihood(x)
    assert found.shape == (4, 6)
    for i in range(4):
        for c in range(6):
            mean, logvar = learner.vae(c).encode(x[i : i + 1])
            q = Independent(Normal(mean[0], (0.5 * logvar[0]).exp()), 1)
            prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
            weights = []
            for eps in learner.eps:
                z = mean[0] + (0.5 * logvar[0]).exp() * eps
                logits = learner.vae(c).decode(z[None])[0]
                pixels = Bernoulli(logits=logits, validate_args=False)
                mean_of_x = logits if observation == "features" else logits.sigmoid()
                decoder = Independent(pixels if observation == "trained" else Normal(mean_of_x, 1.0), 1)
                weights.append(decoder.log_prob(x[i].flatten()) + prior.log_prob(z) - q.log_prob(z))
            expected = torch.stack(weights).logsumexp(0) - math.log(6)
            torch.testing.assert_close(found[i, c], expected)


def test_the_loss_is_each_class_s_own_elbo() -> None:
    learner = quick(GenerativeClassifier, STREAM).learner
    assert isinstance(learner, GenerativeClassifier)
    learner.enter(1, Phase("train", 1))
    batch = STREAM[1].train.batch(torch.tensor([0, 1, 2, 30, 31]))
    noise = learner.draw(5, generator(0))
    expected = 0.0
    for c in STREAM.spec.units[1]:
        mine = batch.y == c
        assert 0 < int(mine.sum()) < 5
        logits, mean, logvar = learner.vae(c)(batch.x[mine], noise["eps"][mine])
        expected += float((bernoulli_nll(logits, batch.x[mine]) + kl_standard_normal(mean, logvar)).mean().detach())
    assert float(learner.loss(batch, noise)["elbo"].detach()) == pytest.approx(expected, rel=1e-5)
    # A class without a sample in the batch adds nothing.
    alone = STREAM[1].train.batch(torch.tensor([0]))
    assert float(learner.loss(alone, learner.draw(1, generator(0)))["elbo"].detach()) > 0


def test_learning_a_task_leaves_all_other_classes_as_they_are() -> None:
    """To the bit, Adam's moments of the past tasks notwithstanding."""
    learner = classifier(STREAM.spec, hidden=(8,), z=3)
    snapshots = []
    original = learner.end_task

    def end_task(*args: object) -> None:
        snapshots.append([torch.cat([p.detach().flatten() for p in each.parameters()]) for each in learner.vaes])
        original(*args)  # type: ignore[arg-type]

    first = [torch.cat([p.detach().flatten() for p in each.parameters()]) for each in learner.vaes]
    learner.end_task = end_task  # type: ignore[method-assign]
    run = train(learner, STREAM, steps=20, batch_size=6, device="cpu")
    for t, (before, after) in enumerate(zip([first, *snapshots[:-1]], snapshots, strict=True)):
        moved = {c for c in range(6) if not torch.equal(before[c], after[c])}
        assert moved == set(STREAM.spec.units[t])
    assert run.accuracy.shape == (3, 3)


def test_an_update_gathers_batches() -> None:
    """The first of two batches moves nothing; with the second, the step follows the mean of both gradients."""
    learner = classifier(STREAM.spec, hidden=(8,), z=3, batches=2)
    for t in (0, 1):
        learner.enter(t, Phase("train", 4))
        learner.begin_phase(t, Phase("train", 4), STREAM[t].train, generator(0))
        parameters = [p for c in STREAM.spec.units[t] for p in learner.vae(c).parameters()]
        learner.opts = {"vaes": torch.optim.SGD(learner.vaes.parameters(), lr=0.1)}
        steps = []
        for s in range(2):
            batch = STREAM[t].train.batch(torch.arange(s, 48, 7))
            steps.append((batch, learner.draw(len(batch.y), generator(0, s))))
        before = [p.detach().clone() for p in learner.parameters()]
        gradients = [torch.autograd.grad(learner.loss(*step)["elbo"], parameters) for step in steps]
        expected = [p.detach() - 0.1 * (a + b) / 2 for p, a, b in zip(parameters, *gradients, strict=True)]
        learner.step(*steps[0])
        assert all(torch.equal(p, old) for p, old in zip(learner.parameters(), before, strict=True))
        learner.step(*steps[1])
        torch.testing.assert_close([p.detach() for p in parameters], expected)
        assert not bool(learner.old_gradient.any())


def test_gathering_passes_the_suite() -> None:
    class Gathering(GenerativeClassifier):
        @dataclass(frozen=True)
        class Config(GenerativeClassifier.Config):
            batches: int = 3

    for check in (check_trains, check_repeats, check_resumes, check_pure, check_frozen):
        check(Gathering, "class")


def test_it_learns_to_classify_what_it_never_saw_together() -> None:
    run = train("generative-classifier", STREAM, steps=150, batch_size=16, device="cpu", hidden=(16,), z=2, lr=5e-3)
    assert float(run.accuracy[-1].mean()) > 0.9


def test_samples_are_of_the_classes_asked_for() -> None:
    run = train("generative-classifier", STREAM, steps=150, batch_size=16, device="cpu", hidden=(16,), z=2, lr=5e-3)
    learner = run.learner
    assert isinstance(learner, GenerativeClassifier)
    classes = torch.arange(6).repeat(5)
    made = learner.sample(30, generator(0), classes)
    brightest = torch.stack([made.flatten(1)[:, c * 10 : (c + 1) * 10].mean(1) for c in range(6)], 1).argmax(1)
    assert float((brightest == classes).float().mean()) > 0.9  # the brightest part of a toy image tells its class
    of_task = learner.sample(30, generator(0), tasks=torch.full((30,), 1))
    guess = learner.predict(of_task).argmax(1)
    assert float(torch.isin(guess, torch.tensor(STREAM.spec.units[1])).float().mean()) > 0.9


def test_settings() -> None:
    for name in ("z", "samples", "batches"):
        with pytest.raises(ConfigError, match=f"{name}=0, expected at least 1"):
            classifier(STREAM.spec, **{name: 0})
    for scenario in ("task", "domain"):
        with pytest.raises(ConfigError, match=f"generative-classifier does not support the scenario '{scenario}'"):
            classifier(split(toy_data(), scenario, tasks=2).spec)


def test_only_what_has_changed_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are those of `predict`, and a VAE that is what it was is not asked again."""
    asked: list[int] = []
    whole = GenerativeClassifier.log_likelihood

    def counting(self: GenerativeClassifier, x: Tensor, classes: list[int] | None = None) -> Tensor:
        asked.extend(classes or [])
        return whole(self, x, classes)

    monkeypatch.setattr(GenerativeClassifier, "log_likelihood", counting)
    learner = classifier(STREAM.spec, hidden=(9,), z=3, samples=6, lr=0.05)
    train(learner, STREAM, steps=5, batch_size=4, device="cpu")
    # each class once by the test data of each task, and those of the first task also before it
    assert sorted(asked) == sorted([0, 1, 2, 3, 4, 5] * 3 + [0, 1])


def test_answers_are_those_of_now() -> None:
    """Whoever changes a weight, the likelihood's model or noise, or the inputs, gets other answers."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)  # of its own: it is written over
    learner = quick(GenerativeClassifier, stream).learner
    assert isinstance(learner, GenerativeClassifier)
    test = stream[0].test
    noise = torch.rand(test.x.shape, generator=generator(1)) * (255 if test.x.dtype == torch.uint8 else 1)
    changes: list[tuple[str, Callable[[], object]]] = [
        ("nothing", lambda: None),
        ("a weight", lambda: next(learner.vae(1).decoder.parameters()).data.add_(1)),
        ("the model", lambda: setattr(learner, "cfg", replace(learner.cfg, observation="gaussian"))),
        ("the noise", lambda: setattr(learner, "eps", torch.randn(50, learner.cfg.z, generator=generator(0)))),
        ("other inputs", lambda: setattr(test, "x", test.x.flip(0))),
        ("inputs written over", lambda: test.x.copy_(noise)),
    ]
    before = torch.zeros(len(test), 6)
    for what, change in changes:
        change()
        by_hand = torch.cat([learner.predict(batch.x) for batch in test.batches()])
        torch.testing.assert_close(torch.cat([*learner.answers(test)]), by_hand, msg=what)
        assert learner.evaluate(0, test) == float((by_hand.argmax(1) == test.y).double().mean())
        assert not torch.allclose(by_hand, before), what
        before = by_hand
