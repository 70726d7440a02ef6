"""How far a measurement is, shown at a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm  # type: ignore[import-untyped]

_STEP_S = 0.5
_FORMAT = "measuring |{bar}| {n:.0f} of {total:.0f} s"


@contextmanager
def progress(seconds: float) -> Iterator[None]:
    """Show on standard error, if it is a terminal, how much of so many seconds of the block has passed."""
    is_over = threading.Event()
    started = time.monotonic()
    with tqdm(total=seconds, bar_format=_FORMAT, disable=None, leave=False) as bar:

        def show() -> None:
            while not is_over.wait(_STEP_S):
                bar.n = min(seconds, time.monotonic() - started)
                bar.refresh()

        showing = threading.Thread(target=show, name="progress", daemon=True)
        if not bar.disable:
            showing.start()
        try:
            yield
        finally:
            is_over.set()
            if showing.is_alive():
                showing.join()
