"""From a name on the hub to the files of its weights, for whoever trains them further."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from model.hub.known import KNOWN
from model.hub.names import HubError, HubName, HubUnreachableError, read_name

logger = logging.getLogger(__name__)


class HubWeights(NamedTuple):
    """Weights as they lie in huggingface_hub's cache."""

    folder: Path
    source: str  # OWNER/NAME@COMMIT


def weights_on_hub(path: Path) -> HubWeights | None:
    """The weights that a path is the name of; None where something is there, or it can only be a path.

    Where the hub cannot be reached, the commit that was downloaded last is taken.

    Raises HubError where there is no such model, or it cannot be downloaded, with the option that takes a file.
    """
    if path.exists():
        return None
    name = read_name(path.as_posix())
    if name is None:
        known = next((model.name for model in KNOWN if model.name.rpartition("/")[2] == str(path)), None)
        if known is not None and read_name(known) is not None:
            raise HubError(f"there is no file {path}; on the hub it is --init {known}")
        return None
    try:
        return _downloaded(name)
    except HubUnreachableError as error:
        raise HubError(
            f"{error.reason}, and {name} is not in the cache: where there is a network, hf download {name.repo} "
            "--local-dir DIR fetches its files, and --init DIR takes them; --init also takes a file of weights"
        ) from error


def _downloaded(name: HubName) -> HubWeights:
    from model.hub.download import (  # takes half a second to import
        current_commit,
        downloaded_commit,
        fetch_descriptions,
        fetch_weights,
        remember_commit,
    )

    try:
        commit = current_commit(name)
        remember_commit(name)
    except HubUnreachableError as error:
        last = downloaded_commit(name)
        if last is None:
            raise
        logger.warning("%s: %s is the commit that was taken last, %s", error.reason, name, last)
        commit = last
    folder = fetch_descriptions(name, commit)
    fetch_weights(name, commit)
    return HubWeights(folder, f"{name.repo}@{commit}")
