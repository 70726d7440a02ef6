"""From a checkpoint to the artifact without torch: the template of its architecture is filled with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.checkpoint.arrays import load_arrays
from model.checkpoint.artifact_metadata import artifact_metadata
from model.checkpoint.candidates import choose
from model.checkpoint.errors import CheckpointError
from model.checkpoint.file_kinds import WeightsFile, kind_of
from model.checkpoint.folder import SAFETENSORS, SHARD_INDEX, folder_checkpoint, safetensors_files, without_counters
from model.checkpoint.own import CHECKPOINT_METADATA_KEY, own_checkpoint
from model.checkpoint.strict import Checkpoint, describe_network, faults
from model.checkpoint.structure import disagreements
from model.network.config import ModelConfig
from model.runtime.artifact.golden import GoldenSample
from model.runtime.artifact.writing import write_proved
from model.runtime.engines.golden_recording import record_golden
from model.runtime.engines.onnxruntime_engine import open_on_cpu
from model.runtime.installing import install_command
from model.templates.graph_template import FOLDER, GraphTemplate, read_template


class NoTemplateError(CheckpointError):
    """A checkpoint of an architecture without a template; the message says which there are, and what exports it."""


def import_folder(
    folder: Path, out: Path, *, name: str | None = None, provenance: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """Write the artifact of a Hugging Face folder or of one of this project's `.safetensors` checkpoints.

    Equal to what `detr export` writes, but for the golden sample, which is ONNX Runtime's own answer, and the
    provenance, to which `provenance` is added. `name` is the model's name in its answers, by default the artifact's
    file name without its ending. The file appears under its name when it is whole; an older one stays until then.

    Returns notes for a person, a line each: what was recognized, and what was assumed. Raises CheckpointError, whose
    message is one line and begins with the folder's name, where it cannot be read or its weights do not fit;
    NoTemplateError, which is one, where there is no template of its architecture; ValueError where the metadata would
    not be served; OSError where the file cannot be written.
    """
    try:
        checkpoint = _read(folder)
        # The other padding is for comparison, which takes torch.
        checkpoint = replace(checkpoint, config=replace(checkpoint.config, padding="exact"))
        template = _template_of(checkpoint.config)
        _check(checkpoint, template)
        metadata = artifact_metadata(checkpoint, name or out.stem, template.mask_stride, template.exported_with)
    except CheckpointError as error:
        raise type(error)(f"{folder.resolve().name}: {error}") from error
    metadata = replace(metadata, provenance=metadata.provenance | {"template": template.name, **(provenance or {})})
    model = template.filled(checkpoint.state_dict, checkpoint.config)
    checkpoint.state_dict.clear()  # As large as the model, and not needed any more.
    write_proved(out, model, metadata, _golden(model, checkpoint), lambda _: None)
    return (*checkpoint.notes, f"graph: the template {template.name}")


def templates() -> list[GraphTemplate]:
    """Every template of the package, by name."""
    return [read_template(path) for path in sorted(FOLDER.glob("*.zip"))]


def _template_of(config: ModelConfig) -> GraphTemplate:
    there = templates()
    for template in there:
        if not disagreements(config, template.config):
            return template
    raise NoTemplateError(
        f"there is no graph template of {describe_network(config)}, only of {', '.join(t.name for t in there)}; "
        f"`detr export` exports any DETR, with PyTorch ({install_command('detr-serve[train]')})"
    )


def _check(checkpoint: Checkpoint[NDArray[np.float32]], template: GraphTemplate) -> None:
    """CheckpointError naming every key that the template lacks or misses, and every one of another shape or type."""
    state = checkpoint.state_dict
    report = faults(state, template.shapes(checkpoint.config))
    if not report and (other := [key for key, array in state.items() if array.dtype != np.float32]):
        report = f"no floating-point numbers: {', '.join(other)}"
    if report:
        raise CheckpointError(f"it does not fit {describe_network(checkpoint.config)}: {report}")


def _read(path: Path) -> Checkpoint[NDArray[np.float32]]:
    files: tuple[Path, ...] = safetensors_files(path) if path.is_dir() else (path,)
    if not files or any(kind_of(file) is not WeightsFile.SAFETENSORS for file in files):
        found = f"it is a folder without {SAFETENSORS} or {SHARD_INDEX}" if not files else "it is a file of torch.save"
        with_torch = install_command("detr-serve[train]")
        raise CheckpointError(f"{found}; what is pickled is read with PyTorch only, by `detr export` ({with_torch})")
    header, content, notes = load_arrays(files)
    if CHECKPOINT_METADATA_KEY in header:
        return own_checkpoint(files[0], header[CHECKPOINT_METADATA_KEY], without_counters(content))
    candidate, choice = choose(content)
    return folder_checkpoint(files, candidate.state, np.concatenate, [*choice, *notes])


def _golden(model: bytes, checkpoint: Checkpoint[NDArray[np.float32]]) -> GoldenSample:
    """What the graph answers. CheckpointError where that is no number, which weights out of range give."""
    engine = open_on_cpu(model, checkpoint.config.masks)
    golden = record_golden(engine.infer, engine.has_masks)
    for array in (golden.pred_logits, golden.pred_boxes, golden.pred_masks):
        if array is not None and not np.isfinite(array).all():
            raise CheckpointError(f"{checkpoint.source}: its answers are not finite numbers; its weights are damaged")
    return golden
