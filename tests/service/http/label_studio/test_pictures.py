"""Pictures are fetched from Label Studio and from what is named beside it, and from nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from service.errors import PictureFetchError, ServiceError, UploadMemoryError, UploadTooLargeError
from service.http.label_studio.pictures import PictureFetcher
from service.lifecycle.uploads import UploadMemory

pytestmark = pytest.mark.anyio

PICTURE = b"picture" * 100
PERSONAL = "head.claims.signature"


@dataclass
class Site:
    """A server that has a picture at most paths, and what it was asked."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and Authorization
    cookies: list[str] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)  # by path
    tokens: list[str] = field(default_factory=list)  # that are accepted, if any are wanted; the first is given out
    pictures: dict[str, bytes] = field(default_factory=dict)  # by path, others than PICTURE
    end: Event = field(default_factory=Event)


@contextmanager
def site() -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = self.headers.get("authorization", "")
            found.asked.append((self.path, token))
            found.cookies.append(self.headers.get("cookie", ""))
            if self.path in found.redirects:
                self.answer(303, b"", Location=found.redirects[self.path])
            elif found.tokens and token.removeprefix("Bearer ") not in found.tokens:
                self.answer(401, b"")
            elif self.path == "/never":
                found.end.wait(10)
            elif self.path == "/packed":
                self.answer(200, PICTURE, **{"Content-Encoding": "gzip"})
            else:
                self.answer(404 if self.path == "/missing" else 200, found.pictures.get(self.path, PICTURE))

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append((self.path, sent["refresh"]))
            self.answer(200, json.dumps({"access": found.tokens[0]}).encode())

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body)), "Set-Cookie": "session=1"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.end.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def home() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture
def other() -> Iterator[Site]:
    with site() as found:
        yield found


async def fetched(
    source: str,
    home: Site,
    *origins: str,
    key: str | None = "token",
    seconds: float = 20,
    most: int = 1000,
    memory: int = 10_000,
) -> bytes:
    fetcher = PictureFetcher(home.url, origins, key, seconds, most)
    try:
        with UploadMemory(memory).upload("") as picture:
            await fetcher.fetch(source, 7, picture)
            return picture.body()
    finally:
        await fetcher.close()


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("/data/upload/1/a.jpg", "/data/upload/1/a.jpg"),
        ("{home}/data/upload/1/a%20b.jpg", "/data/upload/1/a%20b.jpg"),
        ("/data/local-files/?d=a/b.jpg", "/data/local-files/?d=a/b.jpg"),
        ("s3://bucket/a.jpg", "/tasks/7/presign/?fileuri=czM6Ly9idWNrZXQvYS5qcGc%3D"),
    ],
)
async def test_files_of_label_studio_are_fetched_with_the_token(home: Site, source: str, path: str) -> None:
    assert await fetched(source.format(home=home.url), home) == PICTURE
    assert home.asked == [(path, "Token token")]


@pytest.mark.parametrize(
    "path", ["/api/users/1", "/data/upload/../../api/users", "/data/upload/%2e%2e/%2e%2e/api", "/"]
)
async def test_what_is_no_file_of_a_task_is_asked_for_without_the_token(home: Site, path: str) -> None:
    await fetched(path, home)
    assert [token for _, token in home.asked] == [""]


async def test_a_personal_token_is_exchanged_and_renewed_when_it_has_expired(home: Site) -> None:
    fetcher = PictureFetcher(home.url, (), PERSONAL, 20, 1000)
    for home.tokens in (["first"], ["first"], ["second"]):
        with UploadMemory(10_000).upload("") as picture:
            await fetcher.fetch("/data/upload/a", 7, picture)
            assert picture.body() == PICTURE
    await fetcher.close()
    exchange = ("/api/token/refresh", PERSONAL)
    first, second = (("/data/upload/a", f"Bearer {token}") for token in ("first", "second"))
    assert home.asked == [exchange, first, first, first, exchange, second]
    assert set(home.cookies) == {""}


async def test_redirects_are_followed_to_origins_of_the_list_without_the_token(home: Site, other: Site) -> None:
    home.redirects["/data/upload/a"] = f"{other.url}/data/upload/b"
    assert await fetched("/data/upload/a", home, f"{other.url}/") == PICTURE
    assert other.asked == [("/data/upload/b", "")]
    assert await fetched(f"{other.url}/c", home, other.url) == PICTURE


@pytest.mark.parametrize(
    "source",
    [
        "{other}/a.jpg",
        "//{host}/a.jpg",
        "/data/upload/a",
        "http://user:word@{home_host}/a.jpg",
        "file:///etc/passwd",
        "ftp://{home_host}/a",
        "https://{home_host}/a",
        "http://127.0.0.1/a",
        "http://[::1/a",
        "http://a b/",
        "picture.jpg",
        "",
        "gopher:x",
    ],
)
async def test_nothing_else_is_asked_for(home: Site, other: Site, source: str) -> None:
    home.redirects["/data/upload/a"] = f"{other.url}/a.jpg"
    hosts = {"host": other.url[7:], "home_host": home.url[7:]}
    with pytest.raises(PictureFetchError) as refused:
        await fetched(source.format(other=other.url, **hosts), home)
    assert other.asked == []
    assert "127.0.0.1" not in str(refused.value)


async def test_redirects_end(home: Site) -> None:
    home.redirects["/a"] = "/a"
    with pytest.raises(PictureFetchError, match="redirects too often"):
        await fetched("/a", home)
    assert len(home.asked) <= 5


@pytest.mark.parametrize(
    ("source", "kind", "message", "options"),
    [
        ("/missing", PictureFetchError, "answered 404", {}),
        ("/packed", PictureFetchError, "compresses", {}),
        ("/never", PictureFetchError, "longer than 200 ms", {"seconds": 0.2}),
        ("/data/upload/a", UploadTooLargeError, "more than 699 bytes", {"most": 699}),
        ("/data/upload/a", UploadMemoryError, "too many uploads", {"memory": 699}),
    ],
)
async def test_what_is_fetched_is_bounded(
    home: Site, source: str, kind: type[ServiceError], message: str, options: dict[str, float]
) -> None:
    with pytest.raises(kind, match=message):
        await fetched(source, home, **options)  # type: ignore[arg-type]  # of two kinds


async def test_a_token_that_is_not_accepted_is_told(home: Site) -> None:
    home.tokens = ["another"]
    with pytest.raises(
        PictureFetchError, match="answered 401; label_studio_api_key has to be a token of a user who may"
    ):
        await fetched("/data/upload/a", home)


async def test_a_server_that_is_not_there_is_told_without_its_address(home: Site) -> None:
    with pytest.raises(PictureFetchError, match=r"^a picture's server cannot be reached, or does not answer as one$"):
        await fetched("http://127.0.0.1:9/a", home, "http://127.0.0.1:9")
