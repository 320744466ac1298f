"""The training loop: batches, resume after a real kill, damaged checkpoints, saved runs."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach.data.streams import split
from clteach.data.tasks import Batch, Shuffle
from clteach.errors import CheckpointError, ClteachError, ConfigError
from clteach.learners.learner import Classifier, Losses, Noise, Phase
from clteach.learners.optim import adam, drop_idle_moments
from clteach.methods import METHODS, build, register
from clteach.seeding import derive, generator, seeded
from clteach.storage import load_tensors
from clteach.training import loop
from clteach.training.learner_checks import quick, same_state, tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run, load_learner

CPU = torch.device("cpu")


@pytest.mark.parametrize(("n", "batch_size"), [(10, 3), (10, 10), (3, 10), (1, 4), (7, 1)])
def test_shuffle_is_an_endless_stream_of_permutations(n: int, batch_size: int) -> None:
    batches = [Shuffle(n, batch_size, 5, CPU)(s) for s in range(2 * n)]
    assert all(len(b) == batch_size for b in batches)
    stream = torch.cat(batches)
    for epoch in stream.split(n):
        if len(epoch) == n:
            assert sorted(epoch.tolist()) == list(range(n))
    again = Shuffle(n, batch_size, 5, CPU)
    assert torch.equal(again(2 * n - 1), batches[-1]), "a batch must not depend on those drawn before"


def test_seeds_are_addresses() -> None:
    assert derive(0, "step", 1, 2) == derive(0, "step", 1, 2)
    addresses = {derive(s, *path) for s in range(3) for path in [("a", 1), ("a", 2), ("b", 1), ("a",), ("a", 1, 1)]}
    assert len(addresses) == 15
    before = torch.get_rng_state()
    with seeded(0, "net"):
        first = torch.nn.Linear(3, 3).weight
    with seeded(0, "net"):
        assert torch.equal(torch.nn.Linear(3, 3).weight, first)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.rand(1, generator=generator(1, "x")) == torch.rand(1, generator=generator(1, "x"))


def test_a_numpy_seed_is_the_same_seed() -> None:
    stream = split(toy_data(), "class", tasks=2)
    runs = [train("finetune", stream, steps=3, seed=seed, device="cpu", hidden=(8,)) for seed in (2, np.arange(3)[2])]
    assert runs[0].config == runs[1].config and same_state(runs[0].learner, runs[1].learner)
    with pytest.raises(ConfigError, match=r"seed=0\.5: expected a whole number"):
        train("finetune", stream, steps=3, seed=0.5)  # type: ignore[arg-type]


def test_finetuning_equals_a_bare_loop() -> None:
    """The whole machinery around it adds nothing to the arithmetic."""
    stream = split(toy_data(), "class", tasks=2)
    run = train(build("finetune", stream.spec, hidden=(8,)), stream, steps=6, batch_size=5, seed=3, device="cpu")
    bare = build("finetune", stream.spec, hidden=(8,))
    net = bare.get_submodule("net")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for t, n_active in enumerate((2, 4)):
        data = stream[t].train
        shuffle = Shuffle(len(data), 5, derive(3, "shuffle", t, 0), CPU)
        for s in range(6):
            index = shuffle(s)
            x = data.x[data.rows[index]].float() / 255
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x)[:, :n_active], data.y[index]).backward()
            optimizer.step()
    for p, q in zip(net.parameters(), run.learner.get_submodule("net").parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


class TwoPhases(Classifier):
    """A learner with two phases, learning-rate decay and a frozen first phase, to test the loop with."""

    name = "two-phases"
    summary = "for tests"

    def phases(self, t: int, steps: int) -> list[Phase]:
        return [Phase("warm", 3, lambda progress: 1 - progress), Phase("main", steps, fresh_optimizer=True)]

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        self.net[1].requires_grad_(phase.name == "main")

    def begin_phase(self, t: int, phase: Phase, data: Any, rng: torch.Generator) -> None:
        with torch.no_grad():  # a draw and a write: both must happen exactly once
            self.net[-1].bias += 0.01 * torch.randn(self.net[-1].bias.shape, generator=rng)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"jitter": torch.randn(n, generator=rng)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        x = batch.x + 0.01 * noise["jitter"].view(-1, 1, 1, 1)
        return {"current": self.cross_entropy(self.net(x), batch), "size": 1e-3 * self.net[-1].weight.square().sum()}


def test_phases_resume_and_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "two-phases", TwoPhases)
    stream = split(toy_data(), "class", tasks=2)
    reports: list[tuple[int, int, str]] = []
    options: dict[str, Any] = {"steps": 4, "batch_size": 5, "log_every": 2, "eval_every": 3, "device": "cpu"}

    def make() -> TwoPhases:
        return TwoPhases(stream.spec, tiny(TwoPhases))

    whole = train(make(), stream, progress=lambda *report: reports.append(report), **options)
    assert [(r["task"], r["phase"], r["step"]) for r in whole.losses[:4]] == [
        (0, "warm", 2),
        (0, "warm", 3),
        (0, "main", 2),
        (0, "main", 4),
    ]
    assert reports[-1][:2] == (14, 14) and [r["step"] for r in whole.curve] == [3, 6, 9, 12]
    assert set(whole.losses[0]) == {"task", "phase", "step", "current", "size"}
    for stop in range(1, 14):
        learner = make()
        calls = 0
        original = learner.step

        def step(batch: Batch, noise: Noise) -> Losses:
            nonlocal calls
            calls += 1
            if calls > stop:  # noqa: B023
                raise KeyboardInterrupt
            return original(batch, noise)  # noqa: B023

        learner.step = step  # type: ignore[method-assign]
        file = tmp_path / f"{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            train(learner, stream, checkpoint=file, checkpoint_every=2, **options)
        resumed = train(make(), stream, checkpoint=file, checkpoint_every=2, **options)
        assert same_state(whole.learner, resumed.learner), stop
        assert whole.losses == resumed.losses and whole.curve == resumed.curve, stop
        assert torch.equal(whole.accuracy, resumed.accuracy) and torch.equal(whole.initial, resumed.initial), stop


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


def test_kill_during_a_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """The process dies inside the write, after half of the bytes: the file on disk is the one before, and whole."""
    file = tmp_path / "checkpoint.safetensors"
    script = """
