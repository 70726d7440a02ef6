import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from model.runtime.artifact.file import (
    BLANK_DIGEST,
    DIGEST_KEY,
    MAX_BYTES,
    Artifact,
    ArtifactError,
    read_artifact,
)
from tests.tiny_artifact import (
    CATEGORIES,
    tiny_golden,
    tiny_metadata,
    tiny_model,
    write_artifact,
    write_tiny_artifact,
    write_variant,
)

Write = Callable[[bytes], Path]


@pytest.fixture
def refusal_of(panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    """The message with which bytes are refused, without a disk in between: some tests try every byte."""

    def refuse(data: bytes) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda _: data)
            return refusal(panoptic_artifact.path)

    return refuse


def refusal(path: Path) -> str:
    """The message with which a file is refused, after checking what every such message must be."""
    try:
        read_artifact(path)
    except ArtifactError as error:
        message = str(error)
    else:
        pytest.fail("the file was accepted")
    assert message.startswith(f"{path.name}: ")
    assert "\n" not in message
    assert str(path.parent) not in message
    return message.removeprefix(f"{path.name}: ")


@pytest.mark.parametrize("task", ["panoptic", "detection"])
def test_a_whole_artifact_is_read(task: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(f"{task}_artifact")
    assert artifact.metadata.task == task
    assert artifact.metadata.categories == CATEGORIES
    assert artifact.data == artifact.path.read_bytes()
    assert (artifact.golden.pred_masks is None) == (task == "detection")


def test_a_path_may_be_a_string(panoptic_artifact: Artifact) -> None:
    assert read_artifact(str(panoptic_artifact.path)).metadata == panoptic_artifact.metadata


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_tiny_artifact(tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.onnx") == "there is no such file"
    assert refusal(tmp_path / "no" / "folder" / "model.onnx") == "there is no such file"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    assert refusal(tmp_path / "model.onnx") == "is a directory, not a model file"


def test_the_current_directory_is_refused_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=f"{tmp_path.name}: is a directory"):
        read_artifact(".")


def test_what_is_no_regular_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    assert refusal(tmp_path / "model.onnx") == "is not a regular file"


def test_a_file_that_cannot_be_read_is_refused(panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert refusal(panoptic_artifact.path) == "cannot be read: Permission denied"


def test_a_file_larger_than_any_model_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # which takes no disk
    assert refusal(tmp_path / "model.onnx") == "has more than 2 GiB, which no ONNX model in one file can have"


def test_a_file_that_does_not_fit_into_memory_is_refused(
    panoptic_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(self: Path) -> bytes:
        raise MemoryError

    monkeypatch.setattr(Path, "read_bytes", too_much)
    assert refusal(panoptic_artifact.path) == "does not fit into memory"


def test_the_digest_tells_files_apart(tmp_path: Path) -> None:
    variants = ("a", 0), ("b", 0), ("a", 1)
    paths = [write_variant(tmp_path / f"{i}.onnx", *variant) for i, variant in enumerate(variants)]
    digests = [read_artifact(path).digest for path in paths]
    assert len(set(digests)) == 3
    assert all(len(digest) == 64 for digest in digests)
    assert read_artifact(paths[0]).digest == digests[0]


def test_an_empty_file_is_refused(write_bytes: Write) -> None:
    assert refusal(write_bytes(b"")) == "is empty"


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body>404 Not Found</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 10\n",
        b"PK\x03\x04" + bytes(100),
        b"\x80\x04\x95" + bytes(100),
        bytes(1000),
        np.random.default_rng(0).bytes(5000),
    ],
)
def test_what_is_no_onnx_model_is_refused(data: bytes, write_bytes: Write) -> None:
    assert refusal(write_bytes(data)) == "is not an ONNX model"


def test_an_onnx_model_of_somebody_else_is_refused(write_bytes: Write) -> None:
    assert "was not written by `detr export`" in refusal(write_bytes(tiny_model().SerializeToString()))


def test_a_file_cut_anywhere_is_refused(panoptic_artifact: Artifact, refusal_of: Callable[[bytes], str]) -> None:
    data = panoptic_artifact.data
    messages = {refusal_of(data[:length]) for length in range(1, len(data))}
    # A cut between two fields leaves a smaller message, which then lacks its graph or its digest.
    assert messages == {
        "is truncated",
        "is not an ONNX model",
        "has no digest: it was not written by `detr export`",
    }
    assert refusal_of(data[: len(data) // 2]) == "is truncated"


def test_every_flipped_byte_is_refused(panoptic_artifact: Artifact, refusal_of: Callable[[bytes], str]) -> None:
    data = panoptic_artifact.data
    flips = np.random.default_rng(1).integers(1, 256, len(data))
    for position, flip in enumerate(flips.tolist()):
        damaged = bytearray(data)
        damaged[position] ^= flip
        refusal_of(bytes(damaged))


def test_every_flipped_bit_of_the_digest_itself_is_refused(
    panoptic_artifact: Artifact, refusal_of: Callable[[bytes], str]
) -> None:
    # This includes the bit that turns a lower-case digit into an upper-case one.
    data = panoptic_artifact.data
    start = data.index(DIGEST_KEY.encode())
    for position in range(start - 2, start + len(DIGEST_KEY) + 2 + len(BLANK_DIGEST)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            refusal_of(bytes(damaged))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_other_damage_is_refused(
    draw: st.DataObject, panoptic_artifact: Artifact, refusal_of: Callable[[bytes], str]
) -> None:
    whole = panoptic_artifact.data
    start = draw.draw(st.integers(0, len(whole)))
    end = draw.draw(st.integers(start, len(whole)))
    inserted = draw.draw(st.binary(max_size=50) | st.just(whole[:start]) | st.just(whole))
    damaged = whole[:start] + inserted + whole[end:]
    if damaged != whole:
        refusal_of(damaged)


def test_a_flip_is_reported_as_damage(panoptic_artifact: Artifact, write_bytes: Write) -> None:
    damaged = bytearray(panoptic_artifact.data)
    damaged[len(damaged) // 2] ^= 1
    assert "does not match its digest" in refusal(write_bytes(bytes(damaged)))


def test_two_digests_are_refused(panoptic_artifact: Artifact, write_bytes: Write) -> None:
    data = panoptic_artifact.data
    assert refusal(write_bytes(data + data)) == "has more than one digest"


@pytest.mark.parametrize("part", ["metadata", "golden sample"])
def test_an_artifact_without_a_part_is_refused(part: str, tmp_path: Path) -> None:
    model = tiny_model()
    metadata = None if part == "metadata" else tiny_metadata().to_json()
    golden = None if part == "golden sample" else tiny_golden(model).to_text()
    assert refusal(write_artifact(tmp_path / "model.onnx", model, metadata, golden)) == f"has no {part}"


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    newer = json.dumps(json.loads(tiny_metadata().to_json()) | {"format_version": 4})
    path = write_artifact(tmp_path / "model.onnx", tiny_model(), newer, None)
    assert "format version 4, newer than the 3 known here" in refusal(path)


def test_wrong_metadata_are_refused_by_field(tmp_path: Path) -> None:
    wrong = json.dumps(json.loads(tiny_metadata().to_json()) | {"num_queries": "four"})
    path = write_artifact(tmp_path / "model.onnx", tiny_model(), wrong, None)
    assert refusal(path) == "metadata field 'num_queries' is not of type int"


def test_a_golden_sample_of_another_model_is_refused(tmp_path: Path) -> None:
    model = tiny_model()
    metadata = replace(tiny_metadata(), num_queries=100).to_json()
    path = write_artifact(tmp_path / "model.onnx", model, metadata, tiny_golden(model).to_text())
    assert refusal(path) == "the golden sample's 'pred_logits' has a wrong shape"


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    golden = tiny_golden(model).to_text()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    path = write_artifact(tmp_path / "model.onnx", model, tiny_metadata().to_json(), golden)
    assert "keeps weights in another file" in refusal(path)
