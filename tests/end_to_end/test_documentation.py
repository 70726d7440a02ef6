"""The commands and the code of the documentation do what it says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import cli
from tests.client_packages import environment_of_checkout
from tests.documentation import RUN_LANGUAGES, SHOWN_LANGUAGES, Block, blocks, blocks_to_run, commands, pages
from tests.end_to_end.conftest import REPOSITORY
from tests.processes import free_port, running

README = [block for block in blocks() if block.page == "README.md"]
DETR = str(Path(sys.executable).with_name("detr"))
# What makes the training commands a matter of seconds: they are run as they stand but for these numbers.
SMALLER = {"--train": "8", "--val": "4", "--steps": "2", "--batch-size": "2"}
# What a command may begin with; each is held by a test below.
KNOWN = ("detr", "curl", "make", "pip", "python", ".")
TEXTS = {str(page.relative_to(REPOSITORY)): page.read_text() for page in pages()}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """What `make serve` starts, on another port."""
    number = free_port()
    url, log = f"http://127.0.0.1:{number}/health/ready", tmp_path_factory.mktemp("serve") / "log"
    with running([DETR, "serve", "--port", str(number)], url, log, timeout_s=120):
        yield number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a newcomer tries what he reads: with pictures of his own, and docs/example.jpg."""
    example = REPOSITORY / "docs" / "example.jpg"
    (tmp_path / "docs").mkdir()
    (tmp_path / "shots").mkdir()
    for name in ("docs/example.jpg", "picture.jpg", "shots/1.jpg", "shots/2.jpg"):
        shutil.copy(example, tmp_path / name)
    return tmp_path


def test_the_readme_begins_with_one_command_that_runs_it_and_one_that_tests_it() -> None:
    first, *others = [block.commands for block in README if block.language == "bash"]
    assert first == ["make serve"]
    assert ["make serve MODEL=facebook/detr-resnet-50"] in others
    assert ["make test"] in others


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_a_block_says_what_it_is_and_why_it_is_not_run(block: Block) -> None:
    assert block.language in (*RUN_LANGUAGES, *SHOWN_LANGUAGES), f"{block} has no language, or an unknown one"
    if block.note.startswith("run by"):
        path = REPOSITORY / block.note.removeprefix("run by").strip()
        assert path.is_file(), f"{block} is run by a test that does not exist"
    elif not block.note and block.language == "bash":
        assert {line.split()[0] for line in block.commands} <= set(KNOWN), f"{block} has a command that no test runs"


@pytest.mark.parametrize("command", commands("curl"))
def test_every_curl_command_gets_an_answer(command: str, port: int, folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is missing: apt-get install curl")
    before = set(folder.iterdir())
    here = re.sub(r"\blocalhost:8000\b", f"127.0.0.1:{port}", command)
    # A shell, because a command may be a pipe.
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", here.replace("curl ", "curl --fail --silent ")],
        cwd=folder,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    written = [path.read_bytes() for path in folder.iterdir() if path not in before] or [done.stdout]
    assert all(written)


@pytest.mark.parametrize("command", commands("detr"))
def test_every_detr_command_is_one_that_the_program_takes(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Namespace] = []
    for command_room in (
        "train",
        "export",
        "evaluate",
        "fetch",
        "models",
        "quantize",
        "data.command",
        "data.shapes.command",
    ):
        run = f"model.{command_room}.run"
        monkeypatch.setattr(run, taken.append)
    for command_room in ("predict.command", "predict.explain", "bench.command", "doctor"):
        monkeypatch.setattr(f"service.{command_room}.run", taken.append)
    monkeypatch.setattr(cli, "run_service", taken.append)
    cli.main(shlex.split(command, comments=True)[1:])
    assert len(taken) == 1


@pytest.mark.parametrize("command", commands("make"))
def test_every_make_command_has_a_target(command: str) -> None:
    target = command.split()[1]
    assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.M), target


@pytest.mark.parametrize("command", commands("python"))
def test_every_module_that_a_command_runs_exists(command: str) -> None:
    words = shlex.split(command)
    assert words[1] == "-m"
    assert importlib.util.find_spec(words[2]) is not None


@pytest.mark.parametrize("block", blocks_to_run("python"), ids=str)
def test_every_block_of_python_runs(
    block: Block, port: int, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = environment_of_checkout(tmp_path_factory.mktemp("metadata"))
    text = re.sub(r"\blocalhost:8000\b", f"127.0.0.1:{port}", block.text)
    strict = ["-W", "error", "-W", "ignore:OpenCV"]  # which supervision says that it would rather have
    command = [sys.executable, *strict, "-c", text]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}:\n{done.stderr}"


@pytest.mark.slow
def test_the_training_commands_make_a_model_that_serves(tmp_path: Path, jpeg: bytes) -> None:
    (block,) = [block for block in blocks_to_run("bash") if block.commands[0].startswith("detr shapes")]
    for command in block.commands:
        words = [DETR, *shlex.split(command)[1:]]
        for option, value in SMALLER.items():
            if option in words:
                words[words.index(option) + 1] = value
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    (tmp_path / "picture.jpg").write_bytes(jpeg)
    predict = [DETR, "predict", "picture.jpg", "--model", "detr-demo.onnx", "--task", "segment", "--overlay", "drawn"]
    subprocess.run(predict, cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "drawn" / "picture.png").is_file()


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {
        extra
        for text in TEXTS.values()
        for group in re.findall(r"(?:\.|detr-serve)\[([a-z,]+)\]", text)
        for extra in group.split(",")
    }
    assert named
    assert named <= set(extras)


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (REPOSITORY / page).parent / path if path else REPOSITORY / page
        assert target.exists(), f"{page} links to {link}"
        if heading:
            assert heading in _anchors(target.read_text()), f"{page} links to {link}"


def _anchors(text: str) -> set[str]:
    """The headings of a page as they are in a link."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_site_builds_and_asks_nobody_else(tmp_path: Path) -> None:
    mkdocs = str(Path(sys.executable).with_name("mkdocs"))
    command = [mkdocs, "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="([^"]+)"', page.read_text())
        assert loaded
        assert not [source for source in loaded if re.match(r"(https?:)?//", source)], page
    assert "Serve" in (tmp_path / "site" / "index.html").read_text()
