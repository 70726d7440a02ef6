"""Small DETR models as transformers builds and saves them, with random weights."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, ResNetConfig

WIDTH_OF_MODEL = 128
# A ResNet-18: the smallest network whose structure can be recognized.
BASIC_BLOCKS: dict[str, Any] = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
# Gain of the weights whose name the pattern finds: attention peaked, the encoder's own branches small.
GAINS = {
    r"decoder.*encoder_attn\.[qk]_proj": 4.0,
    r"decoder.*encoder_attn\.o_proj": 3.0,
    r"bbox_attention": 5.0,
    r"\bencoder.*\.(o_proj|fc2)": 0.3,
    r"class_labels_classifier|bbox_predictor\.layers\.2": 3.0,
    r"conv": 1.4,
}


def randomize(module: torch.nn.Module, seed: int) -> None:
    """Give every tensor values that show when they land in the wrong place.

    The gains keep activations in range and attention peaked, so that queries answer differently, as a trained
    network's do; a fresh one gives them all the same answer.
    """
    generator = torch.Generator().manual_seed(seed)
    for key, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if key.endswith("running_var"):
            tensor.copy_(1 + 0.3 * noise.abs())
        elif tensor.ndim == 1:
            gain = 1.0 if key.endswith("weight") else 0.0
            tensor.copy_(gain * (0.3 if ".layers." in key and "normalization" in key else 1.0) + 0.1 * noise)
        elif "query_position" in key:
            tensor.copy_(noise)
        else:
            gain = next((gain for pattern, gain in GAINS.items() if re.search(pattern, key)), 1.0)
            tensor.copy_(noise * gain / tensor[0].numel() ** 0.5)
        if key == "mask_head.conv1.conv.weight":
            tensor[:, WIDTH_OF_MODEL:] *= 20  # attention maps are faint beside features


def transformers_model(kind: type[Any], backbone: dict[str, Any], **settings: Any) -> Any:
    """A model of this class, of two encoder and two decoder layers, in eval mode."""
    levels: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    small: dict[str, Any] = {
        "d_model": WIDTH_OF_MODEL,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_ffn_dim": 96,
        "decoder_ffn_dim": 96,
    }
    offline: dict[str, Any] = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    config = DetrConfig(backbone_config=ResNetConfig(**backbone, **levels), **small, **offline, **settings)
    model = kind(config).eval()
    with torch.no_grad():
        randomize(model, seed=3)
    return model


def basic_detector() -> Any:
    """A DetrForObjectDetection with five named classes."""
    names = {0: "cat", 1: "dog", 2: "cow", 3: "owl", 4: "fox"}
    heads = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
    return transformers_model(DetrForObjectDetection, BASIC_BLOCKS, num_queries=9, id2label=names, **heads)


def basic_segmenter() -> Any:
    """A DetrForSegmentation with the published class count."""
    return transformers_model(DetrForSegmentation, BASIC_BLOCKS, num_queries=6, num_labels=250)
