"""Published checkpoints and this project's own: what is recognized, what is refused, and how it is said."""

import argparse
import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from model.categories.coco import detection_categories, panoptic_categories
from model.categories.names import ClassNames, named_category
from model.checkpoint import published
from model.checkpoint.errors import CheckpointError
from model.checkpoint.own import CHECKPOINT_FORMAT_VERSION, CHECKPOINT_METADATA_KEY
from model.checkpoint.published import preset_of_digest
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving import save_checkpoint
from model.network.build import build_model
from model.network.config import PRESETS, ModelConfig
from model.runtime.preprocess import Normalization
from model.runtime.resize_rule import FixedSize, rule_to_record
from tests.parity import parity_weights

# A published network in everything but its size.
SMALL = ModelConfig(
    backbone="resnet18",
    stages=2,
    hidden_dim=64,
    dim_feedforward=32,
    encoder_layers=1,
    decoder_layers=2,
    num_queries=7,
)
SMALL_PANOPTIC = replace(SMALL, stages=4, hidden_dim=128, num_classes=250, masks=True)
State = dict[str, Tensor]


def state_of(config: ModelConfig, seed: int = 7) -> State:
    with torch.device("meta"):
        shapes = {key: tuple(tensor.shape) for key, tensor in build_model(config).state_dict().items()}
    return {
        key: torch.from_numpy(parity_weights.value(key, shape, seed)).reshape(shape) for key, shape in shapes.items()
    }


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def published_file(path: Path, config: ModelConfig = SMALL, **extra: object) -> Path:
    return saved(path, {"model": state_of(config), **extra})


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.fixture(scope="module")
def r50(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """A full-size file like detr-r50-e632da11.pth, and the weights in it."""
    state = state_of(PRESETS["detr-resnet-50"])
    return saved(tmp_path_factory.mktemp("published") / "model.pth", {"model": state}), state


def test_a_published_file_is_read_and_fits_its_network(r50: tuple[Path, State]) -> None:
    path, state = r50
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == PRESETS["detr-resnet-50"]
    assert checkpoint.categories == detection_categories()
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.source == "model.pth"
    assert_equal(checkpoint.state_dict, state)
    build_model(checkpoint.config).load_state_dict(checkpoint.state_dict, strict=True)


def test_what_leaves_no_trace_is_assumed_and_said(r50: tuple[Path, State]) -> None:
    notes = "\n".join(read_checkpoint(r50[0]).notes)
    assert "assumed: no dilation (DC5) and 8 attention heads" in notes
    assert "resnet50, detection, 91 classes, 100 queries, width 256, 8 heads, 6 + 6 layers" in notes
    assert "COCO's, by the class count 91" in notes


def test_a_preset_says_that_a_file_is_dc5(r50: tuple[Path, State]) -> None:
    checkpoint = read_checkpoint(r50[0], preset="detr-resnet-50-dc5")
    assert checkpoint.config == PRESETS["detr-resnet-50-dc5"]
    assert "as in the preset detr-resnet-50-dc5" in "\n".join(checkpoint.notes)


def test_a_published_dc5_file_is_recognized_by_its_digest(
    r50: tuple[Path, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    digits = hashlib.sha256(r50[0].read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(published.FILES, "detr-resnet-50-dc5", f"detr-r50-dc5-{digits}.pth")
    checkpoint = read_checkpoint(r50[0])
    assert checkpoint.config == PRESETS["detr-resnet-50-dc5"]
    assert "recognized by its SHA-256 as the published detr-resnet-50-dc5" in checkpoint.notes
    assert preset_of_digest(checkpoint.sha256) == "detr-resnet-50-dc5"
    with pytest.raises(CheckpointError, match=r"the published detr-resnet-50-dc5, not detr-resnet-50$"):
        read_checkpoint(r50[0], preset="detr-resnet-50")


def test_a_preset_of_another_structure_is_refused_with_every_difference(r50: tuple[Path, State]) -> None:
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(r50[0], preset="detr-resnet-101-panoptic")
    assert str(raised.value) == (
        "model.pth: it does not fit the preset detr-resnet-101-panoptic: "
        "backbone is resnet50, not resnet101; masks is False, not True"
    )


def test_a_training_checkpoint_of_the_reference_says_itself_that_it_is_dc5(tmp_path: Path) -> None:
    half = {key: tensor.half() for key, tensor in state_of(PRESETS["detr-resnet-50"]).items()}
    args = argparse.Namespace(dilation=True, nheads=8, hidden_dim=256, lr=1e-4, output_dir="", masks=False)
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    path = saved(tmp_path / "checkpoint.pth", {"model": half, "args": args, "optimizer": optimizer, "epoch": 3})
    checkpoint = read_checkpoint(path)
    assert checkpoint.config == PRESETS["detr-resnet-50-dc5"]
    assert "dilation and attention heads from the training arguments in the file" in checkpoint.notes
    assert "weights in torch.float16 were widened to float32" in checkpoint.notes
    assert {tensor.dtype for tensor in checkpoint.state_dict.values()} == {torch.float32}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"num_classes": 250, "num_queries": 3},
        {"backbone": "resnet34", "stages": 3},
        {"pre_norm": True, "position_embedding": "learned"},
        {"encoder_layers": 0, "decoder_layers": 1, "dim_feedforward": 48, "hidden_dim": 32},
        {"stages": 4, "backbone": "resnet50"},
    ],
)
def test_the_structure_is_read_from_keys_and_shapes(tmp_path: Path, change: dict[str, Any]) -> None:
    config = replace(SMALL, **change)
    assert read_checkpoint(published_file(tmp_path / "model.pth", config)).config == config


def test_a_mask_head_tells_the_task_and_the_number_of_heads(tmp_path: Path) -> None:
    config = replace(SMALL_PANOPTIC, nheads=16)
    checkpoint = read_checkpoint(published_file(tmp_path / "model.pth", config))
    assert checkpoint.config == config
    assert checkpoint.categories == panoptic_categories()


def test_training_arguments_tell_the_number_of_heads(tmp_path: Path) -> None:
    args = argparse.Namespace(nheads=4, hidden_dim=64)
    assert read_checkpoint(published_file(tmp_path / "model.pth", args=args)).config.nheads == 4


@pytest.mark.parametrize("arguments", [{"nheads": "eight"}, {"nheads": 0}, {"dilation": 1}, {"nheads": 7}])
def test_training_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="training arguments"):
        read_checkpoint(published_file(tmp_path / "model.pth", args=argparse.Namespace(**arguments)))


