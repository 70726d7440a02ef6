"""Weights to start a backbone from: a torchvision state dict, of a file or published by torchvision."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torchvision
from torch import Tensor, nn

from model.checkpoint.download import download
from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import as_weights, load_file
from model.checkpoint.strict import faults
from model.network.backbone import Backbone

IMAGENET = "imagenet"
PUBLISHED_RECIPE = "IMAGENET1K_V1"  # what `imagenet` stands for: what the published models were started from
COUNTER = ".num_batches_tracked"  # of live batch norm: counts steps, and no file needs to have it


def find_backbone_weights(backbone: str, source: str | Path) -> Path:
    """The file that `source` means: a name of published weights, downloaded where they are not yet there, or a path.

    Names are torchvision's (`IMAGENET1K_V1`, `IMAGENET1K_V2`, in any case), and `imagenet` for the first.
    `backbone` is a torchvision network, whose published files are kept where torchvision keeps them. Raises ValueError
    where there are no such weights and no such file, and DownloadError where they cannot be downloaded.
    """
    published = {weights.name: str(weights.url) for weights in torchvision.models.get_model_weights(backbone)}
    name = PUBLISHED_RECIPE if str(source).lower() == IMAGENET else str(source).upper()
    if name not in published:
        if not Path(source).is_file():
            known = ", ".join((IMAGENET, *published))
            raise ValueError(f"backbone weights {source}: there is no such file; published for {backbone} are {known}")
        return Path(source)
    url = published[name]
    file_name = Path(urlsplit(url).path).name
    digits = re.search(r"-([0-9a-f]{8,})\.", file_name)
    if digits is None:
        raise ValueError(f"backbone weights {source}: the name {file_name} has no digest to check; give the file")
    return download(url, Path(torch.hub.get_dir()) / "checkpoints" / file_name, digits[1], progress=True)


def load_backbone_weights(backbone: Backbone, name: str, path: Path) -> None:
    """Load a file with a state dict of the torchvision network `name` into a backbone that was made of it.

    The file is what torch.save wrote, bare or under the key `model`, or safetensors. The classifier and the stages
    that the backbone does not use are left out; batch norm takes its statistics, live or frozen. Raises
    CheckpointError, which begins with the file's name, where it cannot be read or has a missing, unexpected or
    misshapen key.
    """
    try:
        weights = _read(path)
        wanted = backbone.body.state_dict()
        _check(weights, wanted, name)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    backbone.body.load_state_dict({key: weights.get(key, tensor) for key, tensor in wanted.items()})


def _read(path: Path) -> dict[str, Tensor]:
    content = load_file(path)[1]
    state = content.get("model", content)
    if not isinstance(state, dict):
        raise CheckpointError(f"its entry 'model' is a {type(state).__name__}, not a state dict")
    return as_weights(state)[0]


def _check(weights: dict[str, Tensor], wanted: dict[str, Tensor], name: str) -> None:
    """CheckpointError naming every key that is missing for `wanted`, misshapen, or no key of the network `name`."""
    with torch.device("meta"):
        whole: nn.Module = torchvision.models.get_model(name, weights=None)
    shapes = {key: tensor.shape for key, tensor in wanted.items()}
    if report := faults(weights, shapes, allowed=whole.state_dict(), optional=COUNTER):
        raise CheckpointError(f"it holds no weights of torchvision's {name}: {report}")
