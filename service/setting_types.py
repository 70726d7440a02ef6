"""The types of settings: what a value may be, and what it is called in the help of the command line."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

from model.runtime.engines.devices import check_device_words
from model.runtime.engines.engine import DEVICES
from model.runtime.nearest import did_you_mean

# Above this Pillow warns of a decompression bomb, and the service never turns that protection off.
PILLOW_MAX_PIXELS = 89_478_485

Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
LogFormat = Literal["auto", "text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True)
class Metavar:
    """What a value is called in the help of the command line."""

    name: str


Milliseconds = Annotated[float, Field(gt=0, le=3_600_000), Metavar("MS")]
Seconds = Annotated[int, Field(ge=1, le=3_600), Metavar("S")]
Count = Annotated[int, Field(ge=1, le=100_000), Metavar("COUNT")]
ConnectionCount = Annotated[int, Field(ge=4, le=100_000), Metavar("COUNT")]
Threads = Annotated[int, Field(ge=1, le=1_024), Metavar("COUNT")]
Bytes = Annotated[int, Field(ge=1_024, le=2**40), Metavar("BYTES")]
PixelCount = Annotated[int, Field(ge=1, le=PILLOW_MAX_PIXELS), Metavar("PIXELS")]
CanvasMultiple = Annotated[int, Field(ge=32, le=8_192, multiple_of=32), Metavar("PIXELS")]
Address = Annotated[str, Field(min_length=1), Metavar("ADDRESS")]
PortNumber = Annotated[int, Field(ge=0, le=65_535), Metavar("NUMBER")]
Switch = Annotated[bool, Metavar("true|false")]
File = Annotated[Path, Metavar("FILE")]
Folder = Annotated[Path, Metavar("DIR")]
_ORIGIN = r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
Origin = Annotated[str, Field(pattern=rf"^(\*|{_ORIGIN})$")]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _device_words(value: object) -> object:
    words = _split(value)
    if isinstance(words, list | tuple):
        for word in words:
            kind = re.split("[:*]", word)[0]
            if kind not in DEVICES and (question := did_you_mean(kind, DEVICES)):
                raise ValueError(f"there is no device {word!r}{question}")
        check_device_words(words)
    return words


def _text_or_none(value: object) -> object:
    return (os.fspath(value) if isinstance(value, os.PathLike) else value) or None


# An empty one is none, so that a compose file can pass on a variable that may not be set.
ModelName = Annotated[str | None, BeforeValidator(_text_or_none), Metavar("FILE|NAME")]
Revision = Annotated[str | None, BeforeValidator(_text_or_none), Metavar("TEXT")]
# NoDecode: what the environment gives is split at its commas, and is not JSON.
Devices = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_device_words), Metavar("DEVICE,...")]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split), Metavar("ORIGIN,...")]
Site = Annotated[
    Annotated[str, Field(pattern=rf"^{_ORIGIN}(/[\w./-]*)?$")] | None, BeforeValidator(_text_or_none), Metavar("URL")
]
Sites = Annotated[
    tuple[Annotated[str, Field(pattern=rf"^{_ORIGIN}/?$")], ...],
    NoDecode,
    BeforeValidator(_split),
    Metavar("ORIGIN,..."),
]
Formats = Annotated[
    tuple[Literal["avif", "bmp", "gif", "heic", "tiff"], ...], NoDecode, BeforeValidator(_split), Metavar("FORMAT,...")
]
