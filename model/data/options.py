"""The options with which commands name a data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.data.formats.folders import DATASET_KINDS, DATASET_KINDS_IN_WORDS, NamedFiles, Split, find_split

DEFAULT_SPLIT = "val"


def add_kind_argument(parser: argparse.ArgumentParser, *, required: bool = True, default: str = "") -> None:
    """Declare the option for the kind of data; `default` says what is done without it."""
    parser.add_argument(
        "--data",
        choices=DATASET_KINDS,
        required=required,
        help=f"Read this kind of data set: {DATASET_KINDS_IN_WORDS}. {default}".strip(),
    )


def add_kind_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare the options for the kind of data and its folder."""
    add_kind_argument(parser, required=required)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="Read the data set in this folder, as the annotation tool wrote it.",
    )


def add_file_arguments(
    parser: argparse.ArgumentParser, *, prefix: str = "", images: str = "images", of: str = "the annotations"
) -> None:
    """Declare the options that name a split's files where they lie in no known layout."""
    parser.add_argument(
        f"--{prefix}annotations",
        type=Path,
        metavar="FILE",
        help=f"Read {of} in this file, and look for none in the folder.",
    )
    parser.add_argument(
        f"--{prefix}{images}",
        type=Path,
        metavar="DIR",
        help="Read the pictures of those annotations in this folder. The default is where they are found, in the "
        "folder of the data set or beside the annotations.",
    )


def add_split_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the option that names a split."""
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="Measure on this split: train, val, test, or as the folder calls it. Where the folder has no val, it is "
        f"the tenth of the pictures that training keeps for it. The default is {DEFAULT_SPLIT}; with --annotations it "
        "is all that is annotated there.",
    )


def split_of(args: argparse.Namespace, *, images: str = "images") -> Split:
    """The split that the options mean. Raises what `find_split` does."""
    named = NamedFiles(args.annotations, getattr(args, images))
    split = args.split or (None if args.annotations else DEFAULT_SPLIT)
    return find_split(args.data, args.root, split, named)
