"""Importing without torch: the artifact is what `detr export` writes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.export import export
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.network.config import PRESETS, ModelConfig
from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS
from model.runtime.preprocess import Normalization, make_batch
from model.templates.importing import NoTemplateError, import_folder
from tests.end_to_end.conftest import REPOSITORY
from tests.model.networks import SMALL, filled
from tests.model.templates.networks_of_presets import network_of, saved_checkpoint

DEMO = PRESETS["detr-demo"]


def imported(path: Path, **options: Any) -> Artifact:
    out = path.parent / "imported" / "model.onnx"
    import_folder(path, out, **options)
    return read_artifact(out)


def assert_answers_as(artifact: Artifact, network: ServedNetwork) -> None:
    """To rounding: torch adds in another order than ONNX Runtime."""
    batch = make_batch([fixed_picture(97, 141), fixed_picture(64, 50)])
    thresholds = np.full(2, ALL_MASKS, np.float32)
    found = open_engine(artifact, "cpu").infer(batch, thresholds)
    expected = run_torch(network, batch, thresholds)
    for name in ("pred_logits", "pred_boxes", "pred_masks", "mask_index"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4 * float(np.ptp(other)), err_msg=name)


def same_model(one: Artifact, other: Artifact) -> bool:
    """Whether two artifacts have the same graph with the same weights, bit by bit, but for their order."""
    graphs = []
    for artifact in (one, other):
        model = onnx.load_from_string(artifact.data)
        weights = {tensor.name: (list(tensor.dims), tensor.raw_data) for tensor in model.graph.initializer}
        del model.graph.initializer[:], model.metadata_props[:]
        graphs.append((model, weights))
    return graphs[0] == graphs[1]


# An embedding of at most 8192 numbers is reshaped by the exporter itself: a graph for few queries is one node shorter.
SMALL_DEMO = replace(DEMO, num_classes=3, num_queries=65, normalization=Normalization((0.5, 0.4, 0.3), (0.3, 0.2, 0.1)))


@pytest.fixture(scope="module")
def demo_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_checkpoint(tmp_path_factory.mktemp("demo"), network_of(SMALL_DEMO), SMALL_DEMO)


def test_an_imported_model_answers_as_the_network_does(demo_checkpoint: Path) -> None:
    artifact = imported(demo_checkpoint)
    assert_answers_as(artifact, ServedNetwork(network_of(SMALL_DEMO), SMALL_DEMO.normalization))
    assert replay_golden(open_engine(artifact, "cpu"), artifact) < 1e-4
    assert artifact.golden.mask_index is not None
    assert 0 < len(artifact.golden.mask_index) < 2 * SMALL_DEMO.num_queries


@pytest.mark.slow
def test_an_own_checkpoint_is_imported_as_it_is_exported(demo_checkpoint: Path) -> None:
    artifact = imported(demo_checkpoint, name="mine", provenance={"revision": "abc"})
    export(read_checkpoint(demo_checkpoint), demo_checkpoint.with_suffix(".onnx"), name="mine")
    exported = read_artifact(demo_checkpoint.with_suffix(".onnx"))
    assert same_model(artifact, exported)
    # Its versions are those that wrote the template.
    provenance = exported.metadata.provenance | {
        "exported_with": artifact.metadata.provenance["exported_with"],
        "template": "detr-demo",
        "revision": "abc",
    }
    assert artifact.metadata == replace(exported.metadata, provenance=provenance)
    assert replay_golden(open_engine(artifact, "cpu"), exported) < 1e-4


def test_the_notes_say_what_was_recognized(demo_checkpoint: Path) -> None:
    notes = import_folder(demo_checkpoint, demo_checkpoint.parent / "noted.onnx")
    assert notes[0] == "a checkpoint of this project"
    assert "resnet18, panoptic segmentation, 3 classes, 65 queries" in notes[1]
    assert notes[-1] == "graph: the template detr-demo"
    assert read_artifact(demo_checkpoint.parent / "noted.onnx").metadata.name == "noted"


def test_neither_torch_nor_onnx_is_imported(demo_checkpoint: Path) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx', 'onnxscript', 'ml_dtypes', 'lightning', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from model.templates.importing import import_folder\n"
        "import_folder(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    out = demo_checkpoint.parent / "without.onnx"
    command = [sys.executable, "-W", "error", "-c", program, str(demo_checkpoint), str(out)]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    assert same_model(read_artifact(out), imported(demo_checkpoint))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_widened_as_torch_widens_them(
    dtype: torch.dtype, demo_checkpoint: Path, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    with safetensors.safe_open(demo_checkpoint, framework="pt") as file:
        header, keys = file.metadata(), list(file.keys())
        state = {key: file.get_tensor(key) for key in keys}
    other = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in state.items()}
    safetensors.torch.save_file(other, path, header)
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in other.items()}
    safetensors.torch.save_file(widened, tmp_path / "widened.safetensors", header)
    assert same_model(imported(path), imported(tmp_path / "widened.safetensors"))


def test_a_network_without_a_template_is_refused_in_one_line(tmp_path: Path) -> None:
    path = saved_checkpoint(tmp_path, filled(SMALL), SMALL)
    with pytest.raises(NoTemplateError) as refused:
        import_folder(path, tmp_path / "out.onnx")
    message = str(refused.value)
    assert message.startswith("saved.safetensors: there is no graph template of resnet18, panoptic segmentation")
    assert "detr-resnet-50-panoptic" in message
    assert "`detr export`" in message
    assert "\n" not in message
    assert not (tmp_path / "out.onnx").exists()


def test_weights_that_do_not_fit_are_named(demo_checkpoint: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(demo_checkpoint, framework="np") as file:
        header, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state["detr.class_embed.bias"] = state["detr.class_embed.bias"][:2].copy()
    state["extra"] = state.pop("detr.bbox_embed.layers.0.bias")
    safetensors.numpy.save_file(state, tmp_path / "saved.safetensors", header)
    wrong = (
        r"^saved\.safetensors: it does not fit .*missing keys: detr\.bbox_embed\.layers\.0\.bias; "
        r"unexpected keys: extra; wrong shapes: detr\.class_embed\.bias \(is \[2\], must be \[4\]\)$"
    )
    with pytest.raises(CheckpointError, match=wrong):
        import_folder(tmp_path / "saved.safetensors", tmp_path / "out.onnx")


def test_weights_that_are_whole_numbers_are_refused(demo_checkpoint: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(demo_checkpoint, framework="np") as file:
        header, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state["detr.class_embed.weight"] = state["detr.class_embed.weight"].astype(np.int8)
    safetensors.numpy.save_file(state, tmp_path / "saved.safetensors", header)
    with pytest.raises(CheckpointError, match=r"no floating-point numbers: detr\.class_embed\.weight$"):
        import_folder(tmp_path / "saved.safetensors", tmp_path / "out.onnx")


def test_damaged_weights_are_not_served(demo_checkpoint: Path, tmp_path: Path) -> None:
    with safetensors.safe_open(demo_checkpoint, framework="np") as file:
        header, state = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state["detr.class_embed.bias"][0] = np.nan
    safetensors.numpy.save_file(state, tmp_path / "saved.safetensors", header)
    (tmp_path / "out.onnx").write_bytes(b"older")
    with pytest.raises(CheckpointError, match="not finite"):
        import_folder(tmp_path / "saved.safetensors", tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        ((10**6).to_bytes(8, "little") + b'{"a": ', "ends within its header"),
        ((9).to_bytes(8, "little") + b'{"a": 1} ', "it is no safetensors file"),
    ],
)
def test_what_is_no_safetensors_file_is_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "saved.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"^saved\.safetensors: .*{what}"):
        import_folder(tmp_path / "saved.safetensors", tmp_path / "out.onnx")


def test_what_takes_torch_to_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"it is a folder without model\.safetensors .*by `detr export` \("):
        import_folder(tmp_path, tmp_path / "out.onnx")
    with pytest.raises(CheckpointError, match=r"^pytorch_model\.bin: it is a file of torch\.save; .*`detr export`"):
        import_folder(tmp_path / "pytorch_model.bin", tmp_path / "out.onnx")
    with pytest.raises(CheckpointError, match="there is no such file"):
        import_folder(tmp_path / "nothing", tmp_path / "out.onnx")


VARIANTS: dict[str, ModelConfig] = {
    "detr-resnet-50": replace(PRESETS["detr-resnet-50"], num_classes=3, num_queries=100),
    "detr-resnet-50-dc5": replace(PRESETS["detr-resnet-50-dc5"], num_classes=250, num_queries=1),
    "detr-resnet-101": replace(PRESETS["detr-resnet-101"], num_classes=1, num_queries=300),
    "detr-resnet-50-panoptic": replace(PRESETS["detr-resnet-50-panoptic"], num_classes=3, num_queries=9),
    "detr-demo": replace(DEMO, num_classes=250, num_queries=100),
    "table-transformer": replace(PRESETS["table-transformer"], num_classes=6, num_queries=125),
}


@pytest.mark.slow
@pytest.mark.parametrize("preset", VARIANTS)
def test_any_number_of_classes_and_queries_is_imported(preset: str, tmp_path: Path) -> None:
    config = VARIANTS[preset]
    network = network_of(config)
    artifact = imported(saved_checkpoint(tmp_path, network, config))
    assert artifact.metadata.provenance["template"] == preset
    assert_answers_as(artifact, ServedNetwork(network, config.normalization))


def in_shards(folder: Path) -> None:
    """Take the folder's weights apart, as `save_pretrained` does where they are many."""
    with safetensors.safe_open(folder / "model.safetensors", framework="np") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    (folder / "model.safetensors").unlink()
    names = [f"model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {key: names[index % 2] for index, key in enumerate(state)}
    for name in names:
        part = {key: array for key, array in state.items() if weight_map[key] == name}
        safetensors.numpy.save_file(part, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_transformers_is_imported_as_it_is_exported(sharded: bool, tmp_path: Path) -> None:
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    from tests.model.transformers_models import randomize

    levels: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    names = {0: "cat", 1: "dog", 2: "owl"}
    offline: dict[str, Any] = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    config = DetrConfig(backbone_config=ResNetConfig(**levels), id2label=names, **offline)
    theirs = DetrForObjectDetection(config).eval()
    with torch.no_grad():
        randomize(theirs, seed=3)
    theirs.save_pretrained(tmp_path / "theirs")
    if sharded:
        in_shards(tmp_path / "theirs")
    artifact = imported(tmp_path / "theirs")
    assert [category.name for category in artifact.metadata.categories] == ["cat", "dog", "owl"]
    out = tmp_path / "exported.onnx"
    export(read_checkpoint(tmp_path / "theirs"), out, name="model")
    exported = read_artifact(out)
    assert same_model(artifact, exported)
    assert artifact.metadata.provenance["sha256"] == exported.metadata.provenance["sha256"]
    assert replace(artifact.metadata, provenance={}) == replace(exported.metadata, provenance={})
