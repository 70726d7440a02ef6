"""The command `detr fetch`: a model is downloaded by its name, checked, and made the one file that is served.

A name on the hub needs no torch; the authors' own files are pickles, which only torch reads.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from model.checkpoint import published
from model.hub.cache import ArtifactCache, default_cache
from model.hub.finding import find_on_hub
from model.hub.names import HubError, read_name
from model.runtime.installing import needs
from model.runtime.whole_file import whole_file

BASE_URL = "https://dl.fbaipublicfiles.com/detr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr fetch`."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="Fetch this model: OWNER/NAME or OWNER/NAME@REVISION on the Hugging Face hub (detr models lists some), or "
        f"one of the authors' own files, which need PyTorch: {', '.join(published.FILES)}.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="Write the artifact to this file. The default is the cache, or DIR/NAME.onnx for the authors' files.",
    )
    hub = parser.add_argument_group("names on the hub")
    hub.add_argument("--revision", metavar="TEXT", help="Fetch this branch, tag or commit. The default is main.")
    hub.add_argument(
        "--model-cache",
        type=Path,
        default=default_cache(),
        metavar="DIR",
        help="Keep the artifact in this folder, where detr serve looks for it. The default is %(default)s.",
    )
    authors = parser.add_argument_group("the authors' files")
    authors.add_argument(
        "--directory",
        type=Path,
        default=Path("checkpoints"),
        metavar="DIR",
        help="Download to this folder. The default is %(default)s.",
    )
    authors.add_argument(
        "--base-url",
        default=BASE_URL,
        metavar="URL",
        help="Download from this address or a mirror of it. The default is %(default)s.",
    )
    authors.add_argument("--no-export", action="store_true", help="Download and check the model, and export nothing.")


def run(args: argparse.Namespace) -> None:
    """Carry out `detr fetch`. A download, an import or an export that fails ends in one clear line."""
    if args.name in published.FILES:
        try:
            _fetch_published(args)
        except ModuleNotFoundError as error:
            raise SystemExit(needs(f"detr fetch {args.name}", error)) from None
    else:
        try:
            _fetch_from_hub(args)
        except (HubError, OSError) as error:
            raise SystemExit(f"detr fetch: {error}") from error


def fetch(name: str, directory: Path, base_url: str = BASE_URL, progress: bool = False) -> Path:
    """Download the published model `name` into `directory`, unless it is there, and return its path.

    The file appears under its name only when it is whole and its SHA-256 begins with the digits in that name.
    Raises ValueError where the name is unknown, and DownloadError where the server does not give the file or what
    it gives has another digest.
    """
    from model.checkpoint.download import download

    if name not in published.FILES:
        raise ValueError(f"no published model is called {name!r}; there are {', '.join(published.FILES)}")
    file_name = published.FILES[name]
    url = f"{base_url.rstrip('/')}/{file_name}"
    return download(url, directory / file_name, published.digest_prefix(name), progress=progress)


def _fetch_published(args: argparse.Namespace) -> None:
    from model.checkpoint.download import DownloadError
    from model.export import export_file

    try:
        checkpoint = fetch(args.name, args.directory, args.base_url, progress=True)
    except DownloadError as error:
        raise SystemExit(f"detr fetch: {error}") from error
    print(f"{checkpoint}: SHA-256 begins with {published.digest_prefix(args.name)}, as published")
    if not args.no_export:
        export_file(checkpoint, args.out or args.directory / f"{args.name}.onnx", preset=args.name)


def _fetch_from_hub(args: argparse.Namespace) -> None:
    name = read_name(args.name, args.revision)
    if name is None:
        raise HubError(
            f"{args.name} is neither OWNER/NAME, as models on the hub are called (see detr models), nor one of the "
            f"authors' files: {', '.join(published.FILES)}"
        )
    artifact = find_on_hub(name, ArtifactCache(args.model_cache))
    provenance = artifact.metadata.provenance
    print(f"{name}: commit {provenance.get('revision')}, weights of SHA-256 {provenance.get('sha256')}")
    if args.out is None:
        print(f"{artifact.path} ({len(artifact.data) / 1e6:.1f} MB): serve it with detr serve --model {name}")
    else:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(args.out) as unfinished:
            shutil.copyfile(artifact.path, unfinished)
        print(f"wrote {args.out} ({len(artifact.data) / 1e6:.1f} MB)")
