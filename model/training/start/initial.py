"""Where a run starts: a network for the classes of the data, fresh, or with the weights of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint.digests import sha256_of
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.strict import Checkpoint, describe_network
from model.checkpoint.structure import disagreements
from model.network.build import build_model, detector_of
from model.network.config import PRESETS, ModelConfig
from model.network.detr import DETR
from model.network.segmentation import DETRsegm
from model.runtime.categories import Category
from model.runtime.resize_rule import Edges, ResizeRule
from model.training.settings.config import FreezablePart, TrainingStage
from model.training.start.backbone_weights import find_backbone_weights, load_backbone_weights
from model.training.start.class_head import adapted, describe_classes, rows_by_name
from model.training.start.freezing import FREEZABLE_PARTS


@dataclass(frozen=True)
class StartingNetwork:
    """A network to train, on the CPU, and what it is.

    `sources` are the files that weights came from, `init` and `backbone_weights` (None where there is none), each
    with its name, `source`, and its `sha256`: provenance. `notes` tell a person, a line each, what was kept, what is
    fresh and what was assumed. `fresh` are the parts that begin at random, in whole or in part.
    """

    network: DETR | DETRsegm
    config: ModelConfig
    sources: dict[str, dict[str, str] | None]
    notes: tuple[str, ...]
    fresh: frozenset[FreezablePart]


def starting_network(
    *,
    categories: Sequence[Category],
    stage: TrainingStage,
    preset: str | None = None,
    init: Path | None = None,
    init_name: str | None = None,
    backbone_weights: str | Path | None = None,
    image_size: tuple[int | None, int | None] = (None, None),
    num_queries: int | None = None,
) -> StartingNetwork:
    """The network that a run begins with, for `categories`, the data's by class index.

    With `init`, a checkpoint of any format, its structure, its number of queries and its resize rule are taken, and
    all its weights but those of classes that the data does not have. Classes are the same where they have the same
    name. `init_name` is what it is called. `preset` then says only what leaves no trace in weights, which is dilation
    (DC5), and has to agree otherwise.
    Without `init`, the network is the preset's, with `backbone_weights` as `find_backbone_weights` takes them.

    The stage says whether there is a mask head: `detection` leaves out that of `init`, `masks` and `joint` have a
    fresh one where `init` has none. `image_size`, in pixels, replaces the resize rule's shortest and longest edge;
    `num_queries` the number of queries, of which those of `init` are kept as far as there are as many.

    Raises ValueError where these do not go together, CheckpointError where a file does not fit, and DownloadError.
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    if init is None:
        if stage == "masks":
            raise ValueError("--stage masks needs --init with the detector to freeze")
        if preset is None:
            raise ValueError("there is nothing to start from: give --preset or --init")
        config = _for_data(PRESETS[preset], categories, stage, image_size, num_queries)
        return _from_preset(preset, config, backbone_weights)
    if backbone_weights is not None:
        raise ValueError("--init has a backbone already, so --backbone-weights would have no effect: leave one out")
    checkpoint = read_checkpoint(init)
    checkpoint = replace(checkpoint, source=init_name or checkpoint.source)
    base = checkpoint.config if preset is None else _as_preset(checkpoint, preset)
    if stage == "masks" and num_queries not in (None, base.num_queries):
        raise ValueError(f"--stage masks freezes the detector, so --num-queries has to stay {base.num_queries}")
    config = _for_data(base, categories, stage, image_size, num_queries)
    return _from_checkpoint(checkpoint, config, categories, stage)


def _for_data(
    base: ModelConfig,
    categories: Sequence[Category],
    stage: TrainingStage,
    image_size: tuple[int | None, int | None],
    num_queries: int | None,
) -> ModelConfig:
    """`base` with what the data, the stage, `image_size` and `num_queries` say. ValueError where that cannot be."""
    return replace(
        base,
        num_classes=len(categories),
        masks=stage != "detection",
        resize=_with_edges(base.resize, *image_size),
        num_queries=num_queries or base.num_queries,
    )


def _with_edges(rule: ResizeRule, shortest: int | None, longest: int | None) -> ResizeRule:
    """The rule with the edges that are given. ValueError where it has no edge to take for one that is not."""
    if shortest is None and longest is None:
        return rule
    if isinstance(rule, Edges):
        shortest = rule.shortest_edge if shortest is None else shortest
        longest = rule.longest_edge if longest is None else longest
        return replace(rule, shortest_edge=shortest, longest_edge=longest)
    if shortest is None or longest is None:
        raise ValueError(f"the resize rule ({rule}) has no edges: give both --shortest-edge and --longest-edge")
    return Edges(shortest, longest)


