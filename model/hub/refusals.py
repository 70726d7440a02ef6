"""What huggingface_hub raises, as one line of our own that says what to do."""

from __future__ import annotations

from collections.abc import Iterator

from huggingface_hub import constants, errors

from model.hub.names import OFFLINE, HubError, HubName, HubUnreachableError

_MAX_TEXT = 200  # characters of a library's own words


def refusal(error: Exception, name: HubName) -> HubError:
    """The error to raise in place of one of huggingface_hub, or of the system beneath it."""
    causes = list(_chain(error))
    for cause in causes:
        if (text := _no_such(cause, name)) is not None:
            return HubError(text)
    for cause in causes:
        if isinstance(cause, errors.HfHubHTTPError):
            return _of_status(cause.response.status_code, name)
    hub = f"the hub ({constants.ENDPOINT})"
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        advice = f"fetch it where there is a network (detr fetch {name}), or give the path of a file"
        return HubUnreachableError(OFFLINE, name, advice)
    of_network = [type(cause).__name__ for cause in causes if _is_of_the_network(cause)]
    if of_network or isinstance(error, errors.LocalEntryNotFoundError):
        what = of_network[0] if of_network else type(causes[-1]).__name__
        return HubUnreachableError(
            f"{hub} cannot be reached, or breaks off ({what})",
            name,
            "see to the network, name a mirror (HF_ENDPOINT), or fetch it elsewhere "
            f"(detr fetch {name} --out FILE) and give that file",
        )
    for cause in causes:
        if isinstance(cause, OSError) and cause.strerror is not None:  # the library's own have none
            where = constants.HF_HOME if cause.filename is None else cause.filename
            return HubError(f"{name} cannot be downloaded: {where}: {cause.strerror}; HF_HOME names another folder")
    return HubError(f"{name} cannot be downloaded from {hub}: {_first_line(error)}")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__


def _no_such(error: BaseException, name: HubName) -> str | None:
    hub = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return f"{name.repo} is gated: accept its terms at {hub}/{name.repo}, and set HF_TOKEN to a token of yours"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no file {name}, and no model {name.repo} on the hub ({hub}), or it is private: detr models "
            "lists known names, and HF_TOKEN takes a token that may read it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.repo} has no revision {name.revision} on the hub ({hub})"
    if isinstance(error, errors.FileMetadataError):
        return f"{hub} does not answer as a hub does for {name}: see whether HF_ENDPOINT, or a proxy, is right"
    if isinstance(error, errors.HFValidationError):
        return f"{name.repo} cannot be a name on the hub"
    return None


def _of_status(status: int, name: HubName) -> HubError:
    hub = f"the hub ({constants.ENDPOINT})"
    if status == 401:
        return HubError(f"{hub} does not accept the token for {name.repo}: set HF_TOKEN to a valid one, or unset it")
    if status == 403:
        return HubError(f"{hub} forbids access to {name.repo}: set HF_TOKEN to a token that may read it")
    if status == 429:
        advice = "try again later, or set HF_TOKEN to be let more"
        return HubUnreachableError(f"{hub} has had too many requests", name, advice)
    if status >= 500:
        return HubUnreachableError(f"{hub} answered {status}", name, "try again later, or name a mirror (HF_ENDPOINT)")
    return HubError(f"{hub} answered {status} for {name}: see whether HF_ENDPOINT is the address of a hub")


def _is_of_the_network(error: BaseException) -> bool:
    """Whether the HTTP client raised it, whichever client this release of huggingface_hub has."""
    return isinstance(error, ConnectionError) or type(error).__module__.startswith(("httpx", "httpcore"))


def _first_line(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return "".join(character for character in text if character.isprintable())[:_MAX_TEXT]
