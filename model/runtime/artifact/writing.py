"""Writing an artifact: the file appears under its name once it has been proved, and not before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from model.runtime.artifact.file import (
    BLANK_DIGEST,
    DIGEST_KEY,
    GOLDEN_KEY,
    METADATA_KEY,
    Artifact,
    read_artifact,
)
from model.runtime.artifact.golden import GoldenSample
from model.runtime.artifact.metadata import Metadata
from model.runtime.artifact.model_proto import metadata_fields
from model.runtime.whole_file import whole_file

T = TypeVar("T")


def write_proved(
    out: Path, model: bytes, metadata: Metadata, golden: GoldenSample, prove: Callable[[Artifact], T]
) -> T:
    """Write a graph with what makes it an artifact, let `prove` try it, and return what that says.

    `model` is a serialized ModelProto without metadata texts. An older file under that name is left as it was until
    `prove` has returned, and stays where it raises. Raises what `prove` does, ArtifactError where the file would not be
    served, OSError where it cannot be written.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; the artifact is one file")
    texts = sealed(model, {METADATA_KEY: metadata.to_json(), GOLDEN_KEY: golden.to_text()})
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out, "unproved") as unproved:
        with unproved.open("wb") as file:
            file.writelines((model, texts))
        return prove(read_artifact(unproved))


def sealed(model: bytes, texts: Mapping[str, str]) -> bytes:
    """What follows a serialized ModelProto in an artifact: metadata texts, and last the digest over all of it.

    The two are not joined here, because a model takes much memory.
    """
    fields = metadata_fields(texts)
    digest = hashlib.sha256(model)
    digest.update(fields + metadata_fields({DIGEST_KEY: BLANK_DIGEST}))
    return fields + metadata_fields({DIGEST_KEY: digest.hexdigest()})
