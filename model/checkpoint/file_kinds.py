"""What a file is by its bytes, whatever its name says: a kind that holds weights, or what to say of any other.

Downloads that went wrong leave a file of the right name: the page that asks for a login, the pointer that Git LFS puts
in a file's place, half of the file.
"""

import enum
import json
import struct
import zipfile
from pathlib import Path

from model.checkpoint.errors import CheckpointError, printable
from model.runtime.artifact.file import ArtifactError, read_artifact

START = 4096  # bytes at a file's begin that are looked at
_ZIP = b"PK\x03\x04"
# A pickle of protocol 2 to 5 that begins with the number by which torch knows its files of before zip archives.
_OLD_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
# What to do where a server sent something else than the file.
_DOWNLOAD_AGAIN = "as a server sends in place of a file, to ask for a login or to say what is wrong; download it again"
_UNPACK = "unpack it and give the checkpoint that is in it"
_PICTURE = "a checkpoint holds the weights of a network"

# Position, bytes there, and what such a file is.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", f"it is a JPEG picture; {_PICTURE}"),
    (0, b"\x89PNG\r\n\x1a\n", f"it is a PNG picture; {_PICTURE}"),
    (0, b"GIF8", f"it is a GIF picture; {_PICTURE}"),
    (8, b"WEBP", f"it is a WebP picture; {_PICTURE}"),
    (0, b"II*\x00", f"it is a TIFF picture; {_PICTURE}"),
    (0, b"MM\x00*", f"it is a TIFF picture; {_PICTURE}"),
    (4, b"ftyp", f"it is a film or a HEIC or AVIF picture; {_PICTURE}"),
    (0, b"%PDF", "it is a PDF document"),
    (0, b"\x1f\x8b", f"it is compressed with gzip: {_UNPACK}"),
    (0, b"BZh", f"it is compressed with bzip2: {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"it is compressed with xz: {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"it is compressed with Zstandard: {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"it is a 7z archive: {_UNPACK}"),
    (0, b"Rar!", f"it is a RAR archive: {_UNPACK}"),
    (257, b"ustar", f"it is a tar archive: {_UNPACK}"),
    (0, b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, as Keras writes; only weights of PyTorch are read"),
    (4, b"TFL3", "it is a TensorFlow Lite model; only weights of PyTorch are read"),
    (0, b"GGUF", "it is a GGUF file; only weights of PyTorch are read"),
    (0, b"\x93NUMPY", "it is a NumPy array; a checkpoint holds many, each with its name"),
    (0, b"SQLite format 3", "it is an SQLite database"),
    (0, b"\x7fELF", "it is a program"),
    (0, b"MZ", "it is a program"),
)


class WeightsFile(enum.Enum):
    """The kinds of files that weights are read from."""

    SAFETENSORS = "safetensors"
    TORCH = "what torch.save writes"


def kind_of(path: Path) -> WeightsFile:
    """What the file holds weights in. CheckpointError, saying what the file is, where it holds none that are read."""
    try:
        with path.open("rb") as file:
            start = file.read(START)
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file") from error
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror}") from error
    # First, as the length that such a file begins with can look like the begin of any other.
    if _begins_as_safetensors(start):
        (header,) = struct.unpack("<Q", start[:8])
        if 8 + header > size:
            raise CheckpointError(f"it is no safetensors file in full: it ends within its header, after {size} bytes")
        return WeightsFile.SAFETENSORS
    if start.startswith(_ZIP):
        return _in_zip(path)
    if start.startswith(b"\x80"):
        if _OLD_TORCH in start[:32]:
            return WeightsFile.TORCH
        raise CheckpointError("it is not a file that torch.save wrote, but a pickle of another program")
    raise CheckpointError(_of_bytes(start) or _of_text(path, start) or _of_graph(path, start) or _unknown(start))


def _in_zip(path: Path) -> WeightsFile:
    """The same for a file that begins as a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(
            "it is not a file that torch.save wrote, or not all of it: its end is missing or damaged, as after a "
            "download that broke off"
        ) from error
    if "constants.pkl" in names:
        raise CheckpointError(
            "it is a TorchScript program; save its weights where it was made: torch.save(model.state_dict(), FILE)"
        )
    if "data.pkl" in names:
        return WeightsFile.TORCH
    if any(name.endswith(".npy") for name in names):
        raise CheckpointError("it is an archive of NumPy arrays; only weights of PyTorch are read")
    if "model.weights.h5" in names:
        raise CheckpointError("it is a Keras model; only weights of PyTorch are read")
    raise CheckpointError(f"it is a zip archive, and not one that torch.save wrote: {_UNPACK}")


def _begins_as_safetensors(start: bytes) -> bool:
    """Whether a header's length, of at most 100 MB, is followed by a JSON object."""
    return len(start) > 8 and start[8:9] == b"{" and start[4:8] == bytes(4)


def _of_bytes(start: bytes) -> str:
    if not start:
        return "it is empty"
    if not any(start):
        return "it begins with zeros only, as a download that was never written does; download it again"
    return next((what for at, magic, what in _MAGIC if start[at : at + len(magic)] == magic), "")


def _of_text(path: Path, start: bytes) -> str:
    if b"\x00" in start:
        return ""
    text = start.decode("utf-8-sig", "ignore").lstrip()
    begin = text[:512].lower()
    if begin.startswith(("version https://git-lfs", "version https://hawser")):
        return (
            "it is a Git LFS pointer, which stands for the file in its repository: get the file itself with "
            "`git lfs pull` there, or download it"
        )
    if begin.startswith(("<!doctype html", "<html", "<head")) or "<html" in begin:
        return f"it is an HTML page, {_DOWNLOAD_AGAIN}"
    if begin.startswith("<"):
        return f"it is an XML document, {_DOWNLOAD_AGAIN}"
    if begin.startswith(("{", "[")):
        return _of_json(path)
    if text and all(c.isprintable() or c.isspace() for c in text):
        return f"it is text, which begins with {printable(text, 40)!r}; a checkpoint holds the weights of a network"
    return ""


def _of_json(path: Path) -> str:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "weight_map" in content:
        return "it is the index of weights in several files: give the folder that they are in"
    return "it is a JSON file; give the folder that it is in, or the file that holds the weights"


def _of_graph(path: Path, start: bytes) -> str:
    """The same for an ONNX file: a protobuf message that begins with the format's version, field 1."""
    if start[:1] != b"\x08" or len(start) < 3 or start[2] not in b"\x12\x1a\x22\x2a\x32\x3a\x42\x72":
        return ""
    try:
        provenance = read_artifact(path).metadata.provenance
    except ArtifactError:
        return "it is an ONNX file, and no checkpoint: give the weights that it was made from"
    source = provenance.get("source")
    named = f", {printable(source)}," if isinstance(source, str) else ""
    return (
        "it is a model file that is exported already: serve it as it is, with `detr serve --model FILE`; to train or "
        f"export it again, give the weights that it was made from{named} or a name on the hub"
    )


def _unknown(start: bytes) -> str:
    return (
        f"it is not a file that torch.save wrote, nor any other with weights: its first bytes are {start[:8].hex(' ')}"
    )
