"""A page for people: the figures, every class, and the pictures that went best and worst, all in one HTML file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from model.evaluation.charts import histogram, precision_recall
from model.evaluation.evaluator import OF_MASKS, Evaluator
from model.evaluation.pictures import draw_pair
from model.evaluation.ranking import rank_pictures
from model.evaluation.table import MEANINGS, PANOPTIC, class_columns, format_figure, shape_columns
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.engine import Engine

_PAGE = "index.html"
CARDS = {
    "AP": "AP of boxes",
    "AP50": "AP at IoU 0.50",
    "AR100": "recall of boxes",
    f"AP{OF_MASKS}": "AP of masks",
    "PQ": "panoptic quality",
    "PQ_th": "PQ of things",
    "PQ_st": "PQ of stuff",
}
_QUALITY = (
    "A picture's quality is the IoU of all matched {kind}, added up, divided by matched + missed / 2 + wrong / 2. "
)
EXPLANATIONS = {
    "segments": (
        _QUALITY + "It is panoptic quality, with all segments of the picture alike whatever their class: a segment is "
        "matched if it shares its class and more than half of the union with an annotated one. Annotated is on the "
        "left, found on the right; a segment counts from a score of {segment:g}."
    ),
    "boxes": (
        _QUALITY + "Boxes count that score above {detect:g}, as in the service; from the best on, each is matched "
        "with the annotated box of its class that it fits best, with an IoU of at least 0.5. Annotated is on the left, "
        "found on the right."
    ),
}


def write_report(folder: Path, engine: Engine, metadata: Metadata, evaluator: Evaluator, split: str) -> Path:
    """Write `folder`/index.html of what an evaluator has seen, and return its path; the folder is made.

    Nothing in the page is loaded from elsewhere. Raises OSError where it cannot be written, what reading the shown
    pictures raises, and ValueError where no picture was answered.
    """
    result = evaluator.result()
    ranking, counts = rank_pictures(evaluator, metadata.detect_threshold)
    best, worst = (
        [draw_pair(index, counts[index], engine, metadata, evaluator) for index in indices]
        for indices in (ranking.best, ranking.worst)
    )
    kind = "segments" if evaluator.with_segments else "boxes"
    thresholds = {"segment": metadata.segment_threshold, "detect": metadata.detect_threshold}
    explanation = EXPLANATIONS[kind].format(kind=kind, **thresholds)
    page = _template().render(
        title=metadata.name,
        subtitle=(
            f"{metadata.task} · {result.pictures} pictures of {split} · {len(result.classes)} classes · {engine.device}"
        ),
        cards=CARDS,
        figures=result.figures,
        notes=result.notes,
        meanings=MEANINGS,
        shapes=shape_columns(result),
        panoptic=PANOPTIC,
        curves=precision_recall(result.precision),
        histogram=histogram(ranking.qualities),
        classes=result.classes,
        columns=class_columns(result.classes),
        explanation=explanation,
        best=best,
        worst=worst,
    )
    folder.mkdir(exist_ok=True)
    path: Path = folder / _PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _template() -> Template:
    """The page's template, which escapes every value: a name is text, whatever characters it has."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": format_figure, "share": _share}
    return environment.get_template("report.html")


def _share(figure: float | None) -> str:
    """A figure as the length of its bar; none where there is no figure."""
    return f"{100 * max(0.0, figure or 0.0):.1f}%"
