import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.artifact.metadata import AttentionShape, Metadata
from model.runtime.categories import Category
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import Bounds, Edges, FixedSize, OwnSize, ResizeRule
from tests.tiny_artifact import tiny_metadata

COLORS = st.tuples(*[st.integers(0, 255)] * 3)
CATEGORIES = st.lists(
    st.builds(Category, id=st.integers(0, 300), name=st.text(max_size=10), isthing=st.booleans(), color=COLORS),
    min_size=1,
    max_size=5,
    unique_by=lambda category: category.id,
)


@given(CATEGORIES, st.integers(1, 500), st.integers(1, 800), st.floats(0, 1))
def test_json_and_back_gives_the_same(
    categories: list[Category], num_queries: int, edge: int, threshold: float
) -> None:
    metadata = replace(
        tiny_metadata(),
        categories=tuple(categories),
        num_queries=num_queries,
        resize=Edges(edge, edge + 100),
        detect_threshold=threshold,
        provenance={"ap": 0.42, "command": ["detr", "train"], "weights": {"sha256": "00ff"}},
    )
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_a_detection_model_has_no_mask_stride() -> None:
    metadata = tiny_metadata("detection")
    assert Metadata.from_json(metadata.to_json()).mask_stride is None


@pytest.mark.parametrize("name", sorted(json.loads(tiny_metadata().to_json())))
def test_a_missing_field_is_named(name: str) -> None:
    record = json.loads(tiny_metadata().to_json())
    del record[name]
    with pytest.raises(ValueError, match=f"'{name}' is missing"):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format_version", "1"),
        ("format_version", True),
        ("name", 5),
        ("name", ""),
        ("name", "two\nlines"),
        ("task", "classification"),
        ("task", None),
        ("categories", []),
        ("categories", {}),
        ("num_queries", 0),
        ("num_queries", 1.5),
        ("num_queries", True),
        ("canvas_multiple", 64),
        ("mask_stride", None),
        ("mask_stride", 0),
        ("mask_stride", 5),
        ("detect_threshold", 1.5),
        ("detect_threshold", "0.5"),
        ("segment_threshold", -0.1),
        ("segment_threshold", True),
        ("padding", "reflect"),
        ("precision", "float8"),
        ("precision", None),
        ("attention", True),
        ("attention", {"channels": 64, "heads": 8}),
        ("attention", {"channels": 64, "heads": 7, "stride": 16}),
        ("attention", {"channels": 64, "heads": 8, "stride": 12}),
        ("provenance", "trust me"),
        ("resize", [64, 107]),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(name: str, value: Any) -> None:
    record = json.loads(tiny_metadata().to_json()) | {name: value}
    with pytest.raises(ValueError, match=f"'{name}"):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("color", [1, 2]),
        ("color", [1, 2, 256]),
        ("color", [1, 2, True]),
        ("id", "1"),
        ("isthing", 1),
        ("name", None),
    ],
)
def test_a_wrong_category_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    record = json.loads(tiny_metadata().to_json())
    record["categories"][2][field] = value
    with pytest.raises(ValueError, match=field):
        Metadata.from_json(json.dumps(record))


def test_two_categories_of_one_id_are_refused() -> None:
    categories = (Category(1, "a", True, (0, 0, 0)), Category(1, "b", True, (0, 0, 0)))
    with pytest.raises(ValueError, match="'categories'"):
        replace(tiny_metadata(), categories=categories)


def test_a_wrong_resize_rule_is_refused() -> None:
    record = json.loads(tiny_metadata().to_json())
    record["resize"] |= {"longest_edge": 3}
    with pytest.raises(ValueError, match="resize rule"):
        Metadata.from_json(json.dumps(record))
    del record["resize"]["longest_edge"]
    with pytest.raises(ValueError, match=r"'resize\.longest_edge' is missing"):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize(
    ("normalization", "reason"),
    [
        ({}, r"'normalization\.mean' is not three numbers"),
        ({"mean": [0, 0, 0], "std": [1, 1]}, r"'normalization\.std' is not three numbers"),
        ({"mean": [0, 0, 0], "std": [1, 1, 0]}, "deviations above 0"),
    ],
)
def test_a_wrong_normalization_is_refused(normalization: Any, reason: str) -> None:
    record = json.loads(tiny_metadata().to_json()) | {"normalization": normalization}
    with pytest.raises(ValueError, match=reason):
        Metadata.from_json(json.dumps(record))


@pytest.mark.parametrize("rule", [Edges(9, 90, "transformers"), FixedSize(9, 90), Bounds(9, 90), OwnSize()])
def test_every_resize_rule_and_any_normalization_come_back(rule: ResizeRule) -> None:
    normalization = Normalization((0.48500001430511475, 0.5, -1.0), (1.0, 1 / 255, 0.1))
    metadata = replace(tiny_metadata(), resize=rule, normalization=normalization)
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_the_first_version_is_read_as_what_it_means() -> None:
    record = json.loads(tiny_metadata().to_json())
    later = ("normalization", "precision", "attention")
    first = {name: value for name, value in record.items() if name not in later}
    first |= {"format_version": 1, "resize": {"shortest_edge": 64, "longest_edge": 107}}
    assert Metadata.from_json(json.dumps(first)) == tiny_metadata()


def test_the_second_version_is_read_as_one_whose_graph_does_not_give_its_attention() -> None:
    second = json.loads(tiny_metadata().to_json()) | {"format_version": 2}
    del second["attention"]
    assert Metadata.from_json(json.dumps(second)) == tiny_metadata()


def test_the_shape_of_attention_comes_back() -> None:
    metadata = replace(tiny_metadata(), attention=AttentionShape(channels=64, heads=8, stride=16))
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_an_unknown_field_is_refused() -> None:
    record = json.loads(tiny_metadata().to_json()) | {"colour_space": "BGR"}
    with pytest.raises(ValueError, match="'colour_space' is unknown"):
        Metadata.from_json(json.dumps(record))


def test_a_newer_format_is_told_from_a_damaged_one() -> None:
    # A newer format may have any fields, so its version is looked at before they are.
    with pytest.raises(ValueError, match="format version 4, newer than"):
        Metadata.from_json('{"format_version": 4, "anything": "else"}')
    with pytest.raises(ValueError, match="format version 0"):
        Metadata.from_json('{"format_version": 0}')


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": NaN}', "[" * 100_000])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="metadata are not"):
        Metadata.from_json(text)


def test_infinity_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        replace(tiny_metadata(), provenance={"loss": float("inf")}).to_json()
