"""A hub with a model on it, and a way to ask for it in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import FakeHub, fake_hub
from tests.tiny_artifact import write_tiny_artifact

REPOSITORY = Path(__file__).parents[3]
NAME = "facebook/detr-resnet-50"
CONFIG = b'{"model_type": "detr"}'
PATIENCE_S = 120


@dataclass(frozen=True)
class Answer:
    """What a process that asked for a model has said."""

    path: Path | None  # of the artifact
    lines: list[str]  # of standard error

    @property
    def refusal(self) -> str:
        """The one line that says why there is none."""
        (line,) = [line for line in self.lines if line.startswith("HubError ")]
        assert line == self.lines[-1]
        assert line.isprintable()
        return line.removeprefix("HubError ")

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.lines if line.startswith("WARNING ")]


@dataclass
class Machine:
    """A machine with its caches, on which models are asked for."""

    folder: Path
    hub: FakeHub
    artifact: Path

    def command(self, name: str, *revision: str) -> list[str]:
        words = [self.artifact, self.folder / "record", self.folder / "artifacts", name, *revision]
        return [sys.executable, "-m", "tests.model.hub.asking", *map(str, words)]

    def environment(self, **more: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "DETR_"))}
        return inherited | {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf")} | more

    def ask(self, name: str = NAME, *revision: str, **environment: str) -> Answer:
        """Look for a model in a new process."""
        done = subprocess.run(
            self.command(name, *revision), env=self.environment(**environment), cwd=REPOSITORY, capture_output=True,
            text=True, check=False, timeout=PATIENCE_S,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        path = Path(done.stdout.strip()) if done.returncode == 0 else None
        return Answer(path, done.stderr.splitlines())

    def imports(self) -> list[dict[str, Any]]:
        """What was imported, in order."""
        record = self.folder / "record"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


@pytest.fixture(scope="session")
def played_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_artifact(tmp_path_factory.mktemp("played") / "played.onnx", "detection")


@pytest.fixture
def weights() -> bytes:
    return os.urandom(100_000)


@pytest.fixture
def hub(weights: bytes) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.push(NAME, {"config.json": CONFIG, "preprocessor_config.json": b"{}", "model.safetensors": weights,
                        "pytorch_model.bin": b"a pickle", "README.md": b"about it"})  # fmt: skip
        yield hub


@pytest.fixture
def machine(tmp_path: Path, hub: FakeHub, played_artifact: Path) -> Machine:
    return Machine(tmp_path, hub, played_artifact)
