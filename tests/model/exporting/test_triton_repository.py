"""The model repository that `detr export --triton` writes; tests/end_to_end/test_triton.py runs one in Triton."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.exporting.triton_repository import graph_config, write_triton_repository
from model.runtime.artifact.file import read_artifact
from model.runtime.artifact.metadata import Metadata
from service.cli import main
from tests.tiny_artifact import tiny_metadata, write_tiny_artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_tiny_artifact(tmp_path / "tiny.onnx")


def test_both_models_are_written_whole_and_the_graph_is_the_artifact(artifact: Path, tmp_path: Path) -> None:
    assert main(["export", str(artifact), "--triton", str(tmp_path / "repository")]) == 0
    files = {str(path.relative_to(tmp_path / "repository")) for path in (tmp_path / "repository").rglob("*.*")}
    assert files == {
        "detr/README.md",
        "detr/config.pbtxt",
        "detr/1/model.py",
        "detr/1/metadata.json",
        "detr_graph/config.pbtxt",
        "detr_graph/1/model.onnx",
    }
    assert (tmp_path / "repository/detr_graph/1/model.onnx").read_bytes() == artifact.read_bytes()
    told = (tmp_path / "repository/detr/1/metadata.json").read_text()
    assert Metadata.from_json(told) == read_artifact(artifact).metadata


def test_a_detector_has_no_ports_of_masks() -> None:
    panoptic, detection = (graph_config(tiny_metadata(task), "graph") for task in ("panoptic", "detection"))
    for port in ("mask_threshold", "pred_masks", "mask_index"):
        assert port in panoptic
        assert port not in detection


def test_another_name_stands_beside_and_nothing_is_replaced(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "repository"
    write_triton_repository(folder, read_artifact(artifact), "detr")
    write_triton_repository(folder, read_artifact(artifact), "other")
    assert sorted(path.name for path in folder.iterdir()) == ["detr", "detr_graph", "other", "other_graph"]
    assert '"other_graph"' in (folder / "other/config.pbtxt").read_text()
    with pytest.raises(SystemExit, match=r"detr export: .*detr exists: give another folder or another --name"):
        main(["export", str(artifact), "--triton", str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == ["detr", "detr_graph", "other", "other_graph"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--triton", "taken"], r"taken/detr_graph exists: give another folder or another --name"),
        (["--triton", "new", "--name", "../x"], "is named by letters, digits"),
        (["--triton", "file"], "file is no folder: give another one"),
        (["--triton", "file/new"], "file is no folder: give another one"),
    ],
)
def test_a_place_that_is_taken_is_found_before_anything_is_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken/detr_graph").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=told):
        main(["export", "weights.pth", *options])  # which is not even there


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--triton", "x", "--name", "../x"], "is named by letters, digits"),
        (["--triton", "x", "--out", "y.onnx"], "is an artifact already, and --out is for checkpoints"),
        (["--triton", "x", "--precision", "float16"], "is an artifact already, and --precision is for checkpoints"),
        (["--triton", "x", "--format", "hugging-face"], "--triton is of the artifact that is served"),
        ([], "give --out, where the artifact is written to, or --triton"),
    ],
)
def test_options_that_do_not_fit_are_named(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        main(["export", str(artifact), *options])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.onnx"]
