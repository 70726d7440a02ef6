"""The live OpenAPI description against the live service, by requests made from the description itself (row S5)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.reliability.conftest import PATIENT, Measured
from tests.server_process import REPOSITORY, ServerProcess, serving

HERE = Path(__file__).parent
KEY = "k" * 32


def ask_everything(server: ServerProcess, folder: Path, examples: int, *options: str) -> str:
    """Schemathesis with all its checks; what it says.

    Raises:
        AssertionError: a check failed; with what it says.
    """
    program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml")]
    command = [*program, "run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", str(examples)]
    command += ["--seed", "1", "--no-color", "--generation-database", "none", "--report-dir", str(folder), *options]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.reliability.schemathesis_pictures",
        "PYTHONPATH": str(REPOSITORY),
    }
    # It leaves notes where it is started.
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=3000
    )
    assert ended.returncode == 0, f"{ended.stdout[-6000:]}\n{ended.stderr[-2000:]}"
    return ended.stdout


@pytest.mark.slow
@pytest.mark.row(id="S5")
@pytest.mark.parametrize("guarded", [False, True], ids=["open", "with keys"])
@pytest.mark.parametrize("examples", [5, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_the_service_keeps_to_its_description(tmp_path: Path, measured: Measured, examples: int, guarded: bool) -> None:
    """No server error, no status, header or shape that is not declared, nothing open that says it needs a key."""
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    # An admin's key, so that the model is reloaded in between.
    arguments = ("--api-keys-file", str(keys), "--admin-keys-file", str(keys)) if guarded else ()
    options = ("--header", f"Authorization: Bearer {KEY}", "--header", f"X-API-Key: {KEY}") if guarded else ()
    # The demo model, because it can be asked where it looked.
    with serving(None, tmp_path, *PATIENT, *arguments) as server:
        said = ask_everything(server, tmp_path, examples, *options)
        assert server.errors() == []
        asked = [line for line in server.lines() if line["logger"] == "service.request"]
        statuses = Counter(line["status"] for line in asked)
        answered = {line["route"] for line in asked if line.get("method") == "POST" and line["status"] == 200}
        expected = {"/detect", "/segment", "/explain"} | ({"/model/reload"} if guarded else set())
        assert expected <= answered, "a run in which nothing is accepted would prove little"
    cases = re.search(r"(\d[\d,]*) generated", said)
    assert cases is not None
    measured(
        "S5", f"{'with keys' if guarded else 'open'}: {cases[1]} cases, 0 failures, {dict(sorted(statuses.items()))}"
    )
