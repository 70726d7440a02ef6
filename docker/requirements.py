"""Print what a serving image installs, one requirement a line.

pyproject.toml stays the only list. A wheel's own metadata cannot know which hardware an image is for: on
Linux it asks for onnxruntime-gpu, which runs on the CPU as well but is ten times the size. So an image
installs this list, and then the wheel without its dependencies.

Usage: python3 requirements.py cpu|cuda pyproject.toml
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], accelerator: str) -> list[str]:
    """Requirement lines for one accelerator.

    Args:
        project: the `[project]` table of pyproject.toml.
        accelerator: "cpu" takes the plain onnxruntime; "cuda" takes onnxruntime-gpu with the CUDA and cuDNN
            libraries.

    Raises:
        ValueError: the accelerator is neither, or the project names no such package.
    """
    plain = [line for line in project["dependencies"] if line.startswith("onnxruntime>")]
    either = [line for line in project["dependencies"] if not line.startswith("onnxruntime")]
    if accelerator == "cpu" and plain:
        # Without its marker, which keeps the plain package off the platforms that have GPU wheels.
        return [*either, *(line.partition(";")[0].strip() for line in plain)]
    if accelerator == "cuda":
        return [*either, *project["optional-dependencies"]["cuda"]]
    raise ValueError(f"ACCELERATOR is {accelerator!r}, and has to be 'cpu' or 'cuda'")


def main() -> None:
    """Read the command line and print the list."""
    accelerator, pyproject = sys.argv[1:]
    project = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]
    print("\n".join(requirements(project, accelerator)))


if __name__ == "__main__":
    main()
