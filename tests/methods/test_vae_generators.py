"""The VAE baselines and the hard partition: their losses written out, and the limits in which they are the same."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from clteach.data.streams import split
from clteach.data.tasks import Data, Stream
from clteach.learners.learner import Phase
from clteach.methods import METHODS
from clteach.methods.vae_generators import FinetunedVAE, JointVAE, LatentPartition, ReplayVAE, VAEGenerator
from clteach.metrics.generation import frechet_distance, precision_recall
from clteach.metrics.judge import feature_classifier, features
from clteach.models.vae import bernoulli_nll, kl_standard_normal
from clteach.seeding import generator
from clteach.training.learner_checks import quick, tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run


def ready(cls: type[VAEGenerator], t: int, **settings: Any) -> tuple[VAEGenerator, Stream]:
    """A tiny learner about to learn task t, whose old decoder differs from the new one."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = cls(stream.spec, tiny(cls, **settings))
    learner.enter(t, Phase("train", 5))
    learner.begin_phase(t, Phase("train", 5), stream[t].train, generator(0))
    with torch.no_grad():
        for p in (*learner.encoder.parameters(), *learner.decoder.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=generator(1, p.numel()))
    return learner, stream


def test_finetuning_minimises_the_negative_elbo() -> None:
    learner, stream = ready(FinetunedVAE, 2)
    batch, noise = stream[2].train.batch(torch.arange(5)), learner.draw(5, generator(0))
    assert noise["eps"].shape == (5, 3) and len(noise["z"]) == 0
    code = learner.codes[2].expand(5, 4)
    mean, logvar = learner.encoder(torch.cat([batch.x.flatten(1), code], 1)).chunk(2, 1)
    z = mean + (logvar / 2).exp() * noise["eps"]
    logits = learner.decoder(torch.cat([z, code], 1))
    expected = (bernoulli_nll(logits, batch.x) + kl_standard_normal(mean, logvar)).mean()
    losses = learner.loss(batch, noise)
    assert set(losses) == {"current"}
    torch.testing.assert_close(losses["current"], expected)


@pytest.mark.parametrize("cls", [ReplayVAE, LatentPartition])
def test_replay_counts_every_task_alike(cls: type[VAEGenerator]) -> None:
    learner, stream = ready(cls, 2)
    batch, noise = stream[2].train.batch(torch.arange(4)), learner.draw(4, generator(0))
    losses = learner.loss(batch, noise)
    past = torch.tensor([0, 1, 0, 1])
    assert learner.old_decoder is not None
    with torch.no_grad():
        dreams = learner.old_decoder(learner.with_task(noise["z"], past)).sigmoid().view(4, 1, 8, 8)
        current = learner.elbo_loss(batch.x, batch.task, noise["eps"][:4]).mean() / 3
        replay = learner.elbo_loss(dreams, past, noise["eps"][4:]).mean() * 2 / 3
    torch.testing.assert_close(losses["current"].detach(), current)
    torch.testing.assert_close(losses["replay"].detach(), replay)


def test_the_first_task_is_the_same_for_all() -> None:
    stream = split(toy_data(), "class", classes=[[0, 1, 2, 3]])
    runs = [quick(cls, stream, steps=6).learner for cls in (FinetunedVAE, ReplayVAE, JointVAE)]
    for key, value in runs[0].named_parameters():
        assert all(torch.equal(value, run.get_parameter(key)) for run in runs[1:])


def test_encoder_and_decoder_are_told_the_task() -> None:
    learner, stream = ready(JointVAE, 2)
    one, other = (learner.sample(4, generator(0), tasks=torch.full((4,), t)) for t in (0, 1))
    assert not torch.equal(one, other)
    x = stream[0].train.batch(torch.arange(4)).x
    (one, _), (other, _) = (learner.encode(x, torch.full((4,), t)) for t in (0, 1))
    assert not torch.equal(one, other)


def test_a_task_uses_its_own_band_alone() -> None:
    learner, stream = ready(LatentPartition, 1)
    assert learner.z == 9
    x = stream[1].train.batch(torch.arange(5)).x
    task = torch.ones(5, dtype=torch.int64)
    mean, logvar = learner.encode(x, task)
    others = torch.tensor([0, 1, 2, 6, 7, 8])
    assert mean[:, others].eq(0).all() and logvar[:, others].eq(0).all()  # the prior: no KL
    assert mean[:, 3:6].ne(0).all()
    z = torch.randn(5, 9, generator=generator(0))
    changed = z.clone()
    changed[:, others] += 1
    assert torch.equal(learner.with_task(z, task), learner.with_task(changed, task))
    assert learner.with_task(z, task)[:, others].eq(0).all()
    # Nothing is shared: what the encoder says about the other bands gets no gradient.
    learner.elbo_loss(x, task, z).sum().backward()
    last = learner.encoder[-1].weight.grad
    assert last.view(2, 3, 3, -1)[:, [0, 2]].eq(0).all() and last.view(2, 3, 3, -1)[:, 1].ne(0).any()


