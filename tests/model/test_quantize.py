"""`detr quantize`: the same contract in a quarter of the bytes, as accurate as was asked for, or no file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.data.formats.folders import Split
from model.data.formats.layouts import Place
from model.data.shapes.command import write_shapes
from model.quantization.int8_graph import golden_of, int8_graph
from model.quantization.pictures import choose_pictures
from model.quantization.plan import QUANTIZABLE_PARTS
from model.quantization.ranges import Observed, Range
from model.quantize import AccuracyError, Judge
from model.runtime.artifact.file import read_artifact
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, ImageOutputs
from model.runtime.preprocess import make_batch
from service.cli import main
from tests.model.conftest import ARTIFACTS
from tests.model.exporting.test_artifact_exactness import assert_same, picture
from tests.tiny_artifact import write_tiny_artifact

DEMO = Path(__file__).parents[2] / "model" / "demo" / "detr-demo.onnx"
ENGINES = ("cpu", "openvino")

# With the transformer in int8, an image alone and in a batch: floats differ in the last digit, and where that lifts a
# value over the edge between two quantised ones, it moves by 1/255 of its range. Over 96 pictures in batches of eight
# the worst were 1.0 of a logit and 0.03 of a side; half of all answers did not change at all.
STEPS_LOGITS, STEPS_BOXES = 2.5, 0.1


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen scenes to calibrate on, and a few to measure on."""
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, {"train": 12, "val": 6}, size=128, seed=5)
    return root


