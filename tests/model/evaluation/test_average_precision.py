"""Average precision is that of COCO's own evaluator, whatever is annotated and found."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from model.evaluation.average_precision import NAMES, FoundMask, average_precision, mask_average_precision
from model.evaluation.instance_truth import InstanceTruth

CATEGORIES = (7, 3, 12)
IMAGES = (40, 5, 9, 23)
Rows = dict[int, NDArray[np.float64]]  # by image id: left, top, width, height, score, category id

side = st.integers(1, 120)  # small and medium boxes, and some that are large
box = st.tuples(st.integers(0, 60), st.integers(0, 60), side, side)
# Few different scores, so that many are equal.
detection = st.tuples(box, st.sampled_from([0.1, 0.25, 0.5, 0.9]), st.sampled_from([*CATEGORIES, 99]))
annotation = st.tuples(st.sampled_from(IMAGES), st.sampled_from(CATEGORIES[:2]), box, st.sampled_from([0, 0, 0, 1]))


def annotations_of(drawn: Sequence[tuple[int, int, tuple[int, ...], int]]) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 200, "width": 200} for i in IMAGES],
        "categories": [{"id": i, "name": str(i)} for i in CATEGORIES],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": list(xywh),
                "area": xywh[2] * xywh[3],
                "iscrowd": iscrowd,
            }
            for number, (image, category, xywh, iscrowd) in enumerate(drawn, start=1)
        ],
    }


def cocos_own(annotations: Path, found: Path, images: Sequence[int], shape: str = "bbox") -> COCOeval:
    """COCO's evaluator as its users call it: file names in, figures out."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(found)), shape)
        evaluation.params.imgIds = list(images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def shifted(xywh: Sequence[int], by: int) -> tuple[int, ...]:
    return (xywh[0] + by, *xywh[1:])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_figures_are_those_of_cocos_own_evaluator(tmp_path: Path, data: st.DataObject) -> None:
    """With crowds, equal scores, pictures without annotation, without detection, and classes without either."""
    drawn = data.draw(st.lists(annotation, max_size=12))
    found: list[tuple[int, Any]] = data.draw(
        st.lists(st.tuples(st.sampled_from(IMAGES), detection), min_size=1, max_size=20)
    )
    # Half of the annotated are found nearly right, so that there is something to match.
    for image, category, xywh, _ in drawn[::2]:
        found.append((image, (shifted(xywh, data.draw(st.integers(0, 3))), 0.5, category)))
    if all(entry[1][2] == 99 for entry in found):
        found.append((IMAGES[0], ((0, 0, 10, 10), 0.5, CATEGORIES[2])))
    images = data.draw(st.lists(st.sampled_from(IMAGES), min_size=1, unique=True))

    annotations, answers = tmp_path / "annotations.json", tmp_path / "found.json"
    annotations.write_text(json.dumps(annotations_of(drawn)))
    answers.write_text(
        json.dumps(
            [
                {"image_id": image, "category_id": category, "bbox": xywh, "score": score}
                for image, (xywh, score, category) in found
                if category != 99
            ]
        )
    )
    theirs = cocos_own(annotations, answers, images)
    rows = {
        image: np.array([[*xywh, score, category] for i, (xywh, score, category) in found if i == image], np.float64)
        for image in {image for image, _ in found}
    }
    ours = average_precision(InstanceTruth.read(annotations, masks=False), rows.items(), images)
    assert list(ours.total) == list(NAMES)
    assert list(ours.total.values()) == pytest.approx(theirs.stats.tolist(), abs=1e-6)
    for k, category in enumerate(sorted(CATEGORIES)):
        precision = theirs.eval["precision"][:, :, k, 0, 2]
        expected = precision.mean() if (precision > -1).all() else -1
        assert ours.per_category[category]["AP"] == pytest.approx(expected, abs=1e-6)
        assert ours.per_category[category]["AP50"] == pytest.approx(precision[0].mean(), abs=1e-6)


def outline(xywh: Sequence[int]) -> list[list[int]]:
    """A box's part in the picture without its lower right corner, as two polygons where it is wide enough."""
    x1, y1, x2, y2 = xywh[0], xywh[1], min(200, xywh[0] + xywh[2]), min(200, xywh[1] + xywh[3])
    middle = (x1 + x2) // 2
    if middle == x1:
        return [[x1, y1, x2, y1, x1, y2]]
    return [[x1, y1, middle, y1, middle, y2, x1, y2], [middle, y1, x2, y1, x2, y1 + 1, middle, y2]]


def run_lengths_of(xywh: Sequence[int], form: str) -> Any:
    """The same pixels in each of the forms that files have them in."""
    polygons = outline(xywh)
    if form == "polygons":
        return polygons
    mask = coco_mask.merge(coco_mask.frPyObjects([list(map(float, points)) for points in polygons], 200, 200))
    if form == "string":
        return {"size": [200, 200], "counts": mask["counts"].decode()}
    pixels = coco_mask.decode(mask).ravel(order="F")
    borders = np.flatnonzero(np.diff(pixels, prepend=0, append=2))
    return {"size": [200, 200], "counts": np.diff(borders, prepend=0).tolist()}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_figures_of_masks_are_those_of_cocos_own_evaluator(tmp_path: Path, data: st.DataObject) -> None:
    """Polygons, run lengths as lists and strings, crowds, equal scores; ours has ids of annotations that are all 0."""
    drawn = data.draw(st.lists(annotation, max_size=10))
    found: list[tuple[int, Any]] = data.draw(
        st.lists(st.tuples(st.sampled_from(IMAGES), detection), min_size=1, max_size=12)
    )
    for image, category, xywh, _ in drawn[::2]:
        found.append((image, (shifted(xywh, data.draw(st.integers(0, 3))), 0.5, category)))
    found.append((IMAGES[0], ((0, 0, 10, 10), 0.5, CATEGORIES[2])))
    content = annotations_of(drawn)
    for entry in content["annotations"]:
        form = data.draw(st.sampled_from(["list", "string"] if entry["iscrowd"] else ["polygons", "list", "string"]))
        entry["segmentation"] = run_lengths_of(entry["bbox"], form)
    annotations, answers, ids_0 = (tmp_path / name for name in ("annotations.json", "found.json", "ids_0.json"))
    annotations.write_text(json.dumps(content))
    for entry in content["annotations"]:
        entry["id"] = 0
    ids_0.write_text(json.dumps(content))
    masks = [
        (image, FoundMask(score, category, run_lengths_of(xywh, "string")["counts"]))
        for image, (xywh, score, category) in found
    ]
    results = [
        {
            "image_id": image,
            "category_id": mask.category_id,
            "segmentation": {"size": [200, 200], "counts": mask.counts},
            "score": mask.score,
        }
        for image, mask in masks
        if mask.category_id != 99
    ]
    answers.write_text(json.dumps(results))
    theirs = cocos_own(annotations, answers, IMAGES, "segm")
    by_image = [(image, [mask for i, mask in masks if i == image]) for image in IMAGES]
    ours = mask_average_precision(InstanceTruth.read(ids_0, masks=True), by_image, IMAGES)
    assert list(ours.total.values()) == pytest.approx(theirs.stats.tolist(), abs=1e-6)


def test_a_file_without_masks_says_which_object_has_none(tmp_path: Path) -> None:
    content = annotations_of([(5, 7, (10, 10, 20, 20), 0), (9, 7, (10, 10, 20, 20), 1)])
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    truth = InstanceTruth.read(path, masks=True)
    assert not truth.has_masks
    assert "annotations.json: annotation 1 has no segmentation" in truth.without_masks
    content["annotations"][0]["segmentation"] = [[10, 10, 30, 10, 30, 30]]
    path.write_text(json.dumps(content))
    truth = InstanceTruth.read(path, masks=True)
    assert truth.has_masks, "of a crowd without a mask its box is one"
    (crowd,) = truth.of_picture(9)
    assert coco_mask.area(crowd["segmentation"]) == 400


def test_the_figures_of_all_are_the_means_of_the_classes(tmp_path: Path) -> None:
    drawn = [(5, 7, (10, 10, 20, 20), 0), (5, 7, (60, 60, 30, 30), 0), (9, 3, (0, 0, 50, 50), 0)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations_of(drawn)))
    rows = {5: np.array([[10, 10, 20, 20, 0.9, 7.0]]), 9: np.array([[0, 0, 50, 40, 0.8, 3.0]])}
    figures = average_precision(InstanceTruth.read(path, masks=False), rows.items(), [5, 9])
    seen = [row for row in figures.per_category.values() if row["AP"] >= 0]
    assert len(seen) == 2, "nothing of the third class is annotated"
    assert figures.per_category[12] == dict.fromkeys(("AP", "AP50", "AP75", "AR100"), -1)
    for name in ("AP", "AP50", "AP75", "AR100"):
        assert figures.total[name] == pytest.approx(np.mean([row[name] for row in seen]))
    # The second class's only box is found with an IoU of 0.8: at seven of ten thresholds.
    assert figures.per_category[3]["AP"] == pytest.approx(0.7)
    assert figures.precision.shape == (10, 101)
    assert figures.precision[0].mean() == pytest.approx(figures.total["AP50"])


