"""Who may ask: optional API keys for every route but health, and keys of their own for what changes the service."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

from starlette.requests import Request
from starlette.types import Scope

from service.errors import ForbiddenError, UnauthorizedError
from service.http.api_keys import KeyRing, KeySourceError, digests_of
from service.http.paths import HEALTH, PAGES
from service.settings import Settings, SettingsError, name_of

T = TypeVar("T")
RawHeaders = Iterable[tuple[bytes, bytes]]

# A browser asks its user for a key where it is challenged with Basic, and only pages may make it ask.
_PROGRAMS = 'Bearer realm="detr"'
_BROWSERS = 'Basic realm="detr: the key is the password", charset="UTF-8"'


class Access:
    """The keys of an app. Only the event loop's thread touches it."""

    def __init__(self, users: KeyRing | None, admins: KeyRing | None) -> None:
        """Without `users` everybody is let in; without `admins` nobody is an admin."""
        self._users = users
        self._admins = admins
        self._rings = [ring for ring in (users, admins) if ring is not None]

    @property
    def is_guarded(self) -> bool:
        """Whether a key is needed at all."""
        return self._users is not None

    def check(self, scope: Scope) -> None:
        """Let a request pass that needs no key, or brings one; an admin's key opens everything.

        Raises:
            UnauthorizedError: it has no key, or a wrong one.
        """
        path = scope["path"]
        if self._users is None or path in HEALTH:
            return
        key = presented_key(scope["headers"], basic=True)
        if key is not None and _accepted(key, self._users, self._admins):
            return
        raise UnauthorizedError(
            "this needs an API key that is valid (Authorization: Bearer, or X-API-Key)",
            _BROWSERS if path in PAGES else _PROGRAMS,
        )

    def check_admin(self, headers: RawHeaders) -> None:
        """Let an admin pass. HTTP Basic does not count here: browsers add it by themselves, whoever sends them.

        Raises:
            ForbiddenError: there are no admin keys, or the key is not one of them.
            UnauthorizedError: there is no key.
        """
        if self._admins is None:
            raise ForbiddenError("this needs an admin key, and the service has none (admin_keys_file)")
        key = presented_key(headers, basic=False)
        if key is None:
            raise UnauthorizedError("this needs an admin key (Authorization: Bearer, or X-API-Key)", _PROGRAMS)
        if not _accepted(key, self._admins):
            raise ForbiddenError("the key is not an admin's")

    def reload(self) -> None:
        """Have the key files read again now, instead of within a second of their change."""
        for ring in self._rings:
            ring.reload()

    def close(self) -> None:
        """Follow the key files no longer."""
        for ring in self._rings:
            ring.close()


def open_access(settings: Settings) -> Access:
    """The keys that the settings name.

    Raises:
        SettingsError: a file of keys cannot be read, or a key cannot be used.
    """
    given: tuple[bytes, ...] = ()
    if settings.api_keys is not None:
        keys = settings.api_keys.get_secret_value().replace(",", " ").split()
        given = _or_settings_error("api_keys", lambda: digests_of(enumerate(keys, start=1)))
    users = admins = None
    if given or settings.api_keys_file is not None:
        users = _or_settings_error("api_keys_file", lambda: KeyRing(given, settings.api_keys_file))
    if settings.admin_keys_file is not None:
        admins = _or_settings_error("admin_keys_file", lambda: KeyRing((), settings.admin_keys_file))
    return Access(users, admins)


async def require_admin(request: Request) -> None:
    """Dependency of routes that only an admin may use.

    Raises:
        UnauthorizedError, ForbiddenError: see `Access.check_admin`.
    """
    access: Access = request.app.state.access
    access.check_admin(request.scope["headers"])


def presented_key(headers: RawHeaders, *, basic: bool) -> bytes | None:
    """The key that a request brings: `X-API-Key`, else `Authorization`, as a bearer token or Basic's password.

    A header that comes twice, or cannot be read, brings none.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (b"x-api-key", b"authorization"):
            if name in found:
                return None
            found[name] = value
    if b"x-api-key" in found:
        return found[b"x-api-key"]
    scheme, _, credentials = found.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return credentials.strip() or None
    if scheme.lower() == b"basic" and basic:
        return _password(credentials.strip())
    return None


def _password(credentials: bytes) -> bytes | None:
    """Basic's password, the user's name being anybody's (RFC 7617)."""
    try:
        _, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
    except binascii.Error:
        return None
    return password if colon else None


def _accepted(key: bytes, *rings: KeyRing | None) -> bool:
    # All rings are asked before any answer counts, so that the time says nothing of whose key it is.
    answers = [ring.accepts(key) for ring in rings if ring is not None]
    return any(answers)


def _or_settings_error(name: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except KeySourceError as error:
        raise SettingsError(f"{name_of(name)}: {error}") from error
