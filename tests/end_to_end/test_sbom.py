"""docker/sbom.py, which writes down what an image holds; test_docker.py reads what it wrote there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from tests.end_to_end.conftest import REPOSITORY


def printed() -> str:
    command = [sys.executable, str(REPOSITORY / "docker/sbom.py")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.row(id="S10")
def test_the_bill_of_materials_names_everything_that_is_installed() -> None:
    bill = json.loads(printed())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    described = bill["metadata"]["component"]
    assert (described["type"], described["name"]) == ("application", "detr-serve")
    listed = {(entry["name"], entry["version"]) for entry in [described, *bill["components"]]}
    installed = {(entry.metadata["Name"], entry.version) for entry in distributions()}
    assert listed == {(re.sub(r"[-_.]+", "-", name).lower(), version) for name, version in installed}
    for entry in bill["components"]:
        assert entry["purl"] == entry["bom-ref"] == f"pkg:pypi/{entry['name']}@{entry['version']}"


def test_the_same_packages_give_the_same_bytes() -> None:
    assert printed() == printed()
