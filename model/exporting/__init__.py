"""From a network to the artifact, and the proof that both are the same."""
