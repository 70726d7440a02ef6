"""The command `detr models`: the models that are known by name, and which of them are on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.hub.cache import ArtifactCache, default_cache
from model.hub.known import KNOWN, KnownModel
from model.hub.names import read_name

_HEADINGS = ("name", "task", "finds", "published", "weights", "GFLOP", "cached")
_MORE = """
detr serve --model NAME serves one, as any DETR on the hub of one of these architectures: OWNER/NAME@REVISION.
A name without an owner is the authors' own file, which detr fetch NAME exports with PyTorch; detr-resnet-50 and the
others of facebook are there as well. AP and PQ are the authors' own, on COCO 2017 val or PubTables-1M."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr models`."""
    parser.add_argument(
        "--model-cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="Look for artifacts that were made of them in this folder. The default is %(default)s.",
    )


def run(args: argparse.Namespace) -> None:
    """Carry out `detr models`."""
    cache = ArtifactCache(args.model_cache)
    rows = [_HEADINGS, *(_row(model, cache) for model in KNOWN)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(_MORE)


def _row(model: KnownModel, cache: ArtifactCache) -> tuple[str, ...]:
    name = read_name(model.name)
    figures = (f"{model.megabytes} MB" if model.megabytes else "-", str(model.gflop or "-"))
    cached = "yes" if name is not None and cache.holds(name) else "-"
    return (model.name, model.task, model.finds, model.quality or "-", *figures, cached)
