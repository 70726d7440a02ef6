"""A folder that transformers' `save_pretrained` wrote: its files of weights, and the checkpoint that they are."""

from collections.abc import Callable, Mapping
from pathlib import Path

from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.hugging_face import Weight, has_native_backbone, published_state
from model.checkpoint.hugging_face_config import categories_of, check_against, read_config
from model.checkpoint.preprocessor import read_json
from model.checkpoint.strict import Checkpoint, describe_network
from model.checkpoint.structure import infer_config
from model.checkpoint.table_transformer import is_table_transformer, with_threshold
from model.runtime.resize_rule import ResizeRule

CONFIG_FILE = "config.json"
SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
SHARD_INDEX = f"{SAFETENSORS}.index.json"


def safetensors_files(folder: Path) -> tuple[Path, ...]:
    """The files that hold a folder's weights: one, or the shards that its index names; none where there are neither.

    Raises CheckpointError where the index is broken or names what is no file of the folder.
    """
    return _files(folder, SAFETENSORS)


def pickled_files(folder: Path) -> tuple[Path, ...]:
    """Like `safetensors_files`, of the files that transformers wrote before these."""
    return _files(folder, PICKLED)


def _files(folder: Path, whole: str) -> tuple[Path, ...]:
    if (folder / whole).is_file():
        return (folder / whole,)
    index = folder / f"{whole}.index.json"
    return shards_of(index) if index.is_file() else ()


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index names, by their names. CheckpointError where it is broken or one is missing."""
    spread = read_json(index).get("weight_map")
    names = sorted(set(map(str, spread.values()))) if isinstance(spread, dict) else []
    # The index may come from anywhere, and names files of its own folder only.
    if not names or any(name != Path(name).name or not Path(name).suffix for name in names):
        raise CheckpointError(f"{index.name} has no weight_map with names of files beside it")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise CheckpointError(f"{index.name} names what is missing: {', '.join(missing)}")
    return tuple(index.parent / name for name in names)


def folder_checkpoint(
    files: tuple[Path, ...],
    weights: Mapping[str, Weight],
    concatenate: Callable[[list[Weight]], Weight],
    notes: list[str],
    resize: ResizeRule | None = None,
) -> Checkpoint[Weight]:
    """The checkpoint of a folder whose `files` hold these weights, under transformers' names and in float32.

    `concatenate` joins weights along their first axis; `notes` tell what was done to the weights,
    `resize` replaces the folder's own rule. Raises CheckpointError where config.json is of no DETR, or of another one
    than the weights, or cannot be followed.
    """
    folder = files[0].parent
    native = has_native_backbone(weights)
    state = without_counters(published_state(weights, concatenate))
    base, config_json, config_notes = read_config(folder / CONFIG_FILE, native, resize)
    config = infer_config(state, base)
    if is_table_transformer(config):
        config = with_threshold(config)
    check_against(config_json, config)
    categories, category_note = categories_of(config_json, config.num_classes, config.masks)
    kind = "Table Transformer" if is_table_transformer(config) else "model"
    first = f"a Hugging Face {kind} with {'transformers' if native else 'timm'} names for its backbone"
    said = f"config.json and the shapes say: {describe_network(config)}"
    all_notes = (first, said, *config_notes, *notes, category_note)
    return Checkpoint(state, config, categories, _name_of(folder), sha256_of(*files), {}, all_notes)


def without_counters(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """The weights without the step counters of live batch norm, which frozen batch norm has no use for."""
    return {key: weight for key, weight in weights.items() if not key.endswith(".num_batches_tracked")}


def _name_of(folder: Path) -> str:
    """What a folder is called: its name, or the repository's where it is a snapshot in the hub's cache."""
    path = folder.resolve()
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return path.name
