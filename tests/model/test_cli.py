"""The command line: every command is found, explained and, where something is missing, says what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model.cli import COMMANDS
from model.command_parser import import_command
from model.data.shapes.command import write_shapes
from model.runtime.installing import install_command
from service.cli import main

REPOSITORY = Path(__file__).parents[2]

# Runs `detr` where nothing of the `train` extra is installed.
WITHOUT_TORCH = """
import sys

BLOCKED = ("torch", "torchvision", "lightning", "onnx", "onnxscript", "scipy")

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
from service.cli import main
sys.exit(main(sys.argv[1:]))
"""


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_help_lists_the_commands() -> None:
    result = run("-m", "service.cli", "--help")
    assert result.returncode == 0, result.stderr
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} " in result.stdout
        assert summary.split()[0] in result.stdout


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--stage"),
        ("evaluate", "--batch-size"),
        ("export", "--padding"),
        ("fetch", "--no-export"),
        ("data", "check"),
        ("shapes", "--seed"),
    ],
)
def test_every_command_explains_itself(command: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith(f"usage: detr {command} ")
    assert option in printed
    assert COMMANDS[command][1] in printed


def test_no_command_is_left_out_of_these_tests() -> None:
    assert COMMANDS.keys() == {"train", "evaluate", "export", "quantize", "fetch", "models", "data", "shapes"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "detr: the following arguments are required: COMMAND"),
        (["trian"], "detr: COMMAND: there is no 'trian'; use serve, "),
        (["trian"], "; did you mean train?"),
        (["train", "--steps", "many"], "detr train: --steps: 'many' is not a whole number"),
        (["quantize", "--max-ap-drop", "much"], "detr quantize: --max-ap-drop: 'much' is not a number"),
        (["export", "a.pth", "--out", "b", "--padding", "exakt"], "there is no 'exakt'; use exact, published; did you"),
        (["export", "a.pth", "--out", "b", "--resize", "wide"], "detr export: --resize: "),
        (["export", "a.pth", "--out", "b", "--weights"], "detr export: --weights: expected one argument"),
        (["shapes", "x", "--trains", "3"], "detr shapes: there is no option --trains; did you mean --train?"),
        (["shapes", "x", "y"], "detr shapes: there is no place for the argument 'y'"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(words)
    assert raised.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    command = words[0] if words and words[0] in COMMANDS else ""
    assert line.endswith(f"(see {f'detr {command}'.strip()} --help)")


def test_help_needs_no_torch() -> None:
    result = run("-c", WITHOUT_TORCH, "--help")
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in COMMANDS)


@pytest.mark.parametrize("words", ["train --help", "export --help", "evaluate --help", "fetch detr-resnet-50"])
def test_a_command_that_needs_torch_says_how_to_install_it(words: str) -> None:
    result = run("-c", WITHOUT_TORCH, *words.split())
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"detr {words.removesuffix(' --help')} needs ")
    assert line.endswith(f": {install_command('detr-serve[train]')}")


def test_known_models_are_listed_without_torch(tmp_path: Path) -> None:
    result = run("-c", WITHOUT_TORCH, "models", "--model-cache", str(tmp_path))
    assert result.returncode == 0, result.stderr
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("facebook/detr-resnet-50 ")]
    assert " ".join(line.split()[1:]) == "detection COCO's 80 things AP 42.0 159 MB 86 -"


def test_scenes_are_drawn_without_torch(tmp_path: Path) -> None:
    words = ["shapes", str(tmp_path), "--train", "1", "--val", "0", "--size", "32", "--workers", "1"]
    result = run("-c", WITHOUT_TORCH, *words)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "train2017").iterdir())) == 1


def test_a_fault_of_this_project_is_not_taken_for_a_missing_package() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"model\.no_such_module"):
        import_command("detr train", "model.no_such_module")
    with pytest.raises(SystemExit, match=r"^detr train needs no_such_package: .*pip install '?.*\[train\]'$"):
        import_command("detr train", "no_such_package")


def test_a_download_that_fails_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["fetch", "detr-resnet-50", "--directory", str(tmp_path), "--base-url", "http://127.0.0.1:9"])
    message = str(raised.value)
    assert message.startswith("detr fetch: http://127.0.0.1:9/detr-r50-e632da11.pth: ")
    assert "\n" not in message


def test_a_data_set_is_not_overwritten(tmp_path: Path) -> None:
    write_shapes(tmp_path, {"train": 1, "val": 0}, size=32, seed=0)
    with pytest.raises(SystemExit) as raised:
        main(["shapes", str(tmp_path), "--train", "1", "--val", "0"])
    message = str(raised.value)
    assert message.startswith("detr shapes: ")
    assert message.endswith("is already there")
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"nothing that torch wrote", b"PK\x03\x04 and then nothing", b"\x80\x02."])
def test_a_broken_checkpoint_ends_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(SystemExit) as raised:
        main(["export", str(path), "--out", str(tmp_path / "model.onnx")])
    message = str(raised.value)
    assert message.startswith("detr export: broken.pth: ")
    assert "\n" not in message
