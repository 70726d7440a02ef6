"""Every part of `make gpu` fails by itself: what lacks a package or a GPU is named, and all are in one table."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.session import BUDGET_S, DRY_RUN, OUT, device_name, put_cpu_in_place
from tests.gpu.table import Part, write_report

# Of one part, which would otherwise leave none for the others.
_PART_S = 90

_PARTS: dict[str, Part] = {}  # by the identifier of the test
_began = time.monotonic()

if DRY_RUN:
    put_cpu_in_place()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bound the time of each part."""
    for item in items:
        if item.get_closest_marker("gpu"):
            _PARTS[item.nodeid] = Part(_named(item))
            if not DRY_RUN:
                item.add_marker(pytest.mark.timeout(_PART_S))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what cannot be run here, or not in time."""
    if item.nodeid not in _PARTS or DRY_RUN:
        return
    if why := _missing():
        pytest.skip(why)
    if time.monotonic() - _began > BUDGET_S:
        pytest.skip(f"{BUDGET_S:g} s were over before its turn")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Note what became of a part; a package that is not installed is no failure."""
    report = yield
    if (part := _PARTS.get(item.nodeid)) is not None:
        error = call.excinfo.value if call.excinfo is not None else None
        if isinstance(error, ModuleNotFoundError) and _is_foreign(str(error.name)):
            report.outcome = "skipped"
            report.longrepr = (str(item.path), None, f"Skipped: it needs the package {error.name}")
        part.seconds += report.duration
        if report.failed:
            part.outcome, part.why = "failed", f"{type(error).__name__}: {str(error).strip()[:300]}"
        elif report.skipped:
            part.outcome, part.why = "not run", str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.when == "call":
            part.outcome = "passed"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the report, and print its table."""
    ran = [part for part in _PARTS.values() if part.outcome != "not run" or part.why]
    if not ran:
        return
    facts: dict[str, object] = {
        "device": _told(device_name),
        "machine": platform.platform(),
        "versions": _versions(),
        "seconds": round(time.monotonic() - _began),
        "dry run": DRY_RUN,
    }
    path = write_report(OUT, facts, ran)
    terminalreporter.write_line(path.read_text(encoding="utf-8"))
    terminalreporter.write_line(f"written to {path} and {path.with_suffix('.json')}")


@pytest.fixture
def part(request: pytest.FixtureRequest) -> Part:
    """What this part measures is told to it."""
    return _PARTS[request.node.nodeid]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the model files of the session are."""
    return tmp_path_factory.mktemp("models")


@cache
def _missing() -> str | None:
    from model.runtime.engines.cuda import missing_for_cuda

    return missing_for_cuda()


def _is_foreign(name: str) -> bool:
    return name.partition(".")[0] not in ("model", "service", "tests")


def _named(item: pytest.Item) -> str:
    name = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    values = getattr(item, "callspec", None)
    return f"{name} ({values.id})" if values is not None else name


def _versions() -> str:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("onnxruntime-gpu", "torch", "numpy"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    return ", ".join(found)


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except Exception as error:
        return f"unknown ({type(error).__name__})"
