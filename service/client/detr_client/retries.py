"""When to ask again, and how long to wait before it."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

AGAIN = frozenset({429, 502, 503})  # the same request may be answered a little later

_FIRST_WAIT_S = 0.2
_LONGEST_WAIT_S = 10.0


def wait_before(retry: int, retry_after: str | None) -> float:
    """Seconds to wait before a retry.

    Args:
        retry: 1 for the first one.
        retry_after: the server's `Retry-After`, which is waited for at least: seconds, or a date.
    """
    grown: float = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (retry - 1))
    # Clients that were refused together come back apart.
    return max(grown, _seconds(retry_after)) + random.uniform(0, grown / 2)


def _seconds(retry_after: str | None) -> float:
    if retry_after is None:
        return 0
    try:
        return max(0.0, float(int(retry_after)))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())  # noqa: TID251  # it is a date that was told
