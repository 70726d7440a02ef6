"""Print what a serving image installs, one requirement a line.

pyproject.toml stays the only list. A wheel's own metadata cannot know which hardware an image is for: on
Linux it asks for onnxruntime-gpu, which runs on the CPU as well but is ten times the size. So an image
installs this list, and then the wheel without its dependencies.

Usage: python3 requirements.py openvino|cpu|cuda pyproject.toml
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(project: dict[str, Any], accelerator: str) -> list[str]:
    """Requirement lines for one accelerator.

    Args:
        project: the `[project]` table of pyproject.toml.
        accelerator: "cpu" takes the plain onnxruntime, "openvino" OpenVINO as well; "cuda" takes onnxruntime-gpu with
            the CUDA and cuDNN libraries.

    Raises:
        ValueError: the accelerator is none of these.
    """
    plain = [line for line in project["dependencies"] if line.startswith("onnxruntime>")]
    either = [line for line in project["dependencies"] if not line.startswith("onnxruntime")]
    extras = project["optional-dependencies"]
    # Without its marker, which keeps the plain package off the platforms that have GPU wheels.
    cpu = [*either, *(line.partition(";")[0].strip() for line in plain)]
    by_accelerator = {
        "openvino": [*cpu, *extras["openvino"]],
        "cpu": cpu,
        "cuda": [*either, *extras["cuda"]],
    }
    if accelerator not in by_accelerator:
        raise ValueError(f"ACCELERATOR is {accelerator!r}, and has to be one of {', '.join(by_accelerator)}")
    return by_accelerator[accelerator]


def main() -> None:
    """Read the command line and print the list."""
    accelerator, pyproject = sys.argv[1:]
    project = tomllib.loads(Path(pyproject).read_text(encoding="utf-8"))["project"]
    print("\n".join(requirements(project, accelerator)))


if __name__ == "__main__":
    main()
