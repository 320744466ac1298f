"""A process that has imported everything and makes a copy of itself for every notebook to be graded.

To import torch takes seconds of processor time, to copy a process that has imported it some milliseconds. The copy shares
nothing that can be written with its original, so no notebook can harm the next one.

The process reads orders from its standard input and answers on its standard output, one JSON document per line. It keeps
a single thread and computes nothing, since a copy has only the thread that called fork, and locks that others held stay
locked in it. It enforces the time limits, and at the end of its input it ends, with all that it has started.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

# Not needed here, but in nearly every notebook.
import matplotlib.pyplot  # noqa: F401
import torch

from clteach.exercises import worker


@dataclass(frozen=True)
class Running:
    """A notebook's process: the number of its order, and when its time is over."""

    number: int
    deadline: float


def main() -> None:
    """Serve until the end of the input."""
    orders, answers = os.dup(0), os.dup(1)
    with open(os.devnull, "r+b", buffering=0) as nothing:
        for standard in (0, 1, 2):
            os.dup2(nothing.fileno(), standard)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing would be written to `wake`
    signal.set_wakeup_fd(wake)
    torch.set_num_threads(1)
    if _threads() > 1:
        return
    gc.freeze()  # a collection in a copy would write to, and so copy, all memory that it shares
    _Server(orders, answers, woken, wake).serve()


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 1


class _Server:
    def __init__(self, orders: int, answers: int, woken: int, wake: int) -> None:
        self.orders, self.answers, self.woken, self.wake = orders, answers, woken, wake
        self.running: dict[int, Running] = {}
        self.read = b""  # the beginning of an order

    def serve(self) -> None:
        self._answer(ready=True)
        try:
            while self._turn():
                pass
        finally:  # also when nobody reads the answers any more
            for process in self.running:
                _kill_group(process)

    def _turn(self) -> bool:
        """Wait for something to happen, and deal with it; False at the end of the input."""
        soonest = min((each.deadline for each in self.running.values()), default=None)
        wait = None if soonest is None else max(0.0, soonest - time.monotonic())
        ready, _, _ = select.select([self.orders, self.woken], [], [], wait)
        if self.woken in ready:
            os.read(self.woken, 4096)
        if self.orders in ready:
            piece = os.read(self.orders, 65536)
            *lines, self.read = (self.read + piece).split(b"\n")
            for line in lines:
                self._start(**json.loads(line))
            if not piece:
                return False
        for process in [*self.running]:
            self._look_after(process)
        return True

    def _start(self, number: int, order: str, seconds: float) -> None:
        process = os.fork()
        if not process:
            self._become(order)
        self.running[process] = Running(number, time.monotonic() + seconds)
        self._answer(number=number, process=process)

    def _become(self, order: str) -> Never:
        """The rest of the life of a copy."""
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self.orders, self.answers, self.woken, self.wake):
                os.close(end)
            worker.main(order)
        finally:
            os._exit(1)

    def _look_after(self, process: int) -> None:
        """Report a process that has ended; end one whose time is over."""
        ended = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None and time.monotonic() < self.running[process].deadline:
            return
        _kill_group(process)  # before waitpid, after which its number could be that of another process
        _, status = os.waitpid(process, 0)
        code = None if ended is None else os.waitstatus_to_exitcode(status)
        self._answer(number=self.running.pop(process).number, code=code)

    def _answer(self, **answer: Any) -> None:
        os.write(self.answers, json.dumps(answer).encode() + b"\n")


def _kill_group(process: int) -> None:
    """End a process and all that it has started."""
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)  # it may not lead a group yet
        os.killpg(process, signal.SIGKILL)


if __name__ == "__main__":
    main()
