"""What a connection does that lingers, where its socket does not do as it is told."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from service.process.metrics import Metrics
from service.wire.deadlines import ConnectionLimits
from service.wire.lingering import LingeringTransport

pytestmark = pytest.mark.anyio


class DeadTransport:
    """That of a client which has left, as the system knows and asyncio does not yet."""

    def __init__(self) -> None:
        self.is_aborted = False
        self.resume_reading = self.write = lambda *_: None

    def write_eof(self) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class NotingTransport(DeadTransport):
    """Notes what is sent at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.write = self.sent.append


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ([b"head", b"body", b"", b"next"], [b"headbody", b"", b"next"]),
        ([b"head", b""], [b"head"]),  # of an answer without a body
        ([b"head"], []),  # of one whose body never came
        ([b"head", b"x" * 65537], [b"head", b"x" * 65537]),
    ],
)
async def test_a_head_is_sent_with_its_body(written: list[bytes], sent: list[bytes]) -> None:
    real: Any = NotingTransport()
    limits = ConnectionLimits(4096, 600, 600, 600)
    out = LingeringTransport(real, asyncio.get_running_loop(), limits, Metrics(), is_amid_upload=lambda: False)
    out.hold_head()
    for data in written:
        out.write(data)
    assert real.sent == sent


async def test_a_connection_whose_client_has_left_does_not_linger_and_is_no_failure() -> None:
    real: Any = DeadTransport()
    limits, metrics = ConnectionLimits(4096, 600, 600, 600), Metrics()
    out = LingeringTransport(real, asyncio.get_running_loop(), limits, metrics, is_amid_upload=lambda: True)
    out.close()
    assert real.is_aborted
    assert out.is_closing()
    out.lost()
    assert metrics.registry.get_sample_value("detr_connections_closed_total", {"reason": "slow_rest"}) == 0
