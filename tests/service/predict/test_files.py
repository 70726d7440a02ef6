"""Which pictures are meant, and that no two results go to one file, nor any over a picture."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.predict.files import FilesError, PictureFile, Pictures, check_results, drawing_paths, shown
from tests.service.conftest import red_png


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "notes.txt", "._a.png", "deep/a.png", "deep/er/c.webp", ".hidden/d.png"):
        path = tmp_path / "shots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "shots"


def find_pictures(words: list[str], *, recursive: bool = False) -> list[PictureFile]:
    return list(Pictures(words, recursive=recursive))


def names(files: list[PictureFile], folder: Path) -> list[str]:
    return [file.path.relative_to(folder).as_posix() for file in files]


def test_a_folder_means_its_pictures_and_their_sub_folders_when_asked(shots: Path) -> None:
    assert names(find_pictures([str(shots)]), shots) == ["a.png", "b.JPG"]
    assert names(find_pictures([str(shots)], recursive=True), shots) == [
        "a.png",
        "b.JPG",
        "deep/a.png",
        "deep/er/c.webp",
    ]


def test_a_pattern_means_what_fits_and_a_missing_file_stays(shots: Path) -> None:
    assert names(find_pictures([f"{shots}/**/*.png"]), shots) == ["a.png", "deep/a.png"]
    assert names(find_pictures([f"{shots}/x.png", f"{shots}/x*.png"]), shots) == ["x.png", "x*.png"]
    (shots / "[1].png").touch()
    assert names(find_pictures([f"{shots}/[1].png"]), shots) == ["[1].png"], "a file of that name comes first"


def test_each_file_counts_once_whatever_it_is_called(shots: Path) -> None:
    (shots / "z.png").symlink_to(shots / "a.png")
    found = find_pictures([f"{shots}/a.png", str(shots), f"{shots}/deep/../a.png"])
    assert names(found, shots) == ["a.png", "b.JPG"]


def test_a_link_that_leads_nowhere_is_told_of_and_one_to_a_folder_is_not_followed(shots: Path) -> None:
    (shots / "gone.png").symlink_to(shots / "nowhere.png")
    (shots / "deep" / "round.png").symlink_to(shots)
    (shots / "round").symlink_to(shots)
    assert names(find_pictures([str(shots)], recursive=True), shots) == [
        "a.png", "b.JPG", "deep/a.png", "deep/er/c.webp", "gone.png",
    ]  # fmt: skip
    assert names(find_pictures([str(shots / "round")]), shots) == ["round/a.png", "round/b.JPG", "round/gone.png"]


def test_a_name_is_one_line_whatever_is_in_it() -> None:
    assert shown(Path("a\nb\x1b[31m\udcff ü.png")) == "a\\nb\\x1b[31m\\udcff ü.png"


def test_a_folder_without_pictures_is_told_of(shots: Path) -> None:
    (shots / "deep" / "a.png").unlink()
    with pytest.raises(FilesError, match=r"no picture .* in .*deep; --recursive looks into its sub-folders"):
        find_pictures([str(shots / "deep")])


def test_pictures_are_counted_as_they_are_found_and_a_result_over_one_is_refused(shots: Path, tmp_path: Path) -> None:
    pictures = Pictures([str(shots), f"{shots}/a.png"], recursive=True)
    assert pictures.check([]) == 4
    with pytest.raises(FilesError, match="is one of the pictures and would be replaced"):
        pictures.check([tmp_path / "new", shots / "deep" / "a.png"])


def test_a_list_means_the_files_on_its_lines_each_once(tmp_path: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.write_bytes(b"\xef\xbb\xbfb.jpg\r\n\nsub/a b.jpg\n./b.jpg\nb.jpg\n\xff.jpg")
    pictures = Pictures(["b.jpg", "c.jpg"], str(listed))
    assert [picture.file for picture in pictures] == ["b.jpg", "c.jpg", "sub/a b.jpg", "./b.jpg", "\udcff.jpg"]
    assert pictures.check([]) == 2 + 6, "of lines, before anything is looked at"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfea\x00.\x00j\x00", "names.txt is no list of names: give a text with the name of a file on each line"),
        (None, "names.txt is a folder, and no list of names: give it without --list"),
    ],
)
def test_what_is_no_list_is_told_of(content: bytes | None, said: str, tmp_path: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.mkdir() if content is None else listed.write_bytes(content)
    with pytest.raises(FilesError, match=said):
        Pictures([], str(listed)).check([])


def test_neither_the_list_nor_a_picture_is_replaced(tmp_path: Path) -> None:
    listed, picture = tmp_path / "names.txt", tmp_path / "a.png"
    listed.write_text("a.png\n")
    picture.write_bytes(red_png(1, (32, 32)))
    for result, said in ((listed, "is the list of names"), (picture, "is a picture")):
        with pytest.raises(FilesError, match=f"{said} and would be replaced"):
            Pictures([], str(listed)).check([result])


@pytest.mark.parametrize(("words", "listed"), [([], None), (["-"], "-")])
def test_pictures_are_named_and_in_one_way_only(words: list[str], listed: str | None) -> None:
    with pytest.raises(FilesError, match=r"no picture is named|not both"):
        Pictures(words, listed).check([])


def test_a_folder_of_many_is_gone_through_one_folder_at_a_time(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / "a.png").touch()
    found = iter(Pictures([str(tmp_path)], recursive=True))
    next(found)
    (tmp_path / "2" / "b.png").touch()
    assert len(list(found)) == 3


def test_drawings_lie_as_their_pictures_do(shots: Path, tmp_path: Path) -> None:
    files = find_pictures([str(shots)], recursive=True)
    assert drawing_paths(files, tmp_path) == [
        tmp_path / name for name in ("a.png", "b.png", "deep/a.png", "deep/er/c.png")
    ]
    (shots / "a.jpg").touch()
    files = find_pictures([f"{shots}/a.jpg", f"{shots}/a.png", f"{shots}/deep/a.png"])
    assert drawing_paths(files, tmp_path) == [tmp_path / name for name in ("a.jpg.png", "a.png.png", "deep/a.png.png")]


@given(st.lists(st.from_regex(r"([ab]/){0,2}[aA]\.(png|jpg|png\.png)", fullmatch=True), min_size=1, unique=True))
def test_no_two_drawings_go_to_one_file(words: list[str]) -> None:
    files = find_pictures(words)
    assert len(set(drawing_paths(files, Path("out")))) == len(files)


def test_a_result_over_a_picture_is_refused_under_any_name(shots: Path, tmp_path: Path) -> None:
    files = find_pictures([str(shots)])
    check_results([shots / "new.png", tmp_path / "a.png"], files)
    os.link(shots / "a.png", tmp_path / "hard.png")
    (tmp_path / "link").symlink_to(shots)
    for result in (shots / "a.png", tmp_path / "hard.png", tmp_path / "link" / "a.png"):
        with pytest.raises(FilesError, match="would be replaced"):
            check_results([result], files)
