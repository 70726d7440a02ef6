import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from model.checkpoint.digests import sha256_of
from model.checkpoint.errors import CheckpointError
from model.checkpoint.folder import pickled_files, safetensors_files
from model.checkpoint.reading import read_checkpoint


def test_weights_that_are_spread_over_several_files_are_read_as_one(tmp_path: Path, their_detector: Any) -> None:
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    their_detector.save_pretrained(whole)
    their_detector.save_pretrained(spread, max_shard_size="20MB")
    files = safetensors_files(spread)
    assert len(files) > 1
    found, expected = read_checkpoint(spread), read_checkpoint(whole)
    assert found.config == expected.config
    assert found.state_dict.keys() == expected.state_dict.keys()
    assert all(torch.equal(found.state_dict[key], tensor) for key, tensor in expected.state_dict.items())
    assert found.sha256 == sha256_of(*files) != expected.sha256
    assert read_checkpoint(spread / "model.safetensors.index.json").config == expected.config


def test_pickles_that_are_spread_over_several_files_are_read_as_one(tmp_path: Path, their_detector: Any) -> None:
    their_detector.save_pretrained(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {key: f"pytorch_model-0000{number % 2}.bin" for number, key in enumerate(sorted(state))}
    for name in set(names.values()):
        torch.save({key: state[key] for key in state if names[key] == name}, tmp_path / name)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")
    assert len(pickled_files(tmp_path)) == 2
    assert len(read_checkpoint(tmp_path).state_dict) > 100


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ({"weight_map": {"a": "model-1.safetensors"}}, "names what is missing: model-1.safetensors"),
        ({"weight_map": {"a": "../model.safetensors"}}, "has no weight_map with names of files beside it"),
        ({"weight_map": {"a": ".."}}, "has no weight_map with names of files beside it"),
        ({"weight_map": {}}, "has no weight_map with names of files beside it"),
        ({"weight_map": [1]}, "has no weight_map with names of files beside it"),
        ({}, "has no weight_map with names of files beside it"),
        ([], "holds no JSON object"),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, index: Any, reason: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors\.index\.json {reason}"):
        read_checkpoint(tmp_path)


def test_a_folder_without_weights_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it is a folder without model\.safetensors, .* or pytorch_model\.bin"):
        read_checkpoint(tmp_path)


def test_a_snapshot_of_the_hub_is_called_as_its_repository(tmp_path: Path, their_detector: Any) -> None:
    snapshot, blobs = tmp_path / "models--me--detr" / "snapshots" / "abc123", tmp_path / "models--me--detr" / "blobs"
    their_detector.save_pretrained(blobs)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(blob)
    assert read_checkpoint(snapshot).source == "me/detr"
