"""What an artifact says about itself: everything needed to serve it, as one JSON text inside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from model.runtime.categories import Category
from model.runtime.preprocess import CANVAS_MULTIPLE, IMAGENET_NORMALIZATION, Normalization
from model.runtime.resize_rule import ResizeRule, rule_from_record, rule_to_record

FORMAT_VERSION = 3
_FIRST_VERSION = 1  # every image is resized by two edges as published, and normalized like ImageNet
_SECOND_VERSION = 2  # no graph gives its attention

ModelTask = Literal["detection", "panoptic"]
Padding = Literal["exact", "published"]
StoredPrecision = Literal["float32", "float16", "int8"]

T = TypeVar("T")


@dataclass(frozen=True)
class AttentionShape:
    """What the attention that a graph gives is made of."""

    channels: int  # of all heads, side by side
    heads: int  # of as many channels each
    stride: int  # pixels of the input per cell of the picture


@dataclass(frozen=True)
class Metadata:
    """Everything a service has to know of a model, and where the model came from."""

    format_version: int
    name: str  # of the model, such as "detr-demo"
    task: ModelTask
    categories: tuple[Category, ...]  # by class index: one fewer than the logits, whose last class is no-object
    num_queries: int
    resize: ResizeRule
    canvas_multiple: int  # pixels; the sides of a batch divide by it
    mask_stride: int | None  # pixels of the input per mask cell; None for detection
    detect_threshold: float  # default score threshold of detections, 0 to 1
    segment_threshold: float  # default score threshold of segments, 0 to 1
    padding: Padding  # "exact": an answer does not depend on the batch; "published": it does
    provenance: dict[str, Any]  # free JSON: source, digests, command, measured figures
    normalization: Normalization = IMAGENET_NORMALIZATION  # a part of the graph, which this describes
    precision: StoredPrecision = "float32"  # what most weights are stored and computed in
    attention: AttentionShape | None = None  # None for a graph that does not give its attention

    def __post_init__(self) -> None:
        """Raise ValueError naming the field that holds what no artifact of this format can."""
        ids = [category.id for category in self.categories]
        for name, holds in {
            "format_version": self.format_version == FORMAT_VERSION,
            "name": bool(self.name.strip()) and self.name.isprintable(),
            "task": self.task in get_args(ModelTask),
            "categories": bool(ids) and len(set(ids)) == len(ids),
            "num_queries": self.num_queries >= 1,
            "canvas_multiple": self.canvas_multiple == CANVAS_MULTIPLE,
            "mask_stride": (
                self.mask_stride is None
                if self.task == "detection"
                else self.mask_stride is not None
                and 1 <= self.mask_stride <= CANVAS_MULTIPLE
                and CANVAS_MULTIPLE % self.mask_stride == 0
            ),
            "detect_threshold": 0.0 <= self.detect_threshold <= 1.0,
            "segment_threshold": 0.0 <= self.segment_threshold <= 1.0,
            "padding": self.padding in get_args(Padding),
            "precision": self.precision in get_args(StoredPrecision),
            "attention": self.attention is None
            or (
                self.attention.heads >= 1
                and self.attention.channels >= 1
                and self.attention.channels % self.attention.heads == 0
                and 1 <= self.attention.stride <= CANVAS_MULTIPLE
                and CANVAS_MULTIPLE % self.attention.stride == 0
            ),
        }.items():
            if not holds:
                raise ValueError(f"metadata field {name!r} has a value that this version does not take")

    @property
    def padding_leaks(self) -> bool:
        """Whether an image's answer depends on its padding, so that only images of one size may share a batch."""
        return self.padding != "exact"

    def to_json(self) -> str:
        """One line of JSON that `from_json` turns into an equal object. Raises ValueError on NaN or infinity."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        record["categories"] = [vars(category) | {"color": list(category.color)} for category in self.categories]
        record["resize"] = rule_to_record(self.resize)
        record["normalization"] = asdict(self.normalization)
        record["attention"] = None if self.attention is None else asdict(self.attention)
        return json.dumps(record, allow_nan=False, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Metadata:
        """Read what `to_json` wrote. Raises ValueError that says which field is missing, unknown or wrong."""
        try:
            record = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise ValueError("the metadata are not valid JSON") from error
        if not isinstance(record, dict):
            raise ValueError("the metadata are not a JSON object")
        version = _typed(record, "format_version", int)
        _check_version(version)
        if version == _FIRST_VERSION:
            record = _of_first_version(record)
        if version <= _SECOND_VERSION:
            record = {"attention": None, **record}
        known = {field.name for field in fields(cls)}
        for name in record:
            if name not in known:
                raise ValueError(f"metadata field {name!r} is unknown")
        return cls(
            format_version=FORMAT_VERSION,
            name=_typed(record, "name", str),
            task=_typed(record, "task", str),  # type: ignore[arg-type]  # __post_init__ checks the value
            categories=tuple(_category(entry) for entry in _typed(record, "categories", list)),
            num_queries=_typed(record, "num_queries", int),
            resize=rule_from_record(_typed(record, "resize", dict)),
            normalization=Normalization.from_record(_typed(record, "normalization", dict)),
            canvas_multiple=_typed(record, "canvas_multiple", int),
            mask_stride=None if record.get("mask_stride", 0) is None else _typed(record, "mask_stride", int),
            detect_threshold=_typed(record, "detect_threshold", float),
            segment_threshold=_typed(record, "segment_threshold", float),
            padding=_typed(record, "padding", str),  # type: ignore[arg-type]  # __post_init__ checks the value
            provenance=_typed(record, "provenance", dict),
            precision=_typed(record, "precision", str),  # type: ignore[arg-type]
            attention=None if record.get("attention", 0) is None else _attention(_typed(record, "attention", dict)),
        )


def _check_version(version: int) -> None:
    if version > FORMAT_VERSION:
        raise ValueError(
            f"it has format version {version}, newer than the {FORMAT_VERSION} known here: update detr-serve"
        )
    if version < _FIRST_VERSION:
        raise ValueError(f"it has format version {version}; this program reads {_FIRST_VERSION} to {FORMAT_VERSION}")


def _of_first_version(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a file of this version says it."""
    edges = {"rule": "edges", **_typed(record, "resize", dict), "rounding": "published"}
    normalization = asdict(IMAGENET_NORMALIZATION)
    said = {"resize": edges, "normalization": {name: list(values) for name, values in normalization.items()}}
    return {"precision": "float32"} | dict(record) | said


