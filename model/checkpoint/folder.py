"""A folder that transformers' `save_pretrained` wrote: its files of weights, and the checkpoint that they are."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import Weight, has_native_backbone, published_state
from model.checkpoint.hugging_face_config import categories_of, check_against, read_config
from model.checkpoint.strict import Checkpoint, describe_network
from model.checkpoint.structure import infer_config

SAFETENSORS = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"


def safetensors_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights: one, or the shards that its index names; none where there are neither.

    Raises CheckpointError where the index cannot be read or names what is no file of the folder.
    """
    if (folder / SAFETENSORS).is_file():
        return (folder / SAFETENSORS,)
    index = folder / SHARD_INDEX
    if not index.is_file():
        return ()
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{SHARD_INDEX} cannot be read: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{SHARD_INDEX} names {name!r}, which is no file beside it")
        if not (folder / name).is_file():
            raise CheckpointError(f"{SHARD_INDEX} names {name}, which is missing")
    if not names:
        raise CheckpointError(f"{SHARD_INDEX} names no file")
    return tuple(folder / name for name in names)


def folder_checkpoint(
    files: tuple[Path, ...],
    weights: Mapping[str, Weight],
    concatenate: Callable[[list[Weight]], Weight],
    notes: list[str],
) -> Checkpoint[Weight]:
    """The checkpoint of a folder whose `files` hold these weights, under transformers' names and in float32.

    `concatenate` joins weights along their first axis; `notes` tell what was done to the weights. Raises
    CheckpointError where config.json is of no DETR, or of another one than the weights.
    """
    folder = files[0].parent
    native = has_native_backbone(weights)
    state = without_counters(published_state(weights, concatenate))
    base, config_json, config_notes = read_config(folder, native)
    config = infer_config(state, base)
    check_against(config_json, config)
    categories, category_note = categories_of(config_json, config.num_classes, config.masks)
    first = f"a Hugging Face model with {'transformers' if native else 'timm'} names for its backbone"
    said = f"config.json and the shapes say: {describe_network(config)}"
    all_notes = (first, said, *config_notes, *notes, category_note)
    return Checkpoint(state, config, categories, folder.resolve().name, sha256_of(*files), {}, all_notes)


def without_counters(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights without the step counters of live batch norm, which frozen batch norm has no use for."""
    return {key: weight for key, weight in weights.items() if not key.endswith(".num_batches_tracked")}
