"""Folding batch norm into the convolution before it: the same function with half the layers, for inference."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

BATCH_NORMS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def fold_batch_norm(body: nn.Module) -> None:
    """Fold the frozen or live batch norms of a traced backbone (`Backbone.body`, in eval mode) in place.

    A batch norm is folded where the torch.fx graph, or the order of a sequence that the graph calls as one, shows that
    it is the only reader of a convolution. The statistics are those it has learnt; the module is of no use for
    training afterwards.
    """
    modules = dict(body.named_modules())
    nodes = [node for node in body.graph.nodes if node.op == "call_module"]  # type: ignore[union-attr]
    calls = Counter(str(node.target) for node in nodes)
    for node in nodes:
        module = modules[str(node.target)]
        if isinstance(module, nn.Sequential):
            _fold_sequence(module)
        elif isinstance(module, BATCH_NORMS):
            before = node.args[0]
            conv = modules.get(str(before.target)) if before.op == "call_module" else None
            # A convolution that is called twice has readers in two places.
            if isinstance(conv, nn.Conv2d) and len(before.users) == calls[str(before.target)] == 1:
                _fold(conv, module)
                parent, _, name = str(node.target).rpartition(".")
                setattr(modules[parent], name, nn.Identity())


def _fold_sequence(sequence: nn.Sequential) -> None:
    """The layers of torchvision's Conv2dNormActivation, for one, do not show in the graph."""
    for (_, conv), (name, norm) in pairwise(list(sequence.named_children())):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, BATCH_NORMS):
            _fold(conv, norm)
            setattr(sequence, name, nn.Identity())


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    conv.weight = nn.Parameter(weight.detach(), requires_grad=False)
    conv.bias = nn.Parameter(torch.as_tensor(bias).detach(), requires_grad=False)
