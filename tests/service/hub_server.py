"""`detr serve` where the import of what is on the hub is played: see `tests/model/hub/asking.py`.

Usage: python -m tests.service.hub_server ARTIFACT RECORD serve ...
"""

from __future__ import annotations

import sys

from tests.model.hub.asking import play_imports


def main() -> int:
    """Read the command line, play imports, and serve."""
    artifact, record, *words = sys.argv[1:]
    play_imports(artifact, record)
    from service import cli

    return cli.main(words)


if __name__ == "__main__":
    sys.exit(main())
