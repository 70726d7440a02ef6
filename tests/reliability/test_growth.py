"""What is used is given back: memory, descriptors and threads stay as they were (rows L9, M1 and M2)."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from service.bench.load import Request, closed_loop, open_loop
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.growth import Growth, growth_of, usage_at_rest
from tests.reliability.scripted_engine import picture
from tests.reliability.under_load import STEADY, knee, memory_budget, saturate, scaled, tally, target_of, watching
from tests.server_process import ServerProcess

# Good and cheap, so that many can be sent: PNG, lossless WebP and JPEG of several sizes, to both endpoints, raw.
GOOD = [
    Request(path, picture(0x103050 * number, size, image_format), f"image/{image_format.lower()}")
    for number, size in enumerate(((64, 64), (200, 150), (90, 64), (64, 107), (320, 240)))
    for image_format in ("PNG", "WEBP", "JPEG")
    for path in ("/detect", "/segment", "/segment?overlay=true")
]
_PNG = picture(1)
# Refused in as many ways as there are.
BAD = [
    Request("/detect", b"", "image/png"),
    Request("/detect", b"nonsense", "image/jpeg"),
    Request("/detect", b"GIF89a" + bytes(64), "image/gif"),
    Request("/detect", _PNG[:40], "image/png"),
    Request("/segment", picture(1, (300, 200), "JPEG")[:-200], "image/jpeg"),
    Request("/detect", picture(1, (20_000, 1)), "image/png"),
    Request("/detect", _PNG, "text/plain"),
    Request("/detect", _PNG, "image/png", headers={"Content-Encoding": "gzip"}),
    Request("/detect", _PNG, "multipart/form-data; boundary=x"),
    Request("/detect", b"--x\r\n\r\nno headers\r\n--x--\r\n", "multipart/form-data; boundary=x"),
    Request("/detect?threshold=much", _PNG, "image/png"),
    Request("/segment?threshold=2", _PNG, "image/png"),
    Request("/nowhere", _PNG, "image/png"),
    Request("/model", _PNG, "image/png"),
    Request("/detect", _PNG, "image/png", headers={"X-Long": "x" * 40_000}),
]


async def send(server: ServerProcess, requests: Sequence[Request], count: int, statuses: set[int]) -> int:
    """Send so many, a few at once; all are answered with one of the statuses."""
    samples = await closed_loop(target_of(server), requests, clients=16, count=count)
    assert {sample.status for sample in samples} <= statuses, tally(samples)
    return len(samples)


def warm_up(server: ServerProcess, count: int) -> None:
    """Every thread exists and every cache is full afterwards."""
    asyncio.run(send(server, GOOD, count, {200}))
    asyncio.run(send(server, BAD, count // 4, set(range(400, 500))))
    server.samples()


def note(measured: Measured, row: str, what: str, growth: Growth) -> None:
    text = f"{what}: {growth.requests} requests, {growth.megabytes:+.1f} MB, at the end {growth.slope:+.0f} bytes each"
    before, after = growth.before, growth.after
    kept = f"{before.fds} -> {after.fds} descriptors, {before.threads} -> {after.threads} threads"
    measured(row, f"{text}; {kept}", requests=growth.requests, growth_mb=growth.megabytes, slope=growth.slope)


@pytest.mark.slow
@pytest.mark.row(id="M1")
def test_a_leak_is_noticed_and_without_one_there_is_nothing_to_notice(start: Scripted) -> None:
    """The negative control of the growth rows, shortened: the same check, the same traffic, and a leak thirty times as
    large, because there are so few requests."""
    with start(*PATIENT) as server:
        warm_up(server, 200)
        sound = growth_of(server, lambda: send(server, GOOD, 450, {200}))
        assert sound.faults() == []
        server.script(leak_bytes=80_000)
        leaking = growth_of(server, lambda: send(server, GOOD, 450, {200}))
        (fault,) = leaking.faults()
        assert fault.startswith("memory grew by")


@pytest.mark.soak
@pytest.mark.row(id="L9")
@pytest.mark.row(id="M1")
@pytest.mark.timeout(900)
def test_fifty_thousand_requests_leave_nothing_behind(start: Scripted, measured: Measured) -> None:
    """At seven tenths of what the server and this machine can do; a queue without end, because a machine that is slow
    for a moment is no reason to refuse any."""
    count = round(scaled(50_000))
    with start(*PATIENT, "--max-queue-size", "10000") as server:
        warm_up(server, round(scaled(2_000)))
        rate = STEADY * knee(saturate(server, GOOD))

        async def steadily() -> int:
            samples = await open_loop(target_of(server), GOOD, rate=rate, seconds=count / rate)
            assert tally(samples) == {200: len(samples)}
            return len(samples)

        growth = growth_of(server, steadily)
        errors = server.errors()
    note(measured, "L9", f"at {rate:.0f}/s", growth)
    note(measured, "M1", f"at {rate:.0f}/s", growth)
    assert growth.faults() == []
    assert errors == []


@pytest.mark.soak
@pytest.mark.row(id="M1")
@pytest.mark.timeout(900)
def test_a_leak_of_a_kilobyte_a_request_fails_the_check(start: Scripted, measured: Measured) -> None:
    """The negative control."""
    with start(script={"leak_bytes": 1024}) as server:
        warm_up(server, round(scaled(2_000)))
        growth = growth_of(server, lambda: send(server, GOOD, max(20_000, round(scaled(30_000))), {200}))
    note(measured, "M1", "with a leak of 1 KB a request, which has to fail", growth)
    assert growth.faults()


@pytest.mark.soak
@pytest.mark.row(id="M1")
@pytest.mark.timeout(600)
def test_bad_requests_leave_nothing_behind(start: Scripted, measured: Measured) -> None:
    count = round(scaled(5_000))
    with start() as server:
        warm_up(server, round(scaled(2_000)))
        growth = growth_of(server, lambda: send(server, BAD, count, set(range(400, 500))))
        errors = server.errors()
    note(measured, "M1", "bad ones", growth)
    assert growth.faults(most=2**20 * max(1, count / 1000)) == []
    assert errors == []


def bombs() -> dict[str, Request]:
    """Files a few KB to a few MB large, of nearly 50 megapixels, in every form that costs memory in its own way."""
    flat = Image.new("RGB", (7_000, 7_000), (10, 20, 30))
    forms: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "PNG": (flat, "PNG", {}),
        "PNG with alpha": (flat.convert("RGBA"), "PNG", {}),
        "PNG of 16-bit gray": (Image.fromarray(np.full((7_000, 7_000), 999, np.uint16)), "PNG", {}),
        "palette PNG with transparency": (Image.new("P", flat.size), "PNG", {"transparency": 0}),
        "JPEG": (flat, "JPEG", {}),
        "progressive JPEG": (flat, "JPEG", {"progressive": True}),
        "JPEG on its side": (flat, "JPEG", {"exif": _on_its_side()}),
        "CMYK JPEG": (flat.convert("CMYK"), "JPEG", {}),
        "WebP": (flat, "WEBP", {"lossless": True, "method": 0}),
    }
    return {name: _bomb(*form) for name, form in forms.items()}


def _on_its_side() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


def _bomb(image: Image.Image, image_format: str, options: dict[str, object]) -> Request:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return Request("/detect", buffer.getvalue(), f"image/{image_format.lower()}")


@pytest.mark.soak
@pytest.mark.row(id="M2")
@pytest.mark.timeout(1800)
def test_bombs_stay_within_the_memory_budget(start: Scripted, measured: Measured) -> None:
    """A hundred of each, eight at a time."""
    forms = bombs()
    with start("--request-timeout-ms", "60000") as server:
        warm_up(server, round(scaled(2_000)))
        budget = memory_budget(server)
        before = usage_at_rest(server)
        peaks = {}
        for name, bomb in forms.items():
            with watching(server) as use:
                samples = asyncio.run(
                    closed_loop(target_of(server), [bomb], clients=8, count=max(8, round(scaled(100))))
                )
            assert tally(samples) == {200: len(samples)}, name
            peaks[name] = use.rss
        after = usage_at_rest(server)
    worst = max(peaks, key=lambda name: peaks[name])
    kept = (after.rss - before.rss) / 1e6
    measured(
        "M2",
        f"{len(samples)} of each of {len(forms)}: peak {peaks[worst] / 1e6:.0f} MB ({worst}) of {budget / 1e6:.0f} MB; "
        f"{kept:+.1f} MB after",
        peak_mb=peaks[worst] / 1e6,
        budget_mb=budget / 1e6,
        kept_mb=kept,
    )
    assert peaks[worst] <= budget
    assert kept <= 30
