"""Formats that are asked for by a setting: what is missing for them is told at the start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.lifecycle.loading import load_model
from service.settings import SettingsError, read_settings


def test_a_package_that_a_format_takes_is_told_before_the_model_loads(
    panoptic_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    settings = read_settings({"model": str(panoptic_artifact), "device": "cpu", "formats": "gif, heic"})
    with pytest.raises(SettingsError, match=r"^DETR_FORMATS \(--formats\): the format heic takes .*\[heic\]'?$"):
        load_model(settings)


def test_a_format_that_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="there is no 'heif'; use avif, bmp, gif, heic, tiff"):
        read_settings({"formats": "heif"})
