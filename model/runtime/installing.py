"""What to type to install what is missing here: the command that works in this environment, active or not."""

from __future__ import annotations

import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

PROJECT = "detr-serve"
_SOURCE = Path(__file__).resolve().parents[2]  # the clone, where these packages do not lie in an environment


def install_command(requirement: str) -> str:
    """The shell command that installs a requirement into the environment that runs this.

    Args:
        requirement: a package, or one of this project's extras as `detr-serve[train]`. An installed project needs no
            index for its extras, wherever it came from: pip takes their list from what is installed.
    """
    words = [*_installer()]
    if requirement.startswith(f"{PROJECT}[") and not _is_installed():
        words += ["--editable", f"{_shown(_SOURCE)}{requirement.removeprefix(PROJECT)}"]
    else:
        words.append(requirement)
    return shlex.join(words)


def needs(prog: str, missing: ModuleNotFoundError) -> str:
    """What a command says that needs a package of the `train` extra, which is not here."""
    return f"{prog} needs {missing.name}: {install_command(f'{PROJECT}[train]')}"


def _installer() -> list[str]:
    if find_spec("pip") is None and shutil.which("uv") is not None:  # uv's environments have no pip
        return ["uv", "pip", "install", "--python", _shown(Path(sys.executable))]
    # Of several environments the one that runs this need not be the active one: make serve activates none.
    found = shutil.which("pip")
    if found is not None and Path(found).absolute().parent == Path(sys.executable).absolute().parent:
        return ["pip", "install"]
    return [_shown(Path(sys.executable)), "-m", "pip", "install"]


def _is_installed() -> bool:
    try:
        distribution(PROJECT)
    except PackageNotFoundError:
        return False
    return True


def _shown(path: Path) -> str:
    """The path from the folder that the command is typed in, where it lies below that."""
    path, here = path.absolute(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
