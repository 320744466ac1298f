"""The fingerprint of a run's code: it changes with each thing that a result depends on, and with nothing else."""

from __future__ import annotations

import linecache
import logging
import subprocess
import sys
import textwrap
import threading
from argparse import Namespace
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import clteach
from clteach.data.extractors import EXTRACTORS
from clteach.errors import CheckpointError
from clteach.experiments import jobs
from clteach.experiments.jobs import Job, run_jobs
from clteach.methods import METHODS
from clteach.training import code as fingerprints
from clteach.training.code import code, sources
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train

FINETUNE = """
data.catalogue data.dataset data.extractors data.folders data.inputs data.items data.labels data.own_data data.raw data.tasks
errors learners.generator learners.learner learners.optim learners.penalty methods.finetune metrics.generation metrics.judge
models.frozen models.nets progress seeding settings storage training.checkpoint training.code training.going_on
training.graphs training.loop training.run training.start version
""".split()


def test_the_code_of_a_run_is_all_that_it_executes() -> None:
    """Fine-tuning stands on these modules and on no others; EWC and what it shares with others come on top."""
    visited = set(sources("clteach.training.loop", METHODS["finetune"]))
    assert visited == {f"clteach.{name}" for name in FINETUNE}
    assert set(sources("clteach.training.loop", METHODS["ewc"])) - visited == {
        "clteach.methods.ewc",
        "clteach.learners.fisher",
    }
    assert jobs.train.__module__ in visited  # the loop, wherever it stands


def test_a_module_of_the_package_that_cannot_be_read_is_no_unchanged_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError):
        code("clteach.no_such_module")

    def unreadable(module: Any) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(fingerprints.inspect, "getsource", unreadable)
    with pytest.raises(OSError, match="source of clteach"):
        code(METHODS["finetune"])


def test_the_version_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = code(METHODS["finetune"])
    assert code(METHODS["finetune"]) == before
    monkeypatch.setattr(fingerprints, "__version__", "0.0.0")
    assert code(METHODS["finetune"]) != before


SCRIPT = """
import sys, clteach
import helper
from package import part
from clteach.training.code import code

FACTOR = {factor}
TABLE = {{"a": [1, 2], "b": {table}}}

def scale(value):
    return {scale} * value

class Base(clteach.Classifier):
    @property
    def strength(self):
        return {strength}

@clteach.register
class Mine(Base):
    name, summary = "mine", "mine"
    share = {share}

    class Config(clteach.Classifier.Config):
        extra: float = {default}

    def loss(self, batch, noise):
        return {{k: FACTOR * scale(v) * TABLE["b"] * self.share for k, v in super().loss(batch, noise).items()}}

print(code(Mine))
"""
PARTS = {"factor": "1.0", "table": "3", "scale": "2", "share": "0.5", "strength": "1", "default": "0.1"}


def printed(folder: Path, script: str, how: str = "file") -> str:
    (folder / "script.py").write_text(script, encoding="utf-8")
    words = {"file": ["script.py"], "stdin": ["-"], "-c": ["-c", script]}[how]
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "package" / "part.py").write_text("from . import deeper\nA = 1\n", encoding="utf-8")
    (tmp_path / "package" / "deeper.py").write_text("B = 1\n", encoding="utf-8")
    (tmp_path / "helper.py").write_text("def f(): return 1\n", encoding="utf-8")
    return tmp_path


def test_every_part_of_a_script_changes_it(folder: Path) -> None:
    """In one process for all versions, each executed as a script would be: importing torch takes seconds."""
    runner = textwrap.dedent(
        """
        import importlib, linecache, sys
        from pathlib import Path
        sys.path.insert(0, ".")
        for path in sys.argv[1:]:
            for name in ("helper", "package", "package.part", "package.deeper"):
                sys.modules.pop(name, None)
            importlib.invalidate_caches()
            linecache.clearcache()
            module = sys.modules["__main__"]
            vars(module)["__file__"] = path
            text = Path(path).read_text(encoding="utf-8")
            if text.startswith("#"):
                first = text.partition("\\n")[0].split()
                Path(first[1]).write_text(" ".join(first[2:]).replace("|", "\\n") + "\\n", encoding="utf-8")
            exec(compile(text, path, "exec"), vars(module))
        """
    )
    versions = {"as it is": SCRIPT.format(**PARTS)}
    for part in PARTS:
        versions[part] = SCRIPT.format(**{**PARTS, part: "7"})
    versions["helper"] = "# helper.py def f(): return 2\n" + SCRIPT.format(**PARTS)
    versions["a module of a module"] = "# package/deeper.py B = 2\n" + SCRIPT.format(**PARTS)
    names = []
    for i, (_, text) in enumerate(versions.items()):
        (folder / f"v{i}.py").write_text(text, encoding="utf-8")
        names.append(f"v{i}.py")
    (folder / "runner.py").write_text(runner, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "runner.py", *names], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(versions, done.stdout.split(), strict=True))
    assert "None" not in found.values()
    assert len(set(found.values())) == len(versions), found


