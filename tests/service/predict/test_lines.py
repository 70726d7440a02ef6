"""Lines of answers: whole whatever happens, gone on with, and one for each picture."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.predict.files import FilesError, PictureFile
from service.predict.lines import Lines, OldLines, lines_in, read_lines
from service.predict.names import Names

BODY = b'{"model":"m","image":{"width":1,"height":1},"detections":[]}'


def picture(name: str) -> PictureFile:
    return PictureFile(Path("p.jpg"), PurePath("p.jpg"), name)


def write(path: Path, *names: str) -> None:
    with lines_in(path, None) as lines:
        for name in names:
            lines.failed(picture(name), "it is broken") if "bad" in name else lines.answered(picture(name), BODY)


def test_a_line_has_the_picture_and_its_answer_or_why_there_is_none() -> None:
    out = io.StringIO()
    lines = Lines(out, OldLines())
    lines.answered(picture('a "b"\n\udcff.jpg'), BODY)
    lines.failed(picture("bad.jpg"), "it is broken")
    first, second = out.getvalue().splitlines()
    assert json.loads(first) == {"file": 'a "b"\n\udcff.jpg', **json.loads(BODY)}
    assert json.loads(second) == {"file": "bad.jpg", "error": "it is broken"}


@given(cut=st.integers(0, 400))
def test_wherever_writing_was_cut_off_each_picture_has_one_line_in_the_end(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    names = ["a.jpg", 'b "\udcff".jpg', "bad.jpg", "c.jpg"]
    write(path, *names)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    old = read_lines(path)
    assert [name in old.names for name in names] == [number < whole[:cut].count(b"\n") for number in range(4)]
    assert ("bad.jpg" in old.failed) == ("bad.jpg" in old.names)
    with lines_in(path, old) as lines:
        for name in names:
            if name not in old.names:
                lines.failed(picture(name), "it is broken") if "bad" in name else lines.answered(picture(name), BODY)
    assert path.read_bytes() == whole


def test_lines_that_another_program_wrote_again_are_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"file": "a.jpg", "error": "x"}\n{"detections": [], "file": "b.jpg", "model": "m"}\n')
    old = read_lines(path)
    assert ("a.jpg" in old.failed, "b.jpg" in old.names, "b.jpg" in old.failed) == (True, True, False)


@pytest.mark.parametrize("content", ["notes", "notes\n", '{"file":"a.jpg","error":"x"}\n\n', '["a"]\n', '{"file":3}\n'])
def test_what_is_no_file_of_lines_is_left_as_it_is(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(FilesError, match=r"line [12] of .*a.jsonl is none that detr predict writes"):
        read_lines(path)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (BODY.replace(b'"m"', b'"other"'), "the file has answers of the model m, and this is other"),
        (BODY.replace(b"detections", b"segments"), "the file has answers of another task"),
    ],
)
def test_answers_of_another_kind_are_not_put_behind(body: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "bad.jpg", "a.jpg")
    with lines_in(path, read_lines(path)) as lines, pytest.raises(FilesError, match=said):
        lines.answered(picture("b.jpg"), body)


def test_two_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, "a.jpg")
    old = read_lines(path)
    with lines_in(path, old) as lines:
        with pytest.raises(FilesError, match="another detr predict writes to"), lines_in(path, old):
            pass
        lines.answered(picture("b.jpg"), BODY)
    with pytest.raises(FilesError, match="which has grown since it was read"), lines_in(path, old):
        pass
    assert path.read_text().count("\n") == 2


def test_a_set_of_names_has_each_once() -> None:
    names = Names()
    assert [names.add(name) for name in ("a", "b", "a", "\udcff")] == [True, True, False, True]
    assert len(names) == 3
    assert ("a" in names, "c" in names) == (True, False)
