"""The pages of the documentation, and what stands in their code blocks.

A block of `bash` or `python` is run by a test. Where it cannot be, the comment before it says why, or
which test runs it:

    <!-- not run: it needs a GPU -->
    <!-- run by tests/end_to_end/test_docker.py -->
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
RUN_LANGUAGES = ("bash", "python")
# Shown, never run: what is printed, and parts of files.
SHOWN_LANGUAGES = ("text", "json", "yaml", "toml", "promql", "nginx", "console", "xml")

_BLOCK = re.compile(
    r"(?:^[ ]*<!--\s*(?P<note>(?:not run:|run by).*?)\s*-->\n\s*)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    """A code block of a page."""

    page: str  # relative to the repository
    line: int
    language: str
    text: str
    note: str  # why it is not run here, or which test runs it; mostly empty

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a block of bash, with lines that go on joined, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith("#")]


def pages() -> list[Path]:
    """The README, and everything under docs/."""
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@cache
def blocks() -> tuple[Block, ...]:
    """All code blocks of all pages."""
    return tuple(block for page in pages() for block in _blocks_of(page))


def _blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        indent = match["indent"]
        body = "".join(part.removeprefix(indent) for part in match["text"].splitlines(keepends=True))
        yield Block(str(page.relative_to(REPOSITORY)), line, match["language"], body, match["note"] or "")


def blocks_to_run(language: str) -> list[Block]:
    """Those of a language that nothing excuses and no other test runs."""
    return [block for block in blocks() if block.language == language and not block.note]


def commands(word: str) -> list[str]:
    """Every command that begins with a word, once, in the blocks that are run."""
    found = [line for block in blocks_to_run("bash") for line in block.commands if line.split()[0] == word]
    return list(dict.fromkeys(found))
