"""Logging as one JSON object a line on standard output."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_MAX_TEXT = 1200  # characters of a message or a traceback, so that a line stays under 2 KB or so


class JsonFormatter(logging.Formatter):
    """Escapes all but printable ASCII, so that no text can forge a line or drive a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for one record; its `fields`, if it has any, beside the usual ones."""
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
        return json.dumps(line, default=str)


def configure_logging(level: str) -> None:
    """Send every logger's records to standard output as JSON.

    Standard error stays free for the one line that says why the service did not start.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a full disk must not fill standard error too
    logging.captureWarnings(True)  # Pillow warns of every odd file
    # uvicorn tells of its own start and stop, which the service tells in its own words.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
