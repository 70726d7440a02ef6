"""The check that weights fit the network that a configuration builds, key for key."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from model.checkpoint.errors import CheckpointError
from model.checkpoint.strict import describe_network, faults
from model.network.build import build_model
from model.network.config import ModelConfig


def check_state(state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """CheckpointError naming every missing, unexpected and misshapen key, unless `state` fits `config`."""
    try:
        with torch.device("meta"):
            expected = shapes_of(build_model(config))
    except ValueError as error:
        raise CheckpointError(f"its network cannot be built: {error}") from error
    if report := faults(state, expected):
        raise CheckpointError(f"it does not fit {describe_network(config)}: {report}")


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a network."""
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
