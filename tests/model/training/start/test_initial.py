"""Where a run starts: what is taken from a checkpoint, what is fresh, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from model.categories.coco import detection_categories, panoptic_categories
from model.categories.names import named_category
from model.checkpoint import published
from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving import save_checkpoint
from model.network.config import PRESETS
from model.runtime.categories import Category
from model.runtime.resize_rule import Edges, FixedSize
from model.training.start.initial import StartingNetwork, starting_network
from tests.model.checkpoint.test_checkpoint import SMALL, SMALL_PANOPTIC, published_file, state_of
from tests.model.networks import filled
from tests.parity.parity_weights import value

State = dict[str, Tensor]
# COCO knows the first and the last, at other indices.
MINE = tuple(named_category(index, name) for index, name in enumerate(("Zebra", "wolpertinger", "person")))
ZEBRA, PERSON = 24, 1


def assert_taken(begun: StartingNetwork, source: State, prefix: str = "") -> None:
    """Every weight that `source` and the network both have is that of `source`, apart from the class head's."""
    found = begun.network.state_dict()
    for key, tensor in source.items():
        if "class_embed" not in key:
            assert torch.equal(found[prefix + key], tensor), key


def test_a_full_size_published_file_starts_a_network_of_three_classes(tmp_path: Path) -> None:
    path = published_file(tmp_path / "published.pth", PRESETS["detr-resnet-50"])
    begun = starting_network(categories=MINE, stage="detection", init=path)
    assert begun.config == replace(PRESETS["detr-resnet-50"], num_classes=3)
    state = state_of(PRESETS["detr-resnet-50"])
    assert_taken(begun, state)
    head = begun.network.state_dict()
    for key in ("class_embed.weight", "class_embed.bias"):
        assert torch.equal(head[key][[0, 2, 3]], state[key][[ZEBRA, PERSON, 91]])
    assert begun.sources == {
        "init": {"source": "published.pth", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "backbone_weights": None,
    }
    notes = "\n".join(begun.notes)
    assert "starts from published.pth" in notes
    assert "classes kept, by name: 2 (Zebra, person)" in notes
    assert "classes fresh: 1 (wolpertinger)" in notes
    assert "classes left out of published.pth: 78 (bicycle, car, " in notes
    assert "assumed: no dilation (DC5)" in notes


def test_rows_of_new_classes_are_drawn_as_the_network_draws_them(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth")
    torch.manual_seed(3)
    first = starting_network(categories=MINE, stage="detection", init=path).network.state_dict()
    torch.manual_seed(4)
    second = starting_network(categories=MINE, stage="detection", init=path).network.state_dict()
    differing = {key for key, tensor in first.items() if not torch.equal(tensor, second[key])}
    assert differing == {"class_embed.weight", "class_embed.bias"}
    for key in differing:
        assert torch.equal(first[key][[0, 2, 3]], second[key][[0, 2, 3]])
        # As nn.Linear draws them: uniform, at most one over the root of the width.
        assert 0 < first[key][1].abs().max() <= SMALL.hidden_dim**-0.5


def test_what_was_started_is_saved_and_read_and_started_from_again_with_every_row(tmp_path: Path) -> None:
    begun = starting_network(categories=MINE, stage="detection", init=published_file(tmp_path / "model.pth"))
    state, path = begun.network.state_dict(), tmp_path / "mine.safetensors"
    save_checkpoint(path, state, begun.config, MINE, {"init": begun.sources["init"]})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.config, checkpoint.categories) == (begun.config, MINE)
    again = starting_network(categories=MINE, stage="detection", init=path)
    for found in (checkpoint.state_dict, again.network.state_dict()):
        assert found.keys() == state.keys()
        assert all(torch.equal(tensor, state[key]) for key, tensor in found.items())
    assert "classes kept, by name: 3 (Zebra, wolpertinger, person)" in again.notes


def test_edges_replace_a_rule_without_any_only_together(tmp_path: Path) -> None:
    config = replace(SMALL, num_classes=3, resize=FixedSize(64, 96))
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, filled(config).state_dict(), config, MINE, {})
    begun = starting_network(categories=MINE, stage="detection", init=path, image_size=(64, 90))
    assert begun.config.resize == Edges(64, 90)
    with pytest.raises(ValueError, match="has no edges: give both --shortest-edge and --longest-edge"):
        starting_network(categories=MINE, stage="detection", init=path, image_size=(64, None))


def test_structure_queries_and_resize_rule_are_the_checkpoints(tmp_path: Path) -> None:
    config = replace(SMALL, nheads=4, num_queries=5, num_classes=3, resize=Edges(96, 200), dropout=0.3)
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, filled(config).state_dict(), config, MINE, {})
    assert starting_network(categories=MINE, stage="detection", init=path).config == config
    resized = starting_network(categories=MINE, stage="detection", init=path, image_size=(64, None))
    assert resized.config == replace(config, resize=Edges(64, 200))
    assert "resize rule: 64 and 200 pixels, as published instead of 96 and 200 pixels, as published" in resized.notes


