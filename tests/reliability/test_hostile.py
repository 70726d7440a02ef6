"""Hostile input over real sockets: the whole corpus, odd HTTP, and what may be read in answers and in the log.

Rows S2 to S4, S7, M4, M6 and M7.
"""

from __future__ import annotations

import itertools
import json
import random
import socket
from collections import Counter
from contextlib import suppress

import httpx
import pytest

from tests.processes import until
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.corpus import (
    FORM,
    IMAGE,
    METHODS,
    ROUTES,
    BadRequest,
    corpus,
    form,
    mutations,
    odd_forms,
    part,
)
from tests.reliability.metrics_truth import assert_metrics_tell_the_truth
from tests.reliability.raw_http import connect, exchange, is_closed, read_answer, request
from tests.reliability.scripted_engine import identity_of, picture
from tests.server_process import ServerProcess
from tests.service.conftest import LEAK

REFUSALS = {400, 404, 405, 413, 415, 422, 431}


def check_refusal(bad: BadRequest, answer: httpx.Response | None) -> None:
    """It is refused in the one shape, and nothing of ours or of theirs is in it."""
    assert answer is not None, bad.name
    assert answer.status_code in REFUSALS, f"{bad.name}: {answer.status_code} {answer.text[:300]}"
    assert not LEAK.search(answer.text), bad.name
    assert answer.json()["error"].keys() == {"code", "message", "request_id"}
    assert len(answer.text) < 400, bad.name
    assert answer.headers["content-type"] == "application/json"
    assert not {"server", "x-powered-by"} & set(answer.headers)


@pytest.mark.row(id="M5")
@pytest.mark.row(id="M6")
@pytest.mark.row(id="M7")
@pytest.mark.row(id="S4")
def test_the_whole_corpus_is_refused_counted_and_logged_line_by_line(start: Scripted) -> None:
    with start(*PATIENT, "--max-body-bytes", "3000000") as server:
        seen: Counter[tuple[str, int]] = Counter()
        for bad in corpus():
            answer = exchange(server.port, bad.sent)
            check_refusal(bad, answer)
            if answer is not None and answer.status_code != 431:
                path = bad.sent.split()[1].partition(b"?")[0].decode("latin-1")
                endpoint = {"/detect": "detect", "/segment": "segment"}.get(path, "other")
                seen[endpoint, answer.status_code] += 1
        assert sum(seen.values()) > 150
        seen_of_tasks = {key: count for key, count in seen.items() if key[0] != "other"}
        assert_metrics_tell_the_truth(server, seen_of_tasks, images=0)
        check_log(server, at_least=sum(seen.values()))
        assert identity_of(server.post("/detect", picture(7)).json()) == 7


def check_log(server: ServerProcess, at_least: int) -> None:
    """One structured line a request, each short, none about a failure of ours, nothing of what clients sent."""

    def of_requests() -> list[str]:
        return [line for line in server.log.read_text().splitlines() if '"logger": "service.request"' in line]

    until(lambda: len(of_requests()) >= at_least)  # a thread writes them
    text, lines = server.log.read_text(), of_requests()
    assert text.isascii()
    ids = [json.loads(line)["request_id"] for line in lines]
    assert len(set(ids)) == len(ids)
    assert max(len(line) for line in text.splitlines()) <= 2048
    assert server.errors() == []
    for fragment in ("forged", "passwd", "agent-", "a.png", "alert", "169.254", "\\u001b", "IHDR"):
        assert fragment not in text
    assert not LEAK.search(text)


@pytest.mark.row(id="S4")
@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.soak)])
def test_any_form_is_answered_by_a_picture_s_answer_or_a_refusal(
    server: ServerProcess, measured: Measured, count: int
) -> None:
    """Also S6: forms that are valid but for some changes, over one connection after another."""
    seeds = [form(part(IMAGE, picture(3))), form(part(IMAGE, picture(3, (70, 64), "JPEG")), part("form-data; name=a"))]
    seeds += [body for body in odd_forms().values() if 0 < len(body) < 5000]
    statuses: Counter[int] = Counter()
    for body in mutations(seeds, count, seed=0):
        answer = exchange(server.port, request("/detect", body, content_type=FORM))
        assert answer is not None
        statuses[answer.status_code] += 1
        assert answer.status_code == 200 or answer.status_code in REFUSALS, (answer.text, body[:500])
        assert not LEAK.search(answer.text)
    assert server.errors() == []
    measured("S4", f"{count} mutated forms: {dict(sorted(statuses.items()))}")


