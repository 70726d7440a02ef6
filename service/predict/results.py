"""Where `detr predict` writes: answers to a file or standard output, drawings to a folder. Nothing is lost halfway."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from textwrap import indent
from typing import Any, Literal, Self, TextIO

from model.runtime.whole_file import whole_file
from service.predict.files import STANDARD_STREAM, FilesError, PictureFile, check_results, drawing_paths

Form = Literal["json", "jsonl", "coco"]
_INDENT = 2


class Answers:
    """Writes answers as they come.

    Args:
        form: a list of answers, an answer a line, or a list of COCO results.
        out: where they go.
        entries: what a picture's number and answer are in the list, or on lines.
    """

    def __init__(self, form: Form, out: TextIO, entries: Callable[[int, Any], Sequence[Mapping[str, Any]]]) -> None:
        self.count = 0
        self._form, self._out, self._entries = form, out, entries
        self._is_begun = False

    def add(self, number: int, answer: Any) -> None:
        """Write the answer of a picture, as JSON has it. Raises OSError if it cannot be written."""
        self.count += 1
        for entry in self._entries(number, answer):
            if self._form == "jsonl":
                self._out.write(f"{json.dumps(entry)}\n")
                self._out.flush()
            else:
                text = json.dumps(entry, indent=_INDENT if self._form == "json" else None)
                self._out.write(f"{',' if self._is_begun else '['}\n{indent(text, ' ' * _INDENT)}")
            self._is_begun = True

    def finish(self) -> None:
        """Write the end of the list. Raises OSError if it cannot be written."""
        if self._form != "jsonl":
            self._out.write("\n]\n" if self._is_begun else "[]\n")
        self._out.flush()


@dataclass(frozen=True)
class Places:
    """Where results go, and in which form; checked before the first picture is read."""

    files: Sequence[PictureFile]
    json: Path | None  # None is standard output
    form: Form
    drawings: tuple[Path, ...]  # by picture; empty where none are wanted

    @classmethod
    def of(cls, args: argparse.Namespace, files: Sequence[PictureFile], ending: str = ".png") -> Self:
        """The places that were asked for; the ending is that of drawings.

        Raises:
            FilesError: a result would be written over a picture, or over another.
            OSError: a result cannot be written there; its `filename` says where.
        """
        drawings = () if args.overlay is None else tuple(drawing_paths(files, args.overlay, ending))
        out = None if args.json is None or str(args.json) == STANDARD_STREAM else args.json
        check_results([*drawings, *([] if out is None else [out])], files)
        for folder in {drawing.parent for drawing in drawings}:
            folder.mkdir(parents=True, exist_ok=True)
        for path in [*drawings, *([] if out is None else [out])]:
            _check_writable(path)
        if out is not None and out.absolute() in {drawing.absolute() for drawing in drawings}:
            raise FilesError(f"{out} is for the answers and one of the drawings: write to another file or folder")
        form: Form = args.format or ("jsonl" if out is not None and out.suffix == ".jsonl" else "json")
        return cls(files, out, form, drawings)

    @contextmanager
    def answers(self) -> Iterator[Answers]:
        """Take answers within the block. If it fails, those that there are by then are kept.

        A list appears under its name when it is whole; an older one stays until then, or if there are no answers.

        Raises:
            OSError: they cannot be written.
        """
        if self.json is None:
            yield from self._to(sys.stdout)
        elif self.form == "jsonl" or (self.json.exists() and not self.json.is_file()):
            with self.json.open("w", encoding="utf-8") as out:
                yield from self._to(out)
        else:
            failure = None
            with whole_file(self.json) as unfinished, unfinished.open("w", encoding="utf-8") as out:
                answers = Answers(self.form, out, self._entries())
                try:
                    yield answers
                except BaseException as error:
                    if not answers.count:
                        raise
                    failure = error
                answers.finish()
            if failure is not None:
                raise failure

    def write_drawing(self, number: int, png: bytes) -> None:
        """Write the drawing of a picture. Raises OSError if it cannot be written."""
        with whole_file(self.drawings[number]) as unfinished:
            unfinished.write_bytes(png)

    def _to(self, out: TextIO) -> Iterator[Answers]:
        answers = Answers(self.form, out, self._entries())
        try:
            yield answers
        except SystemExit:  # nobody reads them
            raise
        except BaseException:
            if answers.count:
                answers.finish()
            raise
        answers.finish()

    def _entries(self) -> Callable[[int, Any], Sequence[Mapping[str, Any]]]:
        paths = [str(file.path) for file in self.files]
        if self.form == "coco":  # where an id does not tell the file; pycocotools leaves its name alone
            return lambda number, answer: [{**entry, "file_name": paths[number]} for entry in answer]
        return lambda number, answer: [{"file": paths[number], **answer}]


def _check_writable(path: Path) -> None:
    """Raise OSError unless a file can be written to this path, which it leaves as it was."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if path.is_file() or not path.exists():
            with TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
