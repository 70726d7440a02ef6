"""The harness itself: the scripted engine does what it is told, and its answers tell pictures apart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.runtime.engines.raw_outputs import ALL_MASKS, NO_MASKS
from model.runtime.preprocess import make_batch
from tests.processes import until
from tests.reliability.conftest import Scripted
from tests.reliability.scripted_engine import ScriptedEngine, identity_of, identity_of_colour, picture
from tests.server_process import ServerProcess


def test_its_answer_says_whose_it_is(server: ServerProcess) -> None:
    with server.client() as client, ThreadPoolExecutor(8) as pool:
        identities = [0, 1, 0xFF, 0xFF00, 0xFF0000, 0xFFFFFF, *range(0x102030, 0x102030 + 40 * 0x10203, 0x10203)]
        answers = list(
            pool.map(lambda identity: client.post("/detect", files={"image": picture(identity)}), identities)
        )
        assert [identity_of(answer.json()) for answer in answers] == identities
        segments = [client.post("/segment", files={"image": picture(i)}).json()["segments"] for i in (0, 0x800000)]
        assert segments[0] != segments[1]


@given(st.lists(st.integers(0, 0xFFFFFF), min_size=1, max_size=5))
def test_sharing_a_batch_does_not_change_its_outputs(identities: list[int]) -> None:
    images = [
        np.full((40 + 8 * i, 60, 3), [identity >> 16, identity >> 8 & 255, identity & 255], np.uint8)
        for i, identity in enumerate(identities)
    ]
    assert [identity_of_colour(image[0, 0]) for image in images] == identities
    thresholds = np.where(np.arange(len(images)) % 2, ALL_MASKS, NO_MASKS).astype(np.float32)
    together = ScriptedEngine().infer(make_batch(images), thresholds)
    for index, image in enumerate(images):
        alone = ScriptedEngine().infer(make_batch([image]), thresholds[index : index + 1]).image(0)
        shared = together.image(index)
        assert np.array_equal(shared.pred_logits, alone.pred_logits)
        assert np.array_equal(shared.pred_boxes, alone.pred_boxes)


def test_its_script_can_be_changed_while_it_hangs(start: Scripted) -> None:
    with start(script={"hang_at": [1], "hang_s": 600}) as server, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.post, "/detect", picture(7))
        until(lambda: server.script()["running"] == 1)
        server.script(hang_at=[])
        assert identity_of(waiting.result().json()) == 7
        server.script(raise_at=[2])
        assert [server.post("/detect", picture(7)).status_code for _ in range(3)] == [200, 500, 200]
        assert server.script()["images"] == 4


def test_a_leak_can_be_scripted(start: Scripted) -> None:
    with start() as server:
        for _ in range(3):
            server.post("/detect", picture(1))
        before = server.rss()
        server.script(leak_bytes=20_000_000)
        for _ in range(5):
            server.post("/detect", picture(1))
        assert server.rss() - before > 90_000_000


def test_what_is_no_log_line_is_noticed(start: Scripted) -> None:
    with start() as server:
        assert server.errors() == []
        with server.log.open("a") as log:
            log.write("Traceback (most recent call last):\n")
        with pytest.raises(ValueError, match="Expecting value"):
            server.errors()
