"""Which of the files that were named are videos or cameras; nothing here needs the extra `video`."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import PurePath

from model.runtime.image_formats import format_of
from model.runtime.installing import install_command
from service.predict.files import STANDARD_STREAM, FilesError, PictureFile, shown

# A file of these endings is a video unless its bytes are a picture's. A pipe is one by its ending alone.
_ENDINGS = frozenset(
    {
        ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".ivf", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
        ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
    }
)  # fmt: skip
# How files of containers begin: Matroska and WebM, FLV, ASF, Ogg, MPEG program streams and Y4M; AVI, MP4 and QuickTime
# say it after the first bytes.
_BEGINNINGS = (b"\x1aE\xdf\xa3", b"FLV\x01", b"0&\xb2u\x8ef\xcf\x11", b"OggS", b"\x00\x00\x01\xba", b"YUV4MPEG2 ")
_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"})
_ANIMATION = "GIF"  # a video unless its first frame is asked for
_HEAD = 64  # bytes that tell


@dataclass(eq=False)
class VideoFile(PictureFile):
    """A video, or a camera by its number or its device."""

    @property
    def camera(self) -> int | None:
        """The camera's number, where it is one that was named by it."""
        return int(str(self.path)) if _is_camera_number(self) else None

    @property
    def is_live(self) -> bool:
        """Whether what is not taken in time is gone."""
        return self.camera is not None or self.path.is_char_device()


def videos_among(files: Iterable[PictureFile], formats: Collection[str]) -> list[VideoFile]:
    """The files if they are videos and cameras, and none if they are pictures.

    Args:
        files: those that were named; gone through twice where some are videos.
        formats: words of formats that are opened as pictures beside JPEG, PNG and WebP.

    Raises:
        FilesError: some are videos and some pictures, or what reads videos is not installed.
    """
    videos, pictures = [], 0
    for file in files:  # of which no picture is kept, as there may be millions
        if _is_video(file, formats):
            videos.append(file)
        else:
            pictures += 1
    if videos and pictures:
        picture = next(file for file in files if not _is_video(file, formats))
        raise FilesError(
            f"{shown(videos[0].path)} is a video and {shown(picture.path)} is none: give pictures and videos to "
            "commands of their own"
        )
    if videos and find_spec("av") is None:
        command = install_command("detr-serve[video]")
        raise FilesError(f"{shown(videos[0].path)} is a video, for which a package is not installed: {command}")
    return [VideoFile(file.path, _name(file)) for file in videos]


def _name(file: PictureFile) -> PurePath:
    return PurePath(f"camera-{file.name}") if _is_camera_number(file) else file.name


def _is_video(file: PictureFile, formats: Collection[str]) -> bool:
    if _is_camera_number(file) or file.path.is_char_device():
        return True
    ending = file.path.suffix.lower()
    if ending in _PICTURES:  # the many pictures of a folder are not opened for this
        return False
    head = _head(file)
    picture = format_of(head)
    if picture == _ANIMATION:
        return "gif" not in formats
    is_container = head.startswith(_BEGINNINGS) or head[4:8] in _ATOMS or (head[:4], head[8:12]) == (b"RIFF", b"AVI ")
    return picture in (None, "ISO media") and (ending in _ENDINGS or is_container)


_PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".heif"})


def _is_camera_number(file: PictureFile) -> bool:
    return re.fullmatch(r"[0-9]{1,3}", str(file.path)) is not None and not file.path.exists()


def _head(file: PictureFile) -> bytes:
    """The first bytes; of a pipe with a name, whose bytes can be read once, none."""
    if str(file.path) == STANDARD_STREAM:
        stream = sys.stdin.buffer
        return stream.peek(_HEAD)[:_HEAD] if isinstance(stream, io.BufferedReader) else b""
    if not file.path.is_file():
        return b""
    try:
        with file.path.open("rb") as opened:
            return opened.read(_HEAD)
    except OSError:
        return b""
