"""How much memory the reading of large data takes at its peak."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURE = """
import sys, threading, time
import numpy as np
import clteach
from clteach.data.own_data import from_arrays
import sklearn.model_selection

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

kind, n = sys.argv[1], 60_000
x = np.random.default_rng(0).integers(0, 256, (n, 32, 32, 3) if kind == "colour" else (n, 32, 32), dtype=np.uint8)
if kind == "floats":
    x = x / np.float32(255)
y = np.arange(n) % 10
from_arrays(x[:100], y[:100])
before, peak, ended = resident(), 0, False

def watch():
    global peak
    while not ended:
        peak = max(peak, resident())
        time.sleep(0.001)

watcher = threading.Thread(target=watch)
watcher.start()
data = from_arrays(x, y)
ended = True
watcher.join()
print((max(peak, resident()) - before) / x.nbytes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("kind", ["colour", "grey", "floats"])
def test_images_are_copied_once(kind: str) -> None:
    """The data set is a copy; beside it there is room for the labels and a few blocks, and no more."""
    done = subprocess.run([sys.executable, "-c", MEASURE, kind], capture_output=True, text=True, check=True)
    assert 0.9 < float(done.stdout) < 1.3
