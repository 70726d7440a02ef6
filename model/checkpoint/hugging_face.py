"""The key names of Hugging Face transformers, turned into the published ones.

Three namings are in use and all are read: that of the files on the hub and of `save_pretrained`
(`model.backbone.conv_encoder.model.…`, `out_proj`, `fc1`, `lay1`), that of the modules of transformers 5
(`model.backbone.model.…`, `o_proj`, `mlp.fc1`, `mask_head.conv1.conv`), and either with timm's names for the
backbone (`conv1`, `layer1.0.conv1`) or with transformers' own (`embedder.embedder.convolution`,
`encoder.stages.0.layers.0.…`).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from model.checkpoint.errors import CheckpointError
from model.checkpoint.structure import Shaped

Weight = TypeVar("Weight", bound=Shaped)  # a torch tensor, or a numpy array

_Replacement = str | Callable[[re.Match[str]], str]

# Applied to every key in this order. `(detr\.)?` is the prefix that both sides give the detector inside a
# segmentation model.
_RULES: tuple[tuple[str, _Replacement], ...] = (
    (r"^(detr\.)?class_labels_classifier\.", r"\1class_embed."),
    (r"^(detr\.)?bbox_predictor\.", r"\1bbox_embed."),
    (r"^(detr\.)?model\.", r"\1"),
    (r"^(detr\.)?query_position_embeddings\.", r"\1query_embed."),
    (r"^(detr\.)?input_projection\.", r"\1input_proj."),
    (r"^(detr\.)?(?:backbone\.)?position_embedding\.row_embeddings\.", r"\1backbone.1.row_embed."),
    (r"^(detr\.)?(?:backbone\.)?position_embedding\.column_embeddings\.", r"\1backbone.1.col_embed."),
    # Backbone: the module it sits in, then transformers' own names inside it. timm's are the published ones.
    (r"^(detr\.)?backbone\.(?:conv_encoder\.)?model\.", r"\1backbone.0.body."),
    (r"body\.embedder\.embedder\.convolution\.", "body.conv1."),
    (r"body\.embedder\.embedder\.normalization\.", "body.bn1."),
    (r"body\.encoder\.stages\.(\d+)\.layers\.", lambda m: f"body.layer{int(m[1]) + 1}."),
    (r"(body\.layer.*)\.layer\.(\d+)\.convolution\.", lambda m: f"{m[1]}.conv{int(m[2]) + 1}."),
    (r"(body\.layer.*)\.layer\.(\d+)\.normalization\.", lambda m: f"{m[1]}.bn{int(m[2]) + 1}."),
    (r"(body\.layer.*)\.shortcut\.convolution\.", r"\1.downsample.0."),
    (r"(body\.layer.*)\.shortcut\.normalization\.", r"\1.downsample.1."),
    # Transformer.
    (r"^(detr\.)?(encoder|decoder)\.", r"\1transformer.\2."),
    (r"(encoder|decoder)\.layernorm\.", r"\1.norm."),
    (r"(layers\.\d+)\.self_attn_layer_norm\.", r"\1.norm1."),
    (r"(decoder\.layers\.\d+)\.encoder_attn_layer_norm\.", r"\1.norm2."),
    (r"(encoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm2."),
    (r"(decoder\.layers\.\d+)\.final_layer_norm\.", r"\1.norm3."),
    (r"(layers\.\d+)\.encoder_attn\.", r"\1.multihead_attn."),
    (r"(attn)\.o_proj\.", r"\1.out_proj."),
    (r"(layers\.\d+)\.(?:mlp\.)?fc([12])\.", r"\1.linear\2."),
    # Mask head.
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    (r"^mask_head\.conv([12])\.conv\.", r"mask_head.lay\1."),
    (r"^mask_head\.conv([12])\.norm\.", r"mask_head.gn\1."),
    (r"^mask_head\.fpn_stages\.(\d)\.fpn_adapter\.", lambda m: f"mask_head.adapter{int(m[1]) + 1}."),
    (r"^mask_head\.fpn_stages\.(\d)\.refine\.conv\.", lambda m: f"mask_head.lay{int(m[1]) + 3}."),
    (r"^mask_head\.fpn_stages\.(\d)\.refine\.norm\.", lambda m: f"mask_head.gn{int(m[1]) + 3}."),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
_COMPILED = tuple((re.compile(pattern), replacement) for pattern, replacement in _RULES)


def published_key(key: str) -> str:
    """The published name of a transformers key; attention projections keep their `q_proj`, `k_proj`,
    `v_proj`.
    """
    for pattern, replacement in _COMPILED:
        key = pattern.sub(replacement, key)
    return key


def published_state(state: Mapping[str, Weight], concatenate: Callable[[list[Weight]], Weight]) -> dict[str, Weight]:
    """A transformers state dict under the published names, the three input projections of an attention in one.

    `concatenate` joins weights along their first axis, as `torch.cat` and `numpy.concatenate` do. A key of no known
    name keeps it, so that the strict check can name it. CheckpointError where two keys mean one.
    """
    renamed: dict[str, Weight] = {}
    for key, tensor in state.items():
        new = published_key(key)
        if new in renamed:
            raise CheckpointError(f"{key} and another key both mean {new}")
        renamed[new] = tensor
    for key in [key for key in renamed if ".q_proj." in key]:
        parts = [key.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv"]
        if all(part in renamed for part in parts):
            renamed[key.replace(".q_proj.", ".in_proj_")] = concatenate([renamed.pop(part) for part in parts])
    return renamed


def has_native_backbone(keys: Iterable[str]) -> bool:
    """Whether the backbone has transformers' own names rather than timm's."""
    return any(".embedder.embedder." in key for key in keys)


def has_transformers_names(keys: Iterable[str]) -> bool:
    """Whether the keys are those of a model of transformers rather than the published ones."""
    return any(re.match(r"(detr\.)?model\.(encoder|decoder)\.layers\.", key) for key in keys)