def test_a_bare_state_dict_is_read_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", OrderedDict(state_of(SMALL)))
    assert_equal(read_checkpoint(path).state_dict, state_of(SMALL))


def test_step_counters_of_batch_norm_are_dropped(tmp_path: Path) -> None:
    counter = {"backbone.0.body.bn1.num_batches_tracked": torch.tensor(3)}
    path = saved(tmp_path / "model.pth", {"model": {**state_of(SMALL), **counter}})
    assert_equal(read_checkpoint(path).state_dict, state_of(SMALL))


def test_every_missing_unexpected_and_misshapen_key_is_named_in_one_error(tmp_path: Path) -> None:
    state = state_of(SMALL)
    del state["query_embed.weight"], state["transformer.decoder.norm.bias"]
    state["surprise.weight"] = state["another.bias"] = torch.zeros(1)
    state["bbox_embed.layers.2.weight"] = torch.zeros(5, 64)
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(saved(tmp_path / "model.pth", {"model": state}))
    message = str(raised.value)
    assert message.startswith("model.pth: it does not fit resnet18, detection, 91 classes")
    assert "missing keys: transformer.decoder.norm.bias, query_embed.weight" in message
    assert "unexpected keys: surprise.weight, another.bias" in message
    assert "bbox_embed.layers.2.weight (is [5, 64], must be [4, 64])" in message


def test_a_panoptic_file_without_its_detector_prefix_is_refused(tmp_path: Path) -> None:
    state = {key.removeprefix("detr."): tensor for key, tensor in state_of(SMALL_PANOPTIC).items()}
    with pytest.raises(CheckpointError, match="are not those of a DETR"):
        read_checkpoint(saved(tmp_path / "model.pth", {"model": state}))


def test_a_backbone_that_is_no_known_resnet_is_refused(tmp_path: Path) -> None:
    state = state_of(SMALL)
    state["backbone.0.body.layer1.2.conv1.weight"] = torch.zeros(64, 64, 3, 3)
    with pytest.raises(CheckpointError, match=r"\(3, 2, 0, 0\) blocks a stage"):
        read_checkpoint(saved(tmp_path / "model.pth", {"model": state}))


