"""Artifacts made of models that are called by name, kept for the next start.

    CACHE/OWNER--NAME/COMMIT/WEIGHTS-IMPORTER.onnx     one artifact: what was imported, and by which importer
    CACHE/OWNER--NAME/refs/REVISION                    the commit that a branch or tag was when it was last asked
    CACHE/folders/CONTENT-IMPORTER.onnx                of a folder on this machine

A file appears under its name when it is whole, and is the same whoever makes it, so that any number of processes may
use one cache at once.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from model.hub.importer import importer_key
from model.hub.names import HubError, HubName
from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.whole_file import whole_file

logger = logging.getLogger(__name__)

_KEY_DIGITS = 16  # of a SHA-256, hexadecimal


def default_cache() -> Path:
    """DETR_MODEL_CACHE, which is a setting of the service; without it beside huggingface_hub's own cache."""
    given = os.environ.get("DETR_MODEL_CACHE")
    return Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "detr-serve"


class ArtifactCache:
    """A folder of artifacts.

    Args:
        root: the folder, made when it is first written to.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._importer = root, importer_key()

    def find(self, name: HubName, commit: str) -> Artifact | None:
        """The artifact of a commit, if there is one that is whole."""
        folder = self._repository(name) / commit
        return next((found for path in self._usable(folder) if (found := _whole(path)) is not None), None)

    def find_folder(self, content: str) -> Artifact | None:
        """The artifact of a folder's content, by its SHA-256, if there is one that is whole."""
        path = self._root / "folders" / self._file(content)
        return _whole(path) if path.is_file() else None

    def last_commit(self, name: HubName) -> str | None:
        """The commit that a revision was when it was last asked; None if it never was."""
        try:
            return self._reference(name).read_text(encoding="ascii").strip() or None
        except (OSError, ValueError):
            return None

    def remember(self, name: HubName, commit: str) -> None:
        """Note which commit a revision is now. Raises HubError if it cannot be written."""
        if self.last_commit(name) != commit:
            self._write(self._reference(name), lambda path: path.write_text(f"{commit}\n", encoding="ascii"))

    def add(self, name: HubName, commit: str, weights: str, make: Callable[[Path], object]) -> Artifact:
        """Make an artifact and keep it.

        Args:
            name: of the model.
            commit: the commit of its files.
            weights: the SHA-256 of its weights.
            make: writes the artifact to a path.

        Raises:
            HubError: it cannot be written.
            ArtifactError: what was written is none. What else `make` raises goes through.
        """
        return self._add(self._repository(name) / commit / self._file(weights), make)

    def add_folder(self, content: str, make: Callable[[Path], object]) -> Artifact:
        """The same for a folder on this machine, by the SHA-256 of its content."""
        return self._add(self._root / "folders" / self._file(content), make)

    def check_writable(self) -> None:
        """Raise HubError where nothing can be written, before anything is downloaded for it."""
        probe = self._root / f".{uuid.uuid4().hex}"
        self._write(probe, lambda path: path.touch())
        probe.unlink(missing_ok=True)

    def holds(self, name: HubName) -> bool:
        """Whether there is an artifact of a model, of whichever commit."""
        return any(True for folder in self._repository(name).glob("*") for _ in self._usable(folder))

    def _add(self, path: Path, make: Callable[[Path], object]) -> Artifact:
        self._write(path, make)
        return read_artifact(path)

    def _write(self, path: Path, make: Callable[[Path], object]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as unfinished:
                make(unfinished)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = "--model-cache, or DETR_MODEL_CACHE, names another folder"
            raise HubError(f"the cache {self._root} cannot be written ({reason}); {advice}") from error

    def _usable(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"[!.]*-{self._importer}.onnx"))

    def _file(self, digest: str) -> str:
        return f"{digest[:_KEY_DIGITS]}-{self._importer}.onnx"

    def _repository(self, name: HubName) -> Path:
        return self._root / name.repo.replace("/", "--")

    def _reference(self, name: HubName) -> Path:
        return self._repository(name) / "refs" / quote(name.revision, safe="")


def _whole(path: Path) -> Artifact | None:
    try:
        return read_artifact(path)
    except ArtifactError as error:
        logger.warning("the cache's artifact is made anew: %s", error)
        return None
