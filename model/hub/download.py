"""From a name on the hub to a folder of files, by huggingface_hub: with its cache, token, mirror and offline mode."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.utils.tqdm import tqdm

from model.checkpoint.digests import sha256_of
from model.hub.names import HubError, HubName
from model.hub.refusals import refusal

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
# What is said of a model comes first, and tells whether the rest is worth its download.
_DESCRIPTIONS = ("config.json", "preprocessor_config.json", "processor_config.json", INDEX)
_WEIGHTS = ("model.safetensors", "model-*.safetensors")
# What config.json calls the networks that are DETR's: of anything else the weights, which may be huge, stay where they
# are. Whether there is a graph for one of these is for the importer to say.
_TYPES = ("detr", "table-transformer")
_REPORT_SECONDS = 5.0
_TIMEOUT = 10.0  # seconds without a byte, as huggingface_hub has them elsewhere


def current_commit(name: HubName) -> str:
    """The commit that a revision is now; a commit's own name is taken for what it says.

    Raises:
        HubError: there is no such model or revision, or it is closed to this user.
        HubUnreachableError: the hub cannot be asked.
    """
    if re.fullmatch("[0-9a-f]{40}", name.revision):
        return name.revision
    _log_where_all_log()
    try:
        commit = HfApi(library_name="detr-serve").model_info(name.repo, revision=name.revision, timeout=_TIMEOUT).sha
    except Exception as error:  # of any of the libraries beneath
        raise refusal(error, name) from error
    if commit is None or not re.fullmatch("[0-9a-f]{40}", commit):
        raise HubError(f"the hub does not tell the commit of {name}: see whether HF_ENDPOINT is the address of a hub")
    return commit


def downloaded_commit(name: HubName) -> str | None:
    """The commit that a revision was when it was last downloaded by whichever program; None if it never was."""
    try:
        folder = snapshot_download(
            name.repo, revision=name.revision, allow_patterns=["config.json"], local_files_only=True
        )
    except Exception:  # of any of the libraries beneath: there is none
        return None
    return Path(folder).name


def remember_commit(name: HubName) -> None:
    """Have huggingface_hub's cache know which commit a branch or tag is, for `downloaded_commit`.

    Raises HubError where the hub, or the cache, is of no use now.
    """
    _snapshot(HubName(name.repo), name.revision, ["config.json"], bars=True)


def fetch_descriptions(name: HubName, commit: str, *, bars: bool = True) -> Path:
    """Download what describes a model into huggingface_hub's cache, and return the folder of the commit there.

    Raises:
        HubError: it is no DETR, or it can be neither downloaded nor found in the cache.
    """
    folder = _snapshot(name, commit, _DESCRIPTIONS, bars)
    try:
        config = json.loads((folder / "config.json").read_bytes())
        kind = config["model_type"]
    except FileNotFoundError:
        raise HubError(f"{name} has no config.json, so it is no model of transformers") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise HubError(f"{name}: its config.json cannot be read ({type(error).__name__})") from error
    if kind not in _TYPES:
        raise HubError(
            f"{name} is no DETR: its config.json says {str(kind)[:100]!r}, and has to say {' or '.join(_TYPES)}"
        )
    return folder


def fetch_weights(name: HubName, commit: str, *, bars: bool = True) -> dict[str, str]:
    """Download the weights of a commit beside its descriptions, and check them.

    Returns:
        The SHA-256 (hexadecimal) of each file, as it is on the disk.

    Raises:
        HubError: there are none that can be read without PyTorch, what arrived is not what the hub says, or it cannot
            be downloaded.
    """
    folder = _snapshot(name, commit, _WEIGHTS, bars)
    files = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not files:
        raise HubError(
            f"{name} has no model.safetensors, and other weights are read by PyTorch only: give a revision that has "
            f"them (often {name.repo}@refs/pr/NUMBER), or export a folder of it (detr export)"
        )
    return {path.name: _checked(path, name) for path in files}


def _snapshot(name: HubName, commit: str, patterns: Sequence[str], bars: bool) -> Path:
    progress = None if bars else _progress_lines(str(name))
    _log_where_all_log()
    try:
        folder = snapshot_download(
            name.repo, revision=commit, allow_patterns=list(patterns), library_name="detr-serve", tqdm_class=progress
        )
    except Exception as error:  # of any of the libraries beneath
        raise refusal(error, name) from error
    return Path(folder)


def _log_where_all_log() -> None:
    """Keep huggingface_hub from writing to standard error what is logged already."""
    if logging.getLogger().handlers:
        logging.getLogger("huggingface_hub").handlers.clear()


def _checked(path: Path, name: HubName) -> str:
    """The SHA-256 of a file of weights, which must be the one that the hub has told."""
    found = sha256_of(path)
    # In the cache a large file is called by the digest that the hub gave for it, and the snapshot links to that.
    told = path.readlink().name if path.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", told) and told != found:
        path.resolve().unlink(missing_ok=True)
        path.unlink()
        raise HubError(
            f"{name}: {path.name} arrived damaged (its SHA-256 is not the one that the hub tells); try again"
        )
    return found


def _progress_lines(what: str) -> type[Any]:
    """A class of progress bars that writes lines to the log instead, one in a while."""
    state = {"next": time.monotonic() + _REPORT_SECONDS}

    class ProgressLines(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **kwargs | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n or 0
            if self._counts_bytes and self.total and time.monotonic() >= state["next"]:
                state["next"] = time.monotonic() + _REPORT_SECONDS
                logger.info("downloading %s: %.0f of %.0f MB", what, self.n / 1e6, self.total / 1e6)

    return ProgressLines
