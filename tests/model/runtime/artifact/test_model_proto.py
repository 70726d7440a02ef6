import contextlib

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from model.runtime.artifact import model_proto
from tests.tiny_artifact import tiny_model


def model_with(props: dict[str, str]) -> bytes:
    model = tiny_model()
    helper.set_model_props(model, props)
    return bytes(model.SerializeToString())


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5))
def test_the_texts_are_those_that_onnx_wrote(props: dict[str, str]) -> None:
    assert model_proto.metadata_props(model_with(props)) == props


def test_a_key_that_comes_twice_is_refused() -> None:
    model = tiny_model()
    for value in ("a", "b"):
        model.metadata_props.add(key="key", value=value)
    with pytest.raises(ValueError, match="'key' comes twice"):
        model_proto.metadata_props(model.SerializeToString())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_end_in_a_result_or_a_value_error(data: bytes) -> None:
    for read in (model_proto.has_graph, model_proto.metadata_props, model_proto.has_external_data):
        with contextlib.suppress(ValueError):
            read(data)


def test_every_truncation_that_cuts_a_field_is_seen() -> None:
    data = model_with({"key": "value"})
    whole_fields = 0
    for length in range(1, len(data)):
        try:
            model_proto.has_graph(data[:length])
            whole_fields += 1
        except model_proto.TruncatedMessageError:
            pass
    # Only a cut between two of the few top-level fields leaves a message.
    assert whole_fields < 10


@pytest.mark.parametrize("data", [b"\x00", b"\x0e", b"\x08" + b"\xff" * 11, b"\x70\x01"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(model_proto.NotAMessageError):
        model_proto.metadata_props(data)


def test_weights_in_another_file_are_seen() -> None:
    model = tiny_model()
    assert not model_proto.has_external_data(model.SerializeToString())
    tensor: TensorProto = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../weights.bin")
    assert model_proto.has_external_data(model.SerializeToString())


def test_a_message_without_a_graph_is_no_model() -> None:
    assert not model_proto.has_graph(onnx.ModelProto(ir_version=9).SerializeToString())
    assert model_proto.has_graph(tiny_model().SerializeToString())
