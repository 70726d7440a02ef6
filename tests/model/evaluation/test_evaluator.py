"""The evaluator's figures are those of what it was given, in whatever order, grouping and number of processes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.multiprocessing.spawn import spawn

from model.data.formats.folders import find_split
from model.evaluation.average_precision import NAMES, NOTHING
from model.evaluation.evaluator import Evaluator
from model.evaluation.opening import open_evaluator, open_judged
from model.evaluation.panoptic_quality import MatchCounts
from model.evaluation.ranking import picture_counts
from model.runtime.answers.detections import OutputError
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from tests.model.evaluation.scenes import (
    CAT,
    CATEGORIES,
    DOG,
    ISTHING,
    SCENES,
    SKY,
    Scene,
    scene,
    things_of,
    write_annotations,
)

Size = tuple[int, int]
Answered = tuple[int, Size, RawOutputs]  # index, size as the network saw it, outputs of this picture alone
QUERIES = 6
PANOPTIC_NAMES = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]

EMPTY = Scene(np.zeros((32, 40), np.int32), {})
CROWDED = scene(["ssddd", "ssddd", "ccddd", "cc..."], crowds="d", s=SKY, d=DOG, c=CAT)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCENES, a picture with nothing annotated, and one with a crowd."""
    root = tmp_path_factory.mktemp("coco")
    scenes = dict(enumerate([*SCENES, EMPTY, CROWDED], start=10))
    write_annotations(root, scenes, things_of(scenes))
    return root


def evaluator(
    root: Path,
    kind: str = "coco-panoptic",
    mask_stride: int | None = 4,
    categories: Sequence[Category] = CATEGORIES,
    data_root: Path | None = None,
    thing_masks: bool = True,
) -> Evaluator:
    data = open_judged(find_split(kind, data_root or root, "val"), masks=mask_stride is not None)
    return open_evaluator(
        find_split(kind, root, "val"),
        data,
        categories=categories,
        segment_threshold=0.4,
        mask_stride=mask_stride,
        thing_masks=thing_masks,
    )


