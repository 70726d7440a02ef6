"""Which pictures a command line means, and where what is made of them goes: never over a picture."""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import BinaryIO

from model.runtime.image_formats import format_of
from service.predict.names import Names
from service.predict.pictures import EncodedPicture

# The endings of pictures that are looked for in folders; of a file that is named, only its bytes count.
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# Of pictures that are opened where they are asked for.
_MORE_ENDINGS = {"heic": (".heic", ".heif"), "tiff": (".tif", ".tiff")}
_MOST_DIGITS = 15  # of a number that JSON's readers keep as it is
STANDARD_STREAM = "-"  # where a file is named: standard input, or output
_CHUNK = 2**20  # bytes
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class FilesError(Exception):
    """Words that mean no picture, or results that would replace a picture; the message is one line."""


@dataclass(eq=False)
class PictureFile(EncodedPicture):
    """A file to look at, or standard input."""

    path: Path
    name: PurePath  # of the file within the folder that was named, or alone
    listed: str | None = None  # its name in a list, if it is there
    image_id: int = 0  # in COCO's results
    drawing: Path | None = None  # where its drawing goes, if there is to be one

    @property
    def file(self) -> str:
        """What answers call it."""
        return str(self.path) if self.listed is None else self.listed

    def read(self) -> bytes:
        """Its bytes. Raises OSError if it cannot be read."""
        is_stream = self.file == STANDARD_STREAM and self.listed is None
        return sys.stdin.buffer.read() if is_stream else self.path.read_bytes()


class Pictures:
    """The pictures that words mean, and then those of a list, each once, in their order; those of a folder by name.

    They are found each time that somebody goes through them, and not kept, so that there may be millions.

    A word is a file, a folder, a pattern (which shells without patterns of their own hand on, and which quotes keep
    from the shell) or "-" for standard input. A file that is missing stays among them, to be told of like one that is
    broken.

    Args:
        words: of the command line.
        listed: a file with the name of a file on each line, or "-" for standard input; None is no list.
        recursive: whether pictures in sub-folders of the folders count.
        formats: that are opened beside JPEG, PNG and WebP, as the setting has them.
    """

    def __init__(
        self, words: Sequence[str], listed: str | None = None, *, recursive: bool = False, formats: Iterable[str] = ()
    ) -> None:
        self._words, self._listed, self._recursive = words, listed, recursive
        self._endings = ENDINGS.union(*(_MORE_ENDINGS.get(name, (f".{name}",)) for name in formats))

    def __iter__(self) -> Iterator[PictureFile]:
        """Find them.

        Raises:
            FilesError: there is no picture in a folder, or the list is none.
            OSError: a folder or the list cannot be read.
        """
        seen = Names()
        for file in self._of_words(seen):
            if seen.add(file.file):
                yield file
        if self._listed is not None:
            for name in _names_in(self._listed):
                if seen.add(name):
                    yield PictureFile(Path(name), PurePath(PurePath(name).name), name)

    def check(self, results: Iterable[Path]) -> int | None:
        """Count them, before anything is done; None if they are listed where it can be read only once.

        Of a list all lines are counted, and none of its files is looked at.

        Raises:
            FilesError: see `__iter__`; a result would be written over a picture or the list, or nothing is named.
            OSError: see `__iter__`.
        """
        if not self._words and self._listed is None:
            raise FilesError("no picture is named: give files, folders or patterns, or a list of names (--list)")
        if STANDARD_STREAM in self._words and self._listed == STANDARD_STREAM:
            raise FilesError("standard input is a picture (-) or a list of names (--list -), not both")
        before = [result for result in results if result.exists()]
        count = 0
        for file in self._of_words(Names()):
            count += 1
            check_results(before, [file])
        if self._listed is None:
            return count
        for result in before:
            _check_beside_list(result, self._listed)
        listed = None if self._listed == STANDARD_STREAM else _count_names(Path(self._listed))
        return None if listed is None else count + listed

    def _of_words(self, seen: Names) -> Iterator[PictureFile]:
        for word in self._words:
            for file in _of_word(word, self._recursive, self._endings):
                if seen.add(f"\0{_identity(file.path)}"):  # which no name has in it
                    yield file


def image_ids(paths: Sequence[Path]) -> list[int]:
    """What COCO's results call each picture: the number that its file is called (`000000000139.jpg` is 139).

    Where one is not called so, or two have one number, all are counted from 1.
    """
    names = [path.stem for path in paths]
    if all(name.isascii() and name.isdigit() and len(name) <= _MOST_DIGITS for name in names):
        numbers = [int(name) for name in names]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


