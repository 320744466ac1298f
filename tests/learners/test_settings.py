"""Settings are checked and converted once, by their annotations: what is meant arrives, what cannot be meant is named."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.experiments import jobs
from clteach.experiments.jobs import Job
from clteach.learners.learner import Learner
from clteach.methods import METHODS, build, configure
from clteach.seeding import whole_seed
from clteach.settings import convert, convert_fields, converted, within
from clteach.training.learner_checks import same_state, toy_data
from clteach.training.loop import train


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        (int, 1e3, 1000),
        (int, "1e3", 1000),
        (int, "32", 32),
        (int, np.int64(3), 3),
        (int, np.float32(8), 8),
        (int, np.array(7), 7),
        (int, torch.tensor(2), 2),
        (int, 2**70, 2**70),
        (float, 1, 1.0),
        (float, "1e-3", 1e-3),
        (float, np.float32(1e4), 1e4),
        (float, torch.tensor(0.25), 0.25),
        (float, Fraction(1, 4), 0.25),
        (bool, "true", True),
        (bool, "False", False),
        (bool, np.bool_(False), False),
        (bool, 0, False),
        (bool, torch.tensor(True), True),
        (str, np.str_("cpu"), "cpu"),
        (str, Path("a") / "b", str(Path("a") / "b")),
        (int | None, None, None),
        (int | None, "none", None),
        (int | None, 5.0, 5),
        (float | None, "7", 7.0),
        (bool | str, "inductor", "inductor"),
        (bool | str, "True", "True"),  # text is a name here
        (bool | str, True, True),
        (str | Path | None, Path("x"), "x"),
        (Literal["soft", "hard"], np.str_("hard"), "hard"),
        (Literal[1, "all"], 1, 1),
        (Annotated[int, "of samples"], 4.0, 4),
        (tuple[int, ...], [10], (10,)),
        (tuple[int, ...], (10.0, "20"), (10, 20)),
        (tuple[int, ...], np.array([4, 5]), (4, 5)),
        (tuple[int, ...], torch.tensor([4, 5]), (4, 5)),
        (tuple[int, ...], range(1, 3), (1, 2)),
        (tuple[int, str], [1.0, "x"], (1, "x")),
        (tuple[int, ...] | None, [3], (3,)),
        (Sequence[int], np.arange(3), [0, 1, 2]),
        (str | Sequence[int], "random", "random"),
        (str | Sequence[int], (2.0, 1), [2, 1]),
        (Sequence[Sequence[int]], [[0, 1.0], (2,)], [[0, 1], (2,)]),
    ],
)
def test_what_can_mean_one_thing_is_taken_as_that(kind: Any, given: Any, expected: Any) -> None:
    found = convert("it", given, kind)
    assert found == expected and type(found) is type(expected)
    if isinstance(expected, tuple | list):
        assert [type(one) for one in found] == [type(one) for one in expected]


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        (int, 1.5, r"^it=1\.5: expected a whole number\.$"),
        (int, "many", r"it='many': expected a whole number"),
        (int, True, "it=True: expected a whole number"),
        (int, float("nan"), "it=nan"),
        (int, float("inf"), "it=inf"),
        (int, None, "it=None"),
        (int, [3], r"it=\[3\]"),
        (int, torch.tensor([3]), r"it=tensor\(\[3\]\)"),
        (int, torch.empty((), device="meta"), "it=tensor"),
        (float, float("nan"), "it=nan: expected a finite number"),
        (float, "inf", "it='inf': expected a finite number"),
        (float, 1e300, r"it=1e\+300: expected a finite number \(of at most 3\.4e\+38, which float32 holds\)"),
        (float, 10**400, "it=1000"),
        (float, True, "it=True"),
        (float, 1j, "it=1j"),
        (bool, "no", "it='no': expected True or False"),
        (bool, 2, "it=2: expected True or False"),
        (bool, 1.0, r"it=1\.0: expected True or False"),
        (str, 5, "it=5: expected text"),
        (int | None, "x", "it='x': expected a whole number, or None"),
        (Literal["soft", "hard"], "softe", r"unknown value of it 'softe'\. Did you mean 'soft'\?"),
        (Literal["soft", "hard"], 5, "it=5: expected 'soft' or 'hard'"),
        (tuple[int, ...], 7, "it=7: expected a tuple of which each is a whole number"),
        (tuple[int, ...], "77", "it='77': expected a tuple"),
        (tuple[int, ...], {1: 2}, "it={1: 2}: expected a tuple"),
        (tuple[int, ...], (1, 2.5), r"it=\(1, 2\.5\): expected a tuple"),
        (tuple[int, int], (1,), r"it=\(1,\)"),
        (Sequence[Sequence[int]], [0, 1], r"it=\[0, 1\]: expected a list of which each is a list"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(kind: Any, given: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        convert("it", given, kind)


def test_a_large_value_is_shown_in_few_words() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    for value in (np.zeros((50, 50)), list(range(1000)), "x" * 1000, Broken()):
        with pytest.raises(ConfigError) as info:
            convert("it", value, int)
        assert len(str(info.value)) < 150 and "\n" not in str(info.value)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_right_stays_the_same_object(name: str) -> None:
    cls = METHODS[name].Config
    defaults = {one.name: one.default for one in dataclasses.fields(cls)}
    for settings in (cls(), cls(**defaults)):
        assert all(getattr(settings, key) is value for key, value in defaults.items())
    groups, values = [[0, 1], [2]], (0.1, 0.2)
    assert convert("it", groups, Sequence[Sequence[int]]) is groups
    assert convert("it", values, tuple[float, ...]) is values


@pytest.mark.parametrize(
    ("name", "setting", "given", "expected"),
    [
        ("ewc", "lam", "1e4", 1e4),
        ("ewc", "lam", np.float32(1e4), 1e4),
        ("ewc", "fisher_samples", 10.0, 10),
        ("er", "per_class", torch.tensor(3), 3),
        ("finetune", "lr", "1e-3", 1e-3),
        ("finetune", "hidden", (10.0,), (10,)),
        ("finetune", "hidden", [10], (10,)),
        ("finetune", "fresh_optimizer", "True", True),
        ("brain-inspired-replay", "vae_hidden", [3, 4], (3, 4)),
        ("hypernetwork", "chunk", "None", None),
    ],
)
def test_settings_of_methods(name: str, setting: str, given: Any, expected: Any) -> None:
    spec = split(toy_data(), METHODS[name].scenarios[0], tasks=2).spec
    learner = build(name, spec, **{setting: given})
    found = getattr(learner.cfg, setting)
    assert found == expected and type(found) is type(expected)
    assert json.loads(json.dumps(learner.describe()))["cfg"][setting] == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("name", "setting", "given"),
    [
        ("finetune", "fresh_optimizer", "no"),
        ("finetune", "lr", float("inf")),
        ("finetune", "hidden", (10.5,)),
        ("finetune", "hidden", (100_000, 100_000)),
        ("finetune", "hidden", (10**6,)),
        ("er", "per_class", 2.5),
        ("er", "per_class", 10**9),
        ("ewc", "lam", float("inf")),
        ("ewc", "fisher_samples", 10.5),
        ("si", "epsilon", 1e-320),
        ("vae-replay", "weight_decay", float("nan")),
        ("vae-replay", "z", 10**9),
        ("lwf", "temperature", 1e300),
        ("generative-replay", "temperature", 1e-320),
        ("generative-replay", "stored_samples", 10**9),
        ("brain-inspired-replay", "replay_model", np.array(["vae", "ebgan"])),
        ("dream-replay", "generator_lr", -1.0),
        ("dream-replay", "generator_steps", 10**12),
        ("ebgan", "code", 10**9),
        ("multiband-vae", "candidates", 10**9),
        ("multiband-vae", "bits", 0),
        ("hypernetwork", "embedding", 2**63),
        ("hypernetwork", "chunk", 2**63),
    ],
)
def test_settings_that_cannot_work_are_named(name: str, setting: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"{setting}=.*(expected|Expected)"):
        configure(METHODS[name], {setting: given})


def test_what_memory_does_not_hold_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = split(toy_data(), tasks=2).spec

    def fail(error: Exception) -> None:
        def make(*_: Any) -> Learner:
            raise error

        monkeypatch.setattr(METHODS["finetune"], "make", make)

    fail(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes"))
    with pytest.raises(ConfigError, match=r"finetune: .* does not fit into memory .*tried to allocate 64 bytes.*fewer"):
        build("finetune", spec)
    fail(MemoryError())
    with pytest.raises(ConfigError, match="does not fit into memory"):
        build("finetune", spec)
    fail(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):  # an error of another kind is not explained away
        build("finetune", spec)


def test_a_method_of_ones_own_may_have_other_kinds_of_settings() -> None:
    device = torch.device("cpu")

    @dataclass(frozen=True)
    class Config(Learner.Config):
        where: torch.device = device
        names: dict[str, int] = field(default_factory=lambda: {"a": 1})
        scale: Callable[[float], float] = abs
        many_hidden: int = 3

    settings = Config(lr="0.5", many_hidden=4.0)  # type: ignore[arg-type]
    assert (settings.lr, settings.many_hidden) == (0.5, 4)
    assert settings.where is device and settings.names == {"a": 1} and settings.scale is abs


# -------------------------------------------------------------------------------------------------------- training


def test_the_arguments_of_train_are_converted() -> None:
    stream = split(toy_data(), tasks=2)
    usual = train(
        "finetune", stream, steps=4, batch_size=5, seed=3, eval_every=2, log_every=2, device="cpu", hidden=(8,)
    )
    odd: dict[str, Any] = {
        "steps": 4.0,
        "batch_size": "5",
        "seed": np.int64(3),
        "eval_every": torch.tensor(2),
        "log_every": np.float64(2),
        "quality": "false",
        "hidden": np.array([8]),
    }
    run = train("finetune", stream, device="cpu", **odd)
    assert same_state(usual.learner, run.learner)
    assert run.config == usual.config and json.dumps(run.config) == json.dumps(usual.config)
    assert run.curve == usual.curve and run.losses == usual.losses


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("steps", 1.5),
        ("steps", float("inf")),
        ("steps", 10**12),
        ("batch_size", "many"),
        ("batch_size", 10**9),
        ("eval_every", 1.5),
        ("log_every", None),
        ("checkpoint_every", [5]),
        ("quality", "no"),
        ("evaluate_on", 5),
        ("seed", "x"),
        ("device", torch.tensor([3])),
    ],
)
def test_arguments_of_train_that_cannot_work_are_named(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{argument}.*expected|Expected"):
        train("finetune", split(toy_data(), tasks=2), **{"device": "cpu", argument: value})


def test_no_setting_of_a_method_has_the_name_of_an_argument_of_train() -> None:
    """`train("ebgan", stream, code=4)` is about the critic's code: it must not land in an argument of the loop."""
    own = {name for name, p in inspect.signature(train).parameters.items() if p.kind is not p.VAR_KEYWORD}
    taken = {name: own & set(cls.Config.__dataclass_fields__) for name, cls in METHODS.items()}
    assert not any(taken.values()), taken


