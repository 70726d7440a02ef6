"""A program that looks for a model by its name, with the real huggingface_hub and no torch, as a start of `detr` does.

Usage: python -m tests.model.hub.asking ARTIFACT RECORD CACHE NAME [REVISION]

The import itself is played: ARTIFACT is what becomes of every folder, and RECORD gets a line for each import. The path
that was found is printed; what went wrong is one line on standard error.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCKED = ("torch", "torchvision", "lightning", "onnx", "onnxscript", "scipy", "transformers")


class Blocker:
    """Finds that none of them exists."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise for the blocked."""
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)


def play_imports(artifact: str, record: str) -> None:
    """From now on, nothing of training can be imported, and every folder becomes this artifact."""
    sys.meta_path.insert(0, Blocker())
    from model.hub import finding

    def play_import(folder: Path, out: Path, name: str, provenance: Mapping[str, Any]) -> tuple[str, ...]:
        files = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [folder.name]
        with Path(record).open("a") as file:
            file.write(json.dumps({"name": name, "files": files, "provenance": provenance}) + "\n")
        shutil.copy(artifact, out)
        return ("a note",)

    vars(finding)["import_to"] = play_import


def main() -> int:
    """Read the command line and look for the model."""
    artifact, record, cache, name, *revision = sys.argv[1:]
    play_imports(artifact, record)
    from model.hub.cache import ArtifactCache
    from model.hub.finding import find_model
    from model.hub.names import HubError

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        print(find_model(name, revision[0] if revision else None, ArtifactCache(Path(cache)), bars=False))
    except HubError as error:
        print(f"HubError {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