def _attention(record: Mapping[str, Any]) -> AttentionShape:
    prefix = "attention."
    for name in record:
        if name not in ("channels", "heads", "stride"):
            raise ValueError(f"metadata field {prefix + name!r} is unknown")
    return AttentionShape(*(_typed(record, name, int, prefix) for name in ("channels", "heads", "stride")))


def _category(entry: object) -> Category:
    if not isinstance(entry, dict):
        raise ValueError("metadata field 'categories' holds something other than objects")
    prefix = "categories[]."
    color = _typed(entry, "color", list, prefix)
    if len(color) != 3 or not all(type(part) is int and 0 <= part <= 255 for part in color):
        raise ValueError("metadata field 'categories[].color' is not three numbers from 0 to 255")
    return Category(
        id=_typed(entry, "id", int, prefix),
        name=_typed(entry, "name", str, prefix),
        isthing=_typed(entry, "isthing", bool, prefix),
        color=(color[0], color[1], color[2]),
    )


def _typed(record: Mapping[str, Any], name: str, kind: type[T], prefix: str = "") -> T:
    """The field, exactly of that JSON type, except that 1 is also a float. True is not a number here."""
    if name not in record:
        raise ValueError(f"metadata field {prefix + name!r} is missing")
    value = record[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"metadata field {prefix + name!r} is not of type {kind.__name__}")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")
