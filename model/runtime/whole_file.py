"""Files that appear under their names when they are whole, whoever else writes the same one at the same time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path, ending: str = "unfinished") -> Iterator[Path]:
    """A path beside `path` to write a file to, which takes its place when the block ends.

    Where the block raises, an older file stays as it was, and nothing is left of the new one. The name that the file
    has meanwhile ends in `ending`, and is another for each writer; of several the last wins.

    Raises OSError where the file cannot take its place.
    """
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.{ending}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        with suppress(OSError):  # such as that there is no folder, of which the block has told
            unfinished.unlink()
