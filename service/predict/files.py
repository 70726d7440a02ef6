"""Which pictures the words of a command line mean, and where what is made of them goes: never over a picture."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from service.predict.pictures import EncodedPicture

# The endings of pictures that are looked for in folders; of a file that is named, only its bytes count.
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# Of pictures that are opened where they are asked for.
_MORE_ENDINGS = {"heic": (".heic", ".heif"), "tiff": (".tif", ".tiff")}
_MOST_DIGITS = 15  # of a number that JSON's readers keep as it is
STANDARD_STREAM = "-"  # where a file is named: standard input, or output


class FilesError(Exception):
    """Words that mean no picture, or results that would replace a picture; the message is one line."""


@dataclass(eq=False)
class PictureFile(EncodedPicture):
    """A file to look at, or standard input."""

    path: Path
    name: PurePath  # of the file within the folder that was named, or alone

    def read(self) -> bytes:
        """Its bytes. Raises OSError if it cannot be read."""
        return sys.stdin.buffer.read() if str(self.path) == STANDARD_STREAM else self.path.read_bytes()


def find_pictures(words: Iterable[str], *, recursive: bool = False, formats: Iterable[str] = ()) -> list[PictureFile]:
    """The pictures that words mean, each once, in their order; those of a folder by name.

    A word is a file, a folder, a pattern (which shells without patterns of their own hand on, and which quotes keep
    from the shell) or "-" for standard input. A file that is missing stays among them, to be told of like one that is
    broken.

    Args:
        words: of the command line.
        recursive: whether pictures in sub-folders of the folders count.
        formats: that are opened beside JPEG, PNG and WebP, as the setting has them.

    Raises:
        FilesError: there is no picture in a folder.
    """
    found: dict[object, PictureFile] = {}
    endings = ENDINGS.union(*(_MORE_ENDINGS.get(name, (f".{name}",)) for name in formats))
    for word in words:
        for file in _of_word(word, recursive, endings):
            found.setdefault(_identity(file.path), file)
    return list(found.values())


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


def shown(path: Path) -> str:
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


def _of_folder(folder: Path, recursive: bool, endings: frozenset[str]) -> list[PictureFile]:
    paths = sorted(
        path
        for path in (folder.rglob("*") if recursive else folder.iterdir())
        if path.suffix.lower() in endings and not _is_hidden(path.relative_to(folder)) and _may_be_file(path)
    )
    if not paths:
        advice = "" if recursive else "; --recursive looks into its sub-folders, too"
        raise FilesError(f"there is no picture ({', '.join(sorted(endings))}) in {shown(folder)}{advice}")
    return [PictureFile(path, path.relative_to(folder)) for path in paths]


def _may_be_file(path: Path) -> bool:
    """Whether it is a file, or a link to one that is missing, which is to be told of."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def _is_hidden(path: PurePath) -> bool:
    """Whether a file is among those that systems keep beside pictures, such as macOS's ._IMG_1.jpg."""
    return any(part.startswith(".") for part in path.parts)


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
