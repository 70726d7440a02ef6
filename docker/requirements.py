"""Print what an image installs, one requirement a line: what `make lock` pins in docker/requirements-*.txt.

pyproject.toml stays the only list. A wheel's own metadata cannot know which hardware an image is for: on
Linux it asks for onnxruntime-gpu, which runs on the CPU as well but is ten times the size. So an image
installs this list, and then the wheel without its dependencies.

Usage: python3 requirements.py openvino|cpu|cuda|build pyproject.toml
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(pyproject: dict[str, Any], flavour: str) -> list[str]:
    """Requirement lines for one flavour of the image, or for building the wheel.

    Args:
        pyproject: all of pyproject.toml.
        flavour: "cpu" takes the plain onnxruntime, "openvino" OpenVINO as well; "cuda" takes onnxruntime-gpu with
            the CUDA and cuDNN libraries. "build" takes what makes the wheel, which no image keeps.

    Raises:
        ValueError: the flavour is none of these.
    """
    project = pyproject["project"]
    plain = [line for line in project["dependencies"] if line.startswith("onnxruntime>")]
    extras = project["optional-dependencies"]
    # Traces cost nothing until a variable names a collector, and whoever sets it in a cluster cannot install them.
    either = [line for line in project["dependencies"] if not line.startswith("onnxruntime")] + extras["otel"]
    # Without its marker, which keeps the plain package off the platforms that have GPU wheels.
    cpu = [*either, *(line.partition(";")[0].strip() for line in plain)]
    by_flavour: dict[str, list[str]] = {
        "openvino": [*cpu, *extras["openvino"]],
        "cpu": cpu,
        "cuda": [*either, *extras["cuda"]],
        "build": pyproject["build-system"]["requires"],
    }
    if flavour not in by_flavour:
        raise ValueError(f"the image is {flavour!r}, and has to be one of {', '.join(by_flavour)}")
    return by_flavour[flavour]


def main() -> None:
    """Read the command line and print the list."""
    flavour, pyproject = sys.argv[1:]
    print("\n".join(requirements(tomllib.loads(Path(pyproject).read_text(encoding="utf-8")), flavour)))


if __name__ == "__main__":
    main()
