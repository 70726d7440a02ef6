"""Logging to standard output, one JSON object a line or text for people, which never holds up or fails whoever logs.

A line is put into a queue and written by a thread. Where standard output takes no more, because nobody reads the pipe
or the disk is full, lines are dropped and counted.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from service.process.library_warnings import OURS, LibraryFilter, log_warnings

MAX_LINE = 2048  # characters, which are ASCII
_MAX_TEXT = 1200  # characters of a message or a traceback
_MAX_WAITING = 1000  # lines
_ENCODER = json.JSONEncoder(default=str)
_UNPRINTABLE = re.compile(r"[^ -~]")
_GATHERING = 0.01  # seconds in which lines that are written at once come together
_AT_ONCE = 4096  # bytes, which a pipe of Linux takes without what others write in between
_AT_EXIT = 1.0  # seconds that the last lines have to be written


class JsonFormatter(logging.Formatter):
    """Escapes all but printable ASCII, so that no text can forge a line or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of at most MAX_LINE for one record; its `fields`, if it has any, beside the usual ones."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_MAX_TEXT],
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            # The end of a traceback says most.
            line["exception"] = self.formatException(record.exc_info)[-_MAX_TEXT:]
        # Escaped, a character takes up to twelve.
        while len(text := _ENCODER.encode(line)) > MAX_LINE:
            _halve_longest(line)
        return text


class TextFormatter(logging.Formatter):
    """For people at a terminal. Escapes all but printable ASCII, too; only a traceback has lines of its own, indented.

    Where a record has `fields`, it is a request, or tells what to type or open.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The time of day here, the severity, and what was said."""
        fields = getattr(record, "fields", {})
        said = (
            _request_line(fields) if "status" in fields else " ".join([record.getMessage(), *map(str, fields.values())])
        )
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        lines = [f"{time} {record.levelname.lower():<8} {said[:_MAX_TEXT]}"]
        if record.exc_info:
            lines += [f"    {line}" for line in self.formatException(record.exc_info)[-_MAX_TEXT:].splitlines()]
        return "\n".join(
            _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), line) for line in lines
        )


class LogWriter(logging.Handler):
    """Writes lines to a file descriptor, in a thread of its own.

    Args:
        descriptor: of what is written to; None drops everything.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self.on_drop: Callable[[], None] = lambda: None  # called for every line that is lost, in any thread
        self._descriptor = descriptor
        # Of all kinds of queues only this one may be used by a signal handler that interrupted its use.
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._urgent: queue.SimpleQueue[None] = queue.SimpleQueue()  # how often a line is not to wait
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line, or drop it if too many wait."""
        try:
            line = self.format(record) + "\n"
        except Exception:  # a message that does not fit its arguments must not fail a request
            self.on_drop()
            return
        if self._lines.qsize() >= _MAX_WAITING:
            self.on_drop()
            return
        self._lines.put(line.encode("ascii", "replace"))
        if record.levelno >= logging.WARNING:  # it may be the last that this process says
            self._urgent.put(None)

    def close(self) -> None:
        """Write what waits, for as long as that takes but a second, and no more."""
        self._lines.put(None)
        self._urgent.put(None)
        self._thread.join(_AT_EXIT)
        super().close()

    def _write_all(self) -> None:
        line = self._wait()
        while line is not None:
            together = [line]
            while (line := self._next()) and sum(map(len, together)) + len(line) <= _AT_ONCE:
                together.append(line)
            self._write(together)
            line = self._wait() if line == b"" else line

    def _wait(self) -> bytes | None:
        """The first line after a pause, in which others come to it, or None at the end."""
        line = self._lines.get()
        if line is not None:
            # To wake this thread for each takes longer than to write it: it has to have Python's lock.
            with suppress(queue.Empty):
                self._urgent.get(timeout=_GATHERING)
        return line

    def _next(self) -> bytes | None:
        """The next line that waits, empty where none does, None at the end."""
        try:
            return self._lines.get_nowait()
        except queue.Empty:
            return b""

    def _write(self, lines: Sequence[bytes]) -> None:
        """Write whole lines, or tell that they are lost. Waits as long as a pipe is full."""
        text = b"".join(lines)
        try:
            if self._descriptor is None:
                raise OSError("there is nothing to write to")
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:
            for _ in lines:
                self.on_drop()


def configure_logging(level: str, log_format: str = "auto") -> tuple[LogWriter, LibraryFilter]:
    """Send every logger's records to standard output: of the service from this level on, and of libraries what the
    filter lets pass.

    Standard error stays free for the one line that says why the service did not start.

    Args:
        level: a severity, in small letters.
        log_format: "json", "text", or "auto" for text on terminals only.
    """
    descriptor = _standard_output()
    handler, libraries = LogWriter(descriptor), LibraryFilter(logging.getLevelNamesMapping()[level.upper()])
    if log_format == "auto":
        log_format = "text" if descriptor is not None and os.isatty(descriptor) else "json"
    handler.setFormatter(TextFormatter() if log_format == "text" else JsonFormatter())
    handler.addFilter(libraries)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.raiseExceptions = False  # a full disk must not fill standard error too
    # No line says where in the code, in which thread or process it was written, so that need not be found out.
    logging._srcfile = None  # documented, see "Optimization" in logging's guide
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    log_warnings()
    # What it says of bad requests, and of start and stop, the service says in lines of its own.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return handler, libraries


def _standard_output() -> int | None:
    """Its descriptor, for Python's own stream waits at the end until all is read; None where it has none."""
    try:
        return None if sys.stdout is None else sys.stdout.fileno()
    except (OSError, ValueError):  # somebody put an object there that is no file
        return None


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _request_line(fields: Mapping[str, Any]) -> str:
    """Such as `POST /detect 200 in 12.3 ms`; what an error was called stands behind it."""
    words = [fields.get("method"), fields.get("route"), fields["status"]]
    if (spent := fields.get("duration_ms")) is not None:
        words.append(f"in {spent:.1f} ms")
    words.append(fields.get("error"))
    return " ".join(str(word) for word in words if word is not None)


def _halve_longest(line: dict[str, object]) -> None:
    texts = {name: text for name, text in line.items() if isinstance(text, str)}
    name = max(texts, key=lambda name: len(json.dumps(texts[name])))
    half = len(texts[name]) // 2
    line[name] = texts[name][-half:] if name == "exception" else texts[name][:half]
