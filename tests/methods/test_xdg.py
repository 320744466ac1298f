"""XdG: how many units are off, that gates silence them, and that they are saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.methods import build
from clteach.methods.xdg import SIXdG, XdG
from clteach.training.learner_checks import quick, toy_data
from clteach.training.run import load_learner

STREAM = split(toy_data(), "task", tasks=2)


def test_gates_are_a_fixed_share_different_for_every_task_and_layer() -> None:
    learner = build("xdg", split(toy_data(n_classes=8), "task", tasks=4).spec, hidden=(50, 50), share=0.85)
    gates = [learner.get_buffer(f"gates_{layer}") for layer in range(2)]
    for layer in gates:
        assert (layer == 0).sum(1).tolist() == [42] * 4  # floor(0.85 * 50)
        assert len({tuple(row.tolist()) for row in layer}) == 4
    assert not torch.equal(gates[0], gates[1])
    other = build("xdg", split(toy_data(n_classes=8), "task", tasks=4).spec, seed=1, hidden=(50, 50), share=0.85)
    assert not torch.equal(gates[0], other.get_buffer("gates_0"))


def test_forward_written_out() -> None:
    learner = quick(XdG, STREAM, hidden=(8, 6)).learner
    assert isinstance(learner, XdG)
    batch = STREAM[1].test.batch(torch.arange(3))
    h = batch.x.flatten(1)
    for layer, index in enumerate((1, 3)):
        h = torch.relu(learner.net[index](h)) * learner.get_buffer(f"gates_{layer}")[1]
    torch.testing.assert_close(learner.predict(batch.x, batch.task), learner.net[5](h))


def test_units_that_are_off_do_not_learn() -> None:
    stream = split(toy_data(), "task", tasks=1)
    fresh = build("xdg", stream.spec, hidden=(8,), share=0.5)
    trained = quick(XdG, stream, hidden=(8,), share=0.5).learner
    off = fresh.get_buffer("gates_0")[0] == 0
    before, after = fresh.get_parameter("net.1.weight"), trained.get_parameter("net.1.weight")
    assert torch.equal(before[off], after[off]) and not torch.equal(before[~off], after[~off])


@pytest.mark.parametrize("cls", [XdG, SIXdG])
def test_gates_are_saved_with_the_model(cls: type[XdG], tmp_path: Path) -> None:
    learner = quick(cls, STREAM).learner
    learner.get_buffer("gates_0").copy_(1 - learner.get_buffer("gates_0"))  # not what the seed would give
    loaded = load_learner(learner.save(tmp_path / "x.safetensors"))
    assert torch.equal(loaded.get_buffer("gates_0"), learner.get_buffer("gates_0"))


def test_errors() -> None:
    learner = build("xdg", STREAM.spec, hidden=(8,))
    with pytest.raises(ConfigError, match="needs the task of every sample"):
        learner.predict(torch.rand(2, 1, 8, 8))
    with pytest.raises(ConfigError, match="does not support the scenario 'class'"):
        build("xdg", split(toy_data(), "class", tasks=2).spec)
    with pytest.raises(ConfigError, match="share"):
        XdG.Config(share=1.0)
