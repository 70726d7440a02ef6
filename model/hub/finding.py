"""From what a user calls a model to the path of an artifact."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from model.checkpoint import published
from model.checkpoint.digests import sha256_of
from model.hub.cache import ArtifactCache, default_cache
from model.hub.importer import import_to
from model.hub.known import KNOWN
from model.hub.names import OFFLINE, HubError, HubName, HubUnreachableError, read_name
from model.runtime.artifact.file import Artifact

logger = logging.getLogger(__name__)


def find_model(text: str, revision: str | None, cache: ArtifactCache, *, bars: bool = True) -> Path:
    """The path of the artifact that a user means.

    What is there on this machine always comes before a name on the hub: an artifact is taken as it is, and a Hugging
    Face folder is imported into the cache. A name on the hub is asked for its commit each time, and downloaded and
    imported where the cache has nothing of that commit. Where the hub cannot be reached, the cache's last one is taken.

    Args:
        text: a path, or a name as `OWNER/NAME` or `OWNER/NAME@REVISION`.
        revision: a branch, tag or commit on the hub; None for the default.
        cache: keeps what was imported.
        bars: whether progress is shown as bars on a terminal; otherwise it is logged.

    Raises:
        HubError: there is no such model, or it cannot be downloaded, imported or kept.
    """
    path = Path(text)
    if _exists(path):
        if revision is not None:
            raise HubError(f"{text} is on this machine, and --revision {revision} is for names on the hub")
        is_weights = (path / "config.json").is_file() if path.is_dir() else path.suffix == ".safetensors"
        return _of_weights(path, cache) if is_weights else path
    name = read_name(text, revision)
    if name is not None:
        return find_on_hub(name, cache, bars=bars).path
    if (advice := _advice(text)) is not None:
        raise HubError(advice)
    return path


def path_of(path: Path) -> Path:
    """A path, where something is there or it cannot be a name on the hub; otherwise that of the name's artifact.

    For commands that take checkpoints of any kind as well, which `find_model` would import. Raises HubError.
    """
    name = None if _exists(path) else read_name(path.as_posix())
    return path if name is None else find_on_hub(name, ArtifactCache(default_cache())).path


def find_on_hub(name: HubName, cache: ArtifactCache, *, bars: bool = True) -> Artifact:
    """The artifact of a model on the hub; see `find_model`."""
    from model.hub.download import current_commit, downloaded_commit  # takes half a second to import

    unreachable = None
    try:
        commit = current_commit(name)
    except HubUnreachableError as error:
        last = cache.last_commit(name) or downloaded_commit(name)
        if last is None:
            raise
        commit, unreachable = last, error
    artifact = cache.find(name, commit)
    if artifact is None:
        try:
            artifact = _import(name, commit, cache, bars)
        except HubUnreachableError as error:
            raise unreachable or error from error
    if unreachable is not None:
        level = logging.INFO if unreachable.reason == OFFLINE else logging.WARNING
        logger.log(level, "%s: %s is the commit that was taken last, %s", unreachable.reason, name, commit)
    cache.remember(name, commit)
    provenance = artifact.metadata.provenance
    logger.info("%s is commit %s, weights of SHA-256 %s", name, commit, provenance.get("sha256"))
    return artifact


def _import(name: HubName, commit: str, cache: ArtifactCache, bars: bool) -> Artifact:
    """Download and import a commit; where it came from goes with it."""
    from model.hub.download import fetch_descriptions, fetch_weights

    cache.check_writable()
    folder = fetch_descriptions(name, commit, bars=bars)
    logger.info("downloading %s, commit %s", name, commit)
    weights = fetch_weights(name, commit, bars=bars)
    provenance = {"source": name.repo, "revision": commit, "sha256": _digest_of(weights)}

    def make(out: Path) -> None:
        for note in import_to(folder, out, name.model, provenance):
            logger.info("%s: %s", name, note)

    return cache.add(name, commit, _key_of(weights), make)


def _of_weights(path: Path, cache: ArtifactCache) -> Path:
    """The artifact of a Hugging Face folder, or of a file of weights, by what is in it."""
    folder = path if path.is_dir() else path.parent
    try:
        content = {file.name: sha256_of(file) for file in folder.glob("*.json")}
        weights = {file.name: sha256_of(file) for file in (folder.glob("*.safetensors") if path.is_dir() else [path])}
    except OSError as error:
        raise HubError(f"{path}: cannot be read: {error.strerror}") from error
    name = path.resolve().name.removesuffix(".safetensors")

    def make(out: Path) -> None:
        for note in import_to(path, out, name, {}):
            logger.info("%s: %s", path, note)

    key = _key_of(content | weights | {"": name})
    return (cache.find_folder(key) or cache.add_folder(key, make)).path


def _digest_of(weights: Mapping[str, str]) -> str | dict[str, str]:
    """The digest of the one file of weights, or those of all by their names."""
    return next(iter(weights.values())) if len(weights) == 1 else dict(weights)


def _key_of(digests: Mapping[str, str]) -> str:
    """One digest for all."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{name} {digests[name]}\n" for name in sorted(digests)).encode()).hexdigest()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _advice(text: str) -> str | None:
    """What to do where a text is neither a path by its looks nor a name on the hub; None where a path is meant."""
    if any(separator in text for separator in "/\\."):
        return None
    known = next((model.name for model in KNOWN if model.name.rpartition("/")[2] == text), None)
    if known is None:
        return f"there is no file {text}, and no model of that name: a name on the hub is OWNER/NAME (see detr models)"
    ways = [f"detr fetch {text} downloads and exports the authors' own file, with PyTorch"] * (text in published.FILES)
    ways += [f"on the hub it is {known}"] * (known != text)
    return f"there is no file {text}: {'; '.join(ways)}"
