"""`detr evaluate`: right figures, from whatever engine, in batches of any size."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.average_precision import NAMES, average_precision
from model.cli import main
from model.evaluate import Loaded, evaluate, load
from model.panoptic_quality import PanopticQuality, Segmentation
from model.runtime.artifact import Metadata, read_artifact
from model.runtime.categories import Category
from model.runtime.engine import Engine, open_engine
from model.runtime.panoptic import panoptic
from model.runtime.postprocess import OutputError, scored_boxes
from model.runtime.preprocess import Batch, ResizeRule, make_batch, resize
from model.runtime.raw_outputs import RawOutputs

# Ids with gaps and out of order, so that nothing can take an id for an index.
CAT, DOG = Category(7, "cat", True, (1, 2, 3)), Category(3, "dog", True, (4, 5, 6))
SKY, SEA = Category(50, "sky", False, (7, 8, 9)), Category(21, "sea", False, (9, 8, 7))
CATEGORIES = (CAT, DOG, SKY, SEA)
QUERIES = 8


@dataclass(frozen=True)
class Scene:
    """A picture's truth: a category for each segment id."""

    id_map: NDArray[np.int32]  # [H, W], 0 is void
    category_of: dict[int, int]


def scene(rows: Sequence[str], **category_of: Category) -> Scene:
    """Blocks of 8 x 8 pixels, each a letter that names a segment; a dot is void."""
    letters = np.array([[0 if letter == "." else ord(letter) for letter in row] for row in rows], np.int32)
    # Ids above 255, which need more than one channel of the PNG.
    id_map = np.where(letters > 0, letters * 1000, 0).repeat(8, axis=0).repeat(8, axis=1).astype(np.int32)
    return Scene(id_map, {ord(letter) * 1000: category.id for letter, category in category_of.items()})


SCENES = (
    scene(["ssss", "scc.", "scc.", "wwww"], s=SKY, c=CAT, w=SEA),
    scene(["sssddd", "ccsddd", "ccsddd", "ssseee"], s=SKY, c=CAT, d=DOG, e=DOG),
    scene(["wwww", "wddw", "wddw", "wwww", "....", "wwww"], w=SEA, d=DOG),
)


