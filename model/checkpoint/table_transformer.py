"""What is known of a Table Transformer (microsoft/table-transformer) that its authors' files do not say."""

from dataclasses import replace

from model.network.config import PRESETS, ModelConfig
from model.runtime.resize_rule import Bounds

PRESET = "table-transformer"
_STRUCTURE_QUERIES = 125
_STRUCTURE_BOUNDS = Bounds(1000, 1000)


def is_table_transformer(config: ModelConfig) -> bool:
    """Whether the network is one: of all DETRs that people have, those of pre-norm layers, a ResNet-18 and sines."""
    preset = PRESETS[PRESET]
    return all(
        getattr(config, name) == getattr(preset, name) for name in ("pre_norm", "backbone", "position_embedding")
    )


def with_threshold(config: ModelConfig) -> ModelConfig:
    """The configuration of a Table Transformer with the threshold of its authors' inference."""
    return replace(config, detect_threshold=PRESETS[PRESET].detect_threshold)


def resized_as_published(config: ModelConfig) -> tuple[ModelConfig, str]:
    """The configuration of a Table Transformer with the resize rule of its authors' inference, and a note on it."""
    is_structure = config.num_queries == _STRUCTURE_QUERIES
    rule = _STRUCTURE_BOUNDS if is_structure else PRESETS[PRESET].resize
    what = f"the structure of tables, by its {_STRUCTURE_QUERIES} queries" if is_structure else "tables"
    note = f"resize rule: {rule}, as its authors run a Table Transformer that finds {what}"
    return replace(config, resize=rule), note
