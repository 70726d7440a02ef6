"""Answers as JSON Lines: one line a picture, whatever becomes of it, as soon as it is known.

A line begins with the name of its picture, `{"file":"shots/1.jpg",`, and goes on with the answer as HTTP has it, or
with `"error":` and why there is none. A process that is killed while it writes leaves its last line cut off; who goes
on removes that, and answers its picture again.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from service.predict.files import FilesError, PictureFile, shown
from service.predict.names import Names

_BEGINNING = re.compile(r'\s*\{\s*"file"\s*:\s*(?=")')
_ERROR = re.compile(r'\s*,\s*"error"\s*:')
_COMPACT = (",", ":")
_LONGEST_NAME = 2**16  # characters, in JSON, which has at most six for each byte of a path


@dataclass
class OldLines:
    """What is in a file of lines already."""

    names: Names = field(default_factory=Names)  # of all pictures
    failed: Names = field(default_factory=Names)  # of those without an answer
    answer: str | None = None  # one of the lines with an answer
    size: int = 0  # bytes of the file
    whole: int = 0  # bytes of its whole lines, which are the first


class Lines:
    """Writes lines."""

    def __init__(self, out: TextIO, old: OldLines) -> None:
        self._out, self._old = out, old

    def answered(self, picture: PictureFile, body: bytes) -> None:
        """Write the line of a picture with an answer.

        Raises:
            FilesError: the lines that are there are answers of another kind.
            OSError: it cannot be written.
        """
        if self._old.answer is not None:
            _check_alike(self._old.answer, body)
            self._old.answer = None
        self.add({"file": picture.file}, body)

    def failed(self, picture: PictureFile, reason: str) -> None:
        """Write the line of a picture without one. Raises OSError if it cannot be written."""
        self.add({"file": picture.file}, json.dumps({"error": reason}, separators=_COMPACT).encode())

    def add(self, where: Mapping[str, Any], body: bytes) -> None:
        """Write a line of where an answer is from, and the answer, an object in JSON. Raises OSError as above."""
        self._out.write(f"{json.dumps(where, separators=_COMPACT)[:-1]},{body.decode()[1:]}\n")
        self._out.flush()


def read_lines(path: Path) -> OldLines:
    """What is in a file of lines; nothing if there is no file.

    Raises:
        FilesError: something else is in it.
        OSError: it cannot be read.
    """
    old = OldLines()
    if not path.exists():
        return old
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            old.size += len(line)
            if not line.endswith(b"\n"):
                if not (line.startswith(b'{"file":') or b'{"file":'.startswith(line)):
                    raise _no_line(path, number)
                return old  # cut off; only the last can be
            try:
                name, is_error = _name_of(line)
            except (ValueError, KeyError, TypeError):
                raise _no_line(path, number) from None
            old.whole = old.size
            old.names.add(name)
            if is_error:
                old.failed.add(name)
            elif old.answer is None:
                old.answer = line.decode("utf-8", "replace")
    return old


@contextmanager
def lines_in(path: Path, old: OldLines | None) -> Iterator[Lines]:
    """Write lines to a file, which nobody else does meanwhile: behind `old`, or in place of all that is there.

    Raises:
        FilesError: somebody else writes to it, or has since it was read.
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    with os.fdopen(descriptor, "a", encoding="utf-8", newline="\n") as out:
        _lock(out, path)
        if old is not None and os.fstat(out.fileno()).st_size != old.size:
            raise FilesError(f"something else writes to {shown(path)}, which has grown since it was read")
        os.ftruncate(out.fileno(), 0 if old is None else old.whole)
        yield Lines(out, OldLines() if old is None else old)


def _lock(out: TextIO, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # on Windows, where nothing keeps two from writing to one file
        return
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise FilesError(f"another detr predict writes to {shown(path)}") from None
        # A file system without locks.


def _name_of(line: bytes) -> tuple[str, bool]:
    """The picture of a line, and whether it has an error. Raises ValueError, KeyError or TypeError of other lines."""
    beginning = line[:_LONGEST_NAME].decode("utf-8", "replace")
    if (match := _BEGINNING.match(beginning)) is not None:
        name, end = json.JSONDecoder().raw_decode(beginning, match.end())
        return str(name), _ERROR.match(beginning, end) is not None
    answer = json.loads(line)  # by another program that has changed their order
    if not isinstance(answer["file"], str):
        raise TypeError
    return answer["file"], "error" in answer


def _no_line(path: Path, number: int) -> FilesError:
    return FilesError(
        f"line {number} of {shown(path)} is none that detr predict writes: remove it, or write to another file"
    )


def _check_alike(line: str, body: bytes) -> None:
    """Raise FilesError unless a line has an answer of the same model to the same question."""
    old, new = json.loads(line), json.loads(body)
    del old["file"]
    if old.get("model") != new["model"]:
        raise FilesError(
            f"the file has answers of the model {old.get('model')}, and this is {new['model']}: write to another file"
        )
    if set(old) != set(new):
        raise FilesError("the file has answers of another task: give the --task and --mode of then, or another file")
