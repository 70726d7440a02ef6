"""Fuzzing of everything that touches an upload's bytes before the network does: decode, turn, resize.

    python -m tests.reliability.fuzz_decode --seconds 600

Guided by coverage where atheris is installed; libFuzzer's own options may follow. What it finds is written down as a
file, whose path is among the last lines.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "service", "model.runtime"]):
    from PIL import Image, ImageFile, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    from tests.reliability.fuzz_target import check, seeds

MAX_BYTES = 200_000
RSS_LIMIT_MB = 2048


def main() -> None:
    """Fuzz until the time is over, or something is found."""
    parser = argparse.ArgumentParser(prog="fuzz_decode", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    arguments, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, seed in seeds().items():
            Path(folder, name.replace(" ", "-")).write_bytes(seed)
        options = [f"-max_total_time={arguments.seconds}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={RSS_LIMIT_MB}"]
        atheris.Setup([sys.argv[0], *options, "-timeout=20", "-print_final_stats=1", *rest, folder], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
