"""Requests that h11 reads and uvicorn hands on, but not as the standard wants it."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import Scope

# RFC 9112, section 3.2.2, with the host of RFC 3986; a user in front of it is an error (RFC 9110, section 4.2.4).
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://")
_OF_HTTP = re.compile(
    rb"https?://((?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]*)?)(/.*)?", re.IGNORECASE
)


def accepted(scope: Scope) -> Scope | None:
    """The request as the app is to see it; None if it has to be refused."""
    return None if _is_ambiguous(scope) else _with_path(scope)


def _is_ambiguous(scope: Scope) -> bool:
    """Whether it is of another HTTP than 1, or two servers could disagree on its end (RFC 9112, section 6.1)."""
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names:
        return b"content-length" in names or scope["http_version"] != "1.1"
    return scope["http_version"] not in ("1.0", "1.1")


def _with_path(scope: Scope) -> Scope | None:
    """The request with a path as its target where that is a whole URL, whose host then counts; None for other URLs."""
    if not _ABSOLUTE.match(scope["raw_path"]):
        return scope
    url = _OF_HTTP.fullmatch(scope["raw_path"])
    if url is None:
        return None
    host, path = url[1], url[2] or b"/"
    headers = [(b"host", host), *(header for header in scope["headers"] if header[0] != b"host")]
    return {**scope, "raw_path": path, "path": unquote(path.decode("ascii")), "headers": headers}
