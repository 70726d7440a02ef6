from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.formats.coco import CocoDetection
from model.data.formats.file_names import FileNames
from model.data.formats.picture_files import read_pixels
from tests.model.data.formats.test_coco import IMAGE, write

Folder = Callable[..., FileNames]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    def make(*files: str) -> FileNames:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return FileNames(tmp_path)

    return make


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("1.jpg", "1.jpg"),
        ("1.JPG", "1.jpg"),
        ("images\\1.jpg", "1.jpg"),
        ("C:\\Users\\anna\\1.jpg", "1.jpg"),
        ("/home/anna/data/1.jpg", "1.jpg"),
        ("../upload/1.jpg", "1.jpg"),
        ("cam\\1.jpg", "cam/1.jpg"),
        ("data/cam/1.jpg", "cam/1.jpg"),
        ("1.jpg", "train/deep/1.jpg"),
        ("a%20b%2B.jpg", "a b+.jpg"),
        ("100%25.jpg", "100%.jpg"),
        ("100%.jpg", "100%.jpg"),
        (unicodedata.normalize("NFC", "größe.jpg"), unicodedata.normalize("NFD", "größe.jpg")),
        (unicodedata.normalize("NFD", "größe.jpg"), unicodedata.normalize("NFC", "größe.jpg")),
    ],
)
def test_a_name_is_found_however_it_is_written(folder: Folder, name: str, file: str) -> None:
    assert folder(file, "other.jpg").find([name]) == [file]


def test_what_is_there_as_it_stands_is_taken_whatever_else_fits(folder: Folder) -> None:
    names = folder("1.jpg", "1.JPG", "cam/1.jpg", "a b.jpg", "a%20b.jpg")
    for name in ("1.jpg", "1.JPG", "cam/1.jpg", "a b.jpg", "a%20b.jpg"):
        assert names.find([name]) == [name]


@pytest.mark.parametrize("name", ["2.jpg", "cam2/1.jpg", "", "..", "\0", "x" * 5000, "jpg"])
def test_a_name_that_nothing_fits_stays(folder: Folder, name: str) -> None:
    assert folder("cam1/1.jpg").find([name]) == [name]


def test_a_name_that_fits_several_files_is_refused_with_them(folder: Folder) -> None:
    with pytest.raises(ValueError, match=r"'1\.jpg' fits 2 files, such as 'cam1/1\.jpg' and 'cam2/1\.jpg'"):
        folder("cam1/1.jpg", "cam2/1.jpg").find(["1.jpg"])


def test_two_names_of_one_file_are_refused(folder: Folder) -> None:
    with pytest.raises(ValueError, match=r"'a/1\.jpg' and 'b/1\.jpg' would both be the file '1\.jpg'"):
        folder("1.jpg").find(["a/1.jpg", "b/1.jpg"])
    assert folder("1.jpg").find(["1.jpg", "1.jpg"]) == ["1.jpg", "1.jpg"]


@given(st.lists(st.text(max_size=12), max_size=5))
def test_names_are_never_lost(names: list[str]) -> None:
    assert FileNames(Path("/nowhere")).find(names) == names


def test_the_data_set_takes_the_file_and_says_so(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [], images=[{**IMAGE, "file_name": r"C:\anna\A.PNG"}]))
    assert data.records[0].file_name == "a.png"
    assert data.renamed == ((r"C:\anna\A.PNG", "a.png"),)
    assert data[0][0].shape == (3, 6, 8)


def test_the_closest_name_is_shown_so_that_the_difference_is_seen(tmp_path: Path) -> None:
    (tmp_path / "scan_0О1.jpg").touch()  # with a Cyrillic letter
    data = CocoDetection(tmp_path, write(tmp_path, [], images=[{**IMAGE, "file_name": "scan_0O1.jpg"}]))
    with pytest.raises(FileNotFoundError, match=r"'scan_0O1\.jpg' is not there, 'scan_0\\u041e1\.jpg' is"):
        read_pixels(tmp_path, data.records[0])
