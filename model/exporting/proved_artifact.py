"""Writing an artifact: the file appears under its name once it has been proved, and not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import onnx

from model.runtime.artifact.file import (
    BLANK_DIGEST,
    DIGEST_KEY,
    GOLDEN_KEY,
    METADATA_KEY,
    Artifact,
    read_artifact,
    stamp_digest,
)
from model.runtime.artifact.golden import GoldenSample
from model.runtime.artifact.metadata import Metadata

T = TypeVar("T")


def write_proved(
    out: Path, proto: onnx.ModelProto, metadata: Metadata, golden: GoldenSample, prove: Callable[[Artifact], T]
) -> T:
    """Write a graph with what makes it an artifact, let `prove` try it, and return what that says.

    An older file under that name is left as it was until `prove` has returned, and stays where it raises. Raises what
    `prove` does, ValueError where the metadata would not be served, OSError where the file cannot be written.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; the artifact is one file")
    texts = {METADATA_KEY: metadata.to_json(), GOLDEN_KEY: golden.to_text(), DIGEST_KEY: BLANK_DIGEST}
    onnx.helper.set_model_props(proto, texts)
    out.parent.mkdir(parents=True, exist_ok=True)
    unproved = out.with_name(f"{out.name}.unproved")
    try:
        unproved.write_bytes(stamp_digest(proto.SerializeToString()))
        proof = prove(read_artifact(unproved))
        unproved.replace(out)
    finally:
        unproved.unlink(missing_ok=True)
    return proof
