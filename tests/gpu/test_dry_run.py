"""The whole suite with the CPU in the GPU's place, as `make gpu DRY_RUN=1` runs it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.server_process import REPOSITORY


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_part_passes_with_the_cpu_in_the_gpus_place(tmp_path: Path) -> None:
    env = os.environ | {"DETR_GPU_OUT": str(tmp_path)}
    done = subprocess.run(
        ["make", "gpu", "DRY_RUN=1"], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    report = json.loads((tmp_path / "gpu.json").read_text())
    parts = report["parts"]
    assert {part["name"]: part["why"] for part in parts if part["outcome"] != "passed"} == {}
    assert len(parts) >= 25
    assert all(part["figures"] for part in parts)
    assert (tmp_path / "gpu.md").read_text().count("\n| ") == 1 + 1 + len(parts)
