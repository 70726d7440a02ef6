import pytest

from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.precision import PRECISIONS, precision_in_force

PLAIN, BOTH = ("float32",), ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("asked", "stored", "native", "expected"),
    [
        ("auto", "float32", PLAIN, "float32"),
        ("auto", "float32", BOTH, "bfloat16"),
        ("float32", "float32", BOTH, "float32"),
        ("bfloat16", "float32", BOTH, "bfloat16"),
        ("auto", "float16", BOTH, "float16"),
        ("float16", "float16", PLAIN, "float16"),
        ("auto", "int8", BOTH, "int8"),
    ],
)
def test_what_is_computed_in(asked: str, stored: str, native: tuple[str, ...], expected: str) -> None:
    assert precision_in_force(asked, stored, "cpu", native) == expected


@pytest.mark.parametrize(
    ("asked", "stored", "reason"),
    [
        ("bfloat16", "float32", "device cpu does not compute in it here; it takes device openvino on a processor with"),
        ("float16", "float32", "exported with `detr export --precision float16`, and this one is float32"),
        ("float32", "float16", "precision float32: the model was exported as float16; use precision auto with it"),
        ("bfloat16", "int8", "precision bfloat16: the model was exported as int8"),
        ("int8", "float32", "there is no precision 'int8'; use one of auto, float32, bfloat16, float16"),
    ],
)
def test_what_is_refused_says_what_can_be_had(asked: str, stored: str, reason: str) -> None:
    with pytest.raises(DeviceError) as caught:
        precision_in_force(asked, stored, "cpu", PLAIN)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("stored", ["float32", "float16", "int8"])
@pytest.mark.parametrize("native", [PLAIN, BOTH])
def test_nobody_gets_another_precision_than_the_one_asked_for(asked: str, stored: str, native: tuple[str, ...]) -> None:
    try:
        found = precision_in_force(asked, stored, "cpu", native)
    except DeviceError:
        assert asked != "auto"
    else:
        assert asked in ("auto", found)
