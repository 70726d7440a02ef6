"""Graphs without weights, one for each preset, and the importer that fills them without torch."""
