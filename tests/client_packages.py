"""Where this checkout's `detr_client` lies, and what an install of the checkout would say of it."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from tests.layout import REPOSITORY

CLIENT = REPOSITORY / "service" / "client"


def write_metadata(folder: Path) -> Path:
    """Metadata of the project as they are written at an install, for an environment that was installed before."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    info = folder / f"detr_serve-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder


def environment_of_checkout(folder: Path) -> dict[str, str]:
    """Environment of a process that imports this checkout, wherever it runs; `folder` takes its metadata."""
    places = [REPOSITORY, CLIENT, write_metadata(folder)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}