@pytest.mark.row(id="S4")
@pytest.mark.parametrize(
    ("old", "new"),
    [(b"--boundary\r\n", b"a preamble\r\n--boundary\r\n"), (b"--boundary\r\n", b"--boundary \t\r\n"),
     (b"form-data; ", b"form-data;\r\n ")],
    ids=["a preamble", "padding", "a folded header"],
)  # fmt: skip
def test_what_the_standard_allows_around_a_picture_is_read(server: ServerProcess, old: bytes, new: bytes) -> None:
    body = form(part(IMAGE, picture(4)))
    assert body.count(old) == 1
    answer = exchange(server.port, request("/detect", body.replace(old, new), content_type=FORM))
    assert answer is not None
    assert identity_of(answer.json()) == 4


@pytest.mark.row(id="S4")
def test_a_file_name_is_of_no_consequence(server: ServerProcess) -> None:
    for name in ("../../../../tmp/evil", "a\0b", "nul", "a" * 3000, "C:\\x", "\u202e.png", "a;b\\", ""):
        disposition = f'form-data; name="image"; filename="{name}"'.encode().decode("latin-1")
        answer = exchange(server.port, request("/detect", form(part(disposition, picture(4))), content_type=FORM))
        assert answer is not None
        assert answer.status_code == 200, name
        assert identity_of(answer.json()) == 4


HEAD = b"POST /detect HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
BOTH = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


# Requests of which nobody can say where they end; each with the statuses that it may be answered with.
UNFRAMED = {
    "a header of 1 MB": (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", {431}),
    "a target of 1 MB": (b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", {431}),
    "a length and chunks": (HEAD + BOTH, {400}),
    "a negative length": (HEAD + b"Content-Length: -5\r\n\r\n", {400}),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345", {400}),
    "two lengths in one": (HEAD + b"Content-Length: 5, 6\r\n\r\n12345", {400}),
    "a hexadecimal length": (HEAD + b"Content-Length: 0x5\r\n\r\n12345", {400}),
    "a length of 30 digits": (HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", {400, 413}),
    "another transfer coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}),
    "a chunk of ZZ": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", {400}),
    "a chunk of -1": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", {400}),
    "a chunk of 40 digits": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 40 + b"\r\n", {400}),
    "a chunk that is longer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", {400}),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    "a space before a colon": (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", {400}),
    "NUL": (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", {400}),
    "a URL of another scheme": (b"GET ftp://a/model HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", {400}),
    "a URL with a user": (b"GET http://u@a/model HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", {400}),
    "no colon before a large body": (HEAD + b"X\r\n\r\n" + bytes(200_000), {400}),
    "two spaces": (b"GET  / HTTP/1.1\r\n\r\n", {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405, 505}),
    "every byte": (bytes(range(256)) * 50, {400, 431}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600), {400}),
}


@pytest.mark.row(id="S3")
@pytest.mark.parametrize("name", UNFRAMED)
def test_odd_http_is_refused_and_its_connection_closed(server: ServerProcess, name: str) -> None:
    """What follows such a request on its connection is not taken for another one (request smuggling)."""
    sent, statuses = UNFRAMED[name]
    smuggled = b"GET /model HTTP/1.1\r\nHost: a\r\n\r\n"
    answered = 'detr_requests_total{endpoint="model",status="200"}'
    before = server.samples().get(answered, 0)
    with connect(server.port) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have refused it already
            connection.sendall(sent + smuggled)
        answer = read_answer(connection)
        # The reset for what was not read may overtake the answer.
        if answer is not None:
            assert answer.status_code in statuses
            assert answer.json()["error"]["code"]
        assert is_closed(connection)
    assert server.samples().get(answered, 0) == before


@pytest.mark.row(id="S3")
def test_a_whole_url_is_routed_like_its_path(server: ServerProcess) -> None:
    """As proxies ask, which every server has to understand (RFC 9112, section 3.2.2)."""
    live = exchange(server.port, request("http://elsewhere.test:80/health/live", method="GET"))
    found = exchange(server.port, request("http://elsewhere.test/detect?threshold=0.5", picture(7)))
    assert live is not None
    assert live.status_code == 200
    assert found is not None
    assert identity_of(found.json()) == 7


@pytest.mark.row(id="S3")
@pytest.mark.parametrize("rest", [b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", BOTH + b"\r\nGARBAGE\r\n\r\n"])
def test_a_request_that_breaks_half_way_is_answered_once(start: Scripted, rest: bytes) -> None:
    """Also where the client then keeps its connection open and says no more."""
    with start("--body-timeout-ms", "300") as server:
        with connect(server.port) as connection:
            connection.sendall(HEAD + rest)
            answer = read_answer(connection)
            assert answer is not None
            assert answer.status_code == 400
            assert is_closed(connection)
            until(lambda: server.samples()["detr_requests_in_flight"] == 1)  # the scrape itself
        assert server.errors() == []


@pytest.mark.row(id="S3")
def test_a_thousand_headers_are_too_many(server: ServerProcess) -> None:
    headers = {f"X-{number}": "y" * 40 for number in range(1000)}
    answer = exchange(server.port, request("/model", method="GET", headers=headers))
    assert answer is not None
    check_refusal(BadRequest("1000 headers", b""), answer)
    assert answer.status_code == 431


@pytest.mark.row(id="S7")
def test_no_method_on_any_route_is_a_failure_of_ours(server: ServerProcess) -> None:
    for path in ROUTES:
        for method in METHODS:
            for body in (b"", picture(1), b"\xff" * 1000):
                length = {} if method == "POST" else {"Content-Length": str(len(body))}
                with connect(server.port) as connection:
                    connection.sendall(request(path, body, method=method, headers=length))
                    status = int(connection.recv(4096).split()[1])
                assert status == 200 or status in REFUSALS, f"{method} {path}: {status}"
    assert server.errors() == []


@pytest.mark.row(id="S7")
@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.soak)])
def test_random_bytes_are_no_request(server: ServerProcess, count: int) -> None:
    dice = random.Random(0)
    whole = [request(path, picture(1)) for path in ("/detect", "/segment?threshold=0.5")] + [HEAD + BOTH]
    for sent in mutations(whole, count, seed=1):
        sent = dice.randbytes(200) if dice.random() < 0.2 else sent
        with connect(server.port) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)  # nothing more comes, so nobody has to wait for a deadline
            answer = connection.recv(4096)
        assert not answer or int(answer.split()[1]) < 500, sent
    assert server.errors() == []


