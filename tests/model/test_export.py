"""`detr export`: what it writes is the network, whole, or is not written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor

from model import export as exporting
from model.categories.coco import panoptic_categories
from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.data.shapes.command import CATEGORIES
from model.export import export, metadata_of
from model.exporting import parity_proof
from model.exporting.parity_proof import ParityError, ParityReport, golden_sample, prove
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.network.build import build_model
from model.network.config import ModelConfig
from model.network.segmentation import DETRsegm
from model.runtime.artifact.file import (
    DIGEST_KEY,
    FORMAT_VERSION,
    GOLDEN_KEY,
    METADATA_KEY,
    Artifact,
    ArtifactError,
    Metadata,
    read_artifact,
)
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_recording import fixed_picture, threshold_of_some
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS, RawOutputs
from model.runtime.preprocess import CANVAS_MULTIPLE, Batch, make_batch
from model.runtime.resize_rule import Edges
from service.cli import main
from tests.model.conftest import ARTIFACTS
from tests.model.networks import SMALL, filled

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
DETECTION = replace(SMALL, masks=False)


def engine_of(artifact: Artifact) -> Engine:
    return open_engine(artifact, "cpu", threads=1)


@pytest.fixture(scope="module")
def small(panoptic_artifact: Path) -> Artifact:
    return read_artifact(panoptic_artifact)


@pytest.fixture(scope="module", params=ARTIFACTS)
def artifact(request: pytest.FixtureRequest) -> Artifact:
    return read_artifact(request.getfixturevalue(request.param))


# What is written.


def test_what_is_exported_can_be_served(artifact: Artifact) -> None:
    engine = engine_of(artifact)
    assert 0 < replay_golden(engine, artifact) < 1e-3
    assert artifact.golden.padding_mask.any(), "a golden sample without padding would not notice that it is ignored"


def test_the_golden_sample_has_masks_of_some_queries(small: Artifact) -> None:
    assert small.golden.mask_index is not None
    assert 0 < len(small.golden.mask_index) < len(small.golden.images) * SMALL.num_queries


def test_metadata_say_everything_that_serving_needs(small: Artifact, small_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(small_checkpoint)
    provenance = small.metadata.provenance
    assert small.metadata == Metadata(
        format_version=FORMAT_VERSION,
        name="small",
        task="panoptic",
        categories=CATEGORIES,
        num_queries=10,
        resize=Edges(128, 160),
        canvas_multiple=32,
        mask_stride=4,
        detect_threshold=0.5,
        segment_threshold=0.5,
        padding="exact",
        provenance=provenance,
    )
    assert provenance["source"] == "small.safetensors"
    assert provenance["sha256"] == checkpoint.sha256
    assert provenance["note"] == "a test"
    assert provenance["exported_with"].keys() == {"detr-serve", "torch", "onnx"}


def test_no_path_of_this_machine_is_in_the_file(artifact: Artifact, small_checkpoint: Path) -> None:
    """Neither of the data nor, in the exporter's notes on each node, of the code."""
    for path in (Path(exporting.__file__).parent, Path(sys.prefix), Path(torch.__file__).parent, Path.home()):
        assert str(path).encode() not in artifact.data
    assert str(small_checkpoint.parents[1]).encode() not in artifact.data
    assert b'.py", line ' not in artifact.data


@pytest.mark.slow
def test_metadata_of_a_model_of_transformers_have_its_names(detection_artifact: Path) -> None:
    metadata = read_artifact(detection_artifact).metadata
    assert (metadata.task, metadata.mask_stride) == ("detection", None)
    assert [category.name for category in metadata.categories] == ["cat", "dog", "cow", "owl", "fox"]
    assert (metadata.num_queries, metadata.resize) == (9, Edges(800, 1333, "transformers"))


@pytest.mark.slow
def test_metadata_of_a_model_with_the_published_class_count_are_cocos(segmentation_artifact: Path) -> None:
    metadata = read_artifact(segmentation_artifact).metadata
    assert (metadata.task, metadata.categories) == ("panoptic", panoptic_categories())


def test_batch_norm_is_folded_and_nothing_lies_outside_the_file(small: Artifact) -> None:
    graph = onnx.load_from_string(small.data).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    assert {tensor.data_location for tensor in graph.initializer} == {onnx.TensorProto.DEFAULT}