def test_live_batch_norm_goes_on_where_it_was(tmp_path: Path) -> None:
    config = replace(SMALL, frozen_batch_norm=False, num_classes=3)
    network = filled(config)
    network.get_buffer("backbone.0.body.bn1.num_batches_tracked").fill_(17)
    save_checkpoint(tmp_path / "live.safetensors", network.state_dict(), config, MINE, {})
    begun = starting_network(categories=MINE, stage="detection", init=tmp_path / "live.safetensors")
    assert_taken(begun, network.state_dict())
    assert int(begun.network.get_buffer("backbone.0.body.bn1.num_batches_tracked")) == 17


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets of the size that tests build: without dilation, with it, and live batch norm."""
    deep = replace(SMALL, backbone="resnet50", stages=4)
    monkeypatch.setitem(PRESETS, "detr-resnet-50", deep)
    monkeypatch.setitem(PRESETS, "detr-resnet-50-dc5", replace(deep, dilation=True))
    monkeypatch.setitem(PRESETS, "detr-resnet-50-panoptic", replace(SMALL_PANOPTIC, backbone="resnet50"))
    monkeypatch.setitem(PRESETS, "detr-demo", replace(SMALL, frozen_batch_norm=False, masks=False))


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize("recognized", [True, False])
def test_a_preset_says_that_there_is_dilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recognized: bool
) -> None:
    path = published_file(tmp_path / "model.pth", PRESETS["detr-resnet-50"])
    if recognized:  # Known not to have been trained with dilation, and a fair start all the same.
        digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        monkeypatch.setitem(published.FILES, "detr-resnet-50", f"detr-r50-{digits}.pth")
    dilated = starting_network(categories=MINE, stage="detection", init=path, preset="detr-resnet-50-dc5")
    assert dilated.config == replace(PRESETS["detr-resnet-50-dc5"], num_classes=3)
    assert_taken(dilated, state_of(PRESETS["detr-resnet-50"]))
    assert "dilation (DC5): as the preset says, of which weights show no trace" in dilated.notes


@pytest.mark.usefixtures("small_presets")
def test_a_preset_of_another_network_is_refused_with_every_difference(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth", replace(PRESETS["detr-resnet-50"], encoder_layers=2))
    with pytest.raises(ValueError, match=r"model\.pth does not fit the preset detr-demo: .*") as raised:
        starting_network(categories=MINE, stage="detection", init=path, preset="detr-demo")
    for difference in ("backbone is resnet50, not resnet18", "stages is 4, not 2", "encoder_layers is 2, not 1"):
        assert difference in str(raised.value)
    dilated = replace(PRESETS["detr-resnet-50-dc5"], num_classes=3)
    save_checkpoint(tmp_path / "dc5.safetensors", state_of(dilated), dilated, MINE, {})
    with pytest.raises(ValueError, match=r"dc5\.safetensors does not fit .*: dilation is True, not False"):
        starting_network(categories=MINE, stage="detection", init=tmp_path / "dc5.safetensors", preset="detr-resnet-50")


def test_the_detector_of_a_panoptic_file_is_taken_without_its_masks(tmp_path: Path) -> None:
    path = published_file(tmp_path / "panoptic.pth", SMALL_PANOPTIC)
    begun = starting_network(categories=MINE, stage="detection", init=path)
    assert begun.config == replace(SMALL_PANOPTIC, masks=False, num_classes=3)
    state = state_of(SMALL_PANOPTIC)
    assert_taken(begun, {key[5:]: tensor for key, tensor in state.items() if key.startswith("detr.")})
    head = begun.network.get_parameter("class_embed.weight")
    assert torch.equal(head[[0, 2, 3]], state["detr.class_embed.weight"][[ZEBRA, PERSON, 250]])
    assert "the mask head of panoptic.pth is left out" in begun.notes


def test_joint_training_keeps_a_mask_head(tmp_path: Path) -> None:
    path = published_file(tmp_path / "panoptic.pth", SMALL_PANOPTIC)
    begun = starting_network(categories=MINE, stage="joint", init=path)
    assert begun.config == replace(SMALL_PANOPTIC, num_classes=3)
    assert_taken(begun, state_of(SMALL_PANOPTIC))
    head = begun.network.get_parameter("detr.class_embed.bias")
    assert torch.equal(head[[0, 2, 3]], state_of(SMALL_PANOPTIC)["detr.class_embed.bias"][[ZEBRA, PERSON, 250]])


@pytest.mark.parametrize("stage", ["masks", "joint"])
def test_a_detector_gets_a_fresh_mask_head(tmp_path: Path, stage: Any) -> None:
    config = replace(SMALL_PANOPTIC, masks=False)
    known: tuple[Category, ...] = (panoptic_categories()[200], detection_categories()[ZEBRA])
    begun = starting_network(categories=known, stage=stage, init=published_file(tmp_path / "detector.pth", config))
    assert begun.config == replace(SMALL_PANOPTIC, num_classes=2)
    assert_taken(begun, state_of(config), "detr.")
    assert "the mask head is fresh" in begun.notes


def test_a_frozen_detector_has_to_know_the_classes_that_masks_are_learnt_for(tmp_path: Path) -> None:
    path = published_file(tmp_path / "panoptic.pth", SMALL_PANOPTIC)
    with pytest.raises(ValueError, match=r"panoptic\.pth, which does not know wolpertinger: train it .* first"):
        starting_network(categories=MINE, stage="masks", init=path)
    assert starting_network(categories=MINE[::2], stage="masks", init=path).config.num_classes == 2


def test_a_detector_too_narrow_for_a_mask_head_is_refused(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth", replace(SMALL, stages=4))
    with pytest.raises(ValueError, match="hidden_dim=64 must be a multiple of 128"):
        starting_network(categories=MINE, stage="joint", init=path)


def test_classes_that_nobody_names_are_fresh(tmp_path: Path) -> None:
    path = published_file(tmp_path / "model.pth", replace(SMALL, num_classes=3))
    begun = starting_network(categories=MINE, stage="detection", init=path)
    assert "classes: all 3 fresh, because model.pth does not say what its own are called" in begun.notes
    head, trained = begun.network.get_parameter("class_embed.bias"), state_of(replace(SMALL, num_classes=3))
    assert [bool(a == b) for a, b in zip(head, trained["class_embed.bias"], strict=True)] == [False] * 3 + [True]


def test_a_folder_of_transformers_is_a_start_too(their_detector: Any, tmp_path: Path) -> None:
    their_detector.save_pretrained(tmp_path / "theirs")
    categories = (named_category(0, "fox"), named_category(1, "unicorn"))
    begun = starting_network(categories=categories, stage="detection", init=tmp_path / "theirs")
    checkpoint = read_checkpoint(tmp_path / "theirs")
    assert begun.config == replace(checkpoint.config, num_classes=2)
    assert_taken(begun, checkpoint.state_dict)
    head = begun.network.get_parameter("class_embed.weight")
    assert torch.equal(head[[0, 2]], checkpoint.state_dict["class_embed.weight"][[4, 5]])
    assert "classes left out of theirs: 4 (cat, dog, cow, owl)" in begun.notes


@pytest.mark.usefixtures("small_presets")
@pytest.mark.parametrize(("stage", "masks"), [("detection", False), ("joint", True)])
def test_a_preset_starts_from_nothing_where_batch_norm_can_learn(
    monkeypatch: pytest.MonkeyPatch, stage: Any, masks: bool
) -> None:
    begun = starting_network(categories=MINE, stage=stage, preset="detr-demo", image_size=(100, 150))
    sized = replace(PRESETS["detr-demo"], num_classes=3, resize=Edges(100, 150))
    assert begun.config == replace(sized, masks=masks)
    assert begun.sources == {"init": None, "backbone_weights": None}
    assert begun.notes[0].startswith("fresh weights: resnet18, ")


@pytest.mark.usefixtures("small_presets")
def test_frozen_batch_norm_takes_its_statistics_from_backbone_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        whole = torchvision.models.resnet50().state_dict()
    whole = {key: tensor for key, tensor in whole.items() if not key.endswith("num_batches_tracked")}
    weights = {key: torch.from_numpy(value(key, tuple(tensor.shape), 2)) for key, tensor in whole.items()}
    path = tmp_path / "r50.pth"
    torch.save(weights, path)
    begun = starting_network(categories=MINE, stage="detection", preset="detr-resnet-50-dc5", backbone_weights=path)
    body = {f"backbone.0.body.{key}": tensor for key, tensor in weights.items() if not key.startswith("fc.")}
    assert_taken(begun, body)
    assert begun.notes[1] == "except for the backbone's, from r50.pth"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert begun.sources == {"init": None, "backbone_weights": {"source": "r50.pth", "sha256": sha256}}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preset": "detr-resnet-7"}, "there is no preset 'detr-resnet-7'; there are detr-resnet-50, "),
        ({}, "there is nothing to start from: give --preset or --init"),
        ({"preset": "detr-demo", "stage": "masks"}, "--stage masks needs --init with the detector to freeze"),
        ({"preset": "detr-resnet-50"}, "detr-resnet-50 has frozen batch norm, .* give --backbone-weights imagenet"),
        ({"preset": "detr-demo", "image_size": (0, None)}, "a resize rule needs 1 <= shortest edge"),
        ({"preset": "detr-demo", "image_size": (500, None)}, "shortest edge <= longest edge"),
        ({"init": Path("a.pth"), "backbone_weights": "imagenet"}, "--init has a backbone already"),
        ({"preset": "detr-demo", "backbone_weights": "none.pth"}, r"backbone weights none\.pth: there is no such file"),
    ],
)
def test_what_makes_no_start_is_refused_with_what_to_do(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        starting_network(**{"categories": MINE, "stage": "detection", **options})


def test_a_checkpoint_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: there is no such file"):
        starting_network(categories=MINE, stage="detection", init=tmp_path / "none.pth")
    state = state_of(SMALL)
    del state["query_embed.weight"]
    torch.save({"model": state}, tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match=r"broken\.pth: .*missing keys: query_embed\.weight"):
        starting_network(categories=MINE, stage="detection", init=tmp_path / "broken.pth")