@pytest.mark.row(id="M4")
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.soak)])
def test_no_client_makes_a_new_series(server: ServerProcess, measured: Measured, count: int) -> None:
    dice = random.Random(0)

    def odd(number: int) -> bytes:
        path = dice.choice(["/detect", "/segment", f"/{number}", f"/model/{number}", "/health/live"])
        headers = {f"X-{number}": str(number), "X-Request-ID": f"id-{number}", "Origin": f"http://{number}.test"}
        content_type = f"image/{number}"
        body = picture(number) if path in ("/detect", "/segment") else b""
        method = "POST" if body else dice.choice(["GET", "PUT", f"M{number}"])
        return request(f"{path}?a{number}=1" if number % 2 else path, body, method=method, content_type=content_type,
                       headers=headers)  # fmt: skip

    for path, method in itertools.product(ROUTES, ("GET", "POST")):
        exchange(server.port, request(path, picture(1), method=method))
    for number in range(100):  # every kind once
        exchange(server.port, odd(number))
    server.samples()  # the first scrape is a new series itself
    before = server.samples()
    for number in range(100, 100 + count):
        exchange(server.port, odd(number))
    after = server.samples()
    size = len(server.lonely.get(f"{server.url}/metrics").content)
    assert after.keys() == before.keys()
    measured("M4", f"{count} odd requests: {len(after)} series before and after, {size / 1000:.0f} KB")
    assert len(after) <= 300
    assert size <= 100_000


def drip(server: ServerProcess, body: bytes, length: int = 1) -> httpx.Response:
    """What an upload in chunks of so many bytes is answered."""
    with connect(server.port) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have seen enough
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            chunks = [b"%x\r\n%b\r\n" % (length, body[at : at + length]) for at in range(0, len(body), length)]
            for at in range(0, len(chunks), 1000):
                connection.sendall(b"".join(chunks[at : at + 1000]))
            connection.sendall(b"0\r\n\r\n")
        answer = read_answer(connection)
        assert answer is not None
        return answer


@pytest.mark.row(id="S2")
def test_a_body_in_small_chunks_is_refused(server: ServerProcess) -> None:
    refused = drip(server, bytes(20_000))
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "bad_request"
    assert "small pieces" in refused.json()["error"]["message"]
    assert server.errors() == []


@pytest.mark.row(id="S2")
def test_a_body_that_begins_in_small_chunks_is_read(server: ServerProcess) -> None:
    small = picture(7)
    assert len(small) < 4096
    for body, length in ((small, 1), (small + bytes(200 * 5000 - len(small)), 200)):
        assert identity_of(drip(server, body, length).json()) == 7


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.row(id="S2")
def test_twenty_bodies_in_a_million_small_chunks_leave_no_memory_behind(start: Scripted, measured: Measured) -> None:
    with start(*PATIENT) as server:
        for _ in range(4):
            drip(server, bytes(1_000_000))
        until(lambda: server.samples()["detr_requests_in_flight"] == 1)
        before = server.rss()
        statuses = Counter(drip(server, bytes(1_000_000)).status_code for _ in range(20))
        until(lambda: server.samples()["detr_requests_in_flight"] == 1)
        grown = server.rss() - before
        assert server.errors() == []
    measured("S2", f"20 x 1,000,000 chunks: {dict(statuses)}, RSS {grown / 2**20:+.2f} MiB")
    assert set(statuses) <= {400}
    assert grown <= 2**20
