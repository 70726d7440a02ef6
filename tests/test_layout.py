"""The rooms of the two packages: what is in them, what may import what, and how long they may be.

Every file of both packages is read, none is imported: an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("service", "model")

# Every room, which is a folder or a file of its own, and what it may import: what its arrows lead to, and what the
# arrows there lead to. All arrows lead down.
ARROWS: dict[str, tuple[str, ...]] = {
    "service.cli": ("service.server", "service.predict", "service.bench", "model.cli"),
    "service.server": ("service.app", "service.wire"),
    "service.app": ("service.http",),
    "service.predict": ("service.lifecycle",),
    "service.bench": ("service.http",),
    "service.http": ("service.lifecycle",),
    "service.wire": ("service.process", "service.schemas"),
    "service.lifecycle": ("service.batching", "service.images"),
    "service.batching": ("service.process",),
    "service.images": ("service.process", "service.schemas"),
    "service.process": ("service.settings", "service.errors"),
    "service.schemas": ("model.runtime",),
    "service.settings": ("model.runtime",),
    "service.errors": (),
    "model.cli": ("model.train", "model.fetch", "model.quantize"),
    "model.train": ("model.training",),
    "model.fetch": ("model.export",),
    "model.quantize": ("model.quantization", "model.evaluate"),
    "model.quantization": ("model.data",),
    "model.evaluate": ("model.evaluation", "model.export"),
    "model.export": ("model.exporting", "model.checkpoint"),
    "model.training": ("model.evaluation", "model.exporting", "model.loss", "model.checkpoint"),
    "model.evaluation": ("model.data",),
    "model.exporting": ("model.network",),
    "model.checkpoint": ("model.network", "model.categories"),
    "model.data": ("model.network", "model.categories"),
    "model.loss": ("model.network",),
    "model.network": ("model.runtime",),
    "model.categories": ("model.runtime",),
    "model.runtime": (),
    "model.runtime.answers": ("model.runtime.engines",),
    "model.runtime.engines": ("model.runtime.artifact",),
    "model.runtime.artifact": ("model.runtime.categories", "model.runtime.preprocess"),
    "model.runtime.decode": (
        "model.runtime.decode_budget",
        "model.runtime.jpeg_segments",
        "model.runtime.orientation",
        "model.runtime.png_chunks",
    ),
    "model.runtime.decode_budget": (),
    "model.runtime.jpeg_segments": (),
    "model.runtime.orientation": ("model.runtime.preprocess",),
    "model.runtime.png_chunks": (),
    "model.runtime.preprocess": (),
    "model.runtime.categories": (),
}


def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name; a package is named like its folder."""
    files = [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]
    parts = {path: path.relative_to(REPOSITORY).with_suffix("").parts for path in files}
    return {".".join(part for part in parts[path] if part != "__init__"): path for path in files}


MODULES = modules()


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """The modules of the packages that a module imports, wherever in it the import stands."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] in PACKAGES)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ARROWS if within(module, room)), key=len)


def below(room: str) -> set[str]:
    """Every room that arrows lead to from this one."""
    return {further for arrow in ARROWS[room] for further in {arrow, *below(arrow)}}


def children(package: str, names: Iterable[str]) -> set[str]:
    return {name.removeprefix(f"{package}.").partition(".")[0] for name in names if name.startswith(f"{package}.")}


@pytest.mark.parametrize("package", [*PACKAGES, "model.runtime"])
def test_a_package_has_the_rooms_that_are_listed_and_nothing_beside_them(package: str) -> None:
    assert children(package, MODULES) == children(package, ARROWS)


def test_arrows_lead_down() -> None:
    TopologicalSorter(ARROWS).prepare()


def test_a_module_imports_from_its_own_room_and_from_those_below() -> None:
    upward = []
    for module in MODULES.keys() - PACKAGES:
        allowed = {room_of(module), *below(room_of(module))}
        upward += [f"{module} imports {name}" for name in imports(module) if not any(within(name, r) for r in allowed)]
    assert not upward


def test_one_module_is_the_door_to_the_web_servers_insides() -> None:
    outside = [module for module in MODULES if not within(module, "service.wire")]
    entered = {(module, name) for module in outside for name in imports(module) if within(name, "service.wire")}
    assert entered == {("service.server", "service.wire.serving")}


def test_files_and_functions_stay_short() -> None:
    long = [module for module, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 300]
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                long += [f"{module}.{node.name}"] if node.end_lineno - node.lineno >= 60 else []
    assert not long
