"""The rooms of the two packages, and what each may import, as docs/architecture.md describes them.

Every file of both packages is read, none is imported: an import inside a function counts like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("service", "model")

# Every room, which is a folder or a file of its own, and what it may import: what its arrows lead to, and what the
# arrows there lead to. All arrows lead down.
ARROWS: dict[str, tuple[str, ...]] = {
    "service.cli": (
        "service.server",
        "service.predict",
        "service.bench",
        "service.doctor",
        "model.cli",
        "model.command_parser",
    ),
    "service.doctor": ("service.lifecycle",),
    "service.server": ("service.app", "service.wire"),
    "service.app": ("service.http",),
    "service.in_process": ("service.predict", "service.http"),
    "service.predict": ("service.lifecycle",),
    "service.ray": ("service.app", "service.in_process"),  # which only Ray imports
    "service.triton": ("service.images",),  # which Triton alone imports
    "service.client": (),  # which nobody of the project imports, either: it is the clients' side
    "service.bench": ("service.http",),
    "service.http": ("service.lifecycle",),
    "service.wire": ("service.process", "service.schemas"),
    "service.lifecycle": ("service.batching", "service.images", "model.hub"),
    "service.batching": ("service.process",),
    "service.images": ("service.process", "service.schemas"),
    "service.process": ("service.settings", "service.errors"),
    "service.schemas": ("model.runtime",),
    "service.settings": ("service.setting_types", "model.runtime"),
    "service.setting_types": ("model.runtime",),
    "service.errors": (),
    "model.command_parser": ("model.runtime",),
    "model.cli": ("model.train", "model.fetch", "model.models", "model.quantize"),
    "model.train": ("model.training", "model.hub"),
    "model.fetch": ("model.export", "model.hub"),
    "model.models": ("model.hub",),
    "model.quantize": ("model.quantization", "model.evaluate"),
    "model.quantization": ("model.data",),
    "model.evaluate": ("model.evaluation", "model.export", "model.hub"),
    "model.export": ("model.exporting",),
    "model.training": (
        "model.training.settings",
        "model.training.start",
        "model.evaluation",
        "model.exporting",
        "model.loss",
    ),
    "model.training.start": ("model.training.settings", "model.checkpoint", "model.loss"),
    "model.training.settings": ("model.training.logs", "model.loss", "model.data"),
    "model.training.logs": ("model.evaluation", "model.checkpoint"),
    "model.evaluation": ("model.data",),
    "model.exporting": ("model.templates",),
    "model.templates": ("model.checkpoint",),
    "model.checkpoint": ("model.network", "model.categories"),
    "model.data": ("model.data.formats",),
    "model.data.formats": ("model.network", "model.categories"),
    "model.loss": ("model.network",),
    "model.network": ("model.runtime",),
    "model.categories": ("model.runtime",),
    "model.hub": ("model.templates",),
    "model.runtime": (),
    "model.runtime.answers": ("model.runtime.engines", "model.runtime.picture_memory"),
    "model.runtime.engines": ("model.runtime.artifact", "model.runtime.installing"),
    "model.runtime.artifact": (
        "model.runtime.categories",
        "model.runtime.preprocess",
        "model.runtime.whole_file",
    ),
    "model.runtime.whole_file": (),
    "model.runtime.allocations": (),
    "model.runtime.decode": (
        "model.runtime.allocations",
        "model.runtime.coded_frames",
        "model.runtime.decode_budget",
        "model.runtime.image_formats",
        "model.runtime.jpeg_segments",
        "model.runtime.kept_blocks",
        "model.runtime.orientation",
        "model.runtime.png_chunks",
        "model.runtime.resize_rule",
        "model.runtime.to_rgb",
        "model.runtime.webp_chunks",
        "model.runtime.webp_pixels",
    ),
    "model.runtime.to_rgb": ("model.runtime.picture_memory",),
    "model.runtime.picture_memory": ("model.runtime.kept_blocks",),
    "model.runtime.kept_blocks": (),
    "model.runtime.webp_pixels": ("model.runtime.picture_memory",),
    "model.runtime.coded_frames": ("model.runtime.sequence_headers",),
    "model.runtime.sequence_headers": (),
    "model.runtime.webp_chunks": ("model.runtime.python_lock",),
    "model.runtime.decode_budget": ("model.runtime.python_lock",),
    "model.runtime.image_formats": ("model.runtime.installing",),
    "model.runtime.jpeg_segments": ("model.runtime.python_lock",),
    "model.runtime.orientation": ("model.runtime.resampling",),
    "model.runtime.png_chunks": ("model.runtime.python_lock",),
    "model.runtime.python_lock": (),
    "model.runtime.installing": (),
    "model.runtime.nearest": (),
    "model.runtime.preprocess": ("model.runtime.resampling", "model.runtime.resize_rule"),
    "model.runtime.resampling": ("model.runtime.picture_memory",),
    "model.runtime.resize_rule": (),
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


def roots(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The top-level packages that the import statements among some nodes name."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    return max((room for room in ARROWS if within(module, room)), key=len)


def below(room: str) -> set[str]:
    """Every room that arrows lead to from this one."""
    return {further for arrow in ARROWS[room] for further in {arrow, *below(arrow)}}


def children(package: str, names: Iterable[str]) -> set[str]:
    return {name.removeprefix(f"{package}.").partition(".")[0] for name in names if name.startswith(f"{package}.")}


def public_names(module: str) -> Iterator[str]:
    """Classes, functions and type aliases that a module defines for others; aliases are what is named in CamelCase."""
    for node in parsed(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign) and not _makes_type_variable(node.value):
            names = [target.id for target in node.targets if isinstance(target, ast.Name) and not target.id.isupper()]
            names = [name for name in names if name[:1].isupper()]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def _makes_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "TypeVar"
