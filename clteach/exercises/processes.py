"""The processes that grade notebooks: `Forked` copies of one that has imported everything, or `Fresh` ones.

Both take orders and give back (number of the order, exit code) as the processes end, None for one whose time was over.
Everything that a process has started ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
"""Apple's libraries for linear algebra do not survive a fork, for which reason Python itself no longer forks there."""


@dataclass(frozen=True)
class Order:
    """A notebook to be graded: a number, the order file that `clteach.exercises.worker` reads, and the time limit."""

    number: int
    file: Path
    seconds: float


def _python(module: str, *arguments: str, **streams: int) -> subprocess.Popen[bytes]:
    # Where this package was found, also if it is not installed; everything else as it is.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", f"clteach.exercises.{module}", *arguments],
        env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"},
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams},  # type: ignore[call-overload]
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: see start_new_session
        else:
            process.kill()
    process.wait()


class Fresh:
    """An interpreter of its own for every notebook: on every system, at some seconds each."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[tuple[int, int | None]] = queue.SimpleQueue()
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, order: Order) -> None:
        """Start on a notebook."""
        self.running[order.number] = process = _python("worker", str(order.file))
        threading.Thread(target=self._watch, args=(order, process), daemon=True).start()

    def _watch(self, order: Order, process: subprocess.Popen[bytes]) -> None:
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(order.seconds)
        _kill(process)
        self.ended.put((order.number, code))

    def wait(self) -> tuple[int, int | None]:
        """The number of the next notebook that has ended, and its exit code (None: its time was over)."""
        while True:
            with contextlib.suppress(queue.Empty):
                number, code = self.ended.get(timeout=0.2)  # in slices, so that Ctrl-C comes through on Windows
                self.running.pop(number, None)
                return number, code

    def close(self) -> None:
        """End whatever still runs."""
        for process in self.running.values():
            _kill(process)


class Forked(Fresh):
    """Copies of a process that has imported everything (`clteach.exercises.fork_server`).

    A notebook that ends that process, too, costs the others only time: what was running then runs again, each behind a
    process of its own. Where that process cannot be started, the notebooks run in fresh interpreters.

    Args:
        again: for such a second try; a notebook that was running then and ended the process is the one that did it.
    """

    def __init__(self, again: bool = False) -> None:
        super().__init__()
        self.again = again
        self.others: list[Forked] = []
        self.server: subprocess.Popen[bytes] | None = None
        self.listener: threading.Thread | None = None
        self.usable = True
        self.orders: dict[int, Order] = {}
        self.copies: dict[int, int] = {}  # {number of the order: process}
        self.lock = threading.RLock()

    def start(self, order: Order) -> None:
        with self.lock:
            if self.server is None and self.usable:
                self.usable = False  # until it says that it is ready
                self.server = _python("fork_server", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self.listener = threading.Thread(target=self._listen, args=(self.server,), daemon=True)
                self.listener.start()
            if self.server is None:
                super().start(order)
                return
            self.orders[order.number] = order
            request = {"number": order.number, "order": str(order.file), "seconds": order.seconds}
            with contextlib.suppress(OSError):  # it has just ended, which the listener is about to notice
                assert self.server.stdin is not None
                self.server.stdin.write(json.dumps(request).encode() + b"\n")
                self.server.stdin.flush()

    def _listen(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdout is not None
        with server.stdout:
            for line in server.stdout:
                if line.endswith(b"\n"):
                    self._hear(**json.loads(line))
        with self.lock:
            if server is self.server:  # it has ended by itself
                self._end()
                while self.orders:
                    self._rescue(self.orders.popitem()[1])

    def _rescue(self, order: Order) -> None:
        """Deal with an order that was left behind."""
        if not self.usable:
            super().start(order)
        elif self.again:
            self.ended.put((order.number, -signal.SIGKILL))
        else:
            self.others.append(other := Forked(again=True))
            other.ended = self.ended
            other.start(order)

    def _hear(self, number: int = 0, process: int | None = None, code: int | None = None, ready: bool = False) -> None:
        with self.lock:
            if ready:
                self.usable = True
            elif process is not None:
                self.copies[number] = process
            else:
                del self.orders[number], self.copies[number]
                self.ended.put((number, code))

    def _end(self) -> None:
        """End the server and the copies that it has made, if there is one."""
        server, self.server = self.server, None
        if server is None:
            return
        assert server.stdin is not None
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            server.stdin.close()
            if self.usable:  # else it may be busy importing, and has no copies yet
                server.wait(5)
        _kill(server)
        for process in self.copies.values():  # where it could not do it any more
            with contextlib.suppress(OSError):
                os.killpg(process, signal.SIGKILL)
        self.copies.clear()

    def close(self) -> None:
        with self.lock:
            self._end()
        if self.listener is not None:
            self.listener.join()
        for other in self.others:
            other.close()
        super().close()
