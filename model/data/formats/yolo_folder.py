"""Which pictures and classes a YOLO data set has: from data.yaml, Darknet's obj.data, or classes.txt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.data.formats.file_names import FileNames
from model.data.formats.layouts import Place, matching, names_of
from model.data.formats.picture_files import pictures_in

LOOKED_FOR = ("data.yaml", "another .yaml with names", "obj.data", "classes.txt", "obj.names")
_CLASS_LISTS = ("classes.txt", "obj.names")
_SPLIT_FOLDERS = ("images/{name}", "{name}/images", "{name}")
_LISTS_OF_SPLITS = {"train": "train", "val": "valid", "test": "test"}  # what obj.data calls them


@dataclass(frozen=True)
class YoloFolder:
    """The pictures of a split, and the classes."""

    file: Path  # that names the classes
    base: Path  # folder of the data set
    names: Mapping[int, str]  # of the classes, by index
    pictures: Sequence[Path]
    keypoint_values: int  # numbers of a line of a pose that come after its box; 0 where there are no poses

    def name_of(self, picture: Path) -> str:
        """A picture's name below the base, or its whole path where it lies elsewhere."""
        return (picture.relative_to(self.base) if picture.is_relative_to(self.base) else picture.resolve()).as_posix()

    def categories(self) -> list[dict[str, Any]]:
        """The classes as COCO has them."""
        return [{"id": index, "name": name} for index, name in self.names.items()]


def search_yolo(root: Path, split: str | None) -> Place | None:
    """Where a folder, or the file of a data set, names the pictures of a split; for None, of data without splits.

    Raises ValueError where several files could be meant, or what is there is malformed.
    """
    file = _configuration(root)
    if file is not None:
        entries = _splits_of(file)
        key = next((name for name in names_of(split) if entries.get(name)), None) if split else None
        whole = split is None and not any(entries.values())
        return Place("YOLO", file, (), split=key) if key or whole else None
    lists = [path for name in _CLASS_LISTS for path in matching(root, name)] or [
        path for name in _CLASS_LISTS for folder in ("images", "labels") for path in matching(root, f"{folder}/{name}")
    ]
    if not lists:
        return None
    if split is None:
        return Place("YOLO", lists[0], tuple(matching(root, "images") or [root]))
    patterns = [pattern.format(name=name) for name in names_of(split) for pattern in _SPLIT_FOLDERS]
    folders = [path for pattern in patterns for path in matching(root, pattern) if path.is_dir()]
    return Place("YOLO", lists[0], tuple(folders[:1]), split=split) if folders else None


def _configuration(root: Path) -> Path | None:
    """The file that names splits and classes, if there is one."""
    if root.is_file():
        return root
    for pattern in ("data.yaml", "data.yml", "obj.data"):
        if found := matching(root, pattern):
            return found[0]
    others = [path for pattern in ("*.yaml", "*.yml") for path in matching(root, pattern)]
    naming = [path for path in others if _names_classes(path)]
    if len(naming) > 1:
        named = " and ".join(path.name for path in naming)
        raise ValueError(f"{root} holds {named}: say with --annotations which is meant")
    return naming[0] if naming else None


def _names_classes(path: Path) -> bool:
    try:
        content = _yaml(path)
    except ValueError:
        return False
    return isinstance(content, dict) and "names" in content


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def _settings(file: Path) -> dict[str, Any]:
    """What data.yaml says, or obj.data in the same words."""
    if file.suffix.lower() in (".yaml", ".yml"):
        content = _yaml(file)
        if not isinstance(content, dict) or "names" not in content:
            raise ValueError(f"{file} names no classes: it must have `names`, and `train` and `val`")
        return content
    lines = [line.partition("=") for line in file.read_text(encoding="utf-8-sig").splitlines() if "=" in line]
    said = {key.strip(): value.strip() for key, _, value in lines}
    if "names" not in said:
        raise ValueError(f"{file} names no classes: it must have a line `names = FILE`")
    classes = _existing(file.parent, said["names"]) or file.with_suffix(".names")
    splits = {ours: said[theirs] for ours, theirs in _LISTS_OF_SPLITS.items() if said.get(theirs)}
    return {"names": _lines(classes), **splits}


