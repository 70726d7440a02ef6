"""`detr evaluate`: right figures, from whatever engine, in batches of any size."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from model.data.formats import coco_files
from model.data.formats.folders import find_split
from model.data.shapes.command import write_shapes
from model.evaluate import EvaluatedModel, batches_of, evaluate, open_for_evaluation
from model.evaluation.average_precision import NAMES, NOTHING
from model.runtime.answers.detections import EVERY_QUERY, OutputError, detections_of
from model.runtime.answers.panoptic import panoptic
from model.runtime.artifact.file import Metadata, read_artifact
from model.runtime.categories import Category
from model.runtime.engines.engine import Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import RawOutputs
from model.runtime.preprocess import Batch, make_batch, resize
from service.cli import main
from tests.model.evaluation.oracle import Oracle, metadata
from tests.model.evaluation.scenes import (
    CAT,
    CATEGORIES,
    DOG,
    SCENES,
    SEA,
    SKY,
    Scene,
    instance,
    write_annotations,
    write_scenes,
)

DEMO = Path(__file__).parents[2] / "model" / "demo" / "detr-demo.onnx"
PANOPTIC_NAMES = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCENES as a data set."""
    root = tmp_path_factory.mktemp("coco")
    write_scenes(root, dict(enumerate(SCENES, start=10)))
    return root


# Known answers.


@pytest.mark.parametrize("categories", [CATEGORIES, tuple(reversed(CATEGORIES)), (SEA, CAT, SKY, DOG)])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_truth_has_ap_1_and_pq_1_whatever_the_order_of_the_classes(
    root: Path, categories: tuple[Category, ...], batch_size: int
) -> None:
    loaded = EvaluatedModel(Oracle(categories), metadata(categories))
    figures = evaluate(loaded, find_split("coco-panoptic", root, "val"), batch_size=batch_size).figures()
    assert list(figures) == [*NAMES, *PANOPTIC_NAMES]
    for name in ("AP", "AP50", "AP75", "APs", "AR100", *PANOPTIC_NAMES):
        assert figures[name] == pytest.approx(1), name
    assert (figures["APm"], figures["APl"]) == (-1, -1), "there are no larger boxes"


def test_instances_alone_give_no_panoptic_figures(root: Path) -> None:
    figures = evaluate(EvaluatedModel(Oracle(), metadata()), find_split("coco", root, "val")).figures()
    assert list(figures) == list(NAMES)
    assert figures["AP"] == pytest.approx(1)


def test_silence_has_ap_0_and_pq_0(root: Path) -> None:
    loaded = EvaluatedModel(Oracle(silent=frozenset({0, 1, 2})), metadata())
    figures = evaluate(loaded, find_split("coco-panoptic", root, "val")).figures()
    assert {name for name, value in figures.items() if value == -1} == {"APm", "APl", "ARm", "ARl"}
    assert all(value == 0 for value in figures.values() if value != -1)


def test_a_picture_that_is_not_answered_counts_as_missed(root: Path) -> None:
    """Two of the three cats and dogs, one of the two skies and one of the two seas are in the silent picture."""
    loaded = EvaluatedModel(Oracle(silent=frozenset({1})), metadata())
    figures = evaluate(loaded, find_split("coco-panoptic", root, "val")).figures()
    # Cats: 1 found, 1 missed. Dogs: 1 found, 2 missed. Skies: 1 and 1. Seas: 2 and 0.
    cats, dogs, skies, seas = 1 / 1.5, 1 / 2, 1 / 1.5, 1.0
    assert figures["SQ"] == pytest.approx(1)
    assert figures["PQ"] == pytest.approx((cats + dogs + skies + seas) / 4)
    assert figures["PQ_th"] == pytest.approx((cats + dogs) / 2)
    assert figures["PQ_st"] == pytest.approx((skies + seas) / 2)


def test_classes_that_only_the_model_has_do_no_harm(root: Path) -> None:
    more = (Category(90, "moon", True, (0, 0, 0)), *CATEGORIES, Category(91, "mud", False, (0, 0, 0)))
    figures = evaluate(EvaluatedModel(Oracle(more), metadata(more)), find_split("coco-panoptic", root, "val")).figures()
    assert (figures["AP"], figures["PQ"]) == pytest.approx((1, 1))


