import ast
import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parents[3] / "model" / "runtime"
MODULES = sorted(path.stem for path in RUNTIME.glob("*.py") if path.stem != "__init__")

# What the runtime may rest on, and what it must not even find.
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "lightning", "onnx", "scipy", "fastapi",
        "service"}:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
"""


def test_every_module_imports_without_torch_and_without_a_web_framework() -> None:
    imports = "".join(f"import model.runtime.{name}\n" for name in MODULES)
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCK + imports],
        cwd=RUNTIME.parents[1],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


def test_the_block_works() -> None:
    result = subprocess.run([sys.executable, "-c", BLOCK + "import torch"], capture_output=True, text=True)
    assert "torch is blocked" in result.stderr


@pytest.mark.parametrize("name", [*MODULES, "__init__"])
def test_every_public_name_has_a_docstring(name: str) -> None:
    tree = ast.parse((RUNTIME / f"{name}.py").read_text())
    assert ast.get_docstring(tree), name
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name}"


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_short(name: str) -> None:
    source = (RUNTIME / f"{name}.py").read_text()
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 60, f"{name}.{node.name}"
