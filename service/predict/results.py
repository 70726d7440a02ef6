"""Where `detr predict` writes: answers to a file or standard output, drawings to a folder. Nothing is lost halfway."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from textwrap import indent
from typing import Any, Literal, Protocol, TextIO

from model.runtime.whole_file import whole_file
from service.errors import ParameterError
from service.predict.files import (
    STANDARD_STREAM,
    FilesError,
    PictureFile,
    Pictures,
    check_results,
    drawing_paths,
    image_ids,
)
from service.predict.lines import Lines, OldLines, lines_in, read_lines

Form = Literal["json", "jsonl", "coco"]
_INDENT = 2


class Results(Protocol):
    """Where it is written what becomes of each picture."""

    def answered(self, picture: PictureFile, body: bytes) -> None:
        """Take the answer of a picture, in JSON. Raises OSError if it cannot be written."""

    def failed(self, picture: PictureFile, reason: str) -> None:
        """Take why a picture has no answer. Raises OSError if that cannot be written."""

    def add(self, where: Mapping[str, Any], body: bytes) -> None:
        """Take the answer of a part of a file, in JSON: `file` says of which, and more may say of which part.

        Raises OSError if it cannot be written.
        """


class AnswerList:
    """Writes a list of answers, in which a picture without one is missing.

    Args:
        form: of answers with the names of their files, or of COCO's results.
        out: where it goes.
    """

    def __init__(self, form: Form, out: TextIO) -> None:
        self.is_begun = False
        self._form, self._out = form, out

    def answered(self, picture: PictureFile, body: bytes) -> None:
        """See Results."""
        self.add({"file": picture.file}, body)

    def add(self, where: Mapping[str, Any], body: bytes) -> None:
        """See Results."""
        answer = json.loads(body)
        if self._form == "coco":  # whose ids need not tell the file; pycocotools leaves its name alone
            told = {"file_name": where["file"], **{name: value for name, value in where.items() if name != "file"}}
            entries = [{**entry, **told} for entry in answer]
        else:
            entries = [{**where, **answer}]
        for entry in entries:
            text = json.dumps(entry, indent=_INDENT if self._form == "json" else None)
            self._out.write(f"{',' if self.is_begun else '['}\n{indent(text, ' ' * _INDENT)}")
            self.is_begun = True

    def failed(self, picture: PictureFile, reason: str) -> None:
        """See Results."""

    def finish(self) -> None:
        """Write the end of the list. Raises OSError if it cannot be written."""
        self._out.write("\n]\n" if self.is_begun else "[]\n")
        self._out.flush()


@dataclass(frozen=True)
class Places:
    """Which pictures there are, and where their results go; checked before the first is read."""

    pictures: Iterable[PictureFile]
    count: int | None  # of the pictures; None if that is not known before the last
    out: Path | None  # None is standard output
    form: Form
    draws: bool
    old: OldLines | None  # of the file that is gone on with

    @classmethod
    def of(cls, args: argparse.Namespace, pictures: Pictures, videos: Sequence[PictureFile] = ()) -> Places:
        """The places that were asked for, of pictures or of the videos among them.

        Raises:
            ParameterError: they do not go together.
            FilesError: a result would be written over a picture, over another, or behind something else.
            OSError: a result cannot be written there; its `filename` says where.
        """
        out: Path | None = None if args.out is None or str(args.out) == STANDARD_STREAM else args.out
        form = args.format or _form_for(out, is_long=bool(videos) or args.list is not None)
        if args.resume and (out is None or form != "jsonl"):
            raise ParameterError("--resume goes on with a file of lines: give it, too, as in --out answers.jsonl")
        if args.resume and videos:
            raise ParameterError("--resume is of pictures, and these are videos")
        found: Iterable[PictureFile] = pictures
        count = pictures.check([] if out is None else [out])
        if args.overlay is not None or form == "coco":
            found = files = list(videos or pictures)  # because how they are called depends on the others
            count = len(files)
            for file, image_id in zip(files, image_ids([file.path for file in files]), strict=True):
                file.image_id = image_id
        if args.overlay is not None:
            _place_drawings(files, args.overlay, out, ".mp4" if videos else ".png")
        if out is not None:
            _check_writable(out)
        old = read_lines(out) if args.resume and out is not None else None
        return cls(found, count, out, form, args.overlay is not None, old)

    @contextmanager
    def results(self) -> Iterator[Results]:
        """Take results within the block. If it fails, those that there are by then are kept.

        A list appears under its name when it is whole; an older one stays until then, or if there are no answers.

        Raises:
            FilesError: somebody else writes there.
            OSError: they cannot be written.
        """
        if self.out is None:
            yield from self._to(sys.stdout)
        elif self.out.exists() and not self.out.is_file():
            with self.out.open("w", encoding="utf-8") as out:
                yield from self._to(out)
        elif self.form == "jsonl":
            with lines_in(self.out, self.old) as lines:
                yield lines
        else:
            yield from self._to_whole_file(self.out)

    def _to(self, out: TextIO) -> Iterator[Results]:
        if self.form == "jsonl":
            yield Lines(out, OldLines())
            return
        answers = AnswerList(self.form, out)
        try:
            yield answers
        except SystemExit:  # nobody reads them
            raise
        except BaseException:
            if answers.is_begun:
                answers.finish()
            raise
        answers.finish()

    def _to_whole_file(self, path: Path) -> Iterator[Results]:
        failure = None
        with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as out:
            answers = AnswerList(self.form, out)
            try:
                yield answers
            except BaseException as error:
                if not answers.is_begun:
                    raise
                failure = error
            answers.finish()
        if failure is not None:
            raise failure


def write_drawing(picture: PictureFile, png: bytes) -> None:
    """Write the drawing of a picture to its place. Raises OSError if it cannot be written."""
    assert picture.drawing is not None, "there is no place for it"
    with whole_file(picture.drawing) as unfinished:
        unfinished.write_bytes(png)


def _form_for(out: Path | None, *, is_long: bool) -> Form:
    """That of the file's ending; of videos and long lists of pictures, nobody wants to wait for the end."""
    ending = "" if out is None else out.suffix
    return "jsonl" if ending == ".jsonl" or (is_long and ending != ".json") else "json"


def _place_drawings(files: list[PictureFile], folder: Path, out: Path | None, ending: str) -> None:
    """Give each picture a place for its drawing. Raises what `Places.of` does."""
    drawings = drawing_paths(files, folder, ending)
    check_results(drawings, files)
    if out is not None and out.absolute() in {drawing.absolute() for drawing in drawings}:
        raise FilesError(f"{out} is for the answers and one of the drawings: write to another file or folder")
    for parent in {drawing.parent for drawing in drawings}:
        parent.mkdir(parents=True, exist_ok=True)
    for file, drawing in zip(files, drawings, strict=True):
        _check_writable(drawing)
        file.drawing = drawing


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
