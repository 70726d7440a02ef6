"""Where keys come from, when they change, and how a presented one is compared."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.api_keys import KeyRing, KeySourceError, digests_of, keys_in

GOOD = "0123456789abcdef"
OTHER = "another-key-of-24-chars!"
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=16, max_size=64).filter(
    lambda key: not key.startswith("#")
)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


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


def test_keys_are_rotated_by_replacing_the_file(path: Path, clock: Clock) -> None:
    ring = KeyRing(path=path, clock=clock)
    replace(path, f"{OTHER}\nnew-key-of-some-length\n")
    assert ring.accepts(GOOD.encode()), "the file is looked at once a second at most"
    clock.now = 1
    assert not ring.accepts(GOOD.encode())
    assert ring.accepts(OTHER.encode())
    assert ring.accepts(b"new-key-of-some-length")


def test_keys_of_the_environment_stay_when_the_file_changes(path: Path, clock: Clock) -> None:
    ring = KeyRing(digests_of([(1, "from-the-environment")]), path, clock)
    replace(path, "new-key-of-some-length\n")
    clock.now = 1
    assert ring.accepts(b"from-the-environment")
    assert not ring.accepts(GOOD.encode())


def test_a_reload_does_not_wait_for_the_second_to_pass(path: Path, clock: Clock) -> None:
    ring = KeyRing(path=path, clock=clock)
    replace(path, "new-key-of-some-length\n")
    ring.reload()
    assert ring.accepts(b"new-key-of-some-length")
    assert not ring.accepts(GOOD.encode())


@pytest.mark.parametrize("content", ["", "short\n", None])
def test_a_file_that_turns_bad_leaves_the_keys_as_they_were_and_says_so(
    content: str | None, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ring = KeyRing(path=path, clock=clock)
    path.unlink() if content is None else replace(path, content)
    for clock.now in (1, 2, 3):
        assert ring.accepts(GOOD.encode())
    (record,) = caplog.records
    assert "stay as they were: keys: " in record.getMessage()
    assert "short" not in record.getMessage()
    replace(path, f"{OTHER}\n")
    clock.now = 4
    assert not ring.accepts(GOOD.encode())


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
