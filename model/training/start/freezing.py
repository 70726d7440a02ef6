"""Parts of a network that training leaves exactly as they are: weights, batch statistics and dropout."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from model.network.detr import DETR
from model.network.segmentation import DETRsegm
from model.training.settings.config import FreezablePart

# Modules of each part, by the names they have below a detector or, for the mask head, below the whole network. Every
# parameter is in one of these parts; `stem` alone is a piece of another, the backbone.
FREEZABLE_PARTS: dict[FreezablePart, tuple[str, ...]] = {
    "stem": ("backbone.0.body.conv1", "backbone.0.body.bn1", "backbone.0.body.layer1"),
    "backbone": ("backbone.0",),
    "encoder": ("backbone.1", "input_proj", "transformer.encoder"),  # backbone.1 is the position encoding
    "decoder": ("transformer.decoder",),
    "queries": ("query_embed",),
    "heads": ("class_embed", "bbox_embed"),
    "mask_head": ("bbox_attention", "mask_head"),
}
DETECTOR: tuple[FreezablePart, ...] = ("backbone", "encoder", "decoder", "queries", "heads")
"""The parts of a detector, which are frozen while the mask head learns over it."""


class StaysInEval:
    """Replaces the method `train` of a frozen module, which is then in eval mode after every call.

    Otherwise `network.train()` would let its batch statistics move and its dropout drop. An object, and no closure,
    so that networks with frozen parts can be copied and sent to other processes.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        """The module, in eval mode."""
        return type(self.module).train(self.module, False)


def refuse_random(parts: Collection[FreezablePart], fresh: Collection[FreezablePart]) -> None:
    """Raise ValueError where a part that would be frozen begins at random, and so could never learn anything."""
    random = [part for part in FREEZABLE_PARTS if part in parts and part in fresh]
    if random:
        kept = [part for part in FREEZABLE_PARTS if part in parts and part not in random]
        raise ValueError(
            f"--freeze {' '.join(random)} would keep weights that begin at random, in whole or in part, as they are: "
            f"give {' '.join(['--freeze', *kept])} instead, or weights for them (--init, --backbone-weights)"
        )


def freeze(network: DETR | DETRsegm, parts: Sequence[FreezablePart]) -> None:
    """Keep some `FREEZABLE_PARTS` of a network as they are: no gradients, and eval mode even after `network.train()`.

    `stem` is what the published recipe keeps of a ResNet: everything up to its first stage (reference,
    models/backbone.py). Raises ValueError for a part that the network does not have, and where nothing would be left to
    learn; the network is then as it was.
    """
    modules = [module for part in parts for module in _modules(network, part)]
    frozen = {id(parameter) for module in modules for parameter in module.parameters()}
    if all(id(parameter) in frozen or not parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"with {', '.join(parts) or 'all parts'} frozen there is nothing left to train")
    for top in modules:
        top.requires_grad_(False)
        # All the way down, because torch.fx copies a traced backbone by its innermost modules.
        for module in top.modules():
            module.train = StaysInEval(module)  # type: ignore[method-assign]
        top.eval()


def _modules(network: DETR | DETRsegm, part: FreezablePart) -> list[nn.Module]:
    """The modules of a part. ValueError where the network does not have it."""
    inside = network.detr if isinstance(network, DETRsegm) and part != "mask_head" else network
    try:
        return [inside.get_submodule(name) for name in FREEZABLE_PARTS[part]]
    except AttributeError as error:
        raise ValueError(f"this network has no {part} to freeze: {error}") from error
