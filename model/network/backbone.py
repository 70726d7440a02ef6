"""A torchvision backbone that gives a pyramid of features and, with exact padding, never sees past an image's edge."""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FrozenBatchNorm2d

from model.network.nested_tensor import NestedTensor

PROBE_SIZE = 224


class Validity:
    """Which cells of a padded batch belong to its images, at any stride. One object is shared by all that ask it."""

    def __init__(self) -> None:
        self._padding_mask = torch.zeros((1, 1, 1), dtype=torch.bool)
        self._at: dict[tuple[int, torch.dtype], Tensor] = {}

    def set(self, padding_mask: Tensor) -> None:
        """Take the padding mask, bool [B, H, W], of the batch that is to come."""
        self._padding_mask = padding_mask
        self._at = {}

    def at(self, stride: int, dtype: torch.dtype) -> Tensor:
        """[B, 1, H / stride, W / stride], 1 on valid cells and 0 on padding."""
        key = (stride, dtype)
        if key not in self._at:
            self._at[key] = (~self._padding_mask[:, None, ::stride, ::stride]).to(dtype)
        return self._at[key]


class MaskInput:
    """Forward pre-hook of a layer that mixes space: zeroes the padding of its input, as its own zero padding would.

    After batch norm the cells outside an image hold the shift, not zero, and a 3x3 convolution would see them.
    """

    def __init__(self, validity: Validity, stride: int) -> None:
        self.validity = validity
        self.stride = stride

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The arguments of the layer, the first of them masked."""
        x = args[0]
        return (x * self.validity.at(self.stride, x.dtype), *args[1:])


class RescaleMean:
    """Forward hook of a global average pool: divides by the valid cells instead of by the whole canvas."""

    def __init__(self, validity: Validity, stride: int) -> None:
        self.validity = validity
        self.stride = stride

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The mean over the valid cells."""
        return output / self.validity.at(self.stride, output.dtype).mean((2, 3), keepdim=True)


class Backbone(nn.Module):
    """The first `stages` levels of a torchvision network's feature pyramid.

    The attribute name `body` and everything below it are those of the published checkpoints. Any torchvision network
    that torch.fx can trace and that has a level at each stride works; `dilation` (DC5) is for deep ResNets only.
    """

    def __init__(self, name: str, stages: int, dilation: bool, frozen_batch_norm: bool, exact: bool) -> None:
        super().__init__()
        network = _build(name, dilation)
        if frozen_batch_norm:
            _freeze_batch_norm(network)
        nodes = _pyramid_nodes(name, network)[:stages]
        self.body = create_feature_extractor(network, {node: str(level) for level, node in enumerate(nodes)})
        strides, self.level_strides, self.num_channels = _probe(self.body)
        self.validity = Validity() if exact else None
        if self.validity is not None:
            _mask_spatial_layers(self.body, strides, self.validity)

    def forward(self, inputs: NestedTensor) -> list[NestedTensor]:
        """Images [B, 3, H, W] to one NestedTensor a level, finest first. Exact padding needs a canvas of 32s."""
        images, padding_mask = inputs
        if self.validity is not None:
            self.validity.set(padding_mask)
        levels = list(self.body(images).values())
        if self.validity is None:
            return [NestedTensor(x, _nearest(padding_mask, x)) for x in levels]
        # A cell is valid where its first pixel is.
        strided = [padding_mask[:, ::stride, ::stride] for stride in self.level_strides]
        return [NestedTensor(x, mask) for x, mask in zip(levels, strided, strict=True)]


def _nearest(padding_mask: Tensor, features: Tensor) -> Tensor:
    """The reference's rule (models/backbone.py), which works for canvases that are no multiple of the stride."""
    mask = nn.functional.interpolate(padding_mask[:, None].float(), size=features.shape[-2:], mode="nearest")
    return mask[:, 0].bool()


def _build(name: str, dilation: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if dilation:
        if name not in ("resnet50", "resnet101", "resnet152"):
            raise ValueError(f"dilation (DC5) needs a bottleneck ResNet such as resnet50, not {name}")
        options["replace_stride_with_dilation"] = [False, False, True]
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(f"no torchvision network is called {name!r}; torchvision.models.list_models() names them")
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return network


def _freeze_batch_norm(module: nn.Module) -> None:
    """Replace every batch norm by one with fixed statistics and gains, as the published models have."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
        else:
            _freeze_batch_norm(child)


def _pyramid_nodes(name: str, network: nn.Module) -> list[str]:
    """The graph nodes whose outputs are the levels of the pyramid, finest first.

    A ResNet's are its four layers (with DC5 two share a stride); of any other network the last one at each stride.
    """
    if isinstance(network, torchvision.models.ResNet):
        return ["layer1", "layer2", "layer3", "layer4"]
    nodes = get_graph_node_names(network)[1]
    network.eval()
    with torch.no_grad():
        outputs = create_feature_extractor(network, nodes)(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE))
    network.train()
    side = {
        node: x.shape[-1] for node, x in outputs.items() if isinstance(x, Tensor) and x.ndim == 4 and x.shape[1] > 3
    }
    levels = [[n for n in nodes if side.get(n) == PROBE_SIZE // stride] for stride in (4, 8, 16, 32)]
    if not all(levels):
        raise ValueError(f"{name} has no feature pyramid: a level is missing at stride 4, 8, 16 or 32")
    return [level[-1] for level in levels]


def _mixes_space(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.kernel_size != (1, 1)
    return isinstance(module, nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d)


def _probe(body: nn.Module) -> tuple[dict[str, int], list[int], list[int]]:
    """Run a blank image: the input stride of each module that mixes space; stride and channels of each level."""
    strides: dict[str, int] = {}
    handles = []
    for name, module in body.named_modules():
        if _mixes_space(module):

            def record(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                strides[name] = PROBE_SIZE // args[0].shape[-1]

            handles.append(module.register_forward_pre_hook(record))
    body.eval()
    with torch.no_grad():
        levels = body(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE)).values()
    body.train()
    for handle in handles:
        handle.remove()
    return strides, [PROBE_SIZE // x.shape[-1] for x in levels], [x.shape[1] for x in levels]


def _mask_spatial_layers(body: nn.Module, strides: dict[str, int], validity: Validity) -> None:
    for name, module in body.named_modules():
        stride = strides.get(name, 1)
        if stride == 1:  # The image itself arrives with zeros on its padding.
            continue
        module.register_forward_pre_hook(MaskInput(validity, stride))
        if isinstance(module, nn.AdaptiveAvgPool2d):
            module.register_forward_hook(RescaleMean(validity, stride))
