"""What libraries say beside what they return: Python's warnings, and the lines of their own loggers.

One picture can make a decoder warn a hundred thousand times, with words of its sender's choice. So each is counted, and
the log has of them what one request may say at most.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TextIO

from service.process.trace import current_trace

# Loggers of these names, and of those below them, are the service's own.
OURS = ("service", "model")
_MAX_TEXTS = 100  # that are remembered


class LibraryFilter(logging.Filter):
    """Lets the service's own records pass, and of libraries' records few.

    What is said while a request is worked on is noted in the request's trace, whose own line tells of it; its first
    error passes, too. Beside requests all errors pass, and anything else once.

    Args:
        level: the least severity of a line.
    """

    def __init__(self, level: int = logging.WARNING) -> None:
        super().__init__()
        self._level = level
        self.on_warning: Callable[[], None] = lambda: None  # called for every record of a library, in any thread
        self._texts: set[str] = set()  # that have passed

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record becomes a line."""
        if record.name.partition(".")[0] in OURS:
            return True
        self.on_warning()
        is_error = record.levelno >= logging.ERROR
        text = record.getMessage()
        if (trace := current_trace()) is not None:
            passes = trace.library_said(text, is_error=is_error)
        else:
            passes = is_error or self._is_new(text)
        return passes and record.levelno >= self._level

    def _is_new(self, text: str) -> bool:
        if text in self._texts or len(self._texts) >= _MAX_TEXTS:
            return False
        self._texts.add(text)
        return True


def log_warnings() -> None:
    """Make a log record of each warning, from now on and of each time it is given.

    By default Python remembers every text that it has shown, without end, and shows the path of the code that warned.
    """
    warnings.showwarning = _log_warning
    warnings.simplefilter("always", append=True)  # what is filtered already stays so


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)
