"""Weights of torchvision for a backbone: found, checked, and loaded as torchvision itself would use them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor

from model.checkpoint.download import DownloadError
from model.checkpoint.errors import CheckpointError
from model.network.backbone import Backbone
from model.network.nested_tensor import pad_images
from model.training.start.backbone_weights import find_backbone_weights, load_backbone_weights
from tests.model.mirror import Mirror, mirror_of
from tests.parity.parity_weights import value

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    """Every weight of a ResNet-18 with its classifier, as torchvision publishes them: without step counters."""
    with torch.device("meta"):
        whole = torchvision.models.resnet18().state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in whole.items() if not key.endswith("num_batches_tracked")}
    return {key: torch.from_numpy(value(key, shape, 5)) for key, shape in shapes.items()}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def backbone(*, stages: int = 4, frozen: bool = True) -> Backbone:
    return Backbone("resnet18", stages, False, frozen, True)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("stages", [2, 4])
def test_features_are_those_of_torchvisions_network_with_the_same_weights(
    state: State, tmp_path: Path, frozen: bool, stages: int
) -> None:
    ours = backbone(stages=stages, frozen=frozen)
    load_backbone_weights(ours, "resnet18", saved(tmp_path / "r18.pth", state))
    theirs = torchvision.models.resnet18().eval()
    theirs.load_state_dict(state, strict=False)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        features = ours.eval()(pad_images([images[0]]))
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        for level in range(stages):
            expected = theirs.get_submodule(f"layer{level + 1}")(expected)
    assert len(features) == stages
    # Frozen batch norm rounds in another order, and this many layers carry that on.
    torch.testing.assert_close(features[-1].tensors, expected, atol=1e-3, rtol=1e-3)


def test_batch_norm_takes_the_statistics_and_not_the_step_counters(state: State, tmp_path: Path) -> None:
    newer = {**state, "bn1.num_batches_tracked": torch.tensor(7)}
    for frozen in (True, False):
        ours = backbone(stages=2, frozen=frozen)
        load_backbone_weights(ours, "resnet18", saved(tmp_path / "newer.pth", newer))
        loaded = ours.body.state_dict()
        assert torch.equal(loaded["bn1.running_var"], state["bn1.running_var"])
        assert [int(t) for key, t in loaded.items() if key == "bn1.num_batches_tracked"] == ([] if frozen else [7])


def test_other_classifiers_none_and_other_files_are_fine(state: State, tmp_path: Path) -> None:
    headless = {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}
    ten = {**state, "fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    safetensors.torch.save_file(state, tmp_path / "whole.safetensors")
    files = [
        saved(tmp_path / "headless.pth", headless),
        saved(tmp_path / "ten.pth", ten),
        saved(tmp_path / "training.pth", {"model": state, "epoch": 3}),
        tmp_path / "whole.safetensors",
    ]
    for path in files:
        ours = backbone(stages=2)
        load_backbone_weights(ours, "resnet18", path)
        assert all(torch.equal(tensor, state[key]) for key, tensor in ours.body.state_dict().items()), path


def test_weights_that_do_not_fit_are_named_key_by_key(state: State, tmp_path: Path) -> None:
    wrong = {**state, "layer9.conv": torch.zeros(1), "conv1.weight": torch.zeros(64, 1, 7, 7)}
    del wrong["layer2.0.conv1.weight"]
    ours = backbone(stages=2)
    before = ours.body.state_dict()["bn1.weight"].clone()
    with pytest.raises(CheckpointError) as raised:
        load_backbone_weights(ours, "resnet18", saved(tmp_path / "wrong.pth", wrong))
    assert str(raised.value) == (
        "wrong.pth: it holds no weights of torchvision's resnet18: missing keys: layer2.0.conv1.weight; "
        "unexpected keys: layer9.conv; wrong shapes: conv1.weight (is [64, 1, 7, 7], must be [64, 3, 7, 7])"
    )
    assert torch.equal(ours.body.state_dict()["bn1.weight"], before)


@pytest.mark.parametrize("content", [{"model": 3}, {"conv1.weight": "text"}, [1, 2]])
def test_a_file_with_something_else_is_refused_by_its_name(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"^other\.pth: "):
        load_backbone_weights(backbone(stages=2), "resnet18", saved(tmp_path / "other.pth", content))


@contextmanager
def published(state: State, folder: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[Mirror]:
    """A server's folder with a file that torchvision is made to know as its weights V1 of a ResNet-18."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    file = io.BytesIO()
    torch.save(state, file)
    digits = hashlib.sha256(file.getvalue()).hexdigest()[:8]
    with mirror_of(file.getvalue()) as mirror:
        weights = [SimpleNamespace(name="IMAGENET1K_V1", url=f"{mirror.address}/{folder}/resnet18-{digits}.pth")]
        monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: weights)
        yield mirror


@pytest.mark.parametrize("name", ["imagenet", "IMAGENET1K_V1", "imagenet1k_v1"])
def test_published_weights_are_downloaded_once_to_where_torchvision_keeps_them(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with published(state, "good", monkeypatch, tmp_path) as mirror:
        for _ in range(2):
            path = find_backbone_weights("resnet18", name)
    assert mirror.requests == [f"/good/{path.name}"]
    assert path.parent == tmp_path / "hub" / "checkpoints"
    ours = backbone(stages=2)
    load_backbone_weights(ours, "resnet18", path)
    assert torch.equal(ours.body.state_dict()["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("none", r"/none/resnet18-.*: the server answered 404"), ("other", "incomplete or another file")],
)
def test_what_is_not_the_published_file_is_refused(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, reason: str
) -> None:
    with published(state, folder, monkeypatch, tmp_path), pytest.raises(DownloadError, match=reason):
        find_backbone_weights("resnet18", "imagenet")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_every_resnet_has_published_weights_with_a_digest(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    download = Mock()
    monkeypatch.setattr("model.training.start.backbone_weights.download", download)
    find_backbone_weights(name, "imagenet")
    url, path, digits = download.call_args.args
    assert re.fullmatch("[0-9a-f]{8}", digits)
    assert url == f"https://download.pytorch.org/models/{name}-{digits}.pth"
    assert path.name == f"{name}-{digits}.pth"


def test_a_file_is_itself_and_what_is_neither_is_answered_with_what_there_is(tmp_path: Path) -> None:
    path = saved(tmp_path / "mine.pth", {})
    assert find_backbone_weights("resnet50", path) == path
    assert find_backbone_weights("resnet50", str(path)) == path
    with pytest.raises(ValueError, match=r"nothing\.pth: there is no such file; .* imagenet, IMAGENET1K_V1, IMAGENET"):
        find_backbone_weights("resnet50", "nothing.pth")
