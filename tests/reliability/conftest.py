"""Servers that several tests share, because each leaves them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from tests.end_to_end.conftest import demo as demo
from tests.end_to_end.conftest import jpeg as jpeg
from tests.end_to_end.conftest import need as need
from tests.reliability.figures import write_down
from tests.server_process import ServerProcess, scripted, serving
from tests.tiny_artifact import write_tiny_artifact

Scripted = Callable[..., AbstractContextManager[ServerProcess]]

# So that a loaded machine is not taken for a fault.
PATIENT = ("--request-timeout-ms", "600000", "--header-timeout-ms", "600000", "--body-timeout-ms", "600000")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that any server can load at once."""
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx", "panoptic")


@pytest.fixture
def start(tiny: Path, tmp_path: Path) -> Scripted:
    """Run a scripted server for the length of a `with` block: `start("--max-queue-size", "2", script={...})`."""
    return partial(scripted, tiny, tmp_path)


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One patient scripted server for a module's tests that leave it as it was."""
    with scripted(tiny, tmp_path_factory.mktemp("server"), *PATIENT) as running:
        yield running


@pytest.fixture(scope="module")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One patient server of the demo model for a module's tests."""
    with serving(None, tmp_path_factory.mktemp("demo"), *PATIENT, "--batch-timing-ms", "0") as running:
        yield running


# The property of a test's report in which a figure comes back from the process that measured it.
FIGURE = "figure"


class Measured(Protocol):
    """Notes a figure of a row, in words and, for whoever compares runs, in numbers."""

    def __call__(self, row: str, figure: str, **numbers: float) -> None: ...


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Measured:
    """Note a figure of a row; all are told at the end of the run, for docs/reliability.md."""

    def note(row: str, figure: str, **numbers: float) -> None:
        request.node.user_properties.append((FIGURE, f"{row:>4}  {figure}"))
        write_down(request.node.nodeid, row, figure, numbers)

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what was measured."""
    for report in [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]:
        for name, text in report.user_properties:
            if name == FIGURE:
                terminalreporter.write_line(text)
