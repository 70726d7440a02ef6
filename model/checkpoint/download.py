"""Downloads of published files, each checked against the digits of its SHA-256 that are in its name."""

from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError

import torch.hub

from model.checkpoint.digests import sha256_of


class DownloadError(OSError):
    """A published file that could not be downloaded; the message says what failed and for which address."""


def download(url: str, path: Path, digits: str, *, progress: bool = False) -> Path:
    """Download `url` to `path`, unless the file is there already, and return `path`.

    The file appears under its name only when it is whole and its SHA-256, hexadecimal, begins with `digits`.
    With `progress` a bar on standard error tells how far it is. Raises DownloadError where the server does not
    give the file, what it gives has another digest, or it cannot be written.
    """
    if path.is_file() and sha256_of(path).startswith(digits):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digits, progress=progress)
    except HTTPError as error:
        error.close()
        raise DownloadError(f"{url}: the server answered {error.code} {error.reason}") from error
    except URLError as error:
        raise DownloadError(f"{url}: {error.reason}") from error
    except RuntimeError as error:
        raise DownloadError(f"{url}: what arrived is incomplete or another file: {error}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(f"{url}: {error}") from error
    return path