def box_xywh(mask: NDArray[np.bool_]) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def write_annotations(
    root: Path,
    scenes: dict[int, Scene],
    things: dict[int, list[tuple[int, list[float]]]],
    of_data: Sequence[Category],
) -> None:
    """Both annotation files and the id PNGs of these scenes, with `things` (category id and box) as instances."""
    folder = root / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    images: list[Any] = []
    panoptics: list[Any] = []
    instances: list[Any] = []
    for image_id, truth in scenes.items():
        height, width = truth.id_map.shape
        name = f"{image_id:012d}"
        channels = np.stack([truth.id_map >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
        Image.fromarray(channels).save(folder / f"{name}.png")
        infos = [
            {"id": i, "category_id": c, "area": int((truth.id_map == i).sum()), "bbox": box_xywh(truth.id_map == i)}
            for i, c in truth.category_of.items()
        ]
        images.append({"id": image_id, "file_name": f"{name}.jpg", "height": height, "width": width})
        panoptics.append({"image_id": image_id, "file_name": f"{name}.png", "segments_info": infos})
        for category_id, box in things[image_id]:
            shape = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            instances.append({"id": len(instances) + 1, "image_id": image_id, "category_id": category_id, **shape})
    categories = [{"id": c.id, "name": c.name, "isthing": int(c.isthing)} for c in of_data]
    for kind, listed in (("instances", instances), ("panoptic", panoptics)):
        of_kind = [c for c in categories if c["isthing"] or kind == "panoptic"]
        content = {"images": images, "annotations": listed, "categories": of_kind}
        (root / "annotations" / f"{kind}_val2017.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCENES as a data set; what the pictures show does not matter to the engines of this file."""
    root = tmp_path_factory.mktemp("coco")
    (root / "val2017").mkdir()
    scenes = dict(enumerate(SCENES, start=10))
    isthing = {category.id: category.isthing for category in CATEGORIES}
    things: dict[int, list[tuple[int, list[float]]]] = {}
    for image_id, truth in scenes.items():
        boxes = {i: [float(side) for side in box_xywh(truth.id_map == i)] for i in truth.category_of}
        things[image_id] = [(c, boxes[i]) for i, c in truth.category_of.items() if isthing[c]]
        picture = np.full((*truth.id_map.shape, 3), 100, np.uint8)
        Image.fromarray(picture).save(root / "val2017" / f"{image_id:012d}.jpg")
    write_annotations(root, scenes, things, CATEGORIES)
    return root


def metadata(categories: Sequence[Category] = CATEGORIES) -> Metadata:
    """Of a model that sees these pictures as they are, pixel for pixel."""
    return Metadata(
        format_version=1,
        name="oracle",
        task="panoptic",
        categories=tuple(categories),
        num_queries=QUERIES,
        resize=ResizeRule(32, 1000),
        canvas_multiple=32,
        mask_stride=1,
        detect_threshold=0.5,
        segment_threshold=0.5,
        padding="exact",
        provenance={},
    )


class Oracle:
    """Answers the scenes in their order, each with the truth; of those in `silent` it sees nothing."""

    device = "oracle"

    def __init__(self, categories: Sequence[Category] = CATEGORIES, silent: frozenset[int] = frozenset()) -> None:
        self.index_of = {category.id: index for index, category in enumerate(categories)}
        self.silent = silent
        self.answered = 0

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
        count, height, width = batch.padding_mask.shape
        logits = np.full((count, QUERIES, len(self.index_of) + 1), -20, np.float32)
        logits[..., -1] = 0
        boxes = np.full((count, QUERIES, 4), 0.5, np.float32)
        boxes[..., 2:] = 0
        masks, index = [], []
        for place, (h, w) in enumerate(batch.sizes):
            truth = SCENES[self.answered]
            assert truth.id_map.shape == (h, w), "the pictures come in another order or size"
            segments = {} if self.answered in self.silent else truth.category_of
            self.answered += 1
            for query, (segment, category) in enumerate(segments.items()):
                mask = truth.id_map == segment
                x, y, box_width, box_height = box_xywh(mask)
                boxes[place, query] = ((x + box_width / 2) / w, (y + box_height / 2) / h, box_width / w, box_height / h)
                logits[place, query, self.index_of[category]] = 20
                masks.append(np.pad(np.where(mask, 10, -10), ((0, height - h), (0, width - w))))
                index.append((place, query))
        kept = np.array(index, np.int64).reshape(-1, 2)
        return RawOutputs(logits, boxes, np.array(masks, np.float32).reshape(len(kept), height, width), kept)


# Known answers.


@pytest.mark.parametrize("categories", [CATEGORIES, tuple(reversed(CATEGORIES)), (SEA, CAT, SKY, DOG)])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_truth_has_ap_1_and_pq_1_whatever_the_order_of_the_classes(
    root: Path, categories: tuple[Category, ...], batch_size: int
) -> None:
    loaded = Loaded(Oracle(categories), metadata(categories))
    figures = evaluate(loaded, "coco-panoptic", root, "val", batch_size=batch_size)
    panoptic_names = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]
    assert list(figures) == [*NAMES, *panoptic_names]
    for name in ("AP", "AP50", "AP75", "APs", "AR100", *panoptic_names):
        assert figures[name] == pytest.approx(1), name
    assert (figures["APm"], figures["APl"]) == (-1, -1), "there are no larger boxes"


def test_instances_alone_give_no_panoptic_figures(root: Path) -> None:
    figures = evaluate(Loaded(Oracle(), metadata()), "coco", root, "val")
    assert list(figures) == list(NAMES)
    assert figures["AP"] == pytest.approx(1)


def test_silence_has_ap_0_and_pq_0(root: Path) -> None:
    loaded = Loaded(Oracle(silent=frozenset({0, 1, 2})), metadata())
    figures = evaluate(loaded, "coco-panoptic", root, "val")
    assert {name for name, value in figures.items() if value == -1} == {"APm", "APl", "ARm", "ARl"}
    assert all(value == 0 for value in figures.values() if value != -1)


def test_a_picture_that_is_not_answered_counts_as_missed(root: Path) -> None:
    """Two of the three cats and dogs, one of the two skies and one of the two seas are in the silent picture."""
    figures = evaluate(Loaded(Oracle(silent=frozenset({1})), metadata()), "coco-panoptic", root, "val")
    # Cats: 1 found, 1 missed. Dogs: 1 found, 2 missed. Skies: 1 and 1. Seas: 2 and 0.
    cats, dogs, skies, seas = 1 / 1.5, 1 / 2, 1 / 1.5, 1.0
    assert figures["SQ"] == pytest.approx(1)
    assert figures["PQ"] == pytest.approx((cats + dogs + skies + seas) / 4)
    assert figures["PQ_th"] == pytest.approx((cats + dogs) / 2)
    assert figures["PQ_st"] == pytest.approx((skies + seas) / 2)


def test_classes_that_only_the_model_has_do_no_harm(root: Path) -> None:
    more = (Category(90, "moon", True, (0, 0, 0)), *CATEGORIES, Category(91, "mud", False, (0, 0, 0)))
    figures = evaluate(Loaded(Oracle(more), metadata(more)), "coco-panoptic", root, "val")
    assert (figures["AP"], figures["PQ"]) == pytest.approx((1, 1))


def test_classes_that_only_the_data_has_count_as_missed(root: Path) -> None:
    class WithoutDogs(Oracle):
        def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
            outputs = super().infer(batch, mask_threshold)
            assert outputs.mask_index is not None
            assert outputs.pred_masks is not None
            dogs = outputs.pred_logits[..., 1] > 0
            outputs.pred_logits[dogs] = [-20, -20, -20, -20, 0]
            kept = ~dogs[tuple(outputs.mask_index.T)]
            outputs = replace(outputs, pred_masks=outputs.pred_masks[kept], mask_index=outputs.mask_index[kept])
            return replace(outputs, pred_logits=np.delete(outputs.pred_logits, 1, axis=2))

    known = (CAT, SKY, SEA)
    figures = evaluate(Loaded(WithoutDogs(), metadata(known)), "coco-panoptic", root, "val")
    assert figures["AP"] == pytest.approx(0.5)
    assert figures["RQ_th"] == pytest.approx(0.5)


def test_answers_that_are_no_numbers_are_an_error(root: Path) -> None:
    class Broken(Oracle):
        def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
            outputs = super().infer(batch, mask_threshold)
            return replace(outputs, pred_logits=np.full_like(outputs.pred_logits, np.nan))

    with pytest.raises(OutputError):
        evaluate(Loaded(Broken(), metadata()), "coco-panoptic", root, "val")


# A real network: what it answers alone is declared the truth, so that any batch which changes an answer shows.


@pytest.fixture(scope="module")
def own_truth(tiny_shapes: Path, panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own-truth")
    shutil.copytree(tiny_shapes / "val2017", root / "val2017")
    artifact = read_artifact(panoptic_artifact)
    engine = open_engine(artifact, "cpu", threads=1)
    scenes: dict[int, Scene] = {}
    things: dict[int, list[tuple[int, list[float]]]] = {}
    for path in sorted((root / "val2017").iterdir()):
        picture = np.array(Image.open(path))
        scenes[int(path.stem)], things[int(path.stem)] = _answer(engine, artifact.metadata, picture)
    assert len({truth.id_map.shape for truth in scenes.values()}) > 1, "no batch of these has padding"
    assert min(len(boxes) for boxes in things.values()) > 0
    write_annotations(root, scenes, things, artifact.metadata.categories)
    return root


def _answer(
    engine: Engine, metadata: Metadata, picture: NDArray[np.uint8]
) -> tuple[Scene, list[tuple[int, list[float]]]]:
    orig_size = (picture.shape[0], picture.shape[1])
    batch = make_batch([resize(picture, metadata.resize)])
    output = engine.infer(batch, np.array([metadata.segment_threshold], np.float32)).image(0)
    assert output.mask_logits is not None
    assert output.query_index is not None
    found = panoptic(
        output.pred_logits, output.mask_logits, output.query_index, batch.sizes[0], orig_size,
        metadata.categories, metadata.segment_threshold, 4,
    )  # fmt: skip
    truth = Scene(found.id_map, {s.id: metadata.categories[s.label].id for s in found.segments})
    every = scored_boxes(output.pred_logits, output.pred_boxes, orig_size)
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
    figures = evaluate(load(panoptic_artifact, "cpu"), "shapes", own_truth, "val", batch_size=batch_size)
    assert figures["AP"] == pytest.approx(1, abs=1e-6)
    assert figures["PQ"] == pytest.approx(1, abs=1e-3)


def test_a_checkpoint_has_the_figures_of_its_artifact(
    own_truth: Path, small_checkpoint: Path, panoptic_artifact: Path
) -> None:
    of_checkpoint = evaluate(load(small_checkpoint), "shapes", own_truth, "val", batch_size=2)
    of_artifact = evaluate(load(panoptic_artifact, "cpu"), "shapes", own_truth, "val", batch_size=2)
    assert of_checkpoint == pytest.approx(of_artifact, abs=1e-3)


def test_the_command_prints_and_writes_the_figures(
    own_truth: Path, panoptic_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--data", "shapes", "--root", str(own_truth), "--json", str(tmp_path / "figures.json")]
    main(["evaluate", "--model", str(panoptic_artifact), "--device", "cpu", *where])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["AP"] == pytest.approx(1, abs=1e-6)
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(written, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--model", "none.onnx"], "none.onnx: there is no such file"),
        (["--model", "none.pth"], "none.pth: there is no such file"),
        (["--model", "CHECKPOINT", "--root", "nowhere"], "there is no annotation file nowhere"),
        (["--model", "CHECKPOINT", "--device", "cuda"], "a checkpoint is evaluated on the CPU"),
        (["--model", "CHECKPOINT", "--batch-size", "0"], "the batch size must be at least 1, not 0"),
        (["--model", "CHECKPOINT", "--json", "nowhere/figures.json"], "[Errno 2] No such file or directory"),
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
    # The same classes under other names and ids.
    other = tmp_path / "other"
    shutil.copytree(root, other)
    for path in (other / "annotations").glob("*.json"):
        path.write_text(path.read_text().replace('_id": ', '_id": 9').replace('{"id": ', '{"id": 9'))
    monkeypatch.chdir(tmp_path)
    words = [{"CHECKPOINT": str(small_checkpoint), "COCO": str(other)}.get(word, word) for word in options]
    with pytest.raises(SystemExit) as raised:
        main(["evaluate", "--data", "shapes", "--root", str(own_truth), *words])
    message = str(raised.value)
    assert message.startswith(f"detr evaluate: {reason}")
    assert "\n" not in message


def test_missing_instances_are_said_before_any_picture_is_seen(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "coco")
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").unlink()
    oracle = Oracle()
    with pytest.raises(FileNotFoundError, match=r"there is no annotation file .*instances_val2017\.json"):
        evaluate(Loaded(oracle, metadata()), "coco-panoptic", tmp_path / "coco", "val")
    assert oracle.answered == 0


# Average precision.


def noisy_detections(annotations: Path) -> list[dict[str, Any]]:
    """Boxes near the true ones, some of another class, and some that are nowhere."""
    rng = np.random.default_rng(0)
    truth = json.loads(annotations.read_text())
    ids = [category["id"] for category in truth["categories"]]
    found = []
    for true in truth["annotations"] * 2:
        box = (np.array(true["bbox"]) + rng.normal(0, 1.5, 4)).clip(0.5).tolist()
        category = true["category_id"] if rng.random() < 0.8 else int(rng.choice(ids))
        found.append({"image_id": true["image_id"], "category_id": category, "bbox": box, "score": float(rng.random())})
    return found


def test_average_precision_is_that_of_cocos_own_evaluator(tiny_shapes: Path, tmp_path: Path) -> None:
    annotations = tiny_shapes / "annotations" / "instances_val2017.json"
    found = noisy_detections(annotations)
    (tmp_path / "found.json").write_text(json.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # Detections of stuff, of which the annotations know nothing, change nothing.
    stuff = [dict(detection, category_id=101, score=1.0) for detection in found]
    figures = average_precision(annotations, found + stuff, truth.getImgIds())
    assert list(figures.values()) == evaluation.stats.tolist()
    assert 0.05 < figures["AP"] < 0.95


def test_average_precision_says_nothing_on_standard_output(
    tiny_shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = tiny_shapes / "annotations" / "instances_val2017.json"
    images = [image["id"] for image in json.loads(annotations.read_text())["images"]]
    figures = average_precision(annotations, [], images)
    assert set(figures.values()) <= {0.0, -1.0}
    assert figures["AP"] == 0
    assert capsys.readouterr().out == ""


def test_a_picture_that_the_instances_lack_is_named(tiny_shapes: Path) -> None:
    annotations = tiny_shapes / "annotations" / "instances_val2017.json"
    with pytest.raises(ValueError, match=r"instances_val2017\.json lacks image 5"):
        average_precision(annotations, [], [5])


# Panoptic quality.


def plain_figures(pictures: Sequence[tuple[Segmentation, Segmentation]]) -> dict[str, float]:
    """Panoptic quality by its definition (arXiv:1801.00868, section 4.1) and its rules for void and crowds."""
    values: dict[bool, list[tuple[float, float, float]]] = {True: [], False: []}
    for category in CATEGORIES:
        ious: list[float] = []
        missed = wrong = 0
        for truth, found in pictures:
            void = ~np.isin(truth.id_map, list(truth.category_of))
            true = {i: truth.id_map == i for i, c in truth.category_of.items() if c == category.id}
            ours = {i: found.id_map == i for i, c in found.category_of.items() if c == category.id}
            crowd = np.isin(truth.id_map, [i for i in true if i in truth.crowds])
            partners: dict[int, int] = {}
            for t, wanted in true.items():
                for f, answer in ours.items():
                    iou = (wanted & answer).sum() / max(1, ((wanted | answer) & ~void).sum())
                    if t not in truth.crowds and iou > 0.5:
                        assert t not in partners
                        assert f not in partners.values()
                        partners[t] = f
                        ious.append(float(iou))
            missed += len(set(true) - set(partners) - truth.crowds)
            for f, answer in ours.items():
                if f not in partners.values() and answer.any():
                    wrong += (answer & (void | crowd)).sum() / answer.sum() <= 0.5
        if ious or missed or wrong:
            weight = len(ious) + 0.5 * missed + 0.5 * wrong
            sq = float(np.mean(ious)) if ious else 0.0
            values[category.isthing].append((sum(ious) / weight, sq, len(ious) / weight))
    figures: dict[str, float] = {}
    for suffix, rows in (("", values[True] + values[False]), ("_th", values[True]), ("_st", values[False])):
        means = np.mean(rows, axis=0) if rows else np.zeros(3)
        figures |= {f"{name}{suffix}": float(mean) for name, mean in zip(("PQ", "SQ", "RQ"), means, strict=True)}
    return figures


def random_picture(rng: np.random.Generator, noise: float) -> tuple[Segmentation, Segmentation]:
    """A truth with void and perhaps crowds, and an answer that is the truth with some pixels changed."""
    id_map = rng.integers(0, 6, (4, 4)).repeat(4, axis=0).repeat(4, axis=1).astype(np.int32)
    ids = [i for i in np.unique(id_map).tolist() if i > 0]
    category_of = {i: CATEGORIES[rng.integers(4)].id for i in ids}
    crowds = frozenset(i for i in ids if rng.random() < 0.2)
    found_map = np.where(rng.random(id_map.shape) < noise, rng.integers(0, 7, id_map.shape), id_map).astype(np.int32)
    unknown = 999  # a category that the data set does not have
    found_of = {
        i: category_of.get(i, CAT.id) if rng.random() < 0.7 else int(rng.choice([*(c.id for c in CATEGORIES), unknown]))
        for i in np.unique(found_map).tolist()
        if i > 0
    }
    return Segmentation(id_map, category_of, crowds), Segmentation(found_map, found_of)


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 0.7), pictures=st.integers(1, 3))
def test_panoptic_quality_is_what_its_definition_says(seed: int, noise: float, pictures: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = [random_picture(rng, noise) for _ in range(pictures)]
    quality = PanopticQuality(CATEGORIES)
    for truth, found in drawn:
        quality.update(truth, found)
    assert quality.figures() == pytest.approx(plain_figures(drawn), abs=1e-12)


def figures_of(truth: Segmentation, found: Segmentation) -> dict[str, float]:
    quality = PanopticQuality(CATEGORIES)
    quality.update(truth, found)
    return quality.figures()


def test_pixels_of_void_count_neither_for_nor_against() -> None:
    truth = Segmentation(np.array([[1, 1, 0, 0]], np.int32), {1: CAT.id})
    exact = figures_of(truth, Segmentation(np.array([[5, 5, 5, 5]], np.int32), {5: CAT.id}))
    assert exact["PQ"] == 1
    # Two more segments: one mostly over void is excused, one that is half over void is not.
    excused = figures_of(truth, Segmentation(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: CAT.id}))
    assert excused["PQ"] == 1
    half = figures_of(truth, Segmentation(np.array([[5, 6, 6, 0]], np.int32), {5: CAT.id, 6: DOG.id}))
    assert half["PQ_th"] == 0, "half of the cat is no match, and the dog is wrong"


def test_what_the_answer_leaves_void_counts_against_it() -> None:
    truth = Segmentation(np.array([[1, 1, 1, 1]], np.int32), {1: SKY.id})
    found = figures_of(truth, Segmentation(np.array([[5, 5, 5, 0]], np.int32), {5: SKY.id}))
    assert (found["PQ"], found["SQ"], found["RQ"]) == (0.75, 0.75, 1)
    nothing = figures_of(truth, Segmentation(np.zeros((1, 4), np.int32), {}))
    assert (nothing["PQ"], nothing["RQ_st"]) == (0, 0)


def test_a_segment_over_a_crowd_of_its_class_is_excused() -> None:
    truth = Segmentation(np.array([[1, 1, 2, 2]], np.int32), {1: CAT.id, 2: DOG.id}, frozenset({2}))
    own = figures_of(truth, Segmentation(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: DOG.id}))
    assert (own["PQ"], own["RQ"]) == (1, 1), "neither found nor wrong: dogs do not count"
    other = figures_of(truth, Segmentation(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: CAT.id}))
    assert other["RQ"] == pytest.approx(1 / 1.5)


def test_half_of_the_union_is_no_match() -> None:
    truth = Segmentation(np.array([[1, 1, 1, 1]], np.int32), {1: CAT.id})
    half = figures_of(truth, Segmentation(np.array([[5, 5, 0, 0]], np.int32), {5: CAT.id}))
    assert half["PQ"] == 0
