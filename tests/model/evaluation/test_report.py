"""The report is one file with the figures, every class, and the pictures that went best and worst."""

from __future__ import annotations

import base64
import io
import re
from collections import defaultdict
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.data.formats.folders import find_split
from model.evaluate import EvaluatedModel, evaluate
from model.evaluation.charts import histogram, precision_recall
from model.evaluation.evaluator import Evaluator
from model.evaluation.panoptic_quality import PanopticMap
from model.evaluation.pictures import annotated_result, draw_pair
from model.evaluation.ranking import SHOWN, rank_pictures
from model.evaluation.report import write_report
from tests.model.evaluation.oracle import Oracle, metadata
from tests.model.evaluation.scenes import CAT, CATEGORIES, DOG, SCENES, SEA, SKY, Scene, scene, write_scenes

EMPTY = Scene(np.full((32, 32), 0, np.int32), {})
WIDE = scene(["sssssssscc", "ssssssssww", "ssssssss..", "ssssssssww"], crowds="c", s=SKY, c=CAT, w=SEA)
PICTURES = (*SCENES, EMPTY, WIDE)
LOSSES = frozenset({1})  # the scene that is not answered


class Page(HTMLParser):
    """What a page holds: its tags, the values of its attributes by name, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.values: dict[str, list[str]] = defaultdict(list)
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.values[name].append(value or "")

    @property
    def addresses(self) -> list[str]:
        return [address for name in ("src", "href", "srcset", "action") for address in self.values.get(name, [])]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    write_scenes(root, dict(enumerate(PICTURES, start=10)))
    return root


def evaluated(root: Path, kind: str = "coco-panoptic") -> tuple[Oracle, Evaluator]:
    engine = Oracle(silent=LOSSES, scenes=PICTURES)
    return engine, evaluate(EvaluatedModel(engine, metadata()), find_split(kind, root, "val"), batch_size=2)


@pytest.fixture(scope="module", params=["coco-panoptic", "coco"])
def page(request: pytest.FixtureRequest, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    folder = tmp_path_factory.mktemp("report") / "new"
    engine, evaluator = evaluated(root, request.param)
    path = write_report(folder, engine, metadata(), evaluator, "val")
    assert list(folder.iterdir()) == [path]
    text = path.read_text(encoding="utf-8")
    return request.param, Page(text)


def test_the_page_loads_nothing_from_elsewhere(page: tuple[str, Page]) -> None:
    assert page[1].addresses
    assert all(address.startswith("data:") for address in page[1].addresses)


def test_it_holds_the_figures_and_every_class(root: Path, page: tuple[str, Page]) -> None:
    kind, read = page
    result = evaluated(root, kind)[1].result()
    shown = [*result.figures.values(), *(value for row in result.classes for value in row.figures.values())]
    for value in shown:
        assert ("–" if value < 0 else f"{value:.4f}") in read.text
    for row in result.classes:
        assert row.category.name in read.text
    assert ("sky" in read.text) == (kind == "coco-panoptic")


def test_pictures_are_jpegs_in_pairs_of_equal_size_from_worst_to_best(page: tuple[str, Page]) -> None:
    kind, read = page
    drawings = [address for address in read.addresses if address.startswith("data:image/jpeg")]
    # Where nothing counts, neither annotated nor found, a picture has no quality; of boxes, a crowd does not count.
    judged = {10, 11, 12, 14} if kind == "coco-panoptic" else {10, 11, 12}
    assert len(drawings) == 2 * len(judged)
    sizes = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).size for address in drawings]
    assert sizes[::2] == sizes[1::2]
    order = [int(number) for number in re.findall(r"image (\d+)", read.text)]
    assert order[0] == 11, "the picture that was not answered is the worst"
    assert sorted(order) == sorted(judged)
    missed = 4 if kind == "coco-panoptic" else 3
    assert f"0.0000 matched, {missed} missed, 0 wrong" in read.text, "a quality of 0.000, and why"


def test_annotated_and_found_are_drawn_alike_where_they_are_equal(root: Path) -> None:
    engine, evaluator = evaluated(root)
    ranking, counts = rank_pictures(evaluator, 0.5)

    def difference(index: int) -> float:
        shown = draw_pair(index, counts[index], engine, metadata(), evaluator)
        pair = [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))), np.float32)
            for url in (shown.annotated, shown.found)
        ]
        return float(np.abs(pair[0] - pair[1]).mean())

    # The oracle's answer is the truth, but where the annotation is void, which is drawn as it is, it has segments.
    assert difference(ranking.worst[0]) > 5 * difference(ranking.best[0])


def test_names_are_text_and_never_markup(root: Path, tmp_path: Path) -> None:
    engine, evaluator = evaluated(root)
    nasty = """<script>alert(1)</script>" onload="alert(2)' {{ 7 * 7 }}{% raw %}{# gone #}$title&amp;"""
    evaluator.data.categories = tuple(replace(c, name=f"{nasty}{c.id}") for c in evaluator.data.categories)
    records = tuple(replace(r, file_name=f"../val2017/{nasty}{r.file_name}") for r in evaluator.data.records)
    for ours, theirs in zip(evaluator.data.records, records, strict=True):
        path = evaluator.data.images / theirs.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((evaluator.data.images / ours.file_name).read_bytes())
    evaluator.data.records = records
    path = write_report(tmp_path / "report", engine, replace(metadata(), name=nasty), evaluator, "<b>")
    read = Page(path.read_text(encoding="utf-8"))
    assert read.tags.count("script") == 1, "the page's own"
    assert "onload" not in read.values, "a quote in a name does not end an attribute"
    assert "pictures of <b>" in read.text
    assert nasty in read.text
    assert f"{nasty}{DOG.id}" in read.text
    assert f"{nasty}{DOG.id}" in read.values["data-value"]
    assert any(value.endswith("jpg, found") and nasty in value for value in read.values["alt"])
    assert all(address.startswith("data:") for address in read.addresses)


