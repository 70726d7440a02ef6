"""Graph templates: what `detr export` makes of the network of each preset, without the weights.

The graph of a DETR depends on its architecture alone: its weights are named initializers, and the numbers of its
classes and queries stand in a few places. A template is a zip file with two members:

- `graph.onnx`: the exported ModelProto without the initializers that depend on a checkpoint; small constants stay. In
  shapes, the sizes "num_queries", "num_classes" and "num_logits" (one more, for no-object) have these names.
- `template.json`: `structure`, the fields of `ModelConfig` that the graph depends on; `mask_stride`, as in an
  artifact's metadata; `exported_with`, the versions that wrote it; `state`, key and shape of every weight that a
  checkpoint of this architecture has; `initializers`, by name, the recipe of each that was left out (`recipes.py`).

`model/exporting/graph_templates.py` writes them (`make templates`).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model.network.config import ModelConfig
from model.runtime.artifact.model_proto import with_initializers, with_sizes
from model.templates.recipes import State, WeightRecipe, followed

FOLDER = Path(__file__).parent / "graphs"

GRAPH_MEMBER, JSON_MEMBER = "graph.onnx", "template.json"
NUM_QUERIES, NUM_CLASSES, NUM_LOGITS = "num_queries", "num_classes", "num_logits"


@dataclass(frozen=True)
class GraphTemplate:
    """The graph of one architecture, without weights."""

    name: str
    structure: Mapping[str, Any]  # fields of ModelConfig
    mask_stride: int | None
    exported_with: Mapping[str, str]  # versions, by package
    state: Mapping[str, tuple[int | str, ...]]  # shape of each of a checkpoint's weights, in which sizes have names
    initializers: Mapping[str, WeightRecipe]
    graph: bytes  # a ModelProto

    @cached_property
    def config(self) -> ModelConfig:
        """The architecture, with as many queries and classes as any."""
        return ModelConfig(**self.structure)

    def shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """The shape of each weight of a checkpoint with as many queries and classes as `config` has."""
        sizes = sizes_of(config)
        return {
            key: tuple(sizes[side] if isinstance(side, str) else side for side in shape)
            for key, shape in self.state.items()
        }

    def filled(self, state: State, config: ModelConfig) -> bytes:
        """The ModelProto, serialized, of the network with these weights, float32, whose shapes must be `shapes`."""
        sizes = sizes_of(config)
        arrays = (
            (name, followed(recipe, state, sizes, config.normalization)) for name, recipe in self.initializers.items()
        )
        return with_initializers(with_sizes(self.graph, sizes), arrays)


def sizes_of(config: ModelConfig) -> dict[str, int]:
    """What the names of sizes stand for."""
    return {
        NUM_QUERIES: config.num_queries,
        NUM_CLASSES: config.num_classes,
        NUM_LOGITS: config.num_classes + 1,
    }


def read_template(path: Path) -> GraphTemplate:
    """A template from its file."""
    with zipfile.ZipFile(path) as archive:
        content = json.loads(archive.read(JSON_MEMBER))
        return GraphTemplate(
            name=path.stem,
            structure=content["structure"],
            mask_stride=content["mask_stride"],
            exported_with=content["exported_with"],
            state={key: tuple(shape) for key, shape in content["state"].items()},
            initializers=content["initializers"],
            graph=archive.read(GRAPH_MEMBER),
        )


def write_template(template: GraphTemplate, path: Path) -> None:
    """Write a template's file; the same template gives the same bytes."""
    content = {
        "structure": template.structure,
        "mask_stride": template.mask_stride,
        "exported_with": template.exported_with,
        "state": template.state,
        "initializers": template.initializers,
    }
    members = {GRAPH_MEMBER: template.graph, JSON_MEMBER: _one_entry_a_line(content).encode()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # the first that a zip file can say
            archive.writestr(info, data, zipfile.ZIP_DEFLATED, compresslevel=9)


def _one_entry_a_line(content: Mapping[str, Any]) -> str:
    """JSON that can be read, and compared line by line."""

    def lines(value: object) -> str:
        if not isinstance(value, Mapping):
            return json.dumps(value)
        return "{\n" + ",\n".join(f"{json.dumps(key)}: {json.dumps(inner)}" for key, inner in value.items()) + "\n}"

    return "{\n" + ",\n".join(f"{json.dumps(key)}: {lines(value)}" for key, value in content.items()) + "\n}\n"
