"""What an annotated video keeps: times, sizes and colours; and that it plays whatever ends the program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path, PurePath

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.decode import LARGEST
from service.predict.video.files import VideoFile
from service.predict.video.reading import VideoReader
from service.predict.video.writing import VideoWriter
from tests.end_to_end.conftest import REPOSITORY
from tests.service.predict.video.clips import noise, red_frames, shown

TENTH = Fraction(1, 10)


def in_four_bytes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[height, width, 3] to [height, width, 4], as frames are drawn."""
    return np.pad(image, ((0, 0), (0, 0), (0, 1)))


def test_colours_come_back(tmp_path: Path) -> None:
    even = [np.full((48, 64, 3), colour, np.uint8) for colour in ((200, 30, 40), (30, 200, 40), (30, 40, 200))]
    with VideoWriter(tmp_path / "a.mp4", Fraction(10), 1) as writer:
        for number, image in enumerate(even):
            writer.add(in_four_bytes(image), number, 1, TENTH)
    for image, (_, written) in zip(even, shown(tmp_path / "a.mp4"), strict=True):
        assert np.abs(written.astype(int) - image).max() <= 6
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.colorspace, stream.color_range, stream.pix_fmt) == (1, 1, "yuv420p")


@pytest.mark.parametrize(
    "time_base", [Fraction(1, 1000), Fraction(1, 90_000), Fraction(1001, 30_000), Fraction(1, 10**6)]
)
def test_times_in_any_unit_are_kept(time_base: Fraction, tmp_path: Path) -> None:
    times = [3, 4, 17, 900]
    with VideoWriter(tmp_path / "a.mp4", Fraction(30), 1) as writer:
        for time, image in zip(times, red_frames(4), strict=True):
            writer.add(in_four_bytes(image), time, 1, time_base)
    written = [seconds for seconds, _ in shown(tmp_path / "a.mp4")]
    assert written == pytest.approx([float(time * time_base) for time in times], abs=1e-5)


def test_times_that_go_back_in_a_broken_file_lose_no_frame(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(10), 1) as writer:
        for time, image in zip((0, 1, 1, 0, 2), red_frames(5), strict=True):
            writer.add(in_four_bytes(image), time, 1, TENTH)
    assert [seconds for seconds, _ in shown(tmp_path / "a.mp4")] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_frames_of_another_size_are_resized_to_the_first(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(10), 1) as writer:
        for number, size in enumerate(((48, 64), (96, 128), (31, 21))):
            writer.add(np.zeros((*size, 4), np.uint8), number, 1, TENTH)
    assert [image.shape for _, image in shown(tmp_path / "a.mp4")] == [(48, 64, 3)] * 3


def test_a_video_that_is_not_finished_plays_already(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", Fraction(10), 1) as writer:
        for number, image in enumerate(noise(600)):
            writer.add(in_four_bytes(image), number, 1, TENTH)
        shutil.copy(tmp_path / "a.mp4", tmp_path / "so far.mp4")  # what is left if the process is killed now
    so_far = VideoReader(VideoFile(tmp_path / "so far.mp4", PurePath()), LARGEST)
    assert 300 < len(list(so_far.frames(1))) < 600
    assert len(shown(tmp_path / "a.mp4")) == 600


def test_without_a_frame_there_is_no_file_and_an_older_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"older")
    with VideoWriter(path, Fraction(10), 1):
        pass
    assert path.read_bytes() == b"older"


def test_where_it_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no folder" / "a.mp4"
    with pytest.raises(OSError, match="No such file") as failed, VideoWriter(path, Fraction(10), 1) as writer:
        writer.add(np.zeros((48, 64, 4), np.uint8), 0, 1, TENTH)
    assert failed.value.filename == str(path)


# Lets files of this process have 20,000 bytes, as if the disk were full, and tells what is raised.
FULL = """
import resource, sys
import numpy as np
from fractions import Fraction
from pathlib import Path
from service.predict.video.writing import VideoWriter
from tests.service.predict.video.clips import noise

resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    with VideoWriter(Path(sys.argv[1]), Fraction(10), 1) as writer:
        for number, image in enumerate(noise(int(sys.argv[2]))):
            writer.add(np.pad(image, ((0, 0), (0, 0), (0, 1))), number, 1, Fraction(1, 10))
except OSError as error:
    print(error.filename, error.strerror)
"""


@pytest.mark.parametrize("count", [20, 300])
def test_a_full_disk_is_told(count: int, tmp_path: Path) -> None:
    words = [sys.executable, "-c", FULL, str(tmp_path / "a.mp4"), str(count)]
    done = subprocess.run(words, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'a.mp4'} File too large\n"), done.stderr
