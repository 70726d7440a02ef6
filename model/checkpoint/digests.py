"""The digest by which the files of a checkpoint are known."""

import hashlib
from pathlib import Path


def sha256_of(*paths: Path) -> str:
    """The SHA-256 of a file, hexadecimal, or of several as if they were one."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()
