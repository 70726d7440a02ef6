"""A small synthetic data set that the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.data.shapes.command import write_shapes


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, {"train": 24, "val": 6}, size=64, seed=7)
    return root
