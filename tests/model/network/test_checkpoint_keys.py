import json
from pathlib import Path

import pytest
import torch

from model.checkpoint.published import FILES, digest_prefix, preset_of_digest
from model.network.build import build_model
from model.network.config import PRESETS

KEYS = json.loads((Path(__file__).parents[2] / "parity" / "checkpoint_keys.json").read_text(encoding="utf-8"))


def test_every_published_model_has_its_keys_listed_and_a_preset() -> None:
    assert set(KEYS) == set(FILES) == set(PRESETS) - {"detr-demo", "table-transformer"}


@pytest.mark.parametrize("preset", FILES)
def test_a_preset_has_exactly_the_keys_and_shapes_of_the_published_file(preset: str) -> None:
    with torch.device("meta"):
        state = build_model(PRESETS[preset]).state_dict()
    assert {key: list(tensor.shape) for key, tensor in state.items()} == KEYS[preset]


def test_a_digest_is_recognized_by_the_digits_in_the_file_name() -> None:
    assert digest_prefix("detr-resnet-50-dc5-panoptic") == "da08f1b1"
    assert preset_of_digest("a2e86def" + "0" * 56) == "detr-resnet-101-dc5"
    assert preset_of_digest("0" * 64) is None
