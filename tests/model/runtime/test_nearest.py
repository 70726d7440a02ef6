"""Whoever mistypes a word is asked whether a near one was meant."""

from __future__ import annotations

import pytest

from model.runtime.nearest import did_you_mean


@pytest.mark.parametrize(
    ("word", "meant"),
    [("perosn", "person"), ("Person", "person"), ("max-batchsize", "MAX_BATCH_SIZE"), ("zebra", None), ("", None)],
)
def test_the_nearest_word_is_asked_for_if_one_is_near(word: str, meant: str | None) -> None:
    assert did_you_mean(word, ["person", "car", "MAX_BATCH_SIZE"]) == (
        "" if meant is None else f"; did you mean {meant}?"
    )