def test_classes_that_the_data_numbers_otherwise_are_known_by_their_names(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As exports number them from 0, with a root class that nothing is of: ids of the model then mean other classes."""
    ids = {CAT.id: DOG.id, DOG.id: 1000, SKY.id: CAT.id, SEA.id: 1001}
    other = tuple(replace(category, id=ids[category.id]) for category in CATEGORIES)
    loaded = EvaluatedModel(Oracle(), replace(metadata(), categories=other))
    figures = evaluate(loaded, find_split("coco-panoptic", root, "val"), notes=sys.stderr).figures()
    assert (figures["AP"], figures["PQ"]) == pytest.approx((1, 1))
    assert "classes are matched by name, as ids differ: 'cat' is 3 in the model and 7 in" in capsys.readouterr().err


def test_classes_that_only_the_data_has_count_as_missed(root: Path) -> None:
    class WithoutDogs(Oracle):
        def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
            outputs = super().infer(batch, mask_threshold)
            assert outputs.mask_index is not None
            assert outputs.pred_masks is not None
            dogs = outputs.pred_logits[..., 1] > 0
            outputs.pred_logits[dogs] = [-20, -20, -20, -20, 0]
            kept = ~dogs[tuple(outputs.mask_index.T)]
            outputs = replace(outputs, pred_masks=outputs.pred_masks[kept], mask_index=outputs.mask_index[kept])
            return replace(outputs, pred_logits=np.delete(outputs.pred_logits, 1, axis=2))

    known = (CAT, SKY, SEA)
    figures = evaluate(
        EvaluatedModel(WithoutDogs(), metadata(known)), find_split("coco-panoptic", root, "val")
    ).figures()
    assert figures["AP"] == pytest.approx(0.5)
    assert figures["RQ_th"] == pytest.approx(0.5)


def test_answers_that_are_no_numbers_are_an_error(root: Path) -> None:
    class Broken(Oracle):
        def infer(self, batch: Batch, mask_threshold: NDArray[np.float32], attention: bool = False) -> RawOutputs:
            outputs = super().infer(batch, mask_threshold)
            return replace(outputs, pred_logits=np.full_like(outputs.pred_logits, np.nan))

    with pytest.raises(OutputError):
        evaluate(EvaluatedModel(Broken(), metadata()), find_split("coco-panoptic", root, "val"))


# A real network: what it answers alone is declared the truth, so that any batch which changes an answer shows.


@pytest.fixture(scope="module")
def own_truth(tiny_shapes: Path, panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own-truth")
    shutil.copytree(tiny_shapes / "val2017", root / "val2017")
    artifact = read_artifact(panoptic_artifact)
    engine = open_engine(artifact, "cpu", threads=1)
    scenes: dict[int, Scene] = {}
    things: list[dict[str, Any]] = []
    for path in sorted((root / "val2017").iterdir()):
        picture = np.array(Image.open(path))
        scenes[int(path.stem)], boxes = _answer(engine, artifact.metadata, picture)
        things += [instance(int(path.stem), category, box) for category, box in boxes]
    assert len({truth.id_map.shape for truth in scenes.values()}) > 1, "no batch of these has padding"
    assert {thing["image_id"] for thing in things} == set(scenes)
    write_annotations(root, scenes, things, artifact.metadata.categories)
    return root


def _answer(
    engine: Engine, metadata: Metadata, picture: NDArray[np.uint8]
) -> tuple[Scene, list[tuple[int, list[float]]]]:
    orig_size = (picture.shape[0], picture.shape[1])
    batch = make_batch([resize(picture, metadata.resize)])
    output = engine.infer(batch, np.array([metadata.segment_threshold], np.float32)).image(0)
    found = panoptic(output, batch.sizes[0], orig_size, metadata.categories, metadata.segment_threshold, 4)
    truth = Scene(found.id_map, {s.id: metadata.categories[s.label].id for s in found.segments})
    every = detections_of(output.pred_logits, output.pred_boxes, orig_size, EVERY_QUERY)
    boxes = [
        (metadata.categories[label].id, [x1, y1, x2 - x1, y2 - y1])
        for score, label, (x1, y1, x2, y2) in zip(every.scores, every.labels, every.boxes_xyxy.tolist(), strict=True)
        if score > 0.5 and metadata.categories[label].isthing
    ]
    return truth, boxes


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_the_size_of_a_batch_does_not_change_the_figures(
    own_truth: Path, panoptic_artifact: Path, batch_size: int
) -> None:
    figures = evaluate(
        open_for_evaluation(panoptic_artifact, "cpu"), find_split("shapes", own_truth, "val"), batch_size=batch_size
    ).figures()
    assert figures["AP"] == pytest.approx(1, abs=1e-6)
    assert figures["PQ"] == pytest.approx(1, abs=1e-3)


def test_a_checkpoint_has_the_figures_of_its_artifact(
    own_truth: Path, small_checkpoint: Path, panoptic_artifact: Path
) -> None:
    of_checkpoint, of_artifact = (
        evaluate(open_for_evaluation(path, "cpu"), find_split("shapes", own_truth, "val"), batch_size=2).figures()
        for path in (small_checkpoint, panoptic_artifact)
    )
    assert of_checkpoint == pytest.approx(of_artifact, abs=1e-3)


@pytest.fixture(scope="module")
def demo_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo-scenes")
    write_shapes(root, {"train": 0, "val": 8}, size=128, seed=11)
    return root


def test_the_demo_has_the_same_figures_in_batches_of_1_4_and_8(demo_scenes: Path) -> None:
    loaded = open_for_evaluation(DEMO, "cpu")
    alone, *batched = (
        evaluate(loaded, find_split("shapes", demo_scenes, "val"), batch_size=size).figures() for size in (1, 4, 8)
    )
    assert 0.3 < alone["AP"] < 1
    assert 0.3 < alone["PQ"] < 1
    for figures in batched:
        assert figures == pytest.approx(alone, abs=1e-4)


def test_processes_that_read_pictures_change_nothing(root: Path) -> None:
    figures = [
        evaluate(
            EvaluatedModel(Oracle(), metadata()),
            find_split("coco-panoptic", root, "val"),
            batch_size=2,
            workers=workers,
        ).figures()
        for workers in (0, 2)
    ]
    assert figures[0] == figures[1]


def test_pictures_of_like_aspect_ratio_share_a_batch(root: Path) -> None:
    sizes = [(2, 3), (1, 1), (3, 2), (10, 15), (3, 2)]
    assert batches_of(sizes, 3, same_size=False) == [[2, 4, 1], [0, 3]]
    assert batches_of(sizes, 3, same_size=True) == [[2, 4], [1], [0], [3]], "where padding leaks, nothing is padded"
    oracle = Oracle()
    evaluate(EvaluatedModel(oracle, metadata()), find_split("coco-panoptic", root, "val"), batch_size=2)
    assert sorted(oracle.answered) == [0, 1, 2]
    assert [len(batch.sizes) for batch in oracle.batches] == [2, 1]


def test_no_picture_is_padded_for_another_where_padding_leaks(root: Path) -> None:
    exact = metadata()
    for said, mixed in ((exact, True), (replace(exact, padding="published"), False)):
        oracle = Oracle()
        evaluate(EvaluatedModel(oracle, said), find_split("coco-panoptic", root, "val"), batch_size=3)
        assert sorted(oracle.answered) == [0, 1, 2]
        assert any(len(set(batch.sizes)) > 1 for batch in oracle.batches) == mixed


# The command.


def test_the_command_prints_and_writes_the_figures(
    own_truth: Path, panoptic_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", "shapes", "--root", str(own_truth), "--json", str(tmp_path / "figures.json")]
    main(["evaluate", "--model", str(panoptic_artifact), "--device", "cpu", "--workers", "0", *where])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert list(written) == [*NAMES, *PANOPTIC_NAMES, "notes"]
    assert "AP of masks is left out" in written["notes"][-1]
    assert "annotation 1 has no segmentation" in written["notes"][-1]
    assert written["AP"] == pytest.approx(1, abs=1e-6)
    table = capsys.readouterr().out.rpartition("\n\n")[0]  # the notes are below
    rows = {words[0]: words[1:] for line in table.splitlines() if (words := line.split())}
    for name in NAMES:
        assert rows[name][0] == ("–" if written[name] == NOTHING else f"{written[name]:.4f}")
    assert rows["things"] == [f"{written[f'{name}_th']:.4f}" for name in ("PQ", "SQ", "RQ")]


def test_the_command_reports_classes_and_writes_a_page(
    own_truth: Path, small_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--json", str(tmp_path / "figures.json"), "--report", str(tmp_path / "report"), "--per-class"]
    where = ["--data", "shapes", "--root", str(own_truth), "--device", "cpu", "--workers", "0"]
    main(["evaluate", "--model", str(small_checkpoint), *where, *out])
    of_classes = json.loads((tmp_path / "figures.json").read_text())["per_class"]
    assert [row["name"] for row in of_classes][:2] == ["circle", "square"]
    for row in of_classes:
        assert {"id", "name", "isthing", "annotated", "PQ", "SQ", "RQ"} <= set(row)
        assert ("AP" in row) == row["isthing"]
    printed = capsys.readouterr().out
    assert all(row["name"] in printed for row in of_classes)
    assert printed.splitlines()[-1] == f"wrote {tmp_path / 'report' / 'index.html'}"
    assert "small" in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


def test_a_checkpoint_goes_to_the_device_that_is_asked_for(
    small_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[str] = []

    def move(module: torch.nn.Module, device: str) -> torch.nn.Module:
        moved.append(device)
        return module

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    assert open_for_evaluation(small_checkpoint).engine.device == "cuda"
    assert open_for_evaluation(small_checkpoint, "cpu").engine.device == "cpu"
    assert moved == ["cuda", "cpu"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "none.onnx"], "none.onnx: there is no such file"),
        (["--model", "none.pth"], "none.pth: there is no such file"),
        (["--model", "CHECKPOINT", "--root", "nowhere"], "there is no folder nowhere"),
        (["--model", "CHECKPOINT", "--device", "cuda"], "device cuda: torch finds no CUDA device"),
        (["--model", "CHECKPOINT", "--device", "openvino"], "a checkpoint runs on cpu or cuda"),
        (
            ["--model", "CHECKPOINT", "--device", "cpu", "--precision", "bfloat16"],
            "a checkpoint is evaluated in float32",
        ),
        (["--model", "CHECKPOINT", "--workers", "-1"], "the number of workers must be at least 0, not -1"),
        (["--model", "CHECKPOINT", "--batch-size", "0"], "the batch size must be at least 1, not 0"),
        (["--model", "CHECKPOINT", "--json", "nowhere/figures.json"], "there is no folder nowhere"),
        (["--model", "CHECKPOINT", "--report", "nowhere/report"], "there is no folder nowhere"),
        (["--model", "CHECKPOINT", "--root", "BROKEN"], "image 10000001, BROKEN/val2017/000010000001.jpg, cannot be"),
        (["--model", "CHECKPOINT", "--root", "COCO"], "the model and the data have no category id in common"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(
    own_truth: Path,
    root: Path,
    small_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    reason: str,
) -> None:
    # The same classes under other names and ids, and a data set with a picture that is none.
    other, broken = tmp_path / "other", tmp_path / "broken"
    shutil.copytree(root, other)
    for path in (other / "annotations").glob("*.json"):
        text = path.read_text().replace('_id": ', '_id": 9').replace('{"id": ', '{"id": 9')
        path.write_text(text.replace('"name": "', '"name": "other '))
    shutil.copytree(own_truth, broken)
    (broken / "val2017" / "000010000001.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = {"CHECKPOINT": str(small_checkpoint), "COCO": str(other), "BROKEN": str(broken)}
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "--data", "shapes", "--root", str(own_truth), *(words.get(word, word) for word in options)])
    message = str(raised.value)
    assert message.startswith(f"detr evaluate: {reason.replace('BROKEN', str(broken))}")
    assert "\n" not in message


def test_without_instances_the_boxes_of_things_are_those_of_their_segments(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(root, tmp_path / "coco")
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").unlink()
    parsed: list[Path] = []
    parse = coco_files._parsed

    def parse_and_note(path: Path) -> Any:
        parsed.append(path)
        return parse(path)

    monkeypatch.setattr(coco_files, "_parsed", parse_and_note)
    ours, theirs = (
        evaluate(EvaluatedModel(Oracle(), metadata()), find_split("coco-panoptic", folder, "val"), thing_masks=False)
        for folder in (tmp_path / "coco", root)
    )
    assert ours.figures() == theirs.figures()
    assert [path.name for path in parsed] == [
        *["panoptic_val2017.json"] * 2,  # once of each folder
        "instances_val2017.json",
    ]
    assert "there is no instances_val2017.json" in " ".join(ours.notes())