def test_no_picture_is_both_best_and_worst(root: Path) -> None:
    evaluator = evaluated(root)[1]
    ranking, counts = rank_pictures(evaluator, 0.5)
    assert len(counts) == len(PICTURES)
    assert ranking.qualities == sorted(ranking.qualities)
    assert len(ranking.qualities) == 4
    assert (len(ranking.worst), len(ranking.best)) == (2, 2)
    assert not set(ranking.worst) & set(ranking.best)
    assert SHOWN >= 2


def test_an_annotation_is_drawn_as_the_segments_it_lists() -> None:
    truth = WIDE
    segments = PanopticMap(truth.id_map, {**truth.category_of, 5: DOG.id}, truth.crowds)
    result = annotated_result(segments, CATEGORIES)
    assert [CATEGORIES[s.label] for s in result.segments] == [SKY, CAT, SEA], "a segment without a pixel is left out"
    assert [s.id for s in result.segments] == [1, 2, 3]
    for segment, segment_id in zip(result.segments, truth.category_of, strict=True):
        assert np.array_equal(result.id_map == segment.id, truth.id_map == segment_id)
        assert segment.area == (truth.id_map == segment_id).sum()
    assert result.segments[0].box_xyxy == (0, 0, 64, 32)


def test_the_histogram_has_a_bar_for_every_filled_bin() -> None:
    drawn = histogram([0.0, 0.01, 0.5, 1.0])
    assert drawn.count("<rect") == 3
    assert "2 with 0.00 to 0.05" in drawn
    assert histogram([]).count("<rect") == 0


def test_curves_are_left_out_where_there_are_none() -> None:
    none = np.full((10, 101), -1.0)
    assert "no box is annotated" in precision_recall(none)
    some = none.copy()
    some[0] = np.linspace(1, 0, 101)
    assert precision_recall(some).count("<polyline") == 1