@pytest.fixture(scope="module")
def demo_int8(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model in int8."""
    out = tmp_path_factory.mktemp("int8") / "new" / "demo-int8.onnx"
    main(["quantize", str(DEMO), "--images", str(shapes / "train2017"), "--out", str(out), "--unchecked"])
    return out


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, demo_int8: Path) -> Engine:
    return open_engine(read_artifact(demo_int8), request.param, threads=1)


@pytest.fixture(scope="module")
def demo_all_int8(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with every part in int8 that can be."""
    out = tmp_path_factory.mktemp("all-int8") / "demo-int8.onnx"
    main(words(shapes, out, "--unchecked", "--parts", *QUANTIZABLE_PARTS))
    return out


@pytest.fixture(scope="module", params=ENGINES)
def all_engine(request: pytest.FixtureRequest, demo_all_int8: Path) -> Engine:
    return open_engine(read_artifact(demo_all_int8), request.param, threads=1)


def words(shapes: Path, out: Path, *more: str, artifact: Path = DEMO) -> list[str]:
    return ["quantize", str(artifact), "--images", str(shapes / "train2017"), "--out", str(out), *more]


def judged(shapes: Path, out: Path, *more: str) -> list[str]:
    return words(shapes, out, "--data", "shapes", "--root", str(shapes), *more)


def alone(engine: Engine, image: NDArray[np.uint8], threshold: float = NO_MASKS) -> ImageOutputs:
    return engine.infer(make_batch([image]), np.array([threshold], np.float32)).image(0)


def test_the_file_says_what_it_is_and_where_it_came_from(demo_int8: Path) -> None:
    before, after = read_artifact(DEMO), read_artifact(demo_int8)
    assert after.metadata.precision == "int8"
    quantized = after.metadata.provenance["quantized"]
    assert quantized["float32_sha256"] == before.digest
    assert quantized["pictures"] == 12
    assert quantized["int8_layers"] == {"backbone": 18, "transformer": 0, "masks": 0}
    assert set(quantized["with"]) == {"detr-serve", "onnx", "onnxruntime"}
    assert after.metadata.provenance.items() >= before.metadata.provenance.items()
    assert len(after.data) < 0.6 * len(before.data)


def test_everything_else_in_the_metadata_stays(demo_int8: Path) -> None:
    before, after = (vars(read_artifact(path).metadata) for path in (DEMO, demo_int8))
    assert {name for name in before if before[name] != after[name]} == {"precision", "provenance"}


def test_either_engine_meets_the_golden_sample(engine: Engine, demo_int8: Path) -> None:
    artifact = read_artifact(demo_int8)
    assert engine.precision == "int8"
    assert artifact.golden.mask_index is not None
    assert len(artifact.golden.mask_index) == 2 * artifact.metadata.num_queries
    replay_golden(engine, artifact)  # raises where an output is off by more than int8 explains


def test_the_answers_are_close_to_the_float_models(engine: Engine, shapes: Path) -> None:
    exact = open_engine(read_artifact(DEMO), "cpu", threads=1)
    differences = []
    for seed in range(6):
        image = picture((128, 96 + 8 * seed), seed)
        differences.append(alone(engine, image).pred_boxes - alone(exact, image).pred_boxes)
    assert np.abs(np.concatenate(differences)).mean() < 0.02


def test_the_same_pictures_give_the_same_bytes(demo_int8: Path, shapes: Path, tmp_path: Path) -> None:
    main(words(shapes, tmp_path / "demo-int8.onnx", "--unchecked"))
    assert (tmp_path / "demo-int8.onnx").read_bytes() == demo_int8.read_bytes()


@pytest.mark.parametrize("name", ARTIFACTS[:2])
def test_any_exported_model_can_be_quantised(request: pytest.FixtureRequest, name: str, shapes: Path) -> None:
    artifact = read_artifact(request.getfixturevalue(name))
    model, layers = int8_graph(artifact, choose_pictures(shapes / "train2017", 8), QUANTIZABLE_PARTS)
    onnx.checker.check_model(model, full_check=True)
    assert layers["backbone"] >= 18
    assert layers["transformer"] > 0
    assert (layers["masks"] > 0) == (artifact.metadata.task == "panoptic")
    # Its weights were never trained, so that roundings grow on their way; wrong wiring would be off by far more.
    found = golden_of(model, artifact.golden).pred_logits
    assert np.abs(found - artifact.golden.pred_logits).mean() < 0.1 * np.ptp(artifact.golden.pred_logits)


def test_heads_attention_and_norms_stay_float(demo_all_int8: Path) -> None:
    graph = onnx.load_from_string(read_artifact(demo_all_int8).data).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    for node in graph.node:
        if node.op_type in ("Softmax", "LayerNormalization", "Sigmoid", "Sin", "Cos"):
            assert node.input[0] not in dequantized, node.name
    behind = {name: node for node in graph.node for name in node.output}
    box_head = behind[behind[behind["pred_boxes"].input[0]].input[0]]  # Gather, Sigmoid, then Add and MatMul
    assert behind[box_head.input[0]].input[1] in floats


def test_more_parts_make_a_smaller_file(demo_all_int8: Path) -> None:
    artifact = read_artifact(demo_all_int8)
    layers = artifact.metadata.provenance["quantized"]["int8_layers"]
    assert layers == {"backbone": 18, "transformer": 48, "masks": 6}
    assert len(artifact.data) < 0.3 * len(read_artifact(DEMO).data)
    for device in ENGINES:
        replay_golden(open_engine(artifact, device, threads=1), artifact)


def test_where_there_is_nothing_to_quantise_there_is_no_file(shapes: Path, tmp_path: Path) -> None:
    tiny = write_tiny_artifact(tmp_path / "tiny.onnx", "detection")
    with pytest.raises(SystemExit, match=r"detr quantize: tiny\.onnx has nothing to quantise in: backbone$"):
        main(words(shapes, tmp_path / "a.onnx", "--unchecked", artifact=tiny))


def test_what_zeroes_padding_loses_nothing(demo_int8: Path) -> None:
    """Before and after the multiplication by the validity mask, values are quantised with one scale."""
    graph = onnx.load_from_string(read_artifact(demo_int8).data).graph
    producer = {name: node for node in graph.node for name in node.output}
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = 0
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            step = producer.get(node.input[0])
            before = producer.get(step.input[0]) if step is not None else None
            if step is None or before is None or step.op_type not in ("Mul", "MaxPool"):
                continue
            if before.op_type == "DequantizeLinear":
                assert values[before.input[1]] == values[node.input[1]]
                assert values[before.input[2]] == values[node.input[2]] == 0
                pairs += 1
    assert pairs >= 10


neighbours = st.lists(st.tuples(st.integers(1, 128), st.integers(1, 160)), min_size=1, max_size=3)
sizes = st.tuples(st.integers(1, 128), st.integers(1, 128))


def in_batch(
    engine: Engine, image: NDArray[np.uint8], others: Sequence[tuple[int, int]], threshold: float
) -> ImageOutputs:
    batch = make_batch([image, *(picture(other, seed=2 + i) for i, other in enumerate(others))])
    return engine.infer(batch, np.full(len(batch.sizes), threshold, np.float32)).image(0)


@settings(max_examples=15)
@given(size=sizes, others=neighbours)
def test_with_an_int8_backbone_an_image_still_answers_in_any_batch_as_alone(
    engine: Engine, size: tuple[int, int], others: Sequence[tuple[int, int]]
) -> None:
    wanted = picture(size, seed=1)
    assert_same(in_batch(engine, wanted, others, ALL_MASKS), alone(engine, wanted, ALL_MASKS), size)


@settings(max_examples=10)
@given(size=sizes, others=neighbours)
def test_with_an_int8_transformer_it_does_so_up_to_steps_of_int8(
    all_engine: Engine, size: tuple[int, int], others: Sequence[tuple[int, int]]
) -> None:
    wanted = picture(size, seed=1)
    batched, single = in_batch(all_engine, wanted, others, NO_MASKS), alone(all_engine, wanted)
    assert np.abs(batched.pred_logits - single.pred_logits).max() < STEPS_LOGITS
    assert np.abs(batched.pred_boxes - single.pred_boxes).max() < STEPS_BOXES


def test_the_file_is_written_if_accuracy_holds(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(judged(shapes, tmp_path / "int8.onnx", "--max-ap-drop", "0.2", "--max-pq-drop", "0.2"))
    assert read_artifact(tmp_path / "int8.onnx").metadata.precision == "int8"
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said[1:3]] == ["AP", "PQ"]
    assert said[-1].startswith("wrote ")


def test_of_things_with_polygons_the_masks_are_judged_as_well(shapes: Path) -> None:
    place = Place("named", shapes / "annotations" / "instances_val2017.json", (shapes / "val2017",))
    figures = Judge(Split("coco", "val", place), {}, "cpu").figures(read_artifact(DEMO))
    assert figures.keys() == {"AP", "AP_mask"}
    assert figures["AP_mask"] > 0.3


def test_above_the_allowed_drop_there_is_no_file_and_an_older_one_stays(shapes: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    out.write_bytes(b"older")
    with pytest.raises(SystemExit, match=r"^detr quantize: AP falls from .* and -90.00 are allowed \(--max-ap-drop\)"):
        main(judged(shapes, out, "--max-ap-drop", "-0.9"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


def test_a_figure_that_is_no_number_does_not_pass() -> None:
    judge = Judge(Split("shapes", "val", Place("", Path(), ())), {"AP": 0.003, "PQ": 0.003}, "cpu")
    judge.compare({"AP": 0.5, "PQ": 0.5}, {"AP": 0.4975, "PQ": 0.6})
    with pytest.raises(AccuracyError, match="AP falls"):
        judge.compare({"AP": 0.5}, {"AP": float("nan")})
    with pytest.raises(
        AccuracyError, match=r"PQ falls from 0\.5000 to 0\.4900, by 1\.00 points, and 0\.30 are allowed"
    ):
        judge.compare({"AP": 0.5, "PQ": 0.5}, {"AP": 0.5, "PQ": 0.49})


def test_what_cannot_be_done_is_said_in_one_line(shapes: Path, demo_int8: Path, tmp_path: Path) -> None:
    out, empty = tmp_path / "out.onnx", tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for i in range(8):
        (broken / f"{i}.png").write_bytes(b"not a picture")
    unchecked = ["--out", str(out), "--unchecked"]
    pictures = ["--images", str(shapes / "train2017")]
    for more, reason in (
        ([str(DEMO), *pictures, "--out", str(out)], "give --data and --root, or --unchecked"),
        ([str(DEMO), *pictures, *unchecked, "--data", "shapes"], "--unchecked measures nothing"),
        ([str(demo_int8), *pictures, *unchecked], "is int8 already; quantise the float32 artifact"),
        ([str(DEMO), "--images", str(empty), *unchecked], "holds 0 pictures"),
        ([str(DEMO), "--images", str(tmp_path / "none"), *unchecked], "there is no folder"),
        ([str(DEMO), "--images", str(broken), *unchecked], "0.png cannot be decoded"),
        ([str(DEMO), *pictures, *unchecked, "--pictures", "3"], "needs 8 pictures or more"),
        ([str(DEMO), *pictures, "--out", str(empty), "--unchecked"], "is a folder"),
        ([str(tmp_path / "none.onnx"), *pictures, *unchecked], "there is no such file"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["quantize", *more])
        message = str(stop.value)
        assert message.startswith("detr quantize: ")
        assert reason in message
        assert "\n" not in message
    assert not out.exists()


finite = st.floats(-1000, 1000, width=32)


@given(st.lists(finite, min_size=1, max_size=200))
def test_zero_is_always_a_quantised_value(values: list[float]) -> None:
    observed = Observed()
    observed.add(np.array(values, np.float32), 100)
    found = observed.best_range()
    assert isinstance(found, Range)
    assert found.scale > 0
    assert 0 <= found.zero_point <= 255


def test_a_rare_extreme_does_not_cost_all_others_their_precision() -> None:
    values = np.random.default_rng(0).normal(0, 1, 100_000).astype(np.float32)
    observed = Observed()
    observed.add(np.append(values, np.float32(9)), 200_000)
    assert observed.best_range().scale < 0.9 * (9 - values.min()) / 255
