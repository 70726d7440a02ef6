"""The graph's inputs and outputs: names, types and shapes, as every exported model has them."""

from __future__ import annotations

from collections.abc import Mapping

from model.runtime.artifact.file import Artifact, ArtifactError
from model.runtime.artifact.metadata import Metadata

ATTENTION_OUTPUTS = (
    "cross_attention_queries",
    "cross_attention_keys",
    "self_attention_queries",
    "self_attention_keys",
)

# A number is a fixed size; None is one that may be dynamic.
_Shape = tuple[int | None, ...]
_Ports = dict[str, tuple[str, _Shape]]
# As an engine reports them; there, a name is a dynamic size as well.
_Found = Mapping[str, tuple[str, tuple[int | str | None, ...]]]


def expected_inputs(metadata: Metadata) -> _Ports:
    """Type and shape of each input.

    `images` are RGB, aligned top left and normalized inside the graph; `padding_mask` is True on padding;
    `mask_threshold`, of panoptic models only, is per image: a query gets a mask where its highest probability
    among the real classes exceeds it.
    """
    ports: _Ports = {
        "images": ("tensor(uint8)", (None, None, None, 3)),
        "padding_mask": ("tensor(bool)", (None, None, None)),
    }
    if metadata.task == "panoptic":
        ports["mask_threshold"] = ("tensor(float)", (None,))
    return ports


def expected_outputs(metadata: Metadata) -> _Ports:
    """Type and shape of each output; `mask_index` is (batch, query) of each of the `pred_masks`, ascending.

    Of a graph that gives its attention, there are the projected queries and keys of the last decoder layer's
    cross-attention and of the last encoder layer's self-attention: [batch, object queries or cells, channels], with
    the channels of the heads side by side and the cells of the canvas row by row.
    """
    queries, logits = metadata.num_queries, len(metadata.categories) + 1
    ports: _Ports = {
        "pred_logits": ("tensor(float)", (None, queries, logits)),
        "pred_boxes": ("tensor(float)", (None, queries, 4)),
    }
    if metadata.task == "panoptic":
        ports["pred_masks"] = ("tensor(float)", (None, None, None))
        ports["mask_index"] = ("tensor(int64)", (None, 2))
    if metadata.attention is not None:
        for name in ATTENTION_OUTPUTS:
            of_objects = name == "cross_attention_queries"
            ports[name] = ("tensor(float)", (None, queries if of_objects else None, metadata.attention.channels))
    return ports


def check_graph(inputs: _Found, outputs: _Found, artifact: Artifact) -> None:
    """Raise ArtifactError unless a graph's inputs and outputs are as the artifact's metadata promise."""
    for kind, found, expected in (
        ("input", inputs, expected_inputs(artifact.metadata)),
        ("output", outputs, expected_outputs(artifact.metadata)),
    ):
        if found.keys() != expected.keys():
            names = ", ".join(sorted(found)) or "none"
            raise ArtifactError(f"{artifact.path.name}: its graph's {kind}s are {names}, not {', '.join(expected)}")
        for name, (dtype, shape) in expected.items():
            if found[name][0] != dtype or not _fits(found[name][1], shape):
                raise ArtifactError(
                    f"{artifact.path.name}: its graph's {kind} {name} is {_words(*found[name])}, "
                    f"not {_words(dtype, shape)}"
                )


def _fits(found: tuple[int | str | None, ...], expected: _Shape) -> bool:
    """A fixed size must be equal; a dynamic one (a name) is taken on trust here and seen in the golden
    sample.
    """
    return len(found) == len(expected) and all(
        not isinstance(size, int) or size == wanted for size, wanted in zip(found, expected, strict=True)
    )


def _words(dtype: str, shape: tuple[int | str | None, ...]) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"{dtype} [{sizes}]"
