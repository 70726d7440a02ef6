"""The client as users have it: installed by pip, as a wheel or editable, and run far from the checkout."""

from __future__ import annotations

import re
import site
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation import blocks
from tests.end_to_end.conftest import REPOSITORY
from tests.server_process import environment, serving

CLIENT, IN_PROCESS = (block for block in blocks() if block.page == "README.md" and block.language == "python")
# What a user's own files of these names would do to the client, if it imported them.
OWN = {"model.py": "raise SystemExit('imported')", "service/__init__.py": "raise SystemExit('imported')"}
TELL = "print(answer.boxes_xyxy.shape[1], answer.boxes_xyxy.dtype)"


@pytest.fixture(scope="module", params=["wheel", "editable"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the project installed, whose dependencies are those of this one."""
    venv = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    path = venv / "bin" / "python"
    editable = ["--editable"] if request.param == "editable" else []
    subprocess.run([path, "-m", "pip", "install", "--quiet", "--no-deps", *editable, REPOSITORY], check=True)
    (packages,) = venv.glob("lib/python3*/site-packages")
    # A folder named in a .pth file has no .pth files of its own read: this checkout is only there as installed.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()))
    return path


def run(python: Path, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    return subprocess.run([python, "-c", text], cwd=folder, env=own, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_six_lines_of_the_readme_ask_a_server_and_a_model_from_any_folder(python: Path, tmp_path: Path) -> None:
    logs, plain, own = (tmp_path / name for name in ("logs", "plain", "own"))
    for folder in (logs, plain / "docs", own / "docs", own / "service"):
        folder.mkdir(parents=True)
    for folder in (plain, own):
        (folder / "docs/example.jpg").write_bytes((REPOSITORY / "docs/example.jpg").read_bytes())
    for name, content in OWN.items():
        (own / name).write_text(content)

    with serving(None, logs, "--batch-timing-ms", "0") as server:
        text = re.sub(r"\blocalhost:8000\b", f"127.0.0.1:{server.port}", CLIENT.text) + TELL
        for folder in (plain, own):
            done = run(python, folder, text)
            assert done.returncode == 0, done.stderr
            assert done.stdout.endswith("4 float64\n")
            assert (folder / "drawn.png").read_bytes()[:4] == b"\x89PNG"

    done = run(python, plain, IN_PROCESS.text + TELL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("4 float64\n")
    (own / "service/__init__.py").write_text("")
    done = run(python, own, IN_PROCESS.text)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("detr_client.errors.ModelLoadError: detr-serve's own package cannot be imported")
    assert "run this from another folder" in last


@pytest.mark.slow
def test_type_checkers_are_told_that_it_is_typed(python: Path, tmp_path: Path) -> None:
    text = "import detr_client, pathlib; print(pathlib.Path(detr_client.__file__).with_name('py.typed').is_file())"
    assert run(python, tmp_path, text).stdout == "True\n"