def _from_preset(preset: str, config: ModelConfig, weights: str | Path | None) -> StartingNetwork:
    """A fresh network, its backbone with these weights. ValueError where it needs some and there are none."""
    if weights is None and config.frozen_batch_norm:
        raise ValueError(
            f"{preset} has frozen batch norm, which cannot learn the statistics it needs: give --backbone-weights "
            "imagenet (or a file with weights of torchvision), or --init with a checkpoint"
        )
    network = build_model(config)
    fresh = f"fresh weights: {describe_network(config)}"
    parts = frozenset(FREEZABLE_PARTS)
    if weights is None:
        return StartingNetwork(network, config, {"init": None, "backbone_weights": None}, (fresh,), parts)
    path = find_backbone_weights(config.backbone, weights)
    load_backbone_weights(detector_of(network).body, config.backbone, path)
    file = {"source": path.resolve().name, "sha256": sha256_of(path)}
    notes = (fresh, f"except for the backbone's, from {file['source']}")
    sources = {"init": None, "backbone_weights": file}
    return StartingNetwork(network, config, sources, notes, parts - {"stem", "backbone"})


def _as_preset(checkpoint: Checkpoint[Tensor], preset: str) -> ModelConfig:
    """The checkpoint's configuration with the preset's dilation. ValueError where the two are different networks.

    Dilation leaves no trace, and weights learnt without it are a fair start for a network with it: it makes features
    finer and changes no shape. Those learnt with it are no start for one without.
    """
    found, wanted = checkpoint.config, PRESETS[preset]
    dilation = found.dilation or wanted.dilation
    wrong = disagreements(replace(found, dilation=dilation), replace(wanted, masks=found.masks))
    if wrong:
        raise ValueError(f"{checkpoint.source} does not fit the preset {preset}: {'; '.join(wrong)}")
    return replace(found, dilation=dilation)


def _from_checkpoint(
    checkpoint: Checkpoint[Tensor], config: ModelConfig, categories: Sequence[Category], stage: TrainingStage
) -> StartingNetwork:
    """The network of `config` with the checkpoint's weights."""
    rows = rows_by_name(checkpoint.categories or (), categories)
    if stage == "masks" and (unknown := [c.name for index, c in enumerate(categories) if index not in rows]):
        raise ValueError(
            f"--stage masks freezes the detector of {checkpoint.source}, which does not know {', '.join(unknown)}: "
            "train it for the data's classes first (--stage detection), or both at once (--stage joint)"
        )
    network = build_model(config)
    _load(network, checkpoint, config.masks, rows)
    classes = describe_classes(checkpoint.categories, categories, rows, checkpoint.source)
    notes = [f"starts from {checkpoint.source}", *checkpoint.notes, *classes, *_changes(checkpoint, config)]
    sources = {"init": {"source": checkpoint.source, "sha256": checkpoint.sha256}, "backbone_weights": None}
    fresh: dict[FreezablePart, bool] = {
        "mask_head": config.masks and not checkpoint.config.masks,
        "queries": config.num_queries > checkpoint.config.num_queries,
        "heads": len(rows) < len(categories),
    }
    parts = frozenset(part for part, is_fresh in fresh.items() if is_fresh)
    return StartingNetwork(network, config, sources, tuple(notes), parts)


def _load(network: DETR | DETRsegm, checkpoint: Checkpoint[Tensor], masks: bool, rows: dict[int, int]) -> None:
    """Load everything that the checkpoint and the network (with `masks` or without) both have, strictly."""
    state = checkpoint.state_dict
    target: DETR | DETRsegm = network if checkpoint.config.masks else detector_of(network)
    if checkpoint.config.masks and not masks:
        state = {key.removeprefix("detr."): tensor for key, tensor in state.items() if key.startswith("detr.")}
    fresh = target.state_dict()
    target.load_state_dict({key: _fitting(key, tensor, fresh, rows) for key, tensor in state.items()})


def _fitting(key: str, tensor: Tensor, fresh: dict[str, Tensor], rows: dict[int, int]) -> Tensor:
    if key.endswith("query_embed.weight"):
        kept = tensor[: len(fresh[key])]
        return torch.cat([kept.to(fresh[key]), fresh[key][len(kept) :]])
    return adapted(tensor, fresh[key], rows) if "class_embed." in key else tensor


def _changes(checkpoint: Checkpoint[Tensor], config: ModelConfig) -> list[str]:
    """A note for each thing other than classes in which the network is not the checkpoint's."""
    found, notes = checkpoint.config, []
    if found.masks and not config.masks:
        notes.append(f"the mask head of {checkpoint.source} is left out")
    if config.masks and not found.masks:
        notes.append("the mask head is fresh")
    if config.dilation and not found.dilation:
        notes.append("dilation (DC5): as the preset says, of which weights show no trace")
    if config.num_queries != found.num_queries:
        notes.append(f"{config.num_queries} queries instead of {found.num_queries}: those that both have are kept")
    if config.resize != found.resize:
        notes.append(f"resize rule: {config.resize} instead of {found.resize}")
    return notes
