"""What trainers keep beside the weights is read without running it; what could run code is refused by name."""

import argparse
import datetime
import pathlib
import pickle
import sys
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict

from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import load_file
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.stand_ins import SettingsInFile, settings_of
from model.network.config import ModelConfig
from tests.model.checkpoint.test_checkpoint import SMALL, assert_equal, saved, state_of

TRAINING_STATE: dict[str, Any] = {
    "numbers": [np.float64(0.5), np.int64(3), np.bool_(True), np.float32(1), np.str_("a")],
    "arrays": {"figures": np.arange(3.0), "names": np.array(["a", None], dtype=object), "kind": np.dtype("f4")},
    "numpy_random": np.random.get_state(),
    "generator": np.random.default_rng(0),
    "paths": [Path("out"), pathlib.PurePosixPath("/data"), pathlib.PureWindowsPath("C:/data")],
    "dates": [datetime.datetime.now(datetime.UTC), datetime.timedelta(3), datetime.date(2024, 2, 29)],
    "containers": [
        defaultdict(dict, {"a": {}}),
        defaultdict(list),
        Counter("aab"),
        deque([1], maxlen=3),
        {1, 2},
        range(3),
    ],
    "settings": [argparse.Namespace(lr=1e-4, out=Path("out")), types.SimpleNamespace(a=1), AttributeDict(lr=0.1)],
    "plain": [{1, 2}, range(3), frozenset({1}), 1j, b"bytes", bytearray(b"b"), slice(1, 2)],
    "others": [uuid.UUID(int=3), Decimal("0.1")],
    "random": {"torch": torch.get_rng_state(), "python": (3, (1, 2), None)},
    "torch": torch.__version__,
    "kinds": [int, float, np.float32, dict],
}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_state_is_no_hindrance(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "last.ckpt"
    content = {"epoch": 3, "state_dict": state_of(SMALL), **TRAINING_STATE}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_equal(read_checkpoint(path).state_dict, state_of(SMALL))


def test_a_lightning_checkpoint_tells_the_network_by_its_hyperparameters(tmp_path: Path) -> None:
    state = {f"model.{key}": tensor for key, tensor in state_of(SMALL).items()}
    content = {
        "pytorch-lightning_version": "2.6.0",
        "state_dict": OrderedDict(state) | {"criterion.empty_weight": torch.ones(92)},
        "hyper_parameters": AttributeDict(nheads=4, hidden_dim=64, lr=1e-4),
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(1.0)}},
        "optimizer_states": [{"state": {}, "param_groups": []}],
    }
    checkpoint = read_checkpoint(saved(tmp_path / "last.ckpt", content))
    assert checkpoint.config.nheads == 4
    assert "left out, as it is of the loss: criterion.empty_weight" in checkpoint.notes
    assert_equal(checkpoint.state_dict, state_of(SMALL))


def test_settings_are_read_from_namespaces_and_dictionaries(tmp_path: Path) -> None:
    content = load_file(saved(tmp_path / "a.pth", {"args": argparse.Namespace(nheads=4, out=Path("x"))}))[1]
    assert isinstance(content["args"], SettingsInFile)
    assert settings_of(content["args"])["nheads"] == 4
    assert settings_of({"a": 1}) == {"a": 1}
    assert settings_of(None) == settings_of([1]) == {}


def of_module(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An object of a class that a pickle finds under this name."""
    module_name, _, class_name = name.rpartition(".")
    made = type(class_name, (), {"__module__": module_name})
    parts = module_name.split(".")
    for count in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:count]), types.ModuleType(parts[count - 1]))
    setattr(sys.modules[module_name], class_name, made)
    return made()


@pytest.mark.parametrize("name", ["omegaconf.dictconfig.DictConfig", "mmengine.logging.HistoryBuffer"])
def test_a_type_that_is_not_known_to_be_harmless_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = saved(tmp_path / "last.ckpt", {"state_dict": state_of(SMALL), "cfg": of_module(name, monkeypatch)})
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(path)
    assert str(raised.value) == (
        f"last.ckpt: it holds {name}, which could run code when it is loaded, so it was not loaded; where it was "
        "written, save the weights alone: torch.save(model.state_dict(), FILE)"
    )


def test_a_hostile_file_says_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Names with control codes and of any length, in pickles as `torch.save` frames them and in keys."""
    torch.save({}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    framed = (tmp_path / "a.pth").read_bytes()
    head = framed[: framed.index(pickle.dumps({}, 2))]
    names = [b"\x1b[2J\x07evil", "\u202egnp".encode(), b"x" * 1000]
    for name in names:
        (tmp_path / "a.pth").write_bytes(head + b"\x80\x02c" + name + b"\n" + name + b"\n.")
        with pytest.raises(CheckpointError) as raised:
            read_checkpoint(tmp_path / "a.pth")
        assert str(raised.value).isprintable()
        assert len(str(raised.value)) < 500
    for key in ("\x1b]0;title\x07", "a\nb", "\ud800", "y" * 1_000_000):
        state = {**state_of(SMALL), key: torch.ones(1)}
        for content in ({"model": state}, {"model": {key: torch.ones(1)}}, {"model": {**state, key: 1}}):
            with pytest.raises(CheckpointError) as raised:
                read_checkpoint(saved(tmp_path / "b.pth", content))
            assert str(raised.value).isprintable()
            assert len(str(raised.value)) < 5000


def test_a_newer_pickle_protocol_is_said_to_be_the_reason(tmp_path: Path) -> None:
    torch.save({"model": state_of(ModelConfig(backbone="resnet18"))}, tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="a newer pickle protocol than torch"):
        read_checkpoint(tmp_path / "a.pth")
