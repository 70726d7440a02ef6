"""Writes the graph templates: the network of each preset is exported with weights that are found again in its graph.

    python -m model.exporting.graph_templates [NAME ...]

Every weight is random, so no two have the same values, and every initializer of the graph is one that a recipe makes
(`model/templates/recipes.py`) or a constant. The numbers of queries and classes are large primes, and so are found
again wherever the exporter has put them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from model.checkpoint.structure import STRUCTURE
from model.exporting.served_network import ServedNetwork
from model.exporting.to_onnx import to_onnx
from model.network.build import build_model, detector_of
from model.network.config import PRESETS, ModelConfig
from model.runtime.preprocess import Normalization
from model.templates.graph_template import (
    FOLDER,
    NUM_CLASSES,
    NUM_LOGITS,
    NUM_QUERIES,
    GraphTemplate,
    sizes_of,
    write_template,
)
from model.templates.recipes import State, WeightRecipe, followed

# So large that no size of a network is one of them or a multiple of one, and the first and last are primes.
_QUERIES, _LOGITS = 1009, 1013
_NAMES = {_QUERIES: NUM_QUERIES, _LOGITS - 1: NUM_CLASSES, _LOGITS: NUM_LOGITS}
_NORMALIZATION = Normalization((0.1031, 0.2053, 0.3079), (0.4099, 0.5113, 0.6131))

# Other roundings than numpy's, of weights about 1 in size; another recipe would be off by as much as the weight is.
_ROUNDING = 1e-5

# A checkpoint's weights at most, and the exporter's table of frequencies; what else is constant is a number or a shape.
_CONSTANT_SIZE = 64


class TemplateError(Exception):
    """A graph that no template can be made of; the message names what in it is not understood."""


def graph_template(name: str, config: ModelConfig) -> GraphTemplate:
    """Export an architecture and leave out its weights. Raises TemplateError where any of it is unexplained."""
    config = replace(config, num_queries=_QUERIES, num_classes=_LOGITS - 1, padding="exact")
    network = _with_random_weights(build_model(config))
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    state = {key: array for key, array in state.items() if not key.endswith(".num_batches_tracked")}
    proto = to_onnx(ServedNetwork(network, _NORMALIZATION).folded())
    initializers = _take_initializers(proto.graph, state, sizes_of(config))
    _name_sizes(proto.graph)
    return GraphTemplate(
        name=name,
        structure={field: getattr(config, field) for field in STRUCTURE},
        mask_stride=detector_of(network).body.level_strides[0] if config.masks else None,
        exported_with={"torch": torch.__version__, "onnx": onnx.__version__},
        state={key: tuple(_named(side) for side in array.shape) for key, array in state.items()},
        initializers=initializers,
        graph=proto.SerializeToString(deterministic=True),
    )


def _with_random_weights(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            tensor.uniform_(0.5, 2, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(generator=generator)
    return network.eval()


def _take_initializers(graph: onnx.GraphProto, state: State, sizes: Mapping[str, int]) -> dict[str, WeightRecipe]:
    """Remove the initializers that depend on a checkpoint, and return the recipe of each; constants stay."""
    known = {_digest(array): recipe for recipe, array in _candidates(state, sizes)}
    recipes: dict[str, WeightRecipe] = {}
    constants: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if (recipe := _recipe(tensor.name, array, known, state, sizes)) is not None:
            recipes[tensor.name] = recipe
        elif array.size <= _CONSTANT_SIZE and not _mentions_sizes(array):
            constants.append(tensor)
        else:
            raise TemplateError(f"no recipe makes {tensor.name}, {array.dtype} {list(array.shape)}")
    del graph.initializer[:]
    graph.initializer.extend(constants)
    _check_that_all_are_used(state, recipes)
    return recipes


def _candidates(state: State, sizes: Mapping[str, int]) -> Iterator[tuple[WeightRecipe, NDArray[np.float32]]]:
    """What may be found in the graph bit by bit."""
    rows: list[WeightRecipe] = [["mean", [3]], ["deviation", [3]]]
    for key, array in state.items():
        rows.append(["weight", key])
        if array.ndim == 2:
            rows.append(["transposed", key])
    for row in rows:
        yield row, followed(row, state, sizes, _NORMALIZATION)  # type: ignore[misc]  # none of these are sizes


def _recipe(
    name: str, array: NDArray[np.generic], known: Mapping[bytes, WeightRecipe], state: State, sizes: Mapping[str, int]
) -> WeightRecipe | None:
    if array.dtype == np.int64 and _mentions_sizes(array):
        return ["sizes", [_named(int(number)) for number in array]] if array.ndim == 1 else None
    if (pair := _folded_pair(name, state)) is not None:
        kind = "folded_weight" if array.ndim == 4 else "folded_bias"
        made = followed([kind, *pair], state, sizes, _NORMALIZATION)
        return [kind, *pair] if made.shape == array.shape and np.allclose(made, array, _ROUNDING, _ROUNDING) else None
    recipe = known.get(_digest(array)) if array.dtype == np.float32 else None
    if recipe is None or followed(recipe, state, sizes, _NORMALIZATION).shape == array.shape:
        return recipe
    shape = list(array.shape)
    if recipe[0] == "weight":
        return ["reshaped", recipe[1], shape]
    return None if recipe[0] == "transposed" else [recipe[0], shape]


def _folded_pair(name: str, state: State) -> tuple[str, str] | None:
    """What the keys of a convolution, by the name of its weight or bias in the graph, and of its norm begin with."""
    conv = name.removeprefix("network.").rpartition(".")[0]
    norm = re.sub(r"\bconv(\d)$", r"bn\1", re.sub(r"\bdownsample\.0$", "downsample.1", conv))
    return (conv, norm) if norm != conv and f"{norm}.running_var" in state else None


def _check_that_all_are_used(state: State, recipes: Mapping[str, WeightRecipe]) -> None:
    """A weight that the graph does without would mean that a recipe was mistaken for another."""
    named = {part for recipe in recipes.values() for part in recipe[1:] if isinstance(part, str)}
    idle = [key for key in state if key not in named and key.rpartition(".")[0] not in named]
    if idle:
        raise TemplateError(f"the graph uses no {', '.join(idle)}")


def _name_sizes(graph: onnx.GraphProto) -> None:
    """In every shape, give the numbers of queries and logits their names. TemplateError where they are elsewhere."""
    for value in (*graph.output, *graph.value_info):
        for side in value.type.tensor_type.shape.dim:
            if any(_is_of_a_size(int(number)) for number in re.findall(r"\d+", side.dim_param)):
                raise TemplateError(f"the shape of {value.name} has the size {side.dim_param}")
            name = _named(side.dim_value)
            if isinstance(name, str):
                side.dim_param = name
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type not in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS):
                numbers = [attribute.f, *attribute.floats]
                if attribute.HasField("g") or attribute.graphs or attribute.HasField("t") or attribute.tensors:
                    raise TemplateError(f"{node.name} has an attribute {attribute.name} that is not looked into")
            else:
                numbers = [attribute.i, *attribute.ints]
            if any(map(_is_of_a_size, numbers)):
                raise TemplateError(f"{node.name} has a number of queries or classes as its {attribute.name}")


def _named(number: int) -> int | str:
    """A number, or the name of the size that it is. TemplateError for a multiple of one."""
    if number not in _NAMES and _is_of_a_size(number):
        raise TemplateError(f"{number} is computed from the number of queries or of classes")
    return _NAMES.get(number, number)


def _is_of_a_size(number: float) -> bool:
    """Whether a number is, or was computed from, that of queries or classes."""
    beside = {size + step for size in _NAMES for step in (-1, 0, 1)}
    return abs(number) in beside or (number != 0 and any(number % size == 0 for size in _NAMES))


def _mentions_sizes(array: NDArray[np.generic]) -> bool:
    return any(map(_is_of_a_size, array.ravel().tolist()))


def _digest(array: NDArray[np.generic]) -> bytes:
    """The same for arrays of the same values in another shape."""
    return np.ascontiguousarray(array).tobytes()


def write_templates() -> None:
    """Write the templates that are named, or all."""
    parser = argparse.ArgumentParser(description="Write the graph templates.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"Of these: {', '.join(PRESETS)}. All by default.")
    for name in parser.parse_args().names or PRESETS:
        path = FOLDER / f"{name}.zip"
        write_template(graph_template(name, PRESETS[name]), path)
        print(f"wrote {path} ({path.stat().st_size / 1e3:.0f} kB)")


if __name__ == "__main__":
    write_templates()
