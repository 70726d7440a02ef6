"""What a user may call a model, and what goes wrong with a name."""

from __future__ import annotations

import re
from dataclasses import dataclass

_HUB_NAME = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>\S+))?", re.ASCII)
OFFLINE = "HF_HUB_OFFLINE is set"  # a reason to ask nobody that somebody has wished
# Who names a file means one, though it may not be there.
_FILE_ENDINGS = (".onnx", ".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".json")


@dataclass(frozen=True)
class HubName:
    """A model on the hub: a repository, and a branch, tag or commit of it."""

    repo: str  # OWNER/NAME
    revision: str = "main"

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"

    @property
    def model(self) -> str:
        """The name without its owner."""
        return self.repo.partition("/")[2]


class HubError(Exception):
    """A model cannot be had by its name; the message is one line that says why, and what to do."""


class HubUnreachableError(HubError):
    """The hub cannot be asked, or gives no answer now, and what was wanted of it is not in the cache.

    Args:
        reason: why the hub is of no use now.
        name: what was wanted.
        advice: what to do.
    """

    def __init__(self, reason: str, name: HubName, advice: str) -> None:
        super().__init__(f"{reason}, and {name} is not in the cache: {advice}")
        self.reason = reason


def read_name(text: str, revision: str | None = None) -> HubName | None:
    """The name on the hub that a text is, as `OWNER/NAME` or `OWNER/NAME@REVISION`; None if it can only be a path.

    Raises:
        HubError: `revision` is given as well, and is another one.
    """
    match = _HUB_NAME.fullmatch(text)
    if match is None or text.endswith(_FILE_ENDINGS):
        return None
    named = match["revision"]
    if named is not None and revision not in (None, named):
        raise HubError(f"{text} names a revision already, and --revision names {revision}")
    return HubName(match["repo"], named or revision or "main")
