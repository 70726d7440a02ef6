"""The artifact: one .onnx file with weights, graph, metadata and golden sample, and a digest over all of it.

A damaged ONNX file usually still loads and then answers nonsense, so nothing looks into the file before its
digest has been checked. The digest is SHA-256 over the whole file with the digest's own 64 characters set to
zeros.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from model.runtime.artifact import model_proto
from model.runtime.artifact.golden import GoldenSample
from model.runtime.artifact.metadata import FORMAT_VERSION, Metadata
from model.runtime.artifact.wire_format import NotAMessageError, TruncatedMessageError

__all__ = [
    "BLANK_DIGEST",
    "DIGEST_KEY",
    "FORMAT_VERSION",
    "GOLDEN_KEY",
    "METADATA_KEY",
    "Artifact",
    "ArtifactError",
    "GoldenSample",
    "Metadata",
    "read_artifact",
]

METADATA_KEY = "detr.metadata"  # Metadata.to_json()
GOLDEN_KEY = "detr.golden"  # GoldenSample.to_text()
DIGEST_KEY = "detr.sha256"  # 64 lower-case hexadecimal digits
BLANK_DIGEST = "0" * 64

# No larger message can be read by protobuf, and so by no runtime.
MAX_BYTES = 2**31 - 1

# The digest's entry as protobuf writes it (StringStringEntryProto: key is field 1, value is field 2), so that
# the digest is found and checked without parsing anything.
_DIGEST_MARK = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY.encode() + b"\x12" + bytes([len(BLANK_DIGEST)])


class ArtifactError(Exception):
    """A file is no artifact that can be served; the message is one line, the file's name and the reason."""


@dataclass(frozen=True)
class Artifact:
    """A file that passed every check that needs no engine."""

    path: Path
    digest: str  # SHA-256 as the file states it, and as it was verified; 64 hexadecimal digits
    metadata: Metadata
    golden: GoldenSample = field(repr=False)
    # The verified bytes: an engine opens these, so that nobody can change the file in between.
    data: bytes = field(repr=False)


def read_artifact(path: str | Path) -> Artifact:
    """Read and verify an artifact: existence, digest, format version, metadata, golden sample.

    Raises ArtifactError with the first thing that is wrong.
    """
    path = Path(path).absolute()  # so that even "." has a name to complain about
    data = _read(path)
    digest = _verified_digest(path.name, data)
    try:
        texts = model_proto.metadata_props(data)
        if METADATA_KEY not in texts:
            raise ValueError("has no metadata")
        metadata = Metadata.from_json(texts[METADATA_KEY])
        if GOLDEN_KEY not in texts:
            raise ValueError("has no golden sample")
        golden = GoldenSample.from_text(texts[GOLDEN_KEY])
        golden.check(metadata)
        if model_proto.has_external_data(data):
            raise ValueError("keeps weights in another file, which its digest does not cover")
    except ValueError as error:
        raise ArtifactError(f"{path.name}: {error}") from error
    return Artifact(path, digest, metadata, golden, data)


def _read(path: Path) -> bytes:
    """The file's bytes. Raises ArtifactError if there is no regular, readable, non-empty file."""
    try:
        if path.is_dir():
            raise ArtifactError(f"{path.name}: is a directory, not a model file")
        if not path.exists():
            raise ArtifactError(f"{path.name}: there is no such file")
        if not path.is_file():
            raise ArtifactError(f"{path.name}: is not a regular file")
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError(f"{path.name}: has more than 2 GiB, which no ONNX model in one file can have")
        data = path.read_bytes()
    except MemoryError:
        raise ArtifactError(f"{path.name}: does not fit into memory") from None
    except OSError as error:
        raise ArtifactError(f"{path.name}: cannot be read: {error.strerror or type(error).__name__}") from error
    if not data:
        raise ArtifactError(f"{path.name}: is empty")
    return data


def _verified_digest(name: str, data: bytes) -> str:
    try:
        start = _digest_position(data)
    except ValueError as error:
        raise ArtifactError(f"{name}: {_why_no_digest(data) or error}") from error
    found = data[start : start + len(BLANK_DIGEST)]
    digest = hashlib.sha256(memoryview(data)[:start])  # in pieces: a copy with a blank digest would be as large again
    digest.update(BLANK_DIGEST.encode())
    digest.update(memoryview(data)[start + len(BLANK_DIGEST) :])
    if not hmac.compare_digest(found, digest.hexdigest().encode()):
        raise ArtifactError(f"{name}: its content does not match its digest: it is damaged or was changed after export")
    return found.decode("ascii")


def _digest_position(data: bytes) -> int:
    """Where the digest's characters start. Raises ValueError unless there is exactly one digest."""
    count = data.count(_DIGEST_MARK)
    start = data.find(_DIGEST_MARK) + len(_DIGEST_MARK)
    if count > 1:
        raise ValueError("has more than one digest")
    if count == 0 or start + len(BLANK_DIGEST) > len(data):
        raise ValueError("has no digest: it was not written by `detr export`")
    return start


def _why_no_digest(data: bytes) -> str | None:
    """A better word than "no digest" for what is not even a whole ONNX file."""
    try:
        return None if model_proto.has_graph(data) else "is not an ONNX model"
    except TruncatedMessageError:
        # Every ONNX file starts with its format version (field 1, a number); other files rarely do.
        return "is truncated" if data[:1] == b"\x08" else "is not an ONNX model"
    except NotAMessageError:
        return "is not an ONNX model"
