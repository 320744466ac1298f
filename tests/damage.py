"""Damaged files and killed runs, many of each: every one must end in a clear error or in the right result.

    python tests/damage.py              # 1000 damaged files of each kind, 200 kills: a few minutes on one core
    python tests/damage.py files 100    # fewer of them
    python tests/damage.py kills 16

A file is damaged as a disk, a download or a hand would do it, and read again: a saved learner, a run's ``run.json``, a
checkpoint. The right result is that of the whole file, to the bit. A run is killed at a random moment (SIGKILL) and resumed
in a new process, which must end where the run that nobody disturbed ends, to the bit. Processes are forked from this one,
which has imported everything: starting Python and importing torch takes longer than these runs.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

import clteach
from clteach.errors import ClteachError
from clteach.experiments.energy_maps import FILE as MAPS
from clteach.learners.learner import Learner
from clteach.methods import METHODS
from clteach.training.learner_checks import tiny, toy_data

STREAM = clteach.split(toy_data(), "class", tasks=2)


def fingerprint(learner: Learner, run: clteach.Run | None = None) -> str:
    """SHA-256 of all parameters and buffers and, of a run, its numbers: all but the seconds."""
    digest = hashlib.sha256()
    for name, value in learner.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.contiguous().numpy().tobytes())
    if run is not None:
        digest.update(json.dumps({**run.numbers(), "seconds": None, "config": run.config}, sort_keys=True).encode())
    return digest.hexdigest()


def trained(name: str, steps: int = 4, seed: int = 0, **how: Any) -> clteach.Run:
    learner = METHODS[name](STREAM.spec, tiny(METHODS[name]), seed=0)
    return clteach.train(learner, STREAM, steps=steps, batch_size=8, seed=seed, device="cpu", log_every=3, **how)


# ------------------------------------------------------------------------------------------------------------ damage


class Kind(NamedTuple):
    """One kind of file."""

    file: Path
    content: bytes  # of the whole file
    right: str  # fingerprint of what is read from it
    read: Callable[[], str]  # reads the file; fingerprint of what came
    others: list[tuple[str, bytes, str | None]]  # other whole files: name, content, fingerprint (None: to be refused)


def kinds(folder: Path) -> dict[str, Kind]:
    """A learner, a ``run.json`` and a checkpoint in `folder`."""
    checkpoint = folder / "checkpoint.safetensors"
    run = trained("ewc", checkpoint=checkpoint)
    run.save(folder / "run")
    whole = checkpoint.read_bytes()

    class Stop(Exception):
        pass

    def stop(done: int, total: int, text: str) -> None:
        if done >= 6:
            raise Stop

    halfway = folder / "halfway.safetensors"
    try:
        trained("ewc", checkpoint=halfway, checkpoint_every=1, progress=stop)
    except Stop:
        pass
    else:
        raise AssertionError("was not stopped")
    other, later = trained("si", checkpoint=folder / "other.safetensors"), trained("ewc", seed=1)
    for each, where in ((other, "other"), (later, "later")):
        each.save(folder / where)
    learner_file, run_file = folder / "run" / "learner.safetensors", folder / "run" / "run.json"

    def resumed() -> str:
        found = trained("ewc", checkpoint=checkpoint)
        return fingerprint(found.learner, found)

    def loaded() -> str:
        found = clteach.Run.load(folder / "run")
        return fingerprint(found.learner, found)

    def learner_of(where: str) -> bytes:
        return (folder / where / "learner.safetensors").read_bytes()

    return {
        "learner": Kind(
            learner_file,
            learner_file.read_bytes(),
            fingerprint(run.learner),
            lambda: fingerprint(clteach.load_learner(learner_file)),
            [
                ("a learner of another method", learner_of("other"), fingerprint(other.learner)),
                ("a learner with other weights", learner_of("later"), fingerprint(later.learner)),
                ("a checkpoint", whole, None),
                ("energy maps", MAPS.read_bytes(), None),
            ],
        ),
        "run.json": Kind(
            run_file,
            run_file.read_bytes(),
            fingerprint(run.learner, run),
            loaded,
            [
                ("a run of another method", (folder / "other" / "run.json").read_bytes(), None),
                ("a run with another seed", (folder / "later" / "run.json").read_bytes(), None),
                ("another document", b'{"format": 2, "config": {}}', None),
            ],
        ),
        "checkpoint": Kind(
            checkpoint,
            whole,
            fingerprint(run.learner, run),
            resumed,
            [
                ("an earlier checkpoint", halfway.read_bytes(), fingerprint(run.learner, run)),
                ("a checkpoint of another method", (folder / "other.safetensors").read_bytes(), None),
                ("a learner", learner_of("run"), None),
                ("energy maps", MAPS.read_bytes(), None),
            ],
        ),
    }


def damages(kind: Kind, n: int, dice: random.Random) -> Iterator[tuple[str, bytes | None, str | None]]:
    """n times (what was done, the damaged content or None for a folder, the fingerprint that may come of it or None)."""
    content, right = kind.content, kind.right
    digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
    ways = ["a bit flipped"] * 8 + ["a digit changed"] * 4 + ["cut"] * 4 + ["several bytes changed", "a part missing"]
    ways += ["something appended", "empty", "text", "HTML", "zeros", "deeply nested", "another whole file", "a folder"]
    for i in range(n):
        way, damaged = ways[i % len(ways)], bytearray(content)
        place = dice.randrange(len(content))
        if way == "a bit flipped":
            damaged[place] ^= 1 << dice.randrange(8)
        elif way == "a digit changed":
            place = dice.choice(digits)
            damaged[place] = dice.choice([byte for byte in b"0123456789" if byte != content[place]])
        elif way == "cut":
            del damaged[place:]
        elif way == "several bytes changed":
            for _ in range(dice.randrange(1, 9)):
                damaged[dice.randrange(len(content))] = dice.randrange(256)
        elif way == "a part missing":
            del damaged[place : place + dice.randrange(1, 100)]
        elif way == "something appended":
            damaged += dice.randbytes(dice.randrange(1, 100))
        elif way == "empty":
            damaged.clear()
        elif way == "text":
            damaged[:] = dice.choice(
                ["weights, as you asked", "Gewichte für Jörg\n" * 99, "\x00", "null", "[1]"]
            ).encode()
        elif way == "HTML":
            damaged[:] = b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * dice.randrange(1, 99)
        elif way == "zeros":
            damaged[place:] = bytes(len(content) - place) if dice.random() < 0.5 else b""
            damaged[:place] = bytes(place)
        elif way == "deeply nested":
            damaged[:] = dice.choice([b"[", b'{"a":']) * 100_000
        elif way == "another whole file":
            name, other, expected = dice.choice(kind.others)
            yield f"{way}: {name}", other, expected
            continue
        yield way, None if way == "a folder" else bytes(damaged), right


def try_files(name: str, kind: Kind, n: int, seed: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Damage a file n times and read it each time.

    Returns:
        How often which end came, and a sentence for each wrong one.
    """
    ends: collections.Counter[str] = collections.Counter()
    wrong = []
    for i, (way, damaged, right) in enumerate(damages(kind, n, random.Random(f"{name} {seed}"))):
        if damaged is None:
            kind.file.unlink()
            kind.file.mkdir()
        else:
            kind.file.write_bytes(damaged)
        try:
            found = kind.read()
        except ClteachError as error:
            end, said = "a clear error", str(error)
            if problem := unclear(said, kind.file):
                end = "an unclear error"
                wrong.append(f"{name} {i}, {way}: the error {problem}: {said}")
        except BaseException as error:  # also what the libraries' Rust panics with
            if isinstance(error, KeyboardInterrupt):
                raise
            end = "another error"
            wrong.append(f"{name} {i}, {way}: {type(error).__name__}: {error}")
        else:
            end = "the right result" if found == right else "a wrong result"
            if found != right:
                wrong.append(f"{name} {i}, {way}: read without a word")
        ends[end] += 1
        if damaged is None:
            kind.file.rmdir()
    kind.file.write_bytes(kind.content)
    return ends, wrong


