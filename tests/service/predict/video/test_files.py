"""What is taken for a video, what for a camera and what for a picture."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from service.predict.files import FilesError, PictureFile
from service.predict.video.files import VideoFile, videos_among
from tests.service.conftest import red_png
from tests.service.predict.video.clips import red_frames, write_clip


def are_videos(*paths: Path | str, formats: tuple[str, ...] = ()) -> bool:
    files = [PictureFile(Path(path), PurePath(Path(path).name)) for path in paths]
    return len(videos_among(files, formats)) == len(paths)


@pytest.mark.parametrize("ending", ["mkv", "avi", "mp4", "mov", "nut"])
def test_the_bytes_of_a_video_tell_it_whatever_its_name(ending: str, tmp_path: Path) -> None:
    settings = {} if ending in ("mkv", "avi", "nut") else {"codec": "mpeg4", "pix_fmt": "yuv420p"}
    clip = write_clip(tmp_path / f"clip.{ending}", red_frames(1), **settings)  # type: ignore[arg-type]
    assert are_videos(clip)
    if ending != "nut":
        assert are_videos(clip.rename(tmp_path / "clip"))


def test_a_picture_is_none_whatever_its_name(tmp_path: Path) -> None:
    for name in ("a.png", "a.mp4", "a"):
        (tmp_path / name).write_bytes(red_png(1))
        assert not are_videos(tmp_path / name)


def test_what_is_missing_is_a_video_by_its_ending(tmp_path: Path) -> None:
    assert are_videos(tmp_path / "GONE.MP4")
    assert not are_videos(tmp_path / "gone.jpg")
    assert not are_videos(tmp_path / "gone")


def test_a_number_is_a_camera_unless_there_is_a_file_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (camera,) = videos_among([PictureFile(Path("0"), PurePath("0"))], ())
    assert (camera.camera, camera.is_live, camera.name) == (0, True, PurePath("camera-0"))
    Path("0").write_bytes(red_png(1))
    assert not are_videos("0")


def test_a_file_is_no_camera(tmp_path: Path) -> None:
    video = VideoFile(write_clip(tmp_path / "clip.mkv", red_frames(1)), PurePath("clip.mkv"))
    assert (video.camera, video.is_live) == (None, False)


def test_a_mix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FilesError, match=r"b\.mp4 is a video and .*a\.jpg is none"):
        are_videos(tmp_path / "a.jpg", tmp_path / "b.mp4")
