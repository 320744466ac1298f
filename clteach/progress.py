"""Progress on the terminal: one bar for one run, or a row for every job that other processes work on; and curves elsewhere.

Everything goes to stderr, and nothing is shown where stderr is not a terminal (a pipe, a log file, an executed notebook).
`tensorboard` writes losses and scores where TensorBoard reads them.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from clteach.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

Report = Callable[[int, int, str], None]
"""Called as ``report(steps done, steps in all, what is being done)``."""
Log = Callable[[str, float, int], None]
"""Called as ``log(name of a curve, its value, steps done)``."""


def _display() -> Progress:
    # Imported only where something is shown: whoever trains without a bar need not load it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


def _shown(show: bool | None) -> bool:
    return sys.stderr.isatty() if show is None else show


@contextmanager
def bar(description: str, show: bool | None = None) -> Iterator[Report]:
    """A progress bar for one run: ``with bar("ewc") as report: train("ewc", stream, progress=report)``.

    Args:
        description: stands before the bar.
        show: show it? None: where stderr is a terminal.
    """
    if not _shown(show):
        yield lambda done, total, text: None
        return
    with _display() as display:
        row = display.add_task(description, total=None)

        def report(done: int, total: int, text: str) -> None:
            display.update(row, completed=done, total=total, description=f"{description}, {text}")

        yield report


@contextmanager
def tensorboard(folder: str | Path) -> Iterator[Log]:
    """Curves for TensorBoard: ``with tensorboard("out/tensorboard/ewc") as log: train("ewc", stream, log=log)``.

    Args:
        folder: where they are written; ``tensorboard --logdir`` shows it, or several of them together from above.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"curves for TensorBoard need tensorboard ({error}). Expected it to be installed: pip install tensorboard."
        ) from None
    writer = SummaryWriter(str(folder))
    try:
        yield writer.add_scalar
    finally:
        writer.close()


def to_file(path: Path, every: float = 0.2) -> Report:
    """A report that other processes can read: the newest one stands in the file `path`.

    Args:
        path: the file, in a folder that exists.
        every: seconds between two writes (the last report is always written).
    """
    written = -math.inf  # the clock may have started a moment ago, with the machine

    def report(done: int, total: int, text: str) -> None:
        nonlocal written
        now = time.monotonic()
        if done == total or now - written >= every:
            written = now
            with contextlib.suppress(OSError):  # a full disk must not end a run because of its progress bar
                path.write_text(f"{done} {text}", encoding="utf-8")

    return report


class Watched(NamedTuple):
    """A job to watch: what to call it, the file its `to_file` writes, and its steps in all."""

    label: str
    file: Path
    total: int


@contextmanager
def board(jobs: Sequence[Watched], show: bool | None = None) -> Iterator[None]:
    """While the body runs, a row for every running job and one for all of them together.

    Args:
        jobs: what to watch.
        show: show it? None: where stderr is a terminal.
    """
    if not jobs or not _shown(show):
        yield
        return
    ended = threading.Event()
    with _display() as display:
        everything = display.add_task(f"all {len(jobs)} runs", total=sum(job.total for job in jobs))
        rows = [display.add_task(job.label, total=job.total, visible=False) for job in jobs]

        def watch() -> None:
            started: set[int] = set()
            while not ended.wait(0.2):
                all_done = 0
                for job, row in zip(jobs, rows, strict=True):
                    done, text = _read(job.file)
                    if done and row not in started:
                        started.add(row)
                        display.reset(row)  # its clock starts now
                    running = 0 < done < job.total
                    display.update(row, completed=done, description=f"{job.label}, {text}", visible=running)
                    all_done += done
                display.update(everything, completed=all_done)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()


def _read(path: Path) -> tuple[int, str]:
    """(steps done, text); (0, "") while there is no complete report."""
    try:
        done, text = path.read_text(encoding="utf-8").split(" ", 1)
        return int(done), text
    except (OSError, ValueError):
        return 0, ""
