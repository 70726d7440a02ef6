"""Where `detr predict` writes: answers to a file or standard output, drawings to a folder. Nothing is lost halfway."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, TextIO

from model.runtime.whole_file import whole_file
from service.predict.files import STANDARD_STREAM, PictureFile, check_results, drawing_paths


class Answers:
    """The answers so far, by the numbers of their pictures."""

    def __init__(self, lines: TextIO | None) -> None:
        """Keep them or, with `lines`, write each to that at once."""
        self.count = 0
        self._lines = lines
        self._kept: dict[int, dict[str, Any]] = {}

    def add(self, number: int, answer: dict[str, Any]) -> None:
        """Take one. Raises OSError if it cannot be written."""
        self.count += 1
        if self._lines is None:
            self._kept[number] = answer
        else:
            print(json.dumps(answer), file=self._lines, flush=True)

    def to_json(self) -> str:
        """Those that are kept, as a list in the order of their pictures."""
        return json.dumps([self._kept[number] for number in sorted(self._kept)], indent=2)


@dataclass(frozen=True)
class Places:
    """Where results go; checked before the first picture is read."""

    json: Path | None  # None is standard output
    drawings: tuple[Path, ...]  # by picture; empty where none are wanted

    @classmethod
    def of(cls, args: argparse.Namespace, files: Sequence[PictureFile]) -> Places:
        """The places that were asked for.

        Raises:
            FilesError: a result would be written over a picture.
            OSError: a folder cannot be made.
        """
        drawings = () if args.overlay is None else tuple(drawing_paths(files, args.overlay))
        out = None if args.json is None or str(args.json) == STANDARD_STREAM else args.json
        check_results([*drawings, *([] if out is None else [out])], files)
        for folder in {drawing.parent for drawing in drawings}:
            folder.mkdir(parents=True, exist_ok=True)
        return cls(out, drawings)

    @contextmanager
    def answers(self) -> Iterator[Answers]:
        """Take answers within the block. A list is written when it ends; where it fails, so is what there is by then.

        A file appears under its name when it is whole; an older one stays until then.

        Raises:
            OSError: they cannot be written; before the block where that is known.
        """
        if self.json is not None and self.json.suffix == ".jsonl":
            with self.json.open("w", encoding="utf-8") as lines:
                yield Answers(lines)
            return
        if self.json is not None:
            with TemporaryFile(dir=self.json.parent):
                pass  # where that can be written, so can this
        answers, is_whole = Answers(None), False
        try:
            yield answers
            is_whole = True
        finally:
            if is_whole or answers.count:
                self._write(answers.to_json())

    def write_drawing(self, number: int, png: bytes) -> None:
        """Write the drawing of a picture. Raises OSError if it cannot be written."""
        self.drawings[number].write_bytes(png)

    def _write(self, text: str) -> None:
        if self.json is None:
            print(text)
        else:
            with whole_file(self.json) as unfinished:
                unfinished.write_text(f"{text}\n", encoding="utf-8")
