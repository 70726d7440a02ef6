import base64
import io
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.artifact.file import Artifact
from model.runtime.artifact.golden import GoldenSample
from tests.tiny_artifact import tiny_metadata


def as_text(arrays: dict[str, Any]) -> str:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def arrays_of(golden: GoldenSample) -> dict[str, Any]:
    arrays = {field.name: getattr(golden, field.name) for field in fields(golden)}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize("task", ["panoptic", "detection"])
def test_text_and_back_gives_the_same_arrays(task: str, request: pytest.FixtureRequest) -> None:
    golden: GoldenSample = request.getfixturevalue(f"{task}_artifact").golden
    again = GoldenSample.from_text(golden.to_text())
    assert arrays_of(again).keys() == arrays_of(golden).keys()
    for name, array in arrays_of(golden).items():
        np.testing.assert_array_equal(getattr(again, name), array)
        assert getattr(again, name).dtype == array.dtype


@given(st.text(max_size=100) | st.binary(max_size=100).map(lambda data: base64.b64encode(data).decode()))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="golden sample cannot be read"):
        GoldenSample.from_text(text)


def test_a_pickle_is_not_opened(panoptic_artifact: Artifact) -> None:
    arrays = arrays_of(panoptic_artifact.golden) | {"images": np.array([{"an": "object"}], dtype=object)}
    with pytest.raises(ValueError, match="golden sample cannot be read"):
        GoldenSample.from_text(as_text(arrays))


def test_an_archive_is_expected_and_not_one_array() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with pytest.raises(ValueError, match="golden sample cannot be read"):
        GoldenSample.from_text(base64.b64encode(buffer.getvalue()).decode())


def test_a_wrong_type_is_named(panoptic_artifact: Artifact) -> None:
    arrays = arrays_of(panoptic_artifact.golden)
    arrays["pred_boxes"] = arrays["pred_boxes"].astype(np.float64)
    with pytest.raises(ValueError, match="'pred_boxes'"):
        GoldenSample.from_text(as_text(arrays))


@pytest.mark.parametrize("name", ["images", "pred_logits", "mask_index"])
def test_a_missing_array_is_named(name: str, panoptic_artifact: Artifact) -> None:
    arrays = arrays_of(panoptic_artifact.golden)
    del arrays[name]
    with pytest.raises(ValueError, match=f"lacks '{name}'"):
        GoldenSample.from_text(as_text(arrays))


@pytest.mark.parametrize("name", [field.name for field in fields(GoldenSample)])
def test_a_wrong_shape_is_named(name: str, panoptic_artifact: Artifact) -> None:
    golden = panoptic_artifact.golden
    golden.check(panoptic_artifact.metadata)
    array = getattr(golden, name)
    # One entry more along the last axis fits nothing else.
    longer = np.concatenate([array, array[..., :1]], axis=-1)
    expected = "mask_index" if name == "mask_index" else name
    with pytest.raises(ValueError, match=f"'{expected}' has a wrong shape"):
        replace(golden, **{name: longer}).check(panoptic_artifact.metadata)


def test_a_sample_of_the_other_task_is_refused(panoptic_artifact: Artifact, detection_artifact: Artifact) -> None:
    with pytest.raises(ValueError, match="not one of a detection model"):
        panoptic_artifact.golden.check(tiny_metadata("detection"))
    with pytest.raises(ValueError, match="not one of a panoptic model"):
        detection_artifact.golden.check(tiny_metadata("panoptic"))


def test_an_empty_sample_is_refused(panoptic_artifact: Artifact) -> None:
    empty = replace(panoptic_artifact.golden, images=np.zeros((0, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match="'images' has a wrong shape"):
        empty.check(panoptic_artifact.metadata)
