"""Fuzzing of everything that touches an upload's bytes before the network does: decode, turn, resize.

    python -m tests.reliability.fuzz_decode --seconds 600
    python -m tests.reliability.fuzz_decode --seconds 600 --opened

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

    from tests.reliability.fuzz_target import LIMITS, check, seeds, seeds_of_opened, with_all_formats

MAX_BYTES = 200_000
RSS_LIMIT_MB = 2048


def main() -> None:
    """Fuzz until the time is over, or something is found."""
    parser = argparse.ArgumentParser(prog="fuzz_decode", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--opened", action="store_true", help="Begin at the formats that --formats opens, all opened.")
    arguments, rest = parser.parse_known_args()
    limits = with_all_formats() if arguments.opened else LIMITS
    with tempfile.TemporaryDirectory() as folder:
        for name, seed in (seeds_of_opened() if arguments.opened else seeds()).items():
            Path(folder, name.replace(" ", "-")).write_bytes(seed)
        options = [f"-max_total_time={arguments.seconds}", f"-max_len={MAX_BYTES}", f"-rss_limit_mb={RSS_LIMIT_MB}"]
        atheris.Setup(
            [sys.argv[0], *options, "-timeout=20", "-print_final_stats=1", *rest, folder],
            lambda data: check(data, limits),
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
