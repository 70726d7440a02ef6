"""From the file names that annotation tools write to the files that are there."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote


class FileNames:
    """The files of a folder, found by names that other machines and tools have written.

    A name that is there as it stands is taken. Of others what is the same everywhere counts: the parts of the path,
    with slashes or backslashes between them, escaped as in a URL or not, in whatever form of Unicode and whatever case.
    A file fits where its path is the end of the name, whose beginning is then a folder of another machine, or where the
    name is the end of its path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, names: Sequence[str]) -> list[str]:
        """The file of each name, relative to the folder. A name for which there is none stays as it is.

        Raises:
            ValueError: a name fits several files, or a file several names.
        """
        found = [self._file_of(name) for name in names]
        by_file: dict[str, str] = {}
        for name, file in zip(names, found, strict=True):
            if by_file.setdefault(file, name) != name:
                raise ValueError(f"{_shown(by_file[file])} and {_shown(name)} would both be the file {_shown(file)}")
        return found

    def has(self, name: str) -> bool:
        """Whether there is a file for a name, and one only."""
        try:
            return os.path.isfile(self._folder / self._file_of(name))  # noqa: PTH113  # as above
        except ValueError:
            return False

    def closest(self, name: str) -> str | None:
        """The file whose name is most like another and has the same digits, so that it shows how they differ, or None.

        Files that are numbered are all alike, but another number is another file.
        """
        last = (_plain_parts(name) or [""])[-1]
        numbered_alike = [other for other in self._by_name if _digits(other) == _digits(last)]
        close = difflib.get_close_matches(last, numbered_alike, n=1, cutoff=0.7)
        return _shown(self._by_name[close[0]][0]) if close else None

    @cached_property
    def _files(self) -> frozenset[str]:
        found: list[str] = []
        for folder, _, names in os.walk(self._folder, followlinks=True):
            inside = Path(folder).relative_to(self._folder)
            found += ((inside / name).as_posix() for name in names)
        return frozenset(found)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The files by the last part of their plain names."""
        by_name: dict[str, list[str]] = {}
        for file in sorted(self._files):
            by_name.setdefault(_plain_parts(file)[-1], []).append(file)
        return by_name

    def _file_of(self, name: str) -> str:
        if name in self._files or os.path.isfile(self._folder / name):  # noqa: PTH113  # no error for one that is too long
            return name
        fitting: dict[str, int] = {}
        for written in {name, unquote(name)}:
            parts = _plain_parts(written)
            for file in self._by_name.get(parts[-1], ()) if parts else ():
                theirs = _plain_parts(file)
                shared = min(len(parts), len(theirs))
                if parts[-shared:] == theirs[-shared:]:
                    fitting[file] = max(shared, fitting.get(file, 0))
        best = [file for file, shared in fitting.items() if shared == max(fitting.values())]
        if len(best) > 1:
            raise ValueError(f"{_shown(name)} fits {len(best)} files, such as {_shown(best[0])} and {_shown(best[1])}")
        return best[0] if best else name


def _plain_parts(name: str) -> list[str]:
    """The parts of a path, in one form of Unicode and one case."""
    plain = unicodedata.normalize("NFC", name).casefold().replace("\\", "/")
    return [part for part in plain.split("/") if part not in ("", ".", "..")]


def _digits(name: str) -> list[str]:
    return [letter for letter in name if letter.isdigit()]


def _shown(name: str) -> str:
    """A name in quotes, in which letters that look alike do not."""
    return ascii(name)
