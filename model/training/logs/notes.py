"""What a run tells before its first step: on the terminal, and in a file of the run, which says later what it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

NOTES_FILE = "notes.txt"  # in the folder of a run


class Notes:
    """What was chosen and found, in the order in which it is told."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        """Tell people by a function, such as one that prints."""
        self._tell = tell
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """Tell it, and keep it."""
        self._tell(line)
        self._lines.append(line)

    @rank_zero_only
    def write(self, out: Path, command: str) -> None:
        """Add all of it to the file of the run, which has as many parts as the run has beginnings."""
        now = datetime.now(UTC).isoformat(timespec="seconds")  # noqa: TID251  # it is told
        with (out / NOTES_FILE).open("a", encoding="utf-8") as file:
            file.write("\n".join([f"{now} {command}", *self._lines, ""]) + "\n")
