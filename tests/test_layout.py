"""The rooms of the two packages: what is in them, what may import what, and how long they may be."""

from __future__ import annotations

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import architecture_pictures
from tests.layout import (
    ARROWS,
    MODULES,
    PACKAGES,
    REPOSITORY,
    below,
    children,
    imports,
    parsed,
    public_names,
    room_of,
    roots,
    within,
)


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


def test_the_client_needs_three_packages_and_none_of_the_project() -> None:
    """So it can be imported beside any `model` and `service`; what it hands answers to is imported when asked for.

    Modules that a tool for annotation imports need that tool, and no other module imports them.
    """
    needed, handed_to = {"httpx", "numpy", "PIL"}, {"tqdm", "supervision", "fiftyone"}
    by_tools = {"service.client.detr_client.cvat": {"cvat_sdk"}}
    for module in (module for module in MODULES if within(module, "service.client")):
        anywhere = set(roots(ast.walk(parsed(module)))) - by_tools.get(module, set())
        assert anywhere <= {*sys.stdlib_module_names, "detr_client"} | needed | handed_to, module
        assert not handed_to & set(roots(parsed(module).body)), module


def test_files_and_functions_stay_short() -> None:
    long = [module for module, path in MODULES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 300]
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                long += [f"{module}.{node.name}"] if node.end_lineno - node.lineno >= 60 else []
    assert not long


def test_the_pictures_of_the_architecture_can_be_drawn(tmp_path: Path) -> None:
    architecture_pictures.draw(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert {name for name in drawn if f"]({name})" in text} == drawn


def test_the_architecture_describes_every_room() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {room for room in ARROWS if (REPOSITORY / room.replace(".", "/")).is_dir()} - {"service", "model"}
    assert {room for room in rooms if f"| `{room.replace('.', '/')}/` |" not in text} == set()


def test_a_public_name_means_one_thing() -> None:
    homes: dict[str, set[str]] = {}
    for module in MODULES:
        for name in public_names(module):
            homes.setdefault(name, set()).add(module)
    # A command is a module with these two, which is what the command line knows of it.
    commands = {"add_arguments", "run"}
    assert {name: modules for name, modules in homes.items() if len(modules) > 1 and name not in commands} == {}