def test_provenance_cannot_pretend_to_be_another_file(small_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(small_checkpoint)
    checkpoint = replace(checkpoint, provenance={"sha256": "0" * 64, "source": "better.pth", "AP": 0.5})
    provenance = metadata_of(checkpoint, checkpoint.config, build_model(checkpoint.config), "name").provenance
    assert (provenance["sha256"], provenance["source"]) == (checkpoint.sha256, "small.safetensors")
    assert provenance["AP"] == 0.5


# What it answers.


def test_queries_have_masks_of_their_own(small: Artifact) -> None:
    """Or the tests of this file would not notice that masks are mixed up."""
    masks = engine_of(small).infer(make_batch([fixed_picture(96, 128)]), np.full(1, ALL_MASKS, np.float32)).pred_masks
    assert masks is not None
    assert masks.std(0).mean() > 1e-3 * np.ptp(masks)


def normalized(image: NDArray[np.uint8]) -> Tensor:
    """uint8 [h, w, 3] to what transformers' image processor makes of it, float32 [1, 3, h, w]."""
    unit = (image / 255 - MEAN) / DEVIATION
    return torch.tensor(unit.transpose(2, 0, 1)[None], dtype=torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_an_exported_model_of_transformers_answers_as_it_does_there(kind: str, request: pytest.FixtureRequest) -> None:
    theirs = request.getfixturevalue({"detection": "their_detector", "segmentation": "their_segmenter"}[kind])
    exported = read_artifact(request.getfixturevalue(f"{kind}_artifact"))
    images = [fixed_picture(70, 101), fixed_picture(96, 64)]
    # One batch of unequal sizes here against each image alone, without any padding, there.
    together = engine_of(exported).infer(make_batch(images), np.full(2, ALL_MASKS, np.float32))
    for index, image in enumerate(images):
        height, width = image.shape[:2]
        with torch.no_grad():
            expected = theirs(normalized(image), pixel_mask=torch.ones((1, height, width), dtype=torch.long))
        found = together.image(index)
        assert expected.logits[0].std(0).mean() > 0.01, "all queries answer alike, so the test shows little"
        np.testing.assert_allclose(found.pred_logits, expected.logits[0], atol=1e-4, rtol=0)
        np.testing.assert_allclose(found.pred_boxes, expected.pred_boxes[0], atol=1e-4, rtol=0)
        if kind == "segmentation":
            assert found.mask_logits is not None
            assert found.query_index is not None
            assert found.query_index.tolist() == list(range(6))
            assert expected.pred_masks[0].std(0).mean() > 1e-3, "all masks are alike, so the test shows little"
            masks = found.mask_logits[:, : -(-height // 4), : -(-width // 4)]
            np.testing.assert_allclose(masks, expected.pred_masks[0], atol=1e-4, rtol=0)


def test_the_proof_finds_differences_of_rounding_only(small: Artifact, small_network: DETRsegm) -> None:
    report = prove(ServedNetwork(small_network), engine_of(small).infer, exact=True)
    assert report.worst.keys() == {"pred_logits", "pred_boxes", "pred_masks"}
    assert all(0 < worst < 2e-5 for worst in report.worst.values())


# Any flipped byte breaks it.


def flipped(data: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


def positions_of_interest(data: bytes) -> dict[str, range]:
    """Where each part of the file lies."""
    model = onnx.load_from_string(data)
    texts = {prop.key: prop.value.encode() for prop in model.metadata_props}
    parts = {key: texts[key] for key in (METADATA_KEY, GOLDEN_KEY, DIGEST_KEY)}
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    parts["weights"] = largest.raw_data
    starts = {name: data.index(content) for name, content in parts.items()}
    ranges = {name: range(start, start + len(parts[name])) for name, start in starts.items()}
    return ranges | {"digest's key": range(data.index(DIGEST_KEY.encode()), starts[DIGEST_KEY])}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flipped") / "model.onnx"


def assert_refused(scratch: Path, data: bytes) -> None:
    scratch.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"^model\.onnx: ") as raised:
        read_artifact(scratch)
    assert "\n" not in str(raised.value)


@settings(max_examples=40)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_is_noticed(small: Artifact, scratch: Path, where: float, bit: int) -> None:
    assert_refused(scratch, flipped(small.data, int(where * len(small.data)), bit))


@pytest.mark.parametrize("part", [METADATA_KEY, GOLDEN_KEY, DIGEST_KEY, "digest's key", "weights"])
def test_a_flipped_bit_in_every_part_is_noticed(small: Artifact, scratch: Path, part: str) -> None:
    places = positions_of_interest(small.data)[part]
    rng = np.random.default_rng(0)
    for position in {places[0], places[-1], *rng.choice(places, 6).tolist()}:
        assert_refused(scratch, flipped(small.data, position, int(rng.integers(8))))


@pytest.mark.parametrize("change", [-1, 1])
def test_a_byte_more_or_less_is_noticed(small: Artifact, scratch: Path, change: int) -> None:
    assert_refused(scratch, small.data[:-1] if change < 0 else small.data + b"\0")


# What is not written.


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """Where to export to; an older artifact is there, and must be all that is there afterwards."""
    path = tmp_path / "out" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"the older artifact")
    yield path
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


@pytest.fixture
def graph(small: Artifact, monkeypatch: pytest.MonkeyPatch) -> onnx.ModelProto:
    """What the exporter gives, instead of tracing the network once more; a test may spoil it."""
    proto = onnx.load_from_string(small.data)
    proto.ClearField("metadata_props")
    monkeypatch.setattr(exporting, "to_onnx", lambda network: proto)
    return proto


def spoil(graph: onnx.ModelProto, name: str, factor: float) -> None:
    """Multiply a weight that is big enough to be one."""
    for tensor in graph.graph.initializer:
        if name in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
            return
    pytest.fail(f"there is no weight {name}")


def test_a_graph_that_is_proved_takes_the_place_of_the_older_file(
    graph: onnx.ModelProto, small: Artifact, small_checkpoint: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["export", str(small_checkpoint), "--out", str(out), "--name", "newer"])
    written = read_artifact(out)
    assert written.metadata == replace(small.metadata, name="newer")
    printed = capsys.readouterr().out
    assert "its header says: resnet18, panoptic segmentation, 12 classes" in printed
    assert "pred_masks: torch and ONNX Runtime, alone and in a batch, differ by at most" in printed
    assert f"wrote {out} (" in printed


@pytest.mark.parametrize(
    ("weight", "factor", "reason"),
    [
        ("class_embed.bias", 2, "pred_logits differs by"),
        ("bbox_embed.layers.2.bias", 2, "pred_boxes differs by"),
        ("mask_head.out_lay.weight", 1.001, "pred_masks differs by"),
        ("bbox_embed.layers.2.bias", np.nan, "pred_boxes differs by nan"),
        ("class_embed.bias", np.nan, "other queries are kept"),
    ],
)
def test_an_exporter_that_changes_a_weight_is_refused_and_the_older_file_stays(
    graph: onnx.ModelProto, small_checkpoint: Path, out: Path, weight: str, factor: float, reason: str
) -> None:
    spoil(graph, weight, factor)
    with pytest.raises(SystemExit) as raised:
        main(["export", str(small_checkpoint), "--out", str(out)])
    message = str(raised.value)
    assert message.startswith("detr export: batch of 1, mask threshold ")
    assert reason in message
    assert "\n" not in message
    assert out.read_bytes() == b"the older artifact"


def test_a_fold_that_is_wrong_is_refused() -> None:
    """The proof is against the network that was read, not against what was folded for the exporter."""
    served = ServedNetwork(filled(SMALL))
    wrong = served.folded()
    torch.nn.init.zeros_(wrong.get_parameter("network.detr.backbone.0.body.layer3.1.conv2.bias"))
    with pytest.raises(ParityError, match="pred_logits differs by"):
        prove(served, lambda batch, threshold: run_torch(wrong, batch, threshold), exact=True)


def test_a_right_fold_is_accepted() -> None:
    served = ServedNetwork(filled(SMALL))
    folded = served.folded()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    prove(served, lambda batch, threshold: run_torch(folded, batch, threshold), exact=True)


def test_a_graph_that_does_not_load_is_refused(graph: onnx.ModelProto, small_checkpoint: Path, out: Path) -> None:
    graph.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(
        SystemExit, match=r"^detr export: model\.onnx\.[0-9a-f]{8}\.unproved: ONNX Runtime cannot load it"
    ):
        main(["export", str(small_checkpoint), "--out", str(out)])
    assert out.read_bytes() == b"the older artifact"


def test_a_golden_sample_that_is_not_reproduced_is_refused(
    graph: onnx.ModelProto, small_checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(network: ServedNetwork) -> Any:
        golden = golden_sample(network)
        return replace(golden, pred_boxes=golden.pred_boxes + np.float32(0.1))

    monkeypatch.setattr(exporting, "golden_sample", other)
    with pytest.raises(SystemExit, match=r"the golden sample's pred_boxes is off by 0\.1"):
        main(["export", str(small_checkpoint), "--out", str(out)])
    assert out.read_bytes() == b"the older artifact"


def test_classes_without_names_are_refused_before_any_work(
    small_checkpoint: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda network: pytest.fail("the exporter was started"))
    nameless = replace(read_checkpoint(small_checkpoint), categories=None)
    with pytest.raises(CheckpointError, match="nothing says what its 12 classes are called"):
        export(nameless, out)
    assert out.read_bytes() == b"the older artifact"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["none.pth", "--out", "a.onnx"], "none.pth: there is no such file"),
        (["CHECKPOINT", "--out", "."], "is a folder; the artifact is one file"),
        (["CHECKPOINT", "--out", "a.onnx", "--names", "none.txt"], "none.txt cannot be read as text"),
        (["CHECKPOINT", "--out", "a.onnx", "--names", "two.txt"], "there are 2 category names for 12 classes"),
        (["CHECKPOINT", "--out", "a.onnx", "--preset", "detr-resnet-50"], "it does not fit the preset detr-resnet-50"),
        (["CHECKPOINT", "--out", "a.onnx", "--name", " "], "metadata field 'name' has a value"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], reason: str
) -> None:
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        main(["export", *(str(small_checkpoint) if word == "CHECKPOINT" else word for word in options)])
    message = str(raised.value)
    assert message.startswith("detr export: ")
    assert reason in message
    assert "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["two.txt"]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(graph: onnx.ModelProto, small_checkpoint: Path) -> None:
    with pytest.raises(SystemExit, match=r"^detr export: .*small\.safetensors"):
        main(["export", str(small_checkpoint), "--out", str(small_checkpoint / "model.onnx")])


# The proof itself.


def outputs(**change: Any) -> RawOutputs:
    """Answers of a network of three queries and two classes for one image, of which one query has a mask."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "pred_logits": rng.standard_normal((1, 3, 3), dtype=np.float32),
        "pred_boxes": rng.random((1, 3, 4), dtype=np.float32),
        "pred_masks": rng.standard_normal((1, 8, 8), dtype=np.float32),
        "mask_index": np.array([[0, 1]]),
    }
    return RawOutputs(**(arrays | change))


def with_value(array: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    changed = array.copy()
    changed.flat[0] = value
    return changed


def test_equal_answers_pass_with_no_difference() -> None:
    report = ParityReport()
    report.compare("case", outputs(), outputs())
    assert report.worst == {"pred_logits": 0.0, "pred_boxes": 0.0, "pred_masks": 0.0}


def test_the_worst_difference_of_all_cases_is_kept_relative_to_the_spread() -> None:
    report = ParityReport()
    expected = outputs(pred_boxes=np.array([[[0, 0, 0, 0.5]]], np.float32))
    for error in (1e-5, 4e-5, 2e-5):
        report.compare("case", replace(expected, pred_boxes=expected.pred_boxes + np.float32(error)), expected)
    assert report.worst["pred_boxes"] == pytest.approx(8e-5, rel=1e-2)
    with pytest.raises(ParityError, match=r"case 7: pred_boxes differs by 0\.0002 of its spread, above 0\.0001"):
        report.compare("case 7", replace(expected, pred_boxes=expected.pred_boxes + np.float32(1e-4)), expected)


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_passes(name: str, value: float) -> None:
    spoilt = outputs(**{name: with_value(getattr(outputs(), name), value)})
    for found, expected in ((spoilt, outputs()), (outputs(), spoilt), (spoilt, spoilt)):
        with pytest.raises(ParityError, match=f"{name} differs by"):
            ParityReport().compare("case", found, expected)


@pytest.mark.parametrize("name", ["pred_logits", "pred_boxes", "pred_masks"])
def test_another_shape_never_passes_even_if_it_broadcasts(name: str) -> None:
    wanted = outputs()
    short = outputs(**{name: getattr(wanted, name)[..., :1]})
    with pytest.raises(ParityError, match=f"{name} has the wrong shape"):
        ParityReport().compare("case", short, wanted)


def test_masks_that_are_not_there_never_pass() -> None:
    with pytest.raises(ParityError, match="pred_masks has the wrong shape"):
        ParityReport().compare("case", outputs(pred_masks=None), outputs())


@pytest.mark.parametrize("index", [np.array([[0, 2]]), np.zeros((0, 2), np.int64), None])
def test_other_kept_queries_never_pass(index: NDArray[np.int64] | None) -> None:
    with pytest.raises(ParityError, match="other queries are kept"):
        ParityReport().compare("case", outputs(mask_index=index), outputs())


def test_no_masks_on_either_side_pass() -> None:
    none = outputs(pred_masks=np.zeros((0, 8, 8), np.float32), mask_index=np.zeros((0, 2), np.int64))
    report = ParityReport()
    report.compare("case", none, none)
    assert "pred_masks" not in report.worst


def test_published_padding_is_proved_as_it_is_and_refused_as_exact() -> None:
    served = ServedNetwork(filled(replace(SMALL, padding="published")))

    def infer(batch: Batch, threshold: NDArray[np.float32]) -> RawOutputs:
        return run_torch(served, batch, threshold)

    assert prove(served, infer, exact=False).worst == {"pred_logits": 0.0, "pred_boxes": 0.0, "pred_masks": 0.0}
    with pytest.raises(ParityError, match="image 0 in a batch against alone: pred_logits differs"):
        prove(served, infer, exact=True)


@pytest.mark.parametrize("config", [SMALL, DETECTION])
def test_the_proof_runs_unequal_sizes_with_all_some_and_no_masks(config: ModelConfig) -> None:
    served = ServedNetwork(filled(config))
    seen: list[tuple[tuple[tuple[int, int], ...], int]] = []

    def infer(batch: Batch, threshold: NDArray[np.float32]) -> RawOutputs:
        answer = run_torch(served, batch, threshold)
        kept = 0 if answer.mask_index is None else len(answer.mask_index)
        seen.append((batch.sizes, kept))
        assert all(side % CANVAS_MULTIPLE == 0 for side in batch.images.shape[1:3])
        return answer

    prove(served, infer, exact=True)
    for sizes in parity_proof.BATCHES:
        kept = {count for found, count in seen if found == sizes}
        every = len(sizes) * config.num_queries
        assert {0, every} <= kept if config.masks else kept == {0}
        assert any(0 < count < every for count in kept) is config.masks
        assert all(((size,), config.num_queries * config.masks) in seen for size in sizes if len(sizes) > 1)


@pytest.mark.parametrize("queries", [1, 2, 3, 12, 13, 30])
def test_a_network_of_any_number_of_queries_has_a_golden_sample(queries: int) -> None:
    config = replace(SMALL, num_queries=queries)
    served = ServedNetwork(filled(config))
    golden = golden_sample(served)
    assert golden.mask_index is not None
    assert 0 < len(golden.mask_index) < 2 * queries
    prove_one = make_batch([fixed_picture(64, 64)])
    threshold = threshold_of_some(partial(run_torch, served), prove_one)
    kept = run_torch(served, prove_one, np.full(1, threshold, np.float32)).mask_index
    assert kept is not None
    assert 0 < len(kept) <= queries


def test_the_pictures_of_the_proof_are_always_the_same() -> None:
    np.testing.assert_array_equal(fixed_picture(33, 20), fixed_picture(33, 20))
    assert fixed_picture(33, 20).shape == (33, 20, 3)
    assert fixed_picture(33, 20).std() > 20


def test_a_detector_is_described_as_one(small_checkpoint: Path) -> None:
    checkpoint = read_checkpoint(small_checkpoint)
    detector = replace(checkpoint, config=replace(checkpoint.config, masks=False, padding="published"))
    metadata = metadata_of(detector, detector.config, build_model(detector.config), "a name")
    assert (metadata.task, metadata.mask_stride, metadata.padding) == ("detection", None, "published")
    assert metadata == Metadata.from_json(metadata.to_json())


def test_a_network_is_served_in_eval_mode_whatever_it_was_in() -> None:
    network = filled(SMALL).train()
    before = network.state_dict()["detr.backbone.0.body.bn1.running_mean"].clone()
    run_torch(ServedNetwork(network), make_batch([fixed_picture(64, 64)]), np.full(1, NO_MASKS, np.float32))
    assert torch.equal(before, network.state_dict()["detr.backbone.0.body.bn1.running_mean"])
