from __future__ import annotations

import json
from pathlib import Path

from tests.gpu.table import Part, write_report


def test_every_part_has_its_line_whatever_became_of_it(tmp_path: Path) -> None:
    passed = Part("speed", "passed", seconds=1.4)
    passed.tell("twice as fast", ratio=2.0)
    passed.tell("a | b")
    parts = [passed, Part("memory", "failed", "ValueError: of\ntwo lines"), Part("training", "not run", "it needs x")]
    path = write_report(tmp_path / "new", {"device": "some GPU"}, parts)
    assert path.read_text().splitlines() == [
        "device: some GPU",
        "",
        "| part | outcome | found | took |",
        "| --- | --- | --- | --- |",
        "| speed | passed | twice as fast; a \\| b | 1 s |",
        "| memory | failed | ValueError: of two lines | 0 s |",
        "| training | not run | it needs x | 0 s |",
    ]
    report = json.loads((tmp_path / "new" / "gpu.json").read_text())
    assert report["device"] == "some GPU"
    assert [(part["outcome"], part["numbers"]) for part in report["parts"]] == [
        ("passed", {"ratio": 2.0}),
        ("failed", {}),
        ("not run", {}),
    ]