def shown(path: Path | str) -> str:
    """A path in a line for people: what is no letter or sign, such as a line break in a name, is escaped."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(path))


def drawing_paths(files: Sequence[PictureFile], folder: Path, ending: str = ".png") -> list[Path]:
    """Where each picture's drawing goes in a folder, with the ending of what it is: no two to one file.

    They are called like their pictures, within sub-folders like theirs; where two would have one name, all are put
    into the sub-folders that tell them apart, and else keep their pictures' endings, too.
    """
    apart = _names_apart([Path(os.path.abspath(file.path)) for file in files])  # noqa: PTH100  # keeps links
    for names in (
        [file.name.with_suffix(ending) for file in files],
        [name.with_suffix(ending) for name in apart],
    ):
        if len({str(name).casefold() for name in names}) == len(names):
            break
    else:
        names = [name.with_name(f"{name.name}{ending}") for name in apart]
    return [folder / name for name in names]


def check_results(results: Iterable[Path], files: Iterable[PictureFile]) -> None:
    """Raise FilesError if a result would be written over a picture, under whatever name."""
    pictures = {_identity(file.path) for file in files}
    for result in results:
        if result.exists() and _identity(result) in pictures:
            raise FilesError(
                f"{shown(result)} is one of the pictures and would be replaced: write to another folder or file"
            )


def _of_word(word: str, recursive: bool, endings: frozenset[str]) -> Iterator[PictureFile]:
    path = Path(word)
    if word == STANDARD_STREAM:
        yield PictureFile(path, PurePath("standard-input"))
    elif path.is_dir():
        yield from _of_folder(path, recursive, endings)
    elif not path.exists() and (matches := sorted(glob.glob(word, recursive=True))):  # noqa: PTH207  # of any root
        for match in map(Path, matches):
            if not match.is_dir():
                yield PictureFile(match, PurePath(match.name))
    else:
        yield PictureFile(path, PurePath(path.name))


def _of_folder(folder: Path, recursive: bool, endings: frozenset[str]) -> Iterator[PictureFile]:
    nothing = True
    for path in _walk(folder, recursive, endings):
        nothing = False
        yield PictureFile(path, path.relative_to(folder))
    if nothing:
        advice = "" if recursive else "; --recursive looks into its sub-folders, too"
        raise FilesError(f"there is no picture ({', '.join(sorted(endings))}) in {shown(folder)}{advice}")


def _walk(folder: Path, recursive: bool, endings: frozenset[str]) -> Iterator[Path]:
    """The pictures in a folder by their names, one folder in memory at a time."""
    with os.scandir(folder) as entries:
        # Without what systems keep beside pictures, such as macOS's ._IMG_1.jpg.
        inner = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not entry.name.startswith(".")
        )
    for name, is_folder in inner:
        path = folder / name
        if is_folder:
            if recursive:
                yield from _walk(path, recursive, endings)
        elif path.suffix.lower() in endings and _may_be_file(path):
            yield path


def _may_be_file(path: Path) -> bool:
    """Whether it is a file, or a link to one that is missing, which is to be told of."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _opened(listed: str) -> BinaryIO:
    # Not through sys.stdin, which a thread that waits for more of it would hold when the process ends.
    return open(0, "rb", closefd=False) if listed == STANDARD_STREAM else Path(listed).open("rb")


def _names_in(listed: str) -> Iterator[str]:
    """The names in a list as they come. Raises FilesError if it is none, and OSError if it cannot be read."""
    with _opened(listed) as lines:
        for number, line in enumerate(lines):
            if b"\0" in line:
                raise _no_list(listed)
            name = line.removeprefix(b"" if number else _BYTE_ORDER_MARK).rstrip(b"\r\n")
            if name:
                yield os.fsdecode(name)


def _count_names(listed: Path) -> int | None:
    """How many lines a list has, if it can be read again. Raises what `_names_in` does."""
    if not stat.S_ISREG(listed.stat().st_mode):
        if listed.is_dir():
            raise FilesError(f"{shown(listed)} is a folder, and no list of names: give it without --list")
        return None
    count, last = 0, b"\n"
    with listed.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if b"\0" in chunk:
                raise _no_list(str(listed))
            count, last = count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")


def _no_list(listed: str) -> FilesError:
    return FilesError(f"{shown(listed)} is no list of names: give a text with the name of a file on each line")


def _check_beside_list(result: Path, listed: str) -> None:
    """Raise FilesError if a result is the list, or a picture, which may be in the list."""
    if listed != STANDARD_STREAM and _identity(result) == _identity(Path(listed)):
        raise FilesError(f"{shown(result)} is the list of names and would be replaced: write to another file")
    if result.is_file():
        with result.open("rb") as file:
            if format_of(file.read(64)) is not None:
                raise FilesError(f"{shown(result)} is a picture and would be replaced: write to another file")


def _names_apart(paths: Sequence[Path]) -> list[PurePath]:
    """Absolute paths within the innermost folder that has them all, or within their drives."""
    try:
        common = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on several drives of Windows
        return [path.relative_to(path.anchor) for path in paths]
    return [path.relative_to(common) for path in paths]


def _identity(path: Path) -> object:
    """What is the same for one file under several names."""
    try:
        status = path.stat()
    except OSError:
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else path.resolve()
