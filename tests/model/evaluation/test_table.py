"""The table of figures for a terminal."""

from __future__ import annotations

import numpy as np

from model.evaluation.average_precision import NAMES
from model.evaluation.evaluator import ClassFigures, EvaluationResult
from model.evaluation.table import figures_table
from model.runtime.categories import Category

PANOPTIC = [f"{name}{suffix}" for suffix in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")]
CAT = Category(7, "cat", True, (1, 2, 3))
SKY = Category(50, "a sky with a name that is longer than any line", False, (1, 2, 3))


def result(*names: str, notes: tuple[str, ...] = ()) -> EvaluationResult:
    """Figures that can be told apart: 0.0100, 0.0200 and so on, the last one missing."""
    figures = {name: place / 100 for place, name in enumerate(names, start=1)} | {names[-1]: -1.0}
    cat = ClassFigures(CAT, 3, {"AP": 0.5, "AP50": 0.75, "AP75": -1.0, "AR100": 1.0})
    sky = ClassFigures(SKY, 12, {"PQ": 0.25, "SQ": 0.5, "RQ": 0.125})
    return EvaluationResult(figures, (cat, sky), np.full((10, 101), -1.0), 500, notes)


def test_every_box_figure_has_a_line_and_a_missing_one_a_dash() -> None:
    first, *lines = figures_table(result(*NAMES)).splitlines()
    assert "500 pictures" in first
    assert [line.split()[:2] for line in lines] == [
        *([name, f"{place / 100:.4f}"] for place, name in enumerate(NAMES[:-1], start=1)),
        ["ARl", "–"],
    ]


def test_figures_of_masks_are_beside_those_of_boxes() -> None:
    first, *lines = figures_table(result(*NAMES, *(f"{name}_mask" for name in NAMES))).splitlines()
    assert first.split()[:2] == ["boxes", "masks"]
    assert lines[0].split()[:3] == ["AP", "0.0100", "0.1300"]
    assert lines[-1].split()[:3] == ["ARl", "0.1200", "–"]


def test_why_a_figure_is_missing_is_below_the_table() -> None:
    table = figures_table(result(*NAMES, notes=("ARl is undefined, because no object is large",)))
    assert table.endswith("\n\nARl is undefined, because no object is large.")


def test_segments_have_a_line_for_all_things_and_stuff() -> None:
    lines = figures_table(result(*NAMES, *PANOPTIC)).splitlines()
    assert [line.split() for line in lines[-4:]] == [
        ["segments", "PQ", "SQ", "RQ"],
        ["all", "0.1300", "0.1400", "0.1500"],
        ["things", "0.1600", "0.1700", "0.1800"],
        ["stuff", "0.1900", "0.2000", "–"],
    ]


def test_classes_are_shown_if_asked_for_in_columns_that_line_up() -> None:
    assert "cat" not in figures_table(result(*NAMES))
    head, cat, sky = figures_table(result(*NAMES), per_class=True).splitlines()[-3:]
    assert head.split() == ["class", "objects", "AP", "AP50", "AP75", "AR100", "PQ", "SQ", "RQ"]
    assert cat.split() == ["cat", "3", "0.5000", "0.7500", "–", "1.0000", "–", "–", "–"]
    assert sky.startswith("a sky with a name that is l…")
    assert sky.split()[-8:] == ["12", "–", "–", "–", "–", "0.2500", "0.5000", "0.1250"]
    assert len(head) == len(cat) == len(sky)
