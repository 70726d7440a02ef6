"""What is no checkpoint is told by its bytes and named as what it is, in one printable line."""

import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from model.checkpoint.errors import CheckpointError
from model.checkpoint.file_kinds import WeightsFile, kind_of
from model.checkpoint.reading import read_checkpoint
from tests.tiny_artifact import write_tiny_artifact

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614\nsize 166618694\n"
ERROR_OF_A_STORE = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def numpy_array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (LFS_POINTER, "it is a Git LFS pointer"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "it is an HTML page"),
        (b"<HTML><BODY>404", "it is an HTML page"),
        (ERROR_OF_A_STORE, "it is an XML document"),
        (picture("JPEG"), "it is a JPEG picture"),
        (picture("PNG"), "it is a PNG picture"),
        (picture("WEBP"), "it is a WebP picture"),
        (picture("GIF"), "it is a GIF picture"),
        (picture("TIFF"), "it is a TIFF picture"),
        (gzip.compress(b"model", mtime=0), "it is compressed with gzip: unpack it"),
        (tar(), "it is a tar archive: unpack it"),
        (zipped("weights/model.pth"), "it is a zip archive, and not one that torch.save wrote: unpack it"),
        (zipped("a.npy", "b.npy"), "it is an archive of NumPy arrays"),
        (zipped("model/constants.pkl", "model/data.pkl"), "it is a TorchScript program"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "it is an HDF5 file, as Keras writes"),
        (numpy_array(), "it is a NumPy array"),
        (b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0", "it is an ONNX file, and no checkpoint"),
        (b'{"model_type": "detr"}', "it is a JSON file; give the folder"),
        (b'{"weight_map": {}}', "it is the index of weights in several files: give the folder"),
        (pickle.dumps({"a": 1}, 4), "a pickle of another program"),
        (b"epoch,loss\n1,2.5\n", r"it is text, which begins with 'epoch,loss 1,2.5'"),
        (b"", "it is empty"),
        (bytes(1000), "it begins with zeros only"),
        (b"\x03\x1b[2J\xff", r"its first bytes are 03 1b 5b 32 4a ff$"),
    ],
)
def test_what_is_no_checkpoint_is_named_as_what_it_is(tmp_path: Path, content: bytes, what: str) -> None:
    for name in ("model.pth", "model.safetensors", "pytorch_model.bin", "last.ckpt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=what) as raised:
            read_checkpoint(tmp_path / name)
        assert str(raised.value).startswith(f"{name}: ")
        assert str(raised.value).isprintable()


def test_an_artifact_is_said_to_be_served_as_it_is(tmp_path: Path) -> None:
    write_tiny_artifact(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="exported already: serve it as it is, with `detr serve --model FILE`"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("save", "kind"),
    [
        (lambda path: torch.save({"a": torch.ones(2)}, path), WeightsFile.TORCH),
        (
            lambda path: torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
            WeightsFile.TORCH,
        ),
        (lambda path: safetensors.torch.save_file({"a": torch.ones(2)}, path), WeightsFile.SAFETENSORS),
    ],
)
def test_weights_are_known_by_their_bytes_and_a_part_of_them_is_refused(
    tmp_path: Path, save: Callable[[Path], None], kind: WeightsFile
) -> None:
    whole, part = tmp_path / "named.wrongly", tmp_path / "part.pth"
    save(whole)
    assert kind_of(whole) is kind
    for size in (3, 12, 60, len(whole.read_bytes()) - 3):
        part.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(CheckpointError) as raised:
            read_checkpoint(part)
        assert str(raised.value).isprintable()
        assert "weights_only" not in str(raised.value)


def test_the_length_that_safetensors_begin_with_is_not_taken_for_another_kind(tmp_path: Path) -> None:
    firsts = set()
    for length in range(0, 256, 8):
        safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "a.pth", {"note": "x" * length})
        firsts.add((tmp_path / "a.pth").read_bytes()[0])
        assert kind_of(tmp_path / "a.pth") is WeightsFile.SAFETENSORS
    assert 0x80 in firsts, "none begins like a pickle, so the test shows little"


def test_a_file_that_is_not_there_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file"):
        kind_of(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="it cannot be read: Is a directory"):
        kind_of(tmp_path)