def test_judged_in_the_features_of_a_lenet(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    stream = split(toy_data(), "class", tasks=2)
    run = train("vae-finetune", stream, steps=2, batch_size=5, device="cpu", hidden=(8,), decoder_hidden=(8,), z=3)
    assert run.config["cfg"]["features"] == "lenet"
    net, test = feature_classifier(stream), stream[1].test
    real = test.batch(torch.arange(len(test))).x
    dreamed = run.learner.sample(len(test), generator(0, "evaluate", 1), tasks=torch.ones(len(test), dtype=torch.int64))  # type: ignore[operator]
    expected = frechet_distance(features(net, real), features(net, dreamed))
    assert float(run.accuracy[1, 1]) == pytest.approx(expected, rel=1e-6)
    measures = run.learner.quality(1, test)  # type: ignore[operator]
    assert measures["fid"] == pytest.approx(expected, rel=1e-6)
    assert set(measures) == {"fid", "inception_score", "precision", "recall"}


@pytest.mark.parametrize("space", ["lenet", "inputs"])
def test_matrices_of_all_measures_against_direct_calls(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLTEACH_DATA", str(tmp_path))
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    options = {"steps": 2, "batch_size": 5, "device": "cpu", "quality": True}
    learner, after = ReplayVAE(stream.spec, tiny(ReplayVAE, features=space)), []
    end_task = learner.end_task

    def end_and_keep(t: int, data: Data, rng: torch.Generator) -> None:
        end_task(t, data, rng)
        after.append(copy.deepcopy(learner))

    learner.end_task = end_and_keep  # type: ignore[method-assign]
    run = train(learner, stream, **options)  # type: ignore[arg-type]
    assert set(run.quality) == {"fid", "precision", "recall"} | ({"inception_score"} if space == "lenet" else set())
    for t, then in enumerate(after):
        for i, task in enumerate(stream):
            found = {measure: float(matrix[t, i]) for measure, matrix in run.quality.items()}
            if i > t:
                assert all(math.isnan(value) for value in found.values())
                continue
            real = task.test.batch(torch.arange(len(task.test))).x
            asked = torch.full((len(real),), i)
            x, y = (
                then.features(images)
                for images in (real, then.sample(len(real), generator(0, "evaluate", i), tasks=asked))
            )
            both = precision_recall(x, y)
            assert found["fid"] == pytest.approx(frechet_distance(x, y)) == float(run.accuracy[t, i])
            assert (found["precision"], found["recall"]) == pytest.approx((both.precision, both.recall))
    # An interrupted run ends with the same matrices, a saved one brings them back.
    stopped = ReplayVAE(stream.spec, tiny(ReplayVAE, features=space))
    begin_phase = stopped.begin_phase

    def stop_at_the_last(t: int, *rest: Any) -> None:
        if t == 2:
            raise KeyboardInterrupt
        begin_phase(t, *rest)

    stopped.begin_phase = stop_at_the_last  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        train(stopped, stream, checkpoint=tmp_path / "own", **options)  # type: ignore[arg-type]
    again = ReplayVAE(stream.spec, tiny(ReplayVAE, features=space))
    resumed = train(again, stream, checkpoint=tmp_path / "own", **options)  # type: ignore[arg-type]
    loaded = Run.load(resumed.save(tmp_path / "run"))
    for measure, matrix in run.quality.items():
        for other in (resumed, loaded):
            torch.testing.assert_close(other.quality[measure], matrix, rtol=0, atol=0, equal_nan=True)


def test_replay_keeps_what_finetuning_forgets() -> None:
    stream = split(toy_data(n=40), "class", tasks=2)
    options = {
        "steps": 250, "batch_size": 32, "lr": 5e-3, "hidden": (32,), "decoder_hidden": (32,), "z": 4, "features": "inputs",
        "device": "cpu",
    }  # fmt: skip
    fid = {name: float(train(name, stream, **options).accuracy[1, 0]) for name in ("vae-finetune", "vae-replay")}
    assert fid["vae-replay"] < 0.7 * fid["vae-finetune"]


def test_pure_generators_are_measured_by_fid() -> None:
    for name in ("vae-finetune", "vae-replay", "vae-joint", "latent-partition", "multiband-vae"):
        assert METHODS[name].measure == "fid" and METHODS[name].scenarios == ("class",)
