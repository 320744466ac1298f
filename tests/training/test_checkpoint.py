"""Checkpoints: resume after a real kill, damaged and foreign files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import CheckpointError, ClteachError
from clteach.methods import build
from clteach.storage import load_tensors
from clteach.training.learner_checks import same_state, toy_data
from clteach.training.loop import train
from clteach.training.run import Run

KILL = """
import sys, torch
from clteach.training.learner_checks import toy_data, tiny
from clteach.methods import METHODS
from clteach.data.streams import split
from clteach.training.loop import train
torch.set_num_threads(1)
name, file, out = sys.argv[1:]
stream = split(toy_data(n=40), "class", tasks=2)
print("start", flush=True)
run = train(METHODS[name](stream.spec, tiny(METHODS[name])), stream, steps=60, batch_size=16, device="cpu",
            checkpoint=file or None, checkpoint_every=1, log_every=7)
run.save(out)
"""


@pytest.mark.timeout(900)  # it starts several processes, each of which imports torch
@pytest.mark.parametrize("name", ["finetune", "ewc", "generative-replay"])
def test_kill_minus_nine_and_resume_is_bit_identical(name: str, tmp_path: Path) -> None:
    """Really killed, at random moments: checkpoints are written after every step, so many kills hit a save."""

    def start(file: str, out: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", KILL, name, file, str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    reference = start("", tmp_path / "reference")
    assert reference.wait() == 0
    dice = random.Random(name)
    file = tmp_path / "checkpoint.safetensors"
    kills = 0
    while True:
        process = start(str(file), tmp_path / "resumed")
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(timeout=dice.uniform(0.05, 0.5) if kills < 3 else 300)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        finally:
            process.stdout.close()
        assert process.returncode == 0
        break
    if reference.stdout is not None:
        reference.stdout.close()
    assert kills > 0
    whole, resumed = Run.load(tmp_path / "reference"), Run.load(tmp_path / "resumed")
    assert same_state(whole.learner, resumed.learner)
    assert torch.equal(whole.accuracy, resumed.accuracy)
    assert whole.losses == resumed.losses


def test_a_finished_checkpoint_is_returned_without_training(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    file = tmp_path / "c.safetensors"
    first = train("finetune", stream, steps=3, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    start = time.perf_counter()
    learner = build("finetune", stream.spec, hidden=(8,))
    learner.step = None  # type: ignore[assignment]  # would fail if called
    again = train(learner, stream, steps=3, batch_size=5, checkpoint=file, device="cpu")
    assert same_state(first.learner, again.learner) and torch.equal(first.accuracy, again.accuracy)
    assert again.seconds == first.seconds and time.perf_counter() - start < 5


@pytest.mark.parametrize("damage", ["truncate", "flip the header", "empty", "html", "foreign"])
def test_damaged_checkpoints_get_one_clear_error(damage: str, tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    file = tmp_path / "c.safetensors"
    train("finetune", stream, steps=2, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    content = file.read_bytes()
    if damage == "foreign":
        import safetensors.torch

        content = safetensors.torch.save({"w": torch.zeros(2)})
    file.write_bytes(
        {
            "truncate": content[: len(content) // 2],
            "flip the header": bytes([content[0] ^ 255]) + content[1:],
            "empty": b"",
            "html": b"<!DOCTYPE html><html></html>",
            "foreign": content,
        }[damage]
    )
    with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged or was not written by clteach") as info:
        train("finetune", stream, steps=2, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    assert "Delete it" in str(info.value)


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    file = tmp_path / "c.safetensors"
    train("finetune", stream, steps=2, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    with pytest.raises(CheckpointError, match="steps was 2, is 3"):
        train("finetune", stream, steps=3, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    file.unlink()

    def net(shape: tuple[int, ...], n_out: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n_out))

    train("finetune", stream, steps=2, batch_size=5, net=net, checkpoint=file, device="cpu")
    with pytest.raises(CheckpointError, match=r"another experiment \(net was '.*net', is None\)"):
        train("finetune", stream, steps=2, batch_size=5, checkpoint=file, device="cpu")


def test_unwritable_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = split(toy_data(), "class", tasks=2)
    with pytest.raises(ClteachError, match="cannot write"):
        train("finetune", stream, steps=2, checkpoint=tmp_path / "file" / "c.safetensors", device="cpu")


def test_the_thread_count_is_part_of_a_checkpoint_and_restored(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    file = tmp_path / "c.safetensors"
    threads = torch.get_num_threads()
    train("finetune", stream, steps=2, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    _, meta = load_tensors(file)
    assert meta["threads"] == threads == torch.get_num_threads()
