"""Figures as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from model.evaluation.average_precision import NAMES
from model.evaluation.evaluator import ClassFigures, EvaluationResult

MEANINGS = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32 x 32 pixels",
    "APm": "medium",
    "APl": "large, above 96 x 96 pixels",
    "AR1": "recall with 1 box a picture and class",
    "AR10": "with 10",
    "AR100": "with 100",
    "ARs": "with 100, small",
    "ARm": "medium",
    "ARl": "large",
}
PANOPTIC = (("all", ""), ("things", "_th"), ("stuff", "_st"))
CLASS_COLUMNS = ("AP", "AP50", "AP75", "AR100", "PQ", "SQ", "RQ")
LONGEST_NAME = 28


def figures_table(result: EvaluationResult, *, per_class: bool = False) -> str:
    """Lines for people, without a line break at the end; a dash is where there is nothing to judge by."""
    figures = result.figures
    lines = [f"{'boxes':<10}{'':>8}  {result.pictures} pictures"]
    lines += [f"{name:<10}{format_figure(figures[name]):>8}  {MEANINGS[name]}" for name in NAMES]
    if "PQ" in figures:
        lines += ["", f"{'segments':<10}{'PQ':>8}{'SQ':>8}{'RQ':>8}"]
        for word, suffix in PANOPTIC:
            row = "".join(f"{format_figure(figures[name + suffix]):>8}" for name in ("PQ", "SQ", "RQ"))
            lines.append(f"{word:<10}{row}")
    return "\n".join([*lines, *(["", *_class_lines(result.classes)] if per_class else [])])


def format_figure(figure: float | None) -> str:
    """Four decimals, or a dash for what is not there."""
    return "–" if figure is None or figure < 0 else f"{figure:.4f}"


def class_columns(classes: Sequence[ClassFigures]) -> list[str]:
    """The figures that any of the classes has, in order."""
    return [name for name in CLASS_COLUMNS if any(name in row.figures for row in classes)]


def _class_lines(classes: Sequence[ClassFigures]) -> list[str]:
    columns = class_columns(classes)
    names = [_shortened(row.category.name) for row in classes]
    width = max(map(len, ["class", *names])) + 2
    lines = [f"{'class':<{width}}{'objects':>8}" + "".join(f"{name:>8}" for name in columns)]
    for name, row in zip(names, classes, strict=True):
        cells = "".join(f"{format_figure(row.figures.get(column)):>8}" for column in columns)
        lines.append(f"{name:<{width}}{row.annotated:>8}{cells}")
    return lines


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
