"""Which requests reach the app, and what of a URL that is asked for as a whole it sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.targets import accepted


def scope(target: bytes, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    """As uvicorn makes it of a request for a target, with its Host first."""
    path, _, query = target.partition(b"?")
    named = [(b"host", b"given"), *headers]
    return {"type": "http", "http_version": "1.1", "raw_path": path, "path": path.decode(), "query_string": query,
            "headers": named}  # fmt: skip


@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        (b"http://host/detect", b"host", "/detect"),
        (b"HTTPS://host:8000/detect", b"host:8000", "/detect"),
        (b"http://host", b"host", "/"),
        (b"http://host?threshold=0.5", b"host", "/"),
        (b"http://host/a%20b//c", b"host", "/a b//c"),
        (b"http://[::1]:80/", b"[::1]:80", "/"),
        (b"http://host:/http://other/", b"host:", "/http://other/"),
    ],
)
def test_of_a_whole_url_the_path_is_routed_and_the_host_counts(target: bytes, host: bytes, path: str) -> None:
    request = accepted(scope(target, (b"accept", b"image/png")))
    assert request is not None
    assert request["path"] == path
    assert request["headers"] == [(b"host", host), (b"accept", b"image/png")]
    assert request["query_string"] == target.partition(b"?")[2]


@pytest.mark.parametrize(
    "target",
    [b"ftp://host/detect", b"http://", b"http:///detect", b"http://user@host/", b"http://host:x/", b"http://[::1/",
     b"http://ho\"st/", b"file:///etc/passwd", b"x://"],
)  # fmt: skip
def test_other_urls_are_refused(target: bytes) -> None:
    assert accepted(scope(target)) is None


@pytest.mark.parametrize("target", [b"/detect", b"/", b"/http://host/", b"*", b"host:80", b"http:/detect", b"//host/"])
def test_what_is_no_whole_url_is_left_as_it_is(target: bytes) -> None:
    given = scope(target)
    assert accepted(given) is given


VISIBLE = st.binary(max_size=60).map(lambda data: bytes(33 + byte % 94 for byte in data))


@given(st.sampled_from([b"", b"http://", b"http://host", b"HTTP://[", b"https://a:"]), VISIBLE)
def test_whatever_is_asked_for_is_a_path_or_refused(begin: bytes, rest: bytes) -> None:
    request = accepted(scope(begin + rest))
    if request is not None and begin.startswith((b"http://h", b"https://")):
        assert request["path"].startswith("/")


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("2.0", ()),
        ("1.0", ((b"transfer-encoding", b"chunked"),)),
        ("1.1", ((b"transfer-encoding", b"chunked"), (b"content-length", b"0"))),
    ],
)
def test_what_two_servers_could_read_differently_is_refused(
    version: str, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert accepted(scope(b"/", *headers) | {"http_version": version}) is None
