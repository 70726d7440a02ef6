"""What is raised where a checkpoint cannot be used."""


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message says why and names every key concerned."""
