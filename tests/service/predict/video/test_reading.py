"""What is read of a video: every frame that is whole, as people see it, with its time; and what is said of others."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path, PurePath

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.stream import Disposition
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from model.runtime.decode import ImageLimits
from service.predict.video.files import VideoFile
from service.predict.video.reading import VideoError, VideoPicture, VideoReader
from tests.service.predict.video.clips import noise, red_frames, write_clip

LIMITS = ImageLimits(max_pixels=640 * 480, max_side=640)
HALF = np.zeros((48, 64, 3), dtype=np.uint8)  # red on the left, blue on the right
HALF[:, :32, 0] = HALF[:, 32:, 2] = 255


def reader_of(path: Path, limits: ImageLimits = LIMITS) -> VideoReader:
    return VideoReader(VideoFile(path, PurePath(path.name)), limits)


def frames_of(path: Path, every: int = 1) -> list[VideoPicture]:
    return list(reader_of(path).frames(every))


def image_of(path: Path) -> NDArray[np.uint8]:
    (frame,) = frames_of(path)
    assert frame.image is not None
    return frame.image[..., :3]


def reds(frames: list[VideoPicture]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames if frame.image is not None]


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("a.mkv", "ffv1", "bgr0"), ("a.mov", "png", "rgb24"), ("a.avi", "ffv1", "bgr0")]
)
def test_each_frame_is_read_once_in_its_order_and_at_its_time(
    name: str, codec: str, pix_fmt: str, tmp_path: Path
) -> None:
    reader = reader_of(write_clip(tmp_path / name, red_frames(30), codec=codec, pix_fmt=pix_fmt))
    frames = list(reader.frames(1))
    assert reds(frames) == [frame.number for frame in frames] == list(range(30))
    assert [frame.seconds for frame in frames] == pytest.approx([number / 10 for number in range(30)])
    assert (reader.count, float(reader.rate), len(reader.troubles())) == (30, 10, 0)


def test_frames_that_are_coded_in_another_order_come_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", red_frames(20), codec="libx264", pix_fmt="yuv444p", options={"bf": "3"})
    frames = frames_of(path)
    assert np.allclose(reds(frames), range(20), atol=2)
    assert [frame.seconds for frame in frames] == pytest.approx([number / 10 for number in range(20)])


def test_a_variable_rate_keeps_its_times_from_the_first_frame_on(tmp_path: Path) -> None:
    times = [500, 533, 700, 1000, 1001, 2000]
    for name, codec in (("a.mkv", {}), ("a.mp4", {"codec": "libx264", "pix_fmt": "yuv420p"})):
        frames = frames_of(write_clip(tmp_path / name, red_frames(6), times_ms=times, **codec))  # type: ignore[arg-type]
        assert [frame.seconds for frame in frames] == pytest.approx([(time - 500) / 1000 for time in times])


def test_every_third_frame_keeps_its_number_and_time(tmp_path: Path) -> None:
    frames = frames_of(write_clip(tmp_path / "clip.mkv", red_frames(10)), every=3)
    assert reds(frames) == [frame.number for frame in frames] == [0, 3, 6, 9]
    assert [frame.seconds for frame in frames] == [0, 0.3, 0.6, 0.9]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("mirrored", [False, True])
def test_it_is_upright_however_the_camera_was_held(degrees: int, mirrored: bool, tmp_path: Path) -> None:
    drawn = HALF.copy()
    drawn[:10] = 255  # no turn of it is another
    path = write_clip(tmp_path / "clip.mov", [drawn], codec="png", pix_fmt="rgb24", rotation=(degrees, mirrored))
    turned = np.rot90(drawn, degrees // 90)
    assert np.array_equal(image_of(path), turned[:, ::-1] if mirrored else turned)


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    for aspect, shape in ((Fraction(4, 3), (48, 85, 3)), (Fraction(1, 2), (96, 64, 3))):
        path = write_clip(tmp_path / "a.mp4", [HALF], codec="libx264", pix_fmt="yuv420p", pixel_aspect=aspect)
        assert image_of(path).shape == shape


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mkv", "ffv1", "gray"),
        ("a.mkv", "ffv1", "gray10le"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mkv", "ffv1", "yuv444p12le"),
        ("a.mov", "png", "rgb48be"),
        ("a.avi", "utvideo", "gbrp"),
        ("a.mov", "mjpeg", "yuvj420p"),
        ("a.mov", "prores_ks", "yuv422p10le"),
    ],
)
def test_any_depth_and_layout_of_colours_is_read(name: str, codec: str, pix_fmt: str, tmp_path: Path) -> None:
    even = np.full((48, 64, 3), 100, dtype=np.uint8)
    path = write_clip(tmp_path / name, [even], codec=codec, pix_fmt=pix_fmt)
    assert np.abs(image_of(path).astype(int) - 100).max() <= 3


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = np.dstack([HALF, np.where(np.arange(64) < 32, 255, 0)[None].repeat(48, 0)]).astype(np.uint8)
    image = image_of(write_clip(tmp_path / "clip.mov", [clear], codec="png", pix_fmt="rgba", of_frames="rgba"))
    assert image[0, 0].tolist() == [255, 0, 0]
    assert image[0, 63].tolist() == [255, 255, 255]


def test_what_says_nothing_of_its_colours_has_those_of_hd_from_720_lines_on(tmp_path: Path) -> None:
    green = np.zeros((720, 64, 3), dtype=np.uint8)
    green[..., 1] = 200
    with av.open(str(tmp_path / "hd.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=10)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv444p"
        frame = av.VideoFrame.from_ndarray(green, "rgb24").reformat(format="yuv444p", dst_colorspace="itu709")
        frame.colorspace, frame.pts = 2, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    limits = ImageLimits(max_pixels=720 * 64, max_side=720)
    (read,) = reader_of(tmp_path / "hd.mkv", limits).frames(1)
    assert read.image is not None
    assert np.abs(read.image[360, 32, :3].astype(int) - (0, 200, 0)).max() <= 3


@pytest.mark.slow  # FFmpeg takes seconds to make the table of its conversion
@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_as_bright_as_what_is_not(transfer: int, tmp_path: Path) -> None:
    code = {16: 0.58, 18: 0.75}[transfer]  # of 203 cd/m2, the white of what is no HDR (ITU-R BT.2408)
    white = np.full((48, 64, 3), round(65535 * code), dtype=np.uint16)
    path = write_clip(
        tmp_path / "clip.mkv",
        [white],
        pix_fmt="yuv420p10le",
        of_frames="rgb48le",
        color_trc=transfer,
        color_primaries=9,
        colorspace=9,
        color_range=1,
    )
    assert image_of(path).min() > 235


def test_interlaced_frames_are_whole_pictures(tmp_path: Path) -> None:
    moving = []
    for number in range(6):
        both = np.zeros((64, 128, 3), dtype=np.uint8)
        for field in range(2):  # a bar that moves between the two
            left = 16 * number + 8 * field
            both[field::2, left : left + 24] = 255
        moving.append(both)
    path = tmp_path / "clip.mpg"
    options = {"flags": "+ildct+ilme", "top": "1", "qscale": "2"}
    write_clip(path, moving, codec="mpeg2video", pix_fmt="yuv420p", rate=25, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    frames = frames_of(path)
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.seconds for frame in frames] == pytest.approx([number / 25 for number in range(6)], abs=1e-3)

    def combs(image: NDArray[np.uint8]) -> float:
        return float(np.abs(np.diff(image[8:-8].astype(int), axis=0)).mean())

    for frame, raw in zip(frames, moving, strict=True):
        assert frame.image is not None
        assert combs(frame.image[..., :3]) < combs(raw) / 2


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_that_are_broken_are_counted_and_left_out(codec: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", noise(20), codec=codec, pix_fmt="yuv420p", options={"g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    for number in (5, 11):
        position, size = places[number]
        assert position is not None
        data[position + size // 2 : position + size // 2 + 40] = bytes(40)
    path.write_bytes(data)
    reader = reader_of(path)
    assert [frame.number for frame in reader.frames(1)] == [n for n in range(20) if n not in (5, 11)]
    assert reader.troubles() == ["2 of 20 frames are broken and left out"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("clip.mkv", {}),
        ("clip.mp4", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "container": {"movflags": "faststart"}}),
        ("clip.ts", {"codec": "mpeg2video", "pix_fmt": "yuv420p", "rate": 25}),
    ],
)
def test_of_a_video_that_is_cut_off_what_there_is_is_read(
    name: str, settings: dict[str, object], tmp_path: Path
) -> None:
    path = write_clip(tmp_path / name, noise(50), **settings)  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = reader_of(path)
    frames = list(reader.frames(1))
    assert 20 <= len(frames) <= 26
    if name != "clip.ts":  # which says nowhere how long it is
        assert "it breaks off after" in reader.troubles()[-1]


def test_a_video_whose_index_is_cut_off_cannot_be_read_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", red_frames(20), codec="libx264", pix_fmt="yuv420p")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(VideoError, match="it is no video, or is cut off or broken"):
        reader_of(path)


def test_a_codec_that_nobody_knows_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", red_frames(3), codec="libx264", pix_fmt="yuv420p")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"xyz1"))
    with pytest.raises(VideoError, match="FFmpeg has no decoder here for its codec"):
        reader_of(path)


@pytest.mark.parametrize("with_cover", [False, True])
def test_sound_is_no_video_whatever_is_on_its_cover(with_cover: bool, tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        sound = out.add_stream("aac", rate=44_100)
        assert isinstance(sound, AudioStream)
        if with_cover:
            cover = out.add_stream("mjpeg", rate=1)
            assert isinstance(cover, VideoStream)
            cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
            cover.disposition = Disposition.attached_pic
            out.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")))
        frame = AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    with pytest.raises(VideoError, match="it has sound and no video"):
        reader_of(path)


def test_a_video_without_frames_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.y4m", red_frames(1), codec="rawvideo", pix_fmt="yuv420p")
    path.write_bytes(path.read_bytes()[: path.read_bytes().index(b"FRAME")])
    with pytest.raises(VideoError, match="there is no frame in it"):
        list(reader_of(path).frames(1))


def test_frames_that_are_too_large_are_refused_before_one_is_decoded(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", red_frames(1, (64, 64)))
    with pytest.raises(VideoError, match="its frames have more than 4095 pixels"):
        reader_of(path, ImageLimits(max_pixels=4095, max_side=640))


def test_a_gif_is_read_frame_by_frame(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", (64, 48), (10 * n, 0, 0)) for n in range(5)]
    path = tmp_path / "a.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 200, 100, 300, 100])
    frames = frames_of(path)
    assert reds(frames) == [0, 10, 20, 30, 40]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.3, 0.4, 0.7])


@pytest.mark.parametrize(("name", "reason"), [("gone.mp4", "No such file"), ("a: b.mkv", None)])
def test_a_name_means_a_file_whatever_is_in_it(name: str, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / name
    if reason is None:
        write_clip(tmp_path / "plain.mkv", red_frames(2)).rename(path)
        assert len(frames_of(path)) == 2
    else:
        with pytest.raises(VideoError, match=reason):
            reader_of(path)
