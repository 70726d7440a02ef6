"""Where keys come from, when they change, and how a presented one is compared."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.api_keys import MAX_FILE_BYTES, KeyRing, KeySourceError, digests_of, keys_in

RingOf = Callable[..., KeyRing]

GOOD = "0123456789abcdef"
OTHER = "another-key-of-24-chars!"
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=64).filter(
    lambda key: not key.startswith("#")
)


OFTEN_S = 0.01  # instead of a second, between two looks at a file
SOON_S = 10


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether something becomes true soon."""
    end = time.monotonic() + SOON_S
    while not holds() and time.monotonic() < end:
        time.sleep(OFTEN_S)
    return holds()


@pytest.fixture
def ring_of() -> Iterator[RingOf]:
    """Makes rings that look at their file often, and ends them with the test."""
    rings = []

    def make(*args: Any, **options: Any) -> KeyRing:
        rings.append(KeyRing(*args, **{"interval_s": OFTEN_S} | options))
        return rings[-1]

    yield make
    for ring in rings:
        ring.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# for the camera\n{GOOD}\n\n  {OTHER}  \n")
    return path


def replace(path: Path, text: str) -> None:
    """As a careful editor does it: a new file takes the old one's name."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_each_line_of_a_file_is_a_key_unless_it_is_a_comment(path: Path) -> None:
    ring = KeyRing(path=path)
    assert ring.accepts(GOOD.encode())
    assert ring.accepts(OTHER.encode())
    for wrong in (b"", b"# for the camera", GOOD.encode()[:-1], GOOD.encode() + b" ", GOOD.upper().encode()):
        assert not ring.accepts(wrong)


@given(st.lists(KEYS, min_size=1, max_size=8), st.binary(max_size=80))
def test_a_ring_accepts_its_keys_and_nothing_else(keys: list[str], presented: bytes) -> None:
    ring = KeyRing(digests_of(enumerate(keys)))
    assert all(ring.accepts(key.encode()) for key in keys)
    assert ring.accepts(presented) == (presented in {key.encode() for key in keys})


@given(st.lists(KEYS), st.lists(st.sampled_from(["", "  ", "# note", "#" + GOOD])))
def test_what_is_no_comment_is_a_key_whatever_stands_between(keys: list[str], between: list[str]) -> None:
    text = "\n".join([*between, *keys, *between])
    assert [key for _, key in keys_in(text)] == keys


BAD = ["short", "x" * 15, "x" * 257, "two words and more", "ключ-ключ-ключ-ключ", "a\tb" * 9, "a\x00b" * 9]


@pytest.mark.parametrize("key", BAD)
def test_a_key_that_is_no_key_is_refused_by_its_line_and_not_shown(key: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{GOOD}\n{key}\n", encoding="utf-8")
    with pytest.raises(KeySourceError, match="key 2 has to have 16 to 256") as caught:
        KeyRing(path=path)
    assert key not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"# nobody\n", b"\xff\xfe\x00\x01" * 8, None], ids=repr)
def test_a_file_without_keys_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeySourceError):
        KeyRing(path=path)


def test_keys_are_rotated_by_replacing_the_file(path: Path, ring_of: RingOf) -> None:
    ring = ring_of(path=path)
    replace(path, f"{OTHER}\nnew-key-of-some-length\n")
    assert eventually(lambda: not ring.accepts(GOOD.encode()))
    assert ring.accepts(OTHER.encode())
    assert ring.accepts(b"new-key-of-some-length")


def test_keys_of_the_environment_stay_when_the_file_changes(path: Path, ring_of: RingOf) -> None:
    ring = ring_of(digests_of([(1, "from-the-environment")]), path)
    replace(path, "new-key-of-some-length\n")
    assert eventually(lambda: not ring.accepts(GOOD.encode()))
    assert ring.accepts(b"from-the-environment")


def test_a_reload_does_not_wait_for_the_next_look(path: Path, ring_of: RingOf) -> None:
    ring = ring_of(path=path, interval_s=1_000)
    replace(path, "new-key-of-some-length\n")
    ring.reload()
    assert eventually(lambda: ring.accepts(b"new-key-of-some-length"))
    assert not ring.accepts(GOOD.encode())


@pytest.mark.parametrize("content", ["", "short\n", None])
def test_a_file_that_turns_bad_leaves_the_keys_as_they_were_and_says_so(
    content: str | None, path: Path, ring_of: RingOf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ring = ring_of(path=path)
    path.unlink() if content is None else replace(path, content)
    assert eventually(lambda: len(caplog.records) > 0)
    time.sleep(10 * OFTEN_S)
    (record,) = caplog.records
    assert "stay as they were: keys: " in record.getMessage()
    assert "short" not in record.getMessage()
    assert ring.accepts(GOOD.encode())
    replace(path, f"{OTHER}\n")
    assert eventually(lambda: not ring.accepts(GOOD.encode()))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_what_is_no_regular_file_is_refused_at_once(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "keys")
    with pytest.raises(KeySourceError, match="it is not a regular file"):
        KeyRing(path=tmp_path / "keys")


def test_a_file_that_becomes_a_pipe_holds_nobody_up(
    path: Path, ring_of: RingOf, caplog: pytest.LogCaptureFixture
) -> None:
    ring = ring_of(path=path)
    path.unlink()
    os.mkfifo(path)
    assert eventually(lambda: "it is not a regular file" in caplog.text)
    assert ring.accepts(GOOD.encode())
    path.unlink()
    path.write_text(f"{OTHER}\n")
    assert eventually(lambda: not ring.accepts(GOOD.encode()))


def test_a_file_system_that_hangs_ends_the_wait_and_not_the_keys(
    path: Path, ring_of: RingOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = ring_of(path=path)
    hanging, hangs = threading.Event(), threading.Event()

    def hang(self: Path, **_: bool) -> Any:
        hanging.set()
        hangs.wait(SOON_S)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", hang)
        assert hanging.wait(SOON_S)
        assert ring.accepts(GOOD.encode())
        ring.reload()
        assert ring.accepts(GOOD.encode())
        with pytest.raises(KeySourceError, match=r"it cannot be read within 0\.05 s"):
            KeyRing(path=path, timeout_s=0.05)
        hangs.set()


def test_a_file_without_an_end_in_sight_is_refused(path: Path) -> None:
    path.write_text(f"{GOOD}\n" * (MAX_FILE_BYTES // len(GOOD)))
    with pytest.raises(KeySourceError, match="it has more than 1048576 bytes"):
        KeyRing(path=path)


def test_every_key_is_compared_whichever_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def compare(known: bytes, presented: bytes) -> bool:
        compared.append(known)
        return known == presented

    monkeypatch.setattr("service.http.api_keys.hmac.compare_digest", compare)
    ring = KeyRing(digests_of([(1, GOOD), (2, OTHER), (3, GOOD * 2)]))
    for presented in (GOOD, OTHER, "wrong"):
        compared.clear()
        ring.accepts(presented.encode())
        assert len(compared) == 3
