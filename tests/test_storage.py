"""Files are written whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from clteach.storage import load_tensors


def test_kill_during_a_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """The process dies inside the write, after half of the bytes: the file on disk is the one before, and whole."""
    file = tmp_path / "checkpoint.safetensors"
    script = """
import os, signal, sys
from clteach import storage
import torch
storage.save_tensors(sys.argv[1], {"w": torch.arange(3.0)}, {})
def half(file):
    data = b"x" * 1000
    file.write(data[:500]); file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
storage.write_atomic(sys.argv[1], half)
"""
    assert subprocess.run([sys.executable, "-c", script, str(file)]).returncode == -signal.SIGKILL
    tensors, _ = load_tensors(file)
    assert tensors["w"].tolist() == [0, 1, 2]