def _splits_of(file: Path) -> dict[str, Any]:
    settings = _settings(file)
    return {key: settings.get(key) for names in map(names_of, ("train", "val", "test")) for key in names}


def read_folder(place: Place) -> YoloFolder:
    """The pictures and classes of what `search_yolo` found.

    Raises FileNotFoundError or ValueError, naming what is missing or malformed.
    """
    file = place.annotations
    if place.images:  # classes only, and a folder of pictures
        base = place.images[0]
        settings: dict[str, Any] = {"names": _lines(file)}
        pictures = [base / name for name in pictures_in(base)]
    else:
        base, settings = file.parent, _settings(file)
        entry = (
            settings.get(place.split)
            if place.split
            else next((name for name in ("images", ".") if (base / name).is_dir()), ".")
        )
        pictures = list(dict.fromkeys(_pictures(file, settings, place.split or "images", entry)))
    if not pictures:
        raise ValueError(f"{file}: {place.split or base} names no picture")
    return YoloFolder(file, base, _names(settings, file), pictures, _keypoint_values(settings, file))


def _names(settings: Mapping[str, Any], file: Path) -> dict[int, str]:
    """The names of the classes by index; of a list, the positions are the indices."""
    names, count = settings["names"], settings.get("nc")
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else []
    found: dict[int, str] = {}
    for index, name in pairs:
        if not str(index).isdecimal() or not isinstance(name, (str, int, float)) or not str(name).strip():
            raise ValueError(
                f"{file} has class {index!r} with the name {name!r}: a class is a whole number with a name"
            )
        found[int(index)] = str(name)
    if not found:
        raise ValueError(f"{file} has names {names!r}: it must be a list of names, or names by number")
    if isinstance(count, int) and count != len(found):
        raise ValueError(f"{file} has nc {count} but {len(found)} names: they must be as many")
    return dict(sorted(found.items()))


def _keypoint_values(settings: Mapping[str, Any], file: Path) -> int:
    shape = settings.get("kpt_shape")
    if shape is None:
        return 0
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f"{file} has kpt_shape {shape!r}: it must be two whole numbers")
    points, values = shape
    return int(points * values)


def _pictures(file: Path, settings: Mapping[str, Any], key: str, entry: Any) -> Iterator[Path]:
    """The pictures of an entry: a folder of them, a file that lists them, or several of these."""
    said = settings.get("path")
    above = [file.parent / said, file.parent] if isinstance(said, str) else [file.parent]
    for word in entry if isinstance(entry, list) else [entry]:
        place = next((found for base in above if (found := _existing(base, word))), None)
        if place is None:
            tried = " and ".join(dict.fromkeys(str(base / str(word)) for base in above))
            raise FileNotFoundError(f"{file} has {key}: {word}, which is not there: looked for {tried}")
        if place.is_dir():
            yield from (place / name for name in pictures_in(place))
        else:
            yield from _listed(place, file.parent)


def _existing(base: Path, word: Any) -> Path | None:
    """What an entry names, if it is there. Roboflow writes `../train/images` for what lies beside the file itself."""
    if not isinstance(word, str):
        return None
    inside = word.removeprefix("../")
    there = [
        base / word,
        base / inside,
        base / Path(inside).name if inside.endswith((".txt", ".names")) else base / word,
    ]
    return next((path for path in there if path.exists()), None)


def _listed(file: Path, base: Path) -> Iterator[Path]:
    """The pictures in a list, each below the list's folder or the data set's, in its own words or another machine's."""
    names = _lines(file)
    files = FileNames(base).find(names)
    for number, (name, found) in enumerate(zip(names, files, strict=True), 1):
        path = next((place for place in (file.parent / name, base / found) if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{file}, picture {number} of the list, is {name!a}, which is not in {base}")
        yield path


def _lines(file: Path) -> list[str]:
    """The lines of a text that are not empty."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {file}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text: byte {error.start:,} is none of UTF-8") from error
    return [line.strip() for line in lines if line.strip()]
