"""Requests that nobody should send: broken images, odd forms, lies, and attempts to get something out."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from tests.reliability.raw_http import request
from tests.reliability.scripted_engine import picture

BOUNDARY = "boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
ROUTES = ("/detect", "/segment", "/model", "/health/live", "/health/ready", "/v2/health/live", "/metrics", "/", "/docs",
          "/openapi.json", "/nothing")  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@dataclass(frozen=True)
class BadRequest:
    """A request's bytes, and what they are about."""

    name: str
    sent: bytes


def part(disposition: str, content: bytes = b"", headers: str = "") -> bytes:
    """One part of a form, without the form's end."""
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n{headers}\r\n"
    return head.encode("latin-1") + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


IMAGE = 'form-data; name="image"; filename="a.png"'
OTHER = 'form-data; name="file"'


def odd_forms() -> dict[str, bytes]:
    """Bodies of multipart/form-data with `BOUNDARY` as their boundary, none of which holds a picture as it should."""
    png = picture(1)
    good = form(part(IMAGE, png))
    return {
        "nothing": b"",
        "no form": b"hello",
        "only an end": form(),
        "no end": good[:-10],
        "cut in a header": good[:50],
        "another boundary": good.replace(BOUNDARY.encode(), b"other"),
        "line feeds only": good.replace(b"\r\n", b"\n"),
        "no disposition": f"--{BOUNDARY}\r\n\r\n".encode() + png + f"\r\n--{BOUNDARY}--\r\n".encode(),
        "no name": form(part('form-data; filename="a.png"', png)),
        "another name": form(part(OTHER, png)),
        "name in capitals": form(part('form-data; name="IMAGE"', png)),
        "17 images": form(*[part(IMAGE, png)] * 17),
        "a field beside it": form(part(IMAGE, png), part('form-data; name="threshold"', b"0.5")),
        "1001 fields": form(*[part(f'form-data; name="f{number}"') for number in range(1001)]),
        "100 headers": form(part(IMAGE, png[:9], "".join(f"X-{number}: y\r\n" for number in range(100)))),
        "a long header": form(part(IMAGE, png[:9], f"X: {'y' * 5000}\r\n")),
        "a long name": form(part(f'form-data; name="{"n" * 9000}"', png)),
        "text named like the file": form(part('form-data; name="image"', b"t" * 2_000_000)),
        "an empty file": form(part(IMAGE)),
        "a name with NUL": form(part('form-data; name="image\0"', png)),
        "an unfinished quote": form(part('form-data; name="image', png)),
        "a huge charset": form(part("form-data; name*=utf-8''%FF%FE", png)),
        "nested": form(part(IMAGE, form(part(OTHER, png)), "Content-Type: multipart/mixed; boundary=boundary\r\n")),
        "base64": form(part(IMAGE, b"aGVsbG8=", "Content-Transfer-Encoding: base64\r\n")),
        "a preamble": b"preamble\r\n" * 100 + form(part(IMAGE, b"no picture")),
        "many boundaries": f"--{BOUNDARY}\r\n".encode() * 5000,
        "many dashes": b"-" * 100_000,
        "many line feeds": b"\r\n" * 50_000,
    }


def mutations(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Bodies like the seeds, with pieces cut, doubled, exchanged and changed."""
    dice = random.Random(seed)
    for number in range(count):
        body = bytearray(seeds[number % len(seeds)])
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(body) + 1)
            match dice.randrange(5):
                case 0:
                    del body[at : at + dice.randint(1, 40)]
                case 1:
                    body[at:at] = dice.choice([b"\r\n", b"--boundary", b"\0", b'"', b";", b"\xff" * 9, b"Content-"])
                case 2:
                    body[at:at] = body[max(0, at - dice.randint(1, 60)) : at]
                case 3 if body:
                    body[at % len(body)] = dice.randrange(256)
                case _:
                    other = dice.choice(seeds)
                    body[at:] = other[dice.randrange(len(other) + 1) :][:100_000]
        yield bytes(body)


def broken_pictures() -> dict[str, bytes]:
    """What is no picture, or not quite."""
    whole = {name: picture(2, (90, 70), name) for name in ("PNG", "JPEG", "WEBP")}
    found = {f"{name} cut at {share} %": data[: len(data) * share // 100] for name, data in whole.items()
             for share in (1, 30, 60)}  # fmt: skip
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    large = io.BytesIO()
    Image.new("1", (9000, 9000)).save(large, "PNG")
    return found | {
        "text": b"hello",
        "a script": b"<script>alert(1)</script>",
        "an address": b"http://169.254.169.254/latest/meta-data",
        "a path": b"../../../../etc/passwd",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "GIF": gif.getvalue(),
        "PDF": b"%PDF-1.7\n",
        "a pickle": b"\x80\x04\x95" + bytes(100),
        "zeros": bytes(5000),
        "81 megapixels": large.getvalue(),
    }


def corpus() -> Iterator[BadRequest]:
    """All of it, as whole requests to either endpoint; none is to be answered with a success or a failure of ours."""
    for path in ("/detect", "/segment"):
        for name, body in broken_pictures().items():
            yield BadRequest(f"{path} {name}", request(path, body))
            yield BadRequest(f"{path} {name} in a form", request(path, form(part(IMAGE, body)), content_type=FORM))
        for name, body in odd_forms().items():
            yield BadRequest(f"{path} form: {name}", request(path, body, content_type=FORM))
        for name, content_type in {
            "no boundary": "multipart/form-data",
            "an empty boundary": "multipart/form-data; boundary=",
            "a long boundary": f"multipart/form-data; boundary={'b' * 300}",
            "a boundary with NUL": "multipart/form-data; boundary=a\x7fb",
            "JSON": "application/json",
            "no type": "",
            "a long type": "image/" + "x" * 5000,
        }.items():
            yield BadRequest(f"{path} type: {name}", request(path, form(part(IMAGE, b"x")), content_type=content_type))
        for query in ("threshold=nan", "threshold=inf", "threshold=1e309", "threshold=-1", "threshold=", "a=b",
                      "threshold=%D9%A0", "threshold=0.1&threshold=0.2", "threshold=" + "1" * 10_000,
                      "threshold=%0d%0aERROR", "%00=%00", "threshold[]=1"):  # fmt: skip
            yield BadRequest(f"{path}?{query[:30]}", request(f"{path}?{query}", picture(1)))
        yield BadRequest(f"{path} gzip", request(path, picture(1), headers={"Content-Encoding": "gzip"}))
        yield BadRequest(f"{path} claims 1 GB", request(path, b"0123456789", length=10**9))
    for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/detect%00", "/detect/", "//detect", "/\xff"):
        yield BadRequest(path, request(path, method="GET"))
    evil = {"X-Request-ID": "a ERROR forged \x1b[31m", "User-Agent": "agent-" + "x" * 3000}
    yield BadRequest("evil headers", request("/nothing", method="GET", headers=evil))