import os, signal, sys
from clteach import storage
import torch
storage.save_tensors(sys.argv[1], {"w": torch.arange(3.0)}, {})
def half(file):
    data = b"x" * 1000
    file.write(data[:500]); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
storage.write_atomic(sys.argv[1], half)
"""
    assert subprocess.run([sys.executable, "-c", script, str(file)]).returncode == -signal.SIGKILL
    tensors, _ = load_tensors(file)
    assert tensors["w"].tolist() == [0, 1, 2]


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


def test_run_save_load(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = quick(METHODS["ewc"], stream)
    loaded = Run.load(run.save(tmp_path / "run"))
    assert torch.equal(run.accuracy, loaded.accuracy) and run.config == loaded.config
    assert loaded.seconds == run.seconds and loaded.iterations_per_second == run.iterations_per_second > 0
    assert same_state(run.learner, loaded.learner)
    (tmp_path / "run" / "run.json").write_text('{"format": 1')
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        Run.load(tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not exist"):
        load_learner(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match=r"run\.json"):
        Run.load(tmp_path / "nowhere")


def test_a_saved_learner_with_foreign_content_is_refused(tmp_path: Path) -> None:
    from clteach.storage import save_tensors

    for learner in ({}, {"learner": {"name": "finetune"}}):
        with pytest.raises(CheckpointError, match="learner of this version"):
            load_learner(save_tensors(tmp_path / "x.safetensors", {"w": torch.zeros(1)}, learner))


def test_unwritable_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    stream = split(toy_data(), "class", tasks=2)
    with pytest.raises(ClteachError, match="cannot write"):
        train("finetune", stream, steps=2, checkpoint=tmp_path / "file" / "c.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"evaluate_on": "train"}, "evaluate_on"),
        ({"evaluate_on": "valid"}, "validation > 0"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"lam": 3}, "finetune has no setting 'lam'"),
        ({"hidden": (0,)}, "at least one unit"),
        ({"lr": 0.0}, "lr > 0"),
        ({"quality": True}, "finetune is not judged by its samples"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train("finetune", split(toy_data(), tasks=2), **{"device": "cpu", **arguments})


def test_a_learner_of_another_stream_is_refused() -> None:
    learner = build("finetune", split(toy_data(), tasks=4).spec)
    with pytest.raises(ConfigError, match=r"stream\.spec"):
        train(learner, split(toy_data(), tasks=2), device="cpu")
    with pytest.raises(ConfigError, match="already built"):
        train(learner, split(toy_data(), tasks=4), device="cpu", lr=0.1)


def test_evaluation_on_held_out_training_data() -> None:
    stream = split(toy_data(), "class", tasks=2, validation=0.25)
    run = train("finetune", stream, steps=30, hidden=(8,), device="cpu", evaluate_on="valid")
    assert run.config["evaluate_on"] == "valid"
    assert stream[1].valid is not None
    assert float(run.accuracy[1, 1]) == run.learner.evaluate(1, stream[1].valid)


def test_the_thread_count_is_part_of_a_checkpoint_and_restored(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    file = tmp_path / "c.safetensors"
    threads = torch.get_num_threads()
    train("finetune", stream, steps=2, batch_size=5, hidden=(8,), checkpoint=file, device="cpu")
    _, meta = load_tensors(file)
    assert meta["threads"] == threads == torch.get_num_threads()


def test_many_seeds_at_once_equal_separate_runs() -> None:
    """Stacked parameters, vmap over the pure loss: gradients equal those of each seed alone."""
    from torch.func import functional_call, grad, stack_module_state, vmap

    stream = split(toy_data(), "class", tasks=2)
    learners = [build("generative-replay", stream.spec, hidden=(8,), z=3, seed=s) for s in range(3)]
    phase = learners[0].phases(1, 1)[0]
    for learner in learners:
        learner.enter(1, phase)
        learner.begin_phase(1, phase, stream[1].train, generator(0))
    batch = stream[1].train.batch(torch.arange(6))
    noise = [learner.draw(6, generator(s)) for s, learner in enumerate(learners)]
    stacked = {k: torch.stack([n[k] for n in noise]) for k in noise[0]}
    params, buffers = stack_module_state(learners)

    def loss(
        theta: dict[str, torch.Tensor], state: dict[str, torch.Tensor], eps: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        terms = functional_call(learners[0], (theta, state), (batch, eps))
        return torch.stack(list(terms.values())).sum()

    gradients = vmap(grad(loss))(params, buffers, stacked)
    for i, learner in enumerate(learners):
        torch.stack(list(learner.loss(batch, noise[i]).values())).sum().backward()
        for name, p in learner.named_parameters():
            if p.requires_grad:
                torch.testing.assert_close(gradients[name][i], p.grad, rtol=1e-5, atol=1e-7)


def test_register_refuses_nothing_and_names_what_is_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown method 'ewcc'"):
        build("ewcc", split(toy_data(), tasks=2).spec)
    assert register(METHODS["ewc"]) is METHODS["ewc"]


def test_no_pickle_is_ever_loaded() -> None:
    """No module of the package calls torch.load or pickle (safetensors and JSON hold everything)."""
    import clteach

    for path in Path(clteach.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert "torch.load(" not in text and "import pickle" not in text and "allow_pickle=True" not in text, path


def test_saved_files_are_plain(tmp_path: Path) -> None:
    run = quick(METHODS["finetune"], split(toy_data(), tasks=2))
    folder = run.save(tmp_path / "run")
    assert sorted(p.name for p in folder.iterdir()) == ["learner.safetensors", "run.json"]
    assert json.loads((folder / "run.json").read_text())["config"]["name"] == "finetune"


def test_compiled_steps_give_the_same_result() -> None:
    """The loss can be traced whole, without a graph break. (Code generation is the compiler's business: no C++ here.)"""
    stream = split(toy_data(), "class", tasks=2)
    options: dict[str, Any] = {"steps": 3, "batch_size": 5, "hidden": (8,), "z": 3, "device": "cpu"}
    plain = train("generative-replay", stream, **options)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations
        compiled = train("generative-replay", stream, compile="aot_eager", **options)
    for p, q in zip(plain.learner.parameters(), compiled.learner.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert "loss" not in vars(compiled.learner), "the learner is left as it was"


def denormals(run: Run) -> int:
    """How many of the moments of all optimisers are denormal numbers."""
    moments = [v for opt in run.learner.opts.values() for state in opt.state.values() for v in state.values()]
    smallest_normal = torch.finfo(torch.float32).tiny
    return sum(int(((v != 0) & (v.abs() < smallest_normal)).sum()) for v in moments)


@pytest.mark.parametrize("name", ["finetune", "generative-replay"])
def test_dropping_idle_moments_changes_no_weight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel that is black from the second task on leaves its weights without a gradient."""
    data = toy_data(n=80)
    data.x_train[data.y_train >= 2, ..., 0] = 0
    stream = split(data, "task", tasks=2)
    options: dict[str, Any] = {
        "steps": 1000,
        "batch_size": 8,
        "device": "cpu",
        **dataclasses.asdict(tiny(METHODS[name])),
    }
    dropped = train(name, stream, **options)
    monkeypatch.setattr(loop, "drop_idle_moments", lambda optimizer: None)
    kept = train(name, stream, **options)
    assert denormals(kept) > 0 == denormals(dropped)
    assert same_state(kept.learner, dropped.learner) and kept.losses == dropped.losses


def test_only_idle_moments_are_dropped() -> None:
    p = torch.nn.Parameter(torch.zeros(4))
    for optimizer in (adam([p], 0.1), torch.optim.SGD([p], 0.1, momentum=0.9)):
        p.grad = torch.ones(4)
        optimizer.step()
        state = optimizer.state[p]
        if "exp_avg" in state:
            state["exp_avg"].copy_(torch.tensor([1e-29, -1e-29, -1e-31, 1e-40]))
            state["exp_avg_sq"].copy_(torch.tensor([1e-33, 1.0, 1e-35, 1e-40]))
        before = {k: v.clone() for k, v in state.items()}
        drop_idle_moments(optimizer)
        for k, v in optimizer.state[p].items():
            expected = before[k] * torch.tensor([1.0, 1.0, 0.0, 0.0]) if k.startswith("exp_avg") else before[k]
            assert torch.equal(v, expected), k
