"""Figures as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from model.evaluation.evaluator import OF_MASKS, ClassFigures, EvaluationResult

MEANINGS = {
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "small, below 32 x 32 pixels",
    "APm": "medium",
    "APl": "large, above 96 x 96 pixels",
    "AR1": "recall with 1 answer a picture and class",
    "AR10": "with 10",
    "AR100": "with 100",
    "ARs": "with 100, small",
    "ARm": "medium",
    "ARl": "large",
}
PANOPTIC = (("all", ""), ("things", "_th"), ("stuff", "_st"))
_OF_CLASS = ("AP", "AP50", "AP75", "AR100")
CLASS_COLUMNS = (*_OF_CLASS, *(f"{name}{OF_MASKS}" for name in _OF_CLASS), "PQ", "SQ", "RQ")
LONGEST_NAME = 28


def figures_table(result: EvaluationResult, *, per_class: bool = False) -> str:
    """Lines for people, without a line break at the end; a dash is where there is nothing to judge by."""
    figures = result.figures
    shapes = shape_columns(result)
    lines = [f"{'':<10}" + "".join(f"{word:>8}" for word in shapes) + f"  {result.pictures} pictures"]
    for name, meaning in MEANINGS.items():
        cells = "".join(f"{format_figure(figures[name + suffix]):>8}" for suffix in shapes.values())
        lines.append(f"{name:<10}{cells}  {meaning}")
    if "PQ" in figures:
        lines += ["", f"{'segments':<10}{'PQ':>8}{'SQ':>8}{'RQ':>8}"]
        for word, suffix in PANOPTIC:
            row = "".join(f"{format_figure(figures[name + suffix]):>8}" for name in ("PQ", "SQ", "RQ"))
            lines.append(f"{word:<10}{row}")
    if per_class:
        lines += ["", *_class_lines(result.classes)]
    if result.notes:
        lines += ["", *(f"{note}." for note in result.notes)]
    return "\n".join(lines)


def shape_columns(result: EvaluationResult) -> dict[str, str]:
    """What COCO's figures are of, in words, and how their names end."""
    return {"boxes": ""} | ({"masks": OF_MASKS} if f"AP{OF_MASKS}" in result.figures else {})


def format_figure(figure: float | None) -> str:
    """Four decimals, or a dash for what is not there."""
    return "–" if figure is None or figure < 0 else f"{figure:.4f}"


def class_columns(classes: Sequence[ClassFigures]) -> list[str]:
    """The figures that any of the classes has, in order."""
    return [name for name in CLASS_COLUMNS if any(name in row.figures for row in classes)]


def _class_lines(classes: Sequence[ClassFigures]) -> list[str]:
    columns = {name: max(8, len(name) + 2) for name in class_columns(classes)}
    names = [_shortened(row.category.name) for row in classes]
    width = max(map(len, ["class", *names])) + 2
    lines = [f"{'class':<{width}}{'objects':>8}" + "".join(f"{name:>{wide}}" for name, wide in columns.items())]
    for name, row in zip(names, classes, strict=True):
        cells = "".join(f"{format_figure(row.figures.get(column)):>{wide}}" for column, wide in columns.items())
        lines.append(f"{name:<{width}}{row.annotated:>8}{cells}")
    return lines


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
