"""Random settings over all methods: each gives a run of finite numbers, or one clear error before training starts.

    python tests/random_settings.py 1000 --seed 0

Of a method's settings, of `train`'s and of the stream's arguments one to four are drawn, from values that are sensible,
extreme, of the wrong type, NaN, infinite, huge, negative and zero; the others are those of tiny networks. A setting that is
taken but makes training diverge (a huge learning rate) is no fault of the check, so it is counted apart. What is left, an
error of another kind or one that comes only after training has begun, is listed; exit code 1 if there is any.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import signal
import sys
import time
import traceback
import types
import warnings
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from clteach.data.streams import MAKERS, dirichlet, permuted, split
from clteach.errors import ClteachError, DivergedError
from clteach.methods import METHODS
from clteach.training.learner_checks import TINY, toy_data
from clteach.training.loop import train

WORDS = ("", "no", "yes", "true", "False", "None", "x", "1", "3.0", "1e-3", "1e1", "nan", "-1")
WHOLE = (1, 2, 3, 5, 8)
BAD_WHOLE = (0, -1, -(10**9), 10**6 + 1, 10**9, 10**12, 2**63, 10**400)
NUMBERS = (0.001, 0.01, 0.1, 0.5, 0.9, 1.0, 2.0, 10.0)
EXTREME = (0.0, -1.0, -0.0, 1e-320, 5e-324, 1e-40, 1e-12, 1e4, 1e8, 1e20, 3e38, 1e39, 1e300, -1e300, 1.7e308)
NONE_AT_ALL = (float("nan"), float("inf"), -float("inf"))
ODD: tuple[Any, ...] = (
    *(None, True, False, (), [], {}, b"1", object(), 1j, [1], (1.0,), [0, 1, 2], [[0], [1]], {"a": 1}, range(3)),
    *(np.float32(0.1), np.int64(3), np.float64("nan"), np.bool_(True), np.array(2), np.array([4, 4]), np.str_("2")),
    *(torch.tensor(2), torch.tensor(0.25), torch.tensor([3]), torch.ones(2, 2), Fraction(1, 4), Path("x"), print),
)
TRAIN: dict[str, Any] = {
    "steps": int,
    "batch_size": int,
    "seed": int,
    "eval_every": int,
    "log_every": int,
    "checkpoint_every": int,
    "evaluate_on": Literal["test", "valid"],
    "quality": bool,
    "device": str,
}
SLOW = {"steps", "generator_steps", "tasks"}
"""Of these a large value that is right only takes its time."""


class Trial(NamedTuple):
    """What is tried: a method on a stream."""

    method: str
    maker: str
    scenario: str
    stream: dict[str, Any]
    how: dict[str, Any]
    settings: dict[str, Any]


class Outcome(NamedTuple):
    """``finite``, ``refused``, ``diverged`` or ``failed``, and why."""

    kind: str
    why: str


def draw(rng: random.Random) -> Trial:
    """One trial."""
    method = rng.choice(list(METHODS))
    cls = METHODS[method]
    kinds = get_type_hints(cls.Config)
    maker = rng.choice(["split"] * 4 + ["permuted", "dirichlet"])
    stream_kinds = {
        k: v for k, v in get_type_hints(MAKERS[maker]).items() if k not in ("dataset", "scenario", "return")
    }
    places = ["settings"] * 8 + ["how", "stream"]
    chosen = [rng.choice(places) for _ in range(rng.choice([1, 1, 2, 2, 3, 4]))]
    trial = Trial(method, maker, rng.choice(cls.scenarios), {}, {}, {k: v for k, v in TINY.items() if k in kinds})
    for place in chosen:
        if place == "settings":
            name = rng.choice(list(kinds))
            trial.settings[name] = value(rng, name, kinds[name])
        elif place == "how":
            name = rng.choice(list(TRAIN))
            trial.how[name] = value(rng, name, TRAIN[name])
        else:
            name = rng.choice(list(stream_kinds))
            trial.stream[name] = value(rng, name, stream_kinds[name])
    return trial


def value(rng: random.Random, name: str, kind: Any) -> Any:
    """A value for a setting of this kind, right or wrong."""
    if rng.random() < 0.08:
        return rng.choice([rng.choice(ODD), rng.choice(WORDS)])
    origin, of = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return value(rng, name, rng.choice(of))
    if origin is Literal:
        return rng.choice([*of, *of, *of, rng.choice(WORDS), of[0].upper()])
    if origin is tuple:
        one = [value(rng, name, of[0]) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        return rng.choice([tuple(one), one])
    if kind is bool:
        return rng.choice([True, False, True, False, 0, 1, np.bool_(False), rng.choice(WORDS), 2])
    if kind is int:
        few = rng.choice([*WHOLE, *WHOLE, float(rng.choice(WHOLE)), str(rng.choice(WHOLE)), np.int32(2), 2.5])
        many = rng.choice([300, 20_000, 10**6])
        if rng.random() < 0.1 and name not in SLOW and not name.endswith("hidden"):
            return many
        bad = rng.choice([n for n in BAD_WHOLE if name not in SLOW or not 10**6 <= n <= 10**9])
        return rng.choice([*[few] * 8, *[bad] * 3, rng.choice(NONE_AT_ALL)])
    if kind is float:
        some = rng.choice([*NUMBERS, str(rng.choice(NUMBERS)), np.float32(rng.choice(NUMBERS)), 1])
        return rng.choice([*[some] * 6, *[rng.choice(EXTREME)] * 5, rng.choice(NONE_AT_ALL)])
    return rng.choice([*ODD, *WORDS])


def attempt(trial: Trial) -> Outcome:
    """Train for a few steps, and say what came out."""
    how = {"steps": 3, "batch_size": 5, "device": "cpu", "seed": 1, "log_every": 1, **trial.how}
    try:
        maker: Any = {"split": split, "permuted": permuted, "dirichlet": dirichlet}[trial.maker]
        stream = maker(toy_data(), trial.scenario, **{"tasks": 2, **trial.stream})
        run = train(trial.method, stream, **how, **trial.settings)
    except ClteachError as error:
        frames = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        if "_loop" not in frames:
            return Outcome("refused", str(error))
        return Outcome("diverged" if isinstance(error, DivergedError) else "failed", f"while it trained: {error}")
    except Exception as error:
        return Outcome("failed", f"{type(error).__name__}: {error}")
    numbers = [v for row in run.losses for v in row.values() if isinstance(v, float)]
    finite = bool(np.isfinite(numbers).all() and run.accuracy.isfinite().all())
    finite = finite and all(bool(p.isfinite().all()) for p in run.learner.parameters())
    return Outcome("finite" if finite else "diverged", "")


@contextlib.contextmanager
def limited(seconds: int, gigabytes: int) -> Iterator[None]:
    """Limits of one trial, so that a setting that asks for too much fails instead of the machine."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (in_use + gigabytes * 2**30, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcomes(n: int, seed: int) -> Iterator[tuple[int, Trial, Outcome]]:
    """n trials and what came of them; trial i is the same however many there are."""
    torch.set_num_threads(1)
    for i in range(n):
        trial = draw(random.Random(f"{seed} {i}"))
        with limited(60, 4), warnings.catch_warnings():
            warnings.simplefilter("error")
            yield i, trial, attempt(trial)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("n", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", nargs="*", default=["failed"], help="list trials with these outcomes")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    started = time.perf_counter()
    for i, trial, outcome in outcomes(given.n, given.seed):
        counts[outcome.kind] += 1
        if outcome.kind in given.show:
            print(f"{i} {outcome.kind}: {trial}\n    {outcome.why[:300]}", flush=True)
    print(f"{given.n} trials in {time.perf_counter() - started:.0f} s: {dict(counts)}")
    return int(counts["failed"] > 0)


if __name__ == "__main__":
    sys.exit(main())