def unclear(message: str, file: Path) -> str:
    """What an error's message lacks; empty if nothing."""
    if "\n" in message or len(message) > 800:
        return "is not one short paragraph"
    if str(file) not in message and str(file.parent) not in message:
        return "does not name the file"
    if "expected" not in message.lower():
        return "does not say what was expected"
    if not re.search(r"delete|choose|restore|save the|make it again|repeat", message, re.IGNORECASE):
        return "does not say what to do"
    return ""


# ------------------------------------------------------------------------------------------------------------- kills

KILLED = (
    "finetune",
    "ewc",
    "si",
    "er",
    "generative-replay",
    "brain-inspired-replay",
    "multiband-vae",
    "hypernetwork-r",
)


def start(name: str, checkpoint: Path | None, out: Path) -> int:
    """Fork a process that trains and writes its fingerprint; its number."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        run = trained(name, steps=30, checkpoint=checkpoint, checkpoint_every=1, eval_every=10)
        out.write_text(fingerprint(run.learner, run), encoding="utf-8")
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(process: int) -> None:
    if status := os.waitpid(process, 0)[1]:
        raise AssertionError(f"a run ended with status {status}")


def try_kills(n: int, folder: Path, seed: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Kill n runs, one method after the other, and resume them.

    Returns:
        How often which end came, and a sentence for each wrong one.
    """
    dice, ends = random.Random(seed), collections.Counter[str]()
    wrong: list[str] = []
    whole, seconds = {}, {}
    trained("finetune", steps=1)  # the first step imports half of torch: here, once, and not in every process
    for name in KILLED[:n]:
        for checkpoint in (None, folder / f"{name}.safetensors"):
            out, clock = folder / f"{name}.txt", time.perf_counter()
            ended(start(name, checkpoint, out))
            seconds[name] = time.perf_counter() - clock
            if whole.setdefault(name, out.read_text(encoding="utf-8")) != out.read_text(encoding="utf-8"):
                wrong.append(f"{name}: checkpoints change the result")
    for i in range(n):
        name = KILLED[i % len(KILLED)]
        place = folder / f"kill-{i}"
        place.mkdir()
        checkpoint, out = place / "checkpoint.safetensors", place / "out.txt"
        longest = seconds[name]
        while True:
            process = start(name, checkpoint, out)
            time.sleep(dice.uniform(0, longest))
            os.kill(process, signal.SIGKILL)
            if os.WIFSIGNALED(os.waitpid(process, 0)[1]):
                break
            for file in place.iterdir():  # it had finished: once more, with less time
                file.unlink()
            longest *= 0.9
        left = [file.name for file in place.iterdir() if file.suffix == ".tmp"]
        ends["killed in a save"] += len(left)
        ends["killed before the first checkpoint was whole"] += not checkpoint.exists()
        out.unlink(missing_ok=True)
        try:
            ended(start(name, checkpoint, out))
        except AssertionError as error:
            wrong.append(f"{name}, kill {i}: {error}")
            continue
        same = out.read_text(encoding="utf-8") == whole[name]
        ends["resumed to the bit"] += same
        if not same:
            wrong.append(f"{name}, kill {i}: another result than the run that nobody killed")
        if left_now := sorted(file.name for file in place.iterdir() if file not in (checkpoint, out)):
            wrong.append(f"{name}, kill {i}: {left_now} is left")
        shutil.rmtree(place)
    return ends, wrong


# ---------------------------------------------------------------------------------------------------------- the script


def report(what: str, n: int, clock: float, ends: collections.Counter[str], wrong: list[str]) -> int:
    counted = ", ".join(f"{end} {count}" for end, count in ends.most_common())
    print(f"{what} × {n}: {counted}; wrong: {len(wrong)}; {time.perf_counter() - clock:.0f} s", flush=True)
    print(*(f"  {line[:500]}" for line in wrong[:20]), sep="\n", end="\n" if wrong else "", flush=True)
    return len(wrong)


def main(part: str = "all", n: str | None = None) -> int:
    """Run a part ("files", "kills", "all") and print what happened; 1 if anything was wrong, else 0."""
    torch.set_num_threads(1)
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["CLTEACH_DATA"] = str(folder / "data")  # the judge of generated images is kept there
        if part in ("kills", "all"):
            clock, count = time.perf_counter(), int(n or 200)
            wrong += report("kills", count, clock, *try_kills(count, folder))
        if part in ("files", "all"):
            for name, kind in kinds(folder).items():
                clock, count = time.perf_counter(), int(n or 1000)
                wrong += report(name, count, clock, *try_files(name, kind, count))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