def test_nothing_found_has_ap_0_and_says_nothing_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations_of([(5, 7, (10, 10, 20, 20), 0)])))
    figures = average_precision(InstanceTruth.read(path, masks=False), [], IMAGES)
    assert set(figures.total.values()) == {0.0, -1.0}
    assert figures.total["AP"] == 0
    assert capsys.readouterr().out == ""


def test_nothing_annotated_has_no_figures(tmp_path: Path) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations_of([])))
    figures = average_precision(
        InstanceTruth.read(path, masks=False), [(5, np.array([[0, 0, 9, 9, 0.5, 7.0]]))], IMAGES
    )
    assert set(figures.total.values()) == {-1.0}
    assert (figures.precision == -1).all()


def test_area_and_iscrowd_may_be_left_out(tmp_path: Path) -> None:
    whole = annotations_of([(5, 7, (10, 10, 40, 40), 0)])
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    for entry in whole["annotations"]:
        del entry["area"], entry["iscrowd"]
    (tmp_path / "short.json").write_text(json.dumps(whole))
    rows = [(5, np.array([[10, 10, 40, 36, 0.5, 7.0]]))]
    figures = [
        average_precision(InstanceTruth.read(tmp_path / name, masks=False), rows, IMAGES)
        for name in ("whole.json", "short.json")
    ]
    assert figures[0].total == figures[1].total
    assert figures[0].total["APm"] > 0, "32 x 32 pixels and more is medium"


