"""Run somebody else's function for a limited time, with its output caught, in the process that is there.

A learner's function may loop for ever, print without end, wait for input or raise anything. It runs in a thread of its
own, which works in a notebook's kernel, in pytest and in a script alike, and on every system: signals would need the main
thread and are missing on Windows, and a process of its own would have to import torch first and could not be given every
function. When the time is over, an exception is raised *inside* that thread, between two of its Python instructions.

What cannot be ended this way is one call into C that takes for ever. Then the caller goes on all the same if that call
has released the interpreter's lock, as `time.sleep` and torch do; nothing in this process can go on while one holds it
(such as ``sum(itertools.count())``). Grading submitted work therefore has a process around it: `clteach.exercises.grading`.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import io
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Never

import torch

PRINTED = 400  # characters of a learner's output that a report repeats
GRACE = 1.0  # seconds that a function has for ending once it is told to


class TimeIsUp(BaseException):
    """Raised inside the thread whose time is over; no `Exception`, so that ``except Exception`` does not swallow "
    "it."""


@dataclass(frozen=True)
class Ended:
    """How a limited run ended: with a value, with an error, or not at all (`finished` is False)."""

    value: Any
    error: BaseException | None
    finished: bool
    alive: bool  # it could not even be stopped
    printed: str


class _Start(io.TextIOBase):
    """A text stream that keeps the first `PRINTED` characters and counts the others."""

    def __init__(self) -> None:
        self.kept, self.size = "", 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.kept += text[: PRINTED - len(self.kept)]
        self.size += len(text)
        return len(text)

    def text(self) -> str:
        more = self.size - len(self.kept)
        return self.kept.rstrip() + (f" … and {more} characters more" if more else "")


def limited(work: Callable[[], Any], seconds: float, isolated: bool = True) -> Ended:
    """Call `work` in a thread for at most `seconds`; never raises what `work` raises.

    Args:
        work: called without arguments.
        seconds: time limit.
        isolated: torch's global random numbers start from the same seed, and they and the default type are afterwards
            as they were before.
    """
    box: dict[str, Any] = {}
    done = threading.Event()  # not Thread.join: interrupted by Ctrl-C, it takes the thread for ended (Python 3.11)

    def target() -> None:
        try:
            try:
                box["value"] = work()
            except BaseException as error:
                box["error"] = error
            done.set()
        except BaseException:  # told to stop while it was ending
            done.set()

    printed = _Start()
    thread = threading.Thread(target=target, daemon=True, name="clteach-exercise")
    with _quiet(printed), _undisturbed() if isolated else contextlib.nullcontext():
        thread.start()
        try:
            _wait(done, seconds)
            finished = done.is_set()
        finally:  # also when the main thread is interrupted (Ctrl-C, the kernel's stop button)
            _stop(thread, done)
    return Ended(box.get("value"), box.get("error") if finished else None, finished, not done.is_set(), printed.text())


def _wait(done: threading.Event, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done.is_set() and (left := end - time.monotonic()) > 0:
        done.wait(min(left, 0.1))  # in slices: a long wait cannot be interrupted on Windows


def _stop(thread: threading.Thread, done: threading.Event) -> None:
    end = time.monotonic() + GRACE
    while not done.is_set() and time.monotonic() < end:
        # Again and again: a bare `except:` in a loop catches the first, but not one that hits the handler itself.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeIsUp))
        done.wait(0.01)
    if done.is_set():
        thread.join()


def _no_input(*_: object) -> Never:
    raise RuntimeError("input() cannot be used in an exercise: everything a function needs is in its arguments")


@contextlib.contextmanager
def _quiet(printed: _Start) -> Iterator[None]:
    read = builtins.input
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        builtins.input = _no_input
        try:
            yield
        finally:
            builtins.input = read


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