class Malicious:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "it-ran"
    content = {"model": state_of(SMALL), "epoch": Malicious(marker)}
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="could run code when it is loaded, so it was not loaded"):
        read_checkpoint(tmp_path / "model.pth")
    assert not marker.exists()
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert marker.exists(), "the test's own pickle is harmless, so the test shows nothing"


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut", b"\x80\x02}q\x00."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^model\.pth: "):
        read_checkpoint(tmp_path / "model.pth")


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth")
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=r"not a file that torch.save wrote"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "it holds a list"),
        ({"model": [1]}, "'model' is a list"),
        ({"model": {"class_embed.weight": 3}}, "'class_embed.weight' is no tensor"),
        ({"model": {"conv1.weight": torch.zeros(1)}}, "the first are: conv1.weight"),
        ({}, "the first are: none"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(saved(tmp_path / "model.pth", content))


def test_a_path_that_leads_nowhere_and_an_unknown_preset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pth: there is no such file"):
        read_checkpoint(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="there is no preset 'detr-7'; there are detr-resnet-50"):
        read_checkpoint(tmp_path / "model.pth", preset="detr-7")
    with pytest.raises(CheckpointError, match=r"without model\.safetensors"):
        read_checkpoint(tmp_path)


def test_classes_that_nobody_names_need_a_names_file(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth", replace(SMALL, num_classes=2))
    checkpoint = read_checkpoint(path)
    assert checkpoint.categories is None
    with pytest.raises(CheckpointError, match=r"2 classes are called \(2 classes are not COCO's\); give a names file"):
        checkpoint.require_categories()
    names = (named_category(0, "cat"), named_category(1, "dog"))
    named = read_checkpoint(path, names=ClassNames(names))
    assert named.require_categories() == named.categories == names
    with pytest.raises(CheckpointError, match="1 category names for 2 classes"):
        read_checkpoint(path, names=ClassNames(names[:1]))


DEMO = PRESETS["detr-demo"]
NAMES = tuple(named_category(index, f"class {index}") for index in range(DEMO.num_classes))
PROVENANCE = {"command": "detr train", "epochs": 3, "metrics": {"AP": 0.25}}


@pytest.fixture(scope="module")
def demo_state() -> State:
    """Weights of the demo network, whose live batch norm counts its steps in int64."""
    torch.manual_seed(0)
    return build_model(DEMO).state_dict()


def test_an_own_checkpoint_comes_back_as_it_was_saved(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    save_checkpoint(path, demo_state, DEMO, NAMES, PROVENANCE)
    checkpoint = read_checkpoint(path, preset="detr-demo")
    assert checkpoint.config == DEMO
    assert checkpoint.categories == NAMES
    assert checkpoint.provenance == PROVENANCE
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_equal(checkpoint.state_dict, demo_state)
    assert list(tmp_path.iterdir()) == [path]


def test_the_folder_of_an_own_checkpoint_may_be_given(tmp_path: Path, demo_state: State) -> None:
    save_checkpoint(tmp_path / "model.safetensors", demo_state, DEMO, NAMES, {})
    assert read_checkpoint(tmp_path).config == DEMO


def test_tensors_that_share_memory_are_saved(tmp_path: Path, demo_state: State) -> None:
    bias, weight = "transformer.decoder.layers.0.norm1.bias", "detr.class_embed.weight"
    both = torch.stack([demo_state[f"detr.{bias}"], demo_state[f"detr.{bias}"]])
    state = {**demo_state, f"detr.{bias}": both[0], f"detr.{bias.replace('norm1', 'norm2')}": both[0]}
    state[weight] = state[weight].t().contiguous().t()  # not contiguous either
    save_checkpoint(tmp_path / "demo.safetensors", state, DEMO, None, {})
    checkpoint = read_checkpoint(tmp_path / "demo.safetensors")
    assert checkpoint.categories is None
    assert_equal(checkpoint.state_dict, state)


def test_weights_or_names_that_do_not_fit_are_not_saved(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    with pytest.raises(CheckpointError, match=r"wrong shapes: detr\.query_embed\.weight"):
        save_checkpoint(path, demo_state, replace(DEMO, num_queries=26), NAMES, {})
    with pytest.raises(CheckpointError, match="3 category names for 12 classes"):
        save_checkpoint(path, demo_state, DEMO, NAMES[:3], {})
    assert list(tmp_path.iterdir()) == []


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    path.write_bytes(b"the old file")
    with pytest.raises(TypeError):
        save_checkpoint(path, demo_state, DEMO, NAMES, {"when": object()})
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def header_of(**change: Any) -> dict[str, Any]:
    header: dict[str, Any] = {
        "format_version": CHECKPOINT_FORMAT_VERSION,
        "config": asdict(DEMO) | {"resize": rule_to_record(DEMO.resize)},
        "categories": [asdict(name) for name in NAMES],
        "provenance": {},
    }
    return header | change


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (json.dumps(header_of(format_version=3)), "its format version is 3; this program reads 1 and 2"),
        (json.dumps(header_of(config={"num_querys": 3})), "header is broken: .*num_querys"),
        (json.dumps(header_of(config={"num_queries": "25"})), "num_queries is '25', which is no int"),
        (json.dumps(header_of(config={"resize": {"rule": "crop"}})), "field 'resize.rule' is 'crop'"),
        (json.dumps(header_of(config={"resize": 800})), "header is broken"),
        (json.dumps(header_of(config={"normalization": {"mean": [1, 2, 3]}})), "field 'normalization.std' is not"),
        (json.dumps(header_of(config={"hidden_dim": 130})), "hidden_dim=130 must be a multiple"),
        (json.dumps(header_of(categories=[])), "0 category names for 12 classes"),
        (json.dumps(header_of(categories=[{"id": 1}])), "header is broken"),
        (json.dumps({}), "header is broken: 'format_version'"),
        ("[]", "header is broken"),
        ("{", "header is broken"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(tmp_path: Path, demo_state: State, header: str, reason: str) -> None:
    path = tmp_path / "demo.safetensors"
    safetensors.torch.save_file(demo_state, path, {CHECKPOINT_METADATA_KEY: header})
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(path)


def test_the_first_version_of_the_header_is_read(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    config = {name: value for name, value in asdict(DEMO).items() if name not in ("resize", "normalization")}
    header = header_of(format_version=1, config=config | {"shortest_edge": 128, "longest_edge": 160})
    safetensors.torch.save_file(demo_state, path, {CHECKPOINT_METADATA_KEY: json.dumps(header)})
    assert read_checkpoint(path).config == DEMO


def test_how_an_image_is_seen_comes_back(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    config = replace(DEMO, resize=FixedSize(96, 128), normalization=Normalization((0.5, 0.5, 0.5), (0.25, 0.5, 1.0)))
    save_checkpoint(path, demo_state, config, NAMES, {})
    assert read_checkpoint(path).config == config


def test_an_own_checkpoint_is_checked_strictly(tmp_path: Path, demo_state: State) -> None:
    path = tmp_path / "demo.safetensors"
    state = dict(demo_state)
    state["surprise"] = state.pop("mask_head.lay1.bias")
    safetensors.torch.save_file(state, path, {CHECKPOINT_METADATA_KEY: json.dumps(header_of())})
    with pytest.raises(CheckpointError, match=r"missing keys: mask_head\.lay1\.bias; unexpected keys: surprise"):
        read_checkpoint(path)


def test_a_preset_does_not_overrule_an_own_checkpoint(tmp_path: Path, demo_state: State) -> None:
    save_checkpoint(tmp_path / "demo.safetensors", demo_state, DEMO, NAMES, {})
    with pytest.raises(CheckpointError, match="backbone is resnet18, not resnet50; stages is 3, not 4"):
        read_checkpoint(tmp_path / "demo.safetensors", preset="detr-resnet-50-panoptic")


def test_safetensors_without_a_header_are_read_by_shapes_and_broken_ones_refused(
    tmp_path: Path, demo_state: State
) -> None:
    path = tmp_path / "demo.safetensors"
    safetensors.torch.save_file(demo_state, path)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.config.backbone, checkpoint.config.masks, checkpoint.config.num_classes) == (
        "resnet18",
        True,
        12,
    )
    assert checkpoint.categories is None
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="it is no safetensors file"):
        read_checkpoint(path)
