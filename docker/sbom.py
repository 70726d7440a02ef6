"""Print what is installed beside this Python, as a CycloneDX 1.6 bill of materials in JSON.

It is printed while the image is built, by the image's own Python, and kept in the image. It needs nothing that is not
in Python, so that the list brings no packages that would have to be listed themselves. The same packages give the same
bytes.

Usage: /opt/detr/bin/python sbom.py > sbom.cdx.json
"""

import json
import re
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from typing import Any

PROJECT = "detr-serve"


def bill_of_materials(installed: Iterable[Distribution]) -> dict[str, Any]:
    """The project as the component that is described, and everything else as its parts, sorted by name.

    Raises:
        KeyError: the project itself is not installed.
    """
    components = {entry["name"]: entry for entry in map(component, installed)}
    described = components.pop(PROJECT) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": described},
        "components": [components[name] for name in sorted(components)],
    }


def component(distribution: Distribution) -> dict[str, Any]:
    """One package with its version, the address that vulnerability databases know it by, and its licence if it says."""
    name = re.sub(r"[-_.]+", "-", distribution.metadata["Name"]).lower()
    address = f"pkg:pypi/{name}@{distribution.version}"
    entry: dict[str, Any] = {
        "type": "library",
        "bom-ref": address,
        "name": name,
        "version": distribution.version,
        "purl": address,
    }
    if "License-Expression" in distribution.metadata:
        entry["licenses"] = [{"expression": distribution.metadata["License-Expression"]}]
    return entry


if __name__ == "__main__":
    print(json.dumps(bill_of_materials(distributions()), indent=1))
