"""A server of the demo model that wants a key, the same model in process, and a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from detr_client import Client, LocalModel, load
from tests.client_packages import write_metadata
from tests.layout import REPOSITORY
from tests.server_process import ServerProcess, serving

KEY = "a key of more than 16 characters".replace(" ", "-")
EXAMPLE = REPOSITORY / "docs" / "example.jpg"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    keys = folder / "keys"
    keys.write_text(KEY)
    options = ("--batch-timing-ms", "0", "--retry-after-s", "1", "--api-keys-file", str(keys))
    with serving(None, folder, *options) as process:
        yield process


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.url, api_key=KEY) as made:
        yield made


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    sys.path.insert(0, str(write_metadata(tmp_path_factory.mktemp("metadata"))))
    try:
        with load(device="cpu", threads=1) as model:
            yield model
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="session")
def example() -> Path:
    return EXAMPLE
