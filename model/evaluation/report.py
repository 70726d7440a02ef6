"""A page for people: the figures, every class, and the pictures that went best and worst, all in one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from model.evaluation.average_precision import NAMES
from model.evaluation.charts import histogram, precision_recall
from model.evaluation.evaluator import ClassFigures, Evaluator
from model.evaluation.pictures import ShownPicture, draw_pair, rank_pictures
from model.evaluation.table import MEANINGS, PANOPTIC, class_columns, format_figure
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.engine import Engine

PAGE = "index.html"
CARDS = {
    "AP": "AP of boxes",
    "AP50": "AP at IoU 0.50",
    "AR100": "recall of boxes",
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
    kind = "segments" if evaluator.with_masks else "boxes"
    thresholds = {"segment": metadata.segment_threshold, "detect": metadata.detect_threshold}
    explanation = EXPLANATIONS[kind].format(kind=kind, **thresholds)
    template = Template(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    page = template.substitute(
        title=escape(metadata.name),
        subtitle=escape(
            f"{metadata.task} · {result.pictures} pictures of {split} · {len(result.classes)} classes · {engine.device}"
        ),
        cards=_cards(result.figures),
        tables=_box_table(result.figures) + _segment_table(result.figures),
        curves=precision_recall(result.precision),
        histogram=histogram(ranking.qualities),
        classes=_class_table(result.classes),
        explanation=escape(explanation),
        best=_figures(best),
        worst=_figures(worst),
    )
    folder.mkdir(exist_ok=True)
    path: Path = folder / PAGE
    path.write_text(page, encoding="utf-8")
    return path


def _cards(figures: dict[str, float]) -> str:
    shown = ((format_figure(figures[name])[:6], words) for name, words in CARDS.items() if name in figures)
    return "".join(f'<div class="card"><b>{value}</b><span>{words}</span></div>' for value, words in shown)


def _box_table(figures: dict[str, float]) -> str:
    rows = (
        f'<tr><td>{name}</td><td>{format_figure(figures[name])}</td><td class="text">{escape(MEANINGS[name])}</td></tr>'
        for name in NAMES
    )
    return f'<section class="panel scroll"><h3>Boxes</h3><table>{"".join(rows)}</table></section>'


def _segment_table(figures: dict[str, float]) -> str:
    if "PQ" not in figures:
        return ""
    names = ("PQ", "SQ", "RQ")
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = (
        f"<tr><td>{word}</td>{''.join(f'<td>{format_figure(figures[name + suffix])}</td>' for name in names)}</tr>"
        for word, suffix in PANOPTIC
    )
    note = '<p class="note">PQ is the mean over classes of SQ (IoU of what was matched) by RQ (how much was).</p>'
    table = f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    return f'<section class="panel scroll"><h3>Segments</h3>{table}{note}</section>'


def _class_table(classes: Sequence[ClassFigures]) -> str:
    columns = class_columns(classes)
    head = "".join(f"<th><button>{name}</button></th>" for name in ["class", "objects", *columns])
    rows = []
    for row in classes:
        red, green, blue = row.category.color
        name = f'<span class="dot" style="background:rgb({red} {green} {blue})"></span>{escape(row.category.name)}'
        cells = "".join(_share_cell(row.figures.get(column)) for column in columns)
        rows.append(f'<tr><td data-value="{escape(row.category.name)}">{name}</td><td>{row.annotated}</td>{cells}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _share_cell(figure: float | None) -> str:
    share = f"{100 * max(0.0, figure or 0.0):.1f}%"
    return f'<td class="share" style="--share:{share}">{format_figure(figure)}</td>'


def _figures(pictures: Sequence[ShownPicture]) -> str:
    return "".join(map(_figure, pictures)) or '<p class="note">None.</p>'


def _figure(shown: ShownPicture) -> str:
    name, counts = escape(shown.record.file_name), shown.counts
    pair = "".join(
        f'<div>{word}<img src="{url}" alt="{name}, {word}"></div>'
        for word, url in (("annotated", shown.annotated), ("found", shown.found))
    )
    said = f"{counts.matched} matched, {counts.missed} missed, {counts.wrong} wrong"
    file = f'<span class="file">{name} · image {shown.record.id}</span>'
    caption = f"<b>{counts.quality:.3f}</b><span>{said}</span>{file}"
    return f'<figure><div class="pair">{pair}</div><figcaption>{caption}</figcaption></figure>'
