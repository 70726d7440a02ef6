"""Fetching the pictures of Label Studio's tasks, from it and from the places that are named beside it.

Whoever may ask for predictions names the URLs, so this is bounded: only origins of the list are asked, redirects
included; what is fetched counts as an upload does, in bytes and in time; the token goes to Label Studio and, there, to
files only; and nobody is told more than that it failed.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Collection
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote

import httpx

from service.errors import PictureFetchError, UploadTimeoutError, UploadTooLargeError
from service.lifecycle.uploads import Upload

logger = logging.getLogger(__name__)

_MOST_REDIRECTS = 3
# What Label Studio has the files of tasks under: uploads, local files, and what it knows of other storages.
_FILES = re.compile(
    r"/data/(upload|local-files)/|/(tasks|projects)/[0-9]+/(presign|resolve)/$|/storage-data/uploaded/$"
)
_STORAGES = ("s3", "gs", "azure-blob", "redis")  # schemes of URIs that Label Studio itself follows
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class PictureFetcher:
    """Fetches pictures by what a task says of them."""

    def __init__(
        self, label_studio: str, origins: Collection[str], api_key: str | None, seconds: float, most_bytes: int
    ):
        """Fetch from an address of Label Studio, and from more origins.

        Args:
            label_studio: its URL.
            origins: from which its tasks may have pictures, too; redirects may lead there.
            api_key: an access token of Label Studio, of the old kind or of the new one (personal access token).
            seconds: that a picture may take.
            most_bytes: that it may have.
        """
        self._home = httpx.URL(label_studio.rstrip("/") + "/")
        self._origins = {_origin(httpx.URL(each)) for each in (label_studio, *origins)}
        self._api_key = api_key
        self._access = ""  # what a personal access token was exchanged for
        self._seconds = seconds
        self._most_bytes = most_bytes
        # Whatever a server sends is taken as it is: a picture in transit may not grow when it is unpacked.
        self._client = httpx.AsyncClient(timeout=seconds, headers={"accept-encoding": "identity"})
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, source: str, task: Any, picture: Upload) -> None:
        """Receive a picture.

        Args:
            source: what the task has: a URL, a path of Label Studio, or a URI of a storage that it knows.
            task: the task's id.
            picture: takes the bytes.

        Raises:
            PictureFetchError, UploadTooLargeError, UploadMemoryError: why not.
            DrainingError: the service ends before it has come.
        """
        try:
            async with picture.deadline(self._seconds):
                await self._follow(self._url(source, task), picture)
        except UploadTimeoutError:
            raise PictureFetchError(f"a picture took longer than {1000 * self._seconds:g} ms to come") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.warning("a picture of Label Studio's cannot be fetched: %s", type(error).__name__)
            raise PictureFetchError("a picture's server cannot be reached, or does not answer as one") from None

    def _url(self, source: str, task: Any) -> httpx.URL:
        scheme, separator, _ = source.partition("://")
        if separator and scheme in _STORAGES and isinstance(task, int):
            uri = base64.urlsafe_b64encode(source.encode()).decode()
            return self._home.join(f"tasks/{task}/presign/").copy_with(params={"fileuri": uri})
        if not separator and not source.startswith("/"):
            raise PictureFetchError("a picture is neither a URL nor a path of Label Studio")
        return self._home.join(source)

    async def _follow(self, url: httpx.URL, picture: Upload) -> None:
        renewed = False
        for _ in range(_MOST_REDIRECTS + 2):
            self._check(url)
            async with self._client.stream("GET", url, headers=await self._headers(url)) as response:
                if response.has_redirect_location:
                    url = url.join(response.headers["location"])
                elif response.status_code == 401 and self._access and not renewed:
                    self._access, renewed = "", True
                else:
                    await self._receive(response, picture)
                    return
        raise PictureFetchError("a picture's server redirects too often")

    def _check(self, url: httpx.URL) -> None:
        if url.userinfo or _origin(url) not in self._origins:
            raise PictureFetchError(
                "a picture is not on a server that pictures are fetched from (label_studio_url, label_studio_origins)"
            )

    async def _headers(self, url: httpx.URL) -> dict[str, str]:
        """Label Studio's token, where the URL is of one of its files."""
        path = unquote(url.path)
        is_file = _FILES.search(path) and ".." not in path.split("/")
        if self._api_key is None or not is_file or _origin(url) != _origin(self._home):
            return {}
        if not _JWT.fullmatch(self._api_key):
            return {"authorization": f"Token {self._api_key}"}
        if not self._access:
            answer = await self._client.post(self._home.join("api/token/refresh"), json={"refresh": self._api_key})
            access = answer.json().get("access") if answer.status_code == 200 else None
            if not isinstance(access, str):
                raise PictureFetchError("Label Studio does not accept the service's token (label_studio_api_key)")
            self._access = access
        return {"authorization": f"Bearer {self._access}"}

    async def _receive(self, response: httpx.Response, picture: Upload) -> None:
        if response.status_code != 200:
            may_not = response.status_code in (401, 403)
            hint = "; label_studio_api_key has to be a token of a user who may see it" if may_not else ""
            raise PictureFetchError(f"a picture's server answered {response.status_code}{hint}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PictureFetchError("a picture's server compresses it")
        async for chunk in response.aiter_raw():
            if len(picture) + len(chunk) > self._most_bytes:
                raise UploadTooLargeError(f"a picture has more than {self._most_bytes} bytes")
            await picture.append(chunk)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port  # None is the scheme's own
