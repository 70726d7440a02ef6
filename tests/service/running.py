"""The seam by which the tests of the API run against another server than the app in this process.

`DETR_TEST_SERVER` names it: the address of one that runs, or `module:name` of a function that gives a `Launcher`. Then
`pytest -m "api and not protocol"` runs the tests that hold for any server of this API. One that needs what is inside
the app, which such a server does not show, is skipped and says what it wanted.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pkgutil import resolve_name
from typing import Any, Protocol

import pytest

VARIABLE = "DETR_TEST_SERVER"


class Launcher(Protocol):
    """A way to have a server with the settings that a test wants."""

    def serving(self, usual: Mapping[str, Any], own: Mapping[str, Any]) -> AbstractAsyncContextManager[str]:
        """A server for the length of an `async with` block; its address.

        Args:
            usual: settings that tests are run with, the model among them.
            own: settings that this test is about; they come before the usual ones.
        """


class AtAddress:
    """A server that somebody has started with the tests' tiny model, and whose settings nobody here can change."""

    def __init__(self, url: str) -> None:
        self._url = url

    @asynccontextmanager
    async def serving(self, usual: Mapping[str, Any], own: Mapping[str, Any]) -> AsyncIterator[str]:
        """See Launcher."""
        if own:
            pytest.skip(f"needs a server with settings of its own: {', '.join(sorted(own))}")
        yield self._url


class Inside:
    """Stands for what is inside an app that runs elsewhere: whichever test looks at it is skipped."""

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, attribute: str) -> Any:
        pytest.skip(f"looks into the {object.__getattribute__(self, '_name')}, which runs elsewhere ({attribute})")

    def __setattr__(self, attribute: str, value: object) -> None:
        getattr(self, attribute)


@cache
def launcher() -> Launcher | None:
    """What starts servers for tests, if they are not to run against an app in this process."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if named.startswith(("http://", "https://")):
        return AtAddress(named)
    made: Launcher = resolve_name(named)()
    return made
