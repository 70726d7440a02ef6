"""The command `detr fetch`: a published model is downloaded, its SHA-256 checked, and exported."""

import argparse
from pathlib import Path

from model.checkpoint import published
from model.checkpoint.download import DownloadError, download
from model.export import export_file

BASE_URL = "https://dl.fbaipublicfiles.com/detr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr fetch`."""
    parser.add_argument(
        "name", choices=published.FILES, metavar="NAME", help=f"Fetch this model: {', '.join(published.FILES)}."
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="Download to this folder. The default is %(default)s.",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Write the artifact to this file. The default is DIR/NAME.onnx."
    )
    parser.add_argument(
        "--base-url",
        default=BASE_URL,
        metavar="URL",
        help="Download from this address or a mirror of it. The default is %(default)s.",
    )
    parser.add_argument("--no-export", action="store_true", help="Download and check the model, and export nothing.")


def run(args: argparse.Namespace) -> None:
    """Carry out `detr fetch`. A download or an export that fails ends in one clear line."""
    try:
        checkpoint = fetch(args.name, args.directory, args.base_url, progress=True)
    except DownloadError as error:
        raise SystemExit(f"detr fetch: {error}") from error
    print(f"{checkpoint}: SHA-256 begins with {published.digest_prefix(args.name)}, as published")
    if not args.no_export:
        export_file(checkpoint, args.out or args.directory / f"{args.name}.onnx", preset=args.name)


def fetch(name: str, directory: Path, base_url: str = BASE_URL, progress: bool = False) -> Path:
    """Download the published model `name` into `directory`, unless it is there, and return its path.

    The file appears under its name only when it is whole and its SHA-256 begins with the digits in that name.
    Raises ValueError where the name is unknown, and DownloadError where the server does not give the file or what
    it gives has another digest.
    """
    if name not in published.FILES:
        raise ValueError(f"no published model is called {name!r}; there are {', '.join(published.FILES)}")
    file_name = published.FILES[name]
    url = f"{base_url.rstrip('/')}/{file_name}"
    return download(url, directory / file_name, published.digest_prefix(name), progress=progress)
