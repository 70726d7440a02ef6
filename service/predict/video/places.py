"""Where the answers of videos and the annotated videos go, and in which form."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.predict.results import Places
from service.predict.video.files import VideoFile


@dataclass(frozen=True)
class VideoPlaces(Places):
    """Places of which answers say themselves from which video they are."""

    @classmethod
    def of_videos(cls, args: argparse.Namespace, videos: Sequence[VideoFile]) -> VideoPlaces:
        """The places that were asked for; a line for each frame unless a list was. Raises what `of` does."""
        places = cls.of(args, videos, ".mp4")
        is_list = places.json is not None and places.json.suffix == ".json"
        return replace(places, form=args.format or ("json" if is_list else "jsonl"))

    def _entries(self) -> Callable[[int, Any], Sequence[Mapping[str, Any]]]:
        return lambda _, entries: entries