def test_a_script_and_standard_input(folder: Path) -> None:
    script = SCRIPT.format(**PARTS)
    first = printed(folder, script)
    assert first != "None" and printed(folder, script) == first  # the same in another process
    if sys.version_info < (3, 13):  # newer ones keep what they read
        assert printed(folder, script, "stdin") == "None"
        assert printed(folder, script, "-c") == "None"


def make(factor: float) -> type[clteach.Learner]:
    class Mine(clteach.Classifier):
        name, summary = "mine", "mine"

        def loss(self, batch: Any, noise: Any) -> Any:
            return {k: factor * v for k, v in super().loss(batch, noise).items()}

    return Mine


def test_what_a_function_closes_over_is_part_of_it() -> None:
    assert code(make(1.0)) == code(make(1.0)) != code(make(0.0))
    tensor = torch.zeros(3)

    def reads() -> torch.Tensor:
        return tensor

    before = code(reads)
    tensor[1] = 1.0
    assert code(reads) != before


def maker(shape: tuple[int, ...], n_out: int, slope: float = 0.0, act: Any = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.LeakyReLU(slope), act(), nn.Linear(4, n_out))


@dataclass
class Settings:
    slope: float = 0.0
    layers: dict[str, Any] = field(default_factory=dict)


class Slotted:
    __slots__ = ("slope",)

    def __init__(self, slope: float) -> None:
        self.slope = slope


class Factory:
    """It names itself, and holds what no file can hold."""

    def __init__(self, slope: float) -> None:
        self.slope, self.me, self.lock, self.log = slope, self, threading.Lock(), logging.getLogger(__name__)

    def make(self, shape: tuple[int, ...], n_out: int) -> nn.Module:
        return maker(shape, n_out, self.slope)

    __call__ = make


def reading(thing: Any) -> Any:
    return lambda shape, n_out: maker(shape, n_out, thing)


OBJECTS: dict[str, tuple[Any, Any]] = {
    "the arguments of a partial": (partial(maker, slope=0.1), partial(maker, slope=0.2)),
    "a class of torch's": (partial(maker, act=nn.ReLU), partial(maker, act=nn.Tanh)),
    "a function of torch's": (partial(maker, act=torch.relu), partial(maker, act=torch.tanh)),
    "a function of NumPy's": (reading(np.tanh), reading(np.exp)),
    "the object of a bound method": (Factory(0.1).make, Factory(0.2).make),
    "an object that is called": (Factory(0.1), Factory(0.2)),
    "the function of a partial": (partial(reading(1)), partial(reading(2))),
    "a cached function": (cache(reading(1)), cache(reading(2))),
    "a wrapped function": (torch.no_grad()(reading(1)), torch.no_grad()(reading(2))),
    "a namespace": (reading(Namespace(slope=0.1)), reading(Namespace(slope=0.2))),
    "a dataclass": (reading(Settings(0.1)), reading(Settings(0.2))),
    "deep within": (reading([Settings(0, {"a": Slotted(1)})]), reading([Settings(0, {"a": Slotted(2)})])),
    "the settings of a method": (reading(METHODS["ewc"].Config(lr=0.1)), reading(METHODS["ewc"].Config(lr=0.2))),
    "a stream": (reading(clteach.split(toy_data(), tasks=2)), reading(clteach.split(toy_data(), tasks=4))),
    "the settings of a layer": (reading(nn.Dropout(0.1)), reading(nn.Dropout(0.2))),
    "numbers in two bytes": (reading(torch.zeros(2).bfloat16()), reading(torch.ones(2).bfloat16())),
    "functions of one name": (reading([reading(1), reading(2)]), reading([reading(1), reading(3)])),
}


@pytest.mark.parametrize("what", OBJECTS)
def test_what_objects_hold_is_part_of_it(what: str) -> None:
    one, other = map(code, OBJECTS[what])
    assert one is not None and one != other


