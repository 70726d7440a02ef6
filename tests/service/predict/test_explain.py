"""`detr explain` answers what the service answers, and says in a line what it cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.cli import main
from tests.service.conftest import JPEG, Serving


@pytest.fixture
def picture(tmp_path: Path, jpeg: bytes) -> Path:
    (tmp_path / "picture.jpg").write_bytes(jpeg)
    return tmp_path / "picture.jpg"


def explain(picture: Path, model: Path, *options: str) -> int:
    return main(["explain", str(picture), "--model", str(model), "--device", "cpu", *options])


@pytest.mark.anyio
async def test_it_answers_as_the_service_does(
    picture: Path, attentive_artifact: Path, serving: Serving, jpeg: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(model=attentive_artifact) as app:
        answer = await app.client.post("/explain?points=20,30", content=jpeg, headers=JPEG)
        drawn = await app.client.post("/explain?points=20,30&overlay=true", content=jpeg, headers=JPEG)
    assert explain(picture, attentive_artifact, "--points", "20,30") == 0
    assert json.loads(capsys.readouterr().out) == answer.json()
    out = {name: picture.with_name(name) for name in ("out.json", "out.png")}
    written = ("--json", str(out["out.json"]), "--overlay", str(out["out.png"]))
    assert explain(picture, attentive_artifact, "--points", "20,30", *written) == 0
    assert capsys.readouterr().out == ""
    assert json.loads(out["out.json"].read_text()) == answer.json()
    assert out["out.png"].read_bytes() == drawn.content


def test_what_it_cannot_do_is_one_line(
    picture: Path, attentive_artifact: Path, panoptic_artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model, options, reason in (
        (panoptic_artifact, [], "detr export --attention"),
        (attentive_artifact, ["--points", "here"], "points: give x,y"),
        (attentive_artifact, ["--points", "500,3"], "128 x 96"),
        (attentive_artifact, ["--query", "9"], "0 to 3"),
        (attentive_artifact, ["--threshold", "2"], "from 0 to 1"),
        (attentive_artifact, ["--overlay", str(picture)], "is the picture"),
    ):
        assert explain(picture, model, *options) == 1
        said = capsys.readouterr().err
        assert reason in said
        assert said.count("\n") == 1
    assert explain(picture.with_name("none.jpg"), attentive_artifact) == 1
    assert "No such file" in capsys.readouterr().err
