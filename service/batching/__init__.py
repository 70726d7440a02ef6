"""From a prepared image to its outputs."""
