"""The published key names, turned into those of Hugging Face transformers: the other way round of `hugging_face`.

The names are those of the files on the hub and of `save_pretrained`, which every version of transformers reads; only
those of learned positions are transformers 5's alone.
"""

import re
from collections.abc import Callable, Mapping

from model.checkpoint.hugging_face import Weight

_Replacement = str | Callable[[re.Match[str]], str]

# Applied to every key in this order. `(detr\.)?` is the prefix that both sides give the detector beside a mask head.
_RULES: tuple[tuple[str, _Replacement], ...] = (
    (r"^(detr\.)?class_embed\.", r"\1class_labels_classifier."),
    (r"^(detr\.)?bbox_embed\.", r"\1bbox_predictor."),
    (r"^(detr\.)?query_embed\.", r"\1model.query_position_embeddings."),
    (r"^(detr\.)?input_proj\.", r"\1model.input_projection."),
    (r"^(detr\.)?backbone\.1\.row_embed\.", r"\1model.position_embedding.row_embeddings."),
    (r"^(detr\.)?backbone\.1\.col_embed\.", r"\1model.position_embedding.column_embeddings."),
    (r"^(detr\.)?backbone\.0\.body\.", r"\1model.backbone.conv_encoder.model."),
    (r"^(detr\.)?transformer\.(encoder|decoder)\.", r"\1model.\2."),
    (r"(model\.(?:encoder|decoder))\.norm\.", r"\1.layernorm."),
    (r"(layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
    (r"(layers\.\d+)\.multihead_attn\.", r"\1.encoder_attn."),
    (r"((?:en|de)coder\.layers\.\d+)\.linear([12])\.", r"\1.fc\2."),
)
# Of the backbone, where it is not timm's, whose names are the published ones.
_NATIVE: tuple[tuple[str, _Replacement], ...] = (
    (r"(conv_encoder\.model)\.conv1\.", r"\1.embedder.embedder.convolution."),
    (r"(conv_encoder\.model)\.bn1\.", r"\1.embedder.embedder.normalization."),
    (r"(conv_encoder\.model)\.layer(\d)\.", lambda m: f"{m[1]}.encoder.stages.{int(m[2]) - 1}.layers."),
    (r"(stages\.\d\.layers\.\d+)\.conv(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.convolution."),
    (r"(stages\.\d\.layers\.\d+)\.bn(\d)\.", lambda m: f"{m[1]}.layer.{int(m[2]) - 1}.normalization."),
    (r"(stages\.\d\.layers\.\d+)\.downsample\.0\.", r"\1.shortcut.convolution."),
    (r"(stages\.\d\.layers\.\d+)\.downsample\.1\.", r"\1.shortcut.normalization."),
)


def transformers_key(key: str, native_backbone: bool) -> str:
    """The name that transformers has for a published key, its backbone its own or timm's."""
    for pattern, replacement in (*_RULES, *(_NATIVE if native_backbone else ())):
        key = re.sub(pattern, replacement, key)
    return key


def transformers_state(state: Mapping[str, Weight], native_backbone: bool) -> dict[str, Weight]:
    """A published state dict under transformers' names, the input projection of each attention in its three parts."""
    renamed: dict[str, Weight] = {}
    for key, weight in state.items():
        new = transformers_key(key, native_backbone)
        if ".in_proj_" not in new:
            renamed[new] = weight
            continue
        width = weight.shape[0] // 3
        for place, letter in enumerate("qkv"):
            part = weight[place * width : (place + 1) * width]  # type: ignore[index]  # arrays and tensors alike
            renamed[new.replace(".in_proj_", f".{letter}_proj.")] = part
    return renamed
