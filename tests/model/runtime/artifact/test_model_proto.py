import contextlib

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from model.runtime.artifact import model_proto
from model.runtime.artifact.wire_format import NotAMessageError, TruncatedMessageError
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
        except TruncatedMessageError:
            pass
    # Only a cut between two of the few top-level fields leaves a message.
    assert whole_fields < 10


@pytest.mark.parametrize("data", [b"\x00", b"\x0e", b"\x08" + b"\xff" * 11, b"\x70\x01"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(NotAMessageError):
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


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5))
def test_texts_put_behind_a_model_are_read_by_onnx(props: dict[str, str]) -> None:
    data = tiny_model().SerializeToString() + model_proto.metadata_fields(props)
    assert {prop.key: prop.value for prop in onnx.load_from_string(data).metadata_props} == props


_SHAPES = st.lists(st.integers(0, 300), max_size=3).filter(lambda shape: np.prod(shape) < 10_000)


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.tuples(_SHAPES, st.sampled_from([np.float32, np.int64]))))
def test_added_weights_are_read_by_onnx(wanted: dict[str, tuple[list[int], type[np.float32]]]) -> None:
    model = tiny_model()
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    # Transposed, so that they do not lie in memory in their order.
    added = {f"added {name}": (rng.random(shape) * 1e6).astype(kind).T for name, (shape, kind) in wanted.items()}
    written = onnx.load_from_string(model_proto.with_initializers(model.SerializeToString(), added.items()))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.graph.initializer}
    assert found.keys() == expected.keys() | added.keys()
    for name, array in (expected | added).items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_weights_need_a_graph() -> None:
    data = onnx.ModelProto(ir_version=9).SerializeToString()
    with pytest.raises(NotAMessageError):
        model_proto.with_initializers(data, [("a", np.zeros(1, np.float32))])


def test_named_sizes_become_numbers_and_others_stay() -> None:
    model = tiny_model()
    value = helper.make_tensor_value_info("between", TensorProto.FLOAT, ["batch", "queries", 4])
    model.graph.value_info.append(value)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "queries"
    written = onnx.load_from_string(model_proto.with_sizes(model.SerializeToString(), {"queries": 300}))
    value.type.tensor_type.shape.dim[1].dim_value = 300
    model.graph.value_info[-1].CopyFrom(value)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 300
    assert written == model