def test_an_annotation_without_a_box_is_named(tmp_path: Path) -> None:
    content = annotations_of([(5, 7, (10, 10, 40, 40), 0)])
    del content["annotations"][0]["bbox"]
    (tmp_path / "none.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"none\.json: annotation 1 has no bbox"):
        InstanceTruth.read(tmp_path / "none.json", masks=False)


@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 0, 0], [5, 5, 5], ["a", "b", "c"], [None, None, None], [-1, 0, 2**70]])
def test_the_ids_of_annotations_change_no_figure(tmp_path: Path, ids: list[Any]) -> None:
    content = annotations_of([(5, 7, (10, 10, 20, 20), 0), (5, 7, (60, 60, 30, 30), 0), (9, 3, (0, 0, 50, 50), 0)])
    rows = {
        5: np.array([[10, 10, 20, 20, 0.9, 7.0], [60, 60, 30, 30, 0.8, 7.0]]),
        9: np.array([[0, 0, 50, 40, 0.8, 3.0]]),
    }
    figures = []
    for name, numbers in (("usual", [1, 2, 3]), ("theirs", ids)):
        for entry, number in zip(content["annotations"], numbers, strict=True):
            entry["id"] = number
        (tmp_path / name).write_text(json.dumps(content))
        figures.append(average_precision(InstanceTruth.read(tmp_path / name, masks=False), rows.items(), [5, 9]).total)
    assert figures[0] == figures[1]
    assert figures[0]["AP"] == pytest.approx((1 + 0.7) / 2)


def test_ids_of_images_may_be_larger_than_numpys(tmp_path: Path) -> None:
    content = annotations_of([(5, 7, (10, 10, 20, 20), 0), (9, 7, (0, 0, 50, 50), 0)])
    large = {5: 2**64 - 1, 9: 2**64 - 2}
    for entry in content["images"]:
        entry["id"] = large.get(entry["id"], entry["id"])
    for entry in content["annotations"]:
        entry["image_id"] = str(large[entry["image_id"]])
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    rows = {large[5]: np.array([[10, 10, 20, 20, 0.9, 7.0]]), large[9]: np.array([[0, 0, 50, 50, 0.8, 7.0]])}
    assert average_precision(InstanceTruth.read(path, masks=False), rows.items(), list(rows)).total[
        "AP"
    ] == pytest.approx(1)
