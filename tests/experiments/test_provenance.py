"""The code of a run is all that it executes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from clteach.experiments import jobs, provenance

FINETUNE = """
data.catalogue data.dataset data.own_data data.tasks errors learners.generator learners.learner learners.optim
learners.penalty methods.finetune metrics.generation metrics.judge models.frozen models.nets progress seeding storage
training.checkpoint training.loop training.run training.start
""".split()


def test_the_code_of_a_run_is_all_that_it_executes() -> None:
    """Fine-tuning stands on these modules and on no others; EWC and what it shares with others come on top."""
    visited = set(provenance.sources("clteach.training.loop", "clteach.methods.finetune"))
    assert visited == {f"clteach.{name}" for name in FINETUNE}
    assert set(provenance.sources("clteach.training.loop", "clteach.methods.ewc")) - visited == {
        "clteach.methods.ewc",
        "clteach.learners.fisher",
    }
    assert jobs.train.__module__ in visited  # the loop, wherever it stands


def test_a_module_of_the_package_that_cannot_be_read_is_no_unchanged_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError):
        provenance.sources("clteach.no_such_module")

    def unreadable(module: Any) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(provenance.inspect, "getsource", unreadable)
    with pytest.raises(OSError, match="source"):
        provenance.code("clteach.methods.finetune")
