"""What somebody may have meant by a word that is none of those that there are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to put behind the message, "; did you mean ...?", or nothing where no known word is near.

    Capitals, and dashes for underscores, count for nothing.
    """
    plain = {each.casefold().replace("_", "-"): each for each in known}
    near = get_close_matches(word.casefold().replace("_", "-"), plain, n=1, cutoff=0.7)
    return f"; did you mean {plain[near[0]]}?" if near else ""
