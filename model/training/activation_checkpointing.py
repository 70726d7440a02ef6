"""Activation checkpointing (Chen et al., 2016): keep less for the backward pass, and compute it again when it comes.

What is kept is what passes between the parts of a network: stages of the backbone, layers of the transformer, levels
of the mask head. One part at a time is computed again, so that a step takes little more memory than its largest part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from types import TracebackType
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.passes.split_module import split_module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from model.network.backbone import Backbone, Validity
from model.network.build import detector_of
from model.network.detr import DETR
from model.network.segmentation import DETRsegm


def checkpoint_activations(network: DETR | DETRsegm) -> None:
    """Make a network keep less for its backward pass. Call it once, before training; there is no way back.

    Answers, gradients, random numbers (dropout), the running statistics of live batch norm and the names of the state
    dict stay those of the network without it. So do a deep copy's, whose backbone keeps everything.
    """
    detr = detector_of(network)
    detr.body.body.forward = _StagedBody(detr.body)
    for layer in (*detr.transformer.encoder.layers, *detr.transformer.decoder.layers):
        _checkpoint(layer, "forward")
    if isinstance(network, DETRsegm):
        _checkpoint(network.bbox_attention, "forward")
        _checkpoint(network.mask_head, "start")
        _checkpoint(network.mask_head, "step")


def _checkpoint(module: nn.Module, method: str, **options: Any) -> None:
    # A partial of a bound method, because a deep copy of it is bound to the deep copy of the module.
    setattr(module, method, partial(checkpoint, getattr(module, method), use_reentrant=False, **options))


class _StagedBody:
    """Runs the traced network of a backbone stage by stage, each of them checkpointed.

    Tracing leaves no module for a stage, so the graph is cut where a level of the pyramid ends. The pieces hold the
    same layers, with their hooks; the traced network stays what it is for all who read its weights.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.body = backbone.body
        self.validity = backbone.validity

    # Cut when first used: by then the network is on its device. torchvision traces a graph for either mode.
    @cached_property
    def when_training(self) -> fx.GraphModule:
        return _staged(self.body, self.body.train_graph, self.validity)

    @cached_property
    def when_evaluating(self) -> fx.GraphModule:
        return _staged(self.body, self.body.eval_graph, self.validity)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        return (self.when_training if self.body.training else self.when_evaluating)(images)


def _staged(body: nn.Module, graph: fx.Graph, validity: Validity | None) -> fx.GraphModule:
    """The graph of a traced network as a chain of checkpointed stages."""
    traced = fx.GraphModule(body, graph)
    stages = _stages(graph)
    staged = split_module(traced, traced, lambda node: stages[node.name])
    for stage in staged.children():
        norms = [module for module in stage.modules() if isinstance(module, _BatchNorm)]
        _checkpoint(stage, "forward", context_fn=_contexts(norms, validity))
    return staged


def _stages(graph: fx.Graph) -> dict[str, int]:
    """Which stage, from 0, each node of a graph is in: a stage ends with a level of the pyramid."""
    levels = set(graph.output_node().all_input_nodes)
    stages, stage = {}, 0
    for node in graph.nodes:
        stages[node.name] = stage
        stage += node in levels
    return stages


_Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


def _contexts(norms: Sequence[_BatchNorm], validity: Validity | None) -> Callable[[], _Contexts]:
    """What makes, each time a stage runs, its context and the one in which it is computed again."""
    return lambda: (nullcontext(), _AsItWas(norms, validity))


class _AsItWas:
    """The context in which a stage is computed again, long after it first ran.

    Batch norm moves a copy of its running statistics, which it has moved already. The padding is that of the batch
    that the stage ran on: by now the backbone may have seen another.
    """

    def __init__(self, norms: Sequence[_BatchNorm], validity: Validity | None) -> None:
        self.norms = norms
        self.validity = {} if validity is None else vars(validity)
        self.validity_then = dict(self.validity)

    def __enter__(self) -> None:
        self.validity_now = dict(self.validity)
        self.validity.update(self.validity_then)
        self.statistics = [dict(norm.named_buffers(recurse=False)) for norm in self.norms]
        for norm, buffers in zip(self.norms, self.statistics, strict=True):
            _set_all(norm, {name: buffer.clone() for name, buffer in buffers.items()})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.validity.update(self.validity_now)
        for norm, buffers in zip(self.norms, self.statistics, strict=True):
            _set_all(norm, buffers)


def _set_all(module: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        setattr(module, name, buffer)
