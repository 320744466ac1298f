"""Tasks that fade into each other: how samples are drawn, and who can be trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clteach
from clteach.data.streams import faded, make_stream, split
from clteach.data.tasks import Batch, Fade
from clteach.errors import ConfigError
from clteach.learners.replay import Reservoir
from clteach.methods import METHODS
from clteach.methods.er import ER
from clteach.seeding import generator
from clteach.training.learner_checks import CHECKS, same_state, tiny, toy_data
from clteach.training.loop import train

DATA = toy_data(n_classes=6)
OPTIONS: dict[str, Any] = {"batch_size": 8, "device": "cpu"}


@pytest.mark.parametrize("fade", [0.2, 0.5, 1.0])
def test_the_shares_of_the_neighbours_are_what_is_written(fade: float) -> None:
    stream = faded(DATA, tasks=3, fade=fade)
    steps, batch = 40, 500
    draw = Fade(stream.around(1), batch, steps, fade, 0, torch.device("cpu"))
    task = torch.cat([part.task for part in stream.around(1)])
    found = np.array([[(task[draw(s)] == t).double().mean() for t in range(3)] for s in range(steps)])
    u = (np.arange(steps) + 0.5) / steps
    before, after = np.maximum(0, 0.5 - u / fade), np.maximum(0, 0.5 - (1 - u) / fade)
    expected = np.stack([before, 1 - before - after, after], 1)
    assert np.abs(found - expected).max() < 5 * 0.5 / np.sqrt(batch)
    assert (found[:, 0] > 0).sum() == (before > 0).sum() and (found[expected == 0] == 0).all()
    assert torch.equal(draw(7), Fade(stream.around(1), batch, steps, fade, 0, torch.device("cpu"))(7))


def test_the_first_and_the_last_task_have_one_neighbour() -> None:
    stream = faded(DATA, tasks=3)
    for t, shares in ((0, (0.0, 0.49)), (2, (0.49, 0.0))):
        draw = Fade(stream.around(t), 4, 100, 0.5, 0, torch.device("cpu"))
        assert draw.shares(0 if t else 99) == pytest.approx(shares) and draw.shares(99 if t else 0) == (0, 0)


def test_every_sample_of_a_task_comes_equally_often() -> None:
    stream = faded(DATA, tasks=3)
    draw = Fade(stream.around(1), len(stream[1].train), 10, 0.1, 0, torch.device("cpu"))  # no neighbour in the middle
    first = len(stream[0].train)
    assert sorted(draw(5).tolist()) == list(range(first, first + len(stream[1].train)))


def test_no_border_is_announced_to_the_classes_that_compete() -> None:
    cut = faded(DATA, tasks=3)
    assert cut.spec.active_units == "all" and cut.name == "faded-toy" and cut.fade == 0.5
    assert cut.fingerprint != faded(DATA, tasks=3, fade=0.4).fingerprint != split(DATA, tasks=3).fingerprint
    assert make_stream("faded-digits", fade=0.3, first=4, then=3).fade == 0.3
    for fade in (0.0, 1.1):
        with pytest.raises(ConfigError, match=r"expected a share in \(0, 1\]"):
            faded(DATA, fade=fade)


@pytest.mark.parametrize("name", METHODS)
def test_who_needs_a_border_says_so(name: str) -> None:
    cls = METHODS[name]
    stream = faded(DATA, cls.scenarios[0], tasks=3)
    if cls.needs_borders:
        with pytest.raises(ConfigError, match=f"{name} needs to know when a task ends.*er with a reservoir"):
            train(cls(stream.spec, tiny(cls)), stream, steps=2, **OPTIONS)
    else:
        assert train(cls(stream.spec, tiny(cls)), stream, steps=2, **OPTIONS).accuracy.isfinite().all()
        with pytest.raises(ConfigError, match="forgets Adam's moments at every border"):
            train(cls(stream.spec, tiny(cls, fresh_optimizer=True)), stream, steps=2, **OPTIONS)


def test_a_faded_run_is_killed_and_resumed(tmp_path: Path) -> None:
    stream = faded(DATA, tasks=3)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, text: str) -> None:
        if done == 15:
            raise Stop

    def run(**more: Any) -> clteach.Run:
        settings = {"hidden": (8,), "reservoir": 10, "steps": 10, "log_every": 5}
        return train("er", stream, **settings, **OPTIONS, **more)

    with pytest.raises(Stop):
        run(checkpoint=tmp_path / "c", checkpoint_every=3, progress=stop)
    resumed, whole = run(checkpoint=tmp_path / "c", checkpoint_every=3), run()
    assert same_state(resumed.learner, whole.learner) and resumed.losses == whole.losses


@pytest.mark.parametrize("scenario", ["class", "domain", "task"])
def test_a_learner_of_the_first_faded_tasks_goes_on(scenario: str) -> None:
    """The last task before the stop has faded into the next one, as in the whole stream."""
    stream = faded(DATA, scenario, tasks=3)
    settings: dict[str, Any] = {"hidden": (8,), "reservoir": 10, "steps": 10, **OPTIONS}
    first, whole = train("er", stream.upto(1), **settings), train("er", stream, **settings)
    second = train(first, stream.upto(2), first=1, steps=10, **OPTIONS)
    gone_on = train(second, stream, first=2, steps=10, **OPTIONS)
    assert same_state(gone_on.learner, whole.learner) and gone_on.losses == whole.losses
    assert torch.equal(gone_on.accuracy[2], whole.accuracy[2])


def test_a_learner_of_a_shorter_faded_stream_cannot_go_on() -> None:
    """Its last task faded into none."""
    run = train("finetune", faded(DATA, "domain", classes=[[0, 1], [2, 3]]), steps=4, **OPTIONS)
    with pytest.raises(ConfigError, match=r"fade into each other.*train it on stream\.upto\(2\) first"):
        train(run, faded(DATA, "domain", tasks=3), first=2, steps=4, **OPTIONS)


# ------------------------------------------------------------------------------------------------------- reservoir


def test_the_reservoir_is_what_a_loop_over_samples_keeps() -> None:
    memory, capacity, kept = Reservoir((2,), 7), 7, [None] * 7
    rng, seen = generator(0), 0
    for n in (5, 5, 1, 20, 20):
        x, u = torch.rand(n, 2, generator=rng), torch.rand(n, generator=rng)
        memory.add(Batch(x, torch.arange(seen, seen + n), torch.zeros(n, dtype=torch.int64)), u)
        for i in range(n):  # Vitter's algorithm R
            place = seen if seen < capacity else int(float(u[i].double()) * (seen + 1))
            if place < capacity:
                kept[place] = (seen, x[i].tolist())
            seen += 1
        found = [(int(y), row) for y, row in zip(memory.y, memory.x.tolist(), strict=True)]
        assert found[: min(seen, capacity)] == kept[: min(seen, capacity)] and found[capacity] == (0, [0, 0])
    assert int(memory.seen) == seen == 51


def test_every_sample_is_kept_with_the_same_probability() -> None:
    counts, rounds = torch.zeros(40), 2000
    for seed in range(rounds):
        memory = Reservoir((1,), 10)
        for start in (0, 20):
            y = torch.arange(start, start + 20)
            u = torch.rand(20, generator=generator(seed, start))
            memory.add(Batch(torch.zeros(20, 1), y, y), u)
        counts[memory.y[:10]] += 1
    # 10 of 40 are kept: a binomial count per sample, 500 ± 19
    assert (counts - rounds / 4).abs().max() < 4.5 * (rounds * 0.25 * 0.75) ** 0.5


class SmallReservoir(ER):
    name = "small-reservoir"

    def __init__(self, spec: Any, cfg: Any = None, seed: int = 0, net: Any = None) -> None:
        super().__init__(spec, ER.Config(hidden=(8,), reservoir=6) if cfg is None else cfg, seed, net)

    @classmethod
    def checked(cls, spec: Any, cfg: Any = None) -> Any:
        return super().checked(spec, ER.Config(**{**vars(cfg), "reservoir": 6}))


@pytest.mark.parametrize("check", CHECKS)
def test_er_with_a_reservoir_passes_the_suite(check: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "small-reservoir", SmallReservoir)
    for scenario in SmallReservoir.scenarios:
        check(SmallReservoir, scenario)


@pytest.mark.parametrize("name", ["a-gem", "icarl"])
def test_who_has_no_reservoir(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: reservoir=5"):
        clteach.build(name, split(DATA, tasks=3).spec, reservoir=5)
