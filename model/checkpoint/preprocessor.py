"""How a Hugging Face folder says that an image is to be seen: its preprocessor's file, followed exactly or refused.

What is said is what the processors of transformers do with the file, which is not always what its fields suggest.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from model.checkpoint.errors import CheckpointError
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule

PREPROCESSOR_FILE = "preprocessor_config.json"
_PROCESSOR_FILE = "processor_config.json"  # of transformers 5, which looks into it first
# The processors that share DETR's code.
_KNOWN_TYPE = re.compile(r"(Conditional|Deformable)?Detr(FeatureExtractor|ImageProcessor(Fast|Pil)?)")
_DEFAULT_EDGES = Edges(800, 1333, "transformers")  # what they take where their file says nothing
_DEFAULT_LONGEST_EDGE = 1333
_BILINEAR = 2  # of PIL.Image.Resampling
_BYTE = 255  # a pixel's range, by which the graph divides


def read_preprocessor(folder: Path, rule: ResizeRule | None) -> tuple[ResizeRule, Normalization, list[str]]:
    """How the folder's model sees an image, and notes for a person.

    A `rule` replaces the folder's, which is then not even looked at; it rounds as transformers does.
    CheckpointError names the field that cannot be followed.
    """
    file, content = _preprocessor_of(folder)
    try:
        normalization = _normalization(content)
        if rule is not None:
            taken = replace(rule, rounding="transformers") if isinstance(rule, Edges | Bounds) else rule
            return taken, normalization, [f"resize rule: {taken}, as asked"]
        taken = _resize_rule(content)
        _refuse_padding(content, taken)
    except ValueError as error:
        raise CheckpointError(f"{file} has {error}") from error
    source = f"from {file}"
    if taken is _DEFAULT_EDGES:
        source = f"transformers' default, because {f'{file} has no size' if content else f'there is no {file}'}"
    return taken, normalization, [f"resize rule: {taken}, {source}"]


def _preprocessor_of(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name and content of the file that transformers would take, which is empty where there is none."""
    processor, preprocessor = folder / _PROCESSOR_FILE, folder / PREPROCESSOR_FILE
    if processor.is_file():
        content = read_json(processor).get("image_processor")
        if isinstance(content, dict):
            return processor.name, content
    return preprocessor.name, read_json(preprocessor) if preprocessor.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; CheckpointError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds no JSON object")
    return content


def _normalization(content: Mapping[str, Any]) -> Normalization:
    """(pixel * rescale_factor - mean) / std, as a mean and a deviation of pixel / 255."""
    factor = _number(content, "rescale_factor", 1 / _BYTE) if _flag(content, "do_rescale") else 1.0
    if factor <= 0:
        raise ValueError(f"rescale_factor={factor}, which leaves nothing of an image")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(content, "do_normalize"):
        mean = _three(content, "image_mean", IMAGENET_NORMALIZATION.mean)
        std = _three(content, "image_std", IMAGENET_NORMALIZATION.std)
    if min(std) <= 0:
        raise ValueError(f"image_std={list(std)}, where every deviation has to be above 0")
    if (scale := _BYTE * factor) == 1.0:
        return Normalization(mean, std)
    return Normalization(
        (mean[0] / scale, mean[1] / scale, mean[2] / scale), (std[0] / scale, std[1] / scale, std[2] / scale)
    )


def _resize_rule(content: Mapping[str, Any]) -> ResizeRule:
    """The rule that transformers' processors follow. ValueError where they would follow none."""
    kind = content.get("image_processor_type", content.get("feature_extractor_type", "DetrImageProcessor"))
    if not isinstance(kind, str) or not _KNOWN_TYPE.fullmatch(kind):
        raise ValueError(f"image_processor_type={kind!r}, which may resize in another way than DETR's; {_ask()}")
    if not _flag(content, "do_resize"):
        return OwnSize()
    if content.get("resample", _BILINEAR) != _BILINEAR:
        raise ValueError(f"resample={content['resample']!r}; only {_BILINEAR} (bilinear) is supported")
    size = content.get("size")
    if size is None:
        return _DEFAULT_EDGES
    if type(size) is int:  # files of the first years, with max_size beside it
        size = {"shortest_edge": size, "longest_edge": content.get("max_size", _DEFAULT_LONGEST_EDGE)}
    if isinstance(size, list) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    sides = {name: side for name, side in size.items() if side is not None} if isinstance(size, dict) else {}
    if any(type(side) is not int or side < 1 for side in sides.values()):
        raise ValueError(f"size={content['size']!r}, which is not in whole pixels; {_ask()}")
    match sides:
        case {"shortest_edge": shortest, "longest_edge": longest, **others} if not others:
            # Where the longest edge is the smaller of the two, it decides alone.
            return Edges(min(shortest, longest), longest, "transformers")
        case {"height": height, "width": width, **others} if not others:
            return FixedSize(height, width)
        case {"max_height": height, "max_width": width, **others} if not others:
            return Bounds(height, width, "transformers")
        case {"shortest_edge": shortest}:
            hint = f"{shortest},{content.get('max_size', _DEFAULT_LONGEST_EDGE)}"
        case {"longest_edge": longest}:
            hint = f"max:{longest}x{longest}"
        case _:
            hint = ""
    raise ValueError(f"size={content['size']!r}, which transformers' processor of DETR does not take; {_ask(hint)}")


def _refuse_padding(content: Mapping[str, Any], rule: ResizeRule) -> None:
    """ValueError where images are padded to a fixed size, which changes what transformers answers."""
    pad_size = content.get("pad_size")
    if pad_size is None or not _flag(content, "do_pad"):
        return
    sides = {"height": pad_size, "width": pad_size} if type(pad_size) is int else pad_size
    if isinstance(rule, FixedSize) and sides == {"height": rule.height, "width": rule.width}:
        return
    hint = f"max:{rule.max_width}x{rule.max_height}" if isinstance(rule, Bounds) else ""
    hint = f"{rule.shortest_edge},{rule.longest_edge}" if isinstance(rule, Edges) else hint
    why = "which changes the answers of transformers and is not done here"
    raise ValueError(f"pad_size={pad_size!r}, {why}; {_ask(hint)}")


def _ask(hint: str = "") -> str:
    return "say how images are to be resized with --resize" + (f", such as {hint}" if hint else "")


def _flag(content: Mapping[str, Any], name: str) -> bool:
    """A switch, which is on where the file does not have it, and off where it is null."""
    value = content.get(name, True)
    if value not in (True, False, None):
        raise ValueError(f"{name}={value!r}, which is neither true nor false")
    return bool(value)


def _number(content: Mapping[str, Any], name: str, default: float) -> float:
    value = content.get(name, default)
    if type(value) not in (int, float):
        raise ValueError(f"{name}={value!r}, which is no number")
    return float(value)


def _three(content: Mapping[str, Any], name: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    """A number for each of red, green and blue, or one for all of them."""
    value = content.get(name, list(default))
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3 or not all(type(part) in (int, float) for part in values):
        raise ValueError(f"{name}={value!r}, which is not three numbers")
    return float(values[0]), float(values[1]), float(values[2])
