"""Random numbers by address: every draw is derived from (seed, where it is used), never from what was drawn before.

That is what makes a resumed run bit-identical to an uninterrupted one, and one method's draws independent of another's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clteach.errors import ConfigError
from clteach.settings import SEED, convert


def derive(seed: int, *path: int | str) -> int:
    """A 63-bit seed for one place in the program, e.g. ``derive(0, "step", task, phase, step)``.

    A hash rather than a sum, so that neighbouring addresses give unrelated streams.
    """
    seed = seed if type(seed) is int else whole_seed(seed)
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def whole_seed(seed: int) -> int:
    """The seed as Python's own whole number, whatever kind of whole number it is: NumPy's cannot be written as JSON.

    Raises:
        ConfigError: no whole number of 0 or more.
    """
    value: int = convert("seed", seed, int, SEED)
    if value < 0:
        raise ConfigError(f"seed={value}: expected {SEED}.")
    return value


def generator(seed: int, *path: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A `torch.Generator` on `device`, seeded with ``derive(seed, *path)``."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


@contextmanager
def seeded(seed: int, *path: int | str, device: torch.device | str = "cpu") -> Iterator[None]:
    """What draws from the global generator inside, as new layers and dropout do, draws from this address.

    The generator of the CPU, and that of `device`, are restored afterwards.
    """
    device = torch.device(device)
    gpus = [device] if device.type == "cuda" and torch.cuda.is_initialized() else []  # an emulated one never is
    with torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(derive(seed, *path))
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(derive(seed, *path))
        yield
