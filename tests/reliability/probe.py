"""Asks a server whether it lives, from a process of its own, so that nothing but the server holds the answer up."""

from __future__ import annotations

import http.client
import time


def probe(port: int, rate: float, seconds: float) -> list[float]:
    """Milliseconds that each of `rate` requests a second took, one after the other on one connection.

    Raises:
        AssertionError: one was not answered with 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    took, begin = [], time.monotonic()
    for number in range(round(rate * seconds)):
        time.sleep(max(0.0, begin + number / rate - time.monotonic()))
        asked = time.monotonic()
        connection.request("GET", "/health/live")
        answer = connection.getresponse()
        answer.read()
        took.append(1000 * (time.monotonic() - asked))
        assert answer.status == 200
    connection.close()
    return took
