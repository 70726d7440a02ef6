"""What is served in chaos: a scripted engine's answers, or those of a network on a real engine with scripted faults."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from model.data.shapes.scene import draw_scene, sample_scene
from service.settings import DEMO_MODEL
from tests.reliability.scripted_engine import colour_of, picture
from tests.tiny_artifact import write_tiny_artifact


@dataclass(frozen=True)
class Subject:
    """A model behind the scripted server, and what it is asked."""

    artifact: Path
    options: tuple[str, ...]  # of the scripted server
    script: Mapping[str, Any]
    paths: Mapping[str, float]  # what is asked for, with the threshold of the answers
    picture: Callable[[int, tuple[int, int], str], bytes]  # of an identity, of about a size, in a format
    pause_s: float  # between events, in the mean
    is_scripted: bool  # so that answers are exact, and threads and memory are the service's own


def scripted_subject(folder: Path) -> Subject:
    """A scripted engine. Files go to the folder."""
    paths = {"/detect": 0.5, "/segment": 0.5, "/segment?overlay=true": 0.5, "/detect?threshold=0.9": 0.9}
    artifact = write_tiny_artifact(folder / "tiny.onnx", "panoptic")
    script = {"delay_ms": 10, "delay_per_image_ms": 2}
    return Subject(artifact, (), script, paths, picture, pause_s=0.5, is_scripted=True)


def network_subject(device: str, precision: str, artifact: Path | None = None) -> Subject:
    """A network, by default the demo model's, on an engine as users have it."""
    options = ("--network", "--device", device, "--precision", precision)
    # At a low threshold there are many objects of which the model is unsure. Of pictures no digits are promised.
    paths = {"/detect": 0.5, "/segment": 0.5, "/detect?threshold=0.1": 0.1}
    # A network takes seconds to be ready again, and there are to be answers between the events.
    return Subject(artifact or DEMO_MODEL, options, {}, paths, scene, pause_s=3, is_scripted=False)


def scene(identity: int, size: tuple[int, int], image_format: str) -> bytes:
    """A picture of things and stuff, whose upper left corner is of the identity's colour."""
    pixels = draw_scene(sample_scene(1, identity % 2**31), min(size)).image.copy()
    corner = max(4, min(size) // 8)
    pixels[:corner, :corner] = np.array(colour_of(identity), np.uint8)
    buffer = io.BytesIO()
    options = {"lossless": True} if image_format == "WEBP" else {}
    Image.fromarray(pixels).save(buffer, format=image_format, **options)
    return buffer.getvalue()
