"""A network is trained for a step on every layout of data, and evaluated there, by the folder's name alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from model.network.config import PRESETS
from model.runtime.resize_rule import Edges
from service.cli import main
from tests.model.data.formats.layout_folders import LAYOUTS, write_layout
from tests.model.data.formats.yolo_voc_folders import VOC, WITHOUT_SPLITS, YOLO
from tests.model.networks import SMALL

STEP = ["--recipe", "demo", "--steps", "1", "--batch-size", "2", "--workers", "0", "--evaluate-every", "1"]


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command builds is small enough to train in a test."""
    monkeypatch.setitem(PRESETS, "detr-demo", replace(SMALL, resize=Edges(64, 96)))


@pytest.fixture
def train_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Trains a step on the folder `data` and evaluates so many pictures of it, as the validation has done before."""

    def run(*options: str, kind: str = "coco", judged: int) -> None:
        root, out = str(tmp_path / "data"), tmp_path / "out"
        main(["train", "--data", kind, "--root", root, "--out", str(out), *STEP, *options])
        figures, weights = tmp_path / "figures.json", str(out / "model.safetensors")
        main(["evaluate", "--model", weights, "--data", kind, "--root", root, "--json", str(figures)])
        assert f"val: {judged} picture" in capsys.readouterr().err
        logged = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        (validated,) = [row["AP"] for row in logged if "AP" in row]
        assert json.loads(figures.read_text())["AP"] == pytest.approx(validated, abs=1e-4)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_trains_a_step_and_evaluates(
    layout: str, tmp_path: Path, train_and_evaluate: Callable[..., None]
) -> None:
    write_layout(tmp_path / "data", layout)
    train_and_evaluate(judged=3 if "{split}" in LAYOUTS[layout].annotations else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layout"), [*(("yolo", name) for name in YOLO), *(("voc", name) for name in VOC)])
def test_every_layout_of_yolo_and_pascal_voc_trains_a_step_and_evaluates(
    kind: str, layout: str, tmp_path: Path, train_and_evaluate: Callable[..., None]
) -> None:
    (YOLO if kind == "yolo" else VOC)[layout](tmp_path / "data")
    without_splits = layout in WITHOUT_SPLITS or (kind, layout) == ("voc", "CVAT")
    train_and_evaluate(kind=kind, judged=1 if without_splits else 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_outlines_of_yolo_train_a_step_on_masks_and_evaluate(
    tmp_path: Path, train_and_evaluate: Callable[..., None]
) -> None:
    YOLO["Roboflow"](tmp_path / "data")
    train_and_evaluate("--stage", "joint", kind="yolo", judged=3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_a_folder_of_roboflow_trains_a_step_on_masks_and_evaluates(
    tmp_path: Path, train_and_evaluate: Callable[..., None]
) -> None:
    write_layout(tmp_path / "data", "Roboflow")
    train_and_evaluate("--stage", "joint", judged=3)
