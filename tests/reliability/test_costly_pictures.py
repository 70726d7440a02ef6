"""One picture cannot stop the service, however much work it was made to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reliability.conftest import Measured
from tests.reliability.costly_pictures import costly_uploads, measure_all
from tests.reliability.under_load import scaled
from tests.server_process import serving


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.row(id="S13")
def test_costly_pictures_harm_nobody(tmp_path: Path, measured: Measured) -> None:
    with serving(None, tmp_path) as server:
        verdict = measure_all(server, costly_uploads(), scaled(10), lambda line: measured("S13", line))
        assert server.errors() == []
    assert verdict.faults == []
    measured("S13", f"slower than promised: {'; '.join(verdict.slowdowns) or 'none'}")
