"""What is raised where a checkpoint cannot be used, and how text out of a file is made fit for a person's terminal."""

LONGEST_MESSAGE = 4000  # characters: room for the names of some hundred keys


def printable(text: object, longest: int = 80) -> str:
    """Text of unknown origin in one line: control codes and their like escaped, cut at so many characters.

    A checkpoint can hold any text where a name belongs, one that clears the screen or imitates a prompt included.
    """
    text = str(text)
    shown = " ".join(text[: longest + 1].split())[:longest]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f"{escaped}…" if len(text) > longest else escaped


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message says why, names every key concerned, and is one printable line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, LONGEST_MESSAGE))
