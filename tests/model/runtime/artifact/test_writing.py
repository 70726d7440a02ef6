from pathlib import Path

import onnx
import pytest

from model.runtime.artifact.file import Artifact, read_artifact
from model.runtime.artifact.writing import write_proved
from tests.tiny_artifact import tiny_golden, tiny_metadata, tiny_model


def write(out: Path, prove: type[Exception] | None = None) -> Path:
    def proof(artifact: Artifact) -> Path:
        if prove is not None:
            raise prove("it is wrong")
        return artifact.path

    model = tiny_model()
    return write_proved(out, model.SerializeToString(), tiny_metadata(), tiny_golden(model), proof)


def test_a_written_artifact_is_read_with_all_that_was_written(tmp_path: Path) -> None:
    out = tmp_path / "new" / "model.onnx"
    assert write(out).parent == out.parent
    artifact = read_artifact(out)
    assert artifact.metadata == tiny_metadata()
    model = onnx.load_from_string(artifact.data)
    del model.metadata_props[:]
    assert model == tiny_model()
    assert list(out.parent.iterdir()) == [out]


def test_an_older_file_stays_until_the_new_one_is_proved(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    out.write_bytes(b"older")
    with pytest.raises(ArithmeticError):
        write(out, ArithmeticError)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]
    write(out)
    assert read_artifact(out).metadata == tiny_metadata()


def test_two_writers_of_one_artifact_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    model = tiny_model()

    def meanwhile(artifact: Artifact) -> Path:
        write(out)
        return artifact.path

    first = write_proved(out, model.SerializeToString(), tiny_metadata(), tiny_golden(model), meanwhile)
    assert first != out
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        write(tmp_path)