def random_answers(sizes: Sequence[Size], seed: int) -> list[Answered]:
    """What an untrained network might say: boxes and masks anywhere, of any class, with scores of few values."""
    rng = np.random.default_rng(seed)
    answers = []
    for index, (height, width) in enumerate(sizes):
        logits = rng.integers(0, 4, (1, QUERIES, len(CATEGORIES) + 1)).astype(np.float32)
        boxes = np.concatenate([rng.uniform(0.2, 0.8, (1, QUERIES, 2)), rng.uniform(0.1, 1, (1, QUERIES, 2))], axis=2)
        masks = rng.normal(0, 1, (QUERIES, -(-height // 4), -(-width // 4))).astype(np.float32)
        kept = np.stack([np.zeros(QUERIES, np.int64), np.arange(QUERIES)], axis=1)
        answers.append((index, (height, width), RawOutputs(logits, boxes.astype(np.float32), masks, kept)))
    return answers


def joined(answers: Sequence[Answered]) -> tuple[list[int], list[Size], RawOutputs]:
    """Several answers as one batch, whose masks lie on a common canvas."""
    masks = [answer.pred_masks for _, _, answer in answers if answer.pred_masks is not None]
    rows, columns = (max(mask.shape[axis] for mask in masks) for axis in (1, 2))
    padded = [np.pad(m, ((0, 0), (0, rows - m.shape[1]), (0, columns - m.shape[2]))) for m in masks]
    index = [np.stack([np.full(QUERIES, place), np.arange(QUERIES)], axis=1) for place in range(len(answers))]
    logits, boxes = (np.concatenate([getattr(a, name) for *_, a in answers]) for name in ("pred_logits", "pred_boxes"))
    outputs = RawOutputs(logits, boxes, np.concatenate(padded), np.concatenate(index))
    return [i for i, *_ in answers], [size for _, size, _ in answers], outputs


def give(to: Evaluator, answers: Sequence[Answered]) -> None:
    to.update(*joined(answers))


# Figures.


def box_in_picture(cxcywh: NDArray[np.float32], width: int, height: int) -> list[float]:
    """What is served of a box: its part inside the picture, as x, y, width and height in pixels, in float32."""
    (cx, cy, w, h), half = cxcywh, np.float32(0.5)
    left, right = np.clip(np.array([cx - half * w, cx + half * w]) * np.float32(width), 0, width)
    top, bottom = np.clip(np.array([cy - half * h, cy + half * h]) * np.float32(height), 0, height)
    return [float(side) for side in (left, top, right - left, bottom - top)]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_box_figures_are_cocos_own_of_every_query(root: Path, tmp_path: Path, seed: int) -> None:
    """Softmax, best real class and box clipped to the picture, worked out here from the definition."""
    ours = evaluator(root)
    answers = random_answers(ours.data.sizes, seed)
    detections: list[dict[str, Any]] = []
    for index, _, output in answers:
        give(ours, [answers[index]])
        height, width = ours.data.sizes[index]
        for logits, box in zip(output.pred_logits[0], output.pred_boxes[0], strict=True):
            probabilities = np.exp(logits) / np.exp(logits).sum()
            label = int(probabilities[:-1].argmax())
            detections.append(
                {
                    "image_id": ours.data.records[index].id,
                    "category_id": CATEGORIES[label].id,
                    "bbox": box_in_picture(box, width, height),
                    "score": float(probabilities[label]),
                }
            )
    found = tmp_path / "found.json"
    found.write_text(json.dumps([d for d in detections if ISTHING[d["category_id"]]]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val2017.json"))
        theirs = COCOeval(truth, truth.loadRes(str(found)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    figures = ours.figures()
    assert list(figures) == [*NAMES, *PANOPTIC_NAMES]
    assert [figures[name] for name in NAMES] == pytest.approx(theirs.stats.tolist(), abs=1e-6)


@pytest.fixture(scope="module")
def masked(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures, whose things have masks: a rectangle within the box; of the crowd, run lengths of the box."""
    masked = tmp_path_factory.mktemp("masked") / "coco"
    shutil.copytree(root, masked)
    path = masked / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        pixels = np.zeros(sizes[entry["image_id"]], np.uint8, order="F")
        pixels[y : y + height, x : x + width - 3] = 1
        whole = coco_mask.encode(pixels)
        rle = {"size": whole["size"], "counts": whole["counts"].decode()}
        right = x + width - 3
        entry["segmentation"] = rle if entry["iscrowd"] else [[x, y, right, y, right, y + height, x, y + height]]
    path.write_text(json.dumps(content))
    return masked


@pytest.mark.parametrize(("kind", "seed"), [("coco", 1), ("coco", 2), ("coco-panoptic", 3)])
def test_mask_figures_are_cocos_own_of_the_published_mask_of_every_query(
    masked: Path, tmp_path: Path, kind: str, seed: int
) -> None:
    """Upsampled by torch, where the sigmoid is above one half, with the score and class of the query's box."""
    ours = evaluator(masked, kind)
    assert ours.mask_threshold == ALL_MASKS
    assert ours.measure == ("AP_mask" if kind == "coco" else "PQ")
    answers = random_answers(ours.data.sizes, seed)
    found: list[dict[str, Any]] = []
    for index, _, output in answers:
        assert output.pred_masks is not None
        output.pred_masks[0, 2:8, 2:8] += 3  # something that is nearly found
        give(ours, [answers[index]])
        masks = torch.nn.functional.interpolate(
            torch.from_numpy(output.pred_masks)[:, None], ours.data.sizes[index], mode="bilinear"
        )
        for logits, mask in zip(output.pred_logits[0], masks[:, 0].sigmoid().numpy() > 0.5, strict=True):
            probabilities = np.exp(logits) / np.exp(logits).sum()
            label = int(probabilities[:-1].argmax())
            rle = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            found.append(
                {
                    "image_id": ours.data.records[index].id,
                    "category_id": CATEGORIES[label].id,
                    "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
                    "score": float(probabilities[label]),
                }
            )
    path = tmp_path / "found.json"
    path.write_text(json.dumps([d for d in found if ISTHING[d["category_id"]]]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(masked / "annotations" / "instances_val2017.json"))
        theirs = COCOeval(truth, truth.loadRes(str(path)), "segm")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    result = ours.result()
    assert [result.figures[f"{name}_mask"] for name in NAMES] == pytest.approx(theirs.stats.tolist(), abs=1e-6)
    assert list(result.figures)[: len(NAMES)] == list(NAMES)
    for row in result.classes:
        assert ("AP_mask" in row.figures) == ("AP" in row.figures) == row.category.isthing
    if kind == "coco-panoptic":
        alone = evaluator(masked, kind, thing_masks=False)
        give(alone, answers)
        assert alone.figures() == {name: value for name, value in result.figures.items() if "_mask" not in name}


# Why figures are undefined.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("none", "APm, ARm, APl and ARl are undefined, because no annotated object is medium or large"),
        ("empty", "AP is undefined, because nothing is annotated in the 5 pictures of"),
        ("crowds", "AP is undefined, because all 7 annotations of the 5 pictures of"),
        ("boxes", "AP of masks is left out: .*annotation 1 has no segmentation"),
        ("outside", "^2 annotated boxes reaching outside their picture can only be found in part"),
        ("flat", "^1 annotated box without an area in its picture can only be missed"),
        ("none", r"^1 of 7 annotations are crowds \(iscrowd 1\), which count as regions to ignore"),
        ("two corners", "^1 annotated mask without a pixel can only be missed"),
    ],
)
def test_a_dash_has_a_reason(masked: Path, tmp_path: Path, change: str, reason: str) -> None:
    other = tmp_path / "coco"
    shutil.copytree(masked, other)
    path = other / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry["iscrowd"] = 1 if change == "crowds" else entry["iscrowd"]
        if change == "boxes":
            entry["segmentation"] = []
    first, second = content["annotations"][:2]
    if change == "outside":
        first["bbox"][0], second["bbox"][3] = -5, 1000
    if change == "flat":
        first["bbox"][2] = 0
    if change == "two corners":
        first["segmentation"] = [[1, 1, 9, 9]]
    content["annotations"] = [] if change == "empty" else content["annotations"]
    path.write_text(json.dumps(content))
    ours = evaluator(other, "coco")
    give(ours, random_answers(ours.data.sizes, 3))
    result = ours.result()
    assert any(re.search(reason, note) for note in result.notes), result.notes
    assert result.notes == ours.notes()
    assert ours.has_objects == (change not in ("empty", "crowds"))
    assert ("AP_mask" in result.figures) == (change != "boxes")
    assert (result.figures["AP"] == NOTHING) == (not ours.has_objects)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(5)), cut=st.integers(1, 4))
def test_order_and_grouping_change_nothing(root: Path, seed: int, order: list[int], cut: int) -> None:
    one_by_one, grouped = evaluator(root), evaluator(root)
    answers = random_answers(one_by_one.data.sizes, seed)
    for answer in answers:
        give(one_by_one, [answer])
    for group in (order[:cut], order[cut:], order[:1]):  # the first comes twice
        give(grouped, [answers[i] for i in group])
    assert grouped.figures() == one_by_one.figures()


def test_figures_are_of_the_pictures_that_were_answered(root: Path) -> None:
    ours = evaluator(root)
    answers = random_answers(ours.data.sizes, 1)
    give(ours, answers[:2])
    assert ours.result().pictures == 2
    of_two = ours.figures()
    give(ours, answers[2:])
    assert ours.figures() != of_two
    ours.reset()
    give(ours, answers[:2])
    assert ours.figures() == of_two


def test_no_picture_has_no_figures(root: Path) -> None:
    with pytest.raises(ValueError, match="no picture was answered"):
        evaluator(root).figures()


@pytest.mark.parametrize(("kind", "mask_stride"), [("coco", 4), ("coco-panoptic", None)])
def test_boxes_alone_need_neither_masks_nor_panoptic_annotations(
    root: Path, kind: str, mask_stride: int | None
) -> None:
    ours = evaluator(root, kind, mask_stride)
    assert ours.mask_threshold == NO_MASKS
    for index, size, outputs in random_answers(ours.data.sizes, 2):
        ours.update([index], [size], RawOutputs(outputs.pred_logits, outputs.pred_boxes, None, None))
    assert list(ours.figures()) == list(NAMES)


def test_every_class_has_its_own_figures(root: Path) -> None:
    ours = evaluator(root)
    give(ours, random_answers(ours.data.sizes, 4))
    result = ours.result()
    assert [row.category.id for row in result.classes] == sorted(category.id for category in CATEGORIES)
    # Crowds are not counted: there are three cats, and four dogs of which one is a crowd.
    counted = {row.category.name: row.annotated for row in result.classes}
    assert counted == {"cat": 3, "dog": 3, "sky": 3, "sea": 2}
    for row in result.classes:
        assert ("AP" in row.figures) == row.category.isthing
    for name, isthing in (("PQ_th", True), ("PQ_st", False)):
        of_kind = [row.figures["PQ"] for row in result.classes if row.category.isthing == isthing]
        assert result.figures[name] == pytest.approx(np.mean(of_kind))


def test_a_picture_has_counts_of_its_own(root: Path) -> None:
    ours, of_boxes = evaluator(root), evaluator(root, "coco")
    for to in (ours, of_boxes):
        give(to, random_answers(to.data.sizes, 5))
    every = sum((picture_counts(ours, index, 0.5) for index in range(5)), MatchCounts())
    annotated = sum(row.annotated for row in ours.result().classes)
    assert every.matched + every.missed == annotated
    every = sum((picture_counts(of_boxes, index, 0.0) for index in range(5)), MatchCounts())
    assert every.matched + every.missed == 6, "cats and dogs"
    certain = picture_counts(of_boxes, 0, 1.0)
    assert certain == MatchCounts(missed=1), "no score is above 1"


def test_answers_that_are_no_numbers_are_an_error(root: Path) -> None:
    ours = evaluator(root)
    (index, size, outputs), *_ = random_answers(ours.data.sizes, 0)
    outputs.pred_logits[0, 0, 0] = np.nan
    with pytest.raises(OutputError):
        ours.update([index], [size], outputs)


# What cannot be evaluated is said before any picture is seen.


def test_classes_without_an_id_in_common_are_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="no category id in common"):
        evaluator(root, categories=[replace(CAT, id=1000)])


def copied(root: Path, to: Path, change: str) -> None:
    """The annotations, with a change: `without instances`, `without image` or `unknown category`."""
    (to / "annotations").mkdir(parents=True)
    for path in (root / "annotations").glob("*.json"):
        content: dict[str, Any] = json.loads(path.read_text())
        if path.name.startswith("instances"):
            if change == "without instances":
                continue
            if change == "without image":
                gone = content["images"].pop(0)["id"]
                content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != gone]
        elif change == "unknown category":
            content["annotations"][0]["segments_info"][0]["category_id"] = 77
        (to / "annotations" / path.name).write_text(json.dumps(content))


def test_annotations_that_do_not_fit_are_named(root: Path, tmp_path: Path) -> None:
    copied(root, tmp_path, "without image")
    with pytest.raises(ValueError, match=r"instances_val2017\.json lacks image 10"):
        evaluator(tmp_path)


def test_without_instances_things_are_annotated_alike(root: Path, tmp_path: Path) -> None:
    copied(root, tmp_path, "without instances")
    ours, theirs = evaluator(tmp_path), evaluator(root)
    for record in theirs.data.records:
        found, expected = (
            sorted(
                ({**entry, "id": 0, "segmentation": None} for entry in each.things.of_picture(record.id)),
                key=lambda entry: (entry["category_id"], entry["iscrowd"], entry["bbox"]),
            )
            for each in (ours, theirs)
        )
        assert found == expected


def test_a_segment_of_an_unknown_category_is_named(root: Path, tmp_path: Path) -> None:
    copied(root, tmp_path, "unknown category")
    with pytest.raises(ValueError, match=r"panoptic_val2017\.json: image \d+, segment \d+ has category 77"):
        evaluator(tmp_path)


# Several processes.

SHARES = ((0, 2, 4), (1, 3, 0))  # of two processes; picture 0 is in both, as samplers do that fill up


def join_world(store: Path, rank: int) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=200)
    )


def second_process(rank: int, store: str, root: str) -> None:
    """Evaluate the second share, and fail unless the figures are those of all."""
    join_world(Path(store), 1)
    try:
        ours, alone = evaluator(Path(root)), evaluator(Path(root))
        answers = random_answers(ours.data.sizes, 6)
        give(ours, [answers[i] for i in SHARES[1]])
        ours.gather()
        give(alone, answers)
        assert ours.figures() == alone.figures()
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture
def world(tmp_path: Path, root: Path) -> Iterator[None]:
    """This process, and a second one that has the second share."""
    store = tmp_path / "store"
    other = spawn(second_process, (str(store), str(root)), nprocs=1, join=False)
    join_world(store, 0)
    try:
        yield
        while not other.join():
            pass
    finally:
        torch.distributed.destroy_process_group()
        for process in other.processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("world")
def test_two_processes_have_the_figures_of_one(root: Path) -> None:
    ours, alone = evaluator(root), evaluator(root)
    answers = random_answers(ours.data.sizes, 6)
    give(ours, [answers[i] for i in SHARES[0]])
    ours.gather()
    give(alone, answers)
    assert ours.figures() == alone.figures()
    assert ours.result().pictures == 5
    assert set(itertools.chain(*SHARES)) == set(range(5))


def test_a_single_process_has_nothing_to_gather(root: Path) -> None:
    ours = evaluator(root)
    give(ours, random_answers(ours.data.sizes, 7))
    before = ours.figures()
    ours.gather()
    assert ours.figures() == before
