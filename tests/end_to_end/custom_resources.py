"""Custom resources held against their definitions, strictly: an unknown field is a problem at any depth.

Their definitions are on PyPI, as classes that clients were generated into. The classes are read as text and never
imported, so nothing of them has to be installed.
"""

from __future__ import annotations

import ast
import re
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

_CLASS = re.compile(r"^class (\w+)\(.*?(?=^class |\Z)", re.MULTILINE | re.DOTALL)
_SCALARS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "object": (object,),
    "IntOrString": (int, str),
    "ResourceQuantity": (int, str),
    "V1beta1MetricQuantity": (int, str),
}
# Classes that others call by another name than the client of Kubernetes, which has them.
_ELSEWHERE = {"ObjectMeta": "V1ObjectMeta", "K8sIoApiAppsV1DeploymentStrategy": "V1DeploymentStrategy"}


class Definitions:
    """The classes of some wheels, by their names."""

    def __init__(self, wheels: Iterable[Path]) -> None:
        """Read all that the wheels hold."""
        self._texts: dict[str, str] = {}
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as files:
                for name in files.namelist():
                    if re.search(r"(?<!aio/client/)models/.*\.py$", name):
                        self._texts |= {found[1]: found[0] for found in _CLASS.finditer(files.read(name).decode())}

    def problems(self, resource: dict[str, Any]) -> list[str]:
        """What is wrong with a resource; each begins with the path of the field."""
        kind, version = str(resource["kind"]), str(resource["apiVersion"]).rpartition("/")[2]
        return list(self._of_class(resource, kind if kind in self._texts else version.capitalize() + kind, ""))

    def _of_class(self, value: object, name: str, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{path} is no mapping"
            return
        types, required = _fields(self._texts[name])
        yield from (f"{path}.{key} is missing" for key in required - value.keys())
        for key, part in value.items():
            if key not in types:
                yield f"{path}.{key} is not a field of {name}"
            else:
                yield from self._of_type(part, types[key], f"{path}.{key}")

    def _of_type(self, value: object, kind: ast.expr, path: str) -> Iterator[str]:
        match kind:
            case ast.Subscript(ast.Name("Annotated"), ast.Tuple([inner, *_])) | ast.Subscript(
                ast.Name("Optional"), inner
            ):
                yield from self._of_type(value, inner, path)
            case ast.BinOp(left, ast.BitOr(), right):
                yield from min((list(self._of_type(value, side, path)) for side in (left, right)), key=len)
            case ast.Subscript(ast.Name("list" | "List"), inner):
                if not isinstance(value, list):
                    yield f"{path} is no list"
                    return
                for number, part in enumerate(value):
                    yield from self._of_type(part, inner, f"{path}[{number}]")
            case ast.Subscript(ast.Name("dict" | "Dict"), ast.Tuple([_, inner])) | ast.Call(
                ast.Name("dict"), [_, inner]
            ):
                if not isinstance(value, dict):
                    yield f"{path} is no mapping"
                    return
                for key, part in value.items():
                    yield from self._of_type(part, inner, f"{path}.{key}")
            case ast.Subscript(ast.Name("Literal"), choices):
                allowed = ast.literal_eval(choices)
                if value not in (allowed if isinstance(allowed, tuple) else (allowed,)):
                    yield f"{path} is {value!r}, which is none of {allowed}"
            case ast.Name(name) | ast.Constant(str(name)):
                yield from self._of_name(value, name, path)
            case _:
                if value is not None:
                    yield f"{path} has to be {ast.unparse(kind)}"

    def _of_name(self, value: object, name: str, path: str) -> Iterator[str]:
        if name in _SCALARS:
            if not isinstance(value, _SCALARS[name]) or (isinstance(value, bool) and name != "bool"):
                yield f"{path} is {value!r}, which is no {name}"
            return
        yield from self._of_class(value, _ELSEWHERE.get(name, name), path)


@cache
def _fields(text: str) -> tuple[dict[str, ast.expr], set[str]]:
    """The type of each field of a class by the field's name in YAML, and the fields that have to be there."""
    (definition,) = ast.parse(text.rstrip() + "\n").body[:1]
    assert isinstance(definition, ast.ClassDef)
    plain: dict[str, ast.expr] = {}
    for statement in definition.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            plain[statement.targets[0].id] = statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            plain[statement.target.id] = statement.value
    if "openapi_types" in plain:
        types, names = (ast.literal_eval(plain[part]) for part in ("openapi_types", "attribute_map"))
        return {names[key]: ast.parse(kind, mode="eval").body for key, kind in types.items()}, set()
    annotated = {
        _alias(statement): (statement.annotation, statement.value is None)
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign) and "ClassVar" not in ast.unparse(statement.annotation)
    }
    return {key: kind for key, (kind, _) in annotated.items()}, {
        key for key, (_, has_to) in annotated.items() if has_to
    }


def _alias(statement: ast.AnnAssign) -> str:
    for call in ast.walk(statement.annotation):
        if isinstance(call, ast.keyword) and call.arg == "alias":
            return str(ast.literal_eval(call.value))
    return ast.unparse(statement.target)