def test_what_changes_by_itself_is_no_part_of_it() -> None:
    """What a library keeps for itself, and an attribute that is called like a global of the user's."""
    log = logging.getLogger("of this test")
    before = code(reading(log))
    log.setLevel("ERROR")
    assert code(reading(log)) == before is not None
    run = train("finetune", clteach.split(toy_data(), tasks=2), steps=1, hidden=(4,))
    before = code(reading(run))
    run.seconds[0] += 1
    assert code(reading(run)) == before
    next(run.learner.parameters()).data += 1
    assert code(reading(run)) != before
    space: dict[str, Any] = {"__name__": "__main__", "history": []}
    source = "def reads(thing):\n    return thing.history\n"
    exec(compile(source, "<a cell>", "exec"), space)
    linecache.cache["<a cell>"] = len(source), None, source.splitlines(keepends=True), "<a cell>"
    before = code(space["reads"])
    space["history"].append(1)
    assert code(space["reads"]) == before is not None


def test_objects_that_cannot_be_read_count_as_unknown() -> None:
    class Sealed:
        def __getstate__(self) -> Any:
            raise RuntimeError("not now")

    assert code(reading(Sealed())) is None and code(reading(nn.LazyLinear(2))) is None
    deep: list[Any] = []
    for _ in range(3000):
        deep = [deep]
    assert code(reading(deep)) is None


def test_objects_are_the_same_in_another_process(folder: Path) -> None:
    script = """
        from argparse import Namespace
        from dataclasses import dataclass
        from functools import partial
        from pathlib import Path
        from clteach.training.code import code

        @dataclass
        class Settings:
            names: set
            where: Path = Path("here")

        def maker(shape, n_out, settings, act):
            return settings

        names = {str(i) for i in range(20)} | {lambda: 1, lambda: 2}
        print(code(partial(maker, settings=Settings(names), act=Namespace(f=min, g=lambda: 3))))
        """
    first = printed(folder, textwrap.dedent(script))
    assert first != "None" and printed(folder, textwrap.dedent(script)) == first


def test_a_checkpoint_belongs_to_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream, file = clteach.split(toy_data(), "task", tasks=2), tmp_path / "mine.safetensors"
    monkeypatch.setitem(METHODS, "mine", make(1.0))
    first = train("mine", stream, steps=2, hidden=(4,), checkpoint=file)
    again = train("mine", stream, steps=2, hidden=(4,), checkpoint=file)
    assert torch.equal(first.accuracy, again.accuracy)
    monkeypatch.setitem(METHODS, "mine", make(0.0))
    with pytest.raises(CheckpointError, match=r"cannot be resumed: the code of mine.* has changed.*Delete it"):
        train("mine", stream, steps=2, hidden=(4,), checkpoint=file)
    # the network of one's own is code as well
    file.unlink()

    def net(shape: tuple[int, ...], n_out: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n_out))

    train("finetune", stream, steps=2, net=net, checkpoint=file)
    other = lambda shape, n_out: net(shape, n_out)  # noqa: E731
    with pytest.raises(CheckpointError):
        train("finetune", stream, steps=2, net=other, checkpoint=file)
    file.unlink()
    train("finetune", stream, steps=2, net=partial(maker, slope=0.01), checkpoint=file)
    train("finetune", stream, steps=2, net=partial(maker, slope=0.01), checkpoint=file)
    with pytest.raises(CheckpointError, match="has changed since"):
        train("finetune", stream, steps=2, net=partial(maker, slope=5.0), checkpoint=file)


def test_without_a_source_nothing_is_read_back_or_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space: dict[str, Any] = {"__name__": "__main__", "clteach": clteach}
    exec("class Mine(clteach.Classifier):\n    name, summary = 'mine', 'mine'\n    def f(self): return 1\n", space)
    monkeypatch.setattr(sys.modules["__main__"], "Mine", space["Mine"], raising=False)
    monkeypatch.setitem(METHODS, "mine", space["Mine"])
    assert code(space["Mine"]) is None
    job = Job("mine", settings={"hidden": (4,)}, steps=1)
    first, second = (run_jobs([job], tmp_path, n_jobs=1)[0] for _ in range(2))
    assert not first["read_back"] and not second["read_back"]
    assert "the source of Mine cannot be found" in first["notes"][0]
    stream, file = clteach.split(toy_data(), "task", tasks=2), tmp_path / "mine.safetensors"
    train("mine", stream, steps=1, hidden=(4,), checkpoint=file)
    with pytest.raises(CheckpointError, match="the source of Mine cannot be found"):
        train("mine", stream, steps=1, hidden=(4,), checkpoint=file)


def test_an_extractor_is_part_of_the_jobs_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cls = METHODS["brain-inspired-replay"]
    monkeypatch.setitem(EXTRACTORS, "mine", lambda shape: torch.nn.Flatten())
    one = jobs._code(cls, "mine")
    monkeypatch.setitem(EXTRACTORS, "mine", lambda shape: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()))
    assert one is not None and one != jobs._code(cls, "mine") and jobs._code(cls) != one
