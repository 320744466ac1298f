"""Files that are either whole or not there: write to a temporary name, flush to disk, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from clteach.errors import ClteachError


def write_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> Path:
    """Write a file so that a crash at any moment leaves the old file or the new one, never a part of one.

    Args:
        path: the file to write; missing parent folders are made.
        write: called with an open binary file.

    Returns:
        The path written.

    Raises:
        ClteachError: the place cannot be written (the message names it).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes private files (0600); give the file the permissions any other new file would get
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise ClteachError(
            f"cannot write {path}: {error.strerror or error}. "
            "Expected a folder with write permission and free space; choose another one."
        ) from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
    return path
