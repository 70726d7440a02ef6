"""The synthetic data set: right annotations, same bytes for the same seed, same picture at every size."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from model.data.shapes.command import CATEGORIES, add_arguments, run, write_shapes
from model.data.shapes.scene import draw_scene, sample_scene
from model.data.shapes.stuff import TEXTURES
from model.data.shapes.things import OUTLINES, coverage

SCENES = {"seed": st.integers(0, 2**32), "index": st.integers(0, 2**32)}


def load(root: Path, kind: str, split: str) -> Any:
    return json.loads((root / "annotations" / f"{kind}_{split}2017.json").read_text())


def read_ids(root: Path, split: str, name: str) -> np.ndarray[Any, Any]:
    with Image.open(root / "annotations" / f"panoptic_{split}2017" / name) as image:
        png = np.asarray(image).astype(np.int64)
    return png[..., 0] + 256 * png[..., 1] + 65536 * png[..., 2]


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    write_shapes(tmp_path / "one", {"train": 40, "val": 3}, size=48, seed=5, workers=1)
    write_shapes(tmp_path / "two", {"train": 40, "val": 3}, size=48, seed=5, workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_more_scenes_leave_the_first_ones_as_they_were(shapes_root: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path, {"train": 2}, size=64, seed=7)
    for path in (tmp_path / "train2017").iterdir():
        assert path.read_bytes() == (shapes_root / "train2017" / path.name).read_bytes()


def test_seeds_and_splits_have_scenes_of_their_own(shapes_root: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path, {"train": 6, "val": 6}, size=64, seed=8)
    folders = [root / split for root in (shapes_root, tmp_path) for split in ("train2017", "val2017")]
    pictures = [path.read_bytes() for folder in folders for path in folder.iterdir()]
    assert len(pictures) == 24 + 6 + 6 + 6
    assert len(set(pictures)) == len(pictures)


@settings(max_examples=40, deadline=None)
@given(**SCENES, size=st.integers(32, 96))
def test_every_pixel_belongs_to_one_segment_of_a_known_class(seed: int, index: int, size: int) -> None:
    drawing = draw_scene(sample_scene(seed, index), size)
    height, width = drawing.segment_map.shape
    assert drawing.image.shape == (height, width, 3)
    assert min(height, width) == size
    assert drawing.segment_map.max() < len(drawing.names)
    assert set(drawing.names) <= {category.name for category in CATEGORIES}


@settings(max_examples=40, deadline=None)
@given(**SCENES)
def test_a_scene_has_two_to_six_things_before_two_or_three_kinds_of_stuff(seed: int, index: int) -> None:
    scene = sample_scene(seed, index)
    assert 2 <= len(scene.things) <= 6
    assert 2 <= len(set(scene.stuff)) == len(scene.stuff) <= 3
    assert len(scene.borders) == len(scene.stuff) - 1
    assert all(0.18 <= thing.extent <= 0.5 for thing in scene.things)


@settings(max_examples=25, deadline=None)
@given(**SCENES)
def test_no_thing_is_hidden_so_far_that_it_cannot_be_named(seed: int, index: int) -> None:
    scene = sample_scene(seed, index)
    drawing = draw_scene(scene, 160)
    for position, thing in enumerate(scene.things, start=len(scene.stuff)):
        loops = [loop * 160 for loop in thing.outline()]
        alone = np.asarray(coverage(loops, *drawing.segment_map.shape)) > 127
        assert (drawing.segment_map == position).sum() >= 0.35 * alone.sum()


@settings(max_examples=10, deadline=None)
@given(**SCENES)
def test_a_scene_is_the_same_picture_at_every_size(seed: int, index: int) -> None:
    scene = sample_scene(seed, index)
    small, large = draw_scene(scene, 96), draw_scene(scene, 288)
    height, width = small.segment_map.shape
    assert abs(large.segment_map.shape[0] - 3 * height) <= 1
    assert abs(large.segment_map.shape[1] - 3 * width) <= 1
    shrunk = Image.fromarray(large.image).resize((width, height), Image.Resampling.BOX)
    assert np.abs(np.asarray(shrunk).astype(int) - small.image).mean() < 8
    middles = np.asarray(Image.fromarray(large.segment_map).resize((width, height), Image.Resampling.NEAREST))
    assert (middles == small.segment_map).mean() > 0.97
    assert large.names == small.names


def test_all_classes_come_about_often_and_their_ids_have_gaps() -> None:
    scenes = [sample_scene(0, index) for index in range(100)]
    things = [thing.name for scene in scenes for thing in scene.things]
    stuff = [name for scene in scenes for name in scene.stuff]
    assert set(things) == set(OUTLINES)
    assert set(stuff) == set(TEXTURES)
    assert all(things.count(name) > len(things) / len(OUTLINES) / 3 for name in OUTLINES)
    ids = [category.id for category in CATEGORIES]
    assert ids == sorted(set(ids))
    assert ids != list(range(ids[0], ids[0] + len(ids)))


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_pngs_hold_the_segments_that_the_json_describes(shapes_root: Path, split: str) -> None:
    content = load(shapes_root, "panoptic", split)
    images = {image["id"]: image for image in content["images"]}
    assert len(content["annotations"]) == len(images) == (24 if split == "train" else 6)
    for annotation in content["annotations"]:
        ids = read_ids(shapes_root, split, annotation["file_name"])
        image = images[annotation["image_id"]]
        assert ids.shape == (image["height"], image["width"])
        with Image.open(shapes_root / f"{split}2017" / image["file_name"]) as picture:
            assert picture.size == ids.shape[::-1]
        infos = annotation["segments_info"]
        assert set(np.unique(ids)) == {info["id"] for info in infos}
        assert sum(info["area"] for info in infos) == ids.size
        for info in infos:
            rows, columns = np.nonzero(ids == info["id"])
            left, top, width, height = info["bbox"]
            assert info["area"] == len(rows)
            assert (left, top) == (columns.min(), rows.min())
            assert (left + width - 1, top + height - 1) == (columns.max(), rows.max())


def test_a_kind_of_stuff_is_one_segment(shapes_root: Path) -> None:
    stuff = {category.id for category in CATEGORIES if not category.isthing}
    for annotation in load(shapes_root, "panoptic", "train")["annotations"]:
        kinds = [info["category_id"] for info in annotation["segments_info"] if info["category_id"] in stuff]
        assert len(kinds) == len(set(kinds)) >= 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_instances_are_the_things_of_the_panoptic_annotation(shapes_root: Path) -> None:
    content = load(shapes_root, "instances", "train")
    assert [category["name"] for category in content["categories"]] == [c.name for c in CATEGORIES if c.isthing]
    assert len({annotation["id"] for annotation in content["annotations"]}) == len(content["annotations"])
    things = {category["id"] for category in content["categories"]}
    for panoptic in load(shapes_root, "panoptic", "train")["annotations"]:
        ids = read_ids(shapes_root, "train", panoptic["file_name"])
        infos = [info for info in panoptic["segments_info"] if info["category_id"] in things]
        own = [a for a in content["annotations"] if a["image_id"] == panoptic["image_id"]]
        for info, instance in zip(infos, own, strict=True):
            assert (coco_mask.decode(instance["segmentation"]) == (ids == info["id"])).all()
            assert {key: info[key] for key in ("category_id", "area", "bbox", "iscrowd")}.items() <= instance.items()


def test_annotations_that_are_there_are_not_overwritten(shapes_root: Path) -> None:
    before = files_of(shapes_root)
    with pytest.raises(FileExistsError, match=r"panoptic_val2017\.json|instances_val2017\.json"):
        write_shapes(shapes_root, {"val": 1}, size=64, seed=0)
    assert files_of(shapes_root) == before


@pytest.mark.parametrize(
    ("images", "size", "says"), [({"train": 1}, 31, "31"), ({"test": 1}, 64, "test"), ({"val": -1}, 64, "-1")]
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path: Path, images: dict[str, int], size: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write_shapes(tmp_path / "new", images, size=size, seed=0)
    assert not (tmp_path / "new").exists()


def test_the_command_says_in_one_line_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = [str(tmp_path), "--train", "2", "--val", "1", "--size", "40", "--seed", "3", "--workers", "1"]
    run(parser.parse_args(options))
    (line,) = capsys.readouterr().out.splitlines()
    assert "2 training and 1 validation scenes" in line
    with pytest.raises(SystemExit, match="already there"):
        run(parser.parse_args(options))


def test_scenes_are_drawn_without_torch(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path; from model.data.shapes.command import write_shapes\n"
        "write_shapes(Path(sys.argv[1]), {'val': 1}, size=32, seed=0)"
    )
    root = Path(__file__).parents[4]
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=root, check=True, timeout=60)
    assert len(list((tmp_path / "val2017").iterdir())) == 1