def test_a_converted_function_is_the_same_function() -> None:
    assert inspect.signature(train).parameters["steps"].default == 2000
    assert (train.__doc__ or "").startswith("Train a learner")
    assert "at = new_run" in inspect.getsource(train)
    with pytest.raises(TypeError, match=r"split\(\) got an unexpected keyword argument 'taks'"):
        split(toy_data(), taks=2)  # type: ignore[call-arg]

    @converted(n="an even number")
    def f(n: int, *more: int, scale: float = 1.0, **rest: int) -> tuple[Any, ...]:
        return n, more, scale, rest

    assert f("4", "5", scale="2", x="3") == (4, ("5",), 2.0, {"x": "3"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n='x': expected an even number"):
        f("x")  # type: ignore[arg-type]


def test_seeds() -> None:
    assert [whole_seed(seed) for seed in (3, 3.0, "3", np.uint8(3))] == [3] * 4  # type: ignore[arg-type]
    for bad in (-1, 0.5, "x", None, True):
        with pytest.raises(ConfigError, match=r"seed=.*: expected a whole number of 0 or more"):
            whole_seed(bad)  # type: ignore[arg-type]


def test_within() -> None:
    within("it", 1, 1_000_000, n=1, m=1_000_000, k=None)
    with pytest.raises(ConfigError, match="it: n=0, expected at least 1 and at most 1,000,000"):
        within("it", 1, 1_000_000, n=0)
    with pytest.raises(ConfigError, match=r"it: T=10000000\.0, expected at least 1e-06 and at most 1e\+06"):
        within("it", 1e-6, 1e6, T=1e7)


def test_fields_are_converted_in_place() -> None:
    @dataclass
    class Given:
        n: int
        share: float | None = None

    given = Given("3", "0.5")  # type: ignore[arg-type]
    convert_fields(given)
    assert (given.n, given.share) == (3, 0.5)
    with pytest.raises(ConfigError, match="n='x': expected a count"):
        convert_fields(Given("x"), {"n": "a count"})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ jobs


def test_a_job_is_the_same_however_its_numbers_are_written(tmp_path: Path) -> None:
    usual = Job(
        "ewc",
        steps=3,
        batch=16,
        seed=1,
        settings={"hidden": (8,), "lam": 1e3},
        stream_settings={"tasks": 5, "validation": 0.0},
    )
    odd: dict[str, Any] = {"steps": 3.0, "batch": "16", "seed": np.int64(1)}
    odd["settings"] = {"hidden": np.array([8]), "lam": np.float32(1e3)}
    odd["stream_settings"] = {"tasks": np.int64(5), "validation": 0}
    (a,), (b,) = (jobs._plan([job], tmp_path) for job in (usual, Job("ewc", **odd)))
    assert a.folder == b.folder and a.job == b.job
    for bad in ({"steps": 1.5}, {"batch": None}, {"seed": 0.5}, {"device": 3}, {"evaluate_on": True}):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.*expected"):
            Job("ewc", **bad)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------- random settings


def _script() -> ModuleType:
    file = Path(__file__).parents[1] / "random_settings.py"
    spec = importlib.util.spec_from_file_location("random_settings", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the script limits memory as Linux does")
def test_random_settings_train_or_are_refused_before() -> None:
    """60 of those that `python tests/random_settings.py` tries."""
    script = _script()
    counts: Counter[str] = Counter()
    for i, trial, outcome in script.outcomes(60, seed=0):
        assert outcome.kind != "failed", f"{i}: {trial}: {outcome.why}"
        counts[outcome.kind] += 1
    assert counts["finite"] >= 10 and counts["refused"] >= 10, counts
