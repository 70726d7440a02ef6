"""The importer of Hugging Face folders, and the name by which what it made is known in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from model.checkpoint.errors import CheckpointError
from model.hub.names import HubError

_DIGITS = 8  # hexadecimal


def import_to(folder: Path, out: Path, name: str, provenance: Mapping[str, Any]) -> tuple[str, ...]:
    """Write the artifact of a folder, or of a `.safetensors` checkpoint; see `import_folder`.

    Returns:
        What a person should know of it, a line each.

    Raises:
        HubError: it cannot be read, or there is no graph for it.
        OSError: the artifact cannot be written.
    """
    from model.templates.importing import import_folder  # brings ONNX Runtime, for the proof

    try:
        return import_folder(folder, out, name=name, provenance=provenance)
    except (CheckpointError, ValueError) as error:
        raise HubError(str(error)) from error


@cache
def importer_key() -> str:
    """A digest of everything that decides how an artifact is made: another one makes its own."""
    digest = hashlib.sha256()
    with suppress(PackageNotFoundError):  # where this runs from a source tree that is not installed
        digest.update(version("detr-serve").encode())
    for package in ("model.templates", "model.checkpoint"):
        for file in sorted(_files_below(files(package)), key=str):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:_DIGITS]


def _files_below(folder: Traversable) -> list[Traversable]:
    below = [entry for entry in folder.iterdir() if entry.name != "__pycache__"]
    return [file for entry in below for file in (_files_below(entry) if entry.is_dir() else [entry])]
